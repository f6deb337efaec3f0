"""The load generator: a process of its own that asks a store and times the answers.

    python -m bench.generator HOST:PORT,... [--loop uvloop|asyncio] [--silence-ms MS]

Decides when operations are sent (now: a closed loop) and what counts as a latency. It takes one
command a line on stdin, {"do": "load" | "run", "job": {...}}, and answers each with one line of
JSON on stdout; it ends with its input. Laws: an operation that fails, or that reads what was not
written, is counted by its reason and never timed; a run is over when its last operation is
answered; CPU time is the generator's own account of the run, without folding the figures after it.
Held by tests/unit/bench/test_generator.py. Leaves out who starts it: bench/driver.py.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, Protocol

import kvclient
from bench.histogram import Histogram
from bench.workload import Job, Step, loading, plan

OPERATION_TIMEOUT_S = 30.0
"""Longer than any answer should take: a slow one is to be measured, not cut."""
_LOAD_CHUNK = 512


class Store(Protocol):
    """What a store must be able to do to be measured."""

    def put(self, key: bytes, value: bytes, /) -> Coroutine[Any, Any, object]:
        """Set a key, durably on a quorum."""

    def get(self, key: bytes, /) -> Coroutine[Any, Any, bytes | None]:
        """Return the value of a key that a quorum agrees on."""


class ClosedLoop:
    """So many callers, each of whom asks again as soon as it is answered."""

    def __init__(self, store: Store, job: Job, clock: Callable[[], int]) -> None:
        """Time with `clock`, in nanoseconds."""
        self.latencies_ns = array("q")
        self.faults: Counter[str] = Counter()
        self._store = store
        self._job = job
        self._clock = clock
        self._steps: Iterator[Step] = itertools.cycle(plan(job))
        self._end_ns = 0

    async def run(self) -> float:
        """Ask until the time is over and everything is answered; return the seconds it took."""
        began_ns = self._clock()
        self._end_ns = began_ns + int(self._job.seconds * 1e9)
        async with asyncio.TaskGroup() as callers:
            for _ in range(self._job.in_flight):
                callers.create_task(self._call())
        return (self._clock() - began_ns) / 1e9

    async def _call(self) -> None:
        """One caller. The end of one operation is the start of its next: one look at the clock."""
        steps, clock, record = self._steps, self._clock, self.latencies_ns.append
        began_ns = clock()
        while began_ns < self._end_ns:
            key, value = next(steps)
            fault = await self._fault_of(key, value)
            ended_ns = clock()
            if fault is None:
                record(ended_ns - began_ns)
            else:
                self.faults[fault] += 1
            began_ns = ended_ns

    async def _fault_of(self, key: bytes, value: bytes | None) -> str | None:
        try:
            if value is not None:
                await self._store.put(key, value)
                return None
            found = await self._store.get(key)
        except kvclient.KVError as error:
            return type(error).__name__
        if found is None:
            return "absent"
        return None if len(found) == self._job.value_bytes else "wrong value"


async def run(store: Store, job: Job, counters: Callable[[], Mapping[str, int]]) -> dict[str, Any]:
    """Carry out one run; return its figures, and by how much each of `counters` rose."""
    loop = ClosedLoop(store, job, time.perf_counter_ns)
    before = counters()
    cpu_s = time.process_time()
    elapsed_s = await loop.run()
    cpu_s = time.process_time() - cpu_s
    return {
        "elapsed_s": elapsed_s,
        "cpu_s": cpu_s,
        "operations": len(loop.latencies_ns),
        "faults": dict(loop.faults),
        "client": {name: count - before[name] for name, count in counters().items()},
        "latency_ns": Histogram(loop.latencies_ns).to_json(),
    }


async def load(db: kvclient.AsyncClient, job: Job) -> dict[str, Any]:
    """Put every key of the job once."""
    began_s = time.perf_counter()
    pairs = loading(job)
    while chunk := list(itertools.islice(pairs, _LOAD_CHUNK)):
        await db.put_many(chunk)
    return {"keys": job.keys, "elapsed_s": time.perf_counter() - began_s}


async def serve(seeds: str, silence_ms: float) -> None:
    """Carry out the commands on stdin until it ends."""
    bounds = kvclient.Bounds(silence_ms=silence_ms)

    def counters() -> dict[str, int]:
        return dataclasses.asdict(db.metrics)

    async with kvclient.AsyncClient(seeds, timeout=OPERATION_TIMEOUT_S, bounds=bounds) as db:
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            job = Job(**command["job"])
            is_load = command["do"] == "load"
            answer = await (load(db, job) if is_load else run(db, job, counters))
            print(json.dumps(answer), flush=True)


def main() -> None:
    """Be a load generator."""
    parser = argparse.ArgumentParser(prog="bench.generator")
    parser.add_argument("seeds")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    parser.add_argument("--silence-ms", type=float, default=kvclient.Bounds().silence_ms)
    arguments = parser.parse_args()
    serving = serve(arguments.seeds, arguments.silence_ms)
    if arguments.loop == "asyncio":
        asyncio.run(serving)
        return
    import uvloop  # noqa: PLC0415 (a client does not need it)

    uvloop.run(serving)


if __name__ == "__main__":
    main()
