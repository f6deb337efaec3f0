"""Waits for echoes: what is usual on a link, and what is not."""

from __future__ import annotations

import random

import pytest

from kvnode.core.accrual import WINDOW, Waits


def waits_of(*waits_us: int) -> Waits:
    waits = Waits()
    for wait_us in waits_us:
        waits.add(wait_us)
    return waits


def test_few_waits_say_nothing() -> None:
    assert waits_of(300, 300, 300, 300).longest_us() == 0
    assert waits_of(300, 300, 300, 300, 300).longest_us() == 300


def test_even_waits_allow_little_more_than_themselves() -> None:
    assert 1_000 <= waits_of(*[900, 1_000] * 50).longest_us() <= 1_500


def test_one_accident_changes_nothing_and_two_do() -> None:
    calm = [1_000] * 50
    assert waits_of(*calm, 400_000).longest_us() == 1_000
    assert waits_of(*calm, 400_000, 400_000).longest_us() > 400_000


def test_what_lies_further_back_than_the_window_is_forgotten() -> None:
    waits = waits_of(*[400_000, 1_000] * WINDOW)
    assert waits.longest_us() > 400_000
    for _ in range(WINDOW):
        waits.add(1_000)
    assert waits.longest_us() == 1_000


@pytest.mark.parametrize("loss", [0.1, 0.36, 0.5])
def test_lost_frames_make_waits_that_are_hardly_ever_exceeded(
    rng: random.Random, loss: float
) -> None:
    def wait_us() -> int:
        lost = 0
        while rng.random() < loss:
            lost += 1
        return 2_000 + 50_000 * lost

    waits = waits_of(*(wait_us() for _ in range(WINDOW)))
    exceeded = sum(wait_us() > waits.longest_us() for _ in range(20_000))
    assert exceeded <= 40
    assert waits.longest_us() < 2_000 + 50_000 * 40
