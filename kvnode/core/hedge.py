"""When a read asks one more owner because those it asked are slow, and how often it may.

Each owner has a usual latency, which 97 of 100 of its answers keep within. A read that waits longer
than is usual for the middle one of its owners asks one more, so one slow owner among three is not
waited for; each such request is paid from a bucket that gains `hedge_share` with every read. Hedges
cost at most that share more requests, also when everything is slow: then more of them would only
make it slower.

Laws: what was spent never exceeds what reads have earned, plus the one that a fresh bucket holds;
patience lies between 5 ms and `widen_after_ms`; nothing is kept for each request.
Tests: tests/unit/core/test_hedge.py, tests/property/test_hedge_laws.py.
Source: Dean, Barroso, "The Tail at Scale" (CACM 2013). Left out: owners that are gone or silent,
whose requests are sent elsewhere whatever the budget says (kvnode.core.liveness).
"""

from __future__ import annotations

from collections.abc import Sequence

from kvnode.core.bounds import Limits
from kvnode.core.messages import NodeNumber

_USUAL = 0.97
"""The share of answers that are no later than usual."""
_STEP = 1 / 16
"""How far one answer moves the estimate, relative to it."""
_STEP_LEAST_US = 50.0
_PATIENCE_LEAST_US = 5_000
"""A turn, a frame and a busy processor take that long in good health."""
_SAVINGS_MOST = 64.0
"""Hedges that may be saved up: what a sudden slowness may cost at once."""


class Hedging:
    """Usual latencies of the owners that a coordinator asks, and its budget for extra requests."""

    __slots__ = ("_patience_most_us", "_savings", "_share", "_usual_us", "spent")

    def __init__(self, limits: Limits) -> None:
        self._share = limits.hedge_share
        self._patience_most_us = 1_000 * limits.widen_after_ms
        self._savings = 1.0 if limits.hedge_share else 0.0
        self._usual_us: dict[NodeNumber, float] = {}
        self.spent = 0
        """Extra requests so far."""

    def earn(self) -> None:
        """A read begins: it brings its share."""
        self._savings = min(self._savings + self._share, _SAVINGS_MOST)

    def spend(self) -> bool:
        """Take the price of one extra request; returns whether it was there."""
        if self._savings < 1.0:
            return False
        self._savings -= 1.0
        self.spent += 1
        return True

    def note(self, node: NodeNumber, latency_us: int) -> None:
        """An owner answered after so long."""
        usual = self._usual_us.get(node)
        if usual is None:
            self._usual_us[node] = float(latency_us)
            return
        # Up and down in proportion to how seldom each should happen: it settles at the quantile.
        step = max(usual * _STEP, _STEP_LEAST_US)
        self._usual_us[node] = max(1.0, usual + step * (_USUAL - (latency_us <= usual)))

    def forget(self, node: NodeNumber) -> None:
        """An owner is gone: what returns may be as slow or as fast as it likes."""
        self._usual_us.pop(node, None)

    def usual_us(self, node: NodeNumber) -> float | None:
        """Return an owner's usual latency, µs; None: not known."""
        return self._usual_us.get(node)

    def patience_us(self, owners: Sequence[NodeNumber]) -> int:
        """Return how long a read of these owners waits before it asks one more, µs."""
        most, known = self._patience_most_us, self._usual_us
        usual = sorted([known.get(owner, most) for owner in owners])
        middle = usual[(len(usual) - 1) // 2]
        return int(min(max(middle, _PATIENCE_LEAST_US), most))
