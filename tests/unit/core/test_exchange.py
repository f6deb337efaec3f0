"""Exchanges between owners in memory: what differs is found and mended, and nothing else."""

from __future__ import annotations

import pytest

from kvnode.core.batch import WriteBatch
from kvnode.core.bounds import Limits
from kvnode.core.exchange import PAGE, Hashes, Tally, exchange, runs_of, shared
from kvnode.core.keys import Partition, StorageKey
from kvnode.core.messages import ReplicaWrite
from kvnode.core.topology import Keyspace
from kvnode.core.trees import LEAVES
from kvnode.core.versions import EMPTY, Record
from tests.support.sides import Side, Sides, keys_of, three_owners
from tests.unit.core.builders import context, dot, record, tombstone, version

P = Partition(0)
GRACE_S = 1.0
SWEEP_S = 10.0


def pair(limits: Limits | None = None) -> tuple[Sides, Side, Side]:
    sides = Sides(three_owners(nodes=2), limits)
    sides.link(1, 2)
    return sides, sides[1], sides[2]


def of(key: StorageKey, *names: str, **more: object) -> Record:
    seen = more.get("seen")
    assert seen is None or hasattr(seen, "vector")
    return record(*(version(name, key=key) for name in names), seen=seen)  # type: ignore[arg-type]


def fill(keys: list[StorageKey], *sides: Side) -> None:
    """Have sides hold the same version of each key, under dots of their own."""
    for at, key in enumerate(keys):
        for side in sides:
            side.hold(key, of(key, f"a{at + 1}"))


def assert_equal(*sides: Side) -> None:
    first, *others = sides
    for other in others:
        assert other.records.keys() == first.records.keys()
        assert all(other.state(key) == first.state(key) for key in first.records)
        for partition in map(Partition, range(2)):
            assert other.trees.root(partition, 1) == first.trees.root(partition, 1)
            assert other.floors.report(partition) == first.floors.report(partition)


def settle(sides: Sides, seconds: float = 3 * SWEEP_S) -> None:
    sides.run(seconds)
    for side in sides.sides.values():
        assert side.sweeps.runs.under_way == side.mender.under_way == side.answers.under_way == 0


# ---- what differs -------------------------------------------------------------------------------

K = keys_of(0, 1)[0]

DIFFERENCES: dict[str, tuple[Record, Record, Record]] = {
    "a newer value": (of(K, "a1"), of(K, "a2"), of(K, "a2")),
    "siblings": (
        of(K, "a1"),
        of(K, "b1"),
        record(version("a1", key=K), version("b1", key=K), seen=context("a1", "b1")),
    ),
    "only a tombstone": (
        of(K, "a1"),
        record(tombstone("a2", key=K), seen=context("a2")),
        record(tombstone("a2", key=K), seen=context("a2")),
    ),
    "only the context": (
        of(K, "b1", seen=context("b1")),
        of(K, "b1", seen=context("a3", "b1")),
        of(K, "b1", seen=context("a3", "b1")),
    ),
    "absent at one": (EMPTY, of(K, "a1"), of(K, "a1")),
    "superseded at one by its stamp": (
        record(version("a1", key=K), version("b1", key=K), seen=context("a1", "b1")),
        of(K, "b1", seen=context("a1", "b1")),
        of(K, "b1", seen=context("a1", "b1")),
    ),
}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("what", DIFFERENCES)
def test_whatever_differs_is_mended_from_either_side(what: str, swapped: bool) -> None:
    left, right, expected = DIFFERENCES[what]
    sides, one, two = pair()
    for side, state in zip((two, one) if swapped else (one, two), (left, right), strict=True):
        side.hold(K, state)
    settle(sides)
    assert one.state(K) == expected
    assert_equal(one, two)
    assert (one.sweeps.progress.differing, one.sweeps.progress.mended) == (1, 1)


@pytest.mark.parametrize("reaper", [1, 2])
def test_what_was_reaped_at_one_goes_at_the_other(reaper: int) -> None:
    """It has seen the dot and holds it no more: that is how it is known to be superseded."""
    sides, one, two = pair()
    for side in (one, two):
        side.hold(K, record(tombstone("a2", key=K), seen=context("a2")))
        side.floors.add(P, dot("a1"))
    sides[reaper].keep(K, EMPTY)
    settle(sides)
    assert one.records == two.records == {}
    assert_equal(one, two)


