"""Unary calls of `kvnode.v1.KV`: for any language, and for grpcurl. One task a call.

Laws: a call takes its turn with the other calls of its connection; a call whose deadline has passed
is never begun; every failure is a status with the encoded `Failure` beside it.
Tests: tests/unit/runtime/test_clients.py, tests/cluster/.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError

from kvnode.core.bounds import Limits
from kvnode.core.hlc import Clock, Timestamp
from kvnode.core.messages import (
    ClientOps,
    ErrorCode,
    Failure,
    GetResult,
    Outcome,
    PutResult,
    Result,
    SessionId,
)
from kvnode.runtime.client_codec import encode_detail
from kvnode.runtime.edge import Edge, Refused, encode_failure, name_node
from kvnode.runtime.pump import wall_ms
from kvnode.runtime.wire import UnaryMethod
from kvproto import kv_pb2

Context = Any  # grpc.aio.ServicerContext; its stubs know no raw bytes

_CODES = {
    ErrorCode.INVALID_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorCode.UNKNOWN_KEYSPACE: grpc.StatusCode.NOT_FOUND,
    ErrorCode.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.UNCERTAIN: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorCode.TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
    ErrorCode.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.STORAGE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.CORRUPT_DATA: grpc.StatusCode.DATA_LOSS,
    ErrorCode.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    ErrorCode.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    ErrorCode.STALE_EPOCH: grpc.StatusCode.FAILED_PRECONDITION,
    ErrorCode.INTERNAL: grpc.StatusCode.INTERNAL,
}


class UnaryCall:
    """One unary call, waiting for its only result."""

    def __init__(self) -> None:
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def push(self, results: list[Result]) -> None:
        """Take the result."""
        if not self.result.done():
            self.result.set_result(results[0])


class Host(Protocol):
    """The service that a call belongs to."""

    is_draining: bool

    def begin(self, call: UnaryCall, share: object, ops: ClientOps, size: int) -> SessionId:
        """Hand operations of a new session to the core."""

    def forget(self, session: SessionId) -> None:
        """End a session."""

    def fail(self, exc: BaseException) -> None:
        """End the node: it has a bug."""


class UnaryCalls:
    """Get, Put and Delete."""

    def __init__(self, host: Host, edge: Edge, limits: Limits, clock: Clock) -> None:
        self._host = host
        self._edge = edge
        self._limits = limits
        self._clock = clock

    def methods(self) -> dict[str, UnaryMethod]:
        """Return the handlers by name."""
        return {
            "Get": self._guarded(self._get),
            "Put": self._guarded(self._put),
            "Delete": self._guarded(self._delete),
        }

    def _guarded(self, method: UnaryMethod) -> UnaryMethod:
        """Return the method such that a bug in it ends the node, not just the call."""

        async def call(data: bytes, context: Context) -> bytes:
            try:
                return await method(data, context)
            except grpc.aio.BaseError:
                raise  # refused, or the client is gone
            except Exception as exc:
                self._host.fail(exc)
                raise

        return call

    async def _get(self, data: bytes, context: Context) -> bytes:
        request = await _parsed(kv_pb2.GetRequest, data, context)
        try:
            _refuse_late(context)
            get = self._edge.get(1, request, _timeout_ms(context, self._limits))
        except Refused as exc:
            return await self._abort_refused(exc, Outcome.NONE, context)
        result = await self._run(
            ClientOps(SessionId(0), (get,), ()), Outcome.NONE, context, len(data)
        )
        if not isinstance(result, GetResult):
            return await self._abort(result, context)
        response = kv_pb2.GetResponse(
            found=result.value is not None,
            value=result.value or b"",
            context=result.context,
            timestamp=result.timestamp,
            confidence=int(result.confidence),  # type: ignore[arg-type]
        )
        if result.detail is not None:
            limit = self._limits.explain_bytes
            response.detail.CopyFrom(encode_detail(0, result.detail, self._edge, limit))
        return response.SerializeToString()

    async def _put(self, data: bytes, context: Context) -> bytes:
        return await self._write(await _parsed(kv_pb2.PutRequest, data, context), context)

    async def _delete(self, data: bytes, context: Context) -> bytes:
        return await self._write(await _parsed(kv_pb2.DeleteRequest, data, context), context)

    async def _write(
        self, request: kv_pb2.PutRequest | kv_pb2.DeleteRequest, context: Context
    ) -> bytes:
        """Write for a caller that may not know of stamps: here this node is the client.

        A plain put that meets a newer rival is done anew (docs/write-path.md, restamping).
        """
        stamp, write_id = request.timestamp, request.write_id or os.urandom(16)
        size = request.ByteSize()
        try:
            _refuse_late(context)
        except Refused as exc:
            return await self._abort_refused(exc, Outcome.NOT_APPLIED, context)
        while True:
            stamp = stamp or self._clock.tick(wall_ms())
            timeout_ms = _timeout_ms(context, self._limits)
            try:
                put = self._edge.put(1, request, timeout_ms, write_id=write_id, timestamp=stamp)
            except Refused as exc:
                return await self._abort_refused(exc, Outcome.NOT_APPLIED, context)
            result = await self._run(
                ClientOps(SessionId(0), (), (put,)), Outcome.NOT_APPLIED, context, size
            )
            if not isinstance(result, PutResult):
                return await self._abort(result, context)
            if not result.newer or request.timestamp:
                break
            self._clock.observe(Timestamp(result.newer), wall_ms())
            stamp, write_id = 0, os.urandom(16)
        acked = [name_node(self._edge, node) for node in result.acked]
        return kv_pb2.PutResponse(
            context=result.context, timestamp=stamp, acked_by=acked
        ).SerializeToString()

    async def _run(self, ops: ClientOps, outcome: Outcome, context: Context, size: int) -> Result:
        if self._host.is_draining:
            return never_begun(1, outcome, ErrorCode.UNAVAILABLE, "this node is stopping")
        call = UnaryCall()
        # All calls of one connection share one turn, or each would outweigh a whole stream.
        session = self._host.begin(call, ("unary", context.peer()), ops, size)
        try:
            return await call.result
        finally:
            self._host.forget(session)

    async def _abort_refused(self, refused: Refused, outcome: Outcome, context: Context) -> bytes:
        return await self._abort(never_begun(1, outcome, refused.code, str(refused)), context)

    async def _abort(self, result: Result, context: Context) -> bytes:
        assert isinstance(result, Failure)
        encoded = encode_failure(result, self._edge).SerializeToString()
        trailer = (("kvnode-failure-bin", encoded),)
        await context.abort(_CODES[result.code], result.message, trailing_metadata=trailer)
        raise AssertionError  # abort raises


def never_begun(
    op_id: int, outcome: Outcome, code: ErrorCode, text: str, *, retry_ms: int = 0
) -> Failure:
    """Return the failure of an operation that had no effect."""
    return Failure(op_id, code, outcome, text, retry_ms, ())


def _refuse_late(context: Context) -> None:
    """A request whose deadline has passed is never begun. Raises: Refused."""
    remaining = context.time_remaining()
    # In whole milliseconds, as deadlines travel: gRPC sends one that has passed as 1 ms.
    if remaining is not None and remaining < 0.001:
        raise Refused("the deadline has passed", ErrorCode.TIMEOUT)


def _timeout_ms(context: Context, limits: Limits) -> int:
    remaining = context.time_remaining()
    return limits.timeout_ms if remaining is None else max(1, int(min(remaining, 1e6) * 1_000))


def parse(kind: Any, data: bytes) -> Any:
    """Return a message. Raises: Refused."""
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        raise Refused(f"not a {kind.DESCRIPTOR.full_name}") from exc


async def _parsed(kind: Any, data: bytes, context: Context) -> Any:
    try:
        return parse(kind, data)
    except Refused as exc:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))
