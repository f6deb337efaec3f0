"""Hybrid logical clocks: one number that follows physical time and never runs backwards.

A timestamp is 64 bits: milliseconds since 1970 in the upper 48, a logical count in the lower 16,
so timestamps compare as integers. It orders *concurrent* versions and nothing else: causality
is in the dots (kvnode.core.record).

Laws: each `tick` is greater than everything ticked or observed before; `observe` never raises
the clock beyond the physical time plus `max_skew_ms`, so one broken clock drags nobody along.
Tests: tests/unit/core/test_hlc.py, tests/property/test_hlc_laws.py.
Source: Kulkarni et al., "Logical Physical Clocks" (2014), figure 5, with the bound of section 4.
"""

from __future__ import annotations

from typing import NewType

Timestamp = NewType("Timestamp", int)
"""ms since 1970 << 16 | logical count."""

LOGICAL_BITS = 16


def timestamp(wall_ms: int, logical: int = 0) -> Timestamp:
    """Return the timestamp of a physical instant (ms since 1970) and a logical count."""
    return Timestamp(wall_ms << LOGICAL_BITS | logical)


def wall_ms(stamp: Timestamp) -> int:
    """Return the physical part, in ms since 1970."""
    return stamp >> LOGICAL_BITS


class Clock:
    """The hybrid clock of one node. Physical time is an argument, in ms since 1970."""

    __slots__ = ("_last", "_max_skew_ms")

    def __init__(self, *, max_skew_ms: int) -> None:
        self._last = Timestamp(0)
        self._max_skew_ms = max_skew_ms

    @property
    def last(self) -> Timestamp:
        """The greatest timestamp ticked or observed."""
        return self._last

    def tick(self, now_ms: int) -> Timestamp:
        """Return a timestamp greater than all before it.

        More than 65,535 ticks within one millisecond carry into the physical part.
        """
        self._last = Timestamp(max(self._last + 1, now_ms << LOGICAL_BITS))
        return self._last

    def read(self, now_ms: int) -> Timestamp:
        """Return the current time without claiming it: what frames carry."""
        return Timestamp(max(self._last, now_ms << LOGICAL_BITS))

    def observe(self, stamp: Timestamp, now_ms: int) -> None:
        """Take note of another's timestamp; one too far ahead counts as the furthest allowed."""
        if stamp > self._last:
            ceiling = (now_ms + self._max_skew_ms) << LOGICAL_BITS
            if stamp <= ceiling:
                self._last = stamp
            elif ceiling > self._last:
                self._last = Timestamp(ceiling)

    def is_too_far(self, stamp: Timestamp, now_ms: int) -> bool:
        """Say whether a client's write with this stamp must be refused."""
        return wall_ms(stamp) > now_ms + self._max_skew_ms
