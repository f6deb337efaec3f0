"""One node's disk: an engine with a page cache, a log and tables, and what can become of them.

What it decides: what is left after power was lost, after bits flipped, after a sync failed. Writes
go to the log, and are visible at once; a flush makes them durable; from time to time, and at each
opening, what the log says is in the tables. Power takes pages of what was not synced, by chance,
and tears the last one that it leaves: what counts then is what precedes the first gap, and if
something follows the gap, that is damage, as an opening of the real store would tell.
A bit that flips in the log's synced part is found at the next opening, which keeps what precedes
it; one in the tables makes a block of keys unreadable; one behind the checksums of blocks (in
memory, say) gives a record other bytes.

Laws (tests/sim/test_disk.py): a crash keeps a prefix of the writes, all that was synced in it; a
key that cannot be read is a failure, never an absence; nothing here draws chance but what it is
handed. Left out: bytes of the log itself (lengths are enough), compactions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kvnode.core.batch import Change, Family, WriteBatch
from kvnode.storage.port import (
    Found,
    Position,
    StorageDamaged,
    StorageFenced,
    StorageFull,
    StorageStalled,
)
from kvnode.storage.spaces import Space, Spaces

PAGE_BYTES = 512
"""What a disk writes or loses as a whole."""
_LOG_BYTES = 32_768
"""What the log holds before its writes are in the tables."""
_ENTRY_BYTES = 24
"""Of a log's record, beyond keys and values."""
_CHANGE_BYTES = 8
_BLOCK_KEYS = 4
"""Keys of one block, at most: they become unreadable together."""
_KEEP_SHARES = (0.0, 0.3, 0.7, 0.95, 1.0)


class Image(NamedTuple):
    """All that a disk holds at one instant."""

    families: tuple[Space, ...]
    damage: tuple[str, ...]
    is_clean: bool


@dataclass(slots=True)
class _Logged:
    """A write that is in the log alone."""

    size: int
    undo: list[Change]


