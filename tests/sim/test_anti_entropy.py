"""Exchanges, proving and reaping in whole clusters, told step by step.

The numbers in comments are rows of the list of what goes wrong in stores of this kind.
"""

from __future__ import annotations

import pytest

from kvnode.core.batch import Family
from kvnode.core.messages import NodeNumber, PeerMessage, ReplicaWrite, WriteKind
from kvnode.core.topology import Durability, Keyspace
from kvnode.core.versions import EMPTY
from tests.sim.checks import FAILED, OK
from tests.sim.client import Client
from tests.sim.cluster import Cluster
from tests.sim.test_cluster import KEY, NAME, cluster_of, held, values

STRICT = Keyspace(name="default", sloppy=False)
SLOPPY = Keyspace(name="default", sloppy=True)
SECOND_US = 1_000_000
CONVERGE_US = 120 * SECOND_US
"""What row 30 allows."""
REAP_US = 40 * SECOND_US


def converge(cluster: Cluster) -> None:
    """Have all owners become equal, and see that nothing is mended any more after that."""
    cluster.run(CONVERGE_US, until=cluster.are_owners_equal)
    assert cluster.are_owners_equal(), f"seed {cluster.seed}: owners stay different"
    for host in cluster.hosts.values():
        host.check_trees()


def mended(cluster: Cluster) -> int:
    """How many keys exchanges have mended so far."""
    lives = [host.life for host in cluster.hosts.values()]
    return sum(life.upkeep.sweeps.progress.mended for life in lives if life is not None)


def reaped_everywhere(cluster: Cluster) -> bool:
    return all(held(cluster, node) == EMPTY for node in cluster.owners(NAME))


def reader(cluster: Cluster, number: int) -> Client:
    """Return a session that has seen nothing."""
    return Client(cluster, 100 + number)


def assert_gone(cluster: Cluster) -> None:
    """Three reads, each at another owner."""
    for at, node in enumerate(cluster.owners(NAME)):
        read = reader(cluster, at).get(KEY, at=node)
        assert (read.outcome, read.value) == (OK, None), cluster.seed


def is_repair(message: PeerMessage) -> bool:
    return isinstance(message, ReplicaWrite) and message.kind is WriteKind.REPAIR


# ---- what differs becomes equal -----------------------------------------------------------------


@pytest.mark.parametrize("what", ["value", "tombstone", "absent"])
def test_replicas_that_differ_are_mended_and_then_repairs_fall_to_zero(
    seed: int, what: str
) -> None:
    # Row 28.
    cluster = cluster_of(seed, keyspace=STRICT)
    a, _, c = cluster.owners(NAME)
    client = Client(cluster, 0)
    if what != "absent":
        client.put(KEY, b"old", at=a)
        cluster.run(50_000)
    cluster.isolate(c)
    cluster.run(2 * SECOND_US)
    write = client.delete(KEY, at=a) if what == "tombstone" else client.put(KEY, b"new", at=a)
    assert write.outcome == OK
    before = held(cluster, c)
    cluster.run(10_000)
    assert held(cluster, c) == before != held(cluster, a)
    cluster.heal()
    converge(cluster)
    if what == "tombstone":
        assert_gone(cluster)
    else:
        assert values(held(cluster, c)) == [b"new"]
    cluster.run(REAP_US)
    converge(cluster)
    settled = mended(cluster)
    assert settled >= 1
    cluster.run(60 * SECOND_US)
    assert mended(cluster) == settled


def test_under_load_nothing_is_repaired_and_nothing_is_deleted(seed: int) -> None:
    # Row 29.
    cluster = cluster_of(seed)
    clients = [Client(cluster, number) for number in range(4)]
    written: dict[bytes, bytes] = {}
    chance = cluster.chance("load")
    for count in range(600):
        key = b"k%d" % chance.randrange(12)
        write = clients[count % 4].put(key, b"v%d" % count)
        assert write.outcome == OK
        written[key] = b"v%d" % count
        cluster.run(chance.randrange(60_000))
    assert cluster.now_us > 20 * SECOND_US
    assert mended(cluster) == 0
    for key, value in written.items():
        assert reader(cluster, 0).get(key).value == value
    cluster.run(30 * SECOND_US)
    converge(cluster)
    assert mended(cluster) == 0