def test_a_version_that_one_never_saw_is_not_taken_for_reaped() -> None:
    sides, one, two = pair()
    one.hold(K, of(K, "a1"))
    one.floors.add(P, dot("b7"))
    two.floors.add(P, dot("b7"))
    settle(sides)
    assert two.state(K) == of(K, "a1")


def test_a_sibling_that_was_settled_away_at_one_goes_at_the_other() -> None:
    sides, one, two = pair()
    both = record(version("a1", key=K), version("b1", key=K), seen=context("a1", "b1"))
    one.hold(K, both)
    two.hold(K, both)
    two.keep(K, of(K, "b1", seen=context("a1", "b1")))
    settle(sides)
    assert one.state(K) == two.state(K) == of(K, "b1", seen=context("a1", "b1"))


def test_differences_in_many_keys_over_many_pages_are_all_mended() -> None:
    sides, one, two = pair(Limits(exchange_keys_per_s=100_000))
    keys = keys_of(0, 3 * PAGE)
    for at, key in enumerate(keys):
        if at % 3:
            one.hold(key, of(key, f"a{at + 1}"))
        if at % 2:
            two.hold(key, of(key, f"b{at + 1}"))
    settle(sides, 60)
    assert_equal(one, two)
    assert one.records.keys() == {key for at, key in enumerate(keys) if at % 3 or at % 2}


def test_after_one_exchange_nothing_differs_and_nothing_is_repaired_any_more() -> None:
    sides, one, two = pair()
    fill(keys_of(0, 20), one)
    settle(sides, SWEEP_S)
    writes, exchanges = one.writes + two.writes, one.sweeps.progress.exchanges
    settle(sides, 10 * SWEEP_S)
    assert (one.writes + two.writes, one.sweeps.progress.exchanges) == (writes, exchanges)


# ---- floors -------------------------------------------------------------------------------------


def test_a_gap_that_was_superseded_elsewhere_is_closed() -> None:
    sides, one, two = pair()
    one.hold(K, of(K, "a1"))
    one.hold(K, of(K, "a2"))
    two.hold(K, of(K, "a2"))
    assert two.floors.floor(P, 1) == 0
    settle(sides)
    assert two.floors.floor(P, 1) == 2
    assert_equal(one, two)
    assert one.sweeps.progress.exchanges == 0  # the records were equal: no tree was walked


def test_what_one_saw_after_the_exchange_began_is_not_taken_over() -> None:
    """Else a value that is under way could pass for superseded."""
    sides, one, two = pair()
    late = next(key for key in keys_of(0, 2) if key != K)
    one.hold(K, of(K, "a1"))

    def write(_source: int, _target: int, message: object) -> bool:
        if isinstance(message, ReplicaWrite) and not two.records:
            two.hold(late, of(late, "c1"))
        return False

    sides.lost = write
    sides.run(2 * GRACE_S + 2)
    assert one.sweeps.progress.line(2, P).completed == 1
    assert two.floors.floor(P, 3) == 1
    assert one.state(late) == EMPTY
    assert one.floors.floor(P, 3) == 0
    settle(sides)
    assert_equal(one, two)


# ---- writes under way ---------------------------------------------------------------------------


def test_a_write_that_is_under_way_is_left_alone() -> None:
    sides, one, two = pair()
    one.hold(K, of(K, "a1"))
    sides.run(2.5)  # the exchange has begun, and pauses
    assert one.sweeps.runs.under_way == 1
    two.hold(K, of(K, "a1"))
    settle(sides)
    assert one.writes == two.writes == 0
    assert one.sweeps.progress.mended == 0
    assert_equal(one, two)


