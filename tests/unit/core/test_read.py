"""One read: whom it asks, when it has heard enough, whom it mends, what it answers.

A read is fed events and has its effects recorded by `Effects`; no node, no clock, no store.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from kvnode.core.bounds import CONTEXT_ENTRIES_MAX, SIBLINGS_MAX, SILENT_MS, Limits
from kvnode.core.context import open_watermark
from kvnode.core.messages import (
    ErrorCode,
    Failure,
    Instant,
    NodeNumber,
    Outcome,
    ReplicaReadReply,
    ReplicaWriteReply,
    Status,
)
from kvnode.core.read import Phase, ReadOp
from kvnode.core.read_port import ReadEffects
from kvnode.core.record import Encoded, decode, encode
from kvnode.core.resolve import Confidence, Decision
from kvnode.core.topology import Keyspace
from kvnode.core.versions import EMPTY, Record, sync
from tests.unit.core.builders import (
    KEY,
    NEWEST,
    NOW,
    SECOND_US,
    SIBLINGS,
    WALL_MS,
    at,
    context,
    get,
    names,
    record,
    tombstone,
    version,
)

LIMITS = Limits()
WIDEN_US = LIMITS.widen_after_ms * 1_000
CONFLICT_US = LIMITS.conflict_wait_ms * 1_000
REPAIR_US = LIMITS.repair_wait_ms * 1_000
DEADLINE_US = 5 * SECOND_US

OLD = record(version("a1", ms=1))
NEW = record(version("b1", ms=2), seen=context("a1", "b1"))
RIVAL = record(version("c1", ms=3))


@dataclass
class Effects(ReadEffects):
    """Takes down what a read has done for it."""

    asked: list[NodeNumber] = field(default_factory=list)
    mended: dict[NodeNumber, Record] = field(default_factory=dict)
    wakes: list[int] = field(default_factory=list)
    answers: list[tuple[Decision, Record]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    now_ms: int = WALL_MS
    others: Sequence[NodeNumber] = ()
    """Stand-ins."""
    suspects: Sequence[NodeNumber] = ()
    usual_us: int = WIDEN_US
    budget: int = 99

    def ask(self, op: ReadOp, node: NodeNumber) -> None:
        self.asked.append(node)

    def mend(self, op: ReadOp, node: NodeNumber, record: Encoded) -> None:
        self.mended[node] = decode(op.request.key, record)

    def wake(self, op: ReadOp, at: Instant) -> None:
        self.wakes.append(at - NOW)

    def stand_ins(self, op: ReadOp) -> Sequence[NodeNumber]:
        return self.others

    def is_suspect(self, node: NodeNumber) -> bool:
        return node in self.suspects

    def patience_us(self, op: ReadOp) -> int:
        return self.usual_us

    def pay_for_one_more(self) -> bool:
        self.budget -= 1
        return self.budget >= 0

    def finish(self, op: ReadOp, decision: Decision, merged: Record) -> None:
        self.answers.append((decision, merged))

    def fail(self, op: ReadOp, failure: Failure) -> None:
        self.failures.append(failure)

    def cluster_ms(self) -> int:
        return self.now_ms

    @property
    def is_open(self) -> bool:
        return not self.answers and not self.failures

    @property
    def decision(self) -> Decision:
        [(decision, _)] = self.answers
        return decision

    @property
    def value(self) -> bytes | None:
        winner = self.decision.winner
        return None if winner is None else winner.value

    @property
    def failure(self) -> Failure:
        [failure] = self.failures
        return failure


class Reading:
    """A started read with its effects, and short words for what happens to it."""

    def __init__(
        self,
        *,
        owners: Sequence[NodeNumber] = (1, 2, 3),
        reachable: Sequence[NodeNumber] | None = None,
        limits: Limits = LIMITS,
        usual_us: int = WIDEN_US,
        budget: int = 99,
        stand_ins: Sequence[NodeNumber] = (),
        suspects: Sequence[NodeNumber] = (),
        **request: object,
    ) -> None:
        self.fx = Effects(usual_us=usual_us, budget=budget, others=stand_ins, suspects=suspects)
        self.op = ReadOp(
            40,
            get(**request),
            origin=0,
            owners=owners,
            reachable=owners if reachable is None else reachable,
            started_us=NOW,
            patience=limits,
        )
        self.op.start(self.fx)

    def hear(
        self,
        node: NodeNumber,
        state: Record | None,
        *,
        status: Status = Status.DONE,
        covers: bool = False,
        after_us: int = 10,
    ) -> None:
        data = Encoded(b"") if state is None else encode(KEY, state)
        self.hear_bytes(node, data, status=status, covers=covers, after_us=after_us)

    def hear_bytes(
        self,
        node: NodeNumber,
        data: bytes,
        *,
        status: Status = Status.DONE,
        covers: bool = False,
        after_us: int = 10,
    ) -> None:
        reply = ReplicaReadReply(40, status, Encoded(data), covers)
        self.op.on_reply(node, reply, at(after_us), self.fx)

    def refuse(self, node: NodeNumber, status: Status = Status.ABSTAINED) -> None:
        self.hear(node, None, status=status)

    def lose(self, node: NodeNumber, after_us: int = 10) -> None:
        self.op.on_unreachable(node, at(after_us), self.fx)

    def mend(
        self, node: NodeNumber, status: Status = Status.DONE, brings: Record | None = None
    ) -> None:
        data = encode(KEY, brings) if brings is not None else Encoded(b"")
        self.op.on_mended(node, ReplicaWriteReply(7, status, data), at(30), self.fx)

    def fall_silent(self, node: NodeNumber, after_us: int = 10) -> None:
        self.op.on_silent(node, at(after_us), self.fx)

    def wake(self, after_us: int) -> None:
        self.op.on_wake(at(after_us), self.fx)


# ---- agreement ----------------------------------------------------------------------------------


def test_a_read_asks_the_r_nearest_owners() -> None:
    assert Reading(owners=(1, 2, 3), reachable=(3, 1, 2)).fx.asked == [3, 1]


def test_replies_that_agree_answer_at_once() -> None:
    read = Reading()
    read.hear(1, OLD)
    assert read.fx.is_open
    read.hear(2, OLD)
    assert read.fx.value == b"a1"
    assert read.fx.decision.confidence is Confidence.AGREED
    assert (read.fx.mended, read.op.phase) == ({}, Phase.DONE)


def test_one_owner_is_enough_for_r_of_one() -> None:
    read = Reading(r=1)
    read.hear(1, OLD)
    assert read.fx.value == b"a1"
    assert read.fx.asked == [1]


def test_absence_everywhere_is_an_answer() -> None:
    read = Reading()
    read.hear(1, None)
    read.hear(2, None)
    assert read.fx.decision.winner is None
    assert read.fx.answers[0][1] == EMPTY


def test_votes_that_differ_are_no_reason_to_mend() -> None:
    read = Reading()
    read.hear(1, record(version("a1"), votes=((1, "a1"),)))
    read.hear(2, record(version("a1"), votes=((1, "a1"), (2, "a1"))))
    assert read.fx.value == b"a1"
    assert read.fx.mended == {}


def test_a_story_has_the_votes_of_all_that_answered() -> None:
    read = Reading(explain=True)
    read.hear(1, record(version("a1"), votes=((1, "a1"),)))
    read.hear(2, record(version("a1"), votes=((2, "a1"),)))
    assert read.fx.is_open
    assert read.fx.asked == [1, 2, 3]
    read.hear(3, record(version("a1"), votes=((3, "a1"),)))
    assert [vote.owner for vote in read.fx.answers[0][1].votes] == [1, 2, 3]


def test_a_story_does_not_wait_for_the_silent_beyond_the_widening() -> None:
    read = Reading(explain=True)
    read.hear(1, OLD)
    read.hear(2, OLD)
    assert read.fx.is_open
    read.wake(WIDEN_US)
    assert read.fx.value == b"a1"


def test_an_owner_is_heard_once_and_strangers_never() -> None:
    read = Reading()
    read.hear(9, OLD)
    read.hear(1, OLD)
    read.hear(1, NEW)
    assert read.fx.is_open
    assert list(read.op.heard.replies) == [1]


def test_what_comes_after_the_answer_changes_nothing() -> None:
    read = Reading()
    read.hear(1, OLD)
    read.hear(2, OLD)
    read.hear(3, NEW)
    read.lose(3)
    read.mend(3)
    read.wake(DEADLINE_US)
    assert len(read.fx.answers) == 1
    assert 3 not in read.op.heard.replies


# ---- descent and repair -------------------------------------------------------------------------


def test_a_stale_replier_is_mended_before_the_answer() -> None:
    read = Reading()
    read.hear(1, OLD)
    read.hear(2, NEW)
    assert read.fx.is_open
    assert read.fx.mended == {1: NEW}
    read.mend(1)
    assert read.fx.value == b"b1"
    assert (read.op.mended, read.op.repair_failed) == ([1], False)


def test_an_owner_that_holds_nothing_is_stale_beside_one_that_holds_something() -> None:
    read = Reading()
    read.hear(1, None)
    read.hear(2, OLD)
    assert read.fx.mended == {1: OLD}


def test_two_halves_of_the_truth_are_both_mended_with_the_whole() -> None:
    read = Reading(keyspace=SIBLINGS)
    read.hear(1, OLD)
    read.hear(2, RIVAL)
    assert read.fx.mended == {1: sync(OLD, RIVAL), 2: sync(OLD, RIVAL)}
    read.mend(2)
    assert read.fx.is_open
    read.mend(1)
    assert read.fx.decision.confidence is Confidence.SIBLINGS
    assert read.op.mended == [2, 1]


def test_a_repair_that_takes_too_long_lets_the_answer_go_and_says_so() -> None:
    read = Reading()
    read.hear(1, OLD)
    read.hear(2, NEW)
    assert read.fx.wakes[-1] == 10 + REPAIR_US
    read.wake(10 + REPAIR_US)
    assert read.fx.value == b"b1"
    assert (read.op.repair_failed, read.op.mended) == (True, [])


def test_a_repair_never_outlives_the_deadline() -> None:
    read = Reading(deadline_us=at(1_000))
    read.hear(1, OLD)
    read.hear(2, NEW)
    assert read.fx.wakes[-1] == 1_000
    read.wake(1_000)
    assert read.fx.value == b"b1"


@pytest.mark.parametrize("status", [Status.REFUSED_FULL, Status.ABSTAINED, Status.REFUSED_LATE])
def test_a_repair_that_is_refused_lets_the_answer_go_and_says_so(status: Status) -> None:
    read = Reading()
    read.hear(1, OLD)
    read.hear(2, NEW)
    read.mend(1, status)
    assert read.fx.value == b"b1"
    assert (read.op.repair_failed, read.op.mended) == (True, [])


def test_a_repair_whose_link_breaks_lets_the_answer_go_and_says_so() -> None:
    read = Reading()
    read.hear(1, OLD)
    read.hear(2, NEW)
    assert read.op.is_awaiting(1)
    read.lose(1)
    assert read.fx.value == b"b1"
    assert read.op.repair_failed


def test_only_what_is_being_mended_can_end_the_wait() -> None:
    read = Reading()
    read.mend(1)
    read.hear(1, OLD)
    read.hear(2, NEW)
    read.mend(3)
    read.lose(3)
    read.hear(3, NEW)
    assert read.fx.is_open


def test_an_early_wake_while_mending_waits_on() -> None:
    read = Reading()
    read.hear(1, OLD)
    read.hear(2, NEW)
    read.wake(11)
    assert read.fx.is_open
    assert read.fx.wakes[-1] == 10 + REPAIR_US


@pytest.mark.parametrize("bound", ["siblings", "context"])
def test_a_join_that_no_replica_could_store_is_answered_unmended(bound: str) -> None:
    if bound == "siblings":
        half = SIBLINGS_MAX // 2 + 1
        left = record(*(version(f"a{n}") for n in range(1, half + 1)))
        right = record(*(version(f"b{n}") for n in range(1, half + 1)))
    else:
        left = record(seen=OLD.context._replace(vector=dict.fromkeys(range(1, 300), 1)))
        many = range(300, 302 + CONTEXT_ENTRIES_MAX - 300)
        right = record(seen=OLD.context._replace(vector=dict.fromkeys(many, 1)))
    read = Reading(keyspace=SIBLINGS)
    read.hear(1, left)
    read.hear(2, right)
    assert read.fx.answers[0][1] == sync(left, right)
    assert (read.fx.mended, read.op.repair_failed) == ({}, True)


def test_what_a_mend_brings_back_is_decided_on() -> None:
    read = Reading()
    read.hear(1, OLD)
    read.hear(2, record(version("a1", ms=1), version("d1", b"a1", ms=1)))
    assert read.fx.mended.keys() == {1}
    read.mend(1, brings=record(tombstone("b2", ms=5), seen=context("a1", "b2", "d1")))
    assert read.fx.decision.winner is not None
    assert read.fx.decision.winner.is_tombstone
    assert names(read.fx.answers[0][1]) == ["b2"]


def test_a_mend_that_brings_back_damage_or_nothing_new_changes_no_answer() -> None:
    for brings in (b"\x01garbage", encode(KEY, OLD)):
        read = Reading()
        read.hear(1, OLD)
        read.hear(2, NEW)
        read.op.on_mended(1, ReplicaWriteReply(7, Status.DONE, Encoded(brings)), at(30), read.fx)
        assert read.fx.value == b"b1"


# ---- conflicts ----------------------------------------------------------------------------------


def test_concurrent_versions_are_decided_only_after_all_owners_were_asked() -> None:
    read = Reading()
    read.hear(1, record(version("a1", ms=1), votes=((1, "a1"),)))
    read.hear(2, record(version("c1", ms=3), votes=((2, "c1"),)))
    assert read.fx.asked == [1, 2, 3]
    assert (read.op.phase, read.fx.wakes[-1]) == (Phase.VOTING, 10 + CONFLICT_US)
    read.hear(3, record(version("a1", ms=1), votes=((3, "a1"),)))
    for node in (1, 2, 3):
        read.mend(node)
    assert read.fx.value == b"a1"
    assert read.fx.decision.confidence is Confidence.VOTED


def test_a_conflict_among_replies_of_all_owners_is_decided_at_once() -> None:
    read = Reading(r=3)
    for node, state in ((1, OLD), (2, RIVAL), (3, OLD)):
        read.hear(node, state)
    assert read.op.phase is Phase.MENDING


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
def test_the_winner_does_not_depend_on_the_order_of_replies(order: tuple[int, ...]) -> None:
    held = {
        1: record(version("a1", ms=1), votes=((1, "a1"),)),
        2: record(version("a1", ms=1), votes=((1, "a1"), (2, "a1"))),
        3: record(version("c1", ms=3), votes=((3, "c1"),)),
    }
    read = Reading(r=3)
    for node in order:
        read.hear(node, held[node])
    for node in order:
        read.mend(node)
    assert read.fx.value == b"a1"
    assert read.fx.decision.rule == "most votes: 2 to 1"


def test_a_conflict_with_a_silent_owner_is_answered_provisionally_in_time() -> None:
    read = Reading()
    read.hear(1, OLD)
    read.hear(2, RIVAL)
    read.wake(10 + CONFLICT_US)
    read.mend(1)
    read.mend(2)
    assert read.fx.decision.confidence is Confidence.PROVISIONAL
    assert read.fx.decision.rule.endswith("1 of 3 owners unheard")


def test_a_conflict_waits_no_longer_than_the_deadline() -> None:
    read = Reading(deadline_us=at(1_000))
    read.hear(1, OLD)
    read.hear(2, RIVAL)
    assert read.fx.wakes[-1] == 1_000


def test_a_conflict_is_decided_when_the_last_silent_owner_is_lost() -> None:
    read = Reading()
    read.hear(1, OLD)
    read.hear(2, RIVAL)
    read.lose(3)
    assert read.op.phase is Phase.MENDING
    read.mend(1)
    read.mend(2)
    assert read.fx.decision.confidence is Confidence.PROVISIONAL


def test_a_conflict_is_decided_when_the_last_silent_owner_abstains() -> None:
    read = Reading()
    read.hear(1, OLD)
    read.hear(2, RIVAL)
    read.refuse(3)
    assert read.op.phase is Phase.MENDING


def test_a_vote_goes_on_while_an_owner_is_silent() -> None:
    read = Reading(owners=(1, 2, 3, 4))
    read.hear(1, OLD)
    read.hear(2, RIVAL)
    read.hear(3, OLD)
    assert read.op.phase is Phase.VOTING


def test_an_owner_that_is_unproven_is_unheard_in_a_vote() -> None:
    read = Reading()
    read.hear(1, OLD)
    read.hear(2, RIVAL)
    read.hear(3, OLD, status=Status.UNPROVEN)
    for node in (1, 2, 3):
        read.mend(node)
    assert read.fx.decision.confidence is Confidence.PROVISIONAL


@pytest.mark.parametrize("keyspace", [NEWEST, SIBLINGS])
def test_only_majority_asks_all_owners_in_a_conflict(keyspace: object) -> None:
    read = Reading(keyspace=keyspace)
    read.hear(1, OLD)
    read.hear(2, RIVAL)
    assert read.fx.asked == [1, 2]
    assert read.op.phase is Phase.MENDING


def test_expiry_is_judged_once_though_it_comes_while_the_vote_goes_on() -> None:
    read = Reading()
    read.hear(1, record(tombstone("a1", ms=1)))
    read.hear(2, record(version("c1", ms=3, expires_ms=WALL_MS + 1)))
    assert read.op.phase is Phase.VOTING
    read.fx.now_ms += 1_000
    read.lose(3)
    read.mend(1)
    read.mend(2)
    assert read.op.judged_ms == WALL_MS
    assert read.fx.value == b"c1"


# ---- damage, abstention, proof ------------------------------------------------------------------


def test_an_owner_that_abstains_is_replaced() -> None:
    read = Reading()
    read.refuse(1)
    assert read.fx.asked == [1, 2, 3]
    read.hear(2, OLD)
    read.hear(3, OLD)
    assert read.fx.value == b"a1"


def test_abstention_is_not_absence() -> None:
    read = Reading()
    read.refuse(1)
    read.refuse(2)
    read.hear(3, None)
    assert read.fx.failure.code is ErrorCode.CORRUPT_DATA
    assert read.fx.failure.outcome is Outcome.NONE
    assert (
        read.fx.failure.message == "0 of 2 owners answered: too few owners can read what they hold"
    )


def test_a_read_fails_as_soon_as_r_is_out_of_reach() -> None:
    read = Reading()
    read.refuse(1)
    assert read.fx.is_open
    read.refuse(2)
    answers = [reply.answer for reply in read.fx.failure.replies]
    assert answers == ["abstained", "abstained", "pending"]


@pytest.mark.parametrize("status", [Status.REFUSED_LATE, Status.REFUSED_LOAD])
def test_owners_that_are_late_or_loaded_are_not_called_damaged(status: Status) -> None:
    read = Reading()
    read.refuse(1, status)
    read.refuse(2, status)
    assert read.fx.failure.code is ErrorCode.UNAVAILABLE


def test_an_unproven_owner_does_not_count_but_what_it_holds_does() -> None:
    read = Reading()
    read.hear(1, NEW, status=Status.UNPROVEN)
    assert read.fx.asked == [1, 2, 3]
    read.hear(2, OLD)
    assert read.fx.is_open
    read.hear(3, OLD)
    assert read.fx.mended == {2: NEW, 3: NEW}


def test_unproven_owners_alone_cannot_answer() -> None:
    read = Reading()
    for node in (1, 2, 3):
        read.hear(node, OLD, status=Status.UNPROVEN)
    assert read.fx.failure.code is ErrorCode.UNAVAILABLE
    assert read.fx.failure.message.endswith("too few owners can be believed")
    assert [reply.answer for reply in read.fx.failure.replies] == ["record", "record", "pending"]


@pytest.mark.parametrize("cut", [1, 5, 40, None], ids=["byte", "head", "core", "flipped"])
@pytest.mark.parametrize("order", [(1, 2), (2, 1)], ids=["first", "last"])
def test_a_damaged_reply_counts_as_an_abstention(cut: int | None, order: tuple[int, int]) -> None:
    sound = encode(KEY, OLD)
    bad = sound[:-1] + b"#" if cut is None else sound[:cut]
    read = Reading()
    for node in order:
        read.hear_bytes(node, bad if node == 1 else encode(KEY, NEW))
    assert 1 not in read.op.heard.replies
    assert read.op.heard.failed[1].startswith("damaged: ")
    assert read.fx.asked == [1, 2, 3]
    read.hear(3, NEW)
    assert read.fx.value == b"b1"


def test_damage_everywhere_is_reported_as_such() -> None:
    read = Reading()
    for node in (1, 2, 3):
        read.hear_bytes(node, b"\x01\x02")
    assert read.fx.failure.code is ErrorCode.CORRUPT_DATA


def test_a_reply_found_damaged_at_the_end_of_a_vote_does_not_leave_it_waiting() -> None:
    read = Reading(owners=(1, 2, 3, 4))
    read.hear(1, OLD)
    read.hear(2, RIVAL)
    read.hear_bytes(3, b"\x01\x02")
    read.wake(10 + CONFLICT_US)
    assert sorted(read.fx.mended) == [1, 2]
    read.mend(1)
    read.mend(2)
    assert read.fx.decision.rule.endswith("2 of 4 owners unheard")


# ---- reach --------------------------------------------------------------------------------------


def test_too_few_reachable_owners_fail_at_once() -> None:
    read = Reading(reachable=(3,))
    assert read.fx.asked == []
    assert read.fx.failure.code is ErrorCode.UNAVAILABLE
    assert read.fx.failure.message == "0 of 2 owners answered: too few owners can be reached"
    answers = {reply.node: reply.answer for reply in read.fx.failure.replies}
    assert answers == {1: "unreached", 2: "unreached", 3: "pending"}


def test_an_owner_that_is_lost_is_replaced() -> None:
    read = Reading()
    read.lose(2)
    assert read.fx.asked == [1, 2, 3]


def test_an_owner_that_is_lost_before_it_is_asked_never_is() -> None:
    read = Reading()
    assert read.op.is_awaiting(3)
    read.lose(3)
    read.wake(WIDEN_US)
    assert read.fx.asked == [1, 2]
    read.lose(2)
    assert read.fx.failure.code is ErrorCode.UNAVAILABLE
    assert read.fx.failure.message == "0 of 2 owners answered: too few owners can be believed"


def test_losing_an_owner_twice_or_after_its_reply_changes_nothing() -> None:
    read = Reading()
    read.hear(1, OLD)
    read.lose(1)
    read.lose(2)
    read.lose(2)
    assert read.fx.is_open
    assert read.fx.asked == [1, 2, 3]


def test_a_reply_from_an_owner_taken_for_lost_counts() -> None:
    read = Reading()
    read.lose(1)
    read.hear(1, OLD)
    read.hear(2, OLD)
    assert read.fx.value == b"a1"
    assert 1 not in read.op.heard.failed


# ---- time ---------------------------------------------------------------------------------------


def test_owners_that_are_later_than_usual_are_not_waited_for() -> None:
    read = Reading(usual_us=7_000)
    assert read.fx.wakes == [7_000]
    read.wake(7_000)
    assert read.fx.asked == [1, 2, 3]
    assert read.fx.wakes[-1] == DEADLINE_US
    read.hear(3, OLD)
    read.hear(2, OLD)
    assert read.fx.value == b"a1"


def test_one_more_owner_is_asked_at_a_time() -> None:
    read = Reading(owners=(1, 2, 3, 4), usual_us=7_000)
    read.wake(7_000)
    assert read.fx.asked == [1, 2, 3]
    assert read.fx.wakes[-1] == 7_000 + WIDEN_US
    read.wake(7_000 + WIDEN_US)
    assert read.fx.asked == [1, 2, 3, 4]


def test_an_owner_that_cannot_be_paid_for_is_asked_when_it_can() -> None:
    read = Reading(usual_us=7_000, budget=0)
    read.wake(7_000)
    assert read.fx.asked == [1, 2]
    assert read.fx.wakes[-1] == 7_000 + WIDEN_US
    read.fx.budget = 1
    read.wake(7_000 + WIDEN_US)
    assert read.fx.asked == [1, 2, 3]


def test_nothing_is_spent_when_there_is_nobody_to_ask() -> None:
    read = Reading(usual_us=7_000, budget=5, r=3)
    read.wake(7_000)
    assert (read.fx.asked, read.fx.budget) == ([1, 2, 3], 5)


def test_nothing_is_spent_on_a_silent_owner() -> None:
    read = Reading(usual_us=7_000, budget=5, suspects=(3,))
    read.wake(7_000)
    assert (read.fx.asked, read.fx.budget) == ([1, 2], 5)


def test_an_early_wake_waits_on() -> None:
    read = Reading()
    read.wake(WIDEN_US - 1)
    assert read.fx.asked == [1, 2]
    assert read.fx.wakes == [WIDEN_US, WIDEN_US]


def test_a_deadline_nearer_than_widening_is_the_first_wake() -> None:
    assert Reading(deadline_us=at(20)).fx.wakes == [20]


def test_the_deadline_fails_a_read_and_tells_who_answered_what() -> None:
    read = Reading()
    read.hear(1, None, after_us=30)
    read.wake(WIDEN_US)
    read.wake(DEADLINE_US)
    failure = read.fx.failure
    assert (failure.code, failure.outcome) == (ErrorCode.TIMEOUT, Outcome.NONE)
    assert failure.message == "1 of 2 owners answered: the deadline passed"
    assert [(reply.node, reply.answer, reply.after_us) for reply in failure.replies] == [
        (1, "absent", 30),
        (2, "pending", DEADLINE_US),
        (3, "pending", DEADLINE_US),
    ]


# ---- sessions -----------------------------------------------------------------------------------


def test_a_session_read_keeps_asking_until_it_covers_what_was_seen() -> None:
    read = Reading(seen=context("b1"))
    read.hear(1, OLD)
    read.hear(2, OLD)
    assert read.fx.is_open
    assert read.fx.asked == [1, 2, 3]
    read.hear(3, NEW)
    assert read.fx.mended == {1: NEW, 2: NEW}


def test_a_session_read_fails_when_no_owner_has_what_was_seen() -> None:
    read = Reading(seen=context(single=("b1",)))
    for node in (1, 2, 3, 1, 2, 3):
        read.hear(node, OLD)
    assert read.fx.failure.code is ErrorCode.UNAVAILABLE
    assert "no owner that can be reached has all that this session has seen" in (
        read.fx.failure.message
    )


def test_a_session_read_fails_at_the_deadline_for_want_of_what_was_seen() -> None:
    read = Reading(seen=context("b1"))
    read.hear(1, OLD)
    read.hear(2, OLD)
    read.wake(WIDEN_US)
    read.wake(DEADLINE_US)
    assert read.fx.failure.code is ErrorCode.UNAVAILABLE


def test_a_session_is_not_answered_with_absence_of_what_it_wrote() -> None:
    read = Reading(seen=context("a1"))
    read.hear(1, None)
    read.hear(2, None)
    assert read.fx.is_open
    read.hear(3, OLD)
    assert read.fx.mended == {1: OLD, 2: OLD}


def test_a_watermark_is_covered_by_one_owner_that_has_passed_it() -> None:
    read = Reading(watermark=bytes(16))
    read.hear(1, OLD)
    read.hear(2, OLD)
    assert read.fx.is_open
    read.hear(3, OLD, covers=True)
    assert read.fx.value == b"a1"


def test_a_session_that_is_covered_is_answered_at_once() -> None:
    read = Reading(seen=context("a1"))
    read.hear(1, NEW)
    read.hear(2, NEW)
    assert read.fx.value == b"b1"


def test_a_session_with_a_context_and_a_watermark_wants_both_covered() -> None:
    read = Reading(seen=context("a1"), watermark=bytes(16))
    read.hear(1, NEW)
    read.hear(2, NEW)
    assert read.fx.is_open
    assert read.op.silent() == [3]


def test_those_asked_and_not_yet_heard_are_silent() -> None:
    read = Reading()
    assert read.op.silent() == [1, 2]
    read.hear(1, OLD)
    assert read.op.silent() == [2]


# ---- explained ----------------------------------------------------------------------------------


def test_a_read_to_be_explained_asks_every_owner_and_waits_for_all() -> None:
    read = Reading(explain=True)
    assert read.fx.asked == [1, 2, 3]
    read.hear(1, OLD)
    read.hear(2, OLD)
    assert read.fx.is_open
    read.hear(3, OLD)
    assert read.fx.value == b"a1"


def test_an_explanation_waits_for_the_silent_no_longer_than_the_widening() -> None:
    read = Reading(explain=True)
    read.hear(1, OLD)
    read.hear(2, OLD)
    read.wake(WIDEN_US)
    assert read.fx.value == b"a1"


def test_a_story_with_a_damaged_reply_mends_only_those_that_were_heard() -> None:
    read = Reading(explain=True)
    read.hear(1, OLD)
    read.hear_bytes(2, encode(KEY, OLD)[:-1] + b"#")
    read.hear(3, None)
    assert read.fx.mended == {3: OLD}
    assert read.op.heard.failed[2].startswith("damaged: ")


# ---- stand-ins ----------------------------------------------------------------------------------


def test_stand_ins_are_not_thought_of_while_owners_are_enough() -> None:
    read = Reading(stand_ins=(4, 5))
    read.wake(WIDEN_US)
    assert read.fx.asked == [1, 2, 3]


def test_stand_ins_are_asked_at_once_where_owners_are_too_few() -> None:
    read = Reading(reachable=(3,), stand_ins=(4, 5))
    assert read.fx.asked == [3, 4]
    read.hear(3, OLD)
    assert read.fx.is_open
    read.hear(4, OLD)
    assert read.fx.value == b"a1"


def test_too_few_owners_and_stand_ins_together_fail_at_once() -> None:
    read = Reading(r=3, reachable=(3,), stand_ins=(4,))
    assert read.fx.asked == []
    assert read.fx.failure.message == "0 of 3 owners answered: too few owners can be reached"


def test_a_stand_in_that_keeps_nothing_does_not_count_and_another_is_asked() -> None:
    read = Reading(reachable=(3,), stand_ins=(4, 5))
    read.hear(4, None)
    assert read.fx.asked == [3, 4, 5]
    read.hear(3, OLD)
    assert read.fx.is_open
    read.hear(5, OLD)
    assert read.fx.value == b"a1"


def test_absence_cannot_be_read_from_stand_ins() -> None:
    read = Reading(reachable=(3,), stand_ins=(4, 5))
    read.hear(3, None)
    read.hear(4, None)
    read.hear(5, None)
    assert read.fx.failure.code is ErrorCode.UNAVAILABLE
    answers = {reply.node: reply.answer for reply in read.fx.failure.replies}
    assert answers == {
        1: "unreached", 2: "unreached", 3: "absent", 4: "keeps nothing", 5: "keeps nothing"
    }  # fmt: skip


def test_an_answer_that_needed_stand_ins_says_so() -> None:
    read = Reading(reachable=(3,), stand_ins=(4, 5))
    read.hear(3, OLD)
    read.hear(4, OLD)
    assert read.fx.decision.confidence is Confidence.STAND_INS
    assert read.fx.decision.rule.endswith("stand-ins made up the number")


def test_an_answer_that_r_owners_gave_does_not_speak_of_stand_ins() -> None:
    read = Reading(stand_ins=(4,))
    read.hear(1, OLD)
    read.fall_silent(2)
    read.fall_silent(3)
    assert read.fx.asked == [1, 2, 3, 4]
    read.hear(2, OLD)
    assert read.fx.decision.confidence is Confidence.AGREED


def test_a_conflict_among_stand_ins_keeps_its_own_confidence() -> None:
    read = Reading(reachable=(3,), stand_ins=(4, 5))
    read.hear(3, RIVAL)
    read.hear(4, OLD)
    read.mend(3)
    assert read.fx.decision.confidence is Confidence.PROVISIONAL
    assert read.fx.decision.rule.endswith("stand-ins made up the number")


def test_an_owner_is_mended_with_what_a_stand_in_keeps_and_never_the_stand_in() -> None:
    read = Reading(reachable=(3,), stand_ins=(4, 5))
    read.hear(3, OLD)
    read.hear(4, record(version("b1", ms=2)))
    assert read.fx.mended == {3: NEW}
    read.mend(3)
    assert read.fx.value == b"b1"


def test_an_owner_that_falls_silent_is_replaced_at_once_and_may_still_answer() -> None:
    read = Reading(stand_ins=(4,))
    read.fall_silent(1)
    assert read.fx.asked == [1, 2, 3]
    read.hear(1, OLD)
    read.hear(2, OLD)
    assert read.fx.value == b"a1"


def test_one_that_fell_silent_is_replaced_once() -> None:
    read = Reading(stand_ins=(4, 5))
    read.fall_silent(1)
    read.fall_silent(1)
    assert read.fx.asked == [1, 2, 3]


def test_an_owner_that_answered_before_it_fell_silent_is_not_replaced() -> None:
    read = Reading(stand_ins=(4,))
    read.hear(1, OLD)
    read.fall_silent(1)
    assert read.fx.asked == [1, 2]


def test_when_all_fall_silent_the_read_still_waits_for_them() -> None:
    read = Reading()
    for node in (1, 2, 3):
        read.fall_silent(node)
    assert read.fx.is_open
    read.hear(1, OLD)
    read.hear(3, OLD)
    assert read.fx.value == b"a1"


def test_when_only_the_silent_are_left_the_read_ends_soon_for_others_may_reach_more() -> None:
    read = Reading()
    read.hear(1, OLD)
    for node in (2, 3):
        read.fall_silent(node)
    read.wake(1_000 * (SILENT_MS - 1))
    assert read.fx.is_open
    read.wake(1_000 * (SILENT_MS + 100))
    (failure,) = read.fx.failures
    assert failure.code is ErrorCode.UNAVAILABLE
    assert "1 of 2 owners answered" in failure.message


def test_a_read_whose_late_owners_did_answer_asks_for_no_instant_that_is_over() -> None:
    read = Reading(seen=context("z1"))
    for node in (1, 2, 3):
        read.fall_silent(node)
    read.hear(1, OLD)
    read.hear(2, OLD)
    read.wake(1_000 * (SILENT_MS + 100))
    assert read.fx.is_open
    assert read.fx.wakes[-1] > 1_000 * (SILENT_MS + 100)


def test_suspects_are_asked_around_at_once() -> None:
    assert Reading(suspects=(1,), stand_ins=(4,)).fx.asked == [1, 2, 3]
    assert Reading(suspects=(1, 2), stand_ins=(4,)).fx.asked == [1, 2, 3, 4]


def test_a_suspect_that_is_asked_in_anothers_place_is_not_relied_on() -> None:
    read = Reading(suspects=(3,), stand_ins=(4,))
    read.hear(1, OLD)
    read.fall_silent(2)
    assert read.fx.asked == [1, 2, 3, 4]
    read.hear(4, None)
    read.wake(1_000 * (SILENT_MS - 1))
    assert read.fx.is_open
    read.wake(1_000 * (SILENT_MS + 100))
    assert "1 of 2 owners answered" in read.fx.failure.message


def test_a_suspect_that_answers_after_all_counts() -> None:
    read = Reading(suspects=(3,))
    read.hear(1, OLD)
    read.fall_silent(2)
    read.hear(3, OLD)
    assert read.fx.value == b"a1"


def test_a_vote_asks_suspects_too_and_nobody_but_owners() -> None:
    read = Reading(stand_ins=(4,))
    read.fx.suspects = (3,)
    read.hear(1, OLD)
    read.hear(2, RIVAL)
    assert read.fx.asked == [1, 2, 3]


@pytest.mark.parametrize("is_known_before", [True, False])
def test_a_session_waits_a_moment_for_the_silent_and_then_asks_floors(
    *, is_known_before: bool
) -> None:
    read = Reading(seen=context("b1"), stand_ins=(4,), suspects=(3,) if is_known_before else ())
    read.hear(1, OLD)
    read.hear(2, OLD)
    assert read.fx.asked == [1, 2, 3, 4]
    read.hear(4, None)
    if not is_known_before:
        read.fall_silent(3)
    read.wake(1_000 * (SILENT_MS - 1))
    assert read.fx.asked == [1, 2, 3, 4]
    read.wake(1_000 * (SILENT_MS + 100))
    assert read.fx.asked == [1, 2, 3, 4, 1, 2, 3, 4]
    for node in (1, 2):
        read.hear(node, OLD, after_us=1_000 * (SILENT_MS + 101))
    read.hear(4, None, after_us=1_000 * (SILENT_MS + 101))
    assert read.fx.failure.code is ErrorCode.UNAVAILABLE
    assert "has all that this session has seen" in read.fx.failure.message


def test_a_session_is_answered_by_a_silent_node_that_speaks_in_time() -> None:
    read = Reading(seen=context("b1"), suspects=(3,))
    read.hear(1, OLD)
    read.hear(2, OLD)
    read.hear(3, NEW)
    assert set(read.fx.mended) == {1, 2}


def test_an_owner_that_is_lost_or_abstains_is_replaced_by_a_stand_in_once_owners_run_out() -> None:
    read = Reading(stand_ins=(4, 5))
    read.lose(1)
    read.refuse(2)
    assert read.fx.asked == [1, 2, 3, 4]
    read.lose(4)
    assert read.fx.asked == [1, 2, 3, 4, 5]
    read.refuse(5)
    assert read.fx.failure.code is ErrorCode.CORRUPT_DATA


def test_a_session_asks_stand_ins_for_what_owners_have_not() -> None:
    read = Reading(seen=context("b1"), stand_ins=(4, 5))
    for node in (1, 2):
        read.hear(node, OLD)
    assert read.fx.asked == [1, 2, 3, 4, 5]
    read.hear(3, OLD)
    assert read.fx.is_open
    read.hear(4, NEW)
    assert set(read.fx.mended) == {1, 2, 3}


def test_a_session_fails_when_stand_ins_have_not_what_was_seen_either() -> None:
    read = Reading(seen=context("b1"), stand_ins=(4,))
    for node in (1, 2, 3):
        read.hear(node, OLD)
    assert read.fx.is_open
    read.hear(4, None)
    for node in (1, 2, 3):
        read.hear(node, OLD)
    read.hear(4, None)
    assert "has all that this session has seen" in read.fx.failure.message


def test_in_a_strict_keyspace_no_stand_in_is_asked() -> None:
    strict = Keyspace(name="default", sloppy=False)
    assert Reading(keyspace=strict, reachable=(3,), stand_ins=(4, 5)).fx.asked == []
    read = Reading(keyspace=strict, stand_ins=(4, 5), seen=context("b1"))
    read.fall_silent(1)
    read.fall_silent(2)
    read.lose(3)
    assert read.fx.asked == [1, 2, 3]


def test_a_conflict_asks_the_owners_that_are_left_and_no_further_stand_in() -> None:
    read = Reading(reachable=(2, 3), r=2, stand_ins=(4, 5))
    read.fall_silent(2)
    assert read.fx.asked == [2, 3, 4]
    read.hear(3, RIVAL)
    read.hear(4, OLD)
    assert (read.op.phase, read.fx.asked) == (Phase.VOTING, [2, 3, 4])


# --- one dot, several payloads ------------------------------------------------------------------

RIGHT, WRONG = record(version("a1", b"right")), record(version("a1", b"wrong"))


@pytest.mark.parametrize("third", [RIGHT, WRONG])
@pytest.mark.parametrize("keyspace", [NEWEST, SIBLINGS, Keyspace(name="default")])
def test_one_dot_with_two_payloads_asks_all_owners_and_the_bytes_of_most_are_the_answer(
    third: Record, keyspace: Keyspace
) -> None:
    reading = Reading(keyspace=keyspace)
    reading.hear(1, RIGHT)
    reading.hear(2, WRONG)
    assert reading.op.phase is Phase.VOTING
    assert reading.fx.asked == [1, 2, 3]
    reading.hear(3, third)
    loser = 2 if third is RIGHT else 1
    assert reading.fx.mended == {loser: third}
    refused = ReplicaWriteReply(40, Status.REFUSED_INVALID, Encoded(b""))
    reading.op.on_mended(loser, refused, at(20), reading.fx)
    assert reading.fx.value == third.versions[0].value
    assert reading.op.repair_failed


def test_a_dispute_among_those_that_can_be_heard_is_answered_with_the_greater_bytes() -> None:
    values = []
    for first, second in ((RIGHT, WRONG), (WRONG, RIGHT)):
        reading = Reading(reachable=(1, 2))
        reading.hear(1, first)
        reading.hear(2, second)
        ((node, _),) = reading.fx.mended.items()
        refused = ReplicaWriteReply(40, Status.REFUSED_INVALID, Encoded(b""))
        reading.op.on_mended(node, refused, at(20), reading.fx)
        values.append(reading.fx.value)
    assert values == [max(RIGHT, WRONG).versions[0].value] * 2


def test_a_session_whose_delete_was_reaped_is_answered_once_floors_cover_it() -> None:
    read = Reading(seen=context("a1", "b1"))
    for node in (1, 2, 3):
        read.hear(node, EMPTY)
    assert read.fx.is_open
    assert read.fx.asked == [1, 2, 3, 1, 2, 3]
    assert open_watermark(read.op.request.watermark) == {1: 1, 2: 1}
    read.hear(1, EMPTY)
    assert read.fx.is_open
    read.hear(2, EMPTY, covers=True)
    assert read.fx.value is None
    assert not read.fx.is_open


def test_a_session_that_no_floor_covers_either_fails() -> None:
    read = Reading(seen=context("b1"))
    for _ in range(2):
        for node in (1, 2, 3):
            read.hear(node, EMPTY)
    assert read.fx.failure.code is ErrorCode.UNAVAILABLE


def test_an_owner_that_falls_silent_while_all_are_asked_is_not_replaced() -> None:
    read = Reading(stand_ins=(4,))
    read.hear(1, OLD)
    read.hear(2, RIVAL)
    assert read.op.phase is Phase.VOTING
    read.fall_silent(3)
    assert read.fx.asked == [1, 2, 3]
