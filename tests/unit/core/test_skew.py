"""Whose clock is wrong: what is told of peers' clocks, and what this node concludes."""

from __future__ import annotations

import pytest

from kvnode.core.messages import NodeNumber, PeerClock
from kvnode.core.skew import NEWS_MS, ClockNews, Skews

A, B, C = NodeNumber(2), NodeNumber(3), NodeNumber(4)
MAX_MS = 60_000
OURS_MS = 1_700_000_000_000


def told(news: ClockNews, ahead_ms: int) -> PeerClock | None:
    return news.on_clock(OURS_MS + ahead_ms, OURS_MS)


def skews(*up: NodeNumber) -> Skews:
    found = Skews(max_skew_ms=MAX_MS)
    for node in up:
        found.on_up(node)
    return found


def test_the_first_time_that_a_clock_is_seen_is_news() -> None:
    assert told(ClockNews(A), -7) == PeerClock(A, -7)


def test_a_clock_that_drifts_is_news_once_it_is_past_the_bound_since_it_was_told() -> None:
    news = ClockNews(A)
    steps = range(0, 2 * NEWS_MS + 2, NEWS_MS // 2)
    assert [step for step in steps if told(news, step)] == [0, NEWS_MS * 3 // 2]


@pytest.mark.parametrize("sign", [1, -1])
def test_a_difference_within_the_bound_is_no_news(sign: int) -> None:
    news = ClockNews(A)
    told(news, 0)
    assert told(news, sign * NEWS_MS) is None
    assert told(news, sign * (NEWS_MS + 1)) == PeerClock(A, sign * (NEWS_MS + 1))


def test_what_was_forgotten_is_news_again() -> None:
    news = ClockNews(A)
    told(news, 5)
    news.forget()
    assert told(news, 5) == PeerClock(A, 5)


def test_a_node_that_nobody_tells_of_time_trusts_its_clock() -> None:
    assert not skews().is_off
    assert not skews(A, B).is_off


@pytest.mark.parametrize(
    ("ahead_ms", "is_off"),
    [
        ((MAX_MS,), False),
        ((MAX_MS + 1,), True),
        ((-MAX_MS - 1,), True),
        ((MAX_MS + 1, 0), False),
        ((MAX_MS + 1, -MAX_MS - 1, 0), True),
    ],
)
def test_a_clock_that_differs_too_far_from_more_than_half_of_those_that_tell_is_off(
    ahead_ms: tuple[int, ...], is_off: bool
) -> None:
    found = skews(A, B, C)
    for node, ahead in zip((A, B, C), ahead_ms, strict=False):
        found.on_clock(node, ahead)
    assert found.is_off is is_off


def test_a_peer_has_a_say_only_while_it_is_up_and_may_tell_its_time_before() -> None:
    found, off = skews(), []
    found.on_clock(A, 2 * MAX_MS)
    for step in (lambda _: None, found.on_up, found.on_down, found.on_up):
        step(A)
        off.append(found.is_off)
    assert off == [False, True, False, False]  # who returns has to tell again
