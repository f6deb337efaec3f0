"""Where clients' input is checked, once: from columns to operations that the core may trust.

Every refusal is a typed failure with the offending figure and the allowed range; nothing that is
refused here has had any effect. Further in, the core asserts.
Tests: tests/unit/runtime/test_edge.py. Source: the bad inputs of docs/testing.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from kvnode.core.bounds import (
    CLIENT_TIMEOUT_MS_MAX,
    EXPIRES_MS_MAX,
    FRAME_OPERATIONS_MAX,
    KEY_BYTES_MAX,
    WRITE_ID_BYTES,
    Limits,
)
from kvnode.core.context import ForgedContext, open_context, open_watermark, seal_context
from kvnode.core.keys import decode_key, encode_key
from kvnode.core.messages import (
    ClientGet,
    ClientPut,
    ErrorCode,
    Failure,
    Instant,
    Outcome,
    ReplyReport,
)
from kvnode.core.topology import Keyspace, Topology
from kvproto import kv_pb2, peer_pb2

_FLAGS = kv_pb2.GET_EXPLAIN | kv_pb2.PUT_DELETE | kv_pb2.PUT_EXPLICIT
_NODE_BYTES = 2


class Refused(Exception):
    """One operation's input is wrong."""

    def __init__(self, text: str, code: ErrorCode = ErrorCode.INVALID_REQUEST) -> None:
        super().__init__(text)
        self.code = code


