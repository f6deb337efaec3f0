"""Floors: they rise by what comes next, remember what came early, and survive a restart."""

from __future__ import annotations

import itertools

import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.bounds import SEEN_INTERVALS_MAX
from kvnode.core.floors import BadReport, Floors, Lack, Seen
from kvnode.core.keys import Partition
from kvnode.core.versions import Dot
from tests.unit.core.builders import context, dot, dots

P, OTHER = Partition(3), Partition(4)


def having_seen(*names: str) -> Floors:
    floors = Floors()
    for name in names:
        floors.add(P, dot(name))
        floors.check()
    return floors


def saved(floors: Floors) -> dict[bytes, bytes | None]:
    batch = WriteBatch()
    floors.save(batch)
    assert all(family is Family.FLOORS for family, _, _ in batch.changes)
    return {key: value for _, key, value in batch.changes}


def reloaded(floors: Floors) -> Floors:
    again = Floors()
    again.load((key, value) for key, value in saved(floors).items() if value is not None)
    again.check()
    return again


def test_nothing_was_seen_at_first() -> None:
    floors = Floors()
    assert (floors.floor(P, 1), floors.highest(P, 1)) == (0, 0)
    assert not floors.has_seen(P, dot("a1"))


def test_a_floor_rises_by_the_next_dot() -> None:
    assert having_seen("a1", "a2", "a3").floor(P, 1) == 3


def test_a_dot_that_came_early_is_seen_but_does_not_raise_the_floor() -> None:
    floors = having_seen("a1", "a4")
    assert (floors.floor(P, 1), floors.highest(P, 1)) == (1, 4)
    assert [floors.has_seen(P, each) for each in dots("a1", "a2", "a3", "a4", "a5")] == [
        True, False, False, True, False,
    ]  # fmt: skip


def test_a_floor_rises_over_a_run_once_the_gap_is_closed() -> None:
    floors = having_seen("a1", "a3", "a4", "a7", "a2")
    assert (floors.floor(P, 1), floors.highest(P, 1)) == (4, 7)


@pytest.mark.parametrize("order", list(itertools.permutations(("a1", "a2", "a4", "a5"))))
def test_the_order_of_arrival_makes_no_difference(order: tuple[str, ...]) -> None:
    floors = having_seen(*order)
    assert (floors.floor(P, 1), floors.highest(P, 1)) == (2, 5)
    assert saved(floors) == saved(having_seen("a1", "a2", "a4", "a5"))


def test_a_dot_that_comes_again_changes_nothing() -> None:
    floors = having_seen("a1", "a2", "a5", "a6", "a7")
    before = saved(floors)
    for name in ("a1", "a2", "a6"):
        floors.add(P, dot(name))
    floors.check()
    # What is below the floor is not even saved again; a run is, with the bytes that it had.
    assert saved(floors).items() <= before.items()
    assert (floors.floor(P, 1), floors.highest(P, 1)) == (2, 7)


def test_actors_and_partitions_have_floors_of_their_own() -> None:
    floors = having_seen("a1", "b1", "b2")
    floors.add(OTHER, dot("a1"))
    assert dict(floors) == {(P, 1): 1, (P, 2): 2, (OTHER, 1): 1}


def test_a_watermark_is_passed_once_every_floor_has_reached_it() -> None:
    floors = having_seen("a1", "a2", "b1", "b3")
    assert floors.has_passed(P, {})
    assert floors.has_passed(P, {1: 2, 2: 1})
    assert not floors.has_passed(P, {1: 3})
    assert not floors.has_passed(P, {2: 3})  # b2 is missing below
    assert not floors.has_passed(P, {9: 1})


def test_runs_are_bounded_and_the_lowest_are_kept() -> None:
    floors = Floors()
    for counter in range(3, 3 + 2 * SEEN_INTERVALS_MAX + 20, 2):
        floors.add(P, Dot(1, counter))
        floors.check()
    assert floors.has_seen(P, Dot(1, 3))
    assert floors.highest(P, 1) == 3 + 2 * (SEEN_INTERVALS_MAX - 1)


# ---- on disk ------------------------------------------------------------------------------------


def test_only_what_changed_is_saved_and_once() -> None:
    floors = having_seen("a1", "b1")
    assert len(saved(floors)) == 2
    assert saved(floors) == {}
    floors.add(P, dot("b2"))
    assert len(saved(floors)) == 1


def test_a_later_life_has_seen_what_was_saved() -> None:
    floors = reloaded(having_seen("a1", "a2", "a5", "a6", "a9", "b4", "c1"))
    assert (floors.floor(P, 1), floors.highest(P, 1)) == (2, 9)
    assert floors.has_seen(P, dot("a5"))
    assert not floors.has_seen(P, dot("a8"))
    assert (floors.floor(P, 2), floors.highest(P, 2)) == (0, 4)
    assert (floors.floor(P, 3), floors.highest(P, 3)) == (1, 1)


def test_entries_sort_by_partition() -> None:
    floors = Floors()
    for partition in (300, 2, 70_000):
        floors.add(Partition(partition), dot("a1"))
    assert [int.from_bytes(key[:4], "big") for key in sorted(saved(floors))] == [2, 300, 70_000]


def test_a_dropped_partition_is_forgotten_here_and_on_disk() -> None:
    floors = having_seen("a1", "b3")
    floors.add(OTHER, dot("a1"))
    written = set(saved(floors))
    floors.add(P, dot("a2"))
    floors.drop(P)
    batch = WriteBatch()
    floors.save(batch)
    dropped = {key for _, key, value in batch.changes if value is None}
    assert len(batch) == len(dropped) == 2
    assert dropped < written
    assert dict(floors) == {(OTHER, 1): 1}
    assert not floors.has_seen(P, dot("b3"))


