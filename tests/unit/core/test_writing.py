"""Writes whose owners are away, silent or unwilling: who stands in, for which slot, and when not.

Node 1 of six coordinates. Owners and stand-ins are named by their place: the key's owners in order,
then the ring's next nodes. What others answer is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from kvnode.core.bounds import SIBLINGS_MAX, SILENT_MS, Limits
from kvnode.core.coordinator import Coordinator
from kvnode.core.floors import Floors
from kvnode.core.hints import Hints, decode_hint, hint_key
from kvnode.core.hlc import Clock
from kvnode.core.keys import StorageKey, encode_key, partition_of_key
from kvnode.core.messages import (
    ClientPut,
    ErrorCode,
    Failure,
    NodeNumber,
    Outbox,
    Outcome,
    PeerMessage,
    PutResult,
    ReplicaWrite,
    ReplicaWriteReply,
    Result,
    SessionId,
    Status,
    WriteKind,
)
from kvnode.core.operations import Operations
from kvnode.core.record import Encoded, decode, encode
from kvnode.core.replica import Replica
from kvnode.core.standin import StandIn
from kvnode.core.topology import Keyspace, Topology
from kvnode.core.versions import Record
from kvnode.core.write import WriteOp
from kvnode.core.writing import Writes
from tests.unit.core.builders import (
    CLUSTER_KEY,
    SECOND_US,
    WALL_MS,
    at,
    dot,
    owned_by,
    put,
    record,
    topology,
    version,
)

ME = 1
SESSION = SessionId(4)
CLUSTER = topology(6)
OURS = owned_by(CLUSTER, ME, is_owner=True)
THEIRS = owned_by(CLUSTER, ME, is_owner=False)
STRICT = Keyspace(name="default", sloppy=False)


def ring(key: StorageKey, cluster: Topology = CLUSTER) -> list[NodeNumber]:
    partition = partition_of_key(key, cluster.partition_bits)
    return [member.number for member in cluster.preference(partition)]


class Desk:
    """Node 1 as coordinator of writes of one key; each call is one turn, its outbox is kept."""

    def __init__(
        self,
        key: StorageKey = OURS,
        *,
        away: Sequence[NodeNumber] = (),
        silent: Sequence[NodeNumber] = (),
        cluster: Topology = CLUSTER,
    ) -> None:
        self.key = key
        self.replica = Replica(ME, 1, cluster, Clock(max_skew_ms=60_000), Floors())
        self.hints = Hints(bytes_max=1 << 20)
        self.stand_in = StandIn(self.replica, self.hints)
        self.desk = Coordinator(
            self.replica, self.stand_in, Limits(), cluster_key=CLUSTER_KEY, first_id=100
        )
        self.owners, self.fallbacks = ring(key, cluster)[:3], ring(key, cluster)[3:]
        self.others = [node for node in self.owners if node != ME]
        self.spare = [node for node in self.fallbacks if node != ME]
        self.kept: dict[bytes, bytes | None] = dict.fromkeys(self.stand_in.names_of(key))
        self.unreadable: set[bytes] = set()
        self.out = Outbox()
        for node in range(2, len(cluster.members) + 1):
            if node not in away:
                self.desk.on_peer_up(node)
        for node in silent:
            self.desk.on_peer_silent(node)

    def turn(self, act: Callable[[Coordinator], object], after_us: int = 10) -> None:
        self.out = Outbox()
        self.replica.begin({OURS: None}, self.unreadable, WALL_MS)
        self.hints.begin(self.kept, self.unreadable, self.replica.batch, WALL_MS)
        self.desk.begin(self.out, at(after_us), WALL_MS)
        act(self.desk)
        self.desk.end()
        for _, name, value in self.replica.end().changes:
            if name in self.kept:
                self.kept[name] = value

    def put(self, origin: int = SESSION, **changes: Any) -> None:
        request = put(**({"key": self.key} | changes))
        self.turn(lambda desk: desk.on_put(origin, request))

    def hear(
        self, node: NodeNumber, status: Status = Status.DONE, state: Record | None = None
    ) -> None:
        data = Encoded(b"") if state is None else encode(self.key, state)
        self.turn(lambda desk: desk.on_write_reply(node, ReplicaWriteReply(101, status, data)))

    def forwarded(self, node: NodeNumber, reply: PutResult | Failure) -> None:
        self.turn(lambda desk: desk.on_forward_reply(node, reply))

    def silence(self, node: NodeNumber) -> None:
        self.turn(lambda desk: desk.on_peer_silent(node))

    def lose(self, node: NodeNumber) -> None:
        self.turn(lambda desk: desk.on_peer_down(node))

    def sent(self, node: NodeNumber) -> list[PeerMessage]:
        return self.out.peers.get(node, [])

    @property
    def slots(self) -> dict[NodeNumber, NodeNumber]:
        """Whom each node was asked to hold a write for: 0, itself."""
        return {
            node: message.stand_in_for
            for node, messages in self.out.peers.items()
            for message in messages
            if isinstance(message, ReplicaWrite) and node != ME
        }

    @property
    def passed_on(self) -> dict[NodeNumber, int]:
        """To whom a client's write was sent on, and under which id."""
        return {
            node: message.id
            for node, messages in self.out.peers.items()
            for message in messages
            if isinstance(message, ClientPut)
        }

    @property
    def answers(self) -> list[Result]:
        return self.out.clients.get(SESSION, [])

    @property
    def failure(self) -> Failure:
        [answer] = self.answers
        assert isinstance(answer, Failure)
        return answer

    @property
    def acked(self) -> tuple[NodeNumber, ...]:
        [answer] = self.answers
        assert isinstance(answer, PutResult)
        return answer.acked


