"""Sloppy quorums in whole clusters: stand-ins take what absent owners miss, and hand it over.

The numbers in comments are rows of the list of what goes wrong in stores of this kind.
"""

from __future__ import annotations

from kvnode.core.batch import Family
from kvnode.core.hints import split_hint_key
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.messages import NodeNumber, ReplicaWriteReply
from kvnode.core.record import decode
from kvnode.core.topology import Keyspace
from kvnode.core.versions import EMPTY, Record
from tests.sim.checks import NOT_APPLIED, OK
from tests.sim.client import Client
from tests.sim.cluster import Cluster

KEY = b"k"
NAME = encode_key("default", KEY)
SLOPPY = Keyspace(name="default", sloppy=True)
A_WHILE_US = 30_000_000


def cluster_of(seed: int, *, keyspace: Keyspace = SLOPPY, nodes: int = 5) -> Cluster:
    """Return nodes that have heard of each other."""
    cluster = Cluster(seed, keyspace=keyspace, nodes=nodes)
    cluster.run(10_000)
    return cluster


def places(cluster: Cluster) -> tuple[list[NodeNumber], list[NodeNumber]]:
    """Return the key's owners, and its stand-ins."""
    owners = list(cluster.owners(NAME))
    return owners, [node for node in cluster.hosts if node not in owners]


def held(cluster: Cluster, node: NodeNumber) -> Record:
    """Return what an owner's store holds."""
    (data,) = cluster.hosts[node].engine.multi_get(Family.RECORDS, [NAME])
    assert data is None or isinstance(data, bytes)
    return decode(NAME, data) if data else EMPTY


def kept_for(cluster: Cluster, node: NodeNumber) -> list[tuple[NodeNumber, StorageKey]]:
    """Return the hints in a node's store."""
    pairs = cluster.hosts[node].engine.scan(Family.HINTS, b"", None, 100)
    return [split_hint_key(name) for name, _ in pairs]


def pending(cluster: Cluster) -> int:
    return sum(len(kept_for(cluster, node)) for node in cluster.hosts)


def settle(cluster: Cluster) -> None:
    cluster.heal()
    assert cluster.run(A_WHILE_US, until=lambda: pending(cluster) == 0)


def values(record: Record) -> list[bytes]:
    return sorted(version.value for version in record.versions)


def away(cluster: Cluster, *nodes: NodeNumber) -> None:
    """Cut nodes off, and wait until all know."""
    for node in nodes:
        cluster.isolate(node)
    cluster.run(3_000_000)


def test_a_write_goes_to_a_stand_in_for_each_absent_owner_and_comes_home(seed: int) -> None:
    cluster = cluster_of(seed)
    (a, b, c), stand_ins = places(cluster)
    away(cluster, c)
    assert Client(cluster, 1).put(KEY, b"v", at=a).outcome == OK
    cluster.run(1_000_000)
    assert [kept_for(cluster, node) for node in stand_ins].count([(c, NAME)]) == 1
    assert values(held(cluster, c)) == []
    settle(cluster)
    assert [values(held(cluster, node)) for node in (a, b, c)] == [[b"v"]] * 3


def test_what_stand_ins_alone_acknowledged_survives_their_death(seed: int) -> None:  # row 1
    cluster = cluster_of(seed)
    (a, b, c), stand_ins = places(cluster)
    away(cluster, b, c)
    assert Client(cluster, 1).put(KEY, b"v", at=a).outcome == OK
    for node in stand_ins:
        cluster.hosts[node].kill(keeps=False)
    cluster.heal()
    cluster.run(5_000_000)
    for node in stand_ins:
        cluster.hosts[node].start()
    settle(cluster)
    assert [values(held(cluster, node)) for node in (a, b, c)] == [[b"v"]] * 3


