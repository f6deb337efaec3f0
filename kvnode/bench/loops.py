"""When operations begin, and what counts as their latency.

Decides the two ways of asking. In a closed loop each caller asks again as soon as it is answered,
so a slow answer delays the next question too, and the tail is that of callers who wait. At a fixed
rate each operation has its instant, whatever became of those before it; its latency counts from
there, also where all callers were busy then, so a store that stalls is charged for everybody who
would have come meanwhile (no coordinated omission). Laws: an operation that fails, or that reads
what was not written, is counted by its reason and never timed; a run is over when its last
operation is answered; at a fixed rate every instant of the run is asked for, or counted as "not
sent". Held by tests/unit/bench/test_loops.py. Source: Gil Tene, wrk2 ("latency from the intended
start"). Leaves out what is asked: workload.py.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable

from kvnode.bench.store import Store
from kvnode.bench.tally import Tally
from kvnode.bench.workload import Job, Step, Work

NOT_SENT = "not sent"
LATE_MAX_S = 10.0
"""At a rate that the store cannot keep up with, a run goes on for so long at most."""
_NS = 1_000_000_000


class Run:
    """One process's part of one run."""

    def __init__(
        self,
        store: Store,
        job: Job,
        *,
        clock: Callable[[], int],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """Time with `clock`, in nanoseconds; wait with `sleep`, for seconds."""
        self.tally = Tally()
        self._store, self._job = store, job
        self._clock, self._sleep = clock, sleep
        self._work = Work(job)
        self._steps = self._work.steps()
        self._asleep: dict[asyncio.Task[None], None] = {}
        self._began_ns = 0
        self._end_ns = 0.0
        self._instants = itertools.count()
        self._is_stopped = False

    async def run(self) -> float:
        """Ask until the time, or the load, is over and all is answered; return how long it took.

        In seconds; what was counted is in `tally`.
        """
        job = self._job
        self._began_ns = self._clock()
        lasting_ns = math.inf if job.is_load else job.seconds * _NS
        self._end_ns = self._began_ns + lasting_ns
        call = self._call_closed if job.rate is None else self._call_at_rate
        async with asyncio.TaskGroup() as callers:
            for _ in range(job.in_flight):
                callers.create_task(call())
        self._count_unsent()
        return (self._clock() - self._began_ns) / _NS

    def stop(self) -> None:
        """Begin nothing more: `run` returns once what is under way is answered."""
        self._is_stopped = True
        self._end_ns = 0
        for caller in self._asleep:
            caller.cancel()

    async def _call_closed(self) -> None:
        """One caller. The end of one operation is the start of its next: one look at the clock."""
        began_ns = self._clock()
        while began_ns < self._end_ns:
            step = next(self._steps, None)
            if step is None:
                return
            fault = await self._fault_of(step)
            ended_ns = self._clock()
            self.tally.record(step.kind, ended_ns - self._began_ns, ended_ns - began_ns, fault)
            began_ns = ended_ns

    async def _call_at_rate(self) -> None:
        """One caller, who takes the next instant, waits for it if it is to come, and asks."""
        while (intended_ns := self._next_instant()) is not None:
            now_ns = self._clock()
            if now_ns < intended_ns:
                await self._nap((intended_ns - now_ns) / _NS)
                now_ns = self._clock()
            step = next(self._steps, None)
            if step is None:
                return
            self.tally.late.record(max(0, now_ns - intended_ns))
            fault = await self._fault_of(step)
            ended_ns = self._clock()
            since_ns = ended_ns - self._began_ns
            self.tally.record(step.kind, since_ns, ended_ns - intended_ns, fault)

    def _next_instant(self) -> int | None:
        """Return when the next operation should begin; None if no more should."""
        if self._clock() > self._end_ns + LATE_MAX_S * _NS:
            return None
        intended_ns = self._instant(next(self._instants))
        return intended_ns if intended_ns < self._end_ns else None

    def _instant(self, number: int) -> int:
        """Return when our operation with this number should begin: processes take turns."""
        job = self._job
        assert job.rate is not None
        turn = number + job.process / job.processes
        return self._began_ns + int(turn / job.rate * _NS)

    def _count_unsent(self) -> None:
        if self._job.rate is None or self._is_stopped or self._job.is_load:
            return
        while self._instant(next(self._instants)) < self._end_ns:
            self.tally.faults[NOT_SENT] += 1

    async def _nap(self, seconds: float) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._asleep[me] = None
        try:
            await self._sleep(seconds)
        finally:
            del self._asleep[me]

    async def _fault_of(self, step: Step) -> str | None:
        """Carry it out; return why it failed, or None."""
        store, kind = self._store, step.kind
        try:
            if kind == "read":
                return self._wrong(await store.get(step.key))
            if kind == "update":
                await store.put(step.key, step.value)
                return None
            if kind == "insert":
                await store.put(step.key, step.value)
                if not self._job.is_load:
                    self._work.acknowledged(step)
                return None
            if kind == "modify":
                return None if await store.modify(step.key, step.value) else "absent"
            found = await store.get_many(step.more)
        except store.failures as error:
            return type(error).__name__
        return next(filter(None, map(self._wrong, found)), None)

    def _wrong(self, value: bytes | None) -> str | None:
        if value is None:
            return "absent"
        return None if len(value) == self._job.value_bytes else "wrong value"