class Edge:
    """Checks input against the topology and the limits in force."""

    def __init__(
        self,
        topology: Callable[[], Topology],
        limits: Limits,
        *,
        cluster_key: bytes,
        now_us: Callable[[], Instant],
    ) -> None:
        self._topology = topology
        self._limits = limits
        self._key = cluster_key
        self._now_us = now_us

    @property
    def topology(self) -> Topology:
        """The topology in force."""
        return self._topology()

    def decode_gets(
        self, columns: kv_pb2.Gets, keyspaces: Sequence[str]
    ) -> tuple[list[ClientGet], list[Failure]]:
        """Return the reads of a frame, and a failure for each that is wrong.

        Raises:
            Refused: the frame itself is wrong.
        """
        count = _count(columns.id)
        gets, failures = [], []
        now, rows = self._now_us(), _rows(columns, count, _GET_COLUMNS)
        for op_id, key, space, context, watermark, r, timeout, flags in rows:
            try:
                gets.append(
                    self._get(
                        now, op_id, _named(keyspaces, space), key,
                        context, watermark, r, timeout, flags,
                    )
                )  # fmt: skip
            except Refused as exc:
                failures.append(_failure(op_id, exc, Outcome.NONE))
        return gets, failures

    def decode_puts(
        self, columns: kv_pb2.Puts, keyspaces: Sequence[str]
    ) -> tuple[list[ClientPut], list[Failure]]:
        """Return the writes of a frame, and a failure for each that is wrong.

        Raises:
            Refused: the frame itself is wrong.
        """
        count = _count(columns.id)
        puts, failures = [], []
        now, rows = self._now_us(), _rows(columns, count, _PUT_COLUMNS)
        for op_id, key, space, value, context, wid, stamp, expires, w, timeout, flags in rows:
            try:
                puts.append(
                    self._put(
                        now, op_id, _named(keyspaces, space), key,
                        value, context, wid, stamp, expires, w, timeout, flags,
                    )
                )  # fmt: skip
            except Refused as exc:
                failures.append(_failure(op_id, exc, Outcome.NOT_APPLIED))
        return puts, failures

    def get(self, op_id: int, request: kv_pb2.GetRequest, timeout_ms: int) -> ClientGet:
        """Return the read of a unary call. Raises: Refused."""
        return self._get(
            self._now_us(), op_id, request.keyspace, request.key, request.context, b"", request.r,
            timeout_ms, kv_pb2.GET_EXPLAIN if request.explain else 0,
        )  # fmt: skip

    def put(
        self,
        op_id: int,
        request: kv_pb2.PutRequest | kv_pb2.DeleteRequest,
        timeout_ms: int,
        *,
        write_id: bytes,
        timestamp: int,
    ) -> ClientPut:
        """Return the write of a unary call. Raises: Refused."""
        is_put = isinstance(request, kv_pb2.PutRequest)
        ttl = request.ttl_ms if isinstance(request, kv_pb2.PutRequest) else 0
        flags = 0 if is_put else kv_pb2.PUT_DELETE
        return self._put(
            self._now_us(), op_id, request.keyspace, request.key,
            request.value if isinstance(request, kv_pb2.PutRequest) else b"", request.context,
            write_id, timestamp, _expiry(timestamp, ttl), request.w, timeout_ms,
            flags | (kv_pb2.PUT_EXPLICIT if request.context else 0),
        )  # fmt: skip

    def encode_puts(self, message: peer_pb2.Forwards, puts: Sequence[ClientPut]) -> None:
        """Fill a frame with writes that an owner shall coordinate."""
        now, columns = self._now_us(), message.puts
        table: dict[str, int] = {}
        for put in puts:
            columns.keyspace.append(table.setdefault(put.keyspace.name, len(table)))
            flags = put.is_delete * kv_pb2.PUT_DELETE + put.is_explicit * kv_pb2.PUT_EXPLICIT
            columns.flags.append(flags)
            seen = put.seen
            sealed = seen.vector or seen.dots
            columns.context.append(seal_context(self._key, put.key, seen) if sealed else b"")
            columns.timeout_ms.append(max(1, (put.deadline_us - now) // 1_000))
        message.keyspaces.extend(table)
        columns.id.extend([put.id for put in puts])
        columns.key.extend([decode_key(put.key).partition_part for put in puts])
        columns.value.extend([put.value for put in puts])
        columns.write_id.extend([put.write_id for put in puts])
        columns.timestamp.extend([put.timestamp for put in puts])
        columns.expires_ms.extend([put.expires_ms for put in puts])
        columns.w.extend([put.w for put in puts])

    def _get(
        self, now: Instant, op_id: int, keyspace: str, key: bytes, context: bytes,
        watermark: bytes, r: int, timeout_ms: int, flags: int,
    ) -> ClientGet:  # fmt: skip
        space = self._keyspace(keyspace)
        _check_key(key)
        _check_quorum("r", r, space)
        _check_flags(flags)
        storage_key = encode_key(space.name, key)
        try:
            seen = open_context(self._key, storage_key, context)
            open_watermark(watermark)
        except ForgedContext as exc:
            raise Refused(str(exc)) from exc
        return ClientGet(
            op_id, storage_key, space, r or space.r, self._deadline(now, timeout_ms), seen,
            watermark, flags & kv_pb2.GET_EXPLAIN != 0,
        )  # fmt: skip

    def _put(
        self, now: Instant, op_id: int, keyspace: str, key: bytes, value: bytes, context: bytes,
        write_id: bytes, timestamp: int, expires_ms: int, w: int, timeout_ms: int, flags: int,
    ) -> ClientPut:  # fmt: skip
        space = self._keyspace(keyspace)
        _check_key(key)
        _check_quorum("w", w, space)
        _check_flags(flags)
        limit = self._limits.value_bytes
        if len(value) > limit:
            raise Refused(f"value must be at most {limit:,} bytes, got {len(value):,}")
        if len(write_id) != WRITE_ID_BYTES or not timestamp:
            raise Refused(
                f"a write needs a write id of {WRITE_ID_BYTES} bytes (got {len(write_id)}) and "
                "the timestamp of its first attempt"
            )
        is_delete = flags & kv_pb2.PUT_DELETE != 0
        storage_key = encode_key(space.name, key)
        try:
            seen = open_context(self._key, storage_key, context)
        except ForgedContext as exc:
            raise Refused(str(exc)) from exc
        if space.ttl_s is not None and not expires_ms and not is_delete:
            expires_ms = (timestamp >> 16) + 1_000 * space.ttl_s
        return ClientPut(
            op_id, storage_key, space, w or space.w, self._deadline(now, timeout_ms), seen,
            flags & kv_pb2.PUT_EXPLICIT != 0, is_delete, b"" if is_delete else value, write_id,
            timestamp, expires_ms,
        )  # fmt: skip

    def _keyspace(self, name: str) -> Keyspace:
        found = self._topology().keyspace(name or "default")
        if found is None:
            raise Refused(f"keyspace {name!r} does not exist", ErrorCode.UNKNOWN_KEYSPACE)
        return found

    def _deadline(self, now: Instant, timeout_ms: int) -> Instant:
        limit = min(timeout_ms or self._limits.timeout_ms, CLIENT_TIMEOUT_MS_MAX)
        return Instant(now + 1_000 * limit)


_GET_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("key", None), ("keyspace", 0), ("context", b""), ("watermark", b""), ("r", 0),
    ("timeout_ms", 0), ("flags", 0),
)  # fmt: skip
_PUT_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("key", None), ("keyspace", 0), ("value", b""), ("context", b""), ("write_id", b""),
    ("timestamp", 0), ("expires_ms", 0), ("w", 0), ("timeout_ms", 0), ("flags", 0),
)  # fmt: skip


