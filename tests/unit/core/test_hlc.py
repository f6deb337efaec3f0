"""Hybrid clocks: they rise, follow physical time, and are dragged along by nobody."""

from __future__ import annotations

import pytest

from kvnode.core.hlc import Clock, Timestamp, timestamp, wall_ms

SKEW_MS = 60_000


@pytest.fixture
def clock() -> Clock:
    return Clock(max_skew_ms=SKEW_MS)


def test_a_timestamp_is_its_milliseconds_and_then_its_count() -> None:
    assert timestamp(5, 3) == 5 * 65_536 + 3
    assert wall_ms(timestamp(5, 3)) == 5
    assert timestamp(5, 65_535) < timestamp(6)


def test_ticks_within_one_millisecond_rise_by_the_count(clock: Clock) -> None:
    assert [clock.tick(1_000), clock.tick(1_000)] == [timestamp(1_000), timestamp(1_000, 1)]


def test_ticks_rise_when_physical_time_runs_backwards(clock: Clock) -> None:
    first = clock.tick(1_000)
    assert clock.tick(500) == first + 1


def test_more_ticks_than_a_millisecond_counts_carry_into_the_next(clock: Clock) -> None:
    clock.observe(timestamp(1_000, 65_535), 1_000)
    assert clock.tick(1_000) == timestamp(1_001)


def test_reading_claims_nothing(clock: Clock) -> None:
    assert clock.read(1_000) == clock.read(1_000) == timestamp(1_000)
    assert clock.last == 0
    assert clock.tick(1_000) == timestamp(1_000)


def test_reading_never_falls_below_what_was_observed(clock: Clock) -> None:
    clock.observe(timestamp(1_500), 1_000)
    assert clock.read(1_200) == timestamp(1_500)


def test_the_next_tick_is_above_what_was_observed(clock: Clock) -> None:
    clock.observe(timestamp(1_500, 7), 1_000)
    assert clock.tick(1_000) == timestamp(1_500, 8)


def test_an_older_timestamp_changes_nothing(clock: Clock) -> None:
    clock.observe(timestamp(1_500), 1_000)
    clock.observe(timestamp(1_400), 9_000)
    assert clock.last == timestamp(1_500)


def test_a_clock_a_year_ahead_raises_ours_by_max_skew_and_no_more(clock: Clock) -> None:
    clock.observe(timestamp(1_000 + 365 * 86_400_000), 1_000)
    assert clock.last == timestamp(1_000 + SKEW_MS)


def test_the_ceiling_never_lowers_the_clock(clock: Clock) -> None:
    clock.observe(timestamp(50_000), 1_000)
    clock.observe(timestamp(200_000), -20_000)  # physical time has jumped back
    assert clock.last == timestamp(50_000)


@pytest.mark.parametrize(
    ("ahead_ms", "is_refused"), [(-1_000_000, False), (SKEW_MS, False), (SKEW_MS + 1, True)]
)
def test_a_write_is_too_far_ahead_beyond_max_skew(
    clock: Clock, ahead_ms: int, is_refused: bool
) -> None:
    now_ms = 10_000_000
    assert clock.is_too_far(timestamp(now_ms + ahead_ms, 65_535), now_ms) is is_refused


def test_the_greatest_possible_timestamp_is_refused_and_drags_nothing(clock: Clock) -> None:
    utmost = Timestamp((1 << 64) - 1)
    assert clock.is_too_far(utmost, 1_000)
    clock.observe(utmost, 1_000)
    assert clock.last == timestamp(1_000 + SKEW_MS)
