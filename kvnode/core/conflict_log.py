"""The conflict log: versions that lost a settled conflict, kept for people for a while.

    key    u64 time, ms since 1970, big-endian | storage key | u64 actor, u64 counter, big-endian
    value  u8 format = 1 | u64 actor, u64 counter, u64 timestamp of the winner | u16 bytes of rule
           | rule, UTF-8 | the loser as a record by itself, with the votes that it had

An entry is enough to show what was lost to what, and to put the value back. It is written before
anything is pruned, so a conflict that a crash kept from being pruned may have entries too.

Laws: decode inverts encode; the counts are those of a fresh count of both families, but for an
entry that was crowded out of memory before it was logged again; bytes never exceed
`conflict_log_bytes`.
Tests: tests/unit/core/test_conflict_log.py. Source: design, section 2.5.
Left out: when an entry is made (settling), and listing them (kvnode.runtime).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.bounds import LOGGED_NAMES_MAX
from kvnode.core.hlc import Timestamp
from kvnode.core.keys import StorageKey, is_storage_key
from kvnode.core.record import DamagedRecord, decode, encode
from kvnode.core.versions import Context, Dot, Record, find

FORMAT = 1
_TIME = struct.Struct(">Q")
_DOT = struct.Struct(">QQ")
_HEAD = struct.Struct("<BQQQH")


class DamagedEntry(Exception):
    """These bytes are no entry of the log."""


class Entry(NamedTuple):
    """One version that lost."""

    time_ms: int
    """When it was settled, ms since 1970, by the node that settled it."""
    key: StorageKey
    winner: Dot
    winner_timestamp: Timestamp
    rule: str
    """One line for people: which rule decided."""
    loser: Record
    """One version, with its votes."""


def entry_of(
    record: Record, key: StorageKey, *, time_ms: int, winner: Dot, loser: Dot, rule: str
) -> Entry:
    """Return the entry for one loser of a record that holds both."""
    won, lost = find(record, winner), find(record, loser)
    assert won is not None and lost is not None
    votes = tuple(vote for vote in record.votes if vote.dot == loser)
    alone = Record(Context({}, frozenset((loser,))), (lost,), votes)
    return Entry(time_ms, key, winner, won.timestamp, rule, alone)


def encode_entry(entry: Entry) -> tuple[bytes, bytes]:
    """Return the entry's key and value."""
    (loser,) = entry.loser.versions
    rule = entry.rule.encode()
    head = _HEAD.pack(FORMAT, *entry.winner, entry.winner_timestamp, len(rule))
    name = _TIME.pack(entry.time_ms) + entry.key + _DOT.pack(*loser.dot)
    return name, head + rule + encode(entry.key, entry.loser)


def decode_entry(name: bytes, value: bytes) -> Entry:
    """Return the entry of a key and a value.

    Raises:
        DamagedEntry: they are none, or of an unknown format, or a checksum differs.
    """
    key = StorageKey(name[_TIME.size : -_DOT.size])
    try:
        (time_ms,) = _TIME.unpack_from(name)
        form, actor, counter, timestamp, length = _HEAD.unpack_from(value)
        rule = value[_HEAD.size : _HEAD.size + length].decode()
        if form != FORMAT or not is_storage_key(key):
            raise DamagedEntry(f"format {form}, key of {len(name)} bytes")
        loser = decode(key, value[_HEAD.size + length :])
    except (struct.error, UnicodeDecodeError, DamagedRecord) as exc:
        raise DamagedEntry(f"entry of {len(value)} bytes: {exc}") from exc
    if len(loser.versions) != 1:
        raise DamagedEntry(f"{len(loser.versions)} versions in an entry")
    return Entry(time_ms, key, Dot(actor, counter), Timestamp(timestamp), rule, loser)


def end_before(time_ms: int) -> bytes:
    """Return the end of the range of entries older than this."""
    return _TIME.pack(max(0, time_ms))


class ConflictLog:
    """How many conflicts of one node are open, and what its log holds."""

    __slots__ = ("_bytes_max", "_recent", "bytes", "changes", "entries", "open")

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._recent: dict[bytes, None] = {}
        """Names of the last entries: one that is logged again is no second one."""
        self.open = 0
        """Records here whose survivors differ in value."""
        self.changes = 0
        """How often that number has changed: a count that spans one is none."""
        self.entries = 0
        self.bytes = 0
        """Of the entries' keys and values."""

    def load(self, conflicts: int, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Count what earlier lives left: keys of Family.CONFLICTS, and the log's entries. Costs a
        look at every entry."""
        self.open = conflicts
        for name, value in entries:
            self.entries += 1
            self.bytes += len(name) + len(value)
            self._remember(name)

    def note_open(self, change: int) -> None:
        """A record's survivors have come to differ (1), or differ no more (-1)."""
        if change:
            self.changes += 1
            self.open = max(0, self.open + change)

    def add(self, batch: WriteBatch, entries: Iterable[Entry]) -> bool:
        """Put entries into the batch; returns whether there was room for all of them."""
        pairs = [encode_entry(entry) for entry in entries]
        new = [pair for pair in pairs if pair[0] not in self._recent]
        size = sum(len(name) + len(value) for name, value in new)
        if self.bytes + size > self._bytes_max:
            return False
        for name, value in new:
            batch.put(Family.CONFLICT_LOG, name, value)
            self._remember(name)
        self.entries += len(new)
        self.bytes += size
        return True

    def purge(self, batch: WriteBatch, pairs: Iterable[tuple[bytes, bytes]]) -> int:
        """Take entries out; returns how many."""
        count = 0
        for name, value in pairs:
            batch.delete(Family.CONFLICT_LOG, name)
            self.bytes -= len(name) + len(value)
            count += 1
        self.entries -= count
        assert self.entries >= 0 and self.bytes >= 0
        return count

    def _remember(self, name: bytes) -> None:
        self._recent[name] = None
        if len(self._recent) > LOGGED_NAMES_MAX:
            del self._recent[next(iter(self._recent))]