def test_a_broken_invariant_is_noticed() -> None:
    floors = having_seen("a1")
    floors._above[(P, 1)] = [(2, 3)]
    with pytest.raises(AssertionError):
        floors.check()


# ---- between owners -----------------------------------------------------------------------------

NOBODY = Dot(99, 0)


def told(floors: Floors) -> Seen:
    return Seen.decode(floors.report(P))


def test_a_report_tells_what_has_been_seen() -> None:
    floors = having_seen("a1", "a2", "a5", "b3")
    for name in ("a1", "a2", "a3", "a5", "b1", "b3", "c1"):
        assert told(floors).has_seen(dot(name)) is floors.has_seen(P, dot(name))
        assert floors.seen(P).has_seen(dot(name)) is floors.has_seen(P, dot(name))


def test_a_report_is_of_one_partition() -> None:
    floors = having_seen("a1")
    floors.add(OTHER, dot("b1"))
    assert told(floors).floors == {1: 1}


def test_digests_are_equal_if_and_only_if_the_same_was_seen() -> None:
    digests = [
        having_seen(*names).digest(P)
        for names in (("a1", "b1"), ("b1", "a1"), ("a1", "b2"), ("a1", "a2", "b1"), ("a1",), ())
    ]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 5


def test_a_floor_rises_to_a_peers_over_gaps_of_its_own() -> None:
    floors = having_seen("a1", "a5", "b1")
    floors.raise_to(P, told(having_seen("a1", "a2", "a3", "a4", "c1")), own=NOBODY)
    floors.check()
    assert (floors.floor(P, 1), floors.floor(P, 2), floors.floor(P, 3)) == (5, 1, 1)


def test_runs_of_a_peer_fill_gaps_too() -> None:
    floors = having_seen("a1", "a4")
    floors.raise_to(P, told(having_seen("a3", "a7")), own=NOBODY)
    floors.check()
    assert floors.floor(P, 1) == 1
    assert [c for c in range(1, 9) if floors.has_seen(P, Dot(1, c))] == [1, 3, 4, 7]


def test_two_that_took_over_each_others_have_seen_the_same() -> None:
    left, right = having_seen("a1", "a4", "b2"), having_seen("a2", "b1", "c5")
    before = told(left)
    left.raise_to(P, told(right), own=NOBODY)
    right.raise_to(P, before, own=NOBODY)
    assert left.digest(P) == right.digest(P) != having_seen("a1", "a4", "b2").digest(P)


def test_nobody_has_seen_more_of_an_actor_than_itself() -> None:
    floors = having_seen("a1", "b1")
    floors.raise_to(P, told(having_seen("a1", "a2", "a5", "b1", "b2")), own=dot("a1"))
    assert (floors.floor(P, 1), floors.highest(P, 1), floors.floor(P, 2)) == (1, 1, 2)


def test_after_a_doubt_a_node_learns_from_others_what_it_has_issued_itself() -> None:
    floors = having_seen("a1", "a2")
    floors.drop(P)
    floors.add(P, dot("a3"))
    floors.raise_to(P, told(having_seen("a1", "a2")), own=dot("a3"))
    assert floors.floor(P, 1) == 3


def test_what_was_taken_over_is_saved_once_and_only_if_it_is_new() -> None:
    floors = having_seen("a1", "b1")
    saved(floors)
    floors.raise_to(P, told(having_seen("a1", "b1", "b2")), own=NOBODY)
    assert len(saved(floors)) == 1
    floors.raise_to(P, told(having_seen("a1", "b1", "b2")), own=NOBODY)
    assert saved(floors) == {}


def test_a_context_is_covered_by_floors_never_by_runs() -> None:
    seen = having_seen("a1", "a2", "a4").seen(P)
    assert seen.lacks(context("a2")) == []
    assert seen.lacks(context("a1", single=("a2",))) == []
    assert seen.lacks(context("a1", single=("a4",))) == [Lack(1, 4, 2)]
    assert seen.lacks(context("a4")) == [Lack(1, 4, 2)]
    assert seen.lacks(context("a2", "b1", single=("a3",))) == [Lack(2, 1, 0), Lack(1, 3, 2)]


def test_a_dropped_partition_reports_nothing() -> None:
    floors = having_seen("a1", "b3")
    floors.drop(P)
    assert floors.report(P) == b""
    assert floors.digest(P) == Floors().digest(P)


@pytest.mark.parametrize("cut", [1, 17, 19, 33])
def test_a_report_that_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(BadReport):
        Seen.decode(having_seen("a3", "b1").report(P)[:cut])


@pytest.mark.parametrize("runs", [[(2, 3)], [(5, 4)], [(5, 6), (7, 8)]])
def test_runs_that_cannot_be_are_refused(runs: list[tuple[int, int]]) -> None:
    floors = having_seen("a1")
    floors._above[(P, 1)] = runs
    with pytest.raises(BadReport):
        Seen.decode(floors.report(P))


def test_a_report_of_more_runs_than_are_kept_is_refused() -> None:
    floors = having_seen("a1")
    floors._above[(P, 1)] = [(each, each) for each in range(3, 6 + 2 * SEEN_INTERVALS_MAX, 2)]
    with pytest.raises(BadReport, match="a report of"):
        Seen.decode(floors.report(P))
