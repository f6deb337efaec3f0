"""The laws of kvnode.core.hlc, whatever physical clocks do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.hlc import Clock, Timestamp, timestamp, wall_ms

SKEW_MS = 60_000
_WALL = st.integers(1_700_000_000_000, 1_700_000_200_000)
_STAMPS = st.builds(timestamp, st.integers(0, 1_900_000_000_000), st.integers(0, 65_535))
steps = st.lists(st.tuples(st.booleans(), _WALL, _STAMPS), max_size=30)


@given(steps)
def test_each_tick_is_greater_than_all_that_was_ticked_or_observed(
    history: list[tuple[bool, int, Timestamp]],
) -> None:
    clock, greatest = Clock(max_skew_ms=SKEW_MS), Timestamp(0)
    for is_tick, now_ms, stamp in history:
        if is_tick:
            ticked = clock.tick(now_ms)
            assert ticked > greatest
            assert ticked >= timestamp(now_ms)
            greatest = ticked
        else:
            clock.observe(stamp, now_ms)
            if not clock.is_too_far(stamp, now_ms) and wall_ms(stamp) < now_ms + SKEW_MS:
                greatest = max(greatest, stamp)


@given(steps)
def test_nobody_drags_a_clock_beyond_the_skew(
    history: list[tuple[bool, int, Timestamp]],
) -> None:
    clock, latest_ms = Clock(max_skew_ms=SKEW_MS), 0
    for _, now_ms, stamp in history:
        latest_ms = max(latest_ms, now_ms)
        clock.observe(stamp, now_ms)
        assert wall_ms(clock.last) <= latest_ms + SKEW_MS


@given(steps)
def test_reading_claims_nothing_and_never_runs_backwards(
    history: list[tuple[bool, int, Timestamp]],
) -> None:
    clock = Clock(max_skew_ms=SKEW_MS)
    for _, now_ms, stamp in history:
        clock.observe(stamp, now_ms)
        before = clock.last
        assert clock.read(now_ms) >= max(before, timestamp(now_ms))
        assert clock.last == before


@given(_WALL, st.integers(0, 200_000))
def test_what_is_refused_as_too_far_is_what_the_bound_says(now_ms: int, ahead_ms: int) -> None:
    clock = Clock(max_skew_ms=SKEW_MS)
    assert clock.is_too_far(timestamp(now_ms + ahead_ms), now_ms) == (ahead_ms > SKEW_MS)
