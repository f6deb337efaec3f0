"""More load than nodes can take: offered at a rate whatever the answers, and what came of it.

Laws: every operation that was offered is counted once, under the name of its outcome; a get of a
key that was put before must find it. Its test file is tests/cluster/test_overload.py.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import kvclient

KEYS = 500
_STEP_S = 0.01


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
        """So many callers, each of whom asks again once it is answered; goodput is what counts."""
        tally = Tally()
        end = time.monotonic() + seconds

        async def call() -> None:
            while time.monotonic() < end:
                await self._one(tally)

        await asyncio.gather(*(call() for _ in range(callers)))
        return tally

    async def burst(self, count: int) -> Tally:
        """So many at once."""
        tally = Tally()
        await asyncio.gather(*(self._one(tally) for _ in range(count)))
        return tally

    async def open(self, per_s: float, seconds: float) -> Tally:
        """So many a second, whether or not earlier ones were answered."""
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


def _key(number: int) -> str:
    return f"k{number}"


def pin(pids: Iterable[int], cpu: int) -> None:
    """Have processes, with all their threads, run on one processor."""
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), {cpu})


def resident_mib(pid: int) -> float:
    """Return the memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