def without(*places: int) -> Desk:
    """Return a desk from which the other owners at these places cannot be reached."""
    others = Desk().others
    return Desk(away=[others[place] for place in places])


# ---- who stands in ------------------------------------------------------------------------------


def test_where_all_owners_are_there_nobody_stands_in() -> None:
    desk = Desk()
    desk.put()
    assert desk.slots == dict.fromkeys(desk.others, 0)


def test_each_owner_that_is_away_gets_the_next_healthy_node_of_the_ring() -> None:
    desk = without(0, 1)
    desk.put()
    assert desk.slots == dict(zip(desk.spare, desk.others, strict=False))


def test_a_stand_in_is_sent_what_the_owner_would_have_been_sent() -> None:
    desk = without(0)
    desk.put()
    [to_owner], [to_stand_in] = desk.sent(desk.others[1]), desk.sent(desk.spare[0])
    assert isinstance(to_owner, ReplicaWrite)
    assert to_stand_in == to_owner._replace(stand_in_for=desk.others[0])


def test_stand_ins_that_are_away_or_silent_are_passed_over() -> None:
    first, second, third = Desk().spare
    desk = Desk(away=[Desk().others[0], first], silent=[second])
    desk.put()
    assert desk.slots == {desk.others[1]: 0, third: desk.others[0]}


def test_a_node_never_stands_in_for_two_slots() -> None:
    spare = Desk().spare
    desk = Desk(away=[*Desk().others, *spare[1:]])
    desk.put(w=2)
    assert list(desk.slots) == spare[:1]


def test_the_coordinator_never_stands_in_beside_its_own_slot() -> None:
    desk = Desk(away=[*Desk().others, *Desk().spare])
    desk.put(w=1)
    assert desk.slots == {}
    assert desk.sent(ME) == []


# ---- slots --------------------------------------------------------------------------------------


def test_a_stand_in_counts_for_the_slot_of_its_owner() -> None:
    desk = without(0, 1)
    desk.put(w=2)
    desk.hear(desk.spare[0])
    assert desk.answers == []
    desk.hear(ME)
    assert desk.acked == (desk.spare[0], ME)


def test_an_owner_and_its_stand_in_are_one_slot() -> None:
    desk = Desk()
    desk.put(w=2)
    desk.silence(desk.others[0])
    assert desk.slots == {desk.spare[0]: desk.others[0]}
    desk.hear(desk.spare[0])
    desk.hear(desk.others[0])
    assert desk.answers == []
    desk.hear(ME)
    assert set(desk.acked) == {desk.spare[0], desk.others[0], ME}


