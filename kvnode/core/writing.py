"""Writes at their coordinator: where each is applied first, who else holds it, who stands in.

A write is applied by an owner, so a node that owns none of the key sends it on to one that does
(once: a forwarded write is never forwarded again). Where no owner can be reached and the keyspace
is sloppy, a stand-in applies it. Each owner that is away or silent gets a stand-in: the next
healthy node on the ring, each for one slot.

Laws: every write taken is answered exactly once; `not applied` is said only of a write that had no
effect anywhere; with `sloppy` off nobody stands in, and too few owners are a refusal at once.
Tests: tests/unit/core/test_coordinator.py, test_writing.py; as whole clusters: tests/sim/.
Source: Dynamo (SOSP 2007), sections 4.5 and 4.6; design, sections 2.2, 2.3 and 2.7.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvnode.core.bounds import SILENT_MS, Limits
from kvnode.core.context import seal_context
from kvnode.core.hints import HintsFull
from kvnode.core.messages import (
    ClientPut,
    ErrorCode,
    Failure,
    Instant,
    NodeNumber,
    PutResult,
    ReplicaWrite,
    ReplicaWriteReply,
    Status,
    WriteKind,
)
from kvnode.core.operations import Operations
from kvnode.core.record import DamagedRecord, Encoded, decode
from kvnode.core.refusals import refused
from kvnode.core.replica import Replica, TooMany, Unreadable
from kvnode.core.standin import StandIn
from kvnode.core.versions import Record
from kvnode.core.wheel import at_common_instant
from kvnode.core.write import ForwardOp, LocalWrite, WriteOp

_LAP_US = 1_000_000
_NO_OWNER = (ErrorCode.UNAVAILABLE, "no owner of the key can be reached")
_NO_SPACE = (ErrorCode.STORAGE_FULL, "no space is left at this node")
_UNREADABLE = (ErrorCode.CORRUPT_DATA, "this node cannot read what it holds of the key")
_PASSING = (Status.ABSTAINED, Status.REFUSED_FULL, Status.REFUSED_LOAD)
"""Refusals that concern the owner, not the write: another may keep it."""


class Writes:
    """The writes in progress at one node."""

    __slots__ = ("_cluster_key", "_limits", "_ops", "_replica", "_stand_in")

    def __init__(
        self,
        ops: Operations,
        replica: Replica,
        stand_in: StandIn,
        limits: Limits,
        *,
        cluster_key: bytes,
    ) -> None:
        self._ops = ops
        self._replica = replica
        self._stand_in = stand_in
        self._limits = limits
        self._cluster_key = cluster_key

    def begin(self, origin: int, request: ClientPut) -> None:
        """Begin a write: here, if this node owns the key and can; else at an owner."""
        owners = self._ops.owners(request.key, request.keyspace.n)
        if self._replica.number not in owners or not self._replica.has_fetched(request.key):
            # Not fetched: this node owns the key only since a topology of this very turn.
            self._forward(origin, request, owners, _NO_OWNER)
        elif self._replica.refusal(is_delete=request.is_delete) is not None:
            self._forward(origin, request, owners, _NO_SPACE)
        else:
            self._coordinate(origin, request, owners)

    # ---- what is heard -------------------------------------------------------------------

    def on_reply(self, op: WriteOp, node: NodeNumber, reply: ReplicaWriteReply) -> None:
        """A node took the write, or refused it."""
        ops = self._ops
        if node == self._replica.number and not op.is_awaiting(node):
            # Not the write's own acknowledgement, which came before: that of `_bring_back`.
            if reply.status is Status.DONE:
                self._settle(reply.id, op.on_merged())
            return
        state = self._bring_back(reply.id, op, reply.record) if reply.record else None
        if reply.status is Status.DONE:
            self._settle(reply.id, op.on_ack(node, state, ops.now))
        else:
            is_passing = reply.status in _PASSING
            answer = f"refused: {reply.status.name.lower()}"
            self._lose(reply.id, op, node, answer, may_replace=is_passing)

    def on_unreachable(self, op_id: int, op: WriteOp, node: NodeNumber) -> None:
        """The link to a node is gone."""
        self._lose(op_id, op, node, "unreached")

    def on_silent(self, op_id: int, op: WriteOp, node: NodeNumber) -> None:
        """A node has been silent for too long: another stands in for its slot, too."""
        op.on_silent(node)
        if not self._replace(op_id, op, op.slot_of(node)) and op.is_left_to_the_silent():
            self._wait_for_late(op_id, op)

    def on_forward_reply(self, op: ForwardOp, node: NodeNumber, reply: PutResult | Failure) -> None:
        """The owner that coordinated a write for us has its outcome."""
        self._end_forward(reply.id, op, op.on_answer(node, reply))

    def on_forward_unreachable(self, op_id: int, op: ForwardOp, node: NodeNumber) -> None:
        """The link to the owner that coordinates for us is gone."""
        self._end_forward(op_id, op, op.on_unreachable(node, "the link to it is gone"))

    def on_forward_silent(self, op_id: int, op: ForwardOp) -> None:
        """The owner that coordinates for us has been silent for too long: ask another, too."""
        request = op.request
        owners = self._ops.owners(request.key, request.keyspace.n)
        tried = (self._replica.number, *op.sent_to)  # had it been able to, it would not have asked
        near = self._ops.nearest(owners)
        if request.keyspace.sloppy:
            near += self._ops.stand_ins(request.key, owners)
        fresh = [node for node in near if node not in tried and self._ops.is_healthy(node)]
        if fresh:
            op.sent_to.append(fresh[0])
            self._ops.out.send(fresh[0], request._replace(id=op_id))
        elif not self._may_be_answered(op):
            self._wait_for_late(op_id, op)

    def on_wake(self, op_id: int, op: WriteOp | ForwardOp) -> None:
        """An instant that was asked for has come."""
        now = self._ops.now
        is_late = 0 < op.late_until_us <= now
        if isinstance(op, WriteOp):
            if now >= op.request.deadline_us:
                self._settle(op_id, op.on_deadline(now))
                return
            if is_late and op.is_left_to_the_silent():
                self._settle(op_id, op.on_late(now))
                return
        elif now >= op.request.deadline_us:
            self._end_forward(op_id, op, op.on_lost("the deadline passed"))
            return
        elif is_late and not self._may_be_answered(op):
            self._end_forward(op_id, op, op.on_lost("it is silent"))
            return
        self._wake_at_deadline(op.request, op_id)

    def _wait_for_late(self, op_id: int, op: WriteOp | ForwardOp) -> None:
        """Only silent nodes can still do it: they are given a moment more."""
        if op.late_until_us <= self._ops.now:
            op.late_until_us = until = Instant(self._ops.now + 1_000 * SILENT_MS)
            self._ops.wheel.add(until, op_id)

    def _may_be_answered(self, op: ForwardOp) -> bool:
        """Say whether anybody to whom a write was sent on is likely to answer."""
        return any(op.is_awaiting(node) and self._ops.is_healthy(node) for node in op.sent_to)

    # ---- here ----------------------------------------------------------------------------

    def _coordinate(self, origin: int, request: ClientPut, owners: Sequence[NodeNumber]) -> None:
        """Apply a write as one of its owners."""
        number, ops = self._replica.number, self._ops
        others = [node for node in owners if node in ops.reachable]
        if not self._is_enough(origin, request, owners, 1 + len(others)):
            return
        try:
            local = self._replica.coordinate(request, ops.now)
        except Unreadable:
            self._forward(origin, request, owners, _UNREADABLE)
        except TooMany as exc:
            self._refuse_size(origin, request, exc)
        else:
            durable = self._replica.is_dirty(request.key)
            self._send_out(origin, request, owners, local, slot=number, durable=durable)

    def _coordinate_for(
        self, origin: int, request: ClientPut, owners: Sequence[NodeNumber]
    ) -> bool:
        """Apply a write in an owner's place. Returns whether this node may."""
        ops = self._ops
        away = [node for node in owners if not ops.is_healthy(node)]
        if not away or not request.keyspace.sloppy:
            return False
        if not self._stand_in.can_coordinate(away[0], request.key):
            return False
        if not self._is_enough(origin, request, owners, len(owners) - len(away)):
            return True
        try:
            local = self._stand_in.coordinate(request, away[0])
        except Unreadable:
            self._answer_not_applied(origin, request, _UNREADABLE)
        except HintsFull:
            self._answer_not_applied(origin, request, _NO_SPACE)
        except TooMany as exc:
            self._refuse_size(origin, request, exc)
        else:
            self._send_out(origin, request, owners, local, slot=away[0], durable=True)
        return True

    def _is_enough(
        self, origin: int, request: ClientPut, owners: Sequence[NodeNumber], slots: int
    ) -> bool:
        """Say whether w slots can be filled; if not, the writer is told so."""
        if slots < request.w and request.keyspace.sloppy:
            away = len(owners) - slots
            slots += min(away, len(self._ops.stand_ins(request.key, owners)))
        if slots < request.w:
            text = f"{slots} of {request.w} owners can be reached"
            self._answer_not_applied(origin, request, (ErrorCode.UNAVAILABLE, text))
        return slots >= request.w

    def _send_out(
        self,
        origin: int,
        request: ClientPut,
        owners: Sequence[NodeNumber],
        local: LocalWrite,
        *,
        slot: NodeNumber,
        durable: bool,
    ) -> None:
        """Have the others hold what was applied here for the slot of one owner."""
        ops, number = self._ops, self._replica.number
        op_id = ops.take_id()
        kind = WriteKind.REPAIR if local.is_replaced else WriteKind.WRITE
        message = ReplicaWrite(
            op_id, request.key, local.encoded, request.deadline_us, kind, local.at
        )
        op = WriteOp(
            request,
            message,
            local.version,
            local.record,
            origin=origin,
            owners=owners,
            started_us=ops.now,
        )
        ops.table[op_id] = op
        self._wake_at_deadline(request, op_id)
        if slot != number:
            op.add_stand_in(slot, number)
        own = ReplicaWriteReply(op_id, Status.DONE, Encoded(b""))
        ops.out.send(number, own, durable=durable)
        for node in owners:
            if node == number:
                continue
            if node in ops.reachable:
                ops.out.send(node, message)
                if node in ops.suspects:
                    self.on_silent(op_id, op, node)
            else:
                self._lose(op_id, op, node, "unreached")

    # ---- elsewhere -----------------------------------------------------------------------

    def _forward(
        self,
        origin: int,
        request: ClientPut,
        owners: Sequence[NodeNumber],
        why: tuple[ErrorCode, str],
    ) -> None:
        """Send a write on to an owner that can be reached, unless it was sent on already; where
        none can, this node or the first stand-in applies it."""
        ops, number = self._ops, self._replica.number
        near = [node for node in ops.nearest(owners) if node != number]
        if origin >= 0 and near and ops.is_healthy(near[0]):
            self._send_on(origin, request, near[0])
            return
        if number not in owners:
            stand_ins = ops.stand_ins(request.key, owners)[: len(owners)]
            if origin >= 0 and stand_ins and number not in stand_ins and request.keyspace.sloppy:
                self._send_on(origin, request, stand_ins[0])
                return
            if self._coordinate_for(origin, request, owners):
                return
        if origin >= 0 and near:
            self._send_on(origin, request, near[0])
        else:
            self._answer_not_applied(origin, request, why)

    def _send_on(self, origin: int, request: ClientPut, node: NodeNumber) -> None:
        op_id = self._ops.take_id()
        self._ops.table[op_id] = op = ForwardOp(request, origin, [node])
        self._wake_at_deadline(request, op_id)
        if not self._ops.is_healthy(node):
            self._wait_for_late(op_id, op)
        self._ops.out.send(node, request._replace(id=op_id))

    def _replace(self, op_id: int, op: WriteOp, owner: NodeNumber) -> bool:
        """Find a stand-in for a slot that needs one; returns whether there is one."""
        ops = self._ops
        if not op.request.keyspace.sloppy or not op.wants_stand_in(owner):
            return False
        for node in ops.stand_ins(op.request.key, op.owners):
            if not op.takes_part(node) and node != self._replica.number:
                op.add_stand_in(owner, node)
                ops.out.send(node, op.message._replace(stand_in_for=owner))
                return True
        return False

    def _lose(
        self, op_id: int, op: WriteOp, node: NodeNumber, answer: str, *, may_replace: bool = True
    ) -> None:
        """A node will not hold the write: find a stand-in, or the write may have failed."""
        failed = op.on_failure(node, answer, self._ops.now)
        if may_replace and self._replace(op_id, op, op.slot_of(node)):
            return
        self._settle(op_id, failed)
        if failed is None and op.is_left_to_the_silent():
            self._wait_for_late(op_id, op)

    def _bring_back(self, op_id: int, op: WriteOp, data: Encoded) -> Record | None:
        """Merge what another holds beyond what was sent; the next turn stores it here."""
        key, number = op.request.key, self._replica.number
        try:
            state = decode(key, data)
        except DamagedRecord:
            return None
        deadline = Instant(self._ops.now + 1_000 * self._limits.timeout_ms)
        slot = op.slot_of(number)
        write = ReplicaWrite(
            op_id, key, data, deadline, WriteKind.REPAIR, 0, 0 if slot == number else slot
        )
        self._ops.out.send(number, write)
        op.expect_merge(number)
        return state

    # ---- answers -------------------------------------------------------------------------

    def _wake_at_deadline(self, request: ClientPut, op_id: int) -> None:
        # In laps: most writes are long gone by their deadline, and the wheel forgets them sooner.
        lap = at_common_instant(self._ops.now + _LAP_US, now=self._ops.now)
        self._ops.wheel.add(min(request.deadline_us, lap), op_id)

    def _settle(self, op_id: int, result: PutResult | Failure | None) -> None:
        if result is None:
            return
        op = self._ops.table.pop(op_id, None)
        if not isinstance(op, WriteOp):
            return
        if isinstance(result, PutResult):
            context = seal_context(self._cluster_key, op.request.key, op.result_context())
            result = PutResult(result.id, context, result.acked, result.newer)
        self._ops.answer(op.origin, result)

    def _end_forward(self, op_id: int, op: ForwardOp, result: PutResult | Failure | None) -> None:
        if result is not None and self._ops.table.pop(op_id, None) is not None:
            self._ops.answer(op.origin, result)

    def _answer_not_applied(
        self, origin: int, request: ClientPut, why: tuple[ErrorCode, str]
    ) -> None:
        self._ops.answer(origin, refused(request, *why))

    def _refuse_size(self, origin: int, request: ClientPut, exc: TooMany) -> None:
        text = f"read the key and merge first: it would have {exc}"
        self._answer_not_applied(origin, request, (ErrorCode.INVALID_REQUEST, text))
