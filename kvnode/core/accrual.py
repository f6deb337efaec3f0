"""How long echoes take on one link, so that silence is judged by what is usual there.

A wait runs from a heartbeat's leaving to the first echo of it or of a later one, so a lost frame
shows as a longer wait. Phi accrual without its formula: what is longer than mean and deviations
make likely is suspicious, and how suspicious is for kvnode.core.liveness to say.
Laws: O(1) for each wait; the window is bounded; a single accident in it changes nothing.
Tests: tests/unit/core/test_accrual.py.
Source: Hayashibara et al., "The phi accrual failure detector" (2004). Left out: a distribution is
not fitted; ten deviations hold for even waits and for geometric ones.
"""

from __future__ import annotations

from collections import deque

WINDOW = 256
"""Waits remembered: 50 s of heartbeats, or 13 s of probes."""
_FEWEST = 4
"""Fewer say nothing yet."""
_DEVIATIONS = 10
"""Lost frames make waits geometric: further above their mean once in 60,000, a phi of 4.8. Waits
that are merely uneven (normal) never are."""


class Waits:
    """How long echoes take on one link, lost heartbeats included: a window of `WINDOW`."""

    __slots__ = ("_longest_us", "_sum", "_sum_of_squares", "_window")

    def __init__(self) -> None:
        self._window: deque[int] = deque()
        self._sum = 0
        self._sum_of_squares = 0
        self._longest_us: int | None = None
        """The last answer, until another wait is noted: it is asked for more often."""

    def add(self, wait_us: int) -> None:
        """Note one wait, µs."""
        self._longest_us = None
        self._window.append(wait_us)
        self._sum += wait_us
        self._sum_of_squares += wait_us * wait_us
        if len(self._window) > WINDOW:
            oldest = self._window.popleft()
            self._sum -= oldest
            self._sum_of_squares -= oldest * oldest

    def longest_us(self) -> int:
        """Return a wait that this link practically never exceeds, µs; 0: not known yet. The
        longest one remembered is left out: one accident is no habit."""
        if self._longest_us is None:
            self._longest_us = self._reckon()
        return self._longest_us

    def _reckon(self) -> int:
        n = len(self._window) - 1
        if n < _FEWEST:
            return 0
        longest = max(self._window)
        mean = (self._sum - longest) / n
        variance = max(0.0, (self._sum_of_squares - longest * longest) / n - mean * mean)
        return int(mean + _DEVIATIONS * variance**0.5)
