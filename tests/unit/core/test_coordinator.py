"""Operations in progress at one node: whom they reach, how each of them ends, and exactly once.

Node 1 of three (or, where a key has other owners, of five) coordinates. What the others answer is
handed to it; messages to itself are handed back only where a test says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kvnode.core.bounds import SIBLINGS_MAX, Limits
from kvnode.core.context import open_context
from kvnode.core.coordinator import Coordinator
from kvnode.core.floors import Floors
from kvnode.core.hints import Hints
from kvnode.core.hlc import Clock
from kvnode.core.keys import StorageKey, encode_key, partition_of_key
from kvnode.core.messages import (
    ClientPut,
    ErrorCode,
    Failure,
    GetResult,
    Instant,
    NodeNumber,
    Outbox,
    Outcome,
    PeerMessage,
    PutResult,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Result,
    Status,
    WriteKind,
)
from kvnode.core.operations import OPERATION_ID_MAX
from kvnode.core.record import Encoded, decode, encode
from kvnode.core.replica import Replica
from kvnode.core.resolve import Confidence
from kvnode.core.standin import StandIn
from kvnode.core.topology import Keyspace
from kvnode.core.versions import Context, Record, Vote
from tests.unit.core.builders import (
    CLUSTER_KEY,
    KEY,
    NOW,
    SECOND_US,
    SIBLINGS,
    WALL_MS,
    at,
    context,
    dot,
    get,
    owned_by,
    put,
    record,
    stamp,
    tombstone,
    topology,
    version,
)

ME = 1
SESSION = 4
FIRST_ID = 100
DEADLINE_US = 5 * SECOND_US
OWNERS = [member.number for member in topology().owners(partition_of_key(KEY, 4), 3)]


class Desk:
    """A coordinator over a replica; each call is one turn, and its outbox is kept."""

    def __init__(
        self, members: int = 3, *, reachable: tuple[int, ...] = (2, 3), **limits: int
    ) -> None:
        self.limits = replace(Limits(), **limits)
        self.replica = Replica(
            ME, 1, topology(members), Clock(max_skew_ms=self.limits.max_skew_ms), Floors()
        )
        self.hints = Hints(bytes_max=self.limits.hint_bytes)
        self.desk = Coordinator(
            self.replica,
            StandIn(self.replica, self.hints),
            self.limits,
            cluster_key=CLUSTER_KEY,
            first_id=FIRST_ID,
        )
        for node in reachable:
            self.desk.on_peer_up(node)
        self.held: dict[StorageKey, bytes | None] = {KEY: None}
        self.unreadable: set[StorageKey] = set()
        self.out = Outbox()

    def begin(self, now: Instant = NOW) -> Coordinator:
        self.out = Outbox()
        self.replica.begin(self.held, self.unreadable, WALL_MS)
        self.hints.begin({}, frozenset(), self.replica.batch, WALL_MS)
        self.desk.begin(self.out, now, WALL_MS)
        return self.desk

    def end(self) -> None:
        self.desk.end()
        self.replica.end()

    def get(self, now: Instant = NOW, origin: int = SESSION, **changes: Any) -> None:
        self.begin(now).on_get(origin, get(**changes))
        self.end()

    def put(self, now: Instant = NOW, origin: int = SESSION, **changes: Any) -> None:
        self.begin(now).on_put(origin, put(**changes))
        self.end()

    def hear_write(
        self,
        node: NodeNumber,
        status: Status = Status.DONE,
        state: Record | None = None,
        *,
        op_id: int = FIRST_ID + 1,
        data: bytes = b"",
    ) -> None:
        data = data if state is None else encode(KEY, state)
        reply = ReplicaWriteReply(op_id, status, Encoded(data))
        self.begin(at(10)).on_write_reply(node, reply)
        self.end()

    def hear_read(
        self,
        node: NodeNumber,
        state: Record | None,
        status: Status = Status.DONE,
        *,
        op_id: int = FIRST_ID + 1,
    ) -> None:
        data = b"" if state is None else encode(KEY, state)
        reply = ReplicaReadReply(op_id, status, Encoded(data), False)
        self.begin(at(10)).on_read_reply(node, reply)
        self.end()

    def hear_forward(self, node: NodeNumber, reply: PutResult | Failure) -> None:
        self.begin(at(10)).on_forward_reply(node, reply)
        self.end()

    def lose(self, node: NodeNumber) -> None:
        self.begin(at(10)).on_peer_down(node)
        self.end()

    def wait(self, after_us: int) -> None:
        self.begin(at(after_us))
        self.end()

    def sent(self, node: NodeNumber) -> list[PeerMessage]:
        return self.out.peers.get(node, []) + self.out.held_peers.get(node, [])

    @property
    def answers(self) -> list[Result]:
        return self.out.clients.get(SESSION, [])  # type: ignore[call-overload, no-any-return]

    def failure(self) -> Failure:
        [answer] = self.answers
        assert isinstance(answer, Failure)
        return answer

    def result(self) -> PutResult:
        [answer] = self.answers
        assert isinstance(answer, PutResult)
        return answer

    def value(self) -> GetResult:
        [answer] = self.answers
        assert isinstance(answer, GetResult)
        return answer


def elsewhere(**limits: int) -> tuple[Desk, StorageKey]:
    """Return node 1 of five and a key that it does not own."""
    desk = Desk(5, reachable=(2, 3, 4, 5), **limits)
    return desk, owned_by(desk.replica.topology, ME, is_owner=False)


# ---- writes -------------------------------------------------------------------------------------


def test_a_write_is_applied_here_and_sent_to_the_other_owners_at_once() -> None:
    desk = Desk()
    desk.put()
    for node in (2, 3):
        [message] = desk.out.peers[node]
        assert isinstance(message, ReplicaWrite)
        assert (message.id, message.kind, message.version) == (FIRST_ID + 1, WriteKind.WRITE, 0)
        state = decode(KEY, message.record)
        assert state.versions[0].dot == dot("a1")
        assert state.votes == (Vote(ME, dot("a1")),)


def test_this_owners_own_acknowledgement_waits_for_its_log() -> None:
    desk = Desk()
    desk.put()
    own = ReplicaWriteReply(FIRST_ID + 1, Status.DONE, Encoded(b""))
    assert desk.out.held_peers == {ME: [own]}


def test_ok_comes_after_w_owners_and_with_a_sealed_context() -> None:
    desk = Desk()
    desk.put(seen=context("b4"))
    desk.hear_write(2)
    assert desk.answers == []
    desk.hear_write(ME)
    result = desk.result()
    assert (result.id, result.acked, result.newer) == (8, (2, ME), 0)
    assert open_context(CLUSTER_KEY, KEY, result.context) == context("a1", "b4")
    assert desk.desk.in_flight == 0


def test_an_answer_after_the_end_of_an_operation_is_ignored() -> None:
    desk = Desk()
    desk.put(w=1)
    desk.hear_write(2)
    assert desk.answers
    desk.hear_write(3)
    assert desk.answers == []


def test_what_an_owner_holds_beyond_is_merged_here_and_tells_of_rivals() -> None:
    desk = Desk()
    desk.put()
    [message] = desk.out.peers[2]
    assert isinstance(message, ReplicaWrite)
    mine = decode(KEY, message.record).versions[0]
    state = record(mine, version("b1", ms=9))
    desk.hear_write(2, state=state)
    [repair] = desk.sent(ME)
    assert isinstance(repair, ReplicaWrite)
    assert (repair.kind, repair.record) == (WriteKind.REPAIR, encode(KEY, state))
    assert repair.id == message.id
    desk.hear_write(ME)
    assert desk.answers == []
    desk.hear_write(ME)
    assert desk.result().newer == stamp(9)
    sealed = desk.result().context
    assert open_context(CLUSTER_KEY, KEY, sealed) == Context({}, frozenset((dot("a1"),)))


def test_a_coordinator_that_cannot_store_what_was_brought_back_does_not_count() -> None:
    desk = Desk()
    desk.put()
    desk.hear_write(ME)
    desk.hear_write(2, state=record(version("b1", ms=9)))
    desk.hear_write(ME, Status.REFUSED_FULL)
    assert desk.answers == []
    desk.hear_write(3)
    assert desk.result().acked == (ME, 2, 3)


def test_an_acknowledgement_whose_record_is_damaged_still_counts() -> None:
    desk = Desk(reachable=(2,))
    desk.put()
    desk.hear_write(2, data=b"\x01\x02")
    assert desk.sent(ME) == []
    desk.hear_write(ME)
    assert desk.result().acked == (2, ME)


@pytest.mark.parametrize(
    ("status", "answer"),
    [(Status.REFUSED_FULL, "refused: refused_full"), (Status.ABSTAINED, "refused: abstained")],
)
def test_refusals_make_a_write_uncertain_once_w_is_out_of_reach(
    status: Status, answer: str
) -> None:
    desk = Desk()
    desk.put()
    desk.hear_write(2, status)
    assert desk.answers == []
    desk.hear_write(3, status)
    failure = desk.failure()
    assert (failure.code, failure.outcome) == (ErrorCode.UNCERTAIN, Outcome.UNCERTAIN)
    assert [reply.answer for reply in failure.replies].count(answer) == 2
    assert desk.desk.in_flight == 0


def test_too_few_reachable_owners_refuse_a_write_before_any_effect() -> None:
    desk = Desk(reachable=())
    desk.put()
    failure = desk.failure()
    assert (failure.code, failure.outcome) == (ErrorCode.UNAVAILABLE, Outcome.NOT_APPLIED)
    assert failure.message == "1 of 2 owners can be reached"
    assert (desk.out.peers, desk.out.held_peers) == ({}, {})


def test_an_unreachable_owner_is_not_waited_for() -> None:
    desk = Desk(reachable=(3,))
    desk.put()
    assert list(desk.out.peers) == [3]
    desk.hear_write(3, Status.ABSTAINED)
    answers = {reply.node: reply.answer for reply in desk.failure().replies}
    assert answers == {ME: "pending", 2: "unreached", 3: "refused: abstained"}


def test_a_write_is_uncertain_when_the_links_to_its_owners_break() -> None:
    desk = Desk()
    desk.put()
    desk.lose(2)
    assert desk.answers == []
    desk.lose(3)
    assert desk.failure().outcome is Outcome.UNCERTAIN
    assert desk.desk.reachable == set()


def test_a_link_that_breaks_after_the_answer_concerns_no_operation() -> None:
    desk = Desk()
    desk.put(w=3)
    desk.hear_write(2)
    desk.lose(2)
    assert desk.answers == []
    assert desk.desk.in_flight == 1


def test_a_write_is_uncertain_at_its_deadline_and_not_before() -> None:
    desk = Desk()
    desk.put()
    for second in range(1, 5):
        desk.wait(second * SECOND_US + 5_000)
        assert desk.answers == []
    desk.wait(DEADLINE_US + 5_000)
    assert desk.failure().message == "0 of 2 owners acknowledged: the deadline passed"
    assert desk.desk.next_wake() is None


def test_a_finished_write_is_forgotten_by_the_wheel_within_a_second_or_so() -> None:
    desk = Desk()
    desk.put(w=1, deadline_us=at(600 * SECOND_US))
    desk.hear_write(ME)
    desk.wait(SECOND_US + 150_000)
    assert desk.desk.next_wake() is None


def test_a_retry_of_a_write_that_is_here_goes_out_again_under_its_first_dot() -> None:
    desk = Desk()
    first = record(version("b1", write_id=put("w").write_id))
    desk.held[KEY] = encode(KEY, first)
    desk.put(name="w")
    [message] = desk.out.peers[2]
    assert isinstance(message, ReplicaWrite)
    assert [v.dot for v in decode(KEY, message.record).versions] == [dot("b1")]


# ---- refusals -----------------------------------------------------------------------------------


def test_operations_beyond_the_bound_are_refused_at_once_with_when_to_come_again() -> None:
    desk = Desk(operations_in_flight=16)
    for _ in range(16):
        desk.put()
    desk.put()
    failure = desk.failure()
    assert (failure.code, failure.outcome) == (ErrorCode.OVERLOADED, Outcome.NOT_APPLIED)
    assert failure.message == "16 operations are in progress at this node"
    assert failure.retry_after_ms > 0
    desk.get()
    assert (desk.failure().code, desk.failure().outcome) == (ErrorCode.OVERLOADED, Outcome.NONE)
    assert desk.desk.in_flight == 16


def test_an_operation_whose_deadline_has_passed_is_never_begun() -> None:
    desk = Desk()
    desk.put(deadline_us=NOW)
    assert (desk.failure().code, desk.failure().outcome) == (
        ErrorCode.UNAVAILABLE,
        Outcome.NOT_APPLIED,
    )
    desk.get(deadline_us=NOW)
    assert (desk.failure().code, desk.failure().outcome) == (ErrorCode.TIMEOUT, Outcome.NONE)
    assert desk.out.peers == {}


def test_a_node_whose_clock_is_off_coordinates_neither_reads_nor_writes() -> None:
    desk = Desk()
    desk.desk.clock_is_off = True
    desk.put()
    assert desk.failure().outcome is Outcome.NOT_APPLIED
    desk.get()
    assert desk.failure().code is ErrorCode.UNAVAILABLE


def test_a_write_stamped_too_far_ahead_is_refused_with_both_figures() -> None:
    desk = Desk()
    desk.put(ms=60_001)
    failure = desk.failure()
    assert (failure.code, failure.outcome) == (ErrorCode.UNAVAILABLE, Outcome.NOT_APPLIED)
    assert failure.message == "timestamp is 60,001 ms ahead; at most 60,000 are allowed"


def test_one_sibling_too_many_is_refused_with_what_to_do() -> None:
    desk = Desk()
    many = (version(f"b{n}", ms=9) for n in range(1, SIBLINGS_MAX + 1))
    desk.held[KEY] = encode(KEY, record(*many))
    desk.put()
    failure = desk.failure()
    assert (failure.code, failure.outcome) == (ErrorCode.INVALID_REQUEST, Outcome.NOT_APPLIED)
    assert failure.message.startswith("read the key and merge first: it would have 129 siblings")
    assert desk.desk.in_flight == 0


# ---- writes sent on -----------------------------------------------------------------------------


def sent_on(desk: Desk) -> tuple[NodeNumber, ClientPut]:
    [(owner, [message])] = desk.out.peers.items()
    assert isinstance(message, ClientPut)
    return owner, message


def test_a_write_of_a_key_that_others_own_is_sent_on_to_one_of_them() -> None:
    desk, key = elsewhere()
    desk.put(key=key)
    owner, message = sent_on(desk)
    assert desk.desk.owns(key, 3) is False
    assert owner != ME
    assert message == put(key=key, id=FIRST_ID + 1)
    desk.hear_forward(owner, PutResult(FIRST_ID + 1, b"sealed there", (owner,), 7))
    assert desk.result() == PutResult(8, b"sealed there", (owner,), 7)
    assert desk.desk.in_flight == 0


def test_the_failure_of_a_write_that_was_sent_on_comes_back_as_it_is() -> None:
    desk, key = elsewhere()
    desk.put(key=key)
    owner, _ = sent_on(desk)
    there = Failure(
        FIRST_ID + 1, ErrorCode.UNAVAILABLE, Outcome.NOT_APPLIED, "too few", 0, replies=()
    )
    desk.hear_forward(owner, there)
    assert desk.failure() == there._replace(id=8)


def test_a_write_is_never_sent_on_twice() -> None:
    desk, key = elsewhere()
    desk.put(key=key, origin=-3)
    [message] = desk.out.peers[3]
    assert isinstance(message, Failure)
    assert (message.id, message.outcome) == (8, Outcome.NOT_APPLIED)
    assert message.message == "no owner of the key can be reached"


def test_a_write_that_was_sent_here_is_answered_to_the_node_that_sent_it() -> None:
    desk = Desk()
    desk.put(w=1, origin=-3)
    desk.hear_write(ME)
    [message] = desk.out.peers[3]
    assert isinstance(message, PutResult)
    assert desk.out.clients == {}


def test_without_a_reachable_owner_a_write_is_not_applied() -> None:
    desk, key = elsewhere()
    desk.desk.reachable.clear()
    desk.put(key=key)
    assert (desk.failure().code, desk.failure().outcome) == (
        ErrorCode.UNAVAILABLE,
        Outcome.NOT_APPLIED,
    )


def test_a_write_that_was_sent_on_is_uncertain_when_the_link_breaks() -> None:
    desk, key = elsewhere()
    desk.put(key=key)
    owner, _ = sent_on(desk)
    desk.lose(ME if owner != ME else 2)
    assert desk.answers == []
    desk.lose(owner)
    failure = desk.failure()
    assert (failure.id, failure.outcome) == (8, Outcome.UNCERTAIN)
    assert failure.message.endswith("but the link to it is gone")


def test_a_write_that_was_sent_on_is_uncertain_at_its_deadline() -> None:
    desk, key = elsewhere()
    desk.put(key=key, deadline_us=at(500_000))
    desk.wait(400_000)
    assert desk.answers == []
    desk.wait(510_000)
    assert desk.failure().outcome is Outcome.UNCERTAIN
    assert desk.failure().message.endswith("but the deadline passed")


def test_a_full_node_sends_writes_on_but_takes_deletes() -> None:
    desk = Desk()
    desk.replica.refuses = Status.REFUSED_FULL
    desk.put()
    assert sent_on(desk)[0] in (2, 3)
    desk.put(is_delete=True)
    assert isinstance(desk.out.peers[2][0], ReplicaWrite)


def test_a_full_node_alone_says_that_it_is_full() -> None:
    desk = Desk(reachable=())
    desk.replica.refuses = Status.REFUSED_FULL
    desk.put()
    assert (desk.failure().code, desk.failure().outcome) == (
        ErrorCode.STORAGE_FULL,
        Outcome.NOT_APPLIED,
    )


def test_a_node_that_cannot_read_the_key_sends_the_write_on() -> None:
    desk = Desk()
    desk.unreadable.add(KEY)
    desk.put()
    assert sent_on(desk)[1].id == FIRST_ID + 1


def test_a_node_that_cannot_read_the_key_and_reaches_no_other_says_so() -> None:
    desk = Desk(reachable=())
    desk.held[KEY] = b"\x01garbage"
    desk.put(w=1)
    assert (desk.failure().code, desk.failure().outcome) == (
        ErrorCode.CORRUPT_DATA,
        Outcome.NOT_APPLIED,
    )


@pytest.mark.parametrize("kind", ["get", "put"])
def test_a_stray_answer_never_swallows_an_operation_of_another_kind(kind: str) -> None:
    desk = Desk()
    if kind == "get":
        desk.held.clear()
        desk.get()
        desk.hear_write(2)
    else:
        desk.put()
        desk.hear_read(2, None)
    desk.hear_forward(2, PutResult(FIRST_ID + 1, b"", (), 0))
    assert desk.answers == []
    assert desk.desk.in_flight == 1


def test_answers_to_an_operation_that_never_was_are_ignored() -> None:
    desk = Desk()
    desk.hear_write(2, op_id=9)
    desk.hear_read(2, None, op_id=9)
    desk.hear_forward(2, PutResult(9, b"", (), 0))
    assert desk.answers == []


# ---- reads --------------------------------------------------------------------------------------

STATE = record(version("b1"), votes=((2, "b1"),))


def test_a_read_asks_this_node_within_the_turn_and_the_next_owner_by_message() -> None:
    desk = Desk()
    desk.held[KEY] = encode(KEY, STATE)
    desk.get()
    [(node, [ask])] = desk.out.peers.items()
    assert node != ME
    assert ask == ReplicaRead(FIRST_ID + 1, KEY, at(DEADLINE_US), b"")
    desk.hear_read(node, STATE)
    value = desk.value()
    assert (value.id, value.value, value.timestamp) == (7, b"b1", stamp())
    assert (value.confidence, value.detail) == (Confidence.AGREED, None)
    assert open_context(CLUSTER_KEY, KEY, value.context) == context("b1")


def test_a_read_of_one_is_answered_within_the_turn() -> None:
    desk = Desk()
    desk.held[KEY] = encode(KEY, STATE)
    desk.get(r=1)
    assert desk.value().value == b"b1"
    assert desk.out.peers == {}
    assert desk.desk.in_flight == 0


def test_a_life_that_has_met_nobody_does_not_count_for_a_read_that_must_be_current() -> None:
    """Its store may have been wiped, or be an older one, and nobody could tell it so far."""
    everywhere = Keyspace(name="default", w=3)
    desk = Desk(reachable=())
    desk.held[KEY] = encode(KEY, STATE)
    desk.get(r=1, keyspace=everywhere)
    assert desk.failure().code is ErrorCode.UNAVAILABLE

    desk.desk.on_peer_up(2)
    desk.desk.on_peer_down(2)
    desk.get(r=1, keyspace=everywhere)
    assert desk.value().value == b"b1"


def test_a_life_that_has_met_nobody_answers_reads_that_are_promised_no_more() -> None:
    desk = Desk(reachable=())
    desk.held[KEY] = encode(KEY, STATE)
    desk.get(r=1)
    assert desk.value().value == b"b1"


def test_an_owner_that_is_the_only_one_counts_whether_it_has_met_anybody_or_not() -> None:
    alone = Keyspace(name="default", n=1, r=1, w=1)
    desk = Desk(reachable=())
    bits, owners = topology().partition_bits, topology().owner_numbers
    keys = (encode_key("default", b"%d" % count) for count in range(100))
    key = next(key for key in keys if owners[partition_of_key(key, bits)][0] == ME)
    desk.held = {key: encode(key, record(version("b1", key=key)))}
    desk.get(key=key, r=1, keyspace=alone)
    assert desk.value().value == b"b1"


def test_what_this_node_could_still_lose_is_shown_only_once_it_is_durable() -> None:
    desk = Desk()
    desk.begin().on_put(SESSION, put())
    desk.desk.on_get(SESSION, get(r=1))
    desk.end()
    assert desk.answers == []
    replies = [each for each in desk.out.held_peers[ME] if isinstance(each, ReplicaReadReply)]
    assert [reply.id for reply in replies] == [FIRST_ID + 2]


def test_absence_has_neither_value_nor_context() -> None:
    desk = Desk()
    desk.get(r=1)
    assert desk.value() == GetResult(7, None, b"", 0, Confidence.AGREED, None)


def test_a_deleted_key_is_absent_with_a_context_to_go_on_from() -> None:
    desk = Desk()
    desk.held[KEY] = encode(KEY, record(tombstone("b1")))
    desk.get(r=1)
    assert desk.value().value is None
    assert open_context(CLUSTER_KEY, KEY, desk.value().context) == context("b1")


def test_an_expired_value_is_absent_by_cluster_time() -> None:
    desk = Desk()
    desk.held[KEY] = encode(KEY, record(version("b1", expires_ms=WALL_MS + 5)))
    desk.get(r=1)
    assert desk.value().value == b"b1"
    desk.replica.clock.observe(stamp(5), WALL_MS)
    desk.get(r=1)
    assert desk.value().value is None


def test_siblings_come_with_their_story() -> None:
    desk = Desk()
    desk.held[KEY] = encode(KEY, record(version("b1", ms=1), version("c1", ms=2)))
    desk.get(r=1, keyspace=SIBLINGS)
    detail = desk.value().detail
    assert detail is not None
    assert [each.value for each in detail.siblings] == [b"b1", b"c1"]
    assert detail.replicas == ()


def test_a_read_that_asks_for_it_is_explained() -> None:
    desk = Desk()
    desk.get(r=1, explain=True)
    for node in list(desk.out.peers):
        desk.hear_read(node, None)
    detail = desk.value().detail
    assert detail is not None
    assert [each.node for each in detail.replicas] == OWNERS


def test_a_stale_owner_is_mended_before_the_answer() -> None:
    desk = Desk()
    desk.get()
    [node] = desk.out.peers
    desk.hear_read(node, STATE)
    [repair] = desk.sent(ME)
    assert isinstance(repair, ReplicaWrite)
    assert (repair.id, repair.kind) == (FIRST_ID + 1, WriteKind.REPAIR)
    assert decode(KEY, repair.record) == STATE
    assert desk.answers == []
    desk.hear_write(ME)
    assert desk.value().value == b"b1"


def test_a_repair_that_fails_is_told() -> None:
    desk = Desk()
    desk.get()
    [node] = desk.out.peers
    desk.hear_read(node, STATE)
    desk.hear_write(ME, Status.REFUSED_FULL)
    detail = desk.value().detail
    assert detail is not None
    assert detail.repair_failed


def test_a_read_that_waits_too_long_for_a_repair_is_woken() -> None:
    desk = Desk()
    desk.get()
    [node] = desk.out.peers
    desk.hear_read(node, STATE)
    desk.wait(60_000)
    assert desk.value().value == b"b1"


def test_a_read_fails_when_the_links_to_its_owners_break() -> None:
    desk = Desk()
    desk.get()
    desk.lose(2)
    desk.lose(3)
    assert desk.failure().code is ErrorCode.UNAVAILABLE
    assert desk.desk.in_flight == 0


def test_a_read_of_a_key_that_others_own_asks_r_of_them() -> None:
    desk, key = elsewhere()
    desk.get(key=key)
    assert len(desk.out.peers) == 2
    assert ME not in desk.out.peers


def test_a_read_whose_record_was_not_fetched_asks_this_node_by_message() -> None:
    desk = Desk()
    desk.held.clear()
    desk.get(r=1)
    assert desk.sent(ME) == [ReplicaRead(FIRST_ID + 1, KEY, at(DEADLINE_US), b"")]


def test_a_record_that_cannot_be_read_here_is_read_elsewhere() -> None:
    desk = Desk()
    desk.unreadable.add(KEY)
    desk.get()
    assert list(desk.out.peers) == [node for node in OWNERS if node != ME]


def test_every_read_is_answered_by_its_deadline() -> None:
    desk = Desk()
    desk.held.clear()
    desk.get()
    desk.wait(110_000)
    assert desk.answers == []
    desk.wait(DEADLINE_US + 5_000)
    assert desk.failure().code is ErrorCode.TIMEOUT
    assert desk.desk.in_flight == 0


def test_a_read_that_is_later_than_usual_asks_one_more_and_answers_without_the_slow_one() -> None:
    desk = Desk()
    [slow, other] = [node for node in OWNERS if node != ME]
    for number in range(1, 9):  # what is usual
        desk.get()
        desk.hear_read(slow, STATE, op_id=FIRST_ID + number)
        desk.hear_write(ME, op_id=FIRST_ID + number)
    desk.get()
    desk.wait(2_000)
    assert desk.out.peers == {}
    desk.wait(10_000)
    assert list(desk.out.peers) == [other]
    desk.hear_read(other, STATE, op_id=FIRST_ID + 9)
    desk.hear_write(ME, op_id=FIRST_ID + 9)
    assert desk.value().value == b"b1"


def test_slow_owners_cost_no_more_than_a_share_of_all_reads() -> None:
    desk, asked = Desk(), 0
    for number in range(1_000):
        start = 200_000 * number
        desk.get(at(start), deadline_us=at(start + 150_000))
        desk.wait(start + 120_000)  # nobody has answered: one more is asked, if that is paid for
        asked += len(desk.out.peers)
        desk.wait(start + 190_000)
    assert 45 <= asked <= 1_000 * desk.limits.hedge_share + 1
    assert desk.desk.hedges == asked
    assert desk.desk.in_flight == 0


# ---- ids ----------------------------------------------------------------------------------------


def test_ids_go_round_past_the_last_and_leave_out_that_of_repairs_nobody_waits_for() -> None:
    desk = Desk()
    desk.desk = Coordinator(
        desk.replica,
        StandIn(desk.replica, desk.hints),
        desk.limits,
        cluster_key=CLUSTER_KEY,
        first_id=OPERATION_ID_MAX - 1,
    )
    desk.held.clear()
    taken = []
    for _ in range(2):
        desk.get(r=1)
        [ask] = desk.sent(ME)
        assert isinstance(ask, ReplicaRead)
        taken.append(ask.id)
    assert taken == [OPERATION_ID_MAX, 1]
