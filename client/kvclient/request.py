"""From a caller's arguments to an operation: the edge at which input is checked, once.

Decides what is refused before anything is sent, in the words in which a node would refuse it. Laws:
an operation made here fits the wire; wrong types are TypeError, wrong values InvalidRequest.
Tests: tests/unit/client/test_request.py.
Source: design, sections 2.1 and 6.
Left out: limits that only nodes know (of values), and unknown keyspaces.

Keys are str (as UTF-8) or bytes. Values are bytes, bytearray or memoryview; the latter two are
copied.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from kvclient.bounds import BOUNDS
from kvclient.errors import InvalidRequest
from kvclient.operation import GET_EXPLAIN, PUT_DELETE, PUT_EXPLICIT, Operation

Key: TypeAlias = str | bytes
Value: TypeAlias = bytes | bytearray | memoryview

Items: TypeAlias = (
    Mapping[str, Value] | Mapping[bytes, Value] | Mapping[Key, Value] | Iterable[tuple[Key, Value]]
)
"""What `put_many` takes. Mappings one by one, since the type of their keys is invariant."""


def key_bytes(key: Key) -> bytes:
    """Return a key as it is stored."""
    if isinstance(key, str):
        raw = _utf8(key, "key must be valid Unicode, or bytes")
    elif isinstance(key, bytes):
        raw = key
    else:
        raise TypeError(f"key must be str or bytes, got {type(key).__name__}")
    if not 1 <= len(raw) <= BOUNDS.key_bytes:
        raise InvalidRequest(f"key must be 1 to {BOUNDS.key_bytes:,} bytes, got {len(raw):,}")
    return raw


def value_bytes(value: Value) -> bytes:
    """Return a value as it is stored."""
    if not isinstance(value, bytes):
        if not isinstance(value, bytearray | memoryview):
            raise TypeError(f"value must be bytes, got {type(value).__name__}")
        value = bytes(value)
    if len(value) > BOUNDS.value_bytes:
        most = BOUNDS.value_bytes
        raise InvalidRequest(f"value must be at most {most:,} bytes, got {len(value):,}")
    return value


def quorum(name: str, count: int | None) -> int:
    """Return r or w as it travels: 0 stands for the keyspace's."""
    if count is None:
        return 0
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"{name} must be an int, got {type(count).__name__}")
    if not 0 <= count <= 255:
        raise InvalidRequest(f"{name} must be 1 to n of its keyspace, got {count:,}")
    return count


def timeout_seconds(timeout: float | None, default_s: float) -> float:
    """Return a time-out in seconds, cut to the longest allowed."""
    if timeout is None:
        return default_s
    if isinstance(timeout, bool) or not isinstance(timeout, int | float):
        raise TypeError(f"timeout must be a number of seconds, got {type(timeout).__name__}")
    if math.isnan(timeout) or timeout <= 0:
        raise InvalidRequest(f"timeout must be above 0 seconds, got {timeout:g}")
    return min(float(timeout), BOUNDS.timeout_s)


def ttl_milliseconds(ttl: float | None) -> int:
    """Return a time to live in milliseconds, at least 1; 0 stands for the keyspace's."""
    if ttl is None:
        return 0
    if isinstance(ttl, bool) or not isinstance(ttl, int | float):
        raise TypeError(f"ttl must be a number of seconds, got {type(ttl).__name__}")
    if math.isnan(ttl) or not 0 < ttl <= BOUNDS.ttl_s:
        raise InvalidRequest(f"ttl must be above 0 and at most {BOUNDS.ttl_s:g} s, got {ttl:g}")
    return max(1, round(ttl * 1000))


def keyspace_name(name: str) -> str:
    """Return a keyspace's name if it can be one."""
    if not isinstance(name, str):
        raise TypeError(f"keyspace must be a str, got {type(name).__name__}")
    size, most = len(_utf8(name, "keyspace must be valid Unicode")), BOUNDS.keyspace_bytes
    if not 1 <= size <= most:
        raise InvalidRequest(f"keyspace must be 1 to {most:,} bytes, got {size:,}")
    return name


def _utf8(text: str, complaint: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidRequest(complaint) from exc


def explicit_context(context: bytes | None) -> bytes:
    """Return a caller's context; empty stands for a plain put."""
    if context is None:
        return b""
    if not isinstance(context, bytes):
        raise TypeError(f"context must be bytes, got {type(context).__name__}")
    return context


def get(keyspace: str, key: Key, r: int | None, *, explain: bool = False) -> Operation:
    """Return a get, without its deadline."""
    return Operation(
        keyspace,
        key_bytes(key),
        is_put=False,
        quorum=0 if r is None else quorum("r", r),
        flags=GET_EXPLAIN if explain else 0,
    )


def put(
    keyspace: str,
    key: Key,
    value: Value,
    w: int | None,
    *,
    ttl: float | None = None,
    context: bytes | None = None,
) -> Operation:
    """Return a put, without its deadline."""
    given = explicit_context(context)
    return Operation(
        keyspace,
        key_bytes(key),
        is_put=True,
        value=value_bytes(value),
        quorum=0 if w is None else quorum("w", w),
        flags=PUT_EXPLICIT if given else 0,
        context=given,
        ttl_ms=0 if ttl is None else ttl_milliseconds(ttl),
    )


def delete(keyspace: str, key: Key, w: int | None, *, context: bytes | None = None) -> Operation:
    """Return a delete, without its deadline."""
    given = explicit_context(context)
    flags = PUT_DELETE | (PUT_EXPLICIT if given else 0)
    return Operation(
        keyspace,
        key_bytes(key),
        is_put=True,
        quorum=0 if w is None else quorum("w", w),
        flags=flags,
        context=given,
    )
