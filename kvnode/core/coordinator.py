"""The coordinator's part: clients' operations in progress at this node.

Any node takes any request. A read asks r owners; a write is applied by an owner, so a node that
owns none of the key sends it on to one that does (once: a forwarded write is never forwarded
again). Operations are plain objects in one table; their instants are in one wheel.

Laws: every operation taken is answered exactly once; the table is bounded, and what does not fit
is refused at once and typed; `not applied` is said only of a write that had no effect anywhere.
Tests: tests/unit/core/test_coordinator.py; as whole clusters: tests/sim/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from kvnode.core.bounds import Limits
from kvnode.core.context import seal_context
from kvnode.core.explain import answer
from kvnode.core.keys import StorageKey, partition_of_key
from kvnode.core.messages import (
    ClientGet,
    ClientPut,
    ErrorCode,
    Failure,
    GetResult,
    Instant,
    NodeNumber,
    Outbox,
    PutResult,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Result,
    SessionId,
    Status,
    WriteKind,
)
from kvnode.core.read import ReadOp
from kvnode.core.record import DamagedRecord, Encoded, decode
from kvnode.core.refusals import not_applied, refuse, refuse_skew
from kvnode.core.replica import Replica, TooMany, Unreadable
from kvnode.core.resolve import Decision
from kvnode.core.versions import Record
from kvnode.core.wheel import Wheel, at_common_instant
from kvnode.core.write import ForwardOp, WriteOp

Operation = ReadOp | WriteOp | ForwardOp


class Coordinator:
    """Operations in progress. Also carries out what reads ask for (`ReadEffects`)."""

    __slots__ = (
        "_cluster_key",
        "_limits",
        "_next_id",
        "_now",
        "_operations",
        "_out",
        "_own_reads",
        "_replica",
        "_wall_ms",
        "_wheel",
        "clock_is_off",
        "reachable",
    )

    def __init__(
        self, replica: Replica, limits: Limits, *, cluster_key: bytes, first_id: int
    ) -> None:
        self._replica = replica
        self._limits = limits
        self._cluster_key = cluster_key
        self._next_id = first_id
        """Starts at random, so that an answer to an earlier life is not taken for one to this."""
        self._operations: dict[int, Operation] = {}
        self._wheel = Wheel()
        self._out = Outbox()
        self._own_reads: list[ReplicaRead] = []
        self._now = Instant(0)
        self._wall_ms = 0
        self.reachable: set[NodeNumber] = set()
        self.clock_is_off = False
        """This node's clock differs too far from most of its peers': it coordinates nothing."""

    @property
    def in_flight(self) -> int:
        """How many operations are in progress."""
        return len(self._operations)

    def begin(self, out: Outbox, now: Instant, wall_ms: int) -> None:
        """Start a turn."""
        self._out = out
        self._now = now
        self._wall_ms = wall_ms

    def next_wake(self) -> Instant | None:
        """Return the earliest instant at which `on_time` has something to do."""
        return self._wheel.next_due()

    def end(self) -> None:
        """End the turn: wake what is due, and answer this node's reads of its own records."""
        self.on_time()
        while self._own_reads:
            asks, self._own_reads = self._own_reads, []
            for ask in asks:
                self._answer_own(ask)

    def owns(self, key: StorageKey, n: int) -> bool:
        """Say whether this node is one of the key's first n owners."""
        return self._replica.number in self._owners(key, n)

    # ---- clients -------------------------------------------------------------------------

    def on_get(self, origin: int, request: ClientGet) -> None:
        """Begin a read."""
        if refusal := self._refuse(request):
            self._answer(origin, refusal)
            return
        owners = self._owners(request.key, request.keyspace.n)
        op = ReadOp(
            self._take_id(),
            request,
            origin=origin,
            owners=owners,
            reachable=self._nearest(owners),
            started_us=self._now,
            patience=self._limits,
        )
        self._operations[op.id] = op
        op.start(self)

    def on_put(self, origin: int, request: ClientPut) -> None:
        """Begin a write: here, if this node owns the key and can; else at an owner."""
        if refusal := self._refuse_put(request):
            self._answer(origin, refusal)
            return
        owners = self._owners(request.key, request.keyspace.n)
        if self._replica.number not in owners or not self._replica.has_fetched(request.key):
            # Not fetched: this node owns the key only since a topology of this very turn.
            why = (ErrorCode.UNAVAILABLE, "no owner of the key can be reached")
            self._forward(origin, request, owners, *why)
        elif self._replica.refusal(is_delete=request.is_delete) is not None:
            why = (ErrorCode.STORAGE_FULL, "no space is left at this node")
            self._forward(origin, request, owners, *why)
        else:
            self._coordinate(origin, request, owners)

    def _coordinate(self, origin: int, request: ClientPut, owners: Sequence[NodeNumber]) -> None:
        others = [node for node in owners if node in self.reachable]
        if len(others) + 1 < request.w:
            text = f"{len(others) + 1} of {request.w} owners can be reached"
            self._answer(origin, not_applied(request, ErrorCode.UNAVAILABLE, text))
            return
        try:
            local = self._replica.coordinate(request, self._now)
        except Unreadable:
            why = (ErrorCode.CORRUPT_DATA, "this node cannot read what it holds of the key")
            self._forward(origin, request, owners, *why)
            return
        except TooMany as exc:
            text = f"read the key and merge first: it would have {exc}"
            self._answer(origin, not_applied(request, ErrorCode.INVALID_REQUEST, text))
            return
        op_id = self._take_id()
        op = WriteOp(
            request,
            local.version,
            local.record,
            origin=origin,
            owners=owners,
            started_us=self._now,
        )
        self._operations[op_id] = op
        self._wake_at_deadline(request, op_id)
        message = ReplicaWrite(
            op_id, request.key, local.encoded, request.deadline_us, WriteKind.WRITE, local.at
        )
        for node in others:
            self._out.send(node, message)
        own = ReplicaWriteReply(op_id, Status.DONE, Encoded(b""))
        durable = self._replica.is_dirty(request.key)
        self._out.send(self._replica.number, own, durable=durable)
        for node in owners:
            if node not in self.reachable and node != self._replica.number:
                self._settle(op_id, op.on_failure(node, "unreached", self._now))

    def _forward(
        self,
        origin: int,
        request: ClientPut,
        owners: Sequence[NodeNumber],
        code: ErrorCode,
        why: str,
    ) -> None:
        """Send a write on to the first owner that can be reached, unless it was sent on already."""
        near = [node for node in owners if node in self.reachable]
        if origin < 0 or not near:
            self._answer(origin, not_applied(request, code, why))
            return
        op_id = self._take_id()
        self._operations[op_id] = ForwardOp(request, origin, near[0])
        self._wake_at_deadline(request, op_id)
        self._out.send(near[0], request._replace(id=op_id))

    # ---- replies -------------------------------------------------------------------------

    def on_write_reply(self, node: NodeNumber, reply: ReplicaWriteReply) -> None:
        """An owner took a write or a repair, or refused it."""
        op = self._operations.get(reply.id)
        if isinstance(op, ReadOp):
            op.on_mended(node, reply.status, self)
            return
        state = None
        if isinstance(op, WriteOp):
            if node == self._replica.number and not op.is_awaiting(node):
                # Not the write's own acknowledgement, which came before: that of `_bring_back`.
                if reply.status is Status.DONE:
                    self._settle(reply.id, op.on_merged())
                return
            if reply.record:
                state = self._bring_back(reply.id, op, reply.record)
            if reply.status is Status.DONE:
                self._settle(reply.id, op.on_ack(node, state, self._now))
            else:
                answer = f"refused: {reply.status.name.lower()}"
                self._settle(reply.id, op.on_failure(node, answer, self._now))

    def on_read_reply(self, node: NodeNumber, reply: ReplicaReadReply) -> None:
        """An owner said what it holds."""
        op = self._operations.get(reply.id)
        if isinstance(op, ReadOp):
            op.on_reply(node, reply, self._now, self)

    def on_forward_reply(self, reply: PutResult | Failure) -> None:
        """The owner that coordinated a write for us has its outcome."""
        op = self._operations.get(reply.id)
        if isinstance(op, ForwardOp):
            del self._operations[reply.id]
            self._answer(op.origin, reply._replace(id=op.request.id))

    def on_peer_down(self, node: NodeNumber) -> None:
        """What is unanswered by this node will stay so. Costs a walk over all operations."""
        self.reachable.discard(node)
        for op_id, op in list(self._operations.items()):
            if not op.is_awaiting(node):
                continue
            match op:
                case ReadOp():
                    op.on_unreachable(node, self._now, self)
                case WriteOp():
                    self._settle(op_id, op.on_failure(node, "unreached", self._now))
                case ForwardOp():
                    self._lose_forward(op_id, op, "the link to it is gone")
                case _:
                    assert_never(op)

    def on_time(self) -> None:
        """Wake every operation that asked for an instant that has come."""
        for op_id in self._wheel.take_due(self._now):
            op = self._operations.get(op_id)
            match op:
                case None:
                    pass
                case ReadOp():
                    op.on_wake(self._now, self)
                case WriteOp() | ForwardOp() if self._now < op.request.deadline_us:
                    self._wake_at_deadline(op.request, op_id)
                case WriteOp():
                    self._settle(op_id, op.on_deadline(self._now))
                case ForwardOp():
                    self._lose_forward(op_id, op, "the deadline passed")
                case _:
                    assert_never(op)

    # ---- what reads have done for them (ReadEffects) --------------------------------------

    def ask(self, op: ReadOp, node: NodeNumber) -> None:
        """Ask an owner what it holds; this node answers itself within the turn if it can."""
        request = op.request
        ask = ReplicaRead(op.id, request.key, request.deadline_us, request.watermark)
        if node == self._replica.number and self._replica.has_fetched(request.key):
            self._own_reads.append(ask)
        else:
            self._out.send(node, ask)

    def mend(self, op: ReadOp, node: NodeNumber, record: Encoded) -> None:
        """Have an owner merge this state."""
        deadline = Instant(self._now + 1_000 * self._limits.timeout_ms)
        write = ReplicaWrite(op.id, op.request.key, record, deadline, WriteKind.REPAIR, 0)
        self._out.send(node, write)

    def wake(self, op: ReadOp, at: Instant) -> None:
        """Call the read no earlier than `at`."""
        self._wheel.add(at_common_instant(at, now=self._now), op.id)

    def finish(self, op: ReadOp, decision: Decision, merged: Record) -> None:
        """Answer a read."""
        del self._operations[op.id]
        context = b""
        if merged.context.vector or merged.context.dots:
            context = seal_context(self._cluster_key, op.request.key, merged.context)
        self._answer(op.origin, answer(op, decision, merged, context))

    def fail(self, op: ReadOp, failure: Failure) -> None:
        """Tell the client that its read has no answer."""
        del self._operations[op.id]
        self._answer(op.origin, failure)

    def cluster_ms(self) -> int:
        """Return cluster time, ms since 1970."""
        return self._replica.clock.read(self._wall_ms) >> 16

    # ---- within --------------------------------------------------------------------------

    def _answer_own(self, ask: ReplicaRead) -> None:
        number = self._replica.number
        reply = self._replica.on_read(ask, self._now)
        if self._replica.is_dirty(ask.key):
            self._out.send(number, reply, durable=True)
        else:
            self.on_read_reply(number, reply)

    def _bring_back(self, op_id: int, op: WriteOp, data: Encoded) -> Record | None:
        """Merge what an owner holds beyond what was sent; the next turn stores it here."""
        key, number = op.request.key, self._replica.number
        try:
            state = decode(key, data)
        except DamagedRecord:
            return None
        deadline = Instant(self._now + 1_000 * self._limits.timeout_ms)
        self._out.send(number, ReplicaWrite(op_id, key, data, deadline, WriteKind.REPAIR, 0))
        op.expect_merge(number)
        return state

    def _wake_at_deadline(self, request: ClientPut, op_id: int) -> None:
        # In laps: most writes are long gone by their deadline, and the wheel forgets them sooner.
        lap = at_common_instant(self._now + _LAP_US, now=self._now)
        self._wheel.add(min(request.deadline_us, lap), op_id)

    def _settle(self, op_id: int, result: PutResult | Failure | None) -> None:
        if result is None:
            return
        op = self._operations.pop(op_id, None)
        if not isinstance(op, WriteOp):
            return
        if isinstance(result, PutResult):
            context = seal_context(self._cluster_key, op.request.key, op.result_context())
            result = PutResult(result.id, context, result.acked, result.newer)
        self._answer(op.origin, result)

    def _lose_forward(self, op_id: int, op: ForwardOp, why: str) -> None:
        del self._operations[op_id]
        self._answer(op.origin, op.on_lost(why))

    def _refuse(self, request: ClientGet | ClientPut) -> Failure | None:
        return refuse(
            request,
            in_flight=len(self._operations),
            limits=self._limits,
            now=self._now,
            clock_is_off=self.clock_is_off,
        )

    def _refuse_put(self, request: ClientPut) -> Failure | None:
        clock, wall_ms = self._replica.clock, self._wall_ms
        skew = refuse_skew(request, clock, wall_ms=wall_ms, limits=self._limits)
        return self._refuse(request) or skew

    def _answer(self, origin: int, result: Result) -> None:
        if origin >= 0:
            self._out.answer(SessionId(origin), result)
        else:
            assert not isinstance(result, GetResult)  # only writes are sent on
            self._out.send(-origin, result)

    def _nearest(self, owners: Sequence[NodeNumber]) -> list[NodeNumber]:
        near = [node for node in owners if node in self.reachable]
        if self._replica.number in owners:
            near.insert(0, self._replica.number)
        return near

    def _owners(self, key: StorageKey, n: int) -> tuple[NodeNumber, ...]:
        topology = self._replica.topology
        partition = partition_of_key(key, topology.partition_bits)
        return topology.owner_numbers[partition][:n]

    def _take_id(self) -> int:
        self._next_id = self._next_id % _LAST_ID + 1
        return self._next_id


_LAST_ID = (1 << 64) - 1
_LAP_US = 1_000_000
