"""What clients reach: `kvnode.v1.KV`, as a pipeline of frames and as unary calls.

Laws: every operation taken is answered once, or its stream ends; what one client may have in
flight is bounded, and so are streams; a draining node refuses what is new and says so.
Tests: tests/unit/runtime/test_clients.py, tests/cluster/.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from kvnode.core.bounds import Limits
from kvnode.core.hlc import Timestamp
from kvnode.core.messages import (
    ClientOps,
    Detail,
    ErrorCode,
    Failure,
    GetResult,
    Outcome,
    PutResult,
    Result,
    SessionId,
)
from kvnode.core.node import Node
from kvnode.runtime.client_codec import FORMAT, encode_detail, encode_results
from kvnode.runtime.conversation import Conversation
from kvnode.runtime.edge import Edge, Refused, encode_failure, name_node
from kvnode.runtime.outgoing import Outgoing
from kvnode.runtime.pump import Pump, wall_ms
from kvnode.runtime.topology_codec import encode_topology
from kvnode.runtime.wire import UnaryMethod, handlers
from kvproto import kv_pb2

Context = Any  # grpc.aio.ServicerContext; its stubs know no raw bytes

_RETRY_MS = 20
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


class ClientStream:
    """One client's pipeline."""

    def __init__(self, session: SessionId, service: ClientService) -> None:
        self.session = session
        self.owed = 0
        self.owed_bytes = 0
        """Of frames not answered yet; an operation's part in them is taken to be the average."""
        self.owes_topology = False
        self.is_too_slow = False
        self.hearing: asyncio.Task[None] | None = None
        self._service = service
        self.outgoing: Outgoing[Result] = Outgoing(
            self._encode, _payload, lambda: self.owed, service.limits
        )

    def push(self, results: list[Result]) -> None:
        """Answer operations; a client that does not read its answers loses its stream."""
        self.outgoing.push(results)
        if self.outgoing.is_overfull and not self.is_too_slow:
            self.is_too_slow = True
            self.end()

    def end(self) -> None:
        """End the stream, whatever is under way on it."""
        self.outgoing.close()
        if self.hearing is not None:
            self.hearing.cancel()

    def _encode(self, results: Sequence[Result]) -> bytes:
        self.owed_bytes -= self.owed_bytes * len(results) // max(1, len(results), self.owed)
        self.owed -= len(results)
        frame = self._service.encode(results)
        if self.owes_topology:
            self.owes_topology = False
            frame.topology.CopyFrom(encode_topology(self._service.edge.topology))
        return frame.SerializeToString()


class UnaryCall:
    """One unary call, waiting for its only result."""

    def __init__(self) -> None:
        self.result: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

    def push(self, results: list[Result]) -> None:
        """Take the result."""
        if not self.result.done():
            self.result.set_result(results[0])


