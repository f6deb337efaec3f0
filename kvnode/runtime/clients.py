"""What clients reach: `kvnode.v1.KV`, as a pipeline of frames and as unary calls.

Laws: every operation taken is answered once, or its stream ends; what one client may have in
flight is bounded, and so are streams; a draining node refuses what is new and says so; a client
that is owed an answer hears from the node all the while.
Tests: tests/unit/runtime/test_clients.py, tests/cluster/.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import grpc

from kvnode.core.bounds import FRAME_OPERATIONS_MAX, OVERLOADED_RETRY_MS, Limits
from kvnode.core.messages import (
    ClientGet,
    ClientOps,
    ClientPut,
    ErrorCode,
    Instant,
    Outcome,
    Result,
    SessionId,
)
from kvnode.core.node import Node
from kvnode.runtime.client_codec import FORMAT, encode_results
from kvnode.runtime.client_stream import ClientStream
from kvnode.runtime.conversation import Conversation
from kvnode.runtime.edge import Edge, Refused
from kvnode.runtime.gate import Gate
from kvnode.runtime.pump import Pump, now_us, wall_ms
from kvnode.runtime.topology_codec import encode_topology
from kvnode.runtime.unary import UnaryCall, UnaryCalls, never_begun, parse
from kvnode.runtime.wire import handlers
from kvproto import kv_pb2

OpT = TypeVar("OpT", ClientGet, ClientPut)
Context = Any  # grpc.aio.ServicerContext; its stubs know no raw bytes

_PAIR_BYTES = 16
_DELAY_MS_LEAST = 20
"""A frame that was under way for so much longer than usual has less time left than it says."""


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
        self._pairs: dict[bytes, dict[bool, ClientStream]] = {}
        """Streams by the pair that they named, and whether they are bulk."""
        self._beat: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.gate = Gate(limits, submit=pump.submit, refuse=self._push, now_us=now_us)
        self._unary = UnaryCalls(self, edge, limits, node.clock)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the gRPC handlers."""
        return handlers(
            "kvnode.v1.KV",
            unary=self._unary.methods(),
            streams={"Pipeline": self._pipeline},
        )

    @property
    def is_idle(self) -> bool:
        """Whether every client has its answers, and no call waits for its turn."""
        return not self.gate.waiting and all(
            session.owed <= 0 and session.outgoing.is_idle
            for session in self._sessions.values()
            if isinstance(session, ClientStream)
        )

    def answer(self, session: SessionId, results: list[Result]) -> None:
        """Send the core's results to a client; if it is gone they are dropped."""
        self._push(session, results)
        self.gate.on_answered(session, results)

    def _push(self, session: SessionId, results: list[Result]) -> None:
        found = self._sessions.get(session)
        if found is not None:
            found.push(results)

    def _encode(self, stream: ClientStream, results: Sequence[Result]) -> bytes:
        """Return a frame of results."""
        frame = encode_results(
            self.edge,
            results,
            hlc=self._node.time_for_clients(wall_ms()),
            explain_bytes=self.limits.explain_bytes,
        )
        frame.draining = self.is_draining
        frame.waiting = self.gate.waiting_of(stream.session)
        if stream.owes_topology:
            stream.owes_topology = False
            frame.topology.CopyFrom(encode_topology(self.edge.topology))
        if stream.wants_bulk:
            stream.wants_bulk = False
            frame.wants_bulk = True
        return frame.SerializeToString()

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
        stream = ClientStream(
            self._open_session(), self._encode, self.limits, waiting=self.gate.waiting_of
        )
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
            self._part(stream)
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
        request = parse(kv_pb2.PipelineRequest, data)
        if request.format != FORMAT:
            raise Refused(f"frame format {request.format} is not known here (this is {FORMAT})")
        if request.pair:
            self._pair(stream, request.pair, is_bulk=request.bulk)
        if self._is_refused_unread(stream, request):
            return
        keyspaces = list(request.keyspaces)
        gets, failures = self.edge.decode_gets(request.gets, keyspaces)
        puts, more = self.edge.decode_puts(request.puts, keyspaces)
        failures += more
        if (delay_ms := stream.delay_ms(request.sent_ms, now_us() // 1_000)) > _DELAY_MS_LEAST:
            gets, puts = _hurried(gets, delay_ms), _hurried(puts, delay_ms)
        stream.owe(len(gets) + len(puts) + len(failures), size=len(data))
        self.operations += len(gets) + len(puts)
        if request.epoch < self.edge.topology.epoch:
            stream.owes_topology = True
        refusal = self._refusal(stream)
        if refusal is not None:
            code, text = refusal
            retry_ms = OVERLOADED_RETRY_MS if code is ErrorCode.OVERLOADED else 0
            ids = (get.id for get in gets), (put.id for put in puts)
            failures += _refuse_all(*ids, code, text, retry_ms)  # type: ignore[arg-type]
        elif gets or puts:
            ops = ClientOps(stream.session, gets, puts)
            self.gate.enter(stream.session, ops, size=len(data))
        if failures:
            stream.push(list(failures))
        if stream.owed:
            self._keep_beating()

    def _is_refused_unread(self, stream: ClientStream, request: kv_pb2.PipelineRequest) -> bool:
        """Refuse a frame by its ids alone, if nothing of this client can be let in now.

        That costs a twentieth of what reading the operations would, when there is no time to lose.
        """
        gets, puts = request.gets.id, request.puts.id
        count = len(gets) + len(puts)
        if self.is_draining or not 0 < count <= FRAME_OPERATIONS_MAX:
            return False
        refusal = self.gate.refusal(stream.session, count)
        if refusal is None:
            return False
        stream.owe(count)
        stream.push(_refuse_all(gets, puts, ErrorCode.OVERLOADED, *refusal))
        return True

    def _pair(self, stream: ClientStream, pair: bytes, *, is_bulk: bool) -> None:
        """Note which two streams are one client's. Raises: Refused."""
        if len(pair) != _PAIR_BYTES:
            raise Refused(f"pair has {len(pair)} bytes; it must have {_PAIR_BYTES}")
        streams = self._pairs.setdefault(pair, {})
        streams[is_bulk] = stream
        stream.pair = pair
        if False in streams:
            streams[False].bulk = streams.get(True)

    def _part(self, stream: ClientStream) -> None:
        """A stream has ended."""
        del self._sessions[stream.session]
        self.gate.leave(stream.session)
        streams = self._pairs.get(stream.pair, {})
        kept = {is_bulk: other for is_bulk, other in streams.items() if other is not stream}
        if False in kept:
            kept[False].bulk = kept.get(True)
        if kept:
            self._pairs[stream.pair] = kept
        else:
            self._pairs.pop(stream.pair, None)

    def _on_beat(self) -> None:
        """Have every client that waits for an answer hear that this node lives."""
        self._beat = None
        self.gate.look()
        owing = self.gate.waiting > 0
        for session in self._sessions.values():
            if isinstance(session, ClientStream):
                owing |= session.beat()
        if owing:
            self._keep_beating()

    def _keep_beating(self) -> None:
        if self._beat is None:
            self._beat = self._loop.call_later(self.limits.client_beat_ms / 1_000, self._on_beat)

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

    def begin(self, call: UnaryCall, share: object, ops: ClientOps, size: int) -> SessionId:
        """Hand the operation of a unary call to the core, in its turn."""
        ops.session = self._open_session()
        self._sessions[ops.session] = call
        self.operations += 1
        self.gate.enter(share, ops, size=size)
        if self.gate.waiting:
            self._keep_beating()
        return ops.session

    def forget(self, session: SessionId) -> None:
        """A unary call has ended."""
        del self._sessions[session]

    def fail(self, exc: BaseException) -> None:
        """A call met a bug: end the node."""
        self._pump.fail(exc)

    def _open_session(self) -> SessionId:
        self._last_session += 1
        return SessionId(self._last_session)


def _hurried(ops: list[OpT], by_ms: int) -> list[OpT]:
    """Return operations with earlier deadlines."""
    return [op._replace(deadline_us=Instant(op.deadline_us - 1_000 * by_ms)) for op in ops]


def _refuse_all(
    gets: Iterable[int], puts: Iterable[int], code: ErrorCode, text: str, retry_ms: int
) -> list[Result]:
    """Return a failure for each operation, none of which was begun."""
    failures: list[Result] = [
        never_begun(op_id, Outcome.NONE, code, text, retry_ms=retry_ms) for op_id in gets
    ]
    failures += [
        never_begun(op_id, Outcome.NOT_APPLIED, code, text, retry_ms=retry_ms) for op_id in puts
    ]
    return failures
