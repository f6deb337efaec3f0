"""Inquiries: keys that are asked about a few at a time, and again while owners are silent."""

from __future__ import annotations

from kvnode.core.inquiry import REST_US, TIMEOUT_US, Inquiries, Inquiry
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.messages import Instant, Outbox
from tests.unit.core.builders import NOW

FIRST_ID = 1 << 60
WINDOW, MOST = 2, 5
KEYS = [encode_key("default", b"%d" % number) for number in range(MOST + 2)]


class Rig:
    """Inquiries, and which were begun."""

    def __init__(self) -> None:
        self.begun: list[Inquiry] = []
        self.foreign: set[StorageKey] = set()
        self.inquiries: Inquiries[Inquiry] = Inquiries(
            FIRST_ID, self.begin, window=WINDOW, waiting_most=MOST
        )
        self.now = NOW

    def begin(self, asked: Inquiry, out: Outbox) -> Inquiry | None:
        if asked.key in self.foreign:
            return None
        self.begun.append(asked)
        return asked

    def add(self, *keys: StorageKey) -> list[bool]:
        return [self.inquiries.add(key, self.now) for key in keys]

    def time(self, later_us: int = 0) -> list[Inquiry]:
        """Let time pass; return what is begun then."""
        self.now = Instant(self.now + later_us)
        self.begun = []
        self.inquiries.on_time(self.now, Outbox())
        return self.begun


def test_a_key_is_noticed_once_while_it_waits_and_while_it_is_asked_about() -> None:
    rig = Rig()
    assert rig.add(KEYS[0], KEYS[0]) == [True, False]
    (asked,) = rig.time()
    assert asked == Inquiry(KEYS[0], FIRST_ID | 1, Instant(NOW + TIMEOUT_US), 1)
    assert rig.inquiries.get(asked.id) is asked
    assert rig.add(KEYS[0]) == [False]
    rig.inquiries.close(asked)
    assert (rig.inquiries.keys, rig.inquiries.get(asked.id)) == (0, None)
    assert rig.add(KEYS[0]) == [True]


def test_the_window_and_what_waits_are_bounded_and_order_is_kept() -> None:
    rig = Rig()
    assert rig.add(*KEYS) == [True] * MOST + [False] * 2
    first, second = rig.time()
    assert [first.key, second.key] == KEYS[:WINDOW]
    assert rig.time() == []
    rig.inquiries.close(first)
    assert [each.key for each in rig.time()] == [KEYS[WINDOW]]
    assert rig.inquiries.keys == MOST - 1


def test_the_silent_are_waited_for_then_the_key_rests_and_is_asked_about_again() -> None:
    rig = Rig()
    rig.add(KEYS[0])
    (first,) = rig.time()
    assert rig.time(TIMEOUT_US - 1) == []
    assert rig.inquiries.get(first.id) is first
    assert rig.time(1) == []
    assert rig.inquiries.get(first.id) is None
    assert rig.time(REST_US - 1) == []
    (again,) = rig.time(1)
    assert (again.key, again.attempt) == (KEYS[0], 2)
    assert again.id != first.id


def test_one_that_has_too_little_rests_at_once() -> None:
    rig = Rig()
    rig.add(*KEYS[: WINDOW + 1])
    first, _ = rig.time()
    rig.inquiries.retry(first, rig.now)
    assert [each.key for each in rig.time()] == [KEYS[WINDOW]]
    assert rig.inquiries.keys == WINDOW + 1


def test_a_key_of_no_interest_takes_no_place() -> None:
    rig = Rig()
    rig.foreign = set(KEYS[:3])
    rig.add(*KEYS[:4])
    assert [each.key for each in rig.time()] == [KEYS[3]]
    assert rig.inquiries.keys == 1


def test_it_is_to_be_called_when_time_is_up_or_a_rest_is_over_and_never_for_nothing() -> None:
    rig = Rig()
    assert rig.inquiries.next_wake() is None
    rig.add(*KEYS[: WINDOW + 1])
    assert rig.inquiries.next_wake() == NOW
    first, second = rig.time()
    # With a full window nothing waits for its turn by the clock.
    assert rig.inquiries.next_wake() == NOW + TIMEOUT_US
    rig.inquiries.retry(first, rig.now)
    rig.time()
    rig.inquiries.close(second)
    assert rig.inquiries.next_wake() == NOW + TIMEOUT_US
    rig.time(TIMEOUT_US)
    assert rig.inquiries.next_wake() == NOW + REST_US
