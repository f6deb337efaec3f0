"""What an owner has seen of each partition: for each actor a floor, and runs above it.

Counters are per (actor, partition) and contiguous, so "every dot up to `floor` has been here,
live or superseded" is one number. It rises by the next contiguous dot; dots that came early wait
as runs. Forgetting a run is safe (the floor rises later, by an exchange); forgetting a floor is
safe too, where the records it speaks of were lost. Inventing one never is.

Two owners that have exchanged a partition completely may each take over what the other had seen
before they began: whatever that names is now held by both, or superseded at both. That closes gaps
that dots have left which this owner never gets to see, since they were superseded meanwhile.

Laws: `add` and `raise_to` are commutative and idempotent; what is seen never shrinks within one
life; two owners that took over each other's have the same digest.
Tests: tests/unit/core/test_floors.py, tests/property/test_floor_laws.py.
Source: Gonçalves et al., "Concise Server-Wide Causality Management" (2015), node clocks.
Left out: when an exchange is complete (kvnode.core.exchange), folding retired actors.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import mmh3

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.bounds import SEEN_INTERVALS_MAX
from kvnode.core.keys import Partition
from kvnode.core.versions import Context, Dot

_KEY = struct.Struct(">IQ")
_RUN = struct.Struct("<QQ")
_VALUE = struct.Struct("<BQ")
_REPORT = struct.Struct("<QQH")
_FORMAT = 1
_SEED = 0x666C6F6F  # "floo"
_MASK = (1 << 64) - 1

Place = tuple[Partition, int]
"""(partition, actor)."""
Run = tuple[int, int]
"""First and last counter of a run, both seen."""


class BadReport(Exception):
    """These bytes are no report of floors."""


class Lack(NamedTuple):
    """What a floor would have to reach to cover a context."""

    actor: int
    needed: int
    floor: int


class Seen:
    """What one owner has seen of one partition: a report of its floors."""

    __slots__ = ("floors", "runs")

    def __init__(self, floors: dict[int, int], runs: dict[int, list[Run]]) -> None:
        self.floors = floors
        self.runs = runs

    @classmethod
    def decode(cls, report: bytes) -> Seen:
        """Return what `Floors.report` gave.

        Raises:
            BadReport: it gave no such bytes.
        """
        seen, at = cls({}, {}), 0
        try:
            while at < len(report):
                actor, floor, count = _REPORT.unpack_from(report, at)
                at += _REPORT.size
                seen.floors[actor] = floor
                if count:
                    seen.runs[actor] = _decode_runs(report, at, count, floor)
                    at += count * _RUN.size
        except struct.error as exc:
            raise BadReport("a report of floors is cut short") from exc
        return seen

    def has_seen(self, dot: Dot) -> bool:
        """Say whether this very dot has been there."""
        if dot.counter <= self.floors.get(dot.actor, 0):
            return True
        return any(first <= dot.counter <= last for first, last in self.runs.get(dot.actor, ()))

    def lacks(self, context: Context) -> list[Lack]:
        """Return what keeps this from covering a context; nothing if it does."""
        ranges = [
            dot for dot in _dots(context.vector) if self.floors.get(dot.actor, 0) < dot.counter
        ]
        # Of single dots too, all below: so that a watermark can ask whether they were seen.
        single = [d for d in sorted(context.dots) if self.floors.get(d.actor, 0) < d.counter]
        return [Lack(*dot, self.floors.get(dot.actor, 0)) for dot in (*ranges, *single)]


class Floors:
    """The floors of one node. Changes are collected until `save` puts them into a batch."""

    __slots__ = ("_above", "_actors", "_changed", "_floor", "drops")

    def __init__(self) -> None:
        self._actors: dict[Partition, dict[int, None]] = {}
        self._floor: dict[Place, int] = {}
        self._above: dict[Place, list[Run]] = {}
        self._changed: dict[Place, None] = {}
        self.drops = 0
        """How often a partition was forgotten in this life: what was compared before is void."""

    def add(self, partition: Partition, dot: Dot) -> None:
        """Take note of a dot that is here. Costs O(1) when it is the next one."""
        place = (partition, dot.actor)
        floor = self._floor.get(place, 0)
        if dot.counter <= floor:
            return
        if not floor:
            self._actors.setdefault(partition, {})[dot.actor] = None
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

    def seen(self, partition: Partition) -> Seen:
        """Return a copy of what has been seen of a partition."""
        actors = sorted(self._actors.get(partition, ()))
        floors = {actor: self._floor[partition, actor] for actor in actors}
        runs = {actor: self._above.get((partition, actor), []) for actor in actors}
        return Seen(floors, {actor: [*each] for actor, each in runs.items() if each})

    def report(self, partition: Partition) -> bytes:
        """Return what has been seen of a partition, for a peer. Costs O(actors)."""
        parts = []
        for actor in sorted(self._actors.get(partition, ())):
            runs = self._above.get((partition, actor), ())
            parts.append(_REPORT.pack(actor, self._floor[partition, actor], len(runs)))
            parts += [_RUN.pack(*run) for run in runs]
        return b"".join(parts)

    def digest(self, partition: Partition) -> int:
        """Return 64 bits that stand for the report. Costs O(actors)."""
        return digest_of(self.report(partition))

    def raise_to(self, partition: Partition, seen: Seen, *, own: Dot) -> None:
        """Take over what a peer had seen when a complete exchange with it began.

        `own`: the last dot that this node itself has issued there: nobody has seen later ones.
        """
        for actor, floor in seen.floors.items():
            place = (partition, actor)
            before = (self._floor.get(place, 0), self._above.get(place))
            runs = [*(before[1] or ()), *seen.runs.get(actor, ())]
            if actor == own.actor:
                floor, runs = min(floor, own.counter), [*(before[1] or ())]
            self._set(place, max(before[0], floor), runs)
            if (self._floor[place], self._above.get(place)) != before:
                self._changed[place] = None

    def save(self, batch: WriteBatch) -> None:
        """Put what changed since the last call into the batch of the records it speaks of."""
        for place in self._changed:
            if place in self._floor:
                batch.put(Family.FLOORS, _KEY.pack(*place), self._encode(place))
            else:
                batch.delete(Family.FLOORS, _KEY.pack(*place))
        self._changed = {}

    def load(self, entries: Iterable[tuple[bytes, bytes]]) -> None:
        """Take what `save` wrote in earlier lives."""
        for key, value in entries:
            partition, actor = _KEY.unpack(key)
            _, floor = _VALUE.unpack_from(value)
            place = (Partition(partition), actor)
            self._actors.setdefault(Partition(partition), {})[actor] = None
            self._floor[place] = floor
            if runs := [(first, last) for first, last in _RUN.iter_unpack(value[_VALUE.size :])]:
                self._above[place] = runs

    def drop(self, partition: Partition) -> None:
        """Forget a partition whose records were lost or given up."""
        self.drops += 1
        for actor in self._actors.pop(partition, ()):
            place = (partition, actor)
            del self._floor[place]
            self._above.pop(place, None)
            self._changed[place] = None

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
        self._set(place, floor, [*self._above.get(place, ()), (counter, counter)])

    def _set(self, place: Place, floor: int, runs: list[Run]) -> None:
        """Have seen everything up to `floor`, and these runs, in any order."""
        merged: list[Run] = []
        for first, last in sorted(runs):
            if first <= floor + 1:
                floor = max(floor, last)
            elif merged and first <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        self._actors.setdefault(place[0], {})[place[1]] = None
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


def _dots(vector: Mapping[int, int]) -> list[Dot]:
    return [Dot(*entry) for entry in sorted(vector.items())]


def digest_of(report: bytes) -> int:
    """Return 64 bits that stand for a report."""
    digest: int = mmh3.mmh3_x64_128_uintdigest(report, _SEED)
    return digest & _MASK


def _decode_runs(report: bytes, at: int, count: int, floor: int) -> list[Run]:
    runs: list[Run] = []
    if count > SEEN_INTERVALS_MAX:
        raise BadReport(f"a report of {count} runs")
    for offset in range(at, at + count * _RUN.size, _RUN.size):
        first, last = _RUN.unpack_from(report, offset)
        if not floor + 1 < first <= last:
            raise BadReport("a report of runs that are out of order")
        runs.append((first, last))
        floor = last
    return runs