def test_with_every_owner_away_stand_ins_take_writes_and_answer_reads(seed: int) -> None:
    cluster = cluster_of(seed)
    owners, stand_ins = places(cluster)
    away(cluster, *owners)
    writer = Client(cluster, 1)
    assert writer.put(KEY, b"v1", at=stand_ins[0]).outcome == OK
    assert writer.put(KEY, b"v2", at=stand_ins[1]).outcome == OK
    read = Client(cluster, 2).get(KEY, at=stand_ins[0])
    assert (read.outcome, read.value) == (OK, b"v2")
    settle(cluster)
    assert Client(cluster, 3).get(KEY, r=3).value == b"v2"


def test_a_strict_keyspace_refuses_at_once_what_owners_alone_cannot_do(seed: int) -> None:
    cluster = cluster_of(seed, keyspace=Keyspace(name="default", sloppy=False))
    (a, b, c), stand_ins = places(cluster)
    away(cluster, b, c)
    writer = Client(cluster, 1)
    assert writer.put(KEY, b"v", at=a).outcome == NOT_APPLIED
    assert writer.put(KEY, b"v", at=stand_ins[0]).outcome == NOT_APPLIED
    assert pending(cluster) == 0


def test_a_stand_in_that_keeps_nothing_does_not_say_that_a_key_is_absent(seed: int) -> None:
    cluster = cluster_of(seed)
    (a, b, c), _ = places(cluster)
    assert Client(cluster, 1).put(KEY, b"v", at=a).outcome == OK
    away(cluster, b, c)
    assert Client(cluster, 2).get(KEY, at=a).outcome != OK


def test_a_lost_acknowledgement_of_a_hint_costs_a_second_delivery(seed: int) -> None:  # row 11
    cluster = cluster_of(seed)
    (a, _, c), stand_ins = places(cluster)
    away(cluster, c)
    assert Client(cluster, 1).put(KEY, b"v", at=a).outcome == OK
    cluster.run(1_000_000)
    for node in stand_ins:
        cluster.network.links[c, node].holds = lambda message: isinstance(
            message, ReplicaWriteReply
        )
    cluster.heal()
    assert cluster.run(A_WHILE_US, until=lambda: values(held(cluster, c)) == [b"v"])
    assert pending(cluster) == 1
    for node in stand_ins:
        cluster.network.forget(c, node)
    settle(cluster)
    assert values(held(cluster, c)) == [b"v"]


def test_a_newer_write_for_a_hint_under_delivery_is_delivered_too(seed: int) -> None:
    cluster = cluster_of(seed)
    (a, _, c), stand_ins = places(cluster)
    away(cluster, c)
    writer = Client(cluster, 1)
    assert writer.put(KEY, b"v1", at=a).outcome == OK
    cluster.run(1_000_000)
    for node in stand_ins:
        cluster.network.links[c, node].holds = lambda message: isinstance(
            message, ReplicaWriteReply
        )
    for node in stand_ins:
        cluster.mend(node, c)
    assert cluster.run(A_WHILE_US, until=lambda: values(held(cluster, c)) == [b"v1"])
    assert writer.put(KEY, b"v2", at=a).outcome == OK
    cluster.run(1_000_000)
    for node in stand_ins:
        cluster.network.release(c, node)
    settle(cluster)
    assert values(held(cluster, c)) == [b"v2"]


def test_a_session_finds_its_write_at_a_stand_in_after_the_partition(seed: int) -> None:
    cluster = cluster_of(seed)
    (a, b, c), stand_ins = places(cluster)
    assert Client(cluster, 1).put(KEY, b"old", at=a).outcome == OK
    away(cluster, a, b, c)
    session = Client(cluster, 2)
    assert session.put(KEY, b"new", at=stand_ins[0]).outcome == OK
    for node in stand_ins:
        for owner in (a, b, c):
            cluster.network.links[node, owner].holds = lambda message: True
    cluster.heal()
    cluster.run(20_000)
    for node in stand_ins:
        for owner in (a, b, c):
            cluster.network.release(node, owner)
    assert session.get(KEY, at=a).value == b"new"
