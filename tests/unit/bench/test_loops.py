"""Claims about kvnode/bench/loops.py, against a store in memory and a clock of its own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import kvclient
from kvnode.bench.histogram import Histogram
from kvnode.bench.loops import LATE_MAX_S, NOT_SENT, Run
from tests.unit.bench.builders import a_job
from tests.unit.bench.memory import ANSWER_NS, Slow


def run_over(store: Slow, **changes: Any) -> Run:
    return Run(store, a_job(**changes), clock=store.clock, sleep=store.sleep)


def loaded(store: Slow) -> Slow:
    asyncio.run(run_over(store, is_load=True).run())
    store.now_ns = 0
    return store


def test_so_many_are_in_flight_and_each_answer_starts_the_next() -> None:
    store = Slow()
    run = run_over(store, workload="put", in_flight=4, seconds=1.0)
    assert asyncio.run(run.run()) == 1.0
    assert store.most_waiting == 4
    assert run.tally.latency["update"] == Histogram([ANSWER_NS] * (4 * 20))
    assert not run.tally.faults


def test_the_last_answer_is_waited_for() -> None:
    store = Slow()
    run = run_over(store, workload="put", in_flight=1, seconds=0.07)
    assert asyncio.run(run.run()) == 0.1
    assert run.tally.operations == 2


def test_the_load_phase_puts_every_key_once_however_long_that_takes() -> None:
    store = Slow()
    run = run_over(store, is_load=True, in_flight=4, seconds=0.0)
    asyncio.run(run.run())
    assert len(store.values) == store.asked == run.tally.latency["insert"].total == 50


def test_failures_are_counted_by_reason_and_not_timed() -> None:
    store = Slow()
    store.fault = kvclient.Unavailable("nobody there")
    run = run_over(store, workload="put", in_flight=2, seconds=0.1)
    asyncio.run(run.run())
    assert run.tally.faults == {"Unavailable": 4}
    assert not run.tally.operations


def test_what_is_no_failure_of_the_store_ends_the_run() -> None:
    store = Slow()
    store.fault = ZeroDivisionError()
    with pytest.raises(ExceptionGroup):
        asyncio.run(run_over(store, workload="put").run())


@pytest.mark.parametrize("workload", ["get", "f", "e"])
def test_what_reads_as_absent_is_a_failure(workload: str) -> None:
    run = run_over(Slow(), workload=workload, in_flight=1, seconds=0.1)
    asyncio.run(run.run())
    assert set(run.tally.faults) == {"absent"}


@pytest.mark.parametrize("workload", ["get", "e"])
def test_what_reads_as_something_else_is_a_failure(workload: str) -> None:
    store = loaded(Slow())
    store.values = dict.fromkeys(store.values, b"short")
    run = run_over(store, workload=workload, in_flight=1, seconds=0.1)
    asyncio.run(run.run())
    assert set(run.tally.faults) == {"wrong value"}


@pytest.mark.parametrize("workload", ["a", "b", "c", "d", "e", "f", "put", "get"])
def test_every_workload_finds_what_it_reads(workload: str) -> None:
    run = run_over(loaded(Slow()), workload=workload, in_flight=8, seconds=10.0)
    asyncio.run(run.run())
    assert not run.tally.faults
    assert run.tally.operations > 500


# --- at a fixed rate ------------------------------------------------------------------------------


def test_operations_begin_in_time_with_the_clock() -> None:
    store = Slow()
    run = run_over(store, workload="put", in_flight=100, rate=100.0, seconds=1.0)
    assert asyncio.run(run.run()) == pytest.approx(0.99 + ANSWER_NS / 1e9)
    assert run.tally.latency["update"] == Histogram([ANSWER_NS] * 100)
    assert run.tally.late == Histogram([0] * 100)
    assert store.most_waiting == 6  # five, and one that is answered at this very instant


def test_whoever_comes_while_the_store_stalls_is_charged_for_the_stall() -> None:
    store = Slow()
    store.frozen_ns = 500_000_000
    run = run_over(store, workload="put", in_flight=100, rate=100.0, seconds=1.0)
    asyncio.run(run.run())
    stalled = [ANSWER_NS + 500_000_000 - number * 10_000_000 for number in range(50)]
    assert run.tally.latency["update"] == Histogram([*stalled, *[ANSWER_NS] * 50])


def test_latency_counts_from_the_instant_also_where_all_callers_were_busy() -> None:
    store = Slow()
    run = run_over(store, workload="put", in_flight=1, rate=40.0, seconds=0.2)
    asyncio.run(run.run())
    # Every 25 ms one should begin, and the only caller takes 50 ms for each.
    took = [ANSWER_NS + number * 25_000_000 for number in range(8)]
    assert run.tally.latency["update"] == Histogram(took)
    assert run.tally.late == Histogram(number * 25_000_000 for number in range(8))


def test_what_a_hopeless_rate_leaves_undone_is_counted_as_not_sent() -> None:
    store = Slow()
    run = run_over(store, workload="put", in_flight=1, rate=1000.0, seconds=1.0)
    assert asyncio.run(run.run()) == pytest.approx(1.0 + LATE_MAX_S, abs=0.2)
    assert run.tally.operations + run.tally.faults[NOT_SENT] == 1000
    assert run.tally.operations == pytest.approx(11.0 * 20, abs=3)


def test_processes_take_turns_at_the_instants() -> None:
    parts = [
        a_job(workload="put", in_flight=8, rate=100.0, seconds=0.1).part(number, 2)
        for number in (0, 1)
    ]
    instants = []
    for part in parts:
        run = Run(Slow(), part, clock=lambda: 0)
        instants += [run._instant(number) for number in range(5)]
    assert sorted(instants) == [number * 10_000_000 for number in range(10)]
    assert [part.in_flight for part in parts] == [4, 4]


@pytest.mark.parametrize("rate", [None, 10.0])
def test_a_run_that_is_stopped_gives_what_was_counted_and_begins_nothing_more(
    rate: float | None,
) -> None:
    store = Slow()
    run = run_over(store, workload="put", in_flight=4, rate=rate, seconds=1000.0)

    async def stopped() -> float:
        running = asyncio.create_task(run.run())
        await store.sleep(0.325)
        run.stop()
        return await running

    assert asyncio.run(stopped()) < 0.5
    assert 0 < run.tally.operations < 40
    assert not run.tally.faults
