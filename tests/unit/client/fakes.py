"""Fakes for the client's tests: nodes that speak kv.proto as a script says, and parts without I/O.

What it decides: what a node answers in a test. A `FakeCluster` runs its nodes in one event loop of
its own thread, over one shared table, so that any node answers for any key.
Laws: nothing here sleeps; a test waits with `wait_for` on what a node has received.
Its tests are those of the client. Left out: quorums; real nodes are tested in tests/cluster.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc
from grpc import aio

from kvclient.bounds import Bounds
from kvclient.engine import Engine
from kvclient.operation import Lane, LaneState, Operation
from kvclient.routing import KeyspaceSettings, Topology
from kvclient.session import Session, pack_pairs
from kvproto import kv_pb2 as pb

HOUR_MS = 3_600_000
EPOCH_HLC = 1_800_000_000_000 << 16
ACTOR = 7


def context_of(*pairs: tuple[int, int], dots: int = 0) -> bytes:
    """Return a context in the shape that nodes give out; so many last pairs are single dots."""
    return b"\x01" + dots.to_bytes(2, "little") + pack_pairs(pairs) + b"M" * 16


@dataclass(frozen=True)
class Row:
    """One operation as a node received it."""

    node: str
    kind: str
    id: int
    keyspace: str
    key: bytes
    value: bytes
    context: bytes
    watermark: bytes
    write_id: bytes
    timestamp: int
    expires_ms: int
    quorum: int
    timeout_ms: int
    flags: int


@dataclass(frozen=True)
class Refuse:
    """Answer with a failure."""

    code: int
    outcome: int = pb.NOT_APPLIED
    message: str = "refused by the script"
    retry_after_ms: int = 0


@dataclass(frozen=True)
class Newer:
    """Acknowledge a put, and say that an owner holds something newer."""

    hlc: int


class Break:
    """End the stream, with whatever else it owes."""


class Hold:
    """Say nothing until `release`."""


class Siblings:
    """Answer a get with two concurrent values."""


Script = Callable[[Row], Any]


def rows_of(node: str, request: pb.PipelineRequest) -> Iterator[Row]:
    """Yield the operations of a frame."""
    names = list(request.keyspaces)
    both: tuple[tuple[str, Any], ...] = (("get", request.gets), ("put", request.puts))
    for kind, columns in both:
        for at in range(len(columns.id)):
            yield Row(
                node,
                kind,
                columns.id[at],
                names[_at(columns.keyspace, at, 0)],
                columns.key[at],
                _at(getattr(columns, "value", []), at, b""),
                _at(columns.context, at, b""),
                _at(getattr(columns, "watermark", []), at, b""),
                _at(getattr(columns, "write_id", []), at, b""),
                _at(getattr(columns, "timestamp", []), at, 0),
                _at(getattr(columns, "expires_ms", []), at, 0),
                _at(columns.r if kind == "get" else columns.w, at, 0),
                columns.timeout_ms[at],
                _at(columns.flags, at, 0),
            )


def _at(column: Any, at: int, default: Any) -> Any:
    return column[at] if len(column) else default


class FakeNode(grpc.GenericRpcHandler):
    """One node: a gRPC server and the script of its behaviour."""

    def __init__(self, cluster: FakeCluster, number: int) -> None:
        self.cluster = cluster
        self.number = number
        self.id = f"n{number}"
        self.port = 0
        self.received: list[Row] = []
        self.frames = 0
        self.script: Script = lambda row: None
        self.is_draining = False
        self.waiting = 0
        self.hints = pb.Hints(node=self.id)
        self.convergence: list[pb.Convergence] = []
        """What to say, one after another; the last one again and again."""
        self.kicks: list[bool] = []
        self._server: Any = None
        self._held: list[tuple[Any, Row]] = []
        self._streams: list[Any] = []

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def service(self, details: Any) -> Any:
        """Route a method; the generic form, since there are no generated stubs."""
        methods: dict[str, Any] = {
            "/kvnode.v1.KV/Pipeline": grpc.stream_stream_rpc_method_handler(self._pipeline),
            "/kvnode.v1.Cluster/GetTopology": grpc.unary_unary_rpc_method_handler(self._topology),
            "/kvnode.v1.Cluster/GetStatus": grpc.unary_unary_rpc_method_handler(self._status),
            "/kvnode.v1.Cluster/ListConflicts": grpc.unary_unary_rpc_method_handler(
                self._conflicts
            ),
            "/kvnode.v1.Cluster/GetHints": grpc.unary_unary_rpc_method_handler(self._hints),
            "/kvnode.v1.Cluster/GetConvergence": grpc.unary_unary_rpc_method_handler(
                self._convergence
            ),
        }
        return methods.get(details.method)

    def kill(self) -> None:
        """Close the port and every stream at once."""
        self.cluster.run(self._stop())

    def start(self) -> None:
        """Listen, on the same port as before if there was one."""
        self.cluster.run(self._start())

    def release(self) -> None:
        """Answer what is held."""
        self.cluster.run(self._release())

    def rows(self, kind: str = "put") -> list[Row]:
        """Return what was received of a kind."""
        return [row for row in self.received if row.kind == kind]

    async def _start(self) -> None:
        self._server = aio.server(options=(("grpc.so_reuseport", 0),))
        self._server.add_generic_rpc_handlers((self,))
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def _stop(self) -> None:
        self._held.clear()
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(None)

    async def _release(self) -> None:
        held, self._held = self._held, []
        for context, row in held:
            response = self._response()
            self._answer(response, row, None)
            await context.write(response.SerializeToString())

    async def _topology(self, request: bytes, context: Any) -> bytes:
        return self.cluster.topology().SerializeToString()

    async def _status(self, request: bytes, context: Any) -> bytes:
        status = pb.Status(node=self.id, state="up", epoch=self.cluster.epoch, hlc=EPOCH_HLC)
        return status.SerializeToString()

    async def _hints(self, request: bytes, context: Any) -> bytes:
        return self.hints.SerializeToString()

    async def _convergence(self, request: bytes, context: Any) -> bytes:
        self.kicks.append(pb.GetConvergenceRequest.FromString(request).kick)
        more = len(self.convergence) > 1
        said = self.convergence.pop(0) if more else self.convergence[0]
        return said.SerializeToString()

    async def _conflicts(self, request: bytes, context: Any) -> bytes:
        asked = pb.ListConflictsRequest.FromString(request)
        number = int(asked.after or b"0")
        page = pb.ListConflictsResponse(next=b"" if number else b"1")
        page.conflicts.add(
            keyspace="default",
            key=b"k%d" % number,
            siblings=[pb.Sibling(actor=self.number, counter=1, value=b"v")],
        )
        return page.SerializeToString()

    def _response(self) -> pb.PipelineResponse:
        hlc = self.cluster.hlc
        return pb.PipelineResponse(
            format=1,
            epoch=self.cluster.epoch,
            hlc=hlc,
            draining=self.is_draining,
            waiting=self.waiting,
        )

    async def _pipeline(self, requests: Any, context: Any) -> None:
        async for data in requests:
            request = pb.PipelineRequest.FromString(data)
            response = self._response()
            if 0 < request.epoch < self.cluster.epoch:
                response.topology.CopyFrom(self.cluster.topology())
            self.frames += 1
            for row in rows_of(self.id, request):
                action = self.script(row)
                self._receive(row)
                if isinstance(action, Break):
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "broken by the script")
                elif isinstance(action, Hold):
                    self._held.append((context, row))
                else:
                    self._answer(response, row, action)
            if response.gets.id or response.puts.id or response.failures:
                await context.write(response.SerializeToString())

    def _receive(self, row: Row) -> None:
        with self.cluster.changed:
            self.received.append(row)
            self.cluster.received.append(row)
            self.cluster.changed.notify_all()

    def _answer(self, response: pb.PipelineResponse, row: Row, action: Any) -> None:
        match action:
            case Refuse():
                response.failures.add(
                    id=row.id,
                    code=action.code,
                    outcome=action.outcome,
                    message=action.message,
                    retry_after_ms=action.retry_after_ms,
                )
            case Newer():
                self._acknowledge(response.puts, row, action.hlc)
            case Siblings():
                self._siblings(response.gets, row)
            case _ if row.kind == "put":
                self._acknowledge(response.puts, row, 0)
            case _:
                self._found(response.gets, row)

    def _acknowledge(self, puts: pb.PutResults, row: Row, newer: int) -> None:
        context = self.cluster.write(row)
        puts.id.append(row.id)
        puts.context.append(context)
        puts.acked.append(self.number.to_bytes(2, "little") + b"\x02\x00")
        puts.newer.append(newer)

    def _found(self, gets: pb.GetResults, row: Row) -> None:
        value, context, timestamp = self.cluster.table.get((row.keyspace, row.key), (None, b"", 0))
        gets.id.append(row.id)
        gets.value.append(value or b"")
        gets.found.append(int(value is not None))
        gets.context.append(context)
        gets.timestamp.append(timestamp)
        gets.confidence.append(pb.AGREED)
        if row.flags & pb.GET_EXPLAIN:
            detail = gets.details.add(id=row.id)
            detail.explain.rule = "agreed"

    def _siblings(self, gets: pb.GetResults, row: Row) -> None:
        gets.id.append(row.id)
        gets.value.append(b"")
        gets.found.append(0)
        gets.context.append(context_of((1, 1), (2, 1)))
        gets.timestamp.append(0)
        gets.confidence.append(pb.SIBLINGS)
        gets.details.add(
            id=row.id,
            siblings=[
                pb.Sibling(actor=1, counter=1, timestamp=10, value=b"old"),
                pb.Sibling(actor=2, counter=1, timestamp=20, value=b"new"),
            ],
        )


class FakeCluster:
    """Some fake nodes, the table they share, and the thread they run in."""

    def __init__(self, count: int = 3, *, partitions: int = 16) -> None:
        self.partitions = partitions
        self.epoch = 1
        self.hlc = EPOCH_HLC
        self.received: list[Row] = []
        self.changed = threading.Condition()
        self.table: dict[tuple[str, bytes], tuple[bytes | None, bytes, int]] = {}
        self._counter = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.nodes = [FakeNode(self, number) for number in range(1, count + 1)]
        self.members = list(self.nodes)
        for node in self.nodes:
            node.start()

    @property
    def seeds(self) -> str:
        return ",".join(node.address for node in self.nodes)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def script(self, script: Script) -> None:
        """Give every node the same script."""
        for node in self.nodes:
            node.script = script

    def wait_for(self, condition: Callable[[], Any], timeout_s: float = 10.0) -> None:
        """Wait until what the nodes received meets a condition."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout_s), len(self.received)

    def node(self, node_id: str) -> FakeNode:
        return next(node for node in self.nodes if node.id == node_id)

    def write(self, row: Row) -> bytes:
        self._counter += 1
        context = context_of((ACTOR, self._counter))
        value = None if row.flags & pb.PUT_DELETE else row.value
        self.table[row.keyspace, row.key] = (value, context, row.timestamp)
        return context

    def topology(self) -> pb.Topology:
        numbers = [node.number for node in self.members]
        walk = []
        for partition in range(self.partitions):
            turn = partition % len(numbers)
            walk += numbers[turn:] + numbers[:turn]
        return pb.Topology(
            cluster_id=b"c" * 16,
            name="fake",
            epoch=self.epoch,
            partitions=self.partitions,
            members=[
                pb.Member(id=node.id, number=node.number, address=node.address)
                for node in self.members
            ],
            keyspaces=[
                pb.Keyspace(name="default", n=3, r=2, w=2),
                pb.Keyspace(name="brief", n=3, r=2, w=2, ttl_ms=HOUR_MS),
            ],
            walk_length=len(numbers),
            walk=walk,
        )


