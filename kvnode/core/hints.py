"""Hints: writes that this node keeps for owners that could not be reached, one entry for each
(owner, key), in a family of their own.

A stand-in plays the absent owner's part: what it takes is merged as that owner would merge it
(a plain put supersedes what is older), but it casts no vote and touches no floor, for it owns
nothing of the key. What it holds counts in reads; that it holds nothing says nothing.

    key    u32 owner, big-endian | storage key
    value  u8 format = 1 | u64 created, ms since 1970 | u8 w | encoded record

Laws: an entry leaves only when its owner has it durably, or (too old) when w owners do, or when its
own bytes are damaged; nothing is taken beyond `hint_bytes`, and what does not fit is refused; the
ledger's figures are those of a fresh count, and a newer write for an entry under delivery keeps the
entry.
Tests: tests/unit/core/test_hints.py; as whole clusters: tests/sim/test_hints.py.
Source: Dynamo (SOSP 2007), section 4.6; design, section 2.7.
Left out: delivering them (kvnode.core.handoff), choosing stand-ins (kvnode.core.coordinator).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import NamedTuple

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.keys import StorageKey
from kvnode.core.messages import NodeNumber
from kvnode.core.record import DamagedRecord, Encoded, decode, encode
from kvnode.core.versions import EMPTY, Record, sync

FORMAT = 1
_OWNER = struct.Struct(">I")
_HEAD = struct.Struct("<BQB")


class UnreadableHint(Exception):
    """An entry cannot be read: abstain."""


class HintsFull(Exception):
    """One more entry would exceed the bound on bytes."""


class Hint(NamedTuple):
    """One entry."""

    created_ms: int
    """When the oldest write in it was taken, by this node's clock."""
    w: int
    """How many owners must hold it before it may be given up for its age."""
    record: Encoded


class _Sent(NamedTuple):
    """What must be known of an entry to take it out once its delivery is acknowledged."""

    request: int
    size: int
    created_ms: int


@dataclass(slots=True)
class Ledger:
    """What is kept for one owner, and what became of the rest in this life of the node."""

    pending: int = 0
    bytes: int = 0
    delivered: int = 0
    aged: int = 0
    """Given up for their age, with w owners holding them."""
    damaged: int = 0
    """Lost to the disk: their checksums failed."""
    refused: int = 0
    """Writes that did not fit."""
    by_second: dict[int, int] = field(default_factory=dict)
    """How many entries were created in each second."""

    @property
    def oldest_ms(self) -> int:
        """When the oldest entry was created, to the second; 0 if there is none."""
        return 1_000 * min(self.by_second, default=0)


def hint_key(owner: NodeNumber, key: StorageKey) -> bytes:
    """Return the entry's key."""
    return _OWNER.pack(owner) + key


def split_hint_key(data: bytes) -> tuple[NodeNumber, StorageKey]:
    """Return the owner and the storage key of an entry's key."""
    return _OWNER.unpack_from(data)[0], StorageKey(data[_OWNER.size :])


def owner_bounds(owner: NodeNumber) -> tuple[bytes, bytes]:
    """Return the range [first, end) of an owner's entries."""
    return _OWNER.pack(owner), _OWNER.pack(owner + 1)


def encode_hint(hint: Hint) -> bytes:
    """Return an entry's value."""
    return _HEAD.pack(FORMAT, hint.created_ms, hint.w) + hint.record


def decode_hint(data: bytes) -> Hint:
    """Return the entry. Raises: UnreadableHint, for another format or fewer bytes than a head."""
    if len(data) < _HEAD.size or data[0] != FORMAT:
        raise UnreadableHint
    _, created_ms, w = _HEAD.unpack_from(data)
    return Hint(created_ms, w, Encoded(data[_HEAD.size :]))


