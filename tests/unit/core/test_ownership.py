"""Ownership by example: births, racks, weights, and a newcomer beside `hash % n`."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from fractions import Fraction

import pytest

from kvnode.core.ownership import Owners, assign, shares
from kvproto.token import token


@dataclass(frozen=True)
class Node:
    number: int
    rack: str = ""
    weight: float = 1.0


def nodes(count: int, *, racks: int = 1) -> list[Node]:
    return [Node(number, f"r{number % racks}") for number in range(1, count + 1)]


def born(members: list[Node], *, partitions: int = 256, replicas: int = 3) -> Owners:
    return assign((), members, partitions=partitions, replicas=replicas)


def counts(owners: Owners) -> Counter[int]:
    return Counter(number for row in owners for number in row)


def moved(before: Owners, after: Owners) -> int:
    return sum(len(set(new) - set(old)) for old, new in zip(before, after, strict=True))


KEYS = [token("default", b"user:%d" % number) for number in range(10_000)]


def moved_share(before: int, after: int, *, replicas: int) -> float:
    """Return which part of the keys' copies moves between clusters of these sizes."""
    old = born(nodes(before), replicas=replicas)
    new = assign(old, nodes(after), partitions=256, replicas=replicas)
    hits = sum(len(set(new[key >> 56]) - set(old[key >> 56])) for key in KEYS)
    return hits / len(KEYS) / replicas


def moved_share_by_modulo(before: int, after: int, *, replicas: int) -> float:
    """Return the same for `hash % n`: the node at the remainder, and those after it."""
    hits = 0
    for key in KEYS:
        old, new = ({(key + place) % n for place in range(replicas)} for n in (before, after))
        hits += len(new - old)
    return hits / len(KEYS) / replicas


def test_five_nodes_share_256_partitions_evenly_at_every_place() -> None:
    owners = born(nodes(5))
    assert sorted(counts(owners).values()) == [153, 153, 154, 154, 154]
    for place in range(3):
        assert max(Counter(row[place] for row in owners).values()) <= 52  # 51.2 each


@pytest.mark.parametrize(
    ("before", "after", "replicas", "ours", "modulo"),
    [
        (4, 6, 1, 0.333, 0.667),
        (4, 6, 3, 0.333, 0.444),
        (20, 21, 1, 0.048, 0.952),
        (20, 21, 3, 0.048, 0.857),
    ],
)
def test_growing_moves_what_the_newcomers_hold_where_modulo_moves_most_keys(
    before: int, after: int, replicas: int, ours: float, modulo: float
) -> None:
    # The table in docs/decisions/0002-ownership.md.
    found = moved_share(before, after, replicas=replicas)
    assert found == pytest.approx(ours, abs=0.015)
    assert found == pytest.approx((after - before) / after, abs=0.015)  # no rule can move less
    by_modulo = moved_share_by_modulo(before, after, replicas=replicas)
    assert by_modulo == pytest.approx(modulo, abs=0.015)


def test_growing_from_4_to_6_moves_a_key_only_to_a_newcomer() -> None:
    before = born(nodes(4))
    after = assign(before, nodes(6), partitions=256, replicas=3)
    assert all(set(new) - set(old) <= {5, 6} for old, new in zip(before, after, strict=True))


def test_the_same_members_change_nothing_not_even_the_order() -> None:
    before = born(nodes(7, racks=3))
    assert assign(before, nodes(7, racks=3), partitions=256, replicas=3) == before


def test_places_that_racks_keep_uneven_are_not_stirred_by_a_second_look() -> None:
    # Two nodes of rack b stand beside four of rack a: the second place cannot be even. Who filled
    # it beyond its part was once chosen anew at every look.
    small = [Node(1, "a"), Node(2, "a"), Node(3, "a"), Node(4, "b"), Node(5, "a", weight=2.0)]
    grown = [*small, Node(6, "b")]
    before = born(small, partitions=32, replicas=4)
    after = assign(before, grown, partitions=32, replicas=4)
    assert assign(after, grown, partitions=32, replicas=4) == after


def test_the_order_in_which_members_are_given_does_not_matter() -> None:
    assert born(nodes(9, racks=4)) == born(nodes(9, racks=4)[::-1])


