"""Twins, and what else is superseded although no dot says so.

Twins are versions of one write under several dots, because it was tried at several coordinators.
They are one write: superseding one supersedes all. And the plain puts of one client are in order:
a later one supersedes every earlier one, wherever they meet, also a twin of it that was stuck on
the other side of a partition. Dots cannot tell, so write ids do: their first eight bytes name the
client, and as bytes the ids of one client grow.

A version that replaces another client's writes remembers them in its extension: of the newest few
clients the last plain put, which stands for all before it, and the newest few explicit puts, which
stand for themselves alone (an explicit put leaves what its context does not cover). A twin that
comes late finds that it is replaced. And where a merge finds one version superseded, its twins and
what it stood for go with it. What goes is covered by its dot, so that from then on every merge
agrees, whichever order it has.

Laws: a version is buried only beside another write, which survives; burying twice changes nothing;
what is buried stays covered; among the plain puts of one client only the last survives. A client
sends all attempts of a write with the context of the first, which cannot cover them: so no twin
covers another.
Tests: tests/unit/core/test_twins.py, tests/sim/test_twins.py.
Source: design, section 2.2; docs/decisions/0011-puts-of-one-client-are-in-order.md. Left out: a
twin that comes when more clients, or more explicit puts, have been here than are remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from kvnode.core.versions import Context, Record, Version, join

CLIENTS_MAX = 4
"""How many clients' plain puts a version remembers to have replaced."""
EXPLICIT_MAX = 4
"""How many explicit puts."""
CLIENT_BYTES = 8
"""Of a write id: they name the client."""
_ID = 16
_TAG = 2
_HEAD_BYTES = 2
_AND_ITSELF = b"\0"
"""Appended to an id: a bound that the id itself is below."""


class Named(NamedTuple):
    """A write as far as its place in its client's order goes."""

    write_id: bytes
    is_explicit: bool


class Memory(NamedTuple):
    """What a version remembers to have replaced, newest first."""

    plain: tuple[bytes, ...] = ()
    """The last plain put of each client."""
    explicit: tuple[bytes, ...] = ()


_NOTHING = Memory()


def remember(new: Named, replaced: Iterable[Named], older: Iterable[bytes]) -> bytes:
    """Return the extension of a version that replaces others.

    Args:
        new: the version's own write.
        replaced: what it replaces, newest first.
        older: the extensions of these: what they replaced is replaced, too.
    """
    plain: dict[bytes, bytes] = {}
    explicit: dict[bytes, None] = {}
    for write_id, is_explicit in replaced:
        _note(plain, explicit, write_id, is_explicit=is_explicit)
    for memory in map(read_memory, older):
        for write_id in memory.plain:
            _note(plain, explicit, write_id, is_explicit=False)
        explicit.update(dict.fromkeys(memory.explicit))
    if not new.is_explicit:
        plain.pop(new.write_id[:CLIENT_BYTES], None)  # it stands for them by its own id
    return _pack(list(plain.values())[:CLIENTS_MAX], list(explicit)[:EXPLICIT_MAX])


def remember_one(new: Named, held: Named, extension: bytes) -> bytes:
    """What `remember` returns for one that is replaced, which nearly every put meets (measured: a
    third of its time); without a write id nothing is."""
    if not held.write_id:
        return b""
    is_plain = not (new.is_explicit or held.is_explicit)
    if not is_plain or (extension and not _is_all_plain(extension)):
        return remember(new, (held,), (extension,))
    own, other = new.write_id[:CLIENT_BYTES], held.write_id[:CLIENT_BYTES]
    if not extension:
        return b"" if own == other else _pack([held.write_id], [])
    ids = [] if own == other else [held.write_id]
    for at in range(_HEAD_BYTES, len(extension), _ID):
        client = extension[at : at + CLIENT_BYTES]
        if client not in (own, other):
            ids.append(extension[at : at + _ID])
    return _pack(ids[:CLIENTS_MAX], [])


