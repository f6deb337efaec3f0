"""The simulated client: the real engine meets nodes that die, stall and are cut off."""

from __future__ import annotations

import pytest

from kvclient.session import Session
from kvnode.core.keys import encode_key
from tests.sim.checks import FAILED, NOT_APPLIED, OK, UNCERTAIN
from tests.sim.client import Client
from tests.sim.cluster import Cluster
from tests.sim.test_hints import cluster_of as sloppy_cluster_of

KEY = b"k"
NAME = encode_key("default", KEY)


def cluster_of(seed: int) -> Cluster:
    cluster = Cluster(seed)
    cluster.run(10_000)
    return cluster


def test_what_a_killed_node_owed_is_asked_elsewhere_at_once(seed: int) -> None:
    cluster = cluster_of(seed)
    a = cluster.owners(NAME)[0]
    client = Client(cluster, 0)
    for other in cluster.hosts:
        cluster.network.links[a, other].holds = lambda _: True
    write = client.put(KEY, b"v", at=a, wait=False)
    cluster.run(3_000)
    cluster.hosts[a].kill()
    cluster.run(3_000_000, until=lambda: write.outcome is not None)
    assert (write.outcome, write.attempts) == (OK, 2)
    assert Client(cluster, 1).get(KEY).value == b"v"


def test_a_node_that_says_nothing_is_given_up_and_its_late_answer_counts_for_nothing(
    seed: int,
) -> None:
    cluster = cluster_of(seed)
    a = cluster.owners(NAME)[0]
    client = Client(cluster, 0)
    cluster.hosts[a].pause()
    write = client.put(KEY, b"v", at=a)
    assert (write.outcome, write.attempts) == (OK, 2)
    assert write.ended_us is not None
    assert write.ended_us - write.began_us < 1_000_000
    cluster.run(10_000_000)
    cluster.hosts[a].resume()
    cluster.run(1_000_000)
    assert client.get(KEY, at=a).value == b"v"


def test_a_client_that_reaches_no_node_knows_that_nothing_was_applied(seed: int) -> None:
    cluster = cluster_of(seed)
    for host in cluster.hosts.values():
        host.kill()
    assert Client(cluster, 0).put(KEY, b"v").outcome == NOT_APPLIED


def test_what_is_stuck_in_a_cut_connection_is_uncertain_and_may_come_through_later(
    seed: int,
) -> None:
    cluster = cluster_of(seed)
    client = Client(cluster, 0)
    for node in cluster.hosts:
        client.cut(node)
    write = client.put(KEY, b"v", timeout_us=1_000_000)
    assert write.outcome == UNCERTAIN
    for node in cluster.hosts:
        client.mend(node)
    cluster.run(1_000_000)
    assert client.get(KEY).value in (b"v", None)


def test_an_operation_ends_by_its_deadline_though_every_node_stands_still(
    seed: int,
) -> None:
    cluster = cluster_of(seed)
    client = Client(cluster, 0)
    for host in cluster.hosts.values():
        host.pause()
    read = client.get(KEY, timeout_us=700_000)
    assert cluster.now_us - read.began_us <= 710_000


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_session_waits_for_no_half_that_only_another_session_of_its_client_has_seen(
    seed: int, *, is_shared: bool
) -> None:
    cluster = sloppy_cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    for other in cluster.hosts:
        if other not in (b, c):
            cluster.cut(other, b)
            cluster.cut(other, c)
    cluster.run(3_000_000)
    assert Client(cluster, 1).put(KEY, b"there", at=a).outcome == OK
    client, ada = Client(cluster, 0), Session()
    bob = ada if is_shared else Session()
    client.engine.session = ada
    write = client.put(KEY, b"here", at=b, wait=False)
    client.engine.session = bob
    read = client.get(KEY, at=a, wait=False)
    cluster.run(1_000_000, until=lambda: write.outcome is not None and read.outcome is not None)
    assert (write.outcome, read.outcome, read.value) == (OK, OK, b"there")
    client.engine.session = ada
    client.seen.clear()  # it is of all that use the client, and reads are held to it
    again = client.get(KEY, timeout_us=1_000_000)
    assert again.outcome == (FAILED if is_shared else OK)
