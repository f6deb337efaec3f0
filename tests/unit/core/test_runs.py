"""Exchanges under way: few at a time, and none for ever."""

from __future__ import annotations

from kvnode.core.answering import Heard
from kvnode.core.bounds import Limits
from kvnode.core.conversations import AskHashes, AskKeys, TellHashes, TellKeys
from kvnode.core.exchange import shared
from kvnode.core.keys import Partition, StorageKey
from kvnode.core.messages import Instant, Outbox, PeerMessage, Scan
from kvnode.core.runs import RUN_ID, Begun, Runs
from kvnode.core.topology import Keyspace, Member, NodeId, Topology
from kvnode.core.trees import GROUP_LEAVES, Trees
from tests.support.sides import Side, Sides, three_owners


def many_partitions() -> Topology:
    return Topology.at_birth(
        cluster_id=b"c" * 16,
        name="many",
        partitions=32,
        members=[
            Member(id=NodeId(f"n{number}"), number=number, address=f"127.0.0.1:{7000 + number}")
            for number in (1, 2)
        ],
        keyspaces=[Keyspace(name="default")],
    )


class Ended:
    """Runs of node 1, and which ended."""

    def __init__(self) -> None:
        topology = many_partitions()
        side = self.side = Side(1, topology, Limits())
        holdings = side.holdings._replace(trees=Trees(5, {"default": 3}))
        self.complete: dict[Partition, bool] = {}
        self.scans: list[Scan] = []
        self.runs = Runs(holdings, side.mender, Limits(), self._on_end)
        for number in range(32):
            view = shared(topology, 1, 2, Partition(number))
            assert view is not None
            heard = Heard(b"", is_proven=True)
            self.runs.add(Begun(2, view, b"", 0, heard))

    def _on_end(
        self,
        begun: Begun,
        _tally: object,
        is_complete: bool,
        _now: Instant,
        _out: Outbox,
    ) -> None:
        self.complete[begun.view.partition] = is_complete

    def time(self, at: int, *, is_busy: bool = False) -> list[PeerMessage]:
        out = Outbox()
        self.runs.on_time(Instant(at), out, is_busy=is_busy)
        self.scans += out.scans
        return out.peers.get(2, [])


def test_eight_run_at_a_time_and_the_others_wait() -> None:
    ended = Ended()
    asks = ended.time(0)
    assert len(asks) == 8
    assert all(ask.id >> 60 == RUN_ID >> 60 for ask in asks)
    assert ended.runs.under_way == 32
    assert ended.time(1) == []


def test_while_clients_are_served_one_runs_at_a_time_and_rests_three_times_as_long() -> None:
    ended = Ended()
    (ask,) = ended.time(0, is_busy=True)
    assert ended.time(40_000, is_busy=True) == []
    ended.runs.on_tell(2, TellHashes(ask.id, False, ()), Instant(50_000), Outbox())
    assert len(ended.complete) == 1
    assert ended.time(50_000, is_busy=True) == []
    assert ended.runs.next_wake() == 200_000
    assert ended.time(199_999, is_busy=True) == []
    assert len(ended.time(200_000, is_busy=True)) == 1


def test_a_rest_lasts_no_longer_than_a_second_and_ends_when_clients_are_gone() -> None:
    ended = Ended()
    (ask,) = ended.time(0, is_busy=True)
    ended.runs.on_tell(2, TellHashes(ask.id, False, ()), Instant(4_000_000), Outbox())
    ended.time(4_000_000, is_busy=True)
    assert ended.runs.next_wake() == 5_000_000
    assert len(ended.time(4_000_001)) == 8


def test_what_is_never_answered_is_broken_off_and_makes_room() -> None:
    ended = Ended()
    ended.time(0)
    wake = ended.runs.next_wake()
    assert wake is not None
    assert len(ended.time(wake)) == 8
    assert len(ended.complete) == 8
    assert not any(ended.complete.values())


def test_a_lost_peer_ends_what_runs_and_what_waits() -> None:
    ended = Ended()
    ended.time(0)
    ended.runs.on_down(2)
    assert ended.runs.under_way == 0
    assert len(ended.complete) == 32  # told of each: progress has them all as under way
    assert not any(ended.complete.values())
    assert ended.runs.next_wake() is None


def test_stopping_some_partitions_leaves_the_others_alone() -> None:
    ended = Ended()
    ended.time(0)
    ended.runs.stop({Partition(0), Partition(31)})
    assert ended.complete == {0: False, 31: False}
    assert ended.runs.under_way == 30


def test_a_partition_is_known_to_be_under_way_from_the_queue_on() -> None:
    ended = Ended()
    assert ended.runs.is_under_way(2, Partition(31))
    assert not ended.runs.is_under_way(3, Partition(31))
    ended.time(0)
    assert ended.runs.is_under_way(2, Partition(0))


def test_hashes_of_another_number_than_was_asked_for_break_it_off() -> None:
    ended = Ended()
    ask = ended.time(0)[0]
    ended.runs.on_tell(2, TellHashes(ask.id, True, (1, 2, 3)), Instant(1), Outbox())
    assert ended.complete == {Partition(0): False}


