"""The laws of kvclient.retry."""

from __future__ import annotations

from random import Random

import pytest

from kvclient import errors
from kvclient.bounds import Bounds
from kvclient.operation import Operation
from kvclient.retry import Code, Refusal, backoff_s, error_at_deadline, error_now
from tests.unit.client.fakes import Bench


def put() -> Operation:
    operation = Operation("default", b"k", is_put=True, value=b"v")
    operation.deadline, operation.attempts = 10.0, 1
    return operation


def verdict(operation: Operation, code: Code, retry_after_ms: int = 0) -> errors.KVError | None:
    refusal = Refusal(code, "why", retry_after_ms=retry_after_ms)
    return error_now(operation, refusal, nodes=3, now=0.0)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.INVALID_REQUEST, errors.InvalidRequest),
        (Code.UNKNOWN_KEYSPACE, errors.UnknownKeyspace),
        (Code.UNAUTHENTICATED, errors.Unauthenticated),
        (Code.PERMISSION_DENIED, errors.PermissionDenied),
    ],
)
def test_what_every_node_would_say_is_said_at_once(code: Code, error: type[errors.KVError]) -> None:
    found = verdict(put(), code)
    assert type(found) is error
    assert found.outcome == "not applied"
    assert not found.retry_safe


@pytest.mark.parametrize(
    "code",
    [
        Code.UNAVAILABLE,
        Code.UNCERTAIN,
        Code.TIMEOUT,
        Code.OVERLOADED,
        Code.INTERNAL,
        Code.STALE_EPOCH,
    ],
)
def test_what_another_node_may_do_better_is_tried_again(code: Code) -> None:
    assert verdict(put(), code) is None


@pytest.mark.parametrize(
    ("code", "error"),
    [(Code.STORAGE_FULL, errors.StorageFull), (Code.CORRUPT_DATA, errors.CorruptData)],
)
def test_what_one_node_cannot_do_fails_once_every_node_has_refused_it(
    code: Code, error: type[errors.KVError]
) -> None:
    operation, lanes = put(), tuple(Bench().lanes)
    operation.attempts = 9
    for count in (1, 2):
        operation.refused = lanes[:count]
        assert verdict(operation, code) is None
    operation.refused = lanes
    assert type(verdict(operation, code)) is error


def test_after_an_uncertain_attempt_no_refusal_is_not_applied() -> None:
    operation = put()
    operation.may_have_applied = True
    found = verdict(operation, Code.PERMISSION_DENIED)
    assert isinstance(found, errors.Uncertain)
    assert verdict(operation, Code.OVERLOADED) is None


def test_overload_past_the_deadline_is_said_at_once_with_the_time_to_wait() -> None:
    found = verdict(put(), Code.OVERLOADED, 20_000)
    assert isinstance(found, errors.Overloaded)
    assert found.retry_after == 20.0


def test_backoff_stays_under_a_doubling_cap() -> None:
    rng, bounds = Random(1), Bounds()
    for attempts, cap_ms in ((1, 5), (2, 10), (4, 40), (9, 200), (10_000, 200)):
        waits = [backoff_s(attempts, rng, bounds) * 1000 for _ in range(200)]
        assert min(waits) >= 0
        assert cap_ms * 0.8 < max(waits) <= cap_ms


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (Code.UNAVAILABLE, errors.Unavailable),
        (Code.OVERLOADED, errors.Overloaded),
        (Code.STORAGE_FULL, errors.StorageFull),
        (Code.CORRUPT_DATA, errors.CorruptData),
    ],
)
def test_at_the_deadline_the_last_refusal_decides_if_nothing_can_have_happened(
    code: Code, error: type[errors.KVError]
) -> None:
    operation = put()
    operation.failure = Refusal(code, "why")
    assert type(error_at_deadline(operation)) is error
    operation.may_have_applied = True
    assert type(error_at_deadline(operation)) is errors.Uncertain