class Disk:
    """An engine (kvnode.storage.port) that outlives the lives of its node."""

    def __init__(self) -> None:
        """Begin empty."""
        self.damage: tuple[str, ...] = ()
        self.fenced: str | None = None
        self.written = Position(0)
        self.durable = Position(0)
        self.sync_us = 3_000
        """How long a flush takes."""
        self.noise_us = 0
        """By how much longer a flush may take, by chance."""
        self.fails_next_sync = False
        self.is_full = False
        """Free space is below the watermark: puts are refused by the node."""
        self.is_exhausted = False
        """The reserve is used up, too: writes raise `StorageFull`."""
        self.is_stalled = False
        """Writes raise `StorageStalled`."""
        self.is_clean = False
        """The folder's marker of a clean stop."""
        self.rebuild_asked = ""
        """Why the next opening is to rebuild it."""
        self.spaces = Spaces()
        self._log: list[_Logged] = []
        self._synced = 0
        """How many of these a flush has made durable."""
        self._log_bytes = 0
        self._flipped: int | None = None
        """The first of these that is not what was written."""

    # ---- the port ------------------------------------------------------------------------

    def multi_get(self, family: Family, keys: Sequence[bytes]) -> list[Found]:
        """Return what is stored under each key; see the port."""
        return self.spaces.multi_get(family, keys)

    def scan(
        self, family: Family, start: bytes, end: bytes | None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Return a slice of `family`; see the port."""
        pairs, error = self.scan_what_reads(family, start, end, limit)
        if error is not None:
            raise error
        return pairs

    def scan_what_reads(
        self, family: Family, start: bytes, end: bytes | None, limit: int
    ) -> tuple[list[tuple[bytes, bytes]], StorageDamaged | None]:
        """Return the pairs up to the first that cannot be read, and why it cannot."""
        return self.spaces.scan(family, start, end, limit)

    def write(self, batch: WriteBatch) -> Position:
        """Apply the batch at once, not yet durably; see the port."""
        if self.fenced is not None:
            raise StorageFenced(self.fenced)
        if self.is_stalled:
            raise StorageStalled("injected")
        if self.is_exhausted:
            raise StorageFull("injected")
        size = _ENTRY_BYTES + _CHANGE_BYTES * len(batch.changes)
        for _, key, value in batch.changes:
            size += len(key) + len(value or b"")
        self._log.append(_Logged(size, self.spaces.apply(batch.changes)))
        self._log_bytes += size
        self.written = Position(self.written + 1)
        return self.written

    def flush(self) -> Position:
        """Make everything written before the call durable; see the port."""
        return self.sync(self.written)

    def sync(self, position: int) -> Position:
        """End a flush that began when `position` was the newest write."""
        if self.fails_next_sync:
            self.fails_next_sync = False
            self.fenced = self.fenced or "IO error: injected"
        if self.fenced is not None:
            raise StorageFenced(self.fenced)
        self._synced = max(self._synced, len(self._log) - (self.written - position))
        self.durable = Position(max(self.durable, position))
        if self._log_bytes > _LOG_BYTES and self._flipped is None:
            self._checkpoint()
        return self.durable

    def forget_damage(self) -> None:
        """Forget what was lost; see the port."""
        self.damage = ()

    def approximate_count(self) -> int:
        """Return how many records there are."""
        return self.spaces.count()

    def size_bytes(self) -> int:
        """Return how many bytes the keys and values have. Cost: O(n)."""
        return self.spaces.size_bytes()

    def close(self, clean: bool = True) -> None:
        """Flush when `clean`; then take no more writes until `open`."""
        try:
            if clean and self.fenced is None:
                self.flush()
        finally:
            self.fenced = self.fenced or "the store is closed"

    # ---- between two lives ---------------------------------------------------------------

    def open(self) -> None:
        """Be opened by a new life: what the log says is in the tables, as far as it can be read."""
        if self._flipped is not None and self._flipped < len(self._log):
            kept = self._flipped
            what = f"log: {len(self._log) - kept} writes behind a flipped bit were dropped"
            self._take_back(kept)
            self.damage = (*self.damage, what)
        self._move_to_tables()
        self.written = self.durable = Position(0)
        self.fenced = None

    def take_clean_stop(self) -> bool:
        """Return whether the last stop was clean, and forget it."""
        was_clean, self.is_clean = self.is_clean, False
        return was_clean

    def crash(self, chance: random.Random, *, keeps: bool = True) -> int:
        """Lose power: chance says which pages of the unsynced part are left, if any. Returns how
        many unsynced writes are left."""
        left, has_gap = self._left_of_log(chance) if keeps else (self._synced, False)
        left = max(left, self._synced)
        dropped = len(self._log) - left
        if has_gap and dropped and self._flipped is None:
            self.damage = (*self.damage, f"log: a gap; {dropped} writes behind it were dropped")
        synced, self._synced = self._synced, left
        self._take_back(left)
        return left - synced

    def image(self) -> Image:
        """Return a copy of all that is there now (what a backup of a running node would have)."""
        families = tuple(family.copy() for family in self.spaces.families)
        return Image(families, self.damage, self.is_clean)

    def restore(self, image: Image) -> None:
        """Hold what an image says, and nothing else. Nobody has it open."""
        self.wipe()
        self.spaces = Spaces(family.copy() for family in image.families)
        self.damage, self.is_clean = image.damage, image.is_clean

    def wipe(self) -> None:
        """Hold nothing. Nobody has it open."""
        self.spaces = Spaces()
        self._log, self._synced, self._log_bytes, self._flipped = [], 0, 0, None
        self.damage, self.is_clean, self.rebuild_asked = (), False, ""

    # ---- damage --------------------------------------------------------------------------

    def unreadable(self, family: Family, key: bytes, why: str = "Corruption: injected") -> None:
        """Have a key fail to read, alone and in scans, until it is written again."""
        self.spaces.unreadable[family, key] = why

    def put(self, family: Family, key: bytes, value: bytes) -> None:
        """Hold another value, as if it had been written long ago."""
        self.spaces.families[family][key] = value

    def garble(self, family: Family, key: bytes, at: int = -1) -> None:
        """Flip a bit of a value where no checksum of a block sees it."""
        value = self.spaces.families[family][key]
        at %= len(value)
        flipped = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        self.put(family, key, flipped)

    def flip(self, chance: random.Random) -> tuple[Family, bytes] | None:
        """Flip a bit anywhere in what is durable.

        Returns a key that is damaged by it, or None: it is in the log (found at the next opening)
        or the disk is empty.
        """
        synced = sum(logged.size for logged in self._log[: self._synced])
        families = self.spaces.families
        counts = [len(values) for values in families]
        if chance.random() < synced / (synced + _LOG_BYTES):
            at = chance.randrange(self._synced)
            self._flipped = at if self._flipped is None else min(at, self._flipped)
            return None
        if not any(counts):
            return None
        (family,) = chance.choices(list(Family), counts)
        keys = families[family].keys()
        first = chance.randrange(len(keys))
        name: bytes = keys[first]
        if family is Family.RECORDS and chance.random() < 0.5:
            self.garble(family, name, chance.randrange(len(families[family][name])))
        else:
            for key in keys[first : first + chance.randint(1, _BLOCK_KEYS)]:
                self.unreadable(family, key, "Corruption: block checksum mismatch (injected)")
        return family, name

    @property
    def damaged_keys(self) -> list[tuple[Family, bytes]]:
        """The keys that cannot be read at present."""
        return list(self.spaces.unreadable)

    @property
    def has_flipped_log(self) -> bool:
        """Whether the next opening will find a flipped bit in the log."""
        return self._flipped is not None

    def rebuild(self, why: str, salvage: Callable[[Disk, Disk], None]) -> None:
        """Be replaced by what `salvage` copies of it to an empty disk. Nobody has it open."""
        old, damage = Disk(), self.damage
        old.spaces = self.spaces
        self.wipe()
        salvage(old, self)
        self.damage = (*damage, f"rebuilt: {why}")
        self.written = self.durable = Position(0)
        self.rebuild_asked = ""

    def take(self, batch: WriteBatch) -> None:
        """Hold what a batch puts, as if it had been written long ago."""
        for family, key, value in batch.changes:
            assert value is not None
            self.put(family, key, value)

    # ---- within --------------------------------------------------------------------------

    def _left_of_log(self, chance: random.Random) -> tuple[int, bool]:
        """Return how many writes precede the first page that is lost, and whether any follows."""
        sizes = [logged.size for logged in self._log[self._synced :]]
        total, share = sum(sizes), chance.choice(_KEEP_SHARES)
        pages = [chance.random() < share for _ in range(0, total, PAGE_BYTES)]
        gap = pages.index(False) if False in pages else len(pages)
        torn = chance.randrange(PAGE_BYTES) if gap < len(pages) and chance.random() < 0.5 else 0
        ends_at, left = min(total, gap * PAGE_BYTES + torn), self._synced
        for size in sizes:
            if (ends_at := ends_at - size) < 0:
                break
            left += 1
        return left, any(pages[gap:])

    def _take_back(self, kept: int) -> None:
        """Undo all but the first `kept` writes of the log."""
        for logged in reversed(self._log[kept:]):
            self.spaces.take_back(logged.undo)
        del self._log[kept:]
        self._synced = min(self._synced, kept)

    def _checkpoint(self) -> None:
        """Put what is synced into the tables."""
        del self._log[: self._synced]
        self._synced, self._log_bytes = 0, sum(logged.size for logged in self._log)

    def _move_to_tables(self) -> None:
        self._log, self._synced, self._log_bytes, self._flipped = [], 0, 0, None
