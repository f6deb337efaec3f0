"""Drives a load: its clients and workers, from the first operation to the last reads.

    prepare --> load, for its seconds --> (whoever drives heals the cluster) --> final reads

Laws: each worker has a session of its own, over one of a few connections; workers end by
themselves, within the time-out of their last operation; a worker that crashes ends the run with its
error; the final reads read every key of the history once, as somebody who has seen nothing, as far
as their time allows.
Tests: tests/cluster/test_kit.py. Left out: faults (kvclient/testing/nemesis.py).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack

from kvclient.aio import AsyncClient
from kvclient.testing.history import Recorder
from kvclient.testing.workloads import WORKLOADS, Load, Pace, Tally, Worker, Workload

READERS = 64
"""Final reads at once."""
READ_ALL_S = 120.0
"""A cluster that is not well may take seconds to refuse each read."""
READER = 1_000_000
"""The number of the worker that reads at the end: no other has it."""
_FINAL_RATE = 5_000.0


async def drive(seeds: str, load: Load, recorder: Recorder, tally: Tally) -> None:
    """Put a load on a cluster until its time is over."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(AsyncClient(seeds, timeout=load.timeout_s))
            for _ in range(min(load.clients, load.workers))
        ]
        staff = list(_staff(load, clients, recorder, tally))
        await _all(_prepare(workload, worker) for workload, worker in staff)
        end_s = loop.time() + load.seconds
        await _all(_work(workload, worker, end_s) for workload, worker in staff)


def _staff(
    load: Load, clients: list[AsyncClient], recorder: Recorder, tally: Tally
) -> Iterator[tuple[Workload, Worker]]:
    """Yield each worker with what it does; each is a user of its own."""
    pace = Pace(load.rate)
    chosen = [WORKLOADS[name] for name in load.workloads]
    for number in range(load.workers):
        place, kind = divmod(number, len(chosen))
        worker = Worker(
            number,
            clients[number % len(clients)].start_session(),
            recorder,
            chance=random.Random(f"{load.seed} {number}"),
            pace=pace,
            tally=tally,
            keyspace=load.keyspace_of(chosen[kind]),
            place=place,
            peers=len(range(kind, load.workers, len(chosen))),
        )
        yield chosen[kind], worker


async def _prepare(workload: Workload, worker: Worker) -> None:
    if workload.prepare is not None:
        await workload.prepare(worker)


async def _work(workload: Workload, worker: Worker, end_s: float) -> None:
    loop = asyncio.get_running_loop()
    while loop.time() < end_s:
        await workload.step(worker)


async def read_all(
    seeds: str, load: Load, recorder: Recorder, tally: Tally, *, limit_s: float = READ_ALL_S
) -> int:
    """Read every key of the history once, after the mark that all has converged.

    Returns: how many were left unread at the limit.
    """
    end_s = asyncio.get_running_loop().time() + limit_s
    keys = dict.fromkeys((op.keyspace, op.key) for op in recorder.history.ops)
    recorder.final()
    waiting = list(keys)
    async with AsyncClient(seeds, timeout=load.timeout_s, session=False) as client:
        pace = Pace(_FINAL_RATE)

        async def reader() -> None:
            while waiting and asyncio.get_running_loop().time() < end_s:
                keyspace, key = waiting.pop()
                worker = Worker(
                    READER,
                    client,
                    recorder,
                    chance=random.Random(0),
                    pace=pace,
                    tally=tally,
                    keyspace=keyspace,
                )
                await worker.get(key)

        await _all(reader() for _ in range(READERS))
    return len(waiting)


async def _all(jobs: Iterable[object]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for job in jobs:
            tasks.create_task(job)  # type: ignore[arg-type]
