"""One write at its coordinator: counts acknowledgements, says which of three outcomes it had.

    WAITING --w owners durable--> ok
       |--w can no longer be met, or deadline--> uncertain
       '--(before any effect: too few owners reachable) --> not applied, decided by the coordinator

Laws: an owner counts once; `ok` needs w distinct owners whose logs are durable; once the write
has had any effect it is never called `not applied`. Context and rivals of acknowledging owners
come back with the result.
Tests: tests/unit/core/test_write.py; as whole clusters: tests/sim/.
Source: Dynamo (SOSP 2007), section 4.5; design, sections 2.2 and 2.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    ReplyReport,
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
        "_stands_alone",
        "_version",
        "origin",
        "owners",
        "request",
        "started_us",
    )

    def __init__(
        self,
        request: ClientPut,
        version: Version,
        record: Record,
        *,
        origin: int,
        owners: Sequence[NodeNumber],
        started_us: Instant,
    ) -> None:
        self.request = request
        self.origin = origin
        self.owners = owners
        self.started_us = started_us
        self._version = version
        self._acked: dict[NodeNumber, int] = {}
        self._failed: dict[NodeNumber, ReplyReport] = {}
        self._context: Context = NOTHING_SEEN
        self._merges = 0
        self._merging_at: NodeNumber | None = None
        self._newer = Timestamp(0)
        self._own = frozenset((version.dot,))
        """This write's dots: more than one where an earlier attempt is held too."""
        self._stands_alone = True
        self._learn(record)

    def is_awaiting(self, node: NodeNumber) -> bool:
        """Say whether this owner's answer is still out."""
        return node in self.owners and node not in self._acked and node not in self._failed

    def on_ack(self, node: NodeNumber, state: Record | None, now: Instant) -> PutResult | None:
        """An owner holds the write durably; `state` is what it holds if that is not what was
        sent. Returns the result once w owners do."""
        if node not in self.owners or node in self._acked:
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
        """An owner refused or cannot be reached. Returns a failure once w is out of reach."""
        if not self.is_awaiting(node):
            return None
        self._failed[node] = ReplyReport(node, answer, now - self.started_us)
        if len(self.owners) - len(self._failed) >= self.request.w:
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
        seen = self.request.seen
        return join(seen, Context({}, self._own))

    def _learn(self, state: Record) -> None:
        if len(state.versions) == 1 and state.versions[0].dot == self._version.dot:
            self._context = join(state.context, self._context)
            return
        self._stands_alone = False
        write_id = self._version.write_id
        self._own |= {held.dot for held in state.versions if held.write_id == write_id}
        if not self._version.is_explicit:
            self._newer = max(self._newer, newest_rival(state, self._version))

    def _result_if_met(self) -> PutResult | None:
        uncounted = self._merges > 0 and self._merging_at in self._acked
        return self._result() if len(self._acked) - uncounted >= self.request.w else None

    def _result(self) -> PutResult:
        # The context is sealed by the coordinator, which holds the cluster's key.
        return PutResult(self.request.id, b"", tuple(self._acked), self._newer)

    def _uncertain(self, why: str, now: Instant) -> Failure:
        w = self.request.w
        text = f"{len(self._acked)} of {w} owners acknowledged: {why}"
        return Failure(
            self.request.id, ErrorCode.UNCERTAIN, Outcome.UNCERTAIN, text, 0, self._replies(now)
        )

    def _replies(self, now: Instant) -> tuple[ReplyReport, ...]:
        waited = now - self.started_us
        return tuple(
            ReplyReport(node, "acknowledged", self._acked[node])
            if node in self._acked
            else self._failed.get(node, ReplyReport(node, "pending", waited))
            for node in self.owners
        )


@dataclass(slots=True)
class ForwardOp:
    """A write that an owner coordinates for this node's client."""

    request: ClientPut
    origin: int
    owner: NodeNumber

    def is_awaiting(self, node: NodeNumber) -> bool:
        """Say whether this owner's answer is still out."""
        return node == self.owner

    def on_lost(self, why: str) -> Failure:
        """Its owner, or the time, is gone: it may have been applied there."""
        text = f"sent on to an owner of the key, but {why}"
        return Failure(self.request.id, ErrorCode.UNCERTAIN, Outcome.UNCERTAIN, text, 0, ())
