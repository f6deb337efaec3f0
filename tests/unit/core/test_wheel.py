"""The wheel: never early, at most one notch late, in order."""

from __future__ import annotations

import pytest

from kvnode.core.messages import Instant
from kvnode.core.wheel import Wheel, at_common_instant, earliest

NOTCH = 4_096
ALL = range(100)


def test_the_earliest_is_the_first_that_is_due_at_all() -> None:
    assert earliest() is earliest(None, None) is None
    assert earliest(None, Instant(3), Instant(0), None, Instant(2)) == 0


def test_an_empty_wheel_is_never_due() -> None:
    wheel = Wheel()
    assert wheel.next_due(ALL) is None
    assert wheel.take_due(Instant(10**12)) == []


@pytest.mark.parametrize("at", [0, 1, NOTCH - 1, NOTCH, NOTCH + 1, 10 * NOTCH])
def test_nothing_is_woken_early_or_more_than_a_notch_late(at: int) -> None:
    wheel = Wheel()
    wheel.add(Instant(at), 5)
    due = wheel.next_due(ALL)
    assert due is not None
    assert at < due <= at + NOTCH
    assert wheel.take_due(Instant(due - 1)) == []
    assert wheel.take_due(due) == [5]


def test_what_is_due_comes_in_order_of_instants_and_then_of_arrival() -> None:
    wheel = Wheel()
    for at, op_id in [(9 * NOTCH, 1), (NOTCH, 2), (9 * NOTCH + 1, 3), (5 * NOTCH, 4)]:
        wheel.add(Instant(at), op_id)
    assert wheel.take_due(Instant(20 * NOTCH)) == [2, 4, 1, 3]


def test_what_is_taken_is_gone_and_the_rest_stays_due() -> None:
    wheel = Wheel()
    wheel.add(Instant(NOTCH), 1)
    wheel.add(Instant(9 * NOTCH), 2)
    assert wheel.take_due(Instant(2 * NOTCH)) == [1]
    assert wheel.next_due(ALL) == 10 * NOTCH
    assert wheel.take_due(Instant(10 * NOTCH)) == [2]
    assert wheel.next_due(ALL) is None


def test_an_earlier_instant_added_later_moves_the_next_one_forward() -> None:
    wheel = Wheel()
    wheel.add(Instant(9 * NOTCH), 1)
    wheel.add(Instant(3 * NOTCH), 2)
    wheel.add(Instant(5 * NOTCH), 3)
    assert wheel.next_due(ALL) == 4 * NOTCH


def test_nobody_is_woken_for_operations_that_have_ended() -> None:
    wheel = Wheel()
    for at, op_id in [(NOTCH, 1), (NOTCH, 2), (NOTCH + 1, 3), (3 * NOTCH, 4), (9 * NOTCH, 5)]:
        wheel.add(Instant(at), op_id)
    assert wheel.next_due({1, 5}) == 2 * NOTCH
    assert wheel.next_due({5}) == 10 * NOTCH
    assert wheel.take_due(Instant(9 * NOTCH)) == []
    assert wheel.next_due(()) is None


@pytest.mark.parametrize(
    ("ahead", "late"), [(0, 0), (65_536, 0), (65_537, 16_383), (10**6, 16_383)]
)
def test_only_what_is_far_off_waits_for_a_common_instant(ahead: int, late: int) -> None:
    now = Instant(7 << 20)
    at = at_common_instant(now + ahead, now=now)
    assert 0 <= at - now - ahead <= late
    assert at_common_instant(at, now=now) == at
