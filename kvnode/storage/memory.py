"""The engine in memory: what tests give a node in the place of RocksDB.

It keeps what a disk would keep: `crash` takes back what was not flushed, or all but a part of it,
as a log does that was cut somewhere in its unsynced end. Faults are injected through `faults`, and
through what its `spaces` cannot read.

Laws: those of the port (tests/unit/storage/test_engines.py), and tests/unit/storage/test_memory.py.
Cost: O(log n) a change; an unflushed write also keeps the values that it replaced.
Left out: stalls and free space other than injected ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from kvnode.core.batch import Change, Family, WriteBatch
from kvnode.storage.port import (
    Found,
    Position,
    StorageFenced,
    StorageFull,
    StorageStalled,
)
from kvnode.storage.spaces import Spaces


@dataclass(slots=True)
class Faults:
    """What goes wrong in this engine; tests set and clear the fields as they like."""

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
        self.spaces = Spaces()
        # For each unflushed write, what takes it back.
        self._undo: list[list[Change]] = []
        # The event loop writes while the storage thread flushes.
        self._lock = Lock()

    @property
    def is_full(self) -> bool:
        """Whether the injected disk is full."""
        return self.faults.is_full

    def multi_get(self, family: Family, keys: Sequence[bytes]) -> list[Found]:
        """Return what is stored under each key; see the port."""
        return self.spaces.multi_get(family, keys)

    def write(self, batch: WriteBatch) -> Position:
        """Apply the batch at once, not yet durably; see the port."""
        self._refuse_by_fault()
        with self._lock:
            self._undo.append(self.spaces.apply(batch.changes))
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
        pairs, error = self.spaces.scan(family, start, end, limit)
        if error is not None:
            raise error
        return pairs

    def approximate_count(self) -> int:
        """Return how many records there are."""
        return self.spaces.count()

    def size_bytes(self) -> int:
        """Return how many bytes the keys and values have. Cost: O(n)."""
        return self.spaces.size_bytes()

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
                self.spaces.take_back(self._undo.pop())
            self._undo.clear()
        self.written = self.durable = Position(0)
        self.fenced = None

    def _refuse_by_fault(self) -> None:
        if self.fenced is not None:
            raise StorageFenced(self.fenced)
        if self.faults.is_stalled:
            raise StorageStalled("injected")
        if self.faults.is_full:
            raise StorageFull("injected")
