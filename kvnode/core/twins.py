"""Twins: versions of one write under several dots, because it was tried at several coordinators.

They are one write: superseding one supersedes all. Dots cannot tell, so write ids do, in two ways.
A version remembers which writes it replaced (their ids' first eight bytes, the newest few, in its
extension): a twin that comes late, from a coordinator that was stopped, finds that it is replaced.
And where a merge finds one twin superseded, the others go with it. What goes is covered by its dot,
so that from then on every merge agrees, whichever order it has.

Laws: a version is buried only beside another write, which survives; burying twice changes nothing;
what is buried stays covered. A client sends all attempts of a write with the context of the first,
which cannot cover them: so no twin covers another.
Tests: tests/unit/core/test_twins.py, tests/sim/test_twins.py.
Source: design, section 2.2. Left out: a twin that comes after more writes than are remembered.
"""

from __future__ import annotations

from collections.abc import Iterable

from kvnode.core.versions import Context, Record, Version, join

REPLACED_MAX = 4
"""How many replaced writes a version remembers."""
_HEAD = 8
"""Bytes of a write id; ids are random."""
_TAG = b"\x01"


def remember(ids: Iterable[bytes], older: bytes) -> bytes:
    """Return the extension of a version that replaces these writes.

    Args:
        ids: the write ids of what it replaces.
        older: the extension of one of them: what that one replaced is replaced, too.
    """
    heads = b"".join(write_id[:_HEAD] for write_id in ids)
    if older[:1] == _TAG:
        heads += older[1:]
    return _TAG + heads[: _HEAD * REPLACED_MAX] if heads else b""


def replaced_by(version: Version) -> list[bytes]:
    """Return the heads of the write ids that a version remembers to have replaced."""
    memory = version.extension
    if memory[:1] != _TAG:
        return []
    return [memory[at : at + _HEAD] for at in range(1, len(memory), _HEAD)]


def has_replaced(record: Record, write_id: bytes) -> bool:
    """Say whether a survivor remembers to have replaced that write."""
    head = write_id[:_HEAD]
    return any(head in replaced_by(version) for version in record.versions)


def bury_twins(merged: Record, *sources: Record) -> Record:
    """Return what is left of a merge of `sources` once twins of superseded versions are gone."""
    alive = {version.dot for version in merged.versions}
    dead = set()
    for source in sources:
        for version in source.versions:
            if version.extension:
                dead.update(replaced_by(version))
            if version.dot not in alive:
                dead.add(version.write_id[:_HEAD])
    gone = frozenset(v.dot for v in merged.versions if v.write_id[:_HEAD] in dead)
    if not gone or len(gone) == len(alive):
        return merged  # nothing is left that could have replaced it
    return Record(
        join(merged.context, Context({}, gone)),
        tuple(version for version in merged.versions if version.dot not in gone),
        tuple(vote for vote in merged.votes if vote.dot not in gone),
    )
