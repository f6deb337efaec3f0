"""Claims about kvnode/bench/histogram.py."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnode.bench.histogram import Histogram, bucket_of, highest_in

VALUES = st.lists(st.integers(0, 10**12), min_size=1, max_size=60)


@given(st.integers(0, 2**62))
def test_a_bucket_holds_its_value_and_is_narrow(value: int) -> None:
    highest = highest_in(bucket_of(value))
    assert value <= highest <= value * 1.001
    assert bucket_of(highest) == bucket_of(value)
    assert bucket_of(highest + 1) == bucket_of(value) + 1


@given(VALUES, st.floats(0, 1))
def test_a_quantile_is_the_exact_one_or_a_thousandth_above(values: list[int], share: float) -> None:
    exact = sorted(values)[max(1, math.ceil(share * len(values))) - 1]
    assert exact <= Histogram(values).quantile(share) <= exact * 1.001


@given(VALUES, VALUES)
def test_merging_equals_recording_all_into_one(left: list[int], right: list[int]) -> None:
    merged = Histogram(left)
    merged.merge(Histogram(right))
    assert merged == Histogram(left + right)
    assert merged.total == len(left) + len(right)


@given(VALUES)
def test_recording_one_by_one_equals_recording_all_at_once(values: list[int]) -> None:
    made = Histogram()
    for value in values:
        made.record(value)
    assert made == Histogram(values)


@given(VALUES)
def test_mean_and_highest_are_exact_or_a_thousandth_above(values: list[int]) -> None:
    made = Histogram(values)
    assert max(values) <= made.highest <= max(values) * 1.001
    mean = sum(values) / len(values)
    assert mean * 0.999999 <= made.mean <= mean * 1.001001
    assert (Histogram().mean, Histogram().highest) == (0, 0)


@given(VALUES)
def test_the_json_form_comes_back_equal(values: list[int]) -> None:
    made = Histogram(values)
    assert Histogram.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_there_is_no_quantile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no quantile of nothing"):
        Histogram().quantile(0.5)
    with pytest.raises(ValueError, match="a share is at most 1"):
        Histogram([1]).quantile(1.5)