class Hints:
    """The entries of one node: those of a turn are handed in, the ledger is kept throughout."""

    __slots__ = (
        "_batch",
        "_bytes",
        "_bytes_max",
        "_found",
        "_sent",
        "_unreadable",
        "_wall_ms",
        "ledgers",
    )

    def __init__(self, *, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._found: dict[bytes, bytes | None] = {}
        self._unreadable: Set[bytes] = frozenset()
        self._batch = WriteBatch()
        self._wall_ms = 0
        self.ledgers: dict[NodeNumber, Ledger] = {}
        self._sent: dict[bytes, _Sent] = {}

    def load(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Count what earlier lives left. Costs a look at every entry."""
        for key, value in entries:
            try:
                hint = decode_hint(value)
            except UnreadableHint:
                continue
            self._enter(key, len(value), hint.created_ms)

    def begin(
        self,
        found: Mapping[bytes, bytes | None],
        unreadable: Set[bytes],
        batch: WriteBatch,
        wall_ms: int,
    ) -> None:
        """Start a turn with the entries that it needs; changes go to its batch."""
        self._found = dict(found)
        self._unreadable = unreadable
        self._batch = batch
        self._wall_ms = wall_ms

    @property
    def pending(self) -> int:
        """How many entries are kept."""
        return sum(ledger.pending for ledger in self.ledgers.values())

    def pending_for(self, owner: NodeNumber) -> int:
        """Return how many entries are kept for one owner."""
        ledger = self.ledgers.get(owner)
        return 0 if ledger is None else ledger.pending

    def has_fetched(self, owner: NodeNumber, key: StorageKey) -> bool:
        """Say whether this turn sees the entry, or that it cannot be read."""
        name = hint_key(owner, key)
        return name in self._found or name in self._unreadable

    def held(self, key: StorageKey, owners: Sequence[NodeNumber]) -> Record:
        """Return all that is kept of a key, whichever of these owners it is for.

        Raises:
            UnreadableHint: of something that is kept nobody knows what it is.
        """
        held = EMPTY
        for owner in owners:
            record = self._record(hint_key(owner, key), key)
            held = record if held is EMPTY else sync(held, record)
        return held

    def keep(self, owner: NodeNumber, key: StorageKey, record: Record, *, w: int) -> Encoded:
        """Store what is to be kept for an owner in place of what was.

        Raises:
            HintsFull: nothing was changed.
        """
        name = hint_key(owner, key)
        old = self._found.get(name)
        created_ms = decode_hint(old).created_ms if old else self._wall_ms
        w = max(w, decode_hint(old).w) if old else w
        encoded = encode(key, record)
        value = encode_hint(Hint(created_ms, w, encoded))
        growth = len(value) - len(old or b"")
        if growth > 0 and self._bytes + growth > self._bytes_max:
            self._ledger(owner).refused += 1
            raise HintsFull
        if old:
            self._strike(name, len(old), created_ms)
        self._enter(name, len(value), created_ms)
        self._found[name] = value
        self._sent.pop(name, None)
        self._batch.put(Family.HINTS, name, value)
        return encoded

    def current(self, name: bytes) -> Hint | None:
        """Return an entry of this turn as it is now, or None if it is gone or cannot be read."""
        value = self._found.get(name)
        try:
            return decode_hint(value) if value else None
        except UnreadableHint:
            return None

    def is_sent(self, name: bytes) -> bool:
        """Say whether a request with this very state is under way."""
        return name in self._sent

    def note_sent(self, name: bytes, request: int) -> None:
        """A request carries the entry as it is in this turn."""
        value = self._found[name]
        assert value is not None
        self._sent[name] = _Sent(request, len(value), decode_hint(value).created_ms)

    def forget_sent(self, name: bytes, request: int) -> None:
        """That request came to nothing: the entry may be sent again."""
        sent = self._sent.get(name)
        if sent is not None and sent.request == request:
            del self._sent[name]

    def on_delivered(self, name: bytes, request: int) -> None:
        """An owner holds durably what that request carried. The entry stays if a newer write was
        taken meanwhile."""
        if self._remove(name, request):
            self._ledger(split_hint_key(name)[0]).delivered += 1

    def give_up(self, name: bytes, request: int) -> None:
        """Drop an entry for its age: w owners hold what that request asked about."""
        if self._remove(name, request):
            self._ledger(split_hint_key(name)[0]).aged += 1

    def drop_damaged(self, name: bytes) -> None:
        """Drop an entry of this turn that is not what was written: no owner could take it."""
        value = self._found.get(name)
        assert value is not None
        self._strike(name, len(value), decode_hint(value).created_ms)
        self._found[name] = None
        self._batch.delete(Family.HINTS, name)
        self._ledger(split_hint_key(name)[0]).damaged += 1

    def check(self) -> None:
        """Assert that the ledger adds up."""
        assert self._bytes == sum(ledger.bytes for ledger in self.ledgers.values())
        assert self._bytes >= 0  # above the bound only where the bound was lowered since
        for ledger in self.ledgers.values():
            assert ledger.pending == sum(ledger.by_second.values()) >= 0
            assert all(count > 0 for count in ledger.by_second.values())

    def _record(self, name: bytes, key: StorageKey) -> Record:
        if name in self._unreadable:
            raise UnreadableHint
        value = self._found.get(name)
        if not value:
            return EMPTY
        try:
            return decode(key, decode_hint(value).record)
        except DamagedRecord as exc:
            raise UnreadableHint from exc

    def _remove(self, name: bytes, request: int) -> bool:
        sent = self._sent.get(name)
        if sent is None or sent.request != request:
            return False
        del self._sent[name]
        self._strike(name, sent.size, sent.created_ms)
        self._found[name] = None
        self._batch.delete(Family.HINTS, name)
        return True

    def _ledger(self, owner: NodeNumber) -> Ledger:
        return self.ledgers.setdefault(owner, Ledger())

    def _enter(self, name: bytes, size: int, created_ms: int) -> None:
        self._bytes += size
        ledger = self._ledger(split_hint_key(name)[0])
        ledger.pending += 1
        ledger.bytes += size
        second = created_ms // 1_000
        ledger.by_second[second] = ledger.by_second.get(second, 0) + 1

    def _strike(self, name: bytes, size: int, created_ms: int) -> None:
        self._bytes -= size
        ledger = self._ledger(split_hint_key(name)[0])
        ledger.pending -= 1
        ledger.bytes -= size
        second = created_ms // 1_000
        ledger.by_second[second] -= 1
        if not ledger.by_second[second]:
            del ledger.by_second[second]
