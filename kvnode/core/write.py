"""One write at its coordinator: counts acknowledgements, says which of three outcomes it had.

    WAITING --w owners durable--> ok
       |--w can no longer be met, or for 0.1 s only by silent nodes, or deadline--> uncertain
       '--(before any effect: too few owners reachable) --> not applied, decided by the coordinator

An owner and its stand-ins are one slot: whichever of them holds the write durably, it counts once.

Laws: a slot counts once; `ok` needs w distinct slots whose logs are durable; once the write has had
any effect it is never called `not applied`. Context and rivals of those who acknowledge come back
with the result.
Tests: tests/unit/core/test_write.py; as whole clusters: tests/sim/.
Source: Dynamo (SOSP 2007), section 4.5; design, sections 2.2, 2.3 and 2.7.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kvnode.core.hlc import Timestamp
from kvnode.core.messages import (
    ClientPut,
    ErrorCode,
    Failure,
    Instant,
    NodeNumber,
    Outcome,
    PutResult,
    ReplicaWrite,
    ReplyReport,
    WriteKind,
)
from kvnode.core.record import Encoded
from kvnode.core.versions import NOTHING_SEEN, Context, Record, Version, join, newest_rival


class LocalWrite(NamedTuple):
    """What a write at its coordinator came to."""

    version: Version
    record: Record
    encoded: Encoded
    at: int
    """The version's index in the record."""
    is_replaced: bool = False
    """The write was superseded before this attempt came: `version` is another one."""


class WriteOp:
    """A write that has been applied at its coordinator and sent to the other owners."""

    __slots__ = (
        "_acked",
        "_context",
        "_failed",
        "_merges",
        "_merging_at",
        "_newer",
        "_own",
        "_silent",
        "_slot_of",
        "_stands_alone",
        "_version",
        "late_until_us",
        "message",
        "origin",
        "owners",
        "request",
        "started_us",
    )

    def __init__(
        self,
        request: ClientPut,
        message: ReplicaWrite,
        version: Version,
        record: Record,
        *,
        origin: int,
        owners: Sequence[NodeNumber],
        started_us: Instant,
    ) -> None:
        self.request = request
        self.message = message
        """What owners are sent, and stand-ins for those who turn out to be away."""
        self.origin = origin
        self.owners = owners
        self.started_us = started_us
        self._version = version
        self._slot_of: dict[NodeNumber, NodeNumber] = {}
        """Whom each stand-in stands in for."""
        self._acked: dict[NodeNumber, int] = {}
        self._failed: dict[NodeNumber, ReplyReport] = {}
        self._silent: dict[NodeNumber, None] = {}
        self._context: Context = NOTHING_SEEN
        self._merges = 0
        self._merging_at: NodeNumber | None = None
        self._newer = Timestamp(0)
        self._own = frozenset((version.dot,))
        """This write's dots: more than one where an earlier attempt is held too."""
        self._stands_alone = True
        self.late_until_us = 0
        """Until when only silent nodes are waited for; 0: there are others."""
        self._learn(record)

    def is_awaiting(self, node: NodeNumber) -> bool:
        """Say whether this node's answer is still out."""
        is_ours = node in self.owners or node in self._slot_of
        return is_ours and node not in self._acked and node not in self._failed

    def takes_part(self, node: NodeNumber) -> bool:
        """Say whether this node was asked to hold the write, for itself or for another."""
        return node in self.owners or node in self._slot_of

    def slot_of(self, node: NodeNumber) -> NodeNumber:
        """Return the owner whose slot a node fills: its own, or that of whom it stands in for."""
        return self._slot_of.get(node, node)

    def wants_stand_in(self, owner: NodeNumber) -> bool:
        """Say whether nobody who is likely to answer fills this owner's slot."""
        return not any(
            node in self._acked or (self.is_awaiting(node) and node not in self._silent)
            for node in self._holders(owner)
        )

    def add_stand_in(self, owner: NodeNumber, node: NodeNumber) -> None:
        """A node was asked to keep the write for an owner."""
        assert not self.takes_part(node)
        self._slot_of[node] = owner

    def on_silent(self, node: NodeNumber) -> None:
        """A node is taking suspiciously long; it may yet answer."""
        self._silent[node] = None

    def is_left_to_the_silent(self) -> bool:
        """Say whether w slots can only be filled by nodes that have been silent for too long."""
        return sum(not self.wants_stand_in(owner) for owner in self.owners) < self.request.w

    def on_late(self, now: Instant) -> Failure:
        """The silent have had their moment: another coordinator may reach others."""
        return self._uncertain("those that are left are silent", now)

    def on_ack(self, node: NodeNumber, state: Record | None, now: Instant) -> PutResult | None:
        """A node holds the write durably; `state` is what it holds if that is not what was
        sent. Returns the result once w slots are filled."""
        if not self.takes_part(node) or node in self._acked:
            return None
        self._acked[node] = now - self.started_us
        self._failed.pop(node, None)
        if state is not None:
            self._learn(state)
        return self._result_if_met()

    def expect_merge(self, coordinator: NodeNumber) -> None:
        """What an owner brought back is on its way to the coordinator's own store. Until it is
        durable the coordinator does not count: a crash would take back that it ever knew what
        this write supersedes, and an older write could win once that owner is away."""
        self._merges += 1
        self._merging_at = coordinator

    def on_merged(self) -> PutResult | None:
        """The coordinator holds durably what an owner brought back."""
        self._merges = max(0, self._merges - 1)
        return self._result_if_met()

    def on_failure(self, node: NodeNumber, answer: str, now: Instant) -> Failure | None:
        """A node refused or cannot be reached. Returns a failure once w is out of reach."""
        if not self.is_awaiting(node):
            return None
        self._failed[node] = ReplyReport(node, answer, now - self.started_us)
        open_slots = sum(
            any(node not in self._failed for node in self._holders(owner)) for owner in self.owners
        )
        if open_slots >= self.request.w:
            return None
        return self._uncertain("too few owners can still acknowledge", now)

    def on_deadline(self, now: Instant) -> Failure:
        """The deadline has passed without w acknowledgements."""
        return self._uncertain("the deadline passed", now)

    def result_context(self) -> Context:
        """Return what the writer may say that it has seen: its own write and what that
        superseded, never a sibling that survives beside it."""
        if self._stands_alone:
            return self._context
        if self.message.kind is not WriteKind.WRITE:
            return self.request.seen
        seen = self.request.seen
        return join(seen, Context({}, self._own))

    def _learn(self, state: Record) -> None:
        if self.message.kind is not WriteKind.WRITE:
            self._stands_alone = False  # what replaced this write, its writer has not seen
            return
        if len(state.versions) == 1 and state.versions[0].dot == self._version.dot:
            self._context = join(state.context, self._context)
            return
        self._stands_alone = False
        write_id = self._version.write_id
        self._own |= {held.dot for held in state.versions if held.write_id == write_id}
        if not self._version.is_explicit:
            self._newer = max(self._newer, newest_rival(state, self._version))

    def _holders(self, owner: NodeNumber) -> list[NodeNumber]:
        return [owner, *(node for node, slot in self._slot_of.items() if slot == owner)]

    def _result_if_met(self) -> PutResult | None:
        if len(self._acked) < self.request.w:
            return None
        counted = [n for n in self._acked if not (self._merges and n == self._merging_at)]
        if self._slot_of:
            counted = list({self.slot_of(node): None for node in counted})
        return self._result() if len(counted) >= self.request.w else None

    def _result(self) -> PutResult:
        # The context is sealed by the coordinator, which holds the cluster's key.
        return PutResult(self.request.id, b"", tuple(self._acked), self._newer)

    def _uncertain(self, why: str, now: Instant) -> Failure:
        w = self.request.w
        filled = len({self.slot_of(node) for node in self._acked})
        text = f"{filled} of {w} owners acknowledged: {why}"
        return Failure(
            self.request.id, ErrorCode.UNCERTAIN, Outcome.UNCERTAIN, text, 0, self._replies(now)
        )

    def _replies(self, now: Instant) -> tuple[ReplyReport, ...]:
        waited = now - self.started_us
        return tuple(
            ReplyReport(node, "acknowledged", self._acked[node])
            if node in self._acked
            else self._failed.get(node, ReplyReport(node, "pending", waited))
            for node in (*self.owners, *self._slot_of)
        )


