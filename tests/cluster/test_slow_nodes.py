"""A node whose disk is slow, and one that halts for a while: what others notice of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from kvclient.testing import Cluster
from kvclient.testing.schedule import Fault
from kvclient.testing.workloads import KEYSPACES, Load
from kvproto import kv_pb2
from tests.support.figures import tell
from tests.support.nodes import until
from tests.support.pressure import Pressure, Tally
from tests.support.scale import is_soak, scaled
from tests.support.trials import suffer
from tests.support.wire import hlc

_TIMEOUT_S = 10.0


# ---- 25: a slow disk ---------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_nobody_waits_for_one_slow_disk() -> None:
    delay_ms = 300 if is_soak() else 3_000
    """Short, it is so long that no stall of a loaded machine is taken for it."""
    with Cluster(5, links=False) as cluster:
        healthy, slow = asyncio.run(around(cluster, lambda: slow_down(cluster, delay_ms)))
    p99 = [1_000 * tally.percentile("ok", 0.99) for tally in (healthy, slow)]
    waited = [took for took in slow.took_s["ok"] if took >= delay_ms / 2_000]
    tell(
        "slow disk",
        operations=f"{slow.total:,}",
        healthy_p99_ms=round(p99[0], 1),
        slow_p99_ms=round(p99[1], 1),
        waited_for_a_sync=len(waited),
    )
    assert set(healthy.outcomes) == set(slow.outcomes) == {"ok"}, (healthy, slow)
    if is_soak():
        assert p99[1] <= 2 * p99[0]
    else:
        assert len(waited) <= 0.01 * slow.total


async def around(cluster: Cluster, change: Callable[[], None]) -> tuple[Tally, Tally]:
    """Put the same load on a cluster before and after something has happened to it."""
    rate, seconds = scaled(150, soak=500), scaled(2, soak=30)
    async with cluster.async_client(timeout=_TIMEOUT_S) as client:
        pressure = Pressure(client)
        await pressure.prepare()
        before = await pressure.open(rate, seconds)
        await asyncio.to_thread(change)
        await pressure.open(rate, 1)  # nodes and clients learn how late it is
        return before, await pressure.open(rate, scaled(3, soak=30))


def slow_down(cluster: Cluster, delay_ms: float) -> None:
    """Slow one disk; return when its node has seen that."""
    cluster.slow_disk("n2", delay_ms)
    until(lambda: "sync_delay_ms=" in cluster.log("n2"), what="the slow disk")


# ---- 25: a node that halts ----------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_a_strict_history_around_a_halted_node_is_fresh_and_in_time() -> None:
    pauses = [(0.5, 5.0)] if not is_soak() else [(5.0, 5.0), (20.0, 30.0), (60.0, 60.0)]
    load = Load(
        workloads=("mixed", "register"),
        seconds=pauses[-1][0] + pauses[-1][1] + 1.0,
        rate=scaled(200, soak=1_000),
        workers=24,
        timeout_s=_TIMEOUT_S,
        is_strict=True,
    )
    faults = [Fault(at_s=at, kind="pause", nodes=("n1",), for_s=for_s) for at, for_s in pauses]
    with Cluster(5, settings=KEYSPACES) as cluster:
        trial = suffer(cluster, load, faults)
    tell("halted node", **trial.figures())
    trial.check()
    late = [op for op in trial.history.ops if (op.latency_ms or 0) > 1_000 * _TIMEOUT_S]
    assert late == [], "acknowledged after its deadline"


def test_what_a_halted_node_was_asked_is_neither_late_nor_stale_when_it_goes_on() -> None:
    keys = [f"k{number}" for number in range(20)]
    with Cluster(3, settings=KEYSPACES, links=False) as cluster, cluster.client() as db:
        strict = db.keyspace("strict")
        strict.put_many(dict.fromkeys(keys, b"old"), w=3)
        with grpc.insecure_channel(cluster.node("n1").address) as channel:
            grpc.channel_ready_future(channel).result(_TIMEOUT_S)
            cluster.pause("n1")
            late = [ask(channel, "Put", a_put(key, b"late"), 1.0) for key in keys]
            assert {call.code() for call in late} == {grpc.StatusCode.DEADLINE_EXCEEDED}

            done = strict.put_many(dict.fromkeys(keys, b"new"))
            assert all("n1" not in result.acked_by for result in done)
            reads = [ask(channel, "Get", a_get(key), 2 * _TIMEOUT_S) for key in keys]
            # What was on the links is read all the same, when the node goes on.
            until(lambda: are_given_up(cluster), what="giving up the links to the halted node")

            cluster.resume("n1")
            told = [kv_pb2.GetResponse.FromString(read.result()).value for read in reads]
            assert set(told) == {b"new"}
            cluster.wait_linked()
            for r in (2, 3):
                assert {strict.get(key, r=r) for key in keys} == {b"new"}
            again = [ask(channel, "Get", a_get(key), _TIMEOUT_S).result() for key in keys]
            assert {kv_pb2.GetResponse.FromString(one).value for one in again} == {b"new"}


def are_given_up(cluster: Cluster) -> bool:
    """Tell whether both others have ended their streams to n1, which was silent for so long."""
    return all("link_lost peer=n1" in cluster.log(name) for name in ("n2", "n3"))


def a_put(key: str, value: bytes) -> kv_pb2.PutRequest:
    """Return a put as a client of any language makes it, which may be retried."""
    return kv_pb2.PutRequest(
        keyspace="strict",
        key=key.encode(),
        value=value,
        write_id=os.urandom(16),
        timestamp=hlc(),
    )


def a_get(key: str) -> kv_pb2.GetRequest:
    return kv_pb2.GetRequest(keyspace="strict", key=key.encode())


def ask(
    channel: grpc.Channel,
    method: str,
    request: kv_pb2.PutRequest | kv_pb2.GetRequest,
    timeout_s: float,
) -> Any:  # a grpc.Future that is a call too, which no stub can say
    """Begin a call that waits for one node and no other."""
    begin: Any = channel.unary_unary(f"/kvnode.v1.KV/{method}")
    return begin.future(request.SerializeToString(), timeout=timeout_s)
