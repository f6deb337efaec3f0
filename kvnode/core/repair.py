"""A repair: all partitions of one node, or some, compared with their other owners now rather than
when it is time, and how far that has come.

    NONE --start--> RUNNING --every pair was compared and is equal--> DONE
                     |   ^
                  cancel start (what is done stays done)
                     v   |
                   CANCELLED

It adds no way of comparing: it hurries the sweeps, and watches their progress. Of two owners the
one with the lower number asks, so a repair of a whole cluster is one at each of its nodes. What a
peer that is away would have to be compared with waits for it.

Laws: a pair counts as done only by a comparison that was completed after the start; one repair at
a time; cancelling breaks off what is under way and loses nothing, since sweeps go on in their time.
Tests: tests/unit/core/test_repair.py. Source: design, section 2.8.
Left out: showing it (kvnode.cli).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from kvnode.core.answering import Holdings
from kvnode.core.keys import Partition
from kvnode.core.messages import Instant, NodeNumber
from kvnode.core.sweeps import Sweeps

_HURRY_US = 1_000_000
"""Between two sweeps out of time: an exchange that was broken off is tried again so soon."""


class State(StrEnum):
    """Where a repair stands."""

    NONE = "none"
    """None was asked for in this life of the node."""
    RUNNING = "running"
    CANCELLED = "cancelled"
    DONE = "done"


class PartState(StrEnum):
    """Where one pair stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"


class Part(NamedTuple):
    """One partition with one of its other owners."""

    partition: Partition
    peer: NodeNumber
    state: PartState
    differing: int
    """Keys, since the repair began."""
    mended: int


@dataclass(frozen=True, slots=True)
class _Before:
    """What the sweeps' progress said of a pair when the repair began."""

    completed: int = 0
    differing: int = 0
    mended: int = 0


_Pair = tuple[Partition, NodeNumber]


class Repair:
    """The latest repair of one node."""

    __slots__ = (
        "_before", "_done", "_holdings", "_hurried_at", "_state", "_sweeps", "began_ms", "ended_ms",
    )  # fmt: skip

    def __init__(self, sweeps: Sweeps, holdings: Holdings) -> None:
        self._sweeps = sweeps
        self._holdings = holdings
        self._before: dict[_Pair, _Before] = {}
        self._done: dict[_Pair, Part] = {}
        self._state = State.NONE
        self._hurried_at = Instant(0)
        self.began_ms = 0
        """Physical time, ms since 1970."""
        self.ended_ms = 0
        """Likewise; 0: it is not over."""

    @property
    def state(self) -> State:
        """Where the repair stands, as of the last look."""
        return self._state

    def start(self, partitions: Collection[int], now: Instant, wall_ms: int) -> None:
        """Compare these partitions (none: all that are owned here); go on with a repair of the
        same that was cancelled. Unknown ones and those of others are left out."""
        pairs = self._pairs(partitions)
        if self._state is not State.CANCELLED or pairs != [*self._before]:
            self._before = {pair: self._now_at(pair) for pair in pairs}
            self._done.clear()
            self.began_ms = wall_ms
        self._state, self.ended_ms = State.RUNNING, 0
        self._hurry(now)

    def cancel(self, wall_ms: int) -> None:
        """Break off what is under way."""
        if self._state is State.RUNNING:
            self._state, self.ended_ms = State.CANCELLED, wall_ms
            self._sweeps.stop({partition for partition, _ in self._before})

    def look(self, now: Instant, wall_ms: int) -> list[Part]:
        """Return where each pair stands; while it runs, hurry what is left of it."""
        parts = [self._part(pair, before) for pair, before in self._before.items()]
        if self._state is State.RUNNING:
            if len(self._done) == len(self._before):
                self._state, self.ended_ms = State.DONE, self._finished_ms(now, wall_ms)
            elif now - self._hurried_at >= _HURRY_US:
                self._hurry(now)
        return parts

    # ---- within --------------------------------------------------------------------------

    def _pairs(self, partitions: Collection[int]) -> list[_Pair]:
        """Return the pairs for which this node asks."""
        number, topology = self._holdings.number, self._holdings.topology()
        return [
            (partition, peer)
            for partition in self._holdings.proving.owned()
            if not partitions or partition in partitions
            for peer in sorted(topology.owner_numbers[partition])
            if peer > number
        ]

    def _hurry(self, now: Instant) -> None:
        self._hurried_at = now
        self._sweeps.kick(now)

    def _now_at(self, pair: _Pair) -> _Before:
        line = self._sweeps.progress.line(pair[1], pair[0])
        return _Before(line.completed, line.differing, line.mended)

    def _part(self, pair: _Pair, before: _Before) -> Part:
        if pair in self._done:
            return self._done[pair]
        partition, peer = pair
        line = self._sweeps.progress.line(peer, partition)
        if line.completed < before.completed:
            before = self._before[pair] = _Before()  # owners have changed: counted anew
        differing, mended = line.differing - before.differing, line.mended - before.mended
        is_done = line.completed > before.completed and not line.is_running
        state = PartState.RUNNING if line.is_running else PartState.WAITING
        part = Part(partition, peer, PartState.DONE if is_done else state, differing, mended)
        if is_done and self._state is State.RUNNING:
            self._done[pair] = part
        return part

    def _finished_ms(self, now: Instant, wall_ms: int) -> int:
        """Return when the last pair was completed, which may be long before this look."""
        lines = [self._sweeps.progress.line(peer, partition) for partition, peer in self._before]
        latest = max((line.completed_at for line in lines), default=now)
        return max(self.began_ms, wall_ms - (now - latest) // 1_000)