@dataclass(slots=True)
class ForwardOp:
    """A write that an owner coordinates for this node's client.

    Sent to a second one when the first is silent: it is one write, by its id. From then on nobody
    can say that it was not applied.
    """

    request: ClientPut
    origin: int
    sent_to: list[NodeNumber]
    over: dict[NodeNumber, Outcome] = field(default_factory=dict)
    """Who answered that it failed, and how; UNCERTAIN also for those whose answer is lost."""
    late_until_us: int = 0
    """As that of a WriteOp."""

    def is_awaiting(self, node: NodeNumber) -> bool:
        """Say whether this owner's answer is still out."""
        return node in self.sent_to and node not in self.over

    def on_answer(self, node: NodeNumber, reply: PutResult | Failure) -> PutResult | Failure | None:
        """An owner has the outcome; returns what the client is told, if that is settled."""
        if isinstance(reply, Failure):
            self.over[node] = reply.outcome
            if len(self.over) < len(self.sent_to):
                return None
            if reply.outcome is Outcome.NOT_APPLIED and self._may_be_applied():
                return self.on_lost("one that was silent may have applied it")
        return reply._replace(id=self.request.id)

    def on_unreachable(self, node: NodeNumber, why: str) -> Failure | None:
        """The link to an owner is gone; returns what the client is told if nobody is left."""
        self.over[node] = Outcome.UNCERTAIN
        return None if len(self.over) < len(self.sent_to) else self.on_lost(why)

    def on_lost(self, why: str) -> Failure:
        """Its owner, or the time, is gone: it may have been applied there."""
        text = f"sent on to an owner of the key, but {why}"
        return Failure(self.request.id, ErrorCode.UNCERTAIN, Outcome.UNCERTAIN, text, 0, ())

    def _may_be_applied(self) -> bool:
        return any(outcome is not Outcome.NOT_APPLIED for outcome in self.over.values())
