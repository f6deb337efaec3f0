"""Dealing copies evenly: a table of rows and columns, filled cell by cell under both sums.

A row is a partition, a column a rack or a node that may hold one copy of it. `Table.fill` keeps the
old cells that the sums allow, releases the others, deals the gaps by turns, and where the deal is
stuck makes room along a shortest augmenting path (as in Ford and Fulkerson's maximum flow): so it
meets every demand that can be met.

Laws: a row never holds a column twice, nor one that is not among its options; after `fill`, no row
holds more columns than its demand and no column more rows than its quota; the same arguments give
the same table. Tests: tests/unit/core/test_dealing.py. Leaves out: what the sums should be
(kvnode.core.ownership).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K", str, int)


class Table(Generic[K]):
    """Which columns (racks or nodes) each row (a partition) holds; filled step by step.

    Law: no row holds more columns than its demand when `fill` has run, no column more rows than
    its quota, and no row a column twice or one that is not among its options.
    """

    def __init__(
        self,
        demand: Mapping[int, int],
        quota: Mapping[K, int],
        *,
        options: Mapping[int, Sequence[K]] | None = None,
        salt: int = 0,
    ) -> None:
        self.demand = demand
        self._salt = salt
        self.rows: dict[int, dict[K, None]] = {row: {} for row in demand}
        self._options: Mapping[int, Sequence[K]] | None = options
        self._columns: dict[K, dict[int, None]] = {column: dict[int, None]() for column in quota}
        self._room: dict[K, int] = dict(quota)
        self._kept: set[tuple[int, K]] = set()  # asked for membership only
        self._dead: set[K] = set()  # the same: no chain through these ends in room

    def fill(self, old: Mapping[int, Sequence[K]]) -> None:
        """Meet all demands, holding on to as much of `old` as the quotas allow."""
        for row in self.demand:
            for column in old[row]:
                self._put(row, column)
        self._release()
        self._kept = {(row, column) for row, held in self.rows.items() for column in held}
        if self._options is None:
            self._deal()
        else:
            self._deal_among(self._options)
        for row, held in self.rows.items():
            while len(held) < self.demand[row] and self._make_room(row):
                pass

    def _put(self, row: int, column: K) -> None:
        self.rows[row][column] = None
        self._columns[column][row] = None
        self._room[column] -= 1

    def _take(self, row: int, column: K) -> None:
        del self.rows[row][column]
        del self._columns[column][row]
        self._room[column] += 1

    def _release(self) -> None:
        """Take back what is over a demand or a quota, where the fewest gaps are.

        So the gaps are spread: two gaps of one row cannot go to the same newcomer.
        """
        for row, held in self.rows.items():
            while len(held) > self.demand[row]:
                self._take(row, min(held, key=self._room.__getitem__))
        gaps = 0
        while min(self._room.values(), default=0) < 0:
            for row, held in self.rows.items():
                if self.demand[row] - len(held) > gaps:
                    continue
                fullest = min(held, key=self._room.__getitem__, default=None)
                if fullest is not None and self._room[fullest] < 0:
                    self._take(row, fullest)
            gaps += 1

    def _deal(self) -> None:
        """Fill the gaps by turns: a column's turns are spread evenly over the deal."""
        need = {column: room for column, room in self._room.items() if room > 0}
        ids = {column: at for at, column in enumerate(self._room, self._salt)}
        turns = [(_jitter(ids[column], 0) / room, 0, column) for column, room in need.items()]
        heapify(turns)
        for row, held in self.rows.items():
            later = []
            while turns and len(held) < self.demand[row]:
                turn = _, count, column = heappop(turns)
                if column in held:
                    later.append(turn)
                    continue
                self._put(row, column)
                if (count := count + 1) < need[column]:
                    when = (count + _jitter(ids[column], count)) / need[column]
                    later.append((when, count, column))
            for turn in later:
                heappush(turns, turn)

    def _deal_among(self, options: Mapping[int, Sequence[K]]) -> None:
        for row, held in self.rows.items():
            if len(held) < self.demand[row]:
                best = max(options[row], key=self._room.__getitem__)
                if self._room[best] > 0:
                    self._put(row, best)

    def _make_room(self, row: int) -> bool:
        """Fill one gap of `row` by moving others; say whether that could be done."""
        if max(self._room.values()) <= 0:
            return False
        return self._augment(row, sparing=True) or self._augment(row, sparing=False)

    def _augment(self, start: int, *, sparing: bool) -> bool:
        """Search the shortest chain of exchanges; `sparing` leaves old owners where they are."""
        found_in: dict[K, int] = {}
        freed: dict[int, K] = {}
        queue = deque([start])
        while queue:
            row = queue.popleft()
            for column in self._columns if self._options is None else self._options[row]:
                if column in found_in or column in self._dead or column in self.rows[row]:
                    continue
                found_in[column] = row
                if self._room[column] > 0:
                    self._exchange(start, column, found_in, freed)
                    return True
                for other in self._columns[column]:
                    kept = sparing and (other, column) in self._kept
                    if other != start and other not in freed and not kept:
                        freed[other] = column
                        queue.append(other)
        if not sparing:
            self._dead.update(found_in)
        return False

    def _exchange(
        self, start: int, column: K, found_in: Mapping[K, int], freed: Mapping[int, K]
    ) -> None:
        row = found_in[column]
        while row != start:
            given = freed[row]
            self._take(row, given)
            self._put(row, column)
            column, row = given, found_in[given]
        self._put(row, column)


def mixed_order(partitions: int, *, seed: int) -> list[int]:
    """Return all partitions in an order in which neighbours lie far apart.

    It begins elsewhere for other members: else every newcomer would land in the same partitions.
    """
    start = _scramble(seed)
    # The golden section; an odd stride visits every place of a ring of a power of two.
    stride = partitions * 618 // 1000 | 1
    return [(start + at * stride) % partitions for at in range(partitions)]


def _jitter(column: int, turn: int) -> float:
    """Return 0 to 1: where in its stretch of the deal a column takes its turn.

    With it, who shares partitions with whom varies: a dead node's load goes to many, not to two.
    """
    return _scramble(column << 20 ^ turn) / 2**32


def _scramble(x: int) -> int:
    """Return 32 bits that look random: the finaliser of MurmurHash3."""
    x &= 0xFFFFFFFF
    x = (x ^ x >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    x = (x ^ x >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ x >> 16
