"""What an owner has seen of each partition: for each actor a floor, and runs above it.

Counters are per (actor, partition) and contiguous, so "every dot up to `floor` has been here,
live or superseded" is one number. It rises by the next contiguous dot; dots that came early wait
as runs. Forgetting a run is safe (the floor rises later, by an exchange); forgetting a floor is
safe too, where the records it speaks of were lost. Inventing one never is.

Laws: `add` is commutative and idempotent; what is seen never shrinks within one life.
Tests: tests/unit/core/test_floors.py, tests/property/test_floor_laws.py.
Source: Gonçalves et al., "Concise Server-Wide Causality Management" (2015), node clocks.
Left out: raising a floor to a peer's after an exchange, folding retired actors (anti-entropy).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.bounds import SEEN_INTERVALS_MAX
from kvnode.core.keys import Partition
from kvnode.core.versions import Dot

_KEY = struct.Struct(">IQ")
_RUN = struct.Struct("<QQ")
_VALUE = struct.Struct("<BQ")
_FORMAT = 1

Place = tuple[Partition, int]
"""(partition, actor)."""
Run = tuple[int, int]
"""First and last counter of a run, both seen."""


class Floors:
    """The floors of one node. Changes are collected until `save` puts them into a batch."""

    __slots__ = ("_above", "_changed", "_floor")

    def __init__(self) -> None:
        self._floor: dict[Place, int] = {}
        self._above: dict[Place, list[Run]] = {}
        self._changed: dict[Place, None] = {}

    def add(self, partition: Partition, dot: Dot) -> None:
        """Take note of a dot that is here. Costs O(1) when it is the next one."""
        place = (partition, dot.actor)
        floor = self._floor.get(place, 0)
        if dot.counter <= floor:
            return
        if dot.counter == floor + 1 and place not in self._above:
            self._floor[place] = dot.counter
        else:
            self._add_early(place, dot.counter, floor)
        self._changed[place] = None

    def floor(self, partition: Partition, actor: int) -> int:
        """Return the counter up to which every dot of `actor` has been here."""
        return self._floor.get((partition, actor), 0)

    def has_seen(self, partition: Partition, dot: Dot) -> bool:
        """Say whether this very dot has been here."""
        place = (partition, dot.actor)
        if dot.counter <= self._floor.get(place, 0):
            return True
        runs = self._above.get(place)
        return runs is not None and any(first <= dot.counter <= last for first, last in runs)

    def has_passed(self, partition: Partition, watermark: Mapping[int, int]) -> bool:
        """Say whether every dot up to the watermark has been here."""
        return all(self.floor(partition, actor) >= counter for actor, counter in watermark.items())

    def highest(self, partition: Partition, actor: int) -> int:
        """Return the highest counter of `actor` that has been here, whatever is missing below."""
        runs = self._above.get((partition, actor))
        return runs[-1][1] if runs else self.floor(partition, actor)

    def save(self, batch: WriteBatch) -> None:
        """Put what changed since the last call into the batch of the records it speaks of."""
        for place in self._changed:
            batch.put(Family.FLOORS, _KEY.pack(*place), self._encode(place))
        self._changed = {}

    def load(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Take what `save` wrote in earlier lives."""
        for key, value in entries:
            partition, actor = _KEY.unpack(key)
            _, floor = _VALUE.unpack_from(value)
            place = (Partition(partition), actor)
            self._floor[place] = floor
            if runs := [(first, last) for first, last in _RUN.iter_unpack(value[_VALUE.size :])]:
                self._above[place] = runs

    def drop(self, partition: Partition, batch: WriteBatch) -> None:
        """Forget a partition whose records were lost or given up."""
        for place in [place for place in self._floor if place[0] == partition]:
            del self._floor[place]
            self._above.pop(place, None)
            self._changed.pop(place, None)
            batch.delete(Family.FLOORS, _KEY.pack(*place))

    def __iter__(self) -> Iterator[tuple[Place, int]]:
        return iter(self._floor.items())

    def check(self) -> None:
        """Assert that runs are sorted, apart from each other and from their floor, and bounded."""
        for place, runs in self._above.items():
            assert runs and len(runs) <= SEEN_INTERVALS_MAX
            edge = self._floor.get(place, 0)
            for first, last in runs:
                assert edge + 1 < first <= last
                edge = last

    def _add_early(self, place: Place, counter: int, floor: int) -> None:
        runs = sorted([*self._above.get(place, ()), (counter, counter)])
        merged: list[Run] = []
        for first, last in runs:
            if merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        if merged[0][0] == floor + 1:
            floor = merged.pop(0)[1]
        self._floor[place] = floor
        if merged:
            # The lowest runs are the ones that a floor can reach.
            self._above[place] = merged[:SEEN_INTERVALS_MAX]
        else:
            self._above.pop(place, None)

    def _encode(self, place: Place) -> bytes:
        floor = _VALUE.pack(_FORMAT, self._floor.get(place, 0))
        runs = self._above.get(place)
        return floor if runs is None else floor + b"".join(_RUN.pack(*run) for run in runs)