def encode_failure(failure: Failure, edge: Edge) -> kv_pb2.Failure:
    """Return the message; nodes are named by their ids."""
    return kv_pb2.Failure(
        id=failure.id,
        code=int(failure.code),  # type: ignore[arg-type]
        outcome=int(failure.outcome),  # type: ignore[arg-type]
        message=failure.message,
        retry_after_ms=failure.retry_after_ms,
        replies=[
            kv_pb2.Reply(
                node=name_node(edge, reply.node),
                answer=reply.answer,
                after_ms=reply.after_us / 1_000,
            )
            for reply in failure.replies
        ],
    )


def decode_failure(message: kv_pb2.Failure, edge: Edge) -> Failure:
    """Return the failure that another node reported."""
    replies = []
    for reply in message.replies:
        member = edge.topology.member(reply.node)
        number = 0 if member is None else member.number
        replies.append(ReplyReport(number, reply.answer, int(reply.after_ms * 1_000)))
    try:
        code, outcome = ErrorCode(message.code), Outcome(message.outcome)
    except ValueError:  # a newer peer's: nothing may be concluded from it
        code, outcome = ErrorCode.UNCERTAIN, Outcome.UNCERTAIN
    return Failure(
        message.id, code, outcome, message.message, message.retry_after_ms, tuple(replies)
    )


def name_node(edge: Edge, number: int) -> str:
    """Return the id of a member by its number."""
    member = edge.topology.by_number(number)
    return f"#{number}" if member is None else member.id


def pack_nodes(numbers: Sequence[int]) -> bytes:
    """Return member numbers as the wire has them: two bytes each, little-endian."""
    return struct.pack(f"<{len(numbers)}H", *numbers)


def unpack_nodes(data: bytes) -> tuple[int, ...]:
    """Return what `pack_nodes` was given; an odd last byte is ignored."""
    return struct.unpack_from(f"<{len(data) // _NODE_BYTES}H", data)


def _rows(columns: Any, count: int, wanted: Sequence[tuple[str, Any]]) -> Iterator[tuple[Any, ...]]:
    """Return the operations of a frame, a row each; an empty column is all defaults."""
    found = [columns.id]
    for name, default in wanted:
        column = getattr(columns, name)
        if len(column) == count:
            found.append(column)
        elif default is not None and not column:
            found.append([default] * count)
        else:
            raise Refused(f"column {name} has {len(column)} entries for {count} operations")
    return zip(*found, strict=True)


def _count(ids: Sequence[int]) -> int:
    if len(ids) > FRAME_OPERATIONS_MAX:
        limit = f"{FRAME_OPERATIONS_MAX:,}"
        raise Refused(f"a frame must have at most {limit} operations, got {len(ids):,}")
    return len(ids)


def _expiry(timestamp: int, ttl_ms: int) -> int:
    """Return when a write of `timestamp` expires; beyond what the format can say is its end."""
    return min((timestamp >> 16) + ttl_ms, EXPIRES_MS_MAX) if ttl_ms else 0


def _named(keyspaces: Sequence[str], index: int) -> str:
    if not index and not keyspaces:
        return "default"
    if index >= len(keyspaces):
        raise Refused(f"keyspace index {index} is outside the frame's table of {len(keyspaces)}")
    return keyspaces[index]


def _check_key(key: bytes) -> None:
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise Refused(f"key must be 1 to {KEY_BYTES_MAX:,} bytes, got {len(key):,}")


def _check_quorum(name: str, asked: int, keyspace: Keyspace) -> None:
    if asked > keyspace.n:
        raise Refused(f"{name} must be 1 to {keyspace.n}, got {asked}")


def _check_flags(flags: int) -> None:
    if flags & ~_FLAGS:
        raise Refused(f"flags {flags} are not known here")


def _failure(op_id: int, refused: Refused, outcome: Outcome) -> Failure:
    return Failure(op_id, refused.code, outcome, str(refused), 0, ())
