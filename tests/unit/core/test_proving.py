"""Which partitions are proven: what ends a doubt, and what does not."""

from __future__ import annotations

import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.keys import Partition
from kvnode.core.proving import UNPROVEN, Proving
from kvnode.core.topology import Keyspace
from tests.support.sides import three_owners

P, Q = Partition(0), Partition(1)
ME, B, C = 1, 2, 3


def proving(*keyspaces: Keyspace, nodes: int = 3) -> Proving:
    return Proving(ME, three_owners(*keyspaces, nodes=nodes))


def in_doubt(*keyspaces: Keyspace, nodes: int = 3) -> Proving:
    found = proving(*keyspaces, nodes=nodes)
    found.doubt([P, Q])
    return found


def complete(
    each: Proving, peer: int, *, is_peer_proven: bool = True, partition: Partition = P
) -> bool:
    doubt = each.doubt_of(partition)
    return each.on_complete(partition, peer, doubt=doubt, is_peer_proven=is_peer_proven)


def saved(each: Proving) -> dict[bytes, bytes | None]:
    batch = WriteBatch()
    each.save(batch)
    assert all(family is Family.META for family, _, _ in batch.changes)
    return {key: value for _, key, value in batch.changes}


def test_nothing_is_in_doubt_at_first() -> None:
    each = proving()
    assert each.is_whole
    assert each.is_proven(P)
    assert saved(each) == {}


def test_with_three_owners_and_w_of_two_both_others_are_needed() -> None:
    each = in_doubt()
    assert not complete(each, B)
    assert not each.is_proven(P)
    assert complete(each, C)
    assert each.is_proven(P)
    assert not each.is_proven(Q)


def test_one_partition_after_the_other_is_proven() -> None:
    each = in_doubt()
    for partition in (P, Q):
        for peer in (B, C):
            complete(each, peer, partition=partition)
    assert each.is_whole


def test_with_w_of_three_one_proven_other_is_enough() -> None:
    assert complete(in_doubt(Keyspace(name="default", w=3)), B)


def test_an_unproven_other_alone_is_not_enough() -> None:
    each = in_doubt(Keyspace(name="default", w=3))
    assert not complete(each, B, is_peer_proven=False)


def test_all_others_are_enough_even_if_none_is_proven() -> None:
    """Else a cluster that lost power everywhere would never count again."""
    each = in_doubt()
    assert not complete(each, B, is_peer_proven=False)
    assert complete(each, C, is_peer_proven=False)


def test_every_keyspace_that_this_node_owns_must_be_satisfied() -> None:
    strict, lax = Keyspace(name="default", w=3), Keyspace(name="lax", w=1, r=3)
    each = in_doubt(strict, lax)
    assert not complete(each, B)
    assert complete(each, C)


def test_the_same_owner_twice_counts_once() -> None:
    each = in_doubt()
    assert not complete(each, B)
    assert not complete(each, B)


def test_an_exchange_from_before_the_doubt_proves_nothing() -> None:
    each = in_doubt()
    before = each.doubt_of(P)
    complete(each, B)
    each.doubt([P])
    assert not each.on_complete(P, B, doubt=before, is_peer_proven=True)
    assert not each.on_complete(P, C, doubt=before, is_peer_proven=True)
    assert each.waits_for(P) == tuple(n for n in each._topology.owner_numbers[P] if n != ME)


def test_a_new_doubt_forgets_whom_it_had_heard() -> None:
    each = in_doubt()
    complete(each, B)
    each.doubt([P])
    assert not complete(each, C)
    assert complete(each, B)


def test_a_lone_node_has_nobody_to_ask() -> None:
    assert in_doubt(Keyspace(name="default", n=1, r=1, w=1), nodes=1).is_whole


def test_it_says_whom_it_waits_for() -> None:
    each = in_doubt()
    complete(each, B)
    assert each.waits_for(P) == (C,)
    complete(each, C)
    assert each.waits_for(P) == ()


# ---- on disk ------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [[P], [Q], [P, Q]])
def test_a_doubt_outlives_the_process(partitions: list[Partition]) -> None:
    each = proving()
    each.doubt(partitions)
    again = proving()
    again.load(saved(each)[UNPROVEN])
    assert again.unproven == tuple(partitions)
    assert all(again.doubt_of(partition) for partition in partitions)


def test_what_an_exchange_had_ended_stays_ended() -> None:
    each = in_doubt()
    saved(each)
    for peer in (B, C):
        complete(each, peer)
    again = proving()
    again.load(saved(each)[UNPROVEN])
    assert again.unproven == (Q,)


def test_the_mark_goes_with_the_last_doubt_and_is_written_once() -> None:
    each = in_doubt()
    for partition in (P, Q):
        for peer in (B, C):
            complete(each, peer, partition=partition)
    assert saved(each) == {UNPROVEN: None}
    assert saved(each) == {}


def test_a_mark_without_bits_puts_everything_in_doubt() -> None:
    each = proving()
    each.load(b"")
    assert each.unproven == (P, Q)


def test_without_a_mark_nothing_is_in_doubt() -> None:
    each = proving()
    each.load(None)
    assert each.is_whole


# ---- other owners -------------------------------------------------------------------------------


def test_a_topology_without_an_owner_that_was_waited_for_is_enough() -> None:
    topology = three_owners(nodes=4)
    each = Proving(ME, topology)
    owned = each.owned()
    each.doubt(owned)
    for partition in owned:
        for peer in topology.owner_numbers[partition]:
            if peer not in (ME, 4):
                complete(each, peer, partition=partition)
    lacking = [p for p in owned if 4 in topology.owner_numbers[p]]
    assert each.unproven == tuple(lacking)


def test_a_partition_that_is_owned_no_more_is_in_doubt_no_more() -> None:
    topology = three_owners(nodes=3)
    each = Proving(ME, topology)
    each.doubt([P, Q])
    each.follow(topology.with_members(topology.members[1:]))
    assert each.is_whole
