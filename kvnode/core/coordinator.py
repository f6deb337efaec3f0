"""The coordinator's part: clients' operations in progress at this node.

Any node takes any request. A read asks r owners, and stand-ins where owners are away; what becomes
of a write is decided in kvnode.core.writing. Operations are plain objects in one table; their
instants are in one wheel.

Laws: every operation taken is answered exactly once; the table is bounded, and what does not fit
is refused at once and typed.
Tests: tests/unit/core/test_coordinator.py; as whole clusters: tests/sim/.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from kvnode.core.bounds import Limits
from kvnode.core.context import seal_context
from kvnode.core.explain import answer
from kvnode.core.hedge import Hedging
from kvnode.core.keys import StorageKey
from kvnode.core.messages import (
    ClientGet,
    ClientPut,
    Failure,
    Instant,
    NodeNumber,
    Outbox,
    PutResult,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Status,
    WriteKind,
)
from kvnode.core.operations import Operations
from kvnode.core.read import ReadOp
from kvnode.core.record import Encoded
from kvnode.core.refusals import refuse, refuse_skew
from kvnode.core.replica import Replica
from kvnode.core.resolve import Decision
from kvnode.core.standin import StandIn
from kvnode.core.versions import Record, join
from kvnode.core.wheel import at_common_instant
from kvnode.core.write import ForwardOp, WriteOp
from kvnode.core.writing import Writes


class Coordinator:
    """Operations in progress. Also carries out what reads ask for (`ReadEffects`)."""

    __slots__ = (
        "_cluster_key",
        "_has_met",
        "_hedging",
        "_limits",
        "_ops",
        "_own_reads",
        "_replica",
        "_writes",
        "clock_is_off",
    )

    def __init__(
        self,
        replica: Replica,
        stand_in: StandIn,
        limits: Limits,
        *,
        cluster_key: bytes,
        first_id: int,
    ) -> None:
        self._replica = replica
        self._limits = limits
        self._cluster_key = cluster_key
        self._ops = Operations(replica, first_id=first_id)
        self._writes = Writes(self._ops, replica, stand_in, limits, cluster_key=cluster_key)
        self._hedging = Hedging(limits)
        self._own_reads: list[ReplicaRead] = []
        self._has_met = False
        """Whether this life has met another node: one would know of a later or a lost life."""
        self.clock_is_off = False
        """This node's clock differs too far from most of its peers': it coordinates nothing."""

    @property
    def in_flight(self) -> int:
        """How many operations are in progress."""
        return len(self._ops.table)

    @property
    def reachable(self) -> set[NodeNumber]:
        """The nodes with an open link."""
        return self._ops.reachable

    @property
    def suspects(self) -> set[NodeNumber]:
        """Those of the reachable that have been silent for too long."""
        return self._ops.suspects

    @property
    def hedges(self) -> int:
        """Extra requests that reads have sent because owners were later than usual."""
        return self._hedging.spent

    def begin(self, out: Outbox, now: Instant, wall_ms: int) -> None:
        """Start a turn."""
        self._ops.begin(out, now, wall_ms)

    def next_wake(self) -> Instant | None:
        """Return the earliest instant at which `on_time` has something to do."""
        return self._ops.wheel.next_due(self._ops.table)

    def end(self) -> None:
        """End the turn: wake what is due, and answer this node's reads of its own records."""
        self.on_time()
        while self._own_reads:
            asks, self._own_reads = self._own_reads, []
            for ask in asks:
                self._answer_own(ask)

    def owns(self, key: StorageKey, n: int) -> bool:
        """Say whether this node is one of the key's first n owners."""
        return self._replica.number in self._ops.owners(key, n)

    def is_healthy(self, node: NodeNumber) -> bool:
        """Say whether a node, or this one, is likely to answer."""
        return self._ops.is_healthy(node)

    def may_stand_in(self, key: StorageKey, n: int) -> bool:
        """Say whether a put of a client here may have to be applied in an owner's place."""
        return not any(map(self._ops.is_healthy, self._ops.owners(key, n)))

    # ---- clients -------------------------------------------------------------------------

    def on_get(self, origin: int, request: ClientGet) -> None:
        """Begin a read."""
        ops = self._ops
        if refusal := self._refuse(request):
            ops.answer(origin, refusal)
            return
        owners = ops.owners(request.key, request.keyspace.n)
        op = ReadOp(
            ops.take_id(),
            request,
            origin=origin,
            owners=owners,
            reachable=ops.nearest(owners),
            started_us=ops.now,
            patience=self._limits,
        )
        ops.table[op.id] = op
        self._hedging.earn()
        op.start(self)

    def on_put(self, origin: int, request: ClientPut) -> None:
        """Begin a write."""
        if refusal := self._refuse_put(request):
            self._ops.answer(origin, refusal)
        else:
            self._writes.begin(origin, request)

    # ---- replies -------------------------------------------------------------------------

    def on_write_reply(self, node: NodeNumber, reply: ReplicaWriteReply) -> None:
        """A node took a write or a repair, or refused it."""
        op = self._ops.table.get(reply.id)
        if isinstance(op, WriteOp):
            self._writes.on_reply(op, node, reply)
        elif isinstance(op, ReadOp):
            op.on_mended(node, reply, self._ops.now, self)

    def on_read_reply(self, node: NodeNumber, reply: ReplicaReadReply) -> None:
        """A node said what it holds."""
        op = self._ops.table.get(reply.id)
        if isinstance(op, ReadOp):
            if len(op.asked) <= op.request.r:  # else nobody knows when this one was asked
                self._hedging.note(node, self._ops.now - op.started_us)
            op.on_reply(node, reply, self._ops.now, self)

    def on_forward_reply(self, node: NodeNumber, reply: PutResult | Failure) -> None:
        """The owner that coordinated a write for us has its outcome."""
        op = self._ops.table.get(reply.id)
        if isinstance(op, ForwardOp):
            self._writes.on_forward_reply(op, node, reply)

    # ---- peers ---------------------------------------------------------------------------

    def on_peer_up(self, node: NodeNumber) -> None:
        """The link to a node is open."""
        self._has_met = True
        self._ops.reachable.add(node)
        self._ops.suspects.discard(node)

    def on_peer_heard(self, node: NodeNumber) -> None:
        """A node that was silent is heard again."""
        self._ops.suspects.discard(node)

    def on_peer_silent(self, node: NodeNumber) -> None:
        """All that is unanswered by a silent node is asked of others, too. Costs a walk over all
        operations."""
        self._ops.suspects.add(node)
        for op_id, op in self._awaiting(node):
            match op:
                case ReadOp():
                    op.on_silent(node, self._ops.now, self)
                case WriteOp():
                    self._writes.on_silent(op_id, op, node)
                case ForwardOp():
                    self._writes.on_forward_silent(op_id, op)
                case _:
                    assert_never(op)

    def on_peer_down(self, node: NodeNumber) -> None:
        """What is unanswered by this node will stay so. Costs a walk over all operations."""
        self._ops.reachable.discard(node)
        self._ops.suspects.discard(node)
        self._hedging.forget(node)
        for op_id, op in self._awaiting(node):
            match op:
                case ReadOp():
                    op.on_unreachable(node, self._ops.now, self)
                case WriteOp():
                    self._writes.on_unreachable(op_id, op, node)
                case ForwardOp():
                    self._writes.on_forward_unreachable(op_id, op, node)
                case _:
                    assert_never(op)

    def on_time(self) -> None:
        """Wake every operation that asked for an instant that has come."""
        for op_id in self._ops.wheel.take_due(self._ops.now):
            op = self._ops.table.get(op_id)
            match op:
                case None:
                    pass
                case ReadOp():
                    op.on_wake(self._ops.now, self)
                case WriteOp() | ForwardOp():
                    self._writes.on_wake(op_id, op)
                case _:
                    assert_never(op)

    # ---- what reads have done for them (ReadEffects) --------------------------------------

    def ask(self, op: ReadOp, node: NodeNumber) -> None:
        """Ask a node what it holds; this one answers itself within the turn if it can."""
        request, is_owner = op.request, node in op.owners
        ask = ReplicaRead(op.id, request.key, request.deadline_us, request.watermark, not is_owner)
        own = node == self._replica.number
        if own and is_owner and self._replica.has_fetched(request.key):
            self._own_reads.append(ask)
        else:
            self._ops.out.send(node, ask)

    def mend(self, op: ReadOp, node: NodeNumber, record: Encoded) -> None:
        """Have an owner merge this state."""
        deadline = Instant(self._ops.now + 1_000 * self._limits.timeout_ms)
        write = ReplicaWrite(op.id, op.request.key, record, deadline, WriteKind.REPAIR, 0)
        self._ops.out.send(node, write)

    def stand_ins(self, op: ReadOp) -> Sequence[NodeNumber]:
        """Return who may be asked in the place of owners, as many as the key has owners."""
        if not op.request.keyspace.sloppy:
            return ()
        return self._ops.stand_ins(op.request.key, op.owners)[: len(op.owners)]

    def is_suspect(self, node: NodeNumber) -> bool:
        """Say whether a node has been silent for too long."""
        return node in self._ops.suspects

    def patience_us(self, op: ReadOp) -> int:
        """Return how long owners like these usually take."""
        return self._hedging.patience_us(op.owners)

    def pay_for_one_more(self) -> bool:
        """Take the price of an extra request from what reads have earned."""
        return self._hedging.spend()

    def wake(self, op: ReadOp, at: Instant) -> None:
        """Call the read no earlier than `at`."""
        self._ops.wheel.add(at_common_instant(at, now=self._ops.now), op.id)

    def finish(self, op: ReadOp, decision: Decision, merged: Record) -> None:
        """Answer a read."""
        del self._ops.table[op.id]
        context = b""
        seen = join(merged.context, op.heard.reaped)
        if seen.vector or seen.dots:
            context = seal_context(self._cluster_key, op.request.key, seen)
        self._ops.answer(op.origin, answer(op, decision, merged, context))

    def fail(self, op: ReadOp, failure: Failure) -> None:
        """Tell the client that its read has no answer."""
        del self._ops.table[op.id]
        self._ops.answer(op.origin, failure)

    def cluster_ms(self) -> int:
        """Return cluster time, ms since 1970."""
        return self._replica.clock.read(self._ops.wall_ms) >> 16

    # ---- within --------------------------------------------------------------------------

    def _awaiting(self, node: NodeNumber) -> list[tuple[int, ReadOp | WriteOp | ForwardOp]]:
        return [(op_id, op) for op_id, op in self._ops.table.items() if op.is_awaiting(node)]

    def _answer_own(self, ask: ReplicaRead) -> None:
        number = self._replica.number
        reply = self._replica.on_read(ask, self._ops.now)
        if reply.status is Status.DONE and not self._has_met and self._must_be_current(ask.id):
            reply = reply._replace(status=Status.UNPROVEN)
        if self._replica.is_dirty(ask.key):
            self._ops.out.send(number, reply, durable=True)
        else:
            self.on_read_reply(number, reply)

    def _must_be_current(self, op_id: int) -> bool:
        """Say whether a read must see every acknowledged write. A node that nobody could tell yet
        that its store was wiped, or is an older one, does not count for such a read."""
        op = self._ops.table.get(op_id)
        if not isinstance(op, ReadOp) or len(op.owners) < 2:
            return False
        return op.request.r + op.request.keyspace.w > len(op.owners)

    def _refuse(self, request: ClientGet | ClientPut) -> Failure | None:
        return refuse(
            request,
            in_flight=len(self._ops.table),
            limits=self._limits,
            now=self._ops.now,
            clock_is_off=self.clock_is_off,
        )

    def _refuse_put(self, request: ClientPut) -> Failure | None:
        clock, wall_ms = self._replica.clock, self._ops.wall_ms
        skew = refuse_skew(request, clock, wall_ms=wall_ms, limits=self._limits)
        return self._refuse(request) or skew
