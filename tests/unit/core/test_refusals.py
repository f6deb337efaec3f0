"""Refusals: typed, at once, and never leaving a writer in doubt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kvnode.core.bounds import Limits
from kvnode.core.hlc import Clock
from kvnode.core.messages import ClientGet, ClientPut, ErrorCode, Failure, Outcome
from kvnode.core.refusals import refuse, refuse_skew, refused
from tests.unit.core.builders import NOW, WALL_MS, at, get, put, stamp

LIMITS = replace(Limits(), operations_in_flight=1_600)
CLOCK = Clock(max_skew_ms=LIMITS.max_skew_ms)


def ask(request: ClientGet | ClientPut, **changes: Any) -> Failure | None:
    state: dict[str, Any] = {"in_flight": 0, "now": NOW, "clock_is_off": False}
    return refuse(request, limits=LIMITS, **(state | changes))


@pytest.mark.parametrize("request_", [get(), put()], ids=["get", "put"])
def test_what_can_succeed_is_taken_on(request_: ClientGet | ClientPut) -> None:
    assert ask(request_, in_flight=1_599) is None
    assert ask(request_, now=at(5_000_000 - 1)) is None


@pytest.mark.parametrize(
    ("state", "read_code", "write_code", "message"),
    [
        (
            {"in_flight": 1_600},
            ErrorCode.OVERLOADED,
            ErrorCode.OVERLOADED,
            "1,600 operations are in progress at this node",
        ),
        (
            {"now": at(5_000_000)},
            ErrorCode.TIMEOUT,
            ErrorCode.UNAVAILABLE,
            "the deadline passed before it began",
        ),
        (
            {"clock_is_off": True},
            ErrorCode.UNAVAILABLE,
            ErrorCode.UNAVAILABLE,
            "this node's clock differs from most of its peers'; it coordinates nothing",
        ),
    ],
    ids=["load", "lateness", "clock"],
)
def test_a_refused_write_is_not_applied_and_a_refused_read_has_no_outcome(
    state: dict[str, Any], read_code: ErrorCode, write_code: ErrorCode, message: str
) -> None:
    read, write = ask(get(), **state), ask(put(), **state)
    assert read is not None
    assert write is not None
    assert (read.id, read.code, read.outcome) == (7, read_code, Outcome.NONE)
    assert (write.id, write.code, write.outcome) == (8, write_code, Outcome.NOT_APPLIED)
    assert read.message == write.message == message


def test_only_load_says_when_to_come_again() -> None:
    loaded, off = ask(put(), in_flight=1_600), ask(put(), clock_is_off=True)
    assert loaded is not None
    assert off is not None
    assert loaded.retry_after_ms > 0
    assert off.retry_after_ms == 0


@pytest.mark.parametrize(("ms", "is_refused"), [(-(10**9), False), (60_000, False), (60_001, True)])
def test_a_stamp_is_refused_beyond_the_skew_that_is_allowed(ms: int, is_refused: bool) -> None:
    refusal = refuse_skew(put(timestamp=stamp(ms)), CLOCK, wall_ms=WALL_MS, limits=LIMITS)
    assert (refusal is not None) is is_refused


def test_a_refused_stamp_is_told_with_both_figures() -> None:
    refusal = refuse_skew(put(timestamp=stamp(90_000)), CLOCK, wall_ms=WALL_MS, limits=LIMITS)
    assert refusal == refused(
        put(),
        ErrorCode.UNAVAILABLE,
        "timestamp is 90,000 ms ahead; at most 60,000 are allowed",
    )
