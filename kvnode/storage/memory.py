"""The engine in memory, for tests, the simulator and nodes whose data may be lost.

It keeps what a disk would keep: `crash` takes back what was not flushed, or all but a part of it,
as a log does that was cut somewhere in its unsynced end. Faults are injected through `faults`.

Laws: those of the port (tests/unit/storage/test_engines.py), and tests/unit/storage/test_memory.py.
Cost: O(log n) a change; an unflushed write also keeps the values that it replaced.
Left out: stalls and free space other than injected ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock

from sortedcontainers import SortedDict

from kvnode.core.batch import Change, Family, WriteBatch
from kvnode.storage.port import (
    Found,
    Position,
    ReadFailure,
    StorageDamaged,
    StorageFenced,
    StorageFull,
    StorageStalled,
)


@dataclass(slots=True)
class Faults:
    """What goes wrong in this engine; tests set and clear the fields as they like."""

    unreadable: set[tuple[Family, bytes]] = field(default_factory=set)
    """Keys that fail to read, alone and in scans, until they are written again."""
    is_stalled: bool = False
    """Writes raise `StorageStalled`."""
    is_full: bool = False
    """Writes raise `StorageFull`."""
    fails_next_flush: bool = False
    """The next flush meets an error, which fences the engine."""


class MemoryEngine:
    """An engine whose durable image is an object in memory."""

    def __init__(self) -> None:
        """Start empty."""
        self.faults = Faults()
        self.damage: tuple[str, ...] = ()
        self.fenced: str | None = None
        self.written = Position(0)
        self.durable = Position(0)
        self._families: list[SortedDict[bytes, bytes]] = [SortedDict() for _ in Family]
        # For each unflushed write, the changes that take it back.
        self._undo: list[list[Change]] = []
        # The event loop writes while the storage thread flushes.
        self._lock = Lock()

    @property
    def is_full(self) -> bool:
        """Whether the injected disk is full."""
        return self.faults.is_full

    def multi_get(self, family: Family, keys: Sequence[bytes]) -> list[Found]:
        """Return what is stored under each key; see the port."""
        values = self._families[family]
        if not self.faults.unreadable:
            return [values.get(key) for key in keys]
        return [
            ReadFailure("injected") if self._is_unreadable(family, key) else values.get(key)
            for key in keys
        ]

    def write(self, batch: WriteBatch) -> Position:
        """Apply the batch at once, not yet durably; see the port."""
        self._refuse_by_fault()
        with self._lock:
            self._undo.append(self._apply(batch.changes))
            position = self.written = Position(self.written + 1)
        return position

    def flush(self) -> Position:
        """Make everything written before the call durable; see the port."""
        if self.faults.fails_next_flush:
            self.faults.fails_next_flush = False
            self.fenced = self.fenced or "IO error: injected"
        if self.fenced is not None:
            raise StorageFenced(self.fenced)
        with self._lock:
            self._undo.clear()
            self.durable = self.written
        return self.durable

    def forget_damage(self) -> None:
        """Forget what tests said was lost."""
        self.damage = ()

    def scan(
        self, family: Family, start: bytes, end: bytes | None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Return a slice of `family`; see the port."""
        assert limit > 0
        values = self._families[family]
        pairs: list[tuple[bytes, bytes]] = []
        for key in values.irange(start, end, inclusive=(True, False)):
            if len(pairs) == limit:
                break
            if self._is_unreadable(family, key):
                raise StorageDamaged("Corruption: injected")
            pairs.append((key, values[key]))
        return pairs

    def approximate_count(self) -> int:
        """Return how many records there are."""
        return len(self._families[Family.RECORDS])

    def size_bytes(self) -> int:
        """Return how many bytes the keys and values have. Cost: O(n)."""
        return sum(len(k) + len(v) for values in self._families for k, v in values.items())

    def close(self, clean: bool = True) -> None:
        """Flush when `clean`; then take no more writes until `reopen` or `crash`."""
        try:
            if clean and self.fenced is None:
                self.flush()
        finally:
            self.fenced = self.fenced or "the store is closed"

    def reopen(self) -> None:
        """Be opened anew after `close`: what is visible now was on the disk all along."""
        self.crash(keep=len(self._undo))

    def crash(self, *, keep: int = 0) -> None:
        """Lose what was not flushed but for its first `keep` writes, and be opened anew."""
        with self._lock:
            while len(self._undo) > keep:
                self._apply(self._undo.pop())
            self._undo.clear()
        self.written = self.durable = Position(0)
        self.fenced = None

    def _apply(self, changes: list[Change]) -> list[Change]:
        """Carry out `changes` in order; return those that take them back, in order."""
        undo: list[Change] = []
        for family, key, value in changes:
            values = self._families[family]
            undo.append((family, key, values.get(key)))
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value
            self.faults.unreadable.discard((family, key))
        undo.reverse()
        return undo

    def _refuse_by_fault(self) -> None:
        if self.fenced is not None:
            raise StorageFenced(self.fenced)
        if self.faults.is_stalled:
            raise StorageStalled("injected")
        if self.faults.is_full:
            raise StorageFull("injected")

    def _is_unreadable(self, family: Family, key: bytes) -> bool:
        return (family, key) in self.faults.unreadable
