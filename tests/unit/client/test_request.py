"""The edge of the client: what is refused before anything is sent, and how."""

from __future__ import annotations

from typing import Any

import pytest

from kvclient import errors, request
from kvclient.operation import PUT_DELETE, PUT_EXPLICIT


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", "key must be 1 to 4,096 bytes, got 0"),
        (b"k" * 4097, "key must be 1 to 4,096 bytes, got 4,097"),
        ("é" * 2049, "key must be 1 to 4,096 bytes, got 4,098"),
        ("\ud800", "key must be valid Unicode, or bytes"),
    ],
)
def test_a_key_out_of_range_is_refused_with_the_range(key: str | bytes, message: str) -> None:
    with pytest.raises(errors.InvalidRequest, match=message):
        request.key_bytes(key)


@pytest.mark.parametrize("key", ["../../etc/passwd", "a\0b", "a\nb", b"\xff", "k" * 4096])
def test_any_other_key_is_taken_as_it_is(key: str | bytes) -> None:
    assert request.key_bytes(key) == (key.encode() if isinstance(key, str) else key)


@pytest.mark.parametrize("value", [b"v", bytearray(b"v"), memoryview(b"v")])
def test_values_are_bytes_or_like_them(value: Any) -> None:
    assert request.value_bytes(value) == b"v"


@pytest.mark.parametrize(
    ("check", "argument"),
    [
        (request.key_bytes, 7),
        (request.key_bytes, bytearray(b"k")),
        (request.value_bytes, "text"),
        (request.value_bytes, None),
        (request.ttl_milliseconds, "1"),
        (request.ttl_milliseconds, True),
        (request.explicit_context, "text"),
        (request.keyspace_name, b"bytes"),
        (lambda r: request.quorum("r", r), "two"),
        (lambda r: request.quorum("r", r), True),
        (lambda t: request.timeout_seconds(t, 1.0), "5"),
    ],
)
def test_a_wrong_type_is_a_type_error(check: Any, argument: Any) -> None:
    with pytest.raises(TypeError, match="must be"):
        check(argument)


def check_timeout(timeout: float) -> float:
    return request.timeout_seconds(timeout, 1.0)


def check_quorum(count: int) -> int:
    return request.quorum("r", count)


@pytest.mark.parametrize(
    ("check", "argument"),
    [
        *((request.ttl_milliseconds, ttl) for ttl in (0, -1, float("nan"), float("inf"))),
        *((check_timeout, timeout) for timeout in (0, -1, float("nan"))),
        *((check_quorum, count) for count in (-1, 2**31)),
        (request.keyspace_name, ""),
        (request.keyspace_name, "k" * 256),
        (request.keyspace_name, "\udcff"),
    ],
)
def test_a_value_out_of_range_is_an_invalid_request(check: Any, argument: Any) -> None:
    with pytest.raises(errors.InvalidRequest, match="must be"):
        check(argument)


def test_a_time_out_of_years_is_cut() -> None:
    assert request.timeout_seconds(10**9, 1.0) == 3600.0
    assert request.timeout_seconds(float("inf"), 1.0) == 3600.0


def test_a_short_ttl_is_not_none_at_all() -> None:
    assert request.ttl_milliseconds(0.0001) == 1


def test_only_a_context_that_was_given_is_explicit() -> None:
    assert request.put("default", "k", b"v", None).flags == 0
    assert request.put("default", "k", b"v", None, context=b"").flags == 0
    assert request.put("default", "k", b"v", None, context=b"c").flags == PUT_EXPLICIT
    deletion = request.delete("default", "k", 2, context=b"c")
    assert deletion.flags == PUT_DELETE | PUT_EXPLICIT
    assert deletion.quorum == 2