class FakeWaiter:
    """Hears of one operation, without a loop."""

    def __init__(self) -> None:
        self.results: list[Any] = []

    def done(self) -> bool:
        return False

    def set_result(self, result: Any, /) -> None:
        self.results.append(result)


@dataclass
class Bench:
    """An engine with lanes that lead nowhere: a test plays the nodes, and is the clock."""

    count: int = 3
    n: int = 1
    """How many of the lanes are the keys' owners'."""
    bounds: Bounds = field(default_factory=Bounds)
    session: Session | None = None
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.alarms: list[float] = []
        self.suspected: list[str] = []
        self.dialled: list[str] = []
        self.engine = Engine(
            session=self.session,
            rng=Random(7),
            random_bytes=Random(8).randbytes,
            alarm=self.alarms.append,
            suspect=lambda lane: self.suspected.append(lane.node),
            bounds=self.bounds,
        )
        self.lanes = [self._lane(number) for number in range(1, self.count + 1)]
        self.engine.lanes = list(self.lanes)
        walk = tuple(lane.number for lane in self.lanes)
        topology = Topology(
            cluster_id=b"c" * 16,
            name="bench",
            epoch=1,
            partitions=1,
            members=(),
            keyspaces={"default": KeyspaceSettings("default", n=self.n, r=1, w=1)},
            walks=(walk,),
        )
        self.engine.router.install(topology, {lane.number: lane for lane in self.lanes})
        self.engine.clock.observe(EPOCH_HLC, self.now)

    def _lane(self, number: int) -> Lane:
        node = f"n{number}"
        lane = Lane(
            node,
            number=number,
            wake=lambda: None,
            dial=lambda: self.dialled.append(node),
            bounds=self.bounds,
        )
        lane.state = LaneState.READY
        return lane

    def put(
        self,
        key: bytes = b"k",
        *,
        timeout_s: float = 5.0,
        session: Session | None = None,
        **options: Any,
    ) -> Operation:
        operation = Operation("default", key, is_put=True, value=b"v", **options)
        return self.submit(operation, timeout_s, session)

    def get(
        self,
        key: bytes = b"k",
        *,
        timeout_s: float = 5.0,
        session: Session | None = None,
        **options: Any,
    ) -> Operation:
        operation = Operation("default", key, is_put=False, **options)
        return self.submit(operation, timeout_s, session)

    def submit(
        self, operation: Operation, timeout_s: float = 5.0, session: Session | None = None
    ) -> Operation:
        operation.session = session
        operation.waiter = FakeWaiter()
        operation.deadline = self.now + timeout_s
        self.engine.submit(operation, self.now)
        self.engine._check()
        return operation

    def acknowledge(
        self, lane: Lane, operation: Operation, *, context: bytes = b"", newer: int = 0
    ) -> None:
        """The node of a lane answers a put."""
        if lane.unanswered.pop(operation.id, None) is not None:
            operation.seen, operation.newer, operation.detail = context, newer, b""
            self.engine.on_puts([operation], self.now)
        self.engine._check()

    def advance(self, seconds: float, *, heard: tuple[Lane, ...] = ()) -> None:
        """Let time pass, keeping every alarm; the nodes of some lanes say something all along."""
        end = self.now + seconds
        while self.alarms and min(self.alarms) <= end:
            self.now = max(self.now, min(self.alarms))
            self.alarms.clear()
            for lane in heard:
                lane.heard_at = self.now
            self.engine.on_alarm(self.now)
            self.engine._check()
        self.now = end

    def holder(self, operation: Operation) -> Lane:
        """Return the one lane that an operation is queued or unanswered on."""
        assert operation.lane is not None
        return operation.lane
