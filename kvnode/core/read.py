"""One read at its coordinator: whom to ask, when enough was heard, whom to mend, what to answer.

    WAITING --r agree, or one descends from the others--> MENDING --mended, or 50 ms--> answered
       |--concurrent versions--> VOTING --all owners heard, or out of patience--> MENDING
       '--r cannot be believed, or deadline--> failed

Laws: r distinct owners whose store is proven must answer; what a session has seen is covered by
the answer; concurrent versions are decided only after all n owners were asked; stale repliers are
mended before the answer, so that quorum reads are monotonic (a bounded wait, and the answer says
if it ran out). A replica that abstains has not said "absent".
Tests: tests/unit/core/test_read.py; as whole clusters: tests/sim/.
Source: Dynamo (SOSP 2007), sections 4.5 and 5; design, sections 2.4, 2.5 and 2.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Protocol

from kvnode.core.bounds import Limits
from kvnode.core.messages import (
    ClientGet,
    ErrorCode,
    Failure,
    Instant,
    NodeNumber,
    Outcome,
    ReplicaReadReply,
    ReplyReport,
    Status,
)
from kvnode.core.record import DamagedRecord, Encoded, core_of, decode, encode, fits
from kvnode.core.resolve import Decision, decide, is_conflict
from kvnode.core.topology import Resolve
from kvnode.core.versions import EMPTY, Record, covers_all, sync

UNREADABLE = ("abstained", "damaged")
"""How the answers of owners begin that cannot read what they hold."""
_SESSION_UNMET = "no owner that can be reached has all that this session has seen"


class ReadEffects(Protocol):
    """What a read has done for it."""

    def ask(self, op: ReadOp, node: NodeNumber) -> None:
        """Ask an owner what it holds."""

    def mend(self, op: ReadOp, node: NodeNumber, record: Encoded) -> None:
        """Have an owner merge this state."""

    def wake(self, op: ReadOp, at: Instant) -> None:
        """Call `on_wake` no earlier than `at`."""

    def finish(self, op: ReadOp, decision: Decision, merged: Record) -> None:
        """Answer the client."""

    def fail(self, op: ReadOp, failure: Failure) -> None:
        """Tell the client that there is no answer."""

    def cluster_ms(self) -> int:
        """Return cluster time, by which expiry is judged."""


class Phase(Enum):
    """Where a read stands."""

    WAITING = auto()
    VOTING = auto()
    MENDING = auto()
    DONE = auto()


class ReadOp:
    """One read in progress."""

    __slots__ = (
        "_believed",
        "_decision",
        "_is_unanimous",
        "_mending",
        "_merged",
        "_patience",
        "_phase_ends_us",
        "_reachable",
        "_waits_for_all",
        "asked",
        "failed",
        "heard",
        "heard_at",
        "id",
        "judged_ms",
        "mended",
        "origin",
        "owners",
        "phase",
        "repair_failed",
        "request",
        "started_us",
    )

    def __init__(
        self,
        op_id: int,
        request: ClientGet,
        *,
        origin: int,
        owners: Sequence[NodeNumber],
        reachable: Sequence[NodeNumber],
        started_us: Instant,
        patience: Limits,
    ) -> None:
        self.id = op_id
        self.request = request
        self.origin = origin
        self.owners = owners
        self.started_us = started_us
        self.phase = Phase.WAITING
        self.heard: dict[NodeNumber, ReplicaReadReply] = {}
        self.heard_at: dict[NodeNumber, int] = {}
        self.failed: dict[NodeNumber, str] = {}
        self.mended: list[NodeNumber] = []
        self.repair_failed = False
        self.asked: list[NodeNumber] = []
        self._mending: list[NodeNumber] = []
        self._merged = EMPTY
        self._is_unanimous = False
        self._believed = 0
        self._decision: Decision | None = None
        self.judged_ms = 0
        """Cluster time at which expiry was judged: once."""
        self._patience = patience
        self._phase_ends_us = Instant(0)
        self._reachable = reachable
        self._waits_for_all = request.explain
        for owner in owners:
            if owner not in reachable:
                self.failed[owner] = "unreached"

    def start(self, fx: ReadEffects) -> None:
        """Ask the first r reachable owners, nearest first (to explain: all of them); fail at once
        if there are too few."""
        if len(self._reachable) < self.request.r:
            self._fail(fx, ErrorCode.UNAVAILABLE, "too few owners can be reached", self.started_us)
            return
        self._ask(fx, len(self.owners) if self._waits_for_all else self.request.r)
        patience_us = self._patience.widen_after_ms * 1_000
        self._phase_ends_us = Instant(self.started_us + patience_us)
        fx.wake(self, min(self._phase_ends_us, self.request.deadline_us))

    def on_reply(
        self, node: NodeNumber, reply: ReplicaReadReply, now: Instant, fx: ReadEffects
    ) -> None:
        """An owner answered."""
        if self.phase is Phase.DONE or node in self.heard or node not in self.owners:
            return
        self.heard_at[node] = now - self.started_us
        if reply.status in (Status.DONE, Status.UNPROVEN):
            self.heard[node] = reply
            self._believed += reply.status is Status.DONE
            self.failed.pop(node, None)
        else:
            self.failed[node] = reply.status.name.lower()
        self._evaluate(now, fx)

    def on_unreachable(self, node: NodeNumber, now: Instant, fx: ReadEffects) -> None:
        """The link to an owner is gone."""
        if node in self._mending:
            self._mending.remove(node)
            self.repair_failed = True
            self._answer_if_mended(fx)
        elif node in self.owners and node not in self.heard and node not in self.failed:
            self.failed[node] = "unreached"
            self._evaluate(now, fx)

    def on_mended(self, node: NodeNumber, status: Status, fx: ReadEffects) -> None:
        """A stale replier has taken the merged state, or refused it."""
        if self.phase is not Phase.MENDING or node not in self._mending:
            return
        self._mending.remove(node)
        if status is Status.DONE:
            self.mended.append(node)
        else:
            self.repair_failed = True
        self._answer_if_mended(fx)

    def on_wake(self, now: Instant, fx: ReadEffects) -> None:
        """Some instant that was asked for has come."""
        if self.phase is Phase.DONE:
            return
        if now < min(self._phase_ends_us, self.request.deadline_us):
            fx.wake(self, min(self._phase_ends_us, self.request.deadline_us))
        elif self.phase is Phase.MENDING:
            self.repair_failed = True
            self._finish(fx)
        elif self.phase is Phase.VOTING:
            self._decide(now, fx)
        elif now >= self.request.deadline_us:
            self._give_up(now, fx)
        else:
            self._waits_for_all = False
            self._ask(fx, len(self.owners))
            self._phase_ends_us = self.request.deadline_us
            fx.wake(self, self.request.deadline_us)
            self._evaluate(now, fx)

    def silent(self) -> list[NodeNumber]:
        """Return the owners that were asked and have neither answered nor failed."""
        return [n for n in self.asked if n not in self.heard and n not in self.failed]

    def is_awaiting(self, node: NodeNumber) -> bool:
        """Say whether anything of this owner is still out, or may yet be asked for."""
        return node in self._mending or (node in self.owners and node not in self.heard)

    def _evaluate(self, now: Instant, fx: ReadEffects) -> None:
        match self.phase:
            case Phase.WAITING:
                if self._waits_for_all and self.silent():
                    return
                if self._believed >= self.request.r:
                    self._weigh(now, fx)
                else:
                    self._ask_on(now, fx)
            case Phase.VOTING:
                if not self.silent():
                    self._decide(now, fx)
            case Phase.MENDING | Phase.DONE:
                pass  # a late answer: background repair is anti-entropy's work

    def _weigh(self, now: Instant, fx: ReadEffects) -> None:
        """Enough was heard: is it one answer?"""
        self._merge()
        if self._believed < self.request.r:
            self._ask_on(now, fx)
            return
        if not self._covers_session():
            self._ask_for_session(now, fx)
            return
        self.judged_ms = fx.cluster_ms()
        majority = self.request.keyspace.resolve is Resolve.MAJORITY
        if majority and is_conflict(self._merged, self.judged_ms):
            self._vote(now, fx)
        else:
            self._decide(now, fx)

    def _vote(self, now: Instant, fx: ReadEffects) -> None:
        """Concurrent versions: all n owners are asked before anything is decided."""
        self.phase = Phase.VOTING
        self._ask(fx, len(self.owners))
        ends = now + self._patience.conflict_wait_ms * 1_000
        self._phase_ends_us = Instant(min(ends, self.request.deadline_us))
        if self.silent():
            fx.wake(self, self._phase_ends_us)
        else:
            self._decide(now, fx)

    def _decide(self, now: Instant, fx: ReadEffects) -> None:
        if self.phase is Phase.VOTING:
            self._merge()
        self._decision = decide(
            self._merged,
            owners=self.owners,
            unheard=len(self.owners) - self._believed,
            now_ms=self.judged_ms,
            resolve=self.request.keyspace.resolve,
        )
        self._mend(now, fx)

    def _mend(self, now: Instant, fx: ReadEffects) -> None:
        if not fits(self._merged):
            # No replica could store the join. A client must merge the siblings first.
            self.repair_failed = True
            self._finish(fx)
            return
        stale = self._stale()
        if not stale:
            self._finish(fx)
            return
        state = encode(self.request.key, self._merged)
        self._mending = stale
        self.phase = Phase.MENDING
        for node in stale[:]:
            fx.mend(self, node, state)
        ends = now + self._patience.repair_wait_ms * 1_000
        self._phase_ends_us = Instant(min(ends, self.request.deadline_us))
        fx.wake(self, self._phase_ends_us)

    def _answer_if_mended(self, fx: ReadEffects) -> None:
        if self.phase is Phase.MENDING and not self._mending:
            self._finish(fx)

    def _finish(self, fx: ReadEffects) -> None:
        assert self._decision is not None
        self.phase = Phase.DONE
        fx.finish(self, self._decision, self._merged)

    def _merge(self) -> None:
        """Join what was heard; a reply that turns out damaged counts as an abstention."""
        records = [(node, reply.record) for node, reply in self.heard.items() if reply.record]
        merged, agreed = EMPTY, False
        for node, data in records:
            held = self._decoded(node, data)
            merged = held if merged is EMPTY else sync(merged, held)
            # One version needs no votes: where all hold it under one context, one reply says all,
            # but for a story.
            if len(merged.versions) == 1 and node in self.heard and _are_alike(data, records):
                agreed = True
                if not self.request.explain:
                    break
        self._merged = merged
        self._is_unanimous = agreed and all(reply.record for reply in self.heard.values())

    def _decoded(self, node: NodeNumber, data: Encoded) -> Record:
        try:
            return decode(self.request.key, data)
        except DamagedRecord as exc:
            self._believed -= self.heard.pop(node).status is Status.DONE
            self.failed[node] = f"damaged: {exc}"
            return EMPTY

    def _stale(self) -> list[NodeNumber]:
        if self._is_unanimous or self._merged is EMPTY:
            return []
        cores = {node: _core(reply.record) for node, reply in self.heard.items()}
        state = core_of(encode(self.request.key, self._merged))
        return [node for node, core in cores.items() if core != state]

    def _covers_session(self) -> bool:
        request = self.request
        if not covers_all(self._merged.context, request.seen):
            return False
        return not request.watermark or any(reply.covers for reply in self.heard.values())

    def _ask_for_session(self, now: Instant, fx: ReadEffects) -> None:
        self._ask(fx, len(self.owners))
        if not self.silent():
            self._fail(fx, ErrorCode.UNAVAILABLE, _SESSION_UNMET, now)

    def _give_up(self, now: Instant, fx: ReadEffects) -> None:
        if self._believed >= self.request.r:
            self._fail(fx, ErrorCode.UNAVAILABLE, _SESSION_UNMET, now)
        else:
            self._fail(fx, ErrorCode.TIMEOUT, "the deadline passed", now)

    def _ask_on(self, now: Instant, fx: ReadEffects) -> None:
        """Replace those that failed; give up when r can no longer be believed."""
        missing = self.request.r - self._believed - len(self.silent())
        if missing > 0:
            missing -= self._ask(fx, missing)
        if missing <= 0:
            return
        if any(answer.startswith(UNREADABLE) for answer in self.failed.values()):
            self._fail(fx, ErrorCode.CORRUPT_DATA, "too few owners can read what they hold", now)
        else:
            self._fail(fx, ErrorCode.UNAVAILABLE, "too few owners can be believed", now)

    def _ask(self, fx: ReadEffects, count: int) -> int:
        """Ask up to `count` more owners; returns how many."""
        fresh = [n for n in self._reachable if n not in self.asked and n not in self.failed]
        for node in fresh[:count]:
            self.asked.append(node)
            fx.ask(self, node)
        return min(count, len(fresh))

    def _fail(self, fx: ReadEffects, code: ErrorCode, why: str, now: Instant) -> None:
        self.phase = Phase.DONE
        text = f"{self._believed} of {self.request.r} owners answered: {why}"
        replies = tuple(self._reply_of(node, now) for node in self.owners)
        fx.fail(self, Failure(self.request.id, code, Outcome.NONE, text, 0, replies))

    def _reply_of(self, node: NodeNumber, now: Instant) -> ReplyReport:
        after = self.heard_at.get(node, now - self.started_us)
        if reply := self.heard.get(node):
            answer = "record" if reply.record else "absent"
            return ReplyReport(node, answer, after)
        return ReplyReport(node, self.failed.get(node, "pending"), after)


def _core(data: Encoded) -> bytes:
    return core_of(data) if data else b""


def _are_alike(sound: Encoded, records: Sequence[tuple[NodeNumber, Encoded]]) -> bool:
    """Say whether all begin with the core of a sound one; the others may be cut short."""
    core = core_of(sound)
    return all(data.startswith(core) for _, data in records)
