"""Hints and convergence as users of the clients see them, against fake nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import kvclient
from kvclient.bounds import Bounds
from kvproto import kv_pb2 as pb
from tests.unit.client.fakes import FakeCluster, FakeNode

QUICK = Bounds(converge_first_ms=1.0, converge_most_ms=4.0)


@pytest.fixture
def db(cluster: FakeCluster) -> Iterator[kvclient.Client]:
    for node in cluster.nodes:
        node.convergence = [said(node)]
    with kvclient.Client(cluster.seeds, bounds=QUICK) as client:
        yield client


def said(node: FakeNode, *, root: int = 7, hints: int = 0) -> pb.Convergence:
    """Return what a fake node says of its partitions, all of which it owns."""
    kept = [pb.HintLedger(owner="n2", pending=hints)] if hints else []
    every = range(node.cluster.partitions)
    return pb.Convergence(
        node=node.id,
        epoch=node.cluster.epoch,
        hints=kept,
        partition=every,
        n=[3 for _ in every],
        root=[root for _ in every],
    )


def test_hints_are_listed_for_each_node(db: kvclient.Client, cluster: FakeCluster) -> None:
    cluster.nodes[0].hints.ledgers.add(
        owner="n2", pending=3, bytes=300, oldest_ms=5, delivered=7, refused=1,
        dropped=[pb.HintsDropped(why="aged", count=2)],
    )  # fmt: skip
    cluster.nodes[2].kill()
    found = db.hints()
    assert found == {
        "n1": (kvclient.HintLedger("n2", 3, 300, 5, 7, {"aged": 2}, 1),),
        "n2": (),
        "n3": None,
    }


def test_a_cluster_at_rest_is_seen_at_once_and_told_to_hurry(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    db.wait_converged(10)
    assert [node.kicks for node in cluster.nodes] == [[True], [True], [True]]


def test_waiting_goes_on_until_hints_are_gone_and_roots_are_equal(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    one, two, _ = cluster.nodes
    one.convergence = [said(one, hints=2), said(one, hints=1), said(one)]
    two.convergence = [said(two, root=1), said(two, root=2), said(two, root=3), said(two)]
    seen: list[kvclient.Convergence] = []
    db.wait_converged(30, watch=seen.append)
    assert len(two.kicks) == 4
    assert [each.pending_hints for each in seen] == [2, 1, 0]


def test_waiting_ends_with_what_is_outstanding(db: kvclient.Client, cluster: FakeCluster) -> None:
    one, two, three = cluster.nodes
    one.convergence = [said(one, hints=200)]
    two.convergence = [said(two, root=1)]
    three.kill()
    with pytest.raises(kvclient.Timeout) as late:
        db.wait_converged(0.4)
    text = str(late.value)
    assert "not converged within 0.4 s" in text
    assert "no answer from n3" in text
    assert "n1 keeps hints: 200 for n2" in text
    assert "16 partitions differ: 0 (n1 | n2)" in text
    assert [reply.node for reply in late.value.replies] == ["n3"]


def test_nodes_are_told_to_hurry_now_and_then_only(cluster: FakeCluster) -> None:
    node, *others = cluster.nodes
    node.convergence = [said(node, hints=1)]
    for other in others:
        other.convergence = [said(other)]
    rarely = Bounds(converge_first_ms=1.0, converge_most_ms=60_000.0)
    with kvclient.Client(cluster.seeds, bounds=rarely) as db, pytest.raises(kvclient.Timeout):
        db.wait_converged(0.5)
    assert node.kicks[0] is True
    assert node.kicks.count(True) == 1 < len(node.kicks)


def test_a_newer_topology_is_followed_before_roots_are_judged(
    db: kvclient.Client, cluster: FakeCluster
) -> None:
    cluster.epoch = 2
    for node in cluster.nodes:
        node.convergence = [said(node)]
    db.wait_converged(10)
    assert db.topology.epoch == 2


def test_the_moment_can_be_looked_at(db: kvclient.Client, cluster: FakeCluster) -> None:
    one = cluster.nodes[0]
    one.convergence = [said(one, hints=5), said(one)]
    assert db.convergence().pending_hints == 5
    assert db.convergence().is_reached


def test_coroutines_do_the_same(cluster: FakeCluster) -> None:
    for node in cluster.nodes:
        node.convergence = [said(node, hints=1), said(node)]

    async def look() -> None:
        async with kvclient.AsyncClient(cluster.seeds, bounds=QUICK) as db:
            assert (await db.hints())["n1"] == ()
            assert (await db.convergence()).pending_hints == 3
            await db.wait_converged(10)

    asyncio.run(look())


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_time_out_that_is_none_is_refused(db: kvclient.Client, timeout: float) -> None:
    with pytest.raises(kvclient.InvalidRequest):
        db.wait_converged(timeout)
