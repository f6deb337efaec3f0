"""A node that returns after a while: what was kept for it arrives, and its owners agree again."""

from __future__ import annotations

import asyncio
import functools
import itertools
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

import kvclient
from kvclient.routing import Topology
from kvclient.testing import Cluster
from kvclient.testing.schedule import Fault
from kvclient.testing.workloads import KEYSPACES, Load
from kvproto import kv_pb2
from kvproto.token import partition_of, token
from tests.support.figures import tell
from tests.support.load import missing_on
from tests.support.nodes import until
from tests.support.pressure import Pressure, Tally
from tests.support.scale import is_soak, lasting, scaled
from tests.support.trials import suffer
from tests.support.wire import call

_TIMEOUT_S = 20.0
_BATCH = 500
_RATE = 100
"""Hints a second of a busy node, in the short form; an idle one delivers four times as many."""
_AHEAD = 4 * _RATE / 20 + 128
"""What a node may send at once, and what may be unanswered."""

Sample = tuple[float, float, float]
"""A figure, between which two instants it was read."""


# ---- 14: many hints ----------------------------------------------------------------------------


@pytest.mark.timeout(1_200)
def test_hints_all_arrive_under_a_load_and_no_faster_than_their_rate() -> None:
    settings = "" if is_soak() else f"\n[limits]\nhint_rate = {_RATE}\n"
    with Cluster(5, settings=settings, links=False) as cluster:
        before = asyncio.run(load_on(cluster, scaled(1, soak=30)))
        cluster.kill("n5")
        writes = fill(cluster, scaled(2_000, soak=50_000))
        # A third acknowledgement, which no put waited for, may still be on its way.
        pending = until(lambda: at_least(hints(cluster, "pending"), len(writes)), what="hints")
        # Asking nodes for their figures all the while is a load of its own, which a soak would see.
        others = [] if is_soak() else cluster.ids[:-1]
        with ThreadPoolExecutor(len(others) + 1) as pool:
            began = time.monotonic()
            sampled = [pool.submit(watch, cluster, name) for name in others]
            cluster.start("n5")
            during = asyncio.run(load_until_delivered(cluster))
            took_s = time.monotonic() - began
            samples = [future.result() for future in sampled]
        delivered, dropped = hints(cluster, "delivered"), hints(cluster, "dropped")
        cluster.kill("n5")
        missing = missing_on(cluster.node("n5").folder / "store", writes)
    p99 = [1_000 * tally.percentile("ok", 0.99) for tally in (before, during)]
    tell(
        "hints",
        pending=pending,
        delivered=delivered,
        took_s=round(took_s, 1),
        before_p99_ms=round(p99[0], 1),
        meanwhile_p99_ms=round(p99[1], 1),
    )
    assert missing == []
    assert delivered >= pending >= len(writes)
    assert dropped == 0
    assert set(before.outcomes) == set(during.outcomes) == {"ok"}, during.outcomes
    if is_soak():
        assert p99[1] <= 2 * p99[0]
    else:
        assert [excess(one) for one in samples if excess(one) > 0] == []


def fill(cluster: Cluster, count: int) -> dict[bytes, bytes]:
    """Put new keys until so many have an owner that is dead; return those."""
    keys = (b"h%d" % number for number in itertools.count())
    topology = asyncio.run(topology_of(cluster))
    found: dict[bytes, bytes] = {}
    with cluster.client(timeout=_TIMEOUT_S) as db:
        until(lambda: all_know_of_death(db), what="noticing the death")
        while len(found) < count:
            batch = {key: b"of " + key for key in itertools.islice(keys, _BATCH)}
            db.put_many(batch)
            found |= {key: value for key, value in batch.items() if is_owned(topology, key)}
    return found


async def topology_of(cluster: Cluster) -> Topology:
    """Return who owns what."""
    async with cluster.async_client() as client:
        await client.status()
        return client.topology


def is_owned(topology: Topology, key: bytes) -> bool:
    """Tell whether n5 is an owner of a key."""
    partition = partition_of(token("default", key), topology.partition_bits)
    owners = topology.walks[partition][: topology.keyspaces["default"].n]
    return "n5" in {member.id for member in topology.members if member.number in owners}


def all_know_of_death(db: kvclient.Client) -> bool:
    """Tell whether every living node knows that n5 is down."""
    told = db.status(timeout=2.0)
    return all(one is None or one.peers.get("n5") == "down" for one in told.values())