def test_a_silent_owner_may_still_acknowledge_and_fill_its_slot() -> None:
    desk = Desk()
    desk.put(w=2)
    desk.silence(desk.others[0])
    desk.hear(ME)
    desk.hear(desk.others[0])
    assert desk.acked == (ME, desk.others[0])


def test_an_owner_that_is_suspected_beforehand_is_asked_and_gets_a_stand_in_at_once() -> None:
    suspect = Desk().others[0]
    desk = Desk(silent=[suspect])
    desk.put()
    assert desk.slots == {suspect: 0, desk.others[1]: 0, desk.spare[0]: suspect}


def test_an_owner_that_acknowledged_before_it_fell_silent_gets_no_stand_in() -> None:
    desk = Desk()
    desk.put(w=3)
    desk.hear(desk.others[0])
    desk.silence(desk.others[0])
    assert desk.slots == {}


@pytest.mark.parametrize("how", ["silence", "lose"])
def test_a_stand_in_that_falls_silent_or_is_lost_is_replaced_for_the_same_slot(how: str) -> None:
    desk = without(0)
    desk.put()
    getattr(desk, how)(desk.spare[0])
    assert desk.slots == {desk.spare[1]: desk.others[0]}


def test_an_owner_that_is_lost_after_it_was_silent_has_its_stand_in_already() -> None:
    desk = Desk()
    desk.put()
    desk.silence(desk.others[0])
    desk.lose(desk.others[0])
    assert desk.slots == {}


# ---- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [Status.ABSTAINED, Status.REFUSED_FULL, Status.REFUSED_LOAD])
def test_a_refusal_that_concerns_the_owner_alone_is_made_up_for(status: Status) -> None:
    desk = Desk()
    desk.put()
    desk.hear(desk.others[0], status)
    assert desk.slots == {desk.spare[0]: desk.others[0]}
    desk.hear(desk.spare[0], status)
    assert desk.slots == {desk.spare[1]: desk.others[0]}


@pytest.mark.parametrize(
    "status", [Status.REFUSED_INVALID, Status.REFUSED_SKEW, Status.REFUSED_LATE]
)
def test_a_refusal_that_concerns_the_write_is_taken_nowhere_else(status: Status) -> None:
    desk = Desk()
    desk.put(w=2)
    desk.hear(desk.others[0], status)
    assert desk.slots == {}
    desk.hear(desk.others[1], status)
    assert (desk.slots, desk.failure.outcome) == ({}, Outcome.UNCERTAIN)


def test_a_write_is_uncertain_once_neither_owners_nor_stand_ins_are_left() -> None:
    desk = Desk(away=[*Desk().others, *Desk().spare[1:]])
    desk.put(w=2)
    assert desk.answers == []
    desk.hear(desk.spare[0], Status.REFUSED_FULL)
    assert (desk.failure.code, desk.failure.outcome) == (ErrorCode.UNCERTAIN, Outcome.UNCERTAIN)
    answers = {reply.node: reply.answer for reply in desk.failure.replies}
    assert answers[desk.spare[0]] == "refused: refused_full"


# ---- strict keyspaces and too few ---------------------------------------------------------------


def test_a_strict_keyspace_refuses_at_once_what_owners_alone_cannot_hold() -> None:
    desk = without(0, 1)
    desk.put(keyspace=STRICT)
    assert (desk.failure.code, desk.failure.outcome) == (
        ErrorCode.UNAVAILABLE,
        Outcome.NOT_APPLIED,
    )
    assert desk.failure.message == "1 of 2 owners can be reached"
    assert desk.out.peers == {}


@pytest.mark.parametrize("how", ["silence", "lose", "refuse"])
def test_in_a_strict_keyspace_nobody_ever_stands_in(how: str) -> None:
    desk = Desk()
    desk.put(keyspace=STRICT)
    if how == "refuse":
        desk.hear(desk.others[0], Status.REFUSED_FULL)
    else:
        getattr(desk, how)(desk.others[0])
    assert desk.slots == {}


