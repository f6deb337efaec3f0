"""One read at its coordinator: whom to ask, when enough was heard, whom to mend, what to answer.

    WAITING --r agree, or one descends from the others--> MENDING --mended, or 50 ms--> answered
       |--concurrent versions--> VOTING --all owners heard, or out of patience--> MENDING
       '--r cannot be believed, or deadline--> failed

Where owners are away or silent, stand-ins are asked in their place (sloppy keyspaces): one that
keeps something of the key counts towards r, and the answer says so if owners alone were too few.

Laws: r distinct nodes that can be believed must answer: owners whose store is proven, stand-ins
that keep something; what a session has seen is covered by the answer; concurrent versions are
decided only after all n owners were asked; stale repliers are mended before the answer, so that
quorum reads are monotonic (a bounded wait, and the answer says if it ran out). A replica that
abstains has not said "absent".
Tests: tests/unit/core/test_read.py; as whole clusters: tests/sim/.
Source: Dynamo (SOSP 2007), sections 4.5 and 5; design, sections 2.4, 2.5, 2.7 and 2.10.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto

from kvnode.core.bounds import SILENT_MS, Limits
from kvnode.core.heard import Heard, asking_floors
from kvnode.core.messages import (
    ClientGet,
    ErrorCode,
    Failure,
    Instant,
    NodeNumber,
    Outcome,
    ReplicaReadReply,
    ReplicaWriteReply,
    Status,
)
from kvnode.core.read_port import ReadEffects
from kvnode.core.record import encode, fits
from kvnode.core.resolve import Confidence, Decision, decide, is_conflict
from kvnode.core.topology import Resolve

UNREADABLE = ("abstained", "damaged")
"""How the answers of owners begin that cannot read what they hold."""
_SESSION_UNMET = "no owner that can be reached has all that this session has seen"


class Phase(Enum):
    """Where a read stands."""

    WAITING = auto()
    VOTING = auto()
    MENDING = auto()
    DONE = auto()


class ReadOp:
    """One read in progress."""

    __slots__ = (
        "_decision",
        "_late",
        "_late_until_us",
        "_may_stand_in",
        "_mending",
        "_patience",
        "_phase_ends_us",
        "_reachable",
        "_waits_for_all",
        "asked",
        "heard",
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
        self.heard = Heard(request.key, owners)
        self.mended: list[NodeNumber] = []
        self.repair_failed = False
        self.asked: list[NodeNumber] = []
        self._late: set[NodeNumber] = set()
        """Those that were asked and have been silent for too long; they may yet answer."""
        self._mending: list[NodeNumber] = []
        self._decision: Decision | None = None
        self.judged_ms = 0
        """Cluster time at which expiry was judged: once."""
        self._patience = patience
        self._phase_ends_us = Instant(0)
        self._late_until_us = Instant(0)
        """Until when only silent nodes are waited for; 0: there are others."""
        self._reachable = list(reachable)
        self._may_stand_in = request.keyspace.sloppy
        """Stand-ins have not been thought of yet."""
        self._waits_for_all = request.explain
        for owner in owners:
            if owner not in reachable:
                self.heard.failed[owner] = "unreached"

    def start(self, fx: ReadEffects) -> None:
        """Ask the first r reachable owners, nearest first (to explain: all of them), and stand-ins
        where there are too few; fail at once if these are too few as well."""
        if len(self._reachable) < self.request.r:
            self._think_of_stand_ins(fx)
        if len(self._reachable) < self.request.r:
            self._fail(fx, ErrorCode.UNAVAILABLE, "too few owners can be reached", self.started_us)
            return
        self._ask(fx, len(self._reachable) if self._waits_for_all else self.request.r)
        widen_us = 1_000 * self._patience.widen_after_ms
        patience_us = widen_us if self._waits_for_all else fx.patience_us(self)
        self._wait_until(self.started_us + patience_us, self.started_us, fx)
        if self._late and not self._waits_for_all:
            self._ask_on(self.started_us, fx)

    def on_reply(
        self, node: NodeNumber, reply: ReplicaReadReply, now: Instant, fx: ReadEffects
    ) -> None:
        """A node answered."""
        is_ours = node in self.owners or node in self.asked
        if self.phase is Phase.DONE or node in self.heard.replies or not is_ours:
            return
        self.heard.add(node, reply, now - self.started_us)
        self._evaluate(now, fx)

    def on_unreachable(self, node: NodeNumber, now: Instant, fx: ReadEffects) -> None:
        """The link to a node is gone."""
        if node in self._mending:
            self._mending.remove(node)
            self.repair_failed = True
            self._answer_if_mended(fx)
        elif self.is_awaiting(node) and node not in self.heard.failed:
            self.heard.failed[node] = "unreached"
            self._evaluate(now, fx)

    def on_silent(self, node: NodeNumber, now: Instant, fx: ReadEffects) -> None:
        """A node has been silent for too long: another is asked in its place, at once."""
        if node in self.asked and not self.heard.has(node):
            self._late.add(node)
            if self.phase is Phase.WAITING and not self._waits_for_all:
                self._evaluate(now, fx)

    def on_mended(
        self, node: NodeNumber, reply: ReplicaWriteReply, now: Instant, fx: ReadEffects
    ) -> None:
        """A stale replier has taken the merged state, or refused it. What it brings back beyond
        that, it knew better: its floor may say that what was read is superseded."""
        if self.phase is not Phase.MENDING or node not in self._mending:
            return
        self._mending.remove(node)
        if reply.status is not Status.DONE:
            self.repair_failed = True
        else:
            self.mended.append(node)
            if reply.record and self.heard.learn(reply.record):
                self._decision = self._decided()
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
            self._hedge(now, fx)
            self._evaluate(now, fx)

    def silent(self) -> list[NodeNumber]:
        """Return those that were asked and have neither answered nor failed."""
        return [node for node in self.asked if not self.heard.has(node)]

    def is_awaiting(self, node: NodeNumber) -> bool:
        """Say whether anything of this node is still out, or may yet be asked for."""
        if node in self._mending:
            return True
        return (node in self.owners or node in self.asked) and node not in self.heard.replies

    def _evaluate(self, now: Instant, fx: ReadEffects) -> None:
        match self.phase:
            case Phase.WAITING:
                if self._waits_for_all and self.silent():
                    return
                if self.heard.believed >= self.request.r:
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
        self.heard.merge(in_full=self.request.explain)
        if self.heard.believed < self.request.r:
            self._ask_on(now, fx)
            return
        if not self.heard.covers_session(self.request):
            self._ask_for_session(now, fx)
            return
        self.judged_ms = fx.cluster_ms()
        majority = self.request.keyspace.resolve is Resolve.MAJORITY
        if self.heard.is_disputed or (majority and is_conflict(self.heard.merged, self.judged_ms)):
            self._vote(now, fx)
        else:
            self._decide(now, fx)

    def _vote(self, now: Instant, fx: ReadEffects) -> None:
        """Concurrent versions, or one dot with several payloads: all n owners are asked first."""
        self.phase = Phase.VOTING
        self._ask_owners(fx)
        if self.silent():
            self._wait_until(now + self._patience.conflict_wait_ms * 1_000, now, fx)
        else:
            self._decide(now, fx)

    def _decide(self, now: Instant, fx: ReadEffects) -> None:
        if self.phase is Phase.VOTING:
            self.heard.merge(in_full=self.request.explain)
        self._decision = self._decided()
        self._mend(now, fx)

    def _decided(self) -> Decision:
        decision = decide(
            self.heard.merged,
            owners=self.owners,
            unheard=len(self.owners) - self.heard.owners_believed,
            now_ms=self.judged_ms,
            resolve=self.request.keyspace.resolve,
        )
        if self.heard.owners_believed >= self.request.r:
            return decision
        rule = f"{decision.rule}; fewer than r owners answered, stand-ins made up the number"
        agreed = decision.confidence is Confidence.AGREED
        return Decision(
            decision.winner, Confidence.STAND_INS if agreed else decision.confidence, rule
        )

    def _mend(self, now: Instant, fx: ReadEffects) -> None:
        if not fits(self.heard.merged):
            # No replica could store the join. A client must merge the siblings first.
            self.repair_failed = True
            self._finish(fx)
            return
        stale = self.heard.stale()
        if not stale:
            self._finish(fx)
            return
        state = encode(self.request.key, self.heard.merged)
        self._mending = stale
        self.phase = Phase.MENDING
        for node in stale[:]:
            fx.mend(self, node, state)
        self._wait_until(now + self._patience.repair_wait_ms * 1_000, now, fx)

    def _answer_if_mended(self, fx: ReadEffects) -> None:
        if self.phase is Phase.MENDING and not self._mending:
            self._finish(fx)

    def _finish(self, fx: ReadEffects) -> None:
        assert self._decision is not None
        self.phase = Phase.DONE
        fx.finish(self, self._decision, self.heard.merged)

    def _ask_for_session(self, now: Instant, fx: ReadEffects) -> None:
        self._think_of_stand_ins(fx)
        self._ask(fx, len(self._reachable))
        if self._hopeful() or (self.silent() and self._wait_for_late(now, fx)):
            return
        if not self._ask_floors(fx):
            self._fail(fx, ErrorCode.UNAVAILABLE, _SESSION_UNMET, now)

    def _ask_floors(self, fx: ReadEffects) -> bool:
        """What the session has seen may have been reaped: floors cover it then, and no record."""
        if (stricter := asking_floors(self.request)) is None:
            return False
        self.request, self.heard = stricter, self.heard.anew(self.request.seen)
        self.asked.clear()
        return self._ask(fx, len(self._reachable)) > 0

    def _give_up(self, now: Instant, fx: ReadEffects) -> None:
        if self.heard.believed < self.request.r:
            self._fail(fx, ErrorCode.TIMEOUT, "the deadline passed", now)
            return
        self._fail(fx, ErrorCode.UNAVAILABLE, _SESSION_UNMET, now)

    def _ask_on(self, now: Instant, fx: ReadEffects) -> None:
        """Replace those that failed or are late; give up when r can no longer be believed, and soon
        if it can only with the late: another coordinator may reach others."""
        missing = self.request.r - self.heard.believed - self._hopeful()
        if missing > 0:
            missing -= self._ask(fx, missing)
        if missing > 0:
            self._think_of_stand_ins(fx)
            missing -= self._ask(fx, missing)
        if missing <= 0:
            return
        may_do = self.request.r <= self.heard.believed + len(self.silent())
        if may_do and self._wait_for_late(now, fx):
            return
        if any(answer.startswith(UNREADABLE) for answer in self.heard.failed.values()):
            self._fail(fx, ErrorCode.CORRUPT_DATA, "too few owners can read what they hold", now)
        else:
            self._fail(fx, ErrorCode.UNAVAILABLE, "too few owners can be believed", now)

    def _hopeful(self) -> int:
        """Return how many may well answer: they were asked, and are not silent for too long."""
        return sum(node not in self._late for node in self.silent())

    def _wait_for_late(self, now: Instant, fx: ReadEffects) -> bool:
        """Wait a moment for silent nodes alone, once; says whether it is not over yet."""
        if not self._late_until_us:
            self._late_until_us = Instant(now + 1_000 * SILENT_MS)
        if now >= self._late_until_us:
            return False
        self._wait_until(self._late_until_us, now, fx)
        return True

    def _hedge(self, now: Instant, fx: ReadEffects) -> None:
        """Those who were asked are later than usual: ask one more owner, if it is paid for."""
        fresh = [n for n in self._fresh() if n in self.owners and not fx.is_suspect(n)]
        more = len(fresh)
        if fresh and fx.pay_for_one_more():
            more -= self._ask_one(fresh[0], fx)
        widen_us = 1_000 * self._patience.widen_after_ms
        self._wait_until(now + widen_us if more else self.request.deadline_us, now, fx)

    def _wait_until(self, at: int, now: Instant, fx: ReadEffects) -> None:
        if now < self._late_until_us and self.phase is Phase.WAITING:
            at = min(at, self._late_until_us)
        self._phase_ends_us = Instant(min(at, self.request.deadline_us))
        fx.wake(self, self._phase_ends_us)

    def _think_of_stand_ins(self, fx: ReadEffects) -> None:
        if self._may_stand_in:
            self._may_stand_in = False
            self._reachable += fx.stand_ins(self)

    def _ask_owners(self, fx: ReadEffects) -> None:
        """Ask all owners that have not been asked."""
        for node in self._fresh():
            if node in self.owners:
                self._ask_one(node, fx)

    def _ask(self, fx: ReadEffects, count: int) -> int:
        """Ask more, owners first, until `count` of them may well answer; returns how many may."""
        hopeful = 0
        for node in self._fresh():
            if hopeful < count:
                hopeful += self._ask_one(node, fx)
        return hopeful

    def _ask_one(self, node: NodeNumber, fx: ReadEffects) -> bool:
        """Ask a node; says whether it may well answer. One that is silent already is late."""
        self.asked.append(node)
        if is_late := fx.is_suspect(node):
            self._late.add(node)
        fx.ask(self, node)
        return not is_late

    def _fresh(self) -> list[NodeNumber]:
        failed = self.heard.failed
        return [n for n in self._reachable if n not in self.asked and n not in failed]

    def _fail(self, fx: ReadEffects, code: ErrorCode, why: str, now: Instant) -> None:
        self.phase = Phase.DONE
        text = f"{self.heard.believed} of {self.request.r} owners answered: {why}"
        replies = self.heard.reports((*self.owners, *self.asked), now - self.started_us)
        fx.fail(self, Failure(self.request.id, code, Outcome.NONE, text, 0, replies))
