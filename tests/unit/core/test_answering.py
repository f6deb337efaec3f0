"""What a node tells of its partitions, and what it refuses to."""

from __future__ import annotations

import pytest

from kvnode.core.answering import ANSWER_ID
from kvnode.core.batch import Family
from kvnode.core.conversations import (
    Ask,
    AskHashes,
    AskKeys,
    AskRoots,
    RootLine,
    TakeOver,
    Tell,
    TellHashes,
    TellKeys,
    TellRoots,
    Verdict,
)
from kvnode.core.keys import Partition
from kvnode.core.messages import Outbox, Scan
from kvnode.core.topology import Keyspace
from kvnode.core.trees import GROUP_LEAVES, GROUPS, LEAVES, fingerprint
from tests.support.sides import Side, Sides, keys_of, three_owners
from tests.unit.core.builders import dot, record, version

P = Partition(0)
ASKER = 2


def one() -> Side:
    return Sides(three_owners(nodes=2))[1]


def asked(side: Side, ask: Ask, asker: int = ASKER) -> tuple[list[Tell], Outbox]:
    out = Outbox()
    side.answers.on_ask(asker, ask, out)
    messages = [*out.peers.get(asker, ()), *out.held_peers.get(asker, ())]
    assert all(isinstance(each, TellRoots | TellHashes | TellKeys) for each in messages)
    return messages, out


def line(side: Side, **changes: object) -> RootLine:
    view = side.holdings.shared(ASKER, P)
    assert view is not None
    return side.holdings.line(view)._replace(**changes)  # type: ignore[arg-type]


def compared(side: Side, summary: RootLine) -> tuple[Verdict, bytes]:
    (told,), _ = asked(side, AskRoots(9, (summary,)))
    assert isinstance(told, TellRoots)
    assert told.id == 9
    assert told.answers[0].partition == summary.partition
    return told.answers[0].verdict, told.answers[0].report


def filled() -> Side:
    side = one()
    for at, key in enumerate(keys_of(0, 10)):
        side.hold(key, record(version(f"a{at + 1}", key=key)))
    return side


def test_equal_summaries_are_the_same_and_tell_the_asker_s_floors() -> None:
    side = filled()
    assert compared(side, line(side, is_proven=False)) == (Verdict.SAME, b"")
    assert side.heard[ASKER, P] == (side.floors.report(P), False)


def test_other_floors_are_told_with_the_report() -> None:
    side = filled()
    summary = line(side)
    side.floors.add(P, dot("b1"))
    assert compared(side, summary) == (Verdict.FLOORS, side.floors.report(P))
    assert side.heard == {}


def test_other_records_are_told_with_the_report() -> None:
    side = filled()
    assert compared(side, line(side, root=1)) == (Verdict.DIFFER, side.floors.report(P))


def test_it_says_whether_it_is_proven_itself() -> None:
    side = filled()
    for is_proven in (True, False):
        if not is_proven:
            side.proving.doubt([P])
        (told,), _ = asked(side, AskRoots(9, (line(side),)))
        assert isinstance(told, TellRoots)
        assert told.answers[0].is_proven is is_proven


def test_floors_are_told_only_once_they_are_durable() -> None:
    side = filled()
    _, out = asked(side, AskRoots(9, (line(side),)))
    assert out.peers == {}
    assert len(out.held_peers[ASKER]) == 1


@pytest.mark.parametrize("partition", [-1, 2, 1 << 40])
def test_a_partition_that_is_not_there_is_not_compared(partition: int) -> None:
    side = filled()
    summary = RootLine(Partition(partition), 0, 0, is_proven=True)
    assert compared(side, summary) == (Verdict.NOT_NOW, b"")


def test_an_asker_that_owns_nothing_is_told_nothing() -> None:
    side = filled()
    (told,), _ = asked(side, AskRoots(9, (line(side),)), asker=7)
    assert isinstance(told, TellRoots)
    assert told.answers[0].verdict is Verdict.NOT_NOW
    (hashes,), _ = asked(side, AskHashes(9, P, ()), asker=7)
    assert hashes == TellHashes(9, is_known=False, hashes=())


def test_unknown_trees_are_not_compared() -> None:
    side = filled()
    summary = line(side)
    side.trees.doubt(P)
    assert compared(side, summary) == (Verdict.NOT_NOW, b"")


def test_groups_and_leaves_are_told_in_order() -> None:
    side = filled()
    (told,), _ = asked(side, AskHashes(9, P, ()))
    assert told == TellHashes(9, is_known=True, hashes=tuple(side.trees.groups(P, 2)))
    (told,), _ = asked(side, AskHashes(9, P, (3, 1)))
    leaves = side.trees.leaves(P, 2, 0, LEAVES)
    expected = [
        *leaves[3 * GROUP_LEAVES : 4 * GROUP_LEAVES],
        *leaves[GROUP_LEAVES : 2 * GROUP_LEAVES],
    ]
    assert told == TellHashes(9, is_known=True, hashes=tuple(expected))


@pytest.mark.parametrize("groups", [(0,) * (GROUPS + 1), (GROUPS,)])
def test_groups_that_cannot_be_are_refused(groups: tuple[int, ...]) -> None:
    (told,), _ = asked(filled(), AskHashes(9, P, groups))
    assert told == TellHashes(9, is_known=False, hashes=())