def test_an_exchange_that_was_held_back_does_not_undo_what_came_later(seed: int) -> None:
    # Row 17: merge, never set.
    cluster = cluster_of(seed, keyspace=STRICT)
    a, _, c = cluster.owners(NAME)
    client = Client(cluster, 0)
    client.put(KEY, b"old", at=a)
    cluster.run(50_000)
    cluster.isolate(c)
    cluster.run(2 * SECOND_US)
    client.put(KEY, b"middle", at=a)
    for other in cluster.hosts:
        if other != c:
            cluster.network.links[other, c].holds = is_repair
    cluster.heal()
    cluster.run(20 * SECOND_US)
    assert values(held(cluster, c)) == [b"old"]
    client.put(KEY, b"new", at=a)
    cluster.run(50_000)
    for other in cluster.hosts:
        if other != c:
            cluster.network.release(other, c)
    cluster.run(50_000)
    assert values(held(cluster, c)) == [b"new"]
    converge(cluster)
    assert reader(cluster, 0).get(KEY, at=c).value == b"new"


# ---- deletes ------------------------------------------------------------------------------------


def test_a_value_deleted_while_an_owner_was_away_is_gone_there_too_and_reaped(seed: int) -> None:
    # Row 4.
    cluster = cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    client = Client(cluster, 0)
    client.put(KEY, b"v", at=a)
    cluster.run(50_000)
    cluster.hosts[c].kill()
    cluster.run(2 * SECOND_US)
    assert client.delete(KEY, at=a).outcome == OK
    cluster.run(600 * SECOND_US)
    assert held(cluster, a) != EMPTY  # not before the third owner knows
    cluster.hosts[c].start()
    converge(cluster)
    assert_gone(cluster)
    cluster.run(REAP_US)
    assert reaped_everywhere(cluster)
    assert_gone(cluster)
    for node in (a, b, c):
        assert cluster.hosts[node].engine.scan(Family.GRAVES, b"", None, 9) == []


def test_a_tombstone_that_a_fallback_brings_late_leaves_a_newer_value_alone(seed: int) -> None:
    # Row 5.
    cluster = cluster_of(seed, keyspace=SLOPPY)
    a, b, c = cluster.owners(NAME)
    client = Client(cluster, 0)
    client.put(KEY, b"v", at=a)
    cluster.run(50_000)
    cluster.isolate(c)
    cluster.run(2 * SECOND_US)
    assert client.delete(KEY, at=a).outcome == OK
    cluster.run(50_000)
    (fallback,) = [n for n, host in cluster.hosts.items() if host.life and host.life.hints.pending]
    cluster.heal()
    cluster.isolate(fallback)
    cluster.run(REAP_US + CONVERGE_US, until=lambda: reaped_everywhere(cluster))
    assert reaped_everywhere(cluster)
    assert Client(cluster, 1).put(KEY, b"new", at=b).outcome == OK
    cluster.heal()
    cluster.run(30 * SECOND_US)
    converge(cluster)
    assert values(held(cluster, c)) == [b"new"]
    assert reader(cluster, 0).get(KEY, at=c).value == b"new"


def cut_off_fallback(cluster: Cluster) -> NodeNumber:
    """Have a fallback keep the value of KEY for an owner, and cut it off with that."""
    a, _, c = cluster.owners(NAME)
    cluster.isolate(c)
    cluster.run(2 * SECOND_US)
    assert Client(cluster, 0).put(KEY, b"v", at=a).outcome == OK
    cluster.run(50_000)
    (fallback,) = [n for n, host in cluster.hosts.items() if host.life and host.life.hints.pending]
    cluster.heal()
    cluster.isolate(fallback)
    cluster.run(2 * SECOND_US)
    return fallback


def test_a_hint_that_outlived_the_reaped_tombstone_brings_nothing_back(seed: int) -> None:
    # Row 35: a cut-off fallback.
    cluster = cluster_of(seed, keyspace=SLOPPY)
    fallback = cut_off_fallback(cluster)
    a, _, _ = cluster.owners(NAME)
    deleter = Client(cluster, 1)
    assert deleter.get(KEY, at=a).value == b"v"
    assert deleter.delete(KEY, at=a).outcome == OK
    cluster.run(REAP_US + CONVERGE_US, until=lambda: reaped_everywhere(cluster))
    assert reaped_everywhere(cluster)  # all the same
    assert cluster.hosts[fallback].life is not None
    cluster.heal()
    for _ in range(30):
        cluster.run(SECOND_US)
        assert_gone(cluster)
    cluster.run(60 * SECOND_US)
    converge(cluster)
    assert reaped_everywhere(cluster)


