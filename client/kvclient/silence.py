"""Which nodes have fallen silent: they owe answers and nothing at all comes from them.

Nodes that owe a client something speak at least every tenth of a second, if only to say that they
live. So one from which nothing came for twice as long is taken for dead, or as good as dead. It is
given more time while nodes are slow in general: busy nodes taken for dead would be asked for each
other's work, and be busier.

Laws: decides and never acts; a node that owes nothing is never silent; when this program itself was
held up nobody is; patience never exceeds `MOST_PATIENCE` times the usual.
Tests: tests/unit/client/test_silence.py, tests/unit/client/test_engine.py.
Source: design, section 2.3; Hayashibara et al., "The phi accrual failure detector" (2004), for
measuring rather than setting how long is too long.
Left out: what becomes of what a silent node owes (`attempts`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from kvclient.bounds import Bounds
from kvclient.operation import Lane, LaneState

PACES = 2.0
"""A node is silent after so many times the longest gap between frames seen lately."""
PACE_HALVES_S = 2.0
"""How soon a gap counts for half: a node that was stopped and goes on is soon forgotten."""
MOST_PATIENCE = 5.0
"""Times the usual silence; also what all get while none that could be asked instead is heard."""


class Silence:
    """Listens to all nodes of one client."""

    def __init__(self, bounds: Bounds) -> None:
        self._silence_s = bounds.silence_ms / 1000
        self._longest_s = self._silence_s * MOST_PATIENCE / PACES
        self._gap_s = 0.0
        self._gap_at = 0.0

    def on_heard(self, lane: Lane, now: float) -> None:
        """Something came from a node, whatever it was."""
        if lane.owes:
            gap_s = min(now - lane.heard_at, self._longest_s)
            if gap_s > self._pace_s(now):
                self._gap_s, self._gap_at = gap_s, now
        lane.heard_at = now

    def fallen(self, lanes: Sequence[Lane], now: float, late_s: float) -> list[Lane]:
        """Return those that are silent since the last look. `late_s`: how late this look is."""
        if late_s > self._silence_s / 2:
            for lane in lanes:
                lane.heard_at = now  # what came meanwhile has not been read
            return []
        patience = self._patience(lanes, now)
        return [
            lane
            for lane in lanes
            if lane.state < LaneState.SUSPECTED and lane.is_silent(now, patience)
        ]

    def _patience(self, lanes: Sequence[Lane], now: float) -> float:
        """How much longer than usual a node may be silent: as much as nodes are slow just now."""
        quiet = [lane.is_silent(now, 0.5) for lane in lanes if lane.owes]
        if len(quiet) > 1 and all(quiet) and not any(map(_is_free, lanes)):
            return MOST_PATIENCE
        return max(1.0, PACES * self._pace_s(now) / self._silence_s)

    def _pace_s(self, now: float) -> float:
        """Return the longest gap seen lately, the less the longer ago it was."""
        return self._gap_s * math.exp2((self._gap_at - now) / PACE_HALVES_S)


def _is_free(lane: Lane) -> bool:
    """Whether a node is well as far as anyone knows, and owes nothing."""
    return lane.state is LaneState.READY and not lane.owes