def test_a_key_that_keeps_changing_is_left_alone_and_the_exchange_incomplete() -> None:
    sides, one, two = pair()
    one.floors.add(P, dot("z9"))
    one.hold(K, of(K, "a1"))
    counter = iter(range(2, 100_000))

    def write() -> None:
        name = f"a{next(counter)}"
        one.hold(K, of(K, name))

    sides.on_turn = write
    sides.run(SWEEP_S)
    assert one.writes == two.writes == 0
    line = one.sweeps.progress.line(2, P)
    assert (line.completed, line.broken_off) == (0, 1)
    assert not two.floors.has_seen(P, dot("z9"))
    sides.on_turn = lambda: None
    settle(sides)
    assert_equal(one, two)


def test_a_key_that_stands_still_later_is_mended_in_the_same_exchange() -> None:
    sides, one, two = pair()
    one.hold(K, of(K, "a1"))
    sides.run(2.5)
    one.hold(K, of(K, "a2"))  # between the first look and the second
    sides.run(SWEEP_S / 2)
    assert one.sweeps.progress.line(2, P).completed == 1
    assert_equal(one, two)


# ---- cost ---------------------------------------------------------------------------------------


def test_equal_partitions_cost_one_ask_and_no_walk() -> None:
    sides, one, two = pair()
    fill(keys_of(0, 50) + keys_of(1, 50), one, two)
    sides.run(5)
    assert sides.asked == {"AskRoots": 1, "TellRoots": 1}


def test_one_difference_among_thousands_costs_asks_by_the_depth() -> None:
    sides, one, two = pair()
    keys = keys_of(0, 4_000)
    fill(keys, one, two)
    two.hold(keys[1_234], of(keys[1_234], "b1"))
    sides.run(5)
    assert_equal(one, two)
    # Roots; groups, leaves; the keys, and once more; then the mending.
    assert sides.asked["AskHashes"] == 2
    assert sides.asked["AskKeys"] == 2
    assert sides.asked["ReplicaWrite"] == 1
    assert sides.asked["AskRoots"] == 1


def test_d_differences_cost_no_more_than_d_times_the_depth() -> None:
    sides, one, two = pair()
    keys = keys_of(0, 4_000)
    fill(keys, one, two)
    changed = keys[::400]
    for at, key in enumerate(changed):
        two.hold(key, of(key, f"b{at + 1}"))
    sides.run(40)
    assert_equal(one, two)
    assert sides.asked["AskHashes"] == 2
    assert sides.asked["AskKeys"] <= 2 * len(changed)


def test_differences_all_over_a_partition_wait_out_one_grace_together() -> None:
    sides, one, two = pair()
    keys = keys_of(0, 2_000)
    fill(keys, one, two)
    for at, key in enumerate(keys[::20]):
        two.hold(key, of(key, f"b{at + 1}"))
    sides.run(2 + GRACE_S + 1)  # the first sweep comes after two seconds
    assert one.sweeps.progress.mended == 100
    assert_equal(one, two)


def test_more_differences_than_share_a_pause_are_all_mended() -> None:
    sides, one, two = pair(Limits(exchange_keys_per_s=100_000))
    keys = keys_of(0, 3_000)
    fill(keys, one, two)
    for at, key in enumerate(keys[::2]):
        two.hold(key, of(key, f"b{at + 1}"))
    sides.run(2 + 4 * (GRACE_S + 1))
    assert one.sweeps.progress.mended == 1_500
    assert_equal(one, two)


def test_a_partition_that_one_side_lost_is_listed_in_pages_not_leaf_by_leaf() -> None:
    sides, one, two = pair()
    keys = keys_of(0, 3 * PAGE)
    fill(keys, one, two)
    one.lose(P)
    sides.run(60)
    assert_equal(one, two)
    assert sides.asked["AskKeys"] == 4


def test_runs_join_over_leaves_that_are_empty_on_both_sides() -> None:
    mine, other = [0] * LEAVES, [0] * LEAVES
    mine[3], mine[9], other[12], mine[20], other[20] = 1, 2, 3, 4, 4
    mine[30] = 5
    assert runs_of(mine, other) == [(3, 12), (30, 30)]


# ---- keyspaces with another n -------------------------------------------------------------------

MIXED = (Keyspace(name="default"), Keyspace(name="single", n=1, r=1, w=1))