def test_a_restored_backup_brings_nothing_back(seed: int) -> None:
    # Row 35, and row 7 with its exchange.
    cluster = cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    client = Client(cluster, 0)
    client.put(KEY, b"v", at=a)
    cluster.run(50_000)
    image = cluster.hosts[c].disk.image()
    assert client.delete(KEY, at=a).outcome == OK
    cluster.run(REAP_US + CONVERGE_US, until=lambda: reaped_everywhere(cluster))
    assert reaped_everywhere(cluster)
    cluster.hosts[c].kill()
    cluster.hosts[c].restore(image)
    cluster.hosts[c].start()
    assert_gone(cluster)
    converge(cluster)
    assert reaped_everywhere(cluster)
    assert Client(cluster, 3).put(KEY, b"new", at=c).outcome == OK
    cluster.hosts[b].kill()
    cluster.run(2 * SECOND_US)
    assert reader(cluster, 4).get(KEY, at=a).value == b"new"  # proven: it counts


def test_a_client_with_an_old_context_brings_back_nothing_that_it_had_read(seed: int) -> None:
    # Row 35: its own new value is all that there is afterwards.
    cluster = cluster_of(seed)
    a, b, _ = cluster.owners(NAME)
    client, old = Client(cluster, 0), Client(cluster, 1)
    client.put(KEY, b"v", at=a)
    read = old.get(KEY, at=b)
    assert client.delete(KEY, at=a).outcome == OK
    cluster.run(REAP_US + CONVERGE_US, until=lambda: reaped_everywhere(cluster))
    assert reaped_everywhere(cluster)
    assert old.put(KEY, b"new", context=read, at=b).outcome == OK
    converge(cluster)
    for node in cluster.owners(NAME):
        assert values(held(cluster, node)) == [b"new"]


# ---- lost disks ---------------------------------------------------------------------------------


def test_a_wiped_node_does_not_count_until_it_is_proven_and_is_equal_in_time(seed: int) -> None:
    # Row 30.
    cluster = cluster_of(seed)
    client = Client(cluster, 0)
    names = [b"k%d" % number for number in range(60)]
    for name in names:
        assert client.put(name, b"v " + name).outcome == OK
    cluster.run(50_000)
    a, b, c = cluster.owners(NAME)
    cluster.hosts[b].kill()
    cluster.hosts[c].kill()
    cluster.hosts[c].wipe()
    cluster.hosts[c].start()
    cluster.run(20 * SECOND_US)
    host = cluster.hosts[c].life
    assert host is not None
    partition = host.replica.trees.partition_of(NAME)
    assert not host.replica.proving.is_proven(partition)  # b may have had what it acknowledged
    assert reader(cluster, 0).get(KEY, at=a).outcome == FAILED
    cluster.hosts[b].start()
    began = cluster.now_us
    converge(cluster)
    assert cluster.now_us - began < 120 * SECOND_US
    assert host.replica.is_proven
    cluster.hosts[a].kill()
    cluster.run(2 * SECOND_US)
    for at, name in enumerate(names):
        assert reader(cluster, at).get(name, at=c).value == b"v " + name


def test_power_lost_everywhere_loses_nothing_and_the_cluster_serves_without_help(
    seed: int,
) -> None:
    # Row 34.
    keyspace = Keyspace(name="default", durability=Durability.FSYNC)
    cluster = cluster_of(seed, keyspace=keyspace)
    client = Client(cluster, 0)
    names = [b"k%d" % number for number in range(40)]
    for name in names:
        assert client.put(name, b"v " + name).outcome == OK
    for host in cluster.hosts.values():
        host.kill(keeps=False)
        host.doubt()  # as if nobody could tell what their logs had lost
    for host in cluster.hosts.values():
        host.start()
    converge(cluster)
    for at, name in enumerate(names):
        assert reader(cluster, at).get(name).value == b"v " + name