def test_a_strict_write_of_a_key_whose_owners_are_all_away_is_not_applied() -> None:
    desk = Desk(THEIRS, away=ring(THEIRS)[:3])
    desk.put(keyspace=STRICT)
    assert desk.failure.message == "no owner of the key can be reached"
    assert not any(desk.kept.values())


def test_too_few_stand_ins_refuse_a_write_before_any_effect() -> None:
    desk = Desk(away=[*Desk().others, *Desk().spare[1:]])
    desk.put(w=3)
    assert desk.failure.outcome is Outcome.NOT_APPLIED
    assert desk.failure.message == "2 of 3 owners can be reached"
    assert (desk.out.peers, desk.out.held_peers) == ({}, {})


# ---- this node stands in ------------------------------------------------------------------------


def far_away() -> Desk:
    """Return a desk whose node is no owner of the key, all of whom are away, and is none of the
    next three on the ring."""
    cluster = topology(9)
    keys = (encode_key("default", b"%d" % number) for number in range(1_000))
    key = next(key for key in keys if ME not in ring(key, cluster)[:6])
    return Desk(key, away=ring(key, cluster)[:3], cluster=cluster)


def test_a_node_far_off_on_the_ring_sends_a_write_on_to_the_first_stand_in() -> None:
    desk = far_away()
    desk.put()
    assert desk.passed_on == {desk.fallbacks[0]: 101}
    assert not any(desk.kept.values())


def test_a_node_far_off_to_which_a_write_was_sent_applies_it_and_sends_it_no_further() -> None:
    desk = far_away()
    desk.put(origin=-3)
    assert desk.passed_on == {}
    assert desk.kept[hint_key(desk.owners[0], desk.key)] is not None


def test_a_node_far_off_sends_no_strict_write_to_a_stand_in() -> None:
    desk = far_away()
    desk.put(keyspace=STRICT)
    assert desk.failure.outcome is Outcome.NOT_APPLIED
    assert desk.out.peers == {}


def test_a_write_is_applied_here_for_the_first_owner_and_sent_to_stand_ins_of_the_others() -> None:
    desk = Desk(THEIRS, away=ring(THEIRS)[:3])
    desk.put(w=2)
    kept = desk.kept[hint_key(desk.owners[0], THEIRS)]
    assert kept is not None
    state = decode(THEIRS, decode_hint(kept).record)
    assert [each.dot for each in state.versions] == [dot("a1")]
    assert state.votes == ()
    assert desk.slots == dict(zip(desk.spare, desk.owners[1:], strict=False))
    own = ReplicaWriteReply(101, Status.DONE, Encoded(b""))
    assert desk.out.held_peers == {ME: [own]}
    desk.hear(ME)
    assert desk.answers == []
    desk.hear(desk.spare[0])
    assert desk.acked == (ME, desk.spare[0])


def test_a_silent_owner_is_sent_the_write_that_is_applied_here_in_its_place() -> None:
    owners = ring(THEIRS)[:3]
    desk = Desk(THEIRS, silent=owners)
    desk.put(w=2)
    assert {node: desk.slots[node] for node in owners} == dict.fromkeys(owners, 0)
    desk.hear(ME)
    desk.hear(owners[0])
    assert desk.answers == []
    desk.hear(owners[1])
    assert set(desk.acked) == {ME, owners[0], owners[1]}


def test_what_a_stand_in_brings_back_is_kept_under_the_hint_of_its_slot() -> None:
    desk = Desk(THEIRS, away=ring(THEIRS)[:3])
    desk.put(w=2)
    state = record(version("b1", ms=9, key=THEIRS))
    desk.hear(desk.spare[0], state=state)
    [merge] = desk.sent(ME)
    assert isinstance(merge, ReplicaWrite)
    assert (merge.kind, merge.stand_in_for) == (WriteKind.REPAIR, desk.owners[0])
    assert merge.record == encode(THEIRS, state)