def test_records_that_only_one_of_them_owns_are_neither_compared_nor_sent() -> None:
    topology = three_owners(*MIXED)
    sides = Sides(topology)
    first, second, third = topology.owner_numbers[P]
    lone = keys_of(0, 1, "single")[0]
    sides[first].hold(lone, record(version("a1", key=lone)))
    for a, b in ((1, 2), (1, 3), (2, 3)):
        sides.link(a, b)
    sides.run(30)
    assert sides[second].records == sides[third].records == {}
    assert all(side.sweeps.progress.exchanges == 0 for side in sides.sides.values())


def test_floors_are_taken_over_only_from_who_owns_all_that_they_speak_of_here() -> None:
    topology = three_owners(*MIXED)
    first, second, third = topology.owner_numbers[P]
    to_first, to_second = shared(topology, first, second, P), shared(topology, second, first, P)
    assert to_first is not None
    assert to_second is not None
    assert (to_first.least_n, to_first.may_take, to_first.may_give) == (2, False, True)
    assert (to_second.least_n, to_second.may_take, to_second.may_give) == (2, True, False)
    equals = shared(topology, second, third, P)
    assert equals is not None
    assert (equals.least_n, equals.may_take, equals.may_give) == (3, True, True)


def test_a_node_shares_nothing_with_itself_or_with_who_owns_nothing() -> None:
    topology = three_owners(nodes=4)
    row = topology.owner_numbers[P]
    other = next(n for n in range(1, 5) if n not in row)
    assert shared(topology, row[0], row[0], P) is None
    assert shared(topology, row[0], other, P) is None
    assert shared(topology, other, row[0], P) is None


# ---- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["TellRoots", "TellHashes", "TellKeys", "ReplicaWriteReply"])
def test_a_lost_answer_costs_time_and_nothing_else(kind: str) -> None:
    sides, one, two = pair()
    one.hold(K, of(K, "a1"))
    left = [1]

    def lost(source: int, target: int, message: object) -> bool:
        hit = type(message).__name__ == kind and source != target and left[0] > 0
        left[0] -= hit
        return hit

    sides.lost = lost
    settle(sides, 6 * SWEEP_S)
    assert left == [0]
    assert_equal(one, two)


def test_a_peer_that_is_lost_leaves_nothing_under_way_and_nothing_taken_over() -> None:
    sides, one, two = pair()
    one.hold(K, of(K, "a1"))
    two.floors.add(P, dot("z9"))
    sides.run(2.5)
    assert one.sweeps.runs.under_way == 1
    sides.part(1, 2)
    settle(sides, 30)
    assert not one.floors.has_seen(P, dot("z9"))
    assert two.records == {}


def test_a_damaged_record_leaves_the_exchange_incomplete_and_the_others_mended() -> None:
    sides, one, two = pair()
    bad, good = keys_of(0, 2)
    one.hold(good, of(good, "a3"))
    one.hold(bad, of(bad, "a1"))
    two.hold(bad, of(bad, "a2"))
    two.damaged.add(bad)
    settle(sides, SWEEP_S)
    assert two.state(good) == of(good, "a3")
    line = one.sweeps.progress.line(2, P)
    assert (line.completed, line.mended) == (0, 1)


def test_trees_that_are_not_known_are_not_compared() -> None:
    sides, one, two = pair()
    one.hold(K, of(K, "a1"))
    two.trees.doubt(P)
    settle(sides)
    assert two.records == {}
    assert one.sweeps.progress.line(2, P).refused > 0
    two.trees.know(P, {}, WriteBatch())
    settle(sides)
    assert_equal(one, two)


def test_what_became_equal_since_the_roots_were_compared_is_complete_at_once() -> None:
    side = Sides(three_owners(nodes=2))[1]
    fill(keys_of(0, 5), side)
    view = shared(side.topology, 1, 2, P)
    assert view is not None
    tally = Tally()
    talk = exchange(side.trees, view, tally, is_patient=True)
    assert next(talk) == Hashes(())
    with pytest.raises(StopIteration) as end:
        talk.send(tuple(side.trees.groups(P, view.least_n)))
    assert end.value.value is True
    assert (tally.differing, tally.mended) == (0, 0)