def test_an_answer_is_taken_once_and_only_from_who_was_asked() -> None:
    sides = Sides(three_owners(nodes=2))
    answers: list[tuple[int, int, PeerMessage]] = []

    def twice(source: int, target: int, message: PeerMessage) -> bool:
        if type(message).__name__.startswith("Tell"):
            out = Outbox()
            sides[target].sweeps.on_tell(9, message, sides.now, out)  # type: ignore[arg-type]
            assert out.peers == out.held_peers == {}
            answers.append((source, target, message))
        return False

    sides.lost = twice
    sides.link(1, 2)
    sides.run(5)
    for source, target, message in answers:
        out = Outbox()
        sides[target].sweeps.on_tell(source, message, sides.now, out)  # type: ignore[arg-type]
        assert out.peers == out.held_peers == {}
    assert answers


# ---- pauses -------------------------------------------------------------------------------------

GRACE_US = 1_000 * Limits().exchange_grace_ms


def to_a_pause(ended: Ended, at: int) -> int:
    """Answer all that is asked, as a peer that has one key more in each partition, until every run
    that may run pauses; return how many do."""
    paused = 0
    asks = ended.time(at)
    while asks:
        out = Outbox()
        for ask in asks:
            if isinstance(ask, AskHashes):
                hashes = (1, *(0 for _ in range(31)))
                ended.runs.on_tell(2, TellHashes(ask.id, True, hashes), Instant(at), out)
            else:
                assert isinstance(ask, AskKeys)
                key = StorageKey(ask.start + b"k")
                tell = TellKeys(ask.id, True, (key,), (7,), is_last=True, covered=b"")
                ended.runs.on_tell(2, tell, Instant(at), out)
                paused += 1
        for scan in ended.scans + out.scans:
            ended.runs.on_scanned(scan.id, [], Instant(at), out)
        ended.scans.clear()
        asks = [*out.peers.get(2, []), *ended.time(at)]
    return paused


def test_those_that_pause_make_room_for_others() -> None:
    ended = Ended()
    assert to_a_pause(ended, 0) == 32
    assert ended.runs.next_wake() == GRACE_US
    assert ended.complete == {}


def test_after_their_pauses_eight_run_again_at_a_time() -> None:
    ended = Ended()
    to_a_pause(ended, 0)
    asks = ended.time(GRACE_US)
    assert len(asks) == 8
    assert all(isinstance(ask, AskKeys) for ask in asks)
    # The others are due, and do not keep the node awake: they go on when one of the eight is done.
    wake = ended.runs.next_wake()
    assert wake is not None
    assert wake > GRACE_US
    tell = TellKeys(asks[0].id, False, (), (), is_last=True, covered=b"")
    ended.runs.on_tell(2, tell, Instant(wake), Outbox())
    assert len(ended.complete) == 1
    assert len(ended.time(GRACE_US + 1)) == 1


# ---- what cannot go on --------------------------------------------------------------------------


def test_what_nobody_waits_for_is_ignored() -> None:
    ended = Ended()
    asks = ended.time(0)
    out = Outbox()
    ended.runs.on_tell(2, TellHashes(RUN_ID | 999, True, ()), Instant(1), out)
    ended.runs.on_tell(3, TellHashes(asks[0].id, True, (1, 2, 3)), Instant(1), out)
    ended.runs.on_scanned(RUN_ID | 999, [], Instant(1), out)
    ended.runs.on_scanned(asks[0].id, [], Instant(1), out)  # it waits for the peer, not for a scan
    assert (ended.complete, out.peers, out.scans) == ({}, {}, [])


def test_a_range_that_cannot_be_read_here_breaks_it_off() -> None:
    ended = Ended()
    ask = ended.time(0)[0]
    out = Outbox()
    ended.runs.on_tell(2, TellHashes(ask.id, True, (1, *(0 for _ in range(31)))), Instant(1), out)
    (leaves,) = out.peers[2]
    hashes = (1, *(0 for _ in range(GROUP_LEAVES - 1)))
    ended.runs.on_tell(2, TellHashes(leaves.id, True, hashes), Instant(2), out)
    (scan,) = out.scans
    ended.runs.on_scanned(scan.id, None, Instant(3), out)
    assert ended.complete == {Partition(0): False}


def test_what_waits_for_its_turn_wakes_at_once_while_there_is_room() -> None:
    ended = Ended()
    assert ended.runs.next_wake() == 0
    ended.time(0)
    wake = ended.runs.next_wake()
    assert wake is not None
    assert wake > 0


def test_what_came_into_doubt_while_it_waited_is_never_begun() -> None:
    ended = Ended()
    ended.side.proving.doubt([Partition(0)])
    asks = ended.time(0)
    assert len(asks) == 8
    assert ended.complete == {Partition(0): False}


def test_what_came_into_doubt_while_it_was_compared_is_broken_off_at_the_next_answer() -> None:
    ended = Ended()
    ask = ended.time(0)[0]
    ended.side.proving.doubt([Partition(0)])
    out = Outbox()
    ended.runs.on_tell(2, TellHashes(ask.id, True, tuple(range(32))), Instant(1), out)
    assert ended.complete == {Partition(0): False}
    assert out.peers == {}
