"""The client's clock: hybrid logical time taken from the cluster, never from this machine.

Decides what a write is stamped with. Laws: two ticks are never equal and never go back, and a tick
is above everything observed, but where two nodes or more contradict a single one by more than
`skew_ms`: its clock is wrong, and the others would refuse what is stamped by it. Between
observations time passes as the monotonic clock says.
Tests: tests/unit/client/test_clock.py.
Source: Kulkarni et al., "Logical Physical Clocks" (2014); design, section 2.2.
Left out: refusing a cluster whose clock runs away; nodes do that (`max_skew`).
"""

from __future__ import annotations

from kvclient.bounds import BOUNDS, Bounds

LOGICAL_BITS = 16


def hlc_of_ms(ms: int) -> int:
    """Return the first HLC of a millisecond since 1970."""
    return ms << LOGICAL_BITS


def ms_of_hlc(hlc: int) -> int:
    """Return the milliseconds since 1970 of an HLC."""
    return hlc >> LOGICAL_BITS


class HybridClock:
    """The last HLC seen plus the time that has passed since.

    Times are seconds of a monotonic clock, handed in. 64 bits: milliseconds since 1970, then 16
    bits that count within one.
    """

    __slots__ = ("_anchor", "_anchor_at", "_far_ms", "_last", "_told")

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self._far_ms = bounds.skew_ms
        self._anchor = 0
        self._anchor_at = 0.0
        self._last = 0
        self._told: dict[int, int] = {}
        """By node: how far its time was ahead of this monotonic clock when it last spoke, ms."""

    @property
    def is_set(self) -> bool:
        """Whether the cluster has told the time at least once."""
        return self._anchor > 0

    def observe(self, hlc: int, now: float, node: int = 0) -> None:
        """Take in a clock value of the cluster. One from behind changes nothing.

        Args:
            hlc: the value.
            now: when it came.
            node: the number of the node whose time it is; 0: it comes from elsewhere.
        """
        expected = self._expected(now)
        if node:
            self._told[node] = ms_of_hlc(hlc) - int(now * 1000)
        if hlc > expected:
            if ms_of_hlc(hlc - expected) > self._far_ms and self._contradicting(hlc, now):
                return
            self._anchor, self._anchor_at = hlc, now
        elif ms_of_hlc(expected - hlc) > self._far_ms and (
            others := self._contradicting(expected, now)
        ):
            self._anchor, self._anchor_at = hlc_of_ms(max(others) + int(now * 1000)), now
            self._last = self._anchor
        if hlc > self._last:
            self._last = hlc

    def _contradicting(self, hlc: int, now: float) -> list[int]:
        """Return what the nodes tell that say a time is wrong, if they are two or more against one
        at most."""
        ahead_ms = ms_of_hlc(hlc) - int(now * 1000)
        others = [told for told in self._told.values() if told < ahead_ms - self._far_ms]
        agreeing = len(self._told) - len(others)
        return others if len(others) > 1 and agreeing <= 1 else []

    def tick(self, now: float) -> int:
        """Return a stamp above every stamp given and every value observed before."""
        assert self._anchor, "a stamp before the cluster told the time"
        expected = self._expected(now)
        self._last = expected if expected > self._last else self._last + 1
        return self._last

    def _expected(self, now: float) -> int:
        if not self._anchor:
            return 0
        return self._anchor + (int((now - self._anchor_at) * 1000) << LOGICAL_BITS)
