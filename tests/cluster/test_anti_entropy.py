"""Exchanges, proving and reaping on real nodes.

The numbers in comments are rows of the list of what goes wrong in stores of this kind; the same as
whole clusters in virtual time: tests/sim/test_anti_entropy.py.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import kvclient
from kvclient.testing import Cluster
from kvnode.core.batch import WriteBatch
from kvnode.runtime.proof import note_doubt
from kvnode.storage.engine import open_engine
from tests.support.journaled import journal_of, program
from tests.support.load import Writers
from tests.support.nodes import Nodes, until
from tests.support.powercut import cut_power

BRISK = "\n[limits]\nexchange_interval_ms = 500\nexchange_grace_ms = 300\n"
CONVERGE_S = 60.0
"""Row 30 allows twice that."""
EXCHANGES = 20
"""Begun because of writes under way."""


@pytest.fixture
def kit() -> Iterator[Cluster]:
    with Cluster(3, settings=BRISK) as cluster:
        yield cluster


def reads_at_each(cluster: Cluster, key: str) -> list[bytes | None]:
    """Return what a session that has seen nothing gets at each node."""
    found = []
    for name in cluster.ids:
        with kvclient.Client(cluster.node(name).address, session=False) as db:
            found.append(db.get(key, r=3))
    return found


def is_reaped(cluster: Cluster) -> bool:
    """Tell whether a marker was dropped, and none is left at the latest looks."""
    figures = [
        (cluster.metric(name, "reaped"), cluster.metric(name, "tombstones")) for name in cluster.ids
    ]
    return any(reaped for reaped, _ in figures) and not any(left for _, left in figures)


def total(cluster: Cluster, figure: str) -> float:
    return sum(cluster.metric(name, figure) for name in cluster.ids)


def test_a_value_deleted_while_an_owner_was_dead_never_comes_back_and_is_reaped(
    kit: Cluster,
) -> None:
    # Row 4.
    with kit.client() as db:
        db.put("k", b"v", w=3)
        kit.kill("n3")
        db.delete("k")
        kit.start("n3")
        kit.wait_linked()
        for _ in range(10):
            assert reads_at_each(kit, "k") == [None] * 3
        db.wait_converged(CONVERGE_S)
        # Who reaps first may tell the others in an exchange before they have done so themselves.
        until(lambda: is_reaped(kit), within_s=CONVERGE_S, what="reaping")
        assert reads_at_each(kit, "k") == [None] * 3
        assert db.get("k") is None  # also for the session that deleted it
        db.put("k", b"new")
        assert reads_at_each(kit, "k") == [b"new"] * 3


def test_under_load_exchanges_repair_nothing_and_delete_nothing(kit: Cluster) -> None:
    # Row 29: a comparison of everything twice a second, under more than 500 operations a second.
    expected: dict[str, bytes] = {}
    enough = threading.Event()

    def work(worker: int) -> dict[str, bytes]:
        last: dict[str, bytes] = {}
        with kit.client() as db:
            for count in itertools.count():
                key, value = f"{worker}-{count % 25}", b"%d" % count
                db.put(key, value)
                last[key] = value
                if enough.is_set():
                    return last
        raise AssertionError

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work, worker) for worker in range(4)]
        try:
            until(lambda: total(kit, "exchanges") >= EXCHANGES, what="meeting writes under way")
        finally:
            enough.set()
        for each in working:
            expected |= each.result()
    # All three nodes own all of it: what differs is only what is under way.
    assert total(kit, "exchange_keys_mended") == 0
    with kit.client() as db:
        assert db.get_many(expected) == list(expected.values())
        db.wait_converged(CONVERGE_S)
    assert total(kit, "exchange_keys_mended") == 0


def test_a_wiped_node_is_unproven_until_it_is_equal_again(kit: Cluster) -> None:
    # Row 30.
    items = {f"k{number}": b"v%d" % number for number in range(500)}
    with kit.client() as db:
        db.put_many(items)
        kit.wipe("n3")
        kit.kill("n2")
        kit.start("n3")
        # n2 may have had what n3 acknowledged: n3 alone with n1 is proven of nothing.
        with pytest.raises(kvclient.KVError):
            db.get("k0", timeout=1.0)
        assert kit.metric("n3", "partitions_unproven") > 0
        began = time.monotonic()
        kit.start("n2")
        kit.wait_linked()
        db.wait_converged(CONVERGE_S)
        assert time.monotonic() - began < 120
        assert kit.metric("n3", "partitions_unproven") == 0
        kit.kill("n1")
        assert db.get_many(items) == list(items.values())


def put_in_doubt(store: Path) -> None:
    """Say what a start after a power cut would say: the test cannot have the machine boot anew."""
    engine = open_engine(store)
    batch = WriteBatch()
    note_doubt(batch)
    engine.write(batch)
    engine.close()


def test_power_lost_everywhere_leaves_all_in_doubt_and_they_settle_it_themselves(
    cluster: Callable[..., Nodes],
) -> None:
    # Row 34, where a keyspace is synced only now and then: nobody can tell what the logs have lost.
    settings = '\n[keyspace.lazy]\ndurability = "periodic"\n' + BRISK + "periodic_sync_ms = 60000\n"
    nodes = cluster(program=program("faithful"), settings=settings)
    with nodes.client(timeout=2.0) as client, Writers(client) as writers:
        writers.wait_for(300)
        nodes.kill()
    for name in nodes.ids:
        cut_power(nodes.store(name), journal_of(nodes.node(name).folder))
        put_in_doubt(nodes.store(name))
    nodes.start()
    nodes.wait_linked()
    for name in nodes.ids:
        assert "partitions_in_doubt count=256" in nodes.log(name)
    with nodes.client() as client:
        client.wait_converged(CONVERGE_S)
        found = client.get_many(writers.acked)
    assert found == [write.value for write in writers.acked.values()]
