"""Scrub: reads all of this node's store now and then, and finds records whose checksums are wrong.

    RESTING --due--> a slice is asked for --scanned--> verified --rate allows--> the next slice ...
       ^----------------------------end of the last family----------------------------'

A bit that rots in a record nobody reads would be found when the other copies are gone too. Reading
all blocks finds those that have gone bad; the records' own checksums find what those of blocks
cannot see: bytes that were wrong when the block was written. Of other families nothing but that
they can be read is asked.

Laws: one slice is under way at a time; slices take no more than the rate, over any few seconds, and
are about `SLICE_BYTES` long, so that no turn is held up by one; a pass begins no sooner than
`PASS_US` after the last one began; a record that is deleted or changed meanwhile is no damage.
Tests: tests/unit/core/test_scrub.py. Left out: what becomes of what is found
(kvnode.core.recovery), and of slices that cannot be read: the runtime has the store rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable

from kvnode.core.batch import Family
from kvnode.core.keys import StorageKey
from kvnode.core.messages import Instant, Outbox, Scan
from kvnode.core.record import DamagedRecord, verify

SCRUB_ID = 0b1110 << 60
"""The top four bits of ids of scans that belong to the scrub."""
SLICE_BYTES = 128 << 10
"""What one slice is meant to hold: some 50 us of checksums."""
SLICE_KEYS_MAX = 128
"""So few because the next records may be far larger than the last ones."""
FIRST_US = 10_000_000
"""From a node's start to its first slice: there is enough to do then."""
PASS_US = 3_600_000_000
"""An hour from the beginning of a pass to that of the next, at least."""
_FAMILIES = (Family.RECORDS, *(family for family in Family if family is not Family.RECORDS))
_FIRST_SLICE = 16
_NOT_YET = Instant(0)
"""Nobody has said yet what time it is."""
_PATIENCE_US = 10_000_000
"""A slice that is not answered by then is asked for again."""


def is_scrub(number: int) -> bool:
    """Say whether an id belongs to the scrub."""
    return number >> 60 == SCRUB_ID >> 60


class Scrub:
    """The scrub of one node in one life."""

    __slots__ = (
        "_began_at",
        "_due_at",
        "_family",
        "_limit",
        "_next",
        "_on_damage",
        "_per_s",
        "_place",
        "_under_way",
        "found",
        "passes",
        "verified",
    )

    def __init__(self, on_damage: Callable[[StorageKey, str], None], *, bytes_per_s: int) -> None:
        """`bytes_per_s` 0: never. `on_damage` gets a key, and what is wrong."""
        self._on_damage = on_damage
        self._per_s = bytes_per_s
        self._family = 0
        self._place = b""
        self._limit = _FIRST_SLICE
        self._next = 0
        self._under_way = 0
        self._due_at = self._began_at = _NOT_YET
        self.passes = 0
        """Complete ones."""
        self.verified = 0
        """Records, in all passes."""
        self.found = 0

    @property
    def progress(self) -> float:
        """How many of the records this pass has seen, 0 to 1: tokens are spread evenly."""
        if self._family:
            return 1.0
        return int.from_bytes(self._place[:8].ljust(8, b"\x00")) / (1 << 64)

    def next_wake(self) -> Instant | None:
        """Return when `on_time` has something to do; it has been called at the node's start."""
        return self._due_at if self._per_s and self._due_at != _NOT_YET else None

    def on_time(self, now: Instant, out: Outbox) -> None:
        """Ask for the next slice, if it is due."""
        if self._due_at == _NOT_YET:
            self._due_at = Instant(now + FIRST_US)
        if not self._per_s or now < self._due_at:
            return
        if not self._place and not self._family:
            self._began_at = now
        self._next += 1
        self._under_way = SCRUB_ID | self._next
        self._due_at = Instant(now + _PATIENCE_US)
        family = _FAMILIES[self._family]
        out.scans.append(Scan(self._under_way, family, self._place, None, self._limit))

    def on_scanned(
        self, number: int, pairs: list[tuple[bytes, bytes]] | None, now: Instant
    ) -> None:
        """Verify a slice. None: something in it cannot be read."""
        if number != self._under_way:
            return  # of an earlier attempt
        self._under_way = 0
        if pairs is None:
            return  # asked for again, should this life go on
        size = sum(len(key) + len(data) for key, data in pairs)
        if not self._family:
            self._verify(pairs)
        is_end = len(pairs) < self._limit
        if pairs:
            self._limit = min(SLICE_KEYS_MAX, max(1, SLICE_BYTES * len(pairs) // size))
        self._due_at = Instant(now + 1 + 1_000_000 * size // self._per_s)
        self._place = b"" if is_end else pairs[-1][0] + b"\x00"
        if is_end:
            self._end_family()

    def _end_family(self) -> None:
        self._family = (self._family + 1) % len(_FAMILIES)
        if not self._family:
            self.passes += 1
            self._due_at = max(self._due_at, Instant(self._began_at + PASS_US))

    def _verify(self, pairs: list[tuple[bytes, bytes]]) -> None:
        self.verified += len(pairs)
        for name, data in pairs:
            key = StorageKey(name)
            try:
                verify(key, data)
            except DamagedRecord as exc:
                self.found += 1
                self._on_damage(key, str(exc))