class ClientService:
    """`kvnode.v1.KV`."""

    def __init__(self, node: Node, edge: Edge, pump: Pump, limits: Limits) -> None:
        self.edge = edge
        self.limits = limits
        self.is_draining = False
        self.operations = 0
        self._node = node
        self._pump = pump
        self._sessions: dict[SessionId, ClientStream | UnaryCall] = {}
        self._last_session = 0
        self._streams = 0

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the gRPC handlers."""
        return handlers(
            "kvnode.v1.KV",
            unary={
                "Get": self._guarded(self._get),
                "Put": self._guarded(self._put),
                "Delete": self._guarded(self._delete),
            },
            streams={"Pipeline": self._pipeline},
        )

    @property
    def is_idle(self) -> bool:
        """Whether every client has its answers."""
        return all(
            session.owed <= 0 and session.outgoing.is_idle
            for session in self._sessions.values()
            if isinstance(session, ClientStream)
        )

    def answer(self, session: SessionId, results: list[Result]) -> None:
        """Send results to a client; if it is gone they are dropped."""
        found = self._sessions.get(session)
        if found is not None:
            found.push(results)

    def encode(self, results: Sequence[Result]) -> kv_pb2.PipelineResponse:
        """Return a frame of results."""
        frame = encode_results(
            self.edge,
            results,
            hlc=self._node.clock.read(wall_ms()),
            explain_bytes=self.limits.explain_bytes,
        )
        frame.draining = self.is_draining
        return frame

    def drain(self) -> None:
        """Refuse new operations from here on, and tell every client."""
        self.is_draining = True
        for session in self._sessions.values():
            if isinstance(session, ClientStream):
                session.outgoing.notice()

    def end_streams(self) -> None:
        """End every pipeline: what waits in them is of unknown age."""
        for session in self._sessions.values():
            if isinstance(session, ClientStream):
                session.end()

    # ---- pipeline ------------------------------------------------------------------------

    async def _pipeline(self, _: Any, context: Context) -> None:
        if self._streams >= self.limits.client_streams:
            text = f"this node serves at most {self.limits.client_streams:,} streams"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        stream = ClientStream(self._open_session(), self)
        self._sessions[stream.session] = stream
        self._streams += 1
        conversation = Conversation(context)
        refusal = None
        try:
            await conversation.run(
                hear=self._hear(stream, conversation),
                speak=stream.outgoing.run(conversation.write),
                hush=stream.outgoing.close,
            )
        except Refused as exc:
            refusal = grpc.StatusCode.INVALID_ARGUMENT, str(exc)
        except Exception as exc:  # noqa: BLE001 (handed on: it ends the node)
            self._pump.fail(exc)
        finally:
            self._streams -= 1
            stream.outgoing.close()
            del self._sessions[stream.session]
        if stream.is_too_slow:
            limit = f"{self.limits.outbox_bytes:,}"
            text = f"more than {limit} bytes of answers wait for this client to read them"
            refusal = grpc.StatusCode.RESOURCE_EXHAUSTED, text
        if refusal is not None:
            await context.abort(*refusal)

    async def _hear(self, stream: ClientStream, conversation: Conversation) -> None:
        stream.hearing = asyncio.current_task()
        while (data := await conversation.read()) is not None:
            self._take_frame(stream, data)
        # Whoever has said his last word still gets what he is owed.
        await stream.outgoing.finish()

    def _take_frame(self, stream: ClientStream, data: bytes) -> None:
        """Check a frame and hand what is sound to the core. Raises: Refused."""
        request = _parse(kv_pb2.PipelineRequest, data)
        if request.format != FORMAT:
            raise Refused(f"frame format {request.format} is not known here (this is {FORMAT})")
        keyspaces = list(request.keyspaces)
        gets, failures = self.edge.decode_gets(request.gets, keyspaces)
        puts, more = self.edge.decode_puts(request.puts, keyspaces)
        failures += more
        stream.owed += len(gets) + len(puts) + len(failures)
        stream.owed_bytes += len(data)
        self.operations += len(gets) + len(puts)
        if request.epoch < self.edge.topology.epoch:
            stream.owes_topology = True
        refusal = self._refusal(stream)
        if refusal is not None:
            failures += [_refused(get.id, Outcome.NONE, *refusal) for get in gets]
            failures += [_refused(put.id, Outcome.NOT_APPLIED, *refusal) for put in puts]
        elif gets or puts:
            self._pump.submit(ClientOps(stream.session, gets, puts))
        if failures:
            stream.push(list(failures))

    def _refusal(self, stream: ClientStream) -> tuple[ErrorCode, str] | None:
        if self.is_draining:
            return ErrorCode.UNAVAILABLE, "this node is stopping"
        limit = self.limits.operations_per_client
        if stream.owed > limit:
            return ErrorCode.OVERLOADED, f"more than {limit:,} operations of this client in flight"
        if stream.owed_bytes > self.limits.client_bytes:
            text = f"more than {self.limits.client_bytes:,} bytes of this client in flight"
            return ErrorCode.OVERLOADED, text
        return None

    # ---- unary ---------------------------------------------------------------------------

    def _guarded(self, method: UnaryMethod) -> UnaryMethod:
        """Return the method such that a bug in it ends the node, not just the call."""

        async def call(data: bytes, context: Context) -> bytes:
            try:
                return await method(data, context)
            except grpc.aio.BaseError:
                raise  # refused, or the client is gone
            except Exception as exc:
                self._pump.fail(exc)
                raise

        return call

    async def _get(self, data: bytes, context: Context) -> bytes:
        request = await _parsed(kv_pb2.GetRequest, data, context)
        try:
            _refuse_late(context)
            get = self.edge.get(1, request, _timeout_ms(context, self.limits))
        except Refused as exc:
            return await self._abort_refused(exc, Outcome.NONE, context)
        result = await self._run(ClientOps(SessionId(0), (get,), ()), Outcome.NONE)
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
            limit = self.limits.explain_bytes
            response.detail.CopyFrom(encode_detail(0, result.detail, self.edge, limit))
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
        try:
            _refuse_late(context)
        except Refused as exc:
            return await self._abort_refused(exc, Outcome.NOT_APPLIED, context)
        while True:
            stamp = stamp or self._node.clock.tick(wall_ms())
            timeout_ms = _timeout_ms(context, self.limits)
            try:
                put = self.edge.put(1, request, timeout_ms, write_id=write_id, timestamp=stamp)
            except Refused as exc:
                return await self._abort_refused(exc, Outcome.NOT_APPLIED, context)
            result = await self._run(ClientOps(SessionId(0), (), (put,)), Outcome.NOT_APPLIED)
            if not isinstance(result, PutResult):
                return await self._abort(result, context)
            if not result.newer or request.timestamp:
                break
            self._node.clock.observe(Timestamp(result.newer), wall_ms())
            stamp, write_id = 0, os.urandom(16)
        acked = [name_node(self.edge, node) for node in result.acked]
        return kv_pb2.PutResponse(
            context=result.context, timestamp=stamp, acked_by=acked
        ).SerializeToString()

    async def _run(self, ops: ClientOps, outcome: Outcome) -> Result:
        if self.is_draining:
            return _refused(1, outcome, ErrorCode.UNAVAILABLE, "this node is stopping")
        call = UnaryCall()
        ops.session = self._open_session()
        self._sessions[ops.session] = call
        self.operations += 1
        try:
            self._pump.submit(ops)
            return await call.result
        finally:
            del self._sessions[ops.session]

    async def _abort_refused(self, refused: Refused, outcome: Outcome, context: Context) -> bytes:
        return await self._abort(_refused(1, outcome, refused.code, str(refused)), context)

    async def _abort(self, result: Result, context: Context) -> bytes:
        assert isinstance(result, Failure)
        encoded = encode_failure(result, self.edge).SerializeToString()
        trailer = (("kvnode-failure-bin", encoded),)
        await context.abort(_CODES[result.code], result.message, trailing_metadata=trailer)
        raise AssertionError  # abort raises

    def _open_session(self) -> SessionId:
        self._last_session += 1
        return SessionId(self._last_session)


def _payload(result: Result) -> int:
    if isinstance(result, GetResult):
        size = 64 + len(result.value or b"") + len(result.context)
        return size if result.detail is None else size + _detail_bytes(result.detail)
    return 128


def _detail_bytes(detail: Detail) -> int:
    """Return about what a read's story takes. Not exact: values may be left out of it."""
    siblings = sum(128 + len(sibling.value) for sibling in detail.siblings)
    return 256 + siblings + 256 * len(detail.replicas)


def _refused(op_id: int, outcome: Outcome, code: ErrorCode, text: str) -> Failure:
    retry_ms = _RETRY_MS if code is ErrorCode.OVERLOADED else 0
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


def _parse(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as exc:
        raise Refused(f"not a {kind.DESCRIPTOR.full_name}") from exc


async def _parsed(kind: Any, data: bytes, context: Context) -> Any:
    try:
        return _parse(kind, data)
    except Refused as exc:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))
