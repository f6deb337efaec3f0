"""More load than nodes can take: offered at a rate whatever the answers, and what came of it.

Laws: every operation that was offered is counted once, under the name of its outcome; a get of a
key that was put before must find it. Its test files are
tests/cluster/test_overload.py, test_slow_nodes.py and test_returning.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc

import kvclient
from kvproto import kv_pb2
from tests.support import wire

KEYS = 500
_STEP_S = 0.01
_FRAME = 400
_TIMEOUT_S = 5.0


class Tally:
    """What became of operations."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        """By the name of the error; `ok` for those without."""
        self.took_s: dict[str, list[float]] = {}
        self.unhelpful = 0
        """Refusals that did not say when to come again."""

    @property
    def total(self) -> int:
        """How many operations ended."""
        return self.outcomes.total()

    @property
    def good(self) -> int:
        """How many were answered."""
        return self.outcomes["ok"]

    def percentile(self, outcome: str, part: float) -> float:
        """Return a percentile of the seconds that operations of an outcome took; 0 for none."""
        took = sorted(self.took_s.get(outcome, ()))
        return took[min(len(took) - 1, int(part * len(took)))] if took else 0.0


class Pressure:
    """Half puts, half gets of the same few hundred keys."""

    def __init__(self, client: kvclient.AsyncClient) -> None:
        self._client = client
        self._number = 0

    async def prepare(self) -> None:
        """Put every key once, a few at a time: nodes with the tightest bounds can take them."""
        for first in range(0, KEYS, 20):
            keys = map(_key, range(first, first + 20))
            await self._client.put_many(dict.fromkeys(keys, b"v" * 100))

    async def closed(self, callers: int, seconds: float) -> Tally:
        """So many callers, each of whom asks again once it is answered."""
        tally = Tally()
        end = time.monotonic() + seconds

        async def call() -> None:
            while time.monotonic() < end:
                await self._one(tally)

        await asyncio.gather(*(call() for _ in range(callers)))
        return tally

    async def open(self, per_s: float, seconds: float) -> Tally:
        """So many a second, whether or not earlier ones were answered: for loads that fit."""
        tally = Tally()
        began = time.monotonic()
        running: set[asyncio.Task[None]] = set()
        offered = 0
        while (elapsed := time.monotonic() - began) < seconds:
            while offered < per_s * elapsed:
                task = asyncio.create_task(self._one(tally))
                running.add(task)
                task.add_done_callback(running.discard)
                offered += 1
            await asyncio.sleep(_STEP_S)
        await asyncio.gather(*running)
        return tally

    async def burst(self, count: int) -> Tally:
        """So many at once."""
        tally = Tally()
        await asyncio.gather(*(self._one(tally) for _ in range(count)))
        return tally

    async def _one(self, tally: Tally) -> None:
        self._number += 1
        key, is_put = _key(self._number % KEYS), self._number % 2
        began = time.monotonic()
        outcome = "ok"
        try:
            if is_put:
                await self._client.put(key, b"v" * 100)
            elif await self._client.get(key) is None:
                outcome = "lost"
        except kvclient.Overloaded as error:
            outcome = "Overloaded"
            tally.unhelpful += error.retry_after <= 0
        except kvclient.KVError as error:
            outcome = type(error).__name__
        tally.outcomes[outcome] += 1
        tally.took_s.setdefault(outcome, []).append(time.monotonic() - began)


class Flood:
    """Bare frames to one node, so many operations a second, whatever the answers: no client at all.

    Costs a tenth of what a client does, so one process can ask for more than nodes can do.
    """

    def __init__(self, address: str) -> None:
        self.tally = Tally()
        self.offered = 0
        self._channel = grpc.aio.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        self._sent_at: dict[int, float] = {}
        self._is_over = False
        self._all_answered = asyncio.Event()

    async def run(self, per_s: float, seconds: float) -> None:
        """Offer load, then wait for the last answers; what is never answered is `lost`."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            # A node that was away for long ends its streams, and what was asked on them is lost.
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await self._run_once(per_s, began, seconds)
        self.tally.outcomes["lost"] += self.offered - self.tally.total
        await self._channel.close()

    async def _run_once(self, per_s: float, began: float, seconds: float) -> None:
        opened: Any = self._channel.stream_stream("/kvnode.v1.KV/Pipeline")
        call = opened()
        reader = asyncio.create_task(self._read(call))
        try:
            while (elapsed := time.monotonic() - began) < seconds:
                if self.offered < per_s * elapsed:
                    await call.write(self._frame())
                else:
                    await asyncio.sleep(_FRAME / per_s / 2)
            self._is_over = True
            if self.tally.total >= self.offered:
                self._all_answered.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(2 * _TIMEOUT_S):
                    await self._all_answered.wait()
        finally:
            call.cancel()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    def _frame(self) -> bytes:
        """Half reads, half writes."""
        first, half = self.offered, _FRAME // 2
        self._sent_at[first // _FRAME] = time.monotonic()
        self.offered += _FRAME
        keys = [_key((first + place) % KEYS).encode() for place in range(half)]
        frame = wire.puts(dict.fromkeys(keys, b"v" * 100), timestamp=wire.hlc())
        frame.puts.ClearField("id")
        frame.puts.id.extend(range(first + half, first + _FRAME))
        frame.gets.id.extend(range(first, first + half))
        frame.gets.key.extend(keys)
        frame.gets.timeout_ms.extend([int(1_000 * _TIMEOUT_S)] * half)
        frame.sent_ms = int(1_000 * time.monotonic())
        return frame.SerializeToString()

    async def _read(self, call: Any) -> None:
        while (data := await call.read()) is not grpc.aio.EOF:
            answer, now = kv_pb2.PipelineResponse.FromString(data), time.monotonic()
            for op_id in (*answer.gets.id, *answer.puts.id):
                self._count("ok", op_id, now)
            for failure in answer.failures:
                self._count(kv_pb2.ErrorCode.Name(failure.code), failure.id, now)
                is_load = failure.code == kv_pb2.OVERLOADED
                self.tally.unhelpful += is_load and failure.retry_after_ms == 0
            if self._is_over and self.tally.total >= self.offered:
                self._all_answered.set()

    def _count(self, outcome: str, op_id: int, now: float) -> None:
        self.tally.outcomes[outcome] += 1
        self.tally.took_s.setdefault(outcome, []).append(now - self._sent_at[op_id // _FRAME])


def _key(number: int) -> str:
    return f"k{number}"


def pin(pids: Iterable[int], cpu: int) -> None:
    """Have processes, with all their threads, run on one processor."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):  # a thread that ended meanwhile
                os.sched_setaffinity(int(task.name), {cpu})


def resident_mib(pid: int) -> float:
    """Return the memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