def test_what_is_brought_back_to_an_owner_goes_to_its_own_record() -> None:
    desk = without(0)
    desk.put()
    desk.hear(desk.spare[0], state=record(version("b1", ms=9, key=OURS)))
    [merge] = desk.sent(ME)
    assert isinstance(merge, ReplicaWrite)
    assert merge.stand_in_for == 0


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda desk: desk.unreadable.update(desk.kept), ErrorCode.CORRUPT_DATA),
        (lambda desk: setattr(desk.hints, "_bytes_max", 1), ErrorCode.STORAGE_FULL),
        (lambda desk: desk.kept.clear(), ErrorCode.UNAVAILABLE),
    ],
    ids=["unreadable", "full", "not fetched"],
)
def test_a_stand_in_that_cannot_apply_a_write_says_that_it_is_nowhere(
    spoil: Callable[[Desk], object], code: ErrorCode
) -> None:
    desk = Desk(THEIRS, away=ring(THEIRS)[:3])
    spoil(desk)
    desk.put()
    assert (desk.failure.code, desk.failure.outcome) == (code, Outcome.NOT_APPLIED)
    assert desk.out.peers == {}


def test_a_write_that_was_sent_here_is_applied_for_an_owner_that_is_away() -> None:
    owners = ring(THEIRS)[:3]
    desk = Desk(THEIRS, away=owners[:1])
    desk.put(origin=-3, w=2)
    assert desk.slots == {owners[1]: 0, owners[2]: 0}
    assert desk.kept[hint_key(owners[0], THEIRS)] is not None


# ---- writes sent on -----------------------------------------------------------------------------


def passing_on() -> tuple[Desk, NodeNumber, NodeNumber]:
    """Return a desk whose write is sent on and unanswered: to whom, and who is asked next."""
    desk = Desk(THEIRS)
    desk.put()
    [first] = desk.passed_on
    desk.silence(first)
    [second] = desk.passed_on
    return desk, first, second


def not_applied() -> Failure:
    return Failure(101, ErrorCode.UNAVAILABLE, Outcome.NOT_APPLIED, "too few", 0, ())


def test_a_write_goes_to_an_owner_that_is_healthy_before_one_that_is_suspected() -> None:
    owners = ring(THEIRS)[:3]
    desk = Desk(THEIRS, silent=owners[:2])
    desk.put()
    assert list(desk.passed_on) == owners[2:]


def test_a_write_that_was_sent_on_to_one_that_falls_silent_is_sent_to_another_under_one_id() -> (
    None
):
    desk, first, second = passing_on()
    assert first != second
    assert {first, second} <= {*desk.owners}
    assert desk.passed_on == {second: 101}


def test_whichever_owner_has_the_result_first_gives_it() -> None:
    for place in (0, 1):
        desk, *asked = passing_on()
        desk.forwarded(asked[place], PutResult(101, b"c", (asked[place],), 0))
        assert desk.answers == [PutResult(8, b"c", (asked[place],), 0)]
        assert desk.desk.in_flight == 0


def test_one_that_says_not_applied_decides_nothing_while_another_may_apply_it() -> None:
    desk, first, second = passing_on()
    desk.forwarded(second, not_applied())
    assert desk.answers == []
    desk.forwarded(first, PutResult(101, b"", (first,), 0))
    assert desk.acked == (first,)


def test_not_applied_is_said_only_when_all_that_were_asked_said_so() -> None:
    desk, first, second = passing_on()
    desk.forwarded(first, not_applied())
    desk.forwarded(second, not_applied())
    assert desk.failure.outcome is Outcome.NOT_APPLIED


def test_a_write_may_be_applied_by_one_whose_link_is_gone() -> None:
    desk, first, second = passing_on()
    desk.lose(first)
    assert desk.answers == []
    desk.forwarded(second, not_applied())
    assert desk.failure.outcome is Outcome.UNCERTAIN
    assert desk.failure.message.endswith("one that was silent may have applied it")


def test_a_write_is_uncertain_once_the_links_to_all_that_were_asked_are_gone() -> None:
    desk, first, second = passing_on()
    desk.lose(second)
    assert desk.answers == []
    desk.lose(first)
    assert desk.failure.outcome is Outcome.UNCERTAIN


