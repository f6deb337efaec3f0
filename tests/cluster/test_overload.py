"""More than nodes can take: typed refusals, no collapse, nothing small held up by what is large.

Counts and outcomes here; with the full figures (`python -m tests.soak "overload"`) also rates and
tails, on a machine that does nothing else.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine

import pytest

import kvclient
from tests.support.nodes import Nodes, until
from tests.support.pressure import Flood, Pressure, Tally, pin, resident_mib
from tests.support.scale import is_soak, scaled

Cluster = Callable[..., Nodes]

_FEW = "\n[limits]\noperations_running = 16\noperations_waiting = 64\n"
_MIB = 1 << 20


def clear_of_others(nodes: Nodes) -> None:
    """In a soak: nodes on one processor, the load on the other."""
    if is_soak() and len(os.sched_getaffinity(0)) > 1:
        first, second, *_ = sorted(os.sched_getaffinity(0))
        pin((nodes.pid(name) for name in nodes.ids), first)
        pin([os.getpid()], second)


# ---- 26: three times the load, one node stopped -------------------------------------------------


def test_a_burst_beyond_all_bounds_is_answered_or_refused_and_then_it_is_over(
    cluster: Cluster,
) -> None:
    nodes = cluster(3, settings=_FEW)
    before = {name: resident_mib(nodes.pid(name)) for name in nodes.ids}

    async def run() -> tuple[Tally, Tally, float]:
        async with kvclient.AsyncClient(nodes.seeds, timeout=10.0) as client:
            pressure = Pressure(client)
            await pressure.prepare()
            nodes.local.signal("n3", signal.SIGSTOP)
            await pressure.closed(8, 1.0)
            retries = client.metrics.retries
            burst = await pressure.burst(2_000)
            share = (client.metrics.retries - retries) / burst.total
            return burst, await pressure.closed(4, 1.0), share

    burst, after, share = asyncio.run(run())
    assert set(burst.outcomes) == {"ok", "Overloaded"}, burst.outcomes
    assert burst.total == 2_000
    assert burst.good > 100
    assert burst.unhelpful == 0
    assert share <= 0.1 + 100 / 2_000
    assert set(after.outcomes) == {"ok"}, "it is over when the load is"
    alive = ("n1", "n2")
    assert sum(nodes.metric(name, "operations_refused") for name in alive) > 0
    assert all(nodes.metric(name, "operations_waiting") == 0 for name in alive)
    grown = {name: resident_mib(nodes.pid(name)) - before[name] for name in alive}
    assert max(grown.values()) < 64, grown
    nodes.local.signal("n3", signal.SIGCONT)


@pytest.mark.timeout(240)
def test_three_times_the_load_for_long_leaves_nothing_behind(
    cluster: Cluster, record_testsuite_property: Callable[[str, object], None]
) -> None:
    """A client that keeps the rules, beside two floods that do not."""
    nodes = cluster(3, settings="" if is_soak() else _FEW)
    clear_of_others(nodes)
    before = {name: resident_mib(nodes.pid(name)) for name in ("n1", "n2")}
    callers, seconds = scaled(32, soak=512), scaled(2, soak=30)

    async def run() -> tuple[Tally, list[Flood], float, list[float]]:
        async with kvclient.AsyncClient(nodes.seeds, timeout=5.0) as client:
            pressure = Pressure(client)
            await pressure.prepare()
            nodes.local.signal("n3", signal.SIGSTOP)
            await pressure.closed(callers, scaled(1, soak=5))
            usual = await pressure.closed(callers, scaled(1, soak=10))
            per_s = usual.good / scaled(1, soak=10)
            begun = client.metrics.operations, client.metrics.retries
            floods = [Flood(nodes.node(name).address) for name in before]
            floods_end = asyncio.gather(*(flood.run(per_s, seconds) for flood in floods))
            load = await pressure.closed(callers, seconds)
            # The reserve, and as much again that puts in doubt may take in advance.
            retries = client.metrics.retries - begun[1] - 200
            share = retries / (client.metrics.operations - begun[0])
            await floods_end
            during = (load.good + sum(flood.tally.good for flood in floods)) / seconds
            after = [await pressure.closed(callers, scaled(1, soak=10))]
            while is_soak() and after[-1].good < 9 * per_s and len(after) < 6:
                after.append(await pressure.closed(callers, 10))
            assert is_soak() or after[-1].outcomes.keys() == {"ok"}, after[-1].outcomes
            return load, floods, share, [per_s, during, after[-1].good / scaled(1, soak=10)]

    load, floods, share, goodput = asyncio.run(run())
    told = {
        "goodput_before_during_after": [round(one) for one in goodput],
        "client": dict(load.outcomes),
        "floods": [dict(flood.tally.outcomes) for flood in floods],
        "client_ok_p99_ms": round(1_000 * load.percentile("ok", 0.99)),
        "flood_refused_p99_ms": round(1_000 * floods[0].tally.percentile("OVERLOADED", 0.99)),
        "flood_ok_p99_ms": round(1_000 * floods[0].tally.percentile("ok", 0.99)),
        "retries_beyond_the_reserve": round(share, 3),
        "grown_mib": round(max(resident_mib(nodes.pid(name)) - before[name] for name in before)),
    }
    print(told)
    record_testsuite_property("three_times_the_load", told)
    typed = {"ok", "Overloaded"}
    if is_soak():  # for half a minute, on one processor: some begin, and end too late
        typed |= {"Timeout", "Uncertain", "Unavailable"}
    assert load.outcomes.keys() <= typed, load.outcomes
    for flood in floods:
        late = {"TIMEOUT", "UNAVAILABLE", "UNCERTAIN"}
        assert flood.tally.outcomes.keys() - {"lost"} <= {"ok", "OVERLOADED"} | late, told
        assert is_soak() or not flood.tally.outcomes["lost"], told
        assert flood.tally.outcomes["OVERLOADED"] > 0
        assert not flood.tally.unhelpful
    assert share <= 0.1
    assert told["grown_mib"] < 256  # type: ignore[operator]
    if is_soak():
        assert goodput[2] >= 0.9 * goodput[0], "within a minute"


# ---- 27: one hot key, large values beside small ones --------------------------------------------


def test_one_hot_key_holds_up_no_other(cluster: Cluster) -> None:
    nodes = cluster(3)
    order: list[str] = []

    async def done(name: str, call: Coroutine[object, object, object]) -> None:
        await call
        order.append(name)

    async def run() -> None:
        async with kvclient.AsyncClient(nodes.seeds, timeout=20.0) as client:
            calls = []
            for number in range(scaled(1_000, soak=8_000)):
                if number % 10:
                    calls.append(done("hot", client.put("hot", b"%d" % number)))
                else:
                    calls.append(done("other", client.put(f"k{number}", b"v")))
            await asyncio.gather(*calls)

    asyncio.run(run())
    last_hot = len(order) - order[::-1].index("hot")
    assert order[:last_hot].count("other") >= order.count("other") // 2
    with nodes.client() as client:
        assert len({client.get("hot", r=3) for _ in range(3)}) == 1


def test_small_operations_pass_large_ones_and_heartbeats_are_not_late(
    cluster: Cluster, record_testsuite_property: Callable[[str, object], None]
) -> None:
    nodes = cluster(3)
    clear_of_others(nodes)
    count = scaled(24, soak=200)

    async def run() -> tuple[list[float], list[float]]:
        async with kvclient.AsyncClient(nodes.seeds, timeout=60.0) as client:
            await client.put_many({f"k{number}": b"v" * 100 for number in range(100)})
            alone: list[float] = []
            await get_small(client, alone, lambda: len(alone) >= scaled(1_000, soak=10_000))
            large = asyncio.create_task(put_large(client, count))
            beside: list[float] = []
            await get_small(client, beside, large.done)
            await large
            values = await client.get_many([f"large{number}" for number in range(count)])
            assert all(value is not None and len(value) == _MIB for value in values)
            return alone, beside

    alone, beside = asyncio.run(run())
    p99 = [1_000 * sorted(took)[int(0.99 * len(took))] for took in (alone, beside)]
    print(f"{len(beside)} gets beside {count} MiB; p99 alone {p99[0]:.0f} ms, then {p99[1]:.0f} ms")
    record_testsuite_property("gets_beside_large_puts_p99_ms", [round(one) for one in p99])
    assert len(beside) > count
    for name in nodes.ids:
        assert "peer_down" not in nodes.log(name)
    nodes.wait_linked()


async def put_large(client: kvclient.AsyncClient, count: int) -> None:
    """Put values of a megabyte, eight at a time."""
    value = os.urandom(_MIB)

    async def work(first: int) -> None:
        for number in range(first, count, 8):
            await client.put(f"large{number}", value)

    await asyncio.gather(*(work(first) for first in range(8)))


async def get_small(
    client: kvclient.AsyncClient, took_s: list[float], is_over: Callable[[], bool]
) -> None:
    """Get small values, four at a time, until it is over; tell the seconds that each took."""

    async def work() -> None:
        while not is_over():
            began = time.monotonic()
            assert await client.get(f"k{len(took_s) % 100}") == b"v" * 100
            took_s.append(time.monotonic() - began)

    await asyncio.gather(*(work() for _ in range(4)))


# ---- 33: writes stuck in a coordinator that is stopped ------------------------------------------


def coordinator_of(nodes: Nodes, act: Callable[[], object]) -> str:
    """Return which node coordinates the most of what is done."""
    before = {name: nodes.metric(name, "operations") for name in nodes.ids}
    act()
    return max(nodes.ids, key=lambda name: nodes.metric(name, "operations") - before[name])


def test_writes_stuck_in_a_stopped_node_are_made_elsewhere_and_never_bury_newer_ones(
    cluster: Cluster,
) -> None:
    nodes = cluster(3)
    keys = [f"k{number}" for number in range(60)]
    with nodes.client(timeout=20.0) as client:
        client.put_many(dict.fromkeys(keys, b"first"))
        victim = coordinator_of(nodes, lambda: client.put_many(dict.fromkeys(keys, b"again")))
        taken = nodes.metric(victim, "operations")
        nodes.local.signal(victim, signal.SIGSTOP)
        began = time.monotonic()
        stuck = client.put_many(dict.fromkeys(keys, b"stuck"))
        assert all(victim not in result.acked_by for result in stuck)
        assert client.metrics.suspicions > 0
        assert client.metrics.reroutes > 0
        assert client.metrics.retries == 0
        client.put_many(dict.fromkeys(keys, b"newer"))
        print(f"rerouted, and put again, after {time.monotonic() - began:.2f} s")
        nodes.local.signal(victim, signal.SIGCONT)
        until(lambda: nodes.metric(victim, "operations") >= taken + len(keys), what="going on")
        nodes.wait_linked()
        for r in (2, 3):
            assert {client.get(key, r=r) for key in keys} == {b"newer"}
