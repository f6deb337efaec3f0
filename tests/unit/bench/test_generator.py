"""Claims about bench/generator.py, against a store in memory and a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import kvclient
from bench import generator
from bench.generator import ClosedLoop
from bench.histogram import Histogram
from bench.workload import loading
from tests.unit.bench.builders import a_job

ANSWER_NS = 50_000_000


class Store:
    """Answers after ANSWER_NS of a clock that moves when all callers wait."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.waiting: list[asyncio.Future[None]] = []
        self.most_waiting = 0
        self.values: dict[bytes, bytes] = {}
        self.fault: Exception | None = None

    def clock(self) -> int:
        return self.now_ns

    async def put(self, key: bytes, value: bytes, /) -> None:
        await self._answer()
        self.values[key] = value

    async def get(self, key: bytes, /) -> bytes | None:
        await self._answer()
        return self.values.get(key)

    async def _answer(self) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self.waiting.append(waiter)
        self.most_waiting = max(self.most_waiting, len(self.waiting))
        if len(self.waiting) == 1:
            loop.call_soon(self._tick)
        await waiter
        if self.fault is not None:
            raise self.fault

    def _tick(self) -> None:
        self.now_ns += ANSWER_NS
        waiting, self.waiting = self.waiting, []
        for waiter in waiting:
            waiter.set_result(None)


def loop_over(store: Store, **changes: Any) -> ClosedLoop:
    return ClosedLoop(store, a_job(**changes), store.clock)


def test_so_many_are_in_flight_and_each_answer_starts_the_next() -> None:
    store = Store()
    loop = loop_over(store, mix="put", in_flight=4, seconds=1.0)
    assert asyncio.run(loop.run()) == 1.0
    assert store.most_waiting == 4
    assert list(loop.latencies_ns) == [ANSWER_NS] * (4 * 20)
    assert not loop.faults


def test_the_last_answer_is_waited_for() -> None:
    store = Store()
    loop = loop_over(store, mix="put", in_flight=1, seconds=0.07)
    assert asyncio.run(loop.run()) == 0.1
    assert len(loop.latencies_ns) == 2
    assert not store.waiting


def test_failures_are_counted_by_reason_and_not_timed() -> None:
    store = Store()
    store.fault = kvclient.Unavailable("nobody there")
    loop = loop_over(store, mix="put", in_flight=2, seconds=0.1)
    asyncio.run(loop.run())
    assert loop.faults == {"Unavailable": 4}
    assert not loop.latencies_ns


def test_what_reads_as_absent_or_as_something_else_is_a_failure() -> None:
    store = Store()
    loop = loop_over(store, mix="get", in_flight=1, seconds=0.1)
    asyncio.run(loop.run())
    assert loop.faults == {"absent": 2}
    store.values = {key: b"short" for key, _ in loading(a_job())}
    loop = loop_over(store, mix="get", in_flight=1, seconds=0.1)
    asyncio.run(loop.run())
    assert loop.faults == {"wrong value": 2}


def test_a_run_tells_its_figures_and_what_the_client_counted() -> None:
    store = Store()
    store.values = dict(loading(a_job()))
    told = asyncio.run(generator.run(store, a_job(seconds=0.001), rising()))
    assert told["faults"] == {}
    assert told["operations"] == Histogram.from_json(told["latency_ns"]).total > 0
    assert told["cpu_s"] > 0
    assert told["client"] == {"attempts": 5}


def rising() -> Callable[[], Mapping[str, int]]:
    readings = iter((10, 15))
    return lambda: {"attempts": next(readings)}
