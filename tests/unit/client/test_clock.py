"""The laws of kvclient.clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvclient.clock import HybridClock, hlc_of_ms, ms_of_hlc

HLC = hlc_of_ms(1_800_000_000_000)


def test_a_stamp_before_the_cluster_told_the_time_is_a_bug() -> None:
    clock = HybridClock()
    assert not clock.is_set
    with pytest.raises(AssertionError):
        clock.tick(1.0)


def test_time_passes_as_the_monotonic_clock_says_from_what_the_cluster_said() -> None:
    clock = HybridClock()
    clock.observe(HLC, 10.0)
    assert ms_of_hlc(clock.tick(12.5)) == 1_800_000_002_500


def test_a_clock_value_from_behind_does_not_set_it_back() -> None:
    clock = HybridClock()
    clock.observe(HLC, 10.0)
    clock.observe(HLC - hlc_of_ms(5_000), 10.0)
    assert clock.tick(10.0) > HLC


@given(
    st.lists(
        st.tuples(
            st.floats(0, 10, allow_nan=False),
            st.one_of(st.none(), st.integers(-(10**6), 10**6)),
        ),
        max_size=50,
    )
)
def test_ticks_rise_and_are_above_all_that_was_observed(
    steps: list[tuple[float, int | None]],
) -> None:
    clock, now, highest = HybridClock(), 0.0, HLC
    clock.observe(HLC, now)
    for passed_s, offset in steps:
        now += passed_s
        if offset is not None:
            clock.observe(HLC + offset, now)
            highest = max(highest, HLC + offset)
        stamp = clock.tick(now)
        assert stamp > highest
        highest = stamp
