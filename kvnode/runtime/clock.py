"""The node's two clocks: the only place where it reads time.

Laws: `now_us` never goes back and measures durations; `wall_ms` is what people call the time, may
jump, and orders nothing by itself (the hybrid clock in the core does). Tests may set it off by an
amount, in one node at a time: kvnode/runtime/faults.py.
Tests: tests/unit/runtime/test_clock.py.
"""

from __future__ import annotations

import time

from kvnode.core.messages import Instant


class _Wall:
    offset_ms = 0


def now_us() -> Instant:
    """Return the monotonic instant."""
    return Instant(time.monotonic_ns() // 1_000)


def wall_ms() -> int:
    """Return physical time in ms since 1970."""
    return time.time_ns() // 1_000_000 + _Wall.offset_ms


def set_wall_offset(offset_ms: int) -> None:
    """Set this process's wall clock off by so many milliseconds; 0 makes it right again."""
    _Wall.offset_ms = offset_ms
