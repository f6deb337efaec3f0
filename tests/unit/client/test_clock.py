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


FAR = hlc_of_ms(300_000)


def test_one_node_that_is_far_ahead_of_two_others_drags_no_stamp_along() -> None:
    clock = HybridClock()
    clock.observe(HLC, 1.0, node=1)
    clock.observe(HLC, 1.0, node=2)
    clock.observe(HLC + FAR, 1.0, node=3)
    assert clock.tick(1.0) < HLC + FAR


def test_a_time_that_one_node_told_is_given_up_when_two_others_contradict_it() -> None:
    clock = HybridClock()
    clock.observe(HLC + FAR, 1.0, node=1)
    clock.observe(HLC, 1.0, node=2)
    assert clock.tick(1.0) > HLC + FAR  # one against one: who is right is not known
    clock.observe(HLC, 1.0, node=3)
    assert HLC < clock.tick(1.0) < HLC + FAR
    clock.observe(HLC + FAR, 2.0, node=1)
    assert clock.tick(2.0) < HLC + FAR


def test_a_time_of_unknown_origin_is_given_up_when_two_nodes_contradict_it() -> None:
    clock = HybridClock()
    clock.observe(HLC + FAR, 1.0)
    clock.observe(HLC, 1.0, node=1)
    clock.observe(HLC + 1, 1.0, node=2)
    assert HLC < clock.tick(1.0) < HLC + FAR


def test_two_nodes_that_agree_are_believed_against_two_that_do_not() -> None:
    clock = HybridClock()
    for node, hlc in enumerate((HLC + FAR, HLC + FAR, HLC, HLC), start=1):
        clock.observe(hlc, 1.0, node=node)
    assert clock.tick(1.0) > HLC + FAR
