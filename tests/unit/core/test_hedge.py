"""Hedging: how long a read waits for the owners it asked, and what it may spend on others."""

from __future__ import annotations

import itertools
import random

import pytest

from kvnode.core.bounds import Limits
from kvnode.core.hedge import Hedging

LIMITS = Limits()
MOST_US = 1_000 * LIMITS.widen_after_ms


def hedging_of(**latencies_us: list[int]) -> Hedging:
    hedging = Hedging(LIMITS)
    for node, answers in latencies_us.items():
        for answer in answers:
            hedging.note(int(node[1:]), answer)
    return hedging


def test_owners_that_never_answered_are_waited_for_as_long_as_allowed() -> None:
    assert Hedging(LIMITS).patience_us([2, 3]) == MOST_US
    assert hedging_of(n2=[20_000]).patience_us([2, 3, 4]) == MOST_US


def test_patience_is_what_is_usual_for_the_middle_one_of_the_owners() -> None:
    hedging = hedging_of(n2=[7_000] * 9, n3=[30_000] * 9, n4=[60_000] * 9)
    assert hedging.patience_us([2]) == pytest.approx(7_000, rel=0.1)
    assert hedging.patience_us([2, 4]) == pytest.approx(7_000, rel=0.1)
    for owners in itertools.permutations([2, 3, 4]):
        assert hedging.patience_us(owners) == pytest.approx(30_000, rel=0.1)


def test_patience_is_bounded_from_both_sides() -> None:
    assert hedging_of(n2=[100]).patience_us([2]) == 5_000
    assert hedging_of(n2=[9 * MOST_US]).patience_us([2]) == MOST_US


def test_what_is_usual_is_what_nearly_all_answers_keep_within(rng: random.Random) -> None:
    hedging, kept = hedging_of(n2=[10_000]), 0
    for _ in range(5_000):
        answer, usual = rng.randint(10_000, 20_000), hedging.usual_us(2)
        assert usual is not None
        assert usual <= 23_000
        kept += answer <= usual
        hedging.note(2, answer)
    assert 0.95 <= kept / 5_000 <= 0.99


def test_a_rare_outlier_does_not_make_a_read_patient(rng: random.Random) -> None:
    answers = [90_000 if rng.random() < 0.01 else 8_000 for _ in range(5_000)]
    assert hedging_of(n2=answers).patience_us([2]) <= 16_000


def test_an_owner_that_becomes_slow_is_soon_known_to_be() -> None:
    hedging = hedging_of(n2=[6_000] * 1_000)
    for _ in range(60):
        hedging.note(2, 60_000)
    assert hedging.patience_us([2]) >= 50_000


def test_an_owner_that_is_gone_is_forgotten() -> None:
    hedging = hedging_of(n2=[7_000])
    hedging.forget(2)
    hedging.forget(3)
    assert hedging.usual_us(2) is None


def test_a_fresh_bucket_pays_for_one_and_then_for_the_share_of_reads() -> None:
    hedging = Hedging(LIMITS)
    assert [hedging.spend(), hedging.spend()] == [True, False]
    paid = 0
    for _ in range(1_000):
        hedging.earn()
        paid += hedging.spend()
    assert 48 <= paid <= 50


def test_savings_are_bounded() -> None:
    hedging = Hedging(LIMITS)
    for _ in range(100_000):
        hedging.earn()
    assert sum(hedging.spend() for _ in range(1_000)) == 64


def test_without_a_share_nothing_is_spent() -> None:
    hedging = Hedging(Limits(hedge_share=0.0))
    for _ in range(1_000):
        hedging.earn()
    assert not hedging.spend()
