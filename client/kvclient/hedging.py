"""When to ask a second node because the first is slower than usual.

Laws: decides and never acts; what is asked twice stays within a share of all operations, with a few
saved up; nothing is asked twice before enough answers have shown what is usual, nor for a while
after a node was overloaded.
Tests: tests/unit/client/test_hedging.py.
Source: Dean and Barroso, "The Tail at Scale" (CACM 2013): hedged requests; design, section 2.3.
Left out: which node is asked (`routing`), and silent nodes, whose work is moved at any price
(`silence`, `attempts`).
"""

from __future__ import annotations

from collections import deque

from kvclient.bounds import Bounds
from kvclient.budget import Budget

SAMPLES = 128
SAMPLES_LEAST = 32
TAIL = 0.95
TIMES_TAIL = 2.0
"""Later than the 95th percentile is one in twenty, even when all is well; twice that is not."""


class Usual:
    """How long answers take: the tail of the last few. One sample for each frame is enough."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES)
        self._tail_s = 0.0
        self._is_stale = True

    def note(self, seconds: float) -> None:
        """Take in how long one answer took."""
        self._samples.append(seconds)
        self._is_stale = True

    def tail_s(self) -> float | None:
        """Return the 95th percentile, None while there is too little to tell."""
        count = len(self._samples)
        if count < SAMPLES_LEAST:
            return None
        if self._is_stale:
            self._tail_s = sorted(self._samples)[int(TAIL * count)]
            self._is_stale = False
        return self._tail_s


class Hedging:
    """Decides for all operations of one client."""

    def __init__(self, bounds: Bounds) -> None:
        self.budget = Budget(bounds.hedge_share, bounds.hedge_burst)
        self._usual = Usual()
        self._least_s = bounds.hedge_least_ms / 1000
        self._rest_s = bounds.hedge_rest_ms / 1000
        self._rests_until = 0.0

    def note(self, seconds: float) -> None:
        """An answer took so long."""
        self._usual.note(seconds)

    def rest(self, now: float) -> None:
        """A node was overloaded: more requests are the last thing that it needs."""
        self._rests_until = now + self._rest_s

    def after_s(self, now: float) -> float | None:
        """Return how long an operation may take before it is asked elsewhere too; None: longer."""
        tail_s = self._usual.tail_s()
        if tail_s is None or now < self._rests_until:
            return None
        return max(self._least_s, TIMES_TAIL * tail_s)
