"""The topology value: look-ups, preference lists, and the next epoch."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from kvnode.core.topology import PREFERENCE_MAX, Keyspace, Member, NodeId, Topology


def member(number: int, *, rack: str = "", weight: float = 1.0) -> Member:
    return Member(
        id=NodeId(f"n{number}"),
        number=number,
        address=f"127.0.0.1:{7000 + number}",
        rack=rack,
        weight=weight,
    )


def members(count: int) -> list[Member]:
    return [member(number) for number in range(1, count + 1)]


def topology(count: int = 5, *, partitions: int = 64) -> Topology:
    return Topology.at_birth(
        cluster_id=b"c" * 16,
        name="test",
        partitions=partitions,
        members=members(count),
        keyspaces=[Keyspace(name="default"), Keyspace(name="logs", n=2, r=1, w=1)],
    )


def test_a_new_cluster_begins_with_epoch_one_and_every_partition_owned() -> None:
    born = topology()
    assert born.epoch == 1
    assert all(len(born.owners(partition, 3)) == 3 for partition in range(64))


def test_a_smaller_keyspace_has_the_first_of_the_larger_ones_owners() -> None:
    born = topology()
    assert all(born.owners(p, 2) == born.owners(p, 3)[:2] for p in range(64))
    assert born.owners(0, 1) == born.owners(0, 3)[:1]


def test_owners_are_the_same_object_each_time() -> None:
    born = topology()
    assert born.owners(9, 3) is born.owners(9, 3)
    assert born.owners(9, 2) is born.owners(9, 2)
    assert born.preference(9) is born.preference(9)


def test_a_preference_list_names_every_member_once_and_the_owners_first() -> None:
    born = topology(7)
    for partition in range(64):
        listed = born.preference(partition)
        assert listed[:3] == born.owners(partition, 3)
        assert sorted(m.number for m in listed) == [1, 2, 3, 4, 5, 6, 7]


def test_stand_ins_come_in_the_order_of_the_rings_next_partitions() -> None:
    born = topology(4)
    first = born.preference(63)
    following = next(m for m in born.owners(0, 3) if m not in first[:3])
    assert first[3] == following


def test_a_member_that_owns_nothing_is_still_a_stand_in() -> None:
    light = [*members(4), member(5, weight=0.001)]
    born = Topology.at_birth(
        cluster_id=b"c" * 16, name="t", partitions=4, members=light, keyspaces=[Keyspace(name="d")]
    )
    assert born.partitions_of(5) == ()
    assert born.preference(0)[-1].number == 5


def test_a_preference_list_is_bounded_in_a_large_cluster() -> None:
    assert len(topology(100, partitions=256).preference(17)) == PREFERENCE_MAX


def test_stand_ins_for_one_node_are_many() -> None:
    born = topology(20, partitions=256)
    stand_ins = {born.preference(p)[3].number for p in born.partitions_of(1)}
    assert len(stand_ins) >= 10


def test_look_ups_find_members_and_keyspaces_or_none() -> None:
    born = topology()
    found = born.member("n3")
    assert found is not None
    assert found is born.by_number(3)
    assert born.member("n9") is None
    assert born.by_number(9) is None
    assert born.keyspace("logs") == Keyspace(name="logs", n=2, r=1, w=1)
    assert born.keyspace("nope") is None


def test_the_partitions_of_a_member_are_those_whose_owners_name_it() -> None:
    born = topology()
    mine = born.partitions_of(2)
    assert mine == tuple(p for p in range(64) if 2 in born.owner_numbers[p])
    assert len(mine) in (38, 39)


def test_partition_bits_are_the_logarithm_of_the_partitions() -> None:
    assert topology(partitions=64).partition_bits == 6
    assert topology(partitions=1).partition_bits == 0


def test_two_topologies_with_the_same_data_are_equal_whatever_was_looked_up() -> None:
    one, other = topology(), topology()
    one.preference(3)
    assert one == other


def test_a_topology_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        topology().epoch = 2  # type: ignore[misc]


def test_a_newcomer_raises_the_epoch_and_takes_its_share() -> None:
    born = topology(4)
    grown = born.with_members([*born.members, member(5)])
    assert grown.epoch == born.epoch + 1
    assert len(grown.partitions_of(5)) in (38, 39)
    assert grown.next_number == 6


def test_a_leavers_number_is_never_given_to_another() -> None:
    born = topology(5)
    shrunk = born.with_members(born.members[:4])
    assert shrunk.next_number == 6
    late = replace(member(5), id=NodeId("other"))
    with pytest.raises(AssertionError):
        shrunk.with_members([*shrunk.members, late])


def test_a_known_member_cannot_change_its_number() -> None:
    born = topology(4)
    with pytest.raises(AssertionError):
        born.with_members([*born.members[:3], replace(born.members[3], number=9)])


def test_a_new_address_moves_nothing() -> None:
    born = topology(5)
    moved = born.with_members([replace(born.members[0], address="10.0.0.1:1"), *born.members[1:]])
    assert moved.owner_numbers == born.owner_numbers
    assert moved.owners(0, 3) != born.owners(0, 3) or 1 not in born.owner_numbers[0]


def test_fewer_members_than_replicas_own_everything() -> None:
    shrunk = topology(4).with_members(members(2))
    assert all(sorted(row) == [1, 2] for row in shrunk.owner_numbers)
    assert len(shrunk.owners(0, 3)) == 2


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"cluster_id": b"short"}, id="a short cluster id"),
        pytest.param({"epoch": 0}, id="no epoch"),
        pytest.param({"partitions": 63}, id="partitions not a power of two"),
        pytest.param({"members": ()}, id="no members"),
        pytest.param({"keyspaces": ()}, id="no keyspaces"),
        pytest.param({"keyspaces": (Keyspace(name="a"),) * 2}, id="a keyspace twice"),
        pytest.param({"next_number": 5}, id="a number that is taken"),
        pytest.param({"members": tuple(reversed(members(5)))}, id="members out of order"),
        pytest.param(
            {"members": (*members(4), replace(member(5), address="127.0.0.1:7001"))},
            id="an address twice",
        ),
        pytest.param(
            {"members": (*members(4), replace(member(5), id=NodeId("n1")))}, id="an id twice"
        ),
        pytest.param({"owner_numbers": ((1, 2, 3),) * 63}, id="a partition without owners"),
        pytest.param({"owner_numbers": ((1, 2, 2),) * 64}, id="an owner twice"),
        pytest.param({"owner_numbers": ((1, 2, 9),) * 64}, id="an unknown owner"),
        pytest.param({"owner_numbers": ((1, 2),) * 64}, id="too few owners"),
    ],
)
def test_a_broken_invariant_is_noticed_when_the_value_is_made(broken: dict[str, object]) -> None:
    with pytest.raises((AssertionError, ValueError)):
        replace(topology(), **broken)  # type: ignore[arg-type]


@pytest.mark.parametrize("broken", [{"r": 4}, {"w": 0}, {"r": 0}, {"w": 4}, {"ttl_s": 0}])
def test_a_keyspace_whose_quorums_cannot_be_met_is_a_bug(broken: dict[str, int]) -> None:
    with pytest.raises(AssertionError):
        replace(Keyspace(name="x"), **broken)  # type: ignore[arg-type]
