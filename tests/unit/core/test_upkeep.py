"""The roof over the background work: what comes to whom, and what a quiet turn costs."""

from __future__ import annotations

from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.conversations import AskKeys, AskRoots, PeerAsks, TellKeys
from kvnode.core.floors import Floors
from kvnode.core.hlc import Clock
from kvnode.core.keys import Partition
from kvnode.core.messages import Instant, Outbox, Scan, Scanned
from kvnode.core.reaping import REAP_ID
from kvnode.core.record import encode
from kvnode.core.replica import Replica
from kvnode.core.upkeep import REGROW_ID, Upkeep
from tests.unit.core.builders import KEY, NOW, WALL_MS, at, record, tombstone, topology, version

TOPOLOGY = topology()
PEER = 2


def upkeep() -> Upkeep:
    replica = Replica(1, 9, TOPOLOGY, Clock(max_skew_ms=60_000), Floors())
    return Upkeep(replica, Limits(), lambda node: True)


def due(each: Upkeep, now: Instant = NOW) -> Outbox:
    out = Outbox()
    each._replica.begin({}, frozenset(), WALL_MS)
    each.on_time(now, WALL_MS, out, is_busy=False, is_clock_off=False)
    each._replica.end()
    return out


def scans_of(out: Outbox, kind: int) -> list[Scan]:
    return [scan for scan in out.scans if scan.id >> 60 == kind >> 60]


def test_a_node_without_peers_only_looks_for_conflicts_and_graves() -> None:
    each = upkeep()
    out = due(each)
    assert {scan.family for scan in out.scans} == {Family.GRAVES, Family.CONFLICTS}
    assert out.peers == out.held_peers == {}
    assert due(each).scans == []


def test_a_peer_that_comes_is_asked_after_a_while_and_one_that_goes_is_not() -> None:
    each = upkeep()
    each.on_up(PEER, NOW)
    assert due(each).held_peers == {}
    later = at(2_000_000)
    (message,) = due(each, later).held_peers[PEER]
    assert isinstance(message, AskRoots)
    each.on_down(PEER, later, Outbox())
    assert due(each, at(60_000_000)).held_peers == {}


def test_a_slice_comes_to_the_answer_that_asked_for_it() -> None:
    each = upkeep()
    partition = each.holdings.trees.partition_of(KEY)
    out = Outbox()
    each.on_asks(PEER, PeerAsks(PEER, [AskKeys(5, partition, b"", b"", 8)]).asks, WALL_MS, out)
    (scan,) = out.scans
    data = encode(KEY, record(version("a1")))
    out = Outbox()
    each.on_scanned(Scanned(scan.id, [(KEY, data)]), NOW, out)
    (told,) = out.peers[PEER]
    assert isinstance(told, TellKeys)
    assert told.keys == (KEY,)


def test_only_graves_that_are_due_are_fetched() -> None:
    each = upkeep()
    due(each)
    soon, late = bytes(8), (WALL_MS * 2).to_bytes(8, "little")
    assert each.wanted(Scanned(REAP_ID | 1, [(KEY, soon), (b"other", late)])) == [KEY]
    assert list(each.wanted(Scanned(REGROW_ID | 1, [(KEY, soon)]))) == []


def test_unknown_trees_are_rebuilt_one_by_one_and_graves_found_on_the_way() -> None:
    each = upkeep()
    trees, place = each.holdings.trees, each.holdings.trees.partition_of(KEY)
    other = Partition((place + 1) % TOPOLOGY.partitions)
    trees.doubt(place)
    trees.doubt(other)
    dead = encode(KEY, record(tombstone("a1")))
    put = []
    for number in range(2):
        (scan,) = scans_of(due(each, at(number * 10_000)), REGROW_ID)
        assert scans_of(due(each, at(number * 10_000 + 9_000)), REGROW_ID) == []  # awaited
        inside = scan.start <= KEY and (scan.end is None or scan.end > KEY)
        each._replica.begin({}, frozenset(), WALL_MS)
        each.on_scanned(Scanned(scan.id, [(KEY, dead)] if inside else []), NOW, Outbox())
        put += [family for family, _, _ in each._replica.end().changes]
    assert trees.unknown == ()
    assert trees.root(place, 1) != 0
    assert trees.root(other, 1) == 0
    assert Family.GRAVES in put


def test_a_range_that_cannot_be_read_is_tried_again_much_later() -> None:
    each = upkeep()
    place = each.holdings.trees.partition_of(KEY)
    each.holdings.trees.doubt(place)
    (scan,) = scans_of(due(each), REGROW_ID)
    each.on_scanned(Scanned(scan.id, None), NOW, Outbox())
    assert not each.holdings.trees.is_known(place)
    assert scans_of(due(each, at(30_000_000)), REGROW_ID) == []
    assert len(scans_of(due(each, at(60_000_000)), REGROW_ID)) == 1


def test_it_tells_how_this_node_stands() -> None:
    each = upkeep()
    place = each.holdings.trees.partition_of(KEY)
    each.holdings.trees.note(KEY, None, encode(KEY, record(version("a1"))))
    standing = each.standing()
    assert standing.unproven == standing.unknown == ()
    assert standing.under_way == 0
    assert standing.roots[2, place] == standing.roots[3, place] != 0
    each._replica.doubt([place])
    assert each.standing().unproven == (place,)