def listed(side: Side, ask: AskKeys) -> tuple[Scan, TellKeys]:
    _, out = asked(side, ask)
    (scan,) = out.scans
    assert scan.id >> 60 == ANSWER_ID >> 60
    assert scan.family is Family.RECORDS
    out = Outbox()
    side.answers.on_scanned(scan.id, side.scan(scan), out)
    (told,) = out.peers[ASKER]
    assert isinstance(told, TellKeys)
    return scan, told


def test_a_listing_gives_keys_with_their_fingerprints_page_by_page() -> None:
    side = filled()
    keys = sorted(side.records)
    _, told = listed(side, AskKeys(9, P, b"", b"", 4))
    assert (told.keys, told.is_last, told.covered) == (tuple(keys[:4]), False, keys[3])
    assert told.hashes == tuple(fingerprint(key, side.records[key]) for key in keys[:4])
    _, told = listed(side, AskKeys(9, P, keys[3] + b"\x00", b"", 400))
    assert (told.keys, told.is_last) == (tuple(keys[4:]), True)
    assert side.answers.under_way == 0


def test_a_listing_never_leaves_the_partition() -> None:
    side = filled()
    first, end = side.trees.leaf_bounds(P, 0, LEAVES - 1)
    scan, _ = listed(side, AskKeys(9, P, b"", b"\xff" * 9, 4))
    assert (scan.start, scan.end) == (first, end)


@pytest.mark.parametrize("limit", [0, -5, 1 << 30])
def test_a_page_is_bounded_whatever_is_asked(limit: int) -> None:
    scan, _ = listed(filled(), AskKeys(9, P, b"", b"", limit))
    assert 1 <= scan.limit <= 512


def test_a_range_that_cannot_be_read_is_said_to_be_unknown() -> None:
    side = filled()
    _, out = asked(side, AskKeys(9, P, b"", b"", 4))
    later = Outbox()
    side.answers.on_scanned(out.scans[0].id, None, later)
    (told,) = later.peers[ASKER]
    assert isinstance(told, TellKeys)
    assert not told.is_known


def test_scans_for_others_are_bounded() -> None:
    side = filled()
    scans = 0
    for number in range(100):
        tells, out = asked(side, AskKeys(number, P, b"", b"", 4))
        scans += len(out.scans)
        assert len(tells) + len(out.scans) == 1
    assert scans == side.answers.under_way == 64


def test_what_a_complete_exchange_tells_is_taken_over() -> None:
    side, other = filled(), filled()
    other.floors.add(P, dot("b1"))
    compared(side, line(other))
    asked(side, TakeOver(9, P, other.floors.report(P), is_proven=True))
    assert side.floors.floor(P, 2) == 1
    assert side.heard[ASKER, P] == (other.floors.report(P), True)


def test_what_was_compared_in_an_earlier_life_is_not_taken_over() -> None:
    before, other, wiped = filled(), filled(), one()
    other.floors.add(P, dot("b1"))
    compared(before, line(other))
    over = TakeOver(9, P, other.floors.report(P), is_proven=True)
    asked(wiped, over)
    assert wiped.floors.report(P) == b""
    assert wiped.heard == {}
    (told,), _ = asked(wiped, AskRoots(10, (line(other),)))
    asked(wiped, over)  # another question has been answered since
    assert isinstance(told, TellRoots)
    assert wiped.floors.report(P) == b""


def test_what_was_compared_before_records_were_lost_is_not_taken_over() -> None:
    side, other = filled(), filled()
    other.floors.add(P, dot("b1"))
    compared(side, line(other))
    side.lose(P)
    asked(side, TakeOver(9, P, other.floors.report(P), is_proven=True))
    assert side.floors.report(P) == b""


def test_a_report_that_cannot_be_is_an_alarm_and_changes_nothing() -> None:
    side = filled()
    before = side.floors.report(P)
    compared(side, line(side, digest=1))
    asked(side, TakeOver(9, P, b"nonsense", is_proven=True))
    assert side.floors.report(P) == before
    assert len(side.answers.alarms) == 1
    assert side.heard == {}


def test_a_listing_leaves_out_what_the_asker_does_not_own() -> None:
    topology = three_owners(Keyspace(name="default"), Keyspace(name="two", n=2))
    sides = Sides(topology)
    first, _, third = topology.owner_numbers[P]
    side = sides[first]
    for key in (keys_of(0, 1)[0], keys_of(0, 1, "two")[0]):
        side.hold(key, record(version("a1", key=key)))
    _, out = asked(side, AskKeys(9, P, b"", b"", 10), asker=third)
    side.on_scanned(out.scans[0], sides.now, out)
    (told,) = out.peers[third]
    assert isinstance(told, TellKeys)
    assert told.keys == (keys_of(0, 1)[0],)


def test_a_slice_that_nobody_asked_for_is_ignored() -> None:
    side, out = filled(), Outbox()
    side.answers.on_scanned(ANSWER_ID | 99, [], out)
    assert out.peers == {}


def test_a_stranger_s_report_is_not_taken_over() -> None:
    side, other = filled(), filled()
    other.floors.add(P, dot("b1"))
    asked(side, TakeOver(9, P, other.floors.report(P), is_proven=True), asker=7)
    assert side.floors.floor(P, 2) == 0
    assert side.heard == {}