def test_a_write_is_not_sent_on_to_a_suspect_in_the_place_of_another() -> None:
    desk = Desk(THEIRS)
    desk.put()
    [first] = desk.passed_on
    desk.desk.suspects.update(node for node in desk.owners if node != first)
    desk.silence(first)
    [stand_in] = desk.passed_on
    assert stand_in not in desk.owners


def test_a_strict_write_is_sent_on_to_nobody_when_all_owners_are_suspected() -> None:
    desk = Desk(THEIRS)
    desk.put(keyspace=STRICT)
    [first] = desk.passed_on
    desk.desk.suspects.update(node for node in desk.owners if node != first)
    desk.silence(first)
    assert desk.passed_on == {}


def test_an_owner_that_cannot_apply_a_write_itself_never_sends_it_on_to_itself() -> None:
    desk = Desk()
    desk.replica.refuses = Status.REFUSED_FULL
    desk.put()
    [first] = desk.passed_on
    desk.silence(first)
    assert list(desk.passed_on) == [node for node in desk.others if node != first]


def test_every_write_sent_on_is_answered_by_its_deadline() -> None:
    desk, _, _ = passing_on()
    desk.turn(lambda each: None, 2 * SECOND_US)
    assert desk.answers == []
    desk.turn(lambda each: None, 5 * SECOND_US + 10_000)
    assert desk.failure.outcome is Outcome.UNCERTAIN
    assert desk.desk.in_flight == 0


# ---- left to the silent -------------------------------------------------------------------------


LATE_US = 1_000 * SILENT_MS + 20_000
TRIO = topology(3)
"""Nobody is left to stand in."""


def left_alone(*silent: int) -> Desk:
    """Return a desk whose write only others at these places can help to w = 2; they are silent."""
    desk = Desk(cluster=TRIO)
    desk.put(w=2)
    desk.hear(ME)
    for place in silent:
        desk.silence(desk.others[place])
    return desk