async def load_on(cluster: Cluster, seconds: float) -> Tally:
    """Put a light load on a cluster."""
    async with cluster.async_client(timeout=_TIMEOUT_S) as client:
        pressure = Pressure(client)
        await pressure.prepare()
        return await pressure.open(scaled(100, soak=500), seconds)


async def load_until_delivered(cluster: Cluster) -> Tally:
    """Put a light load on a cluster until no hint is left."""
    tally = Tally()
    async with cluster.async_client(timeout=_TIMEOUT_S) as client:
        pressure = Pressure(client)
        while await asyncio.to_thread(hints, cluster, "pending"):
            more = await pressure.open(scaled(100, soak=500), 0.5)
            tally.outcomes.update(more.outcomes)
            tally.took_s.setdefault("ok", []).extend(more.took_s.get("ok", []))
    return tally


def hints(cluster: Cluster, figure: str) -> int:
    """Return a figure of the hints for n5, of all nodes that run together."""
    names = [name for name in cluster.running if name != "n5"]
    return sum(int(cluster.metric(name, f"hints_{figure}")) for name in names)


def at_least(figure: int, least: int) -> int:
    """Return a figure, or 0 while it is too small."""
    return figure if figure >= least else 0


def watch(cluster: Cluster, name: str) -> list[Sample]:
    """Read how many hints a node has delivered, over and over, until none is left."""
    found: list[Sample] = []
    while cluster.metric(name, "hints_pending"):
        asked = time.monotonic()
        found.append((cluster.metric(name, "hints_delivered"), asked, time.monotonic()))
    return found


def excess(samples: Sequence[Sample]) -> float:
    """Return how many more were delivered between any two samples than the rate allows."""
    return max(
        (
            (later - earlier) - 4 * _RATE * (ended - began) - _AHEAD
            for (earlier, began, _), (later, _, ended) in itertools.combinations(samples, 2)
        ),
        default=0.0,
    )


# ---- how long it takes ---------------------------------------------------------------------------


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("has_hints", [True, False], ids=["with hints", "without hints"])
def test_after_an_absence_all_owners_are_equal_again(has_hints: bool) -> None:
    settings = KEYSPACES + ("" if has_hints else "\n[limits]\nhint_bytes = 0\n")
    seconds = lasting(4, soak_s=300)
    load = Load(
        workloads=("set", "mixed"), seconds=seconds, rate=scaled(200, soak=500), timeout_s=10.0
    )
    absence = Fault(at_s=1.0, kind="kill", nodes=("n5",), for_s=seconds)
    with Cluster(5, settings=settings, links=False) as cluster:
        trial = suffer(cluster, load, [absence])
        delivered, kept = hints(cluster, "delivered"), hints(cluster, "pending")
    tell(
        "absence " + ("with hints" if has_hints else "without hints"),
        **trial.figures(),
        delivered=delivered,
    )
    trial.check()
    assert (delivered > 0) == has_hints
    assert kept == 0


# ---- 6: a coordinator without its disk ----------------------------------------------------------


def test_a_wiped_coordinator_names_no_write_as_it_named_an_earlier_one() -> None:
    named: dict[str, bytes] = {}
    with Cluster(3, links=False) as cluster, cluster.client(session=False) as db:
        for number in range(6):
            if number == 3:
                cluster.wipe("n1")
                cluster.start("n1")
                cluster.wait_linked()
            value = b"v%d" % number
            with grpc.insecure_channel(cluster.node("n1").address) as channel:
                call(channel, "KV/Put", kv_pb2.PutRequest(key=b"k", value=value))
            until(functools.partial(holds_alone, db, value), what=f"{value!r} at all owners")
            assert named.setdefault(dot_of(db), value) == value
        db.wait_converged(_TIMEOUT_S)
        assert [db.get("k", r=r) for r in (2, 3)] == [b"v5"] * 2
        assert len(named) == 6
        assert all("alarm" not in cluster.log(name) for name in cluster.ids)


def holds_alone(db: kvclient.Client, value: bytes) -> bool:
    """Tell whether all owners hold one version, and it is this."""
    record = db.get_record("k", r=3, explain=True)
    assert record is not None
    assert record.explain is not None
    held = {replica.versions for replica in record.explain.replicas}
    return record.value == value and len(held) == 1 and len(held.pop()) == 1


def dot_of(db: kvclient.Client) -> str:
    """Return the name of the version that all hold."""
    record = db.get_record("k", r=3, explain=True)
    assert record is not None
    assert record.explain is not None
    return record.explain.replicas[0].versions[0]
