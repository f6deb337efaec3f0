"""The laws of kvclient.hedging: what counts as slow, and when nothing is asked twice."""

from __future__ import annotations

import pytest

from kvclient.bounds import Bounds
from kvclient.hedging import SAMPLES, SAMPLES_LEAST, TIMES_TAIL, Hedging, Usual


def warm(seconds: float, **bounds: float) -> Hedging:
    hedging = Hedging(Bounds(**bounds))  # type: ignore[arg-type]
    for _ in range(SAMPLES_LEAST):
        hedging.note(seconds)
    return hedging


def test_nothing_is_late_before_it_is_known_what_is_usual() -> None:
    hedging = Hedging(Bounds())
    for _ in range(SAMPLES_LEAST - 1):
        hedging.note(0.001)
    assert hedging.after_s(0.0) is None
    hedging.note(0.001)
    assert hedging.after_s(0.0) is not None


def test_one_answer_in_twenty_is_the_tail() -> None:
    usual = Usual()
    for number in range(100):
        usual.note(number / 1000)
    assert usual.tail_s() == pytest.approx(0.095)


def test_what_is_usual_follows_the_last_answers() -> None:
    usual = Usual()
    for _ in range(SAMPLES):
        usual.note(0.5)
    for _ in range(SAMPLES):
        usual.note(0.001)
    assert usual.tail_s() == pytest.approx(0.001)


def test_late_is_twice_the_tail_but_never_less_than_the_least() -> None:
    assert warm(0.1).after_s(0.0) == pytest.approx(TIMES_TAIL * 0.1)
    assert warm(0.001, hedge_least_ms=20.0).after_s(0.0) == pytest.approx(0.02)


def test_after_an_overload_nothing_is_asked_twice_for_a_while() -> None:
    hedging = warm(0.001, hedge_rest_ms=1_000.0)
    hedging.rest(10.0)
    assert hedging.after_s(10.9) is None
    assert hedging.after_s(11.0) is not None