def test_three_racks_hold_one_copy_each() -> None:
    for row in born(nodes(9, racks=3)):
        assert len({number % 3 for number in row}) == 3


def test_two_racks_both_hold_a_copy_and_the_first_two_owners_differ() -> None:
    for row in born(nodes(10, racks=2)):
        assert row[0] % 2 != row[1] % 2


def test_a_lone_node_in_its_rack_holds_everything_when_racks_demand_it() -> None:
    members = [Node(1, "a"), *[Node(number, "b") for number in (2, 3, 4)]]
    owned = counts(born(members, replicas=2))
    assert owned[1] == 256
    assert sorted(owned[number] for number in (2, 3, 4)) == [85, 85, 86]


def test_racks_of_different_sizes_hold_at_most_one_copy_when_there_are_enough() -> None:
    members = [Node(n, "big") for n in range(1, 9)] + [Node(9, "x"), Node(10, "y"), Node(11, "z")]
    rack_of = {node.number: node.rack for node in members}
    assert all(len({rack_of[number] for number in row}) == 3 for row in born(members))


def test_a_weight_of_two_owns_twice_as_much() -> None:
    members = [Node(1, weight=2.0), *[Node(number) for number in range(2, 12)]]
    assert counts(born(members))[1] == 128
    assert {counts(born(members))[number] for number in range(2, 12)} == {64}


def test_a_weight_beyond_a_whole_copy_owns_every_partition_once() -> None:
    members = [Node(1, weight=100.0), *[Node(number) for number in range(2, 6)]]
    owned = counts(born(members))
    assert owned[1] == 256
    assert [owned[number] for number in range(2, 6)] == [128, 128, 128, 128]


def test_fewer_members_than_replicas_all_own_everything() -> None:
    assert all(sorted(row) == [1, 2] for row in born(nodes(2)))


def test_a_newcomer_due_everywhere_takes_the_leavers_place_first() -> None:
    # In rows that lost node 1 the newcomer has its place: the others give nothing up there.
    old = [Node(n, weight=weight) for n, weight in enumerate((0.3, 1, 3, 1, 5), start=1)]
    new = [*old[1:], Node(6, weight=5.0)]
    before = born(old, partitions=64, replicas=4)
    after = assign(before, new, partitions=64, replicas=4)
    assert counts(after)[6] == 64
    assert moved(before, after) == 64


def test_a_leavers_partitions_go_to_the_others_evenly() -> None:
    before = born(nodes(6))
    after = assign(before, nodes(5), partitions=256, replicas=3)
    assert sorted(counts(after).values()) == [153, 153, 154, 154, 154]
    assert moved(before, after) == counts(before)[6] == 128


def test_a_dead_nodes_partners_are_many() -> None:
    owners = born(nodes(20))
    partners = {number for row in owners if 1 in row for number in row} - {1}
    assert len(partners) >= 15


def test_newcomers_one_after_another_do_not_crowd_into_the_same_partitions() -> None:
    members = nodes(50)
    owners = born(members)
    for number in (51, 52, 53):
        members.append(Node(number, "r0"))
        owners = assign(owners, members, partitions=256, replicas=3)
    shared = [len({51, 52, 53} & set(row)) for row in owners]
    assert shared.count(2) + shared.count(3) <= 8  # of some 43 that hold one of them


def test_shares_are_in_proportion_when_nothing_binds() -> None:
    found = shares([Node(1, weight=1.5), *[Node(n) for n in range(2, 9)]], partitions=8, replicas=3)
    assert found[1] == Fraction(24) * Fraction(3, 2) / Fraction(17, 2)
    assert sum(found.values()) == 24


@pytest.mark.parametrize(
    ("count", "partitions", "racks", "most_s"),
    [(5, 256, 1, 0.1), (5, 256, 5, 0.1), (1000, 4096, 1, 1.0), (1000, 4096, 40, 1.0)],
)
def test_ownership_is_decided_quickly(
    count: int, partitions: int, racks: int, most_s: float
) -> None:
    began = time.thread_time()
    born(nodes(count, racks=racks), partitions=partitions)
    assert time.thread_time() - began < most_s
