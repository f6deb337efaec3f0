"""The laws of kvnode.runtime.clock."""

from __future__ import annotations

import time

from kvnode.runtime.clock import now_us, set_wall_offset, wall_ms


def test_the_wall_clock_is_the_systems() -> None:
    before = time.time_ns() // 1_000_000
    assert before <= wall_ms() <= time.time_ns() // 1_000_000


def test_an_offset_moves_the_wall_clock_and_not_the_monotonic_one() -> None:
    began = now_us()
    try:
        set_wall_offset(-86_400_000)
        assert wall_ms() < time.time_ns() // 1_000_000 - 86_000_000
        assert 0 <= now_us() - began < 3_600_000_000
    finally:
        set_wall_offset(0)
    assert abs(wall_ms() - time.time_ns() // 1_000_000) < 1_000
