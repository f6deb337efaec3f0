"""Who is taken to be up in whole clusters, how soon, and what operations do meanwhile.

The numbers in comments are rows of the list of what goes wrong in stores of this kind.
"""

from __future__ import annotations

import random

import pytest

from kvnode.core.keys import encode_key
from kvnode.core.liveness import Standing
from kvnode.core.messages import NodeNumber
from kvnode.core.topology import Keyspace
from tests.sim.checks import OK
from tests.sim.client import Client
from tests.sim.cluster import Cluster
from tests.support.scale import scaled

MS = 1_000
S = 1_000_000
MINUTE_US = 60 * S
KEY = b"k"
NAME = encode_key("default", KEY)


def cluster_of(seed: int, *, sloppy: bool = True) -> Cluster:
    """Return five nodes that have been up and quiet for a while."""
    cluster = Cluster(seed, keyspace=Keyspace(name="default", sloppy=sloppy))
    cluster.run(5 * S)
    assert all(standing is Standing.UP for standing in standings(cluster).values())
    return cluster


def standings(cluster: Cluster) -> dict[tuple[NodeNumber, NodeNumber], Standing]:
    """Return what each living node thinks of each other."""
    return {
        (here, there): host.links.standing(there)
        for here, host in cluster.hosts.items()
        for there in cluster.hosts
        if here != there and host.links is not None
    }


def told(cluster: Cluster, here: NodeNumber, there: NodeNumber, since_us: int) -> list[str]:
    """Return the names of what a node was told of a peer."""
    return [
        type(change.event).__name__
        for at, who, change in cluster.changes
        if at >= since_us and who == here and change.event.node == there
    ]


def most_in_a_minute(cluster: Cluster, since_us: int) -> int:
    """Return the most changes of one node's mind about one peer within any minute."""
    most = 0
    for pair in standings(cluster):
        instants = [
            at
            for at, who, change in cluster.changes
            if at >= since_us and (who, change.event.node) == pair
        ]
        most = max(most, *(sum(at <= it < at + MINUTE_US for it in instants) for at in instants), 0)
    return most


def ask_until(cluster: Cluster, clients: list[Client], until_us: int) -> None:
    """Read and write, a few times a second."""
    number = 0
    while cluster.now_us < until_us:
        client, number = clients[number % len(clients)], number + 1
        client.put(b"%d" % (number % 7), b"v%d" % number)
        client.get(b"%d" % (number % 7))
        cluster.run(200 * MS)


def test_a_death_is_noticed_by_all_in_milliseconds(seed: int) -> None:
    cluster = cluster_of(seed)
    cluster.hosts[3].kill()
    cluster.run(5 * MS)
    assert all(
        (standing is Standing.DOWN) == (there == 3)
        for (_, there), standing in standings(cluster).items()
    )


def test_a_node_that_is_started_again_is_back_in_milliseconds(seed: int) -> None:
    cluster = cluster_of(seed)
    for _ in range(5):  # however often: each life is a new one
        cluster.hosts[3].kill()
        cluster.run(5 * MS)
        cluster.hosts[3].start()
        cluster.run(20 * MS)
        assert all(standing is Standing.UP for standing in standings(cluster).values())


@pytest.mark.parametrize("one_way", [False, True])
def test_a_node_that_is_cut_off_is_down_for_all_within_two_seconds(
    seed: int, one_way: bool
) -> None:
    cluster = cluster_of(seed)
    for other in (1, 2, 4, 5):
        cluster.cut(3, other, one_way=one_way)
    cluster.run(2 * S)
    assert all(
        (standing is Standing.DOWN) == (3 in pair) for pair, standing in standings(cluster).items()
    )


def test_after_healing_all_are_up_within_a_second(seed: int) -> None:
    cluster = cluster_of(seed)
    cluster.isolate(3)
    cluster.run(10 * S)
    cluster.heal()
    cluster.run(S)
    assert all(standing is Standing.UP for standing in standings(cluster).values())


def test_a_one_way_cut_under_load_changes_minds_once_and_fails_nothing(seed: int) -> None:
    # Row 20.
    cluster = cluster_of(seed)
    clients = [Client(cluster, number) for number in range(3)]
    cut_us = cluster.now_us
    cluster.cut(3, 1, one_way=True)
    ask_until(cluster, clients, cut_us + 2 * MINUTE_US)
    for here, there in ((1, 3), (3, 1)):
        changes = told(cluster, here, there, cut_us)
        assert [what for what in changes if what != "PeerSilent"] == ["PeerDown"]
    assert most_in_a_minute(cluster, cut_us) <= 2
    writes = [write for write in cluster.watch.writes if write.began_us >= cut_us]
    assert {write.outcome for write in writes} == {OK}


@pytest.mark.parametrize("drops", [0.05, 0.2])
def test_links_that_lose_messages_change_minds_at_most_three_times_a_minute(
    rng: random.Random, drops: float
) -> None:
    # Harsher than TCP, which would only delay them.
    for _ in range(scaled(1, soak=20)):
        cluster = cluster_of(rng.getrandbits(32))
        clients = [Client(cluster, number) for number in range(3)]
        for link in cluster.network.links.values():
            link.drops = drops
        begun = cluster.now_us
        ask_until(cluster, clients, begun + MINUTE_US)
        cluster.run(MINUTE_US)
        assert most_in_a_minute(cluster, begun) <= 3, cluster.seed


def test_what_a_silent_owner_owes_is_asked_of_others_after_failover_ms(seed: int) -> None:
    cluster = cluster_of(seed)
    a, b, _ = cluster.owners(NAME)
    reader = Client(cluster, 1)
    assert reader.put(KEY, b"v", at=a).outcome == OK
    cluster.run(S)
    cluster.isolate(b)
    begun = cluster.now_us
    for _ in range(20):
        assert reader.get(KEY, at=a).value == b"v"
        assert reader.put(KEY, b"v", at=a).outcome == OK
    assert cluster.now_us - begun <= 500 * MS


def test_with_the_same_seed_nodes_change_their_minds_alike(seed: int) -> None:
    def changes() -> list[tuple[int, NodeNumber, object]]:
        cluster = cluster_of(seed)
        for link in cluster.network.links.values():
            link.drops = 0.3
        cluster.run(20 * S)
        return list(cluster.changes)

    assert changes() == changes()