def test_a_write_that_only_silent_nodes_can_help_ends_soon_for_others_may_reach_more() -> None:
    desk = left_alone(0, 1)
    desk.turn(lambda _: None, LATE_US // 2)
    assert desk.answers == []
    desk.turn(lambda _: None, LATE_US)
    assert desk.failure.outcome is Outcome.UNCERTAIN
    assert desk.failure.message == "1 of 2 owners acknowledged: those that are left are silent"
    assert {reply.answer for reply in desk.failure.replies} == {"acknowledged", "pending"}
    assert desk.desk.in_flight == 0


def test_who_falls_silent_once_more_within_that_moment_does_not_prolong_it() -> None:
    desk = left_alone(0, 1)
    for act in (desk.desk.on_peer_heard, desk.desk.on_peer_silent):
        desk.turn(lambda _, act=act: act(desk.others[1]), LATE_US // 2)  # type: ignore[misc]
    desk.turn(lambda _: None, LATE_US)
    assert desk.failure.outcome is Outcome.UNCERTAIN


def test_a_silent_node_that_acknowledges_within_that_moment_counts() -> None:
    desk = left_alone(0, 1)
    desk.hear(desk.others[1])
    assert desk.acked == (ME, desk.others[1])


def test_while_one_is_left_that_is_not_silent_a_write_goes_on() -> None:
    desk = left_alone(0)
    desk.turn(lambda _: None, LATE_US)
    assert desk.answers == []
    assert desk.desk.in_flight == 1


def test_a_write_is_left_to_the_silent_also_when_the_last_other_is_lost() -> None:
    desk = left_alone(0)
    desk.lose(desk.others[1])
    desk.turn(lambda _: None, LATE_US)
    assert desk.failure.outcome is Outcome.UNCERTAIN


def test_a_write_begun_where_all_others_are_silent_is_left_to_them_from_the_start() -> None:
    desk = Desk(cluster=TRIO, silent=(2, 3))
    desk.put(w=2)
    desk.hear(ME)
    desk.turn(lambda _: None, LATE_US)
    assert desk.failure.outcome is Outcome.UNCERTAIN


def test_with_stand_ins_no_write_is_left_to_the_silent() -> None:
    desk = Desk()
    desk.put(w=2)
    desk.hear(ME)
    for node in desk.others:
        desk.silence(node)
    desk.turn(lambda _: None, LATE_US)
    assert desk.answers == []


@pytest.mark.parametrize("is_known_before", [True, False])
def test_a_write_that_was_sent_on_to_silent_nodes_alone_ends_soon(*, is_known_before: bool) -> None:
    owners = ring(THEIRS)[:3]
    desk = Desk(THEIRS, away=owners[1:], silent=owners[:1] if is_known_before else ())
    desk.put(keyspace=STRICT, w=1)
    assert list(desk.passed_on) == owners[:1]
    if not is_known_before:
        desk.silence(owners[0])
    desk.turn(lambda _: None, LATE_US // 2)
    assert desk.answers == []
    desk.turn(lambda _: None, LATE_US)
    assert desk.failure.outcome is Outcome.UNCERTAIN
    assert desk.failure.message.endswith("it is silent")
    assert desk.desk.in_flight == 0


def test_a_write_that_was_sent_on_is_not_left_to_the_silent_while_another_may_answer() -> None:
    owners = ring(THEIRS)[:3]
    desk = Desk(THEIRS, away=owners[2:])
    desk.put(keyspace=STRICT, w=1)
    [first] = desk.passed_on
    desk.silence(first)
    desk.turn(lambda at_desk: at_desk.on_peer_heard(first))
    desk.silence(first)
    desk.turn(lambda _: None, LATE_US)
    assert desk.answers == []
    assert desk.desk.in_flight == 1


def test_a_write_that_was_sent_on_waits_for_one_that_is_heard_again() -> None:
    owners = ring(THEIRS)[:3]
    desk = Desk(THEIRS, away=owners[1:])
    desk.put(keyspace=STRICT, w=1)
    desk.silence(owners[0])
    desk.turn(lambda each: each.on_peer_heard(owners[0]))
    desk.turn(lambda _: None, LATE_US)
    assert desk.answers == []


# ---- time ---------------------------------------------------------------------------------------


def test_a_write_that_is_woken_before_its_deadline_asks_to_be_woken_again() -> None:
    desk, out = Desk(), Outbox()
    ops = Operations(desk.replica, first_id=100)
    writes = Writes(ops, desk.replica, desk.stand_in, Limits(), cluster_key=CLUSTER_KEY)
    desk.replica.begin({OURS: None}, frozenset(), WALL_MS)
    ops.begin(out, at(0), WALL_MS)
    writes.begin(SESSION, put(key=OURS, w=1))
    [(op_id, op)] = ops.table.items()
    assert isinstance(op, WriteOp)
    ops.wheel.take_due(at(2 * SECOND_US))
    ops.begin(out, at(2 * SECOND_US), WALL_MS)
    writes.on_wake(op_id, op)
    assert out.clients == {}
    due = ops.wheel.next_due(ops.table)
    assert due is not None
    assert at(2 * SECOND_US) < due <= op.request.deadline_us


def test_a_write_that_too_few_could_hold_is_not_kept_here_in_an_owners_place() -> None:
    desk = Desk(THEIRS, away=range(2, 7))
    desk.put(w=2)
    assert desk.failure.message == "1 of 2 owners can be reached"
    assert desk.failure.outcome is Outcome.NOT_APPLIED
    assert not any(desk.kept.values())


def test_one_sibling_too_many_is_refused_by_a_stand_in_with_what_to_do() -> None:
    desk = Desk(THEIRS, away=ring(THEIRS)[:3])
    for count in range(SIBLINGS_MAX):
        desk.put(write_id=b"%016d" % count, is_explicit=True)
        assert desk.answers == []
    kept = dict(desk.kept)
    desk.put(is_explicit=True)
    assert desk.failure.code is ErrorCode.INVALID_REQUEST
    assert "read the key and merge first" in desk.failure.message
    assert desk.kept == kept


def test_a_strict_write_whose_owners_are_all_suspected_is_sent_on_to_one_of_them() -> None:
    desk = Desk(THEIRS, silent=ring(THEIRS)[:3])
    desk.put(keyspace=STRICT)
    assert list(desk.passed_on) == desk.owners[:1]
    assert desk.answers == []