def read_memory(extension: bytes) -> Memory:
    """Return what an extension says; nothing if it is none of ours."""
    if extension[:1] != bytes((_TAG,)) or len(extension) % _ID != _HEAD_BYTES:
        return _NOTHING
    ids = [extension[at : at + _ID] for at in range(_HEAD_BYTES, len(extension), _ID)]
    return Memory(tuple(ids[: extension[1]]), tuple(ids[extension[1] :]))


def is_behind(write: Named, held: Named, extension: bytes) -> bool:
    """Say whether a version that is held, with this extension, has replaced a write or a later one
    of its client."""
    if not (write.is_explicit or held.is_explicit) and _is_earlier(write, held.write_id):
        return True
    client = write.write_id[:CLIENT_BYTES]
    if not extension or client not in extension:
        return False
    memory = read_memory(extension)
    if write.is_explicit:
        return write.write_id in memory.explicit
    return any(write.write_id <= last for last in memory.plain if last.startswith(client))


def has_replaced(record: Record, write: Named) -> bool:
    """Say whether a survivor has replaced that write, or a later one of its client."""
    return any(is_behind(write, named(held), held.extension) for held in record.versions)


def named(version: Version) -> Named:
    """Return the write that a version is of."""
    return Named(version.write_id, version.is_explicit)


def bury_twins(merged: Record, *sources: Record) -> Record:
    """Return what is left of a merge of `sources` once what is superseded by name is gone."""
    alive = {version.dot for version in merged.versions}
    bounds: dict[bytes, bytes] = {}
    explicit: set[bytes] = set()
    for source in sources:
        for version in source.versions:
            _bury_behind(version, version.dot in alive, bounds, explicit)
    gone = frozenset(
        version.dot
        for version in merged.versions
        if (
            version.write_id in explicit
            if version.is_explicit
            else version.write_id < bounds.get(version.write_id[:CLIENT_BYTES], b"")
        )
    )
    if not gone or len(gone) == len(alive):
        return merged  # nothing is left that could have replaced it
    return Record(
        join(merged.context, Context({}, gone)),
        tuple(version for version in merged.versions if version.dot not in gone),
        tuple(vote for vote in merged.votes if vote.dot not in gone),
    )


def _bury_behind(
    version: Version, is_alive: bool, bounds: dict[bytes, bytes], explicit: set[bytes]
) -> None:
    """Raise the bound below which a client's plain puts are superseded, by what one version says,
    and name the explicit puts that are."""
    memory = read_memory(version.extension) if version.extension else _NOTHING
    ends: Sequence[bytes] = [last + _AND_ITSELF for last in memory.plain]
    explicit.update(memory.explicit)
    if not version.is_explicit:
        ends = [*ends, version.write_id if is_alive else version.write_id + _AND_ITSELF]
    elif not is_alive:
        explicit.add(version.write_id)
    for end in ends:
        client = end[:CLIENT_BYTES]
        if bounds.get(client, b"") < end:
            bounds[client] = end


def _is_all_plain(extension: bytes) -> bool:
    return extension[0] == _TAG and len(extension) == _HEAD_BYTES + _ID * extension[1]


def _is_earlier(write: Named, end: bytes) -> bool:
    return write.write_id[:CLIENT_BYTES] == end[:CLIENT_BYTES] and write.write_id < end


def _note(
    plain: dict[bytes, bytes], explicit: dict[bytes, None], write_id: bytes, *, is_explicit: bool
) -> None:
    if is_explicit:
        explicit[write_id] = None
        return
    client = write_id[:CLIENT_BYTES]
    plain[client] = max(write_id, plain.get(client, b""))


def _pack(plain: list[bytes], explicit: list[bytes]) -> bytes:
    if not plain and not explicit:
        return b""
    return bytes((_TAG, len(plain))) + b"".join((*plain, *explicit))
