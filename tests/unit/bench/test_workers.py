"""Claims about kvnode/bench/worker.py and workers.py: real processes, a store in memory."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from kvnode.bench import worker, workers
from kvnode.bench.tally import Tally
from kvnode.bench.workers import Generator, WorkerDied
from tests.unit.bench.builders import a_job
from tests.unit.bench.memory import Memory

IN_MEMORY = "tests.unit.bench.memory:connect"


def generator(where: str = "here", processes: int = 1) -> Generator:
    return Generator(where=where, adapter=IN_MEMORY, processes=processes, loop="asyncio")


def test_a_run_tells_its_figures_and_what_the_client_counted() -> None:
    told: list[dict[str, Any]] = []
    store = Memory()
    store.asked = 3

    async def carried_out() -> None:
        job = a_job(is_load=True, seconds=0.0)
        await worker.carry_out(store, job, asyncio.Queue(), told.append)

    asyncio.run(carried_out())
    (last,) = told
    done = last["done"]
    assert Tally.from_json(done["tally"]).operations == 50
    assert done["client"] == {"asked": 50}
    assert done["cpu_s"] > 0


def test_the_end_of_the_commands_stops_a_run_and_is_left_for_the_next_who_asks() -> None:
    async def stopped() -> bool:
        commands: worker.Commands = asyncio.Queue()
        commands.put_nowait(None)
        await worker.carry_out(Memory(), a_job("put", seconds=3600.0), commands, lambda _: None)
        return commands.get_nowait() is None

    assert asyncio.run(asyncio.wait_for(stopped(), timeout=30))


def test_processes_share_the_load_and_their_figures_are_one() -> None:
    with workers.working(generator(processes=2)) as load:
        pids = load.pids
        figures = load.run(a_job(is_load=True, keys=301))
        assert load.run(a_job(in_flight=1, is_load=True)).tally.operations == 50
    assert len(set(pids)) == 2
    assert figures.tally.operations == 301
    assert figures.client == {"asked": 301}
    assert figures.is_whole
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)  # noqa: PTH110


def test_a_run_that_is_stopped_gives_what_was_counted_so_far() -> None:
    with workers.working(generator(processes=2)) as load:
        seconds: list[tuple[int, int]] = []
        stopping = threading.Timer(1.5, load.stop)
        stopping.start()
        figures = load.run(
            a_job("put", seconds=3600.0, rate=200.0), lambda *told: seconds.append(told)
        )
        assert not figures.is_whole
        assert load.run(a_job(is_load=True)).is_whole
    assert 0 < figures.tally.operations < 3600 * 200
    assert seconds
    assert seconds[0][0] > 0


def test_a_process_that_cannot_connect_is_told_as_such() -> None:
    with pytest.raises(WorkerDied), workers.working(generator("nowhere")):
        raise AssertionError


def test_a_process_that_dies_is_told_as_such() -> None:
    with pytest.raises(WorkerDied), workers.working(generator()) as load:
        threading.Timer(0.5, lambda: os.kill(load.pids[0], 9)).start()
        load.run(a_job("put", seconds=3600.0, rate=10.0))
