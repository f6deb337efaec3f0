"""A node's turn: what it must see, what it writes in one batch, and what may leave at once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.conversations import AskRoots, PeerAsks, RootLine, TellRoots, Verdict
from kvnode.core.floors import Floors, Seen
from kvnode.core.handoff import HANDOFF_ID
from kvnode.core.hints import Hints
from kvnode.core.hlc import Timestamp
from kvnode.core.keys import StorageKey
from kvnode.core.messages import (
    ClientOps,
    ErrorCode,
    Event,
    Failure,
    GetResult,
    Instant,
    PeerClock,
    PeerDown,
    PeerReplies,
    PeerRequests,
    PeerUp,
    PutResult,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWriteReply,
    SessionId,
    Status,
    SyncedUpTo,
    TopologyChanged,
)
from kvnode.core.node import SERVED_US, Node, Turn
from kvnode.core.record import Encoded, encode
from kvnode.core.trees import fingerprint
from tests.unit.core.builders import (
    CLUSTER_KEY,
    KEY,
    NOW,
    SECOND_US,
    WALL_MS,
    at,
    dot,
    get,
    owned_by,
    put,
    record,
    replica_write,
    topology,
    version,
)

ME = 1
SESSION = SessionId(3)


class Life:
    """One life of node 1 with a store under it; `turn` fetches, applies and stores."""

    def __init__(self, members: int = 3, *, actor: int = 1) -> None:
        self.node = Node(
            number=ME,
            actor=actor,
            topology=topology(members),
            limits=Limits(),
            cluster_key=CLUSTER_KEY,
            floors=Floors(),
            hints=Hints(bytes_max=1 << 20),
        )
        self.store: dict[StorageKey, bytes] = {}
        self.unreadable: set[StorageKey] = set()

    def turn(self, *events: Event, now: Instant = NOW) -> Turn:
        keys = self.node.plan(events).records
        records = {key: self.store.get(key) for key in keys if key not in self.unreadable}
        turn = self.node.apply(
            events,
            records,
            hints={},
            unreadable=self.unreadable & set(keys),
            now=now,
            wall_ms=WALL_MS,
        )
        for family, key, value in turn.batch.changes:
            if family is Family.RECORDS and value is not None:
                self.store[StorageKey(key)] = value
        return turn


def ops(*, gets: Sequence[object] = (), puts: Sequence[object] = ()) -> ClientOps:
    return ClientOps(SESSION, gets, puts)  # type: ignore[arg-type]


def writes(*names: str, sender: int = 2) -> PeerRequests:
    return PeerRequests(sender, writes=[replica_write(record(version(n)), n) for n in names])


def refusal(turn: Turn) -> Failure:
    [answer] = turn.out.clients[SESSION]
    assert isinstance(answer, Failure)
    return answer


# ---- planning -----------------------------------------------------------------------------------


def test_a_turn_must_see_each_key_that_it_may_touch_once() -> None:
    others = [StorageKey(KEY + suffix) for suffix in (b"1", b"2", b"3", b"4")]
    events: list[Event] = [
        PeerRequests(
            2,
            writes=[replica_write(record(version("b1")), "b1")],
            reads=[ReplicaRead(1, others[0], at(1), b""), ReplicaRead(2, KEY, at(1), b"")],
            forwards=[put(key=others[1])],
        ),
        ops(gets=[get(key=others[2]), get()], puts=[put(key=others[3]), put()]),
        SyncedUpTo(1),
    ]
    assert Life().node.plan(events).records == [KEY, others[0], others[1], others[2], others[3]]


def test_what_clients_ask_of_keys_that_others_own_needs_no_record() -> None:
    life = Life(members=5)
    owned = owned_by(life.node.topology, ME, is_owner=True)
    foreign = owned_by(life.node.topology, ME, is_owner=False)
    event = ops(gets=[get(key=owned), get(key=foreign)], puts=[put(key=foreign)])
    assert life.node.plan([event]).records == [owned]


def test_replies_need_no_record() -> None:
    events: list[Event] = [PeerReplies(2), PeerUp(2), PeerDown(2), PeerClock(2, 1)]
    assert Life().node.plan(events).records == []


# ---- requests of peers --------------------------------------------------------------------------


def test_the_answer_to_a_write_waits_for_the_log() -> None:
    turn = Life().turn(writes("b1"))
    assert turn.out.held_peers == {2: [ReplicaWriteReply(3, Status.DONE, Encoded(b""))]}
    assert turn.out.peers == {}


def test_a_refusal_waits_for_nothing() -> None:
    late = PeerRequests(2, writes=[replica_write(record(version("b1")), "b1", deadline_us=at(-1))])
    turn = Life().turn(late)
    assert turn.out.peers == {2: [ReplicaWriteReply(3, Status.REFUSED_LATE, Encoded(b""))]}
    assert turn.out.held_peers == {}


def test_nobody_is_answered_about_a_repair_that_nobody_waits_for() -> None:
    life = Life()
    turn = life.turn(PeerRequests(ME, writes=[replica_write(record(version("b1")), id=0)]))
    assert (turn.out.peers, turn.out.held_peers) == ({}, {})
    assert life.store[KEY] == encode(KEY, record(version("b1")))


def test_a_read_of_what_a_crash_could_take_back_waits_for_the_log() -> None:
    life = Life()
    ask = PeerRequests(3, reads=[ReplicaRead(5, KEY, at(SECOND_US), b"")])
    dirty = life.turn(writes("b1"), ask)
    assert [reply.id for reply in dirty.out.held_peers[3]] == [5]
    clean = life.turn(SyncedUpTo(dirty.number), ask)
    assert clean.out.peers == {
        3: [ReplicaReadReply(5, Status.DONE, Encoded(life.store[KEY]), False)]
    }


def test_records_floors_and_conflicts_of_a_turn_are_one_batch() -> None:
    turn = Life().turn(writes("b1", "c1"))
    families = [family for family, _, _ in turn.batch.changes]
    assert families.count(Family.RECORDS) == 2
    assert families.count(Family.CONFLICTS) == 1
    assert families.count(Family.FLOORS) == 2


def test_an_unreadable_record_is_an_abstention_to_readers_and_writers() -> None:
    life = Life()
    life.unreadable.add(KEY)
    ask = PeerRequests(3, reads=[ReplicaRead(5, KEY, at(SECOND_US), b"")])
    turn = life.turn(writes("b1"), ask)
    assert [reply.status for box in turn.out.peers.values() for reply in box] == [  # type: ignore[union-attr]
        Status.ABSTAINED,
        Status.ABSTAINED,
    ]
    assert not turn.batch


# ---- replies ------------------------------------------------------------------------------------


def test_replies_of_peers_and_of_this_node_reach_the_operations_that_wait_for_them() -> None:
    life = Life()
    asked = life.turn(PeerUp(2), PeerUp(3), ops(puts=[put()], gets=[get()]))
    [write_id, read_id] = [message.id for message in asked.out.peers[2]]
    [mine, shown] = asked.out.held_peers[ME]
    assert isinstance(mine, ReplicaWriteReply)
    assert isinstance(shown, ReplicaReadReply)
    answered = life.turn(
        SyncedUpTo(asked.number),
        PeerReplies(ME, writes=[mine], reads=[shown]),
        PeerReplies(2, writes=[mine._replace(id=write_id)], reads=[shown._replace(id=read_id)]),
    )
    done, value = answered.out.clients[SESSION]
    assert isinstance(done, PutResult)
    assert isinstance(value, GetResult)
    assert (done.acked, value.value) == ((ME, 2), b"v")


def test_the_outcome_of_a_write_that_was_sent_on_reaches_its_client() -> None:
    life = Life(members=5)
    foreign = owned_by(life.node.topology, ME, is_owner=False)
    up = [PeerUp(node) for node in (2, 3, 4, 5)]
    [(owner, [sent])] = life.turn(*up, ops(puts=[put(key=foreign)])).out.peers.items()
    result = PutResult(sent.id, b"", (owner,), 0)
    turn = life.turn(PeerReplies(owner, forwards=[result]))
    assert turn.out.clients == {SESSION: [result._replace(id=8)]}


def test_a_write_that_was_sent_here_is_coordinated_for_its_sender() -> None:
    life = Life()
    turn = life.turn(PeerUp(2), PeerUp(3), PeerRequests(2, forwards=[put(w=3)]))
    assert set(turn.out.peers) == {2, 3}
    failed = life.turn(PeerDown(3))
    assert [type(message) for message in failed.out.peers[2]] == [Failure]


# ---- turns --------------------------------------------------------------------------------------


def test_turns_are_numbered_from_one() -> None:
    life = Life()
    assert [life.turn().number, life.turn().number] == [1, 2]


def test_a_turn_without_events_writes_and_sends_nothing() -> None:
    turn = Life().turn()
    assert not turn.batch
    assert (turn.out.peers, turn.out.clients, turn.out.held_peers) == ({}, {}, {})


def test_the_same_events_give_the_same_turn() -> None:
    events = (PeerUp(2), PeerUp(3), ops(puts=[put()], gets=[get()]), writes("b1"))
    one, other = Life().turn(*events), Life().turn(*events)
    assert one.out == other.out
    assert one.batch.changes == other.batch.changes


def test_within_one_frame_writes_come_before_reads() -> None:
    life = Life()
    turn = life.turn(PeerUp(2), PeerUp(3), ops(puts=[put()], gets=[get(r=1)]))
    own = [message for message in turn.out.held_peers[ME] if isinstance(message, ReplicaReadReply)]
    assert [reply.record for reply in own] == [life.store[KEY]]


def test_alarms_are_told_once() -> None:
    life = Life()
    life.store[KEY] = b"\x01#"
    life.turn(writes("b1"))
    assert life.node.take_alarms() == ["a record here is damaged: record of 2 bytes is cut short"]
    assert life.node.take_alarms() == []


def test_a_nodes_number_is_that_of_its_replica() -> None:
    assert Life().node.number == ME


# ---- clocks -------------------------------------------------------------------------------------


def is_refused(life: Life, *clocks: PeerClock) -> bool:
    turn = life.turn(PeerUp(2), PeerUp(3), *clocks, ops(puts=[put()]))
    if SESSION not in turn.out.clients:
        return False
    failure = refusal(turn)
    assert failure.code is ErrorCode.UNAVAILABLE
    assert "clock differs" in failure.message
    return True


@pytest.mark.parametrize(
    ("ahead_ms", "refused"),
    [
        ((0, 0), False),
        ((60_000, -60_000), False),
        ((60_001, 0), False),
        ((60_001, 60_001), True),
        ((-60_001, 60_001), True),
    ],
)
def test_a_node_whose_clock_differs_from_most_peers_coordinates_nothing(
    ahead_ms: tuple[int, int], refused: bool
) -> None:
    clocks = [PeerClock(node, ms) for node, ms in zip((2, 3), ahead_ms, strict=True)]
    assert is_refused(Life(), *clocks) is refused


def test_a_node_whose_clock_seems_wrong_tells_clients_no_time() -> None:
    life = Life()
    assert life.node.time_for_clients(WALL_MS) >> 16 >= WALL_MS
    life.turn(PeerUp(2), PeerUp(3), PeerClock(2, 99_000), PeerClock(3, 99_000))
    assert life.node.time_for_clients(WALL_MS) == 0


def test_what_a_wrong_clock_noted_before_is_not_told_to_clients() -> None:
    life = Life()
    life.node.clock.observe(Timestamp(WALL_MS + 300_000 << 16), WALL_MS + 300_000)
    assert life.node.time_for_clients(WALL_MS) >> 16 == WALL_MS + life.node.limits.max_skew_ms


def test_a_peer_that_is_gone_has_no_say_about_the_clock() -> None:
    life = Life()
    assert is_refused(life, PeerClock(2, 99_000), PeerClock(3, 99_000))
    assert is_refused(life, PeerClock(3, 0)) is False
    assert is_refused(life, PeerClock(3, 99_000))
    life.turn(PeerDown(2), PeerDown(3))
    assert is_refused(life) is False


# ---- topology -----------------------------------------------------------------------------------


def test_a_newer_topology_is_in_force_at_once() -> None:
    life, grown = Life(members=3), topology(5)
    life.turn(TopologyChanged(grown))
    assert life.node.topology is grown
    foreign = owned_by(grown, ME, is_owner=False)
    assert life.node.plan([ops(gets=[get(key=foreign)])]).records == []


def test_a_key_owned_only_since_this_turn_is_written_by_an_owner_that_has_its_record() -> None:
    large, small = topology(5), topology(3)
    life = Life(members=5)
    key = owned_by(large, ME, is_owner=False)
    turn = life.turn(PeerUp(2), PeerUp(3), TopologyChanged(small), ops(puts=[put(key=key)]))
    [[forwarded]] = turn.out.peers.values()
    assert forwarded._replace(id=8) == put(key=key)
    assert not turn.batch


def test_a_key_owned_only_since_this_turn_is_read_by_way_of_a_turn_that_fetches_it() -> None:
    life = Life(members=5)
    key = owned_by(topology(5), ME, is_owner=False)
    turn = life.turn(TopologyChanged(topology(3)), PeerUp(2), ops(gets=[get(key=key, r=1)]))
    assert [(to, type(ask)) for to, [ask] in turn.out.peers.items()] == [(ME, ReplicaRead)]


# ---- comparing ----------------------------------------------------------------------------------


def test_what_is_told_of_floors_and_trees_is_of_one_instant_in_the_turn() -> None:
    """Floors that spoke of a write which the root does not show would pass it for superseded."""
    life = Life()
    life.turn(PeerUp(2))
    partition = life.node.replica.trees.partition_of(KEY)
    nothing = RootLine(partition, 0, Floors().digest(partition), is_proven=True)
    ask = PeerAsks(2, [AskRoots(9, (nothing,))])
    turn = life.turn(writes("a1"), ask)
    (told,) = [m for m in turn.out.held_peers[2] if isinstance(m, TellRoots)]
    (answer,) = told.answers
    assert Seen.decode(answer.report).has_seen(dot("a1"))
    assert answer.verdict is Verdict.DIFFER


def test_what_is_asked_about_is_as_it_is_at_the_end_of_the_turn() -> None:
    life = Life()
    life.turn(PeerUp(2))
    life.node.upkeep.sweeps.kick(NOW)
    turn = life.turn(writes("a1"))
    partition = life.node.replica.trees.partition_of(KEY)
    (ask,) = [m for m in turn.out.held_peers[2] if isinstance(m, AskRoots)]
    (line,) = [line for line in ask.lines if line.partition == partition]
    assert line.digest == life.node.replica.floors.digest(partition)
    assert line.root == fingerprint(KEY, life.store[KEY])


# ---- serving ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        ops(gets=[get()]),
        ops(puts=[put()]),
        writes("b1"),
        PeerRequests(2, reads=[ReplicaRead(1, KEY, at(1), b"")]),
        PeerRequests(2, forwards=[put()]),
    ],
    ids=["get", "put", "write of another node's client", "its read", "a forwarded put"],
)
def test_for_a_second_after_a_client_asked_a_node_counts_as_serving(event: Event) -> None:
    life = Life(members=1)
    assert not life.node.is_serving(NOW)
    life.turn(event)
    assert life.node.is_serving(Instant(NOW + SERVED_US - 1))
    assert life.node.coordinator.in_flight > 0 or not life.node.is_serving(Instant(NOW + SERVED_US))


def test_what_nodes_do_by_themselves_is_no_serving() -> None:
    life = Life()
    handed = replica_write(record(version("b1")), "b1")._replace(id=HANDOFF_ID | 1)
    life.turn(PeerUp(2), PeerRequests(2, writes=[handed]), SyncedUpTo(1))
    assert not life.node.is_serving(NOW)
