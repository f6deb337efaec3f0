"""Stores in memory for the tests of the load generator: one for workers, one with its own clock."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import kvclient
from kvnode.bench.store import Options, Store

ANSWER_NS = 50_000_000


class Memory:
    """Answers at once."""

    failures: tuple[type[Exception], ...] = (kvclient.KVError,)

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.asked = 0

    async def put(self, key: bytes, value: bytes, /) -> None:
        await self._answer()
        self.values[key] = value

    async def get(self, key: bytes, /) -> bytes | None:
        await self._answer()
        return self.values.get(key)

    async def modify(self, key: bytes, value: bytes) -> bool:
        found = await self.get(key)
        await self.put(key, value)
        return found is not None

    async def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        await self._answer()
        return [self.values.get(key) for key in keys]

    def counters(self) -> Mapping[str, int]:
        return {"asked": self.asked}

    async def close(self) -> None: ...

    async def _answer(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)


async def connect(where: str, options: Options) -> Store:
    """Return an empty store. Raises: ConnectionError, for the address "nowhere"."""
    if where == "nowhere":
        raise ConnectionError("nobody there")
    return Memory()


class Slow(Memory):
    """Answers after ANSWER_NS of a clock that moves when nothing else can happen."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ns = 0
        self.most_waiting = 0
        self.fault: Exception | None = None
        self.frozen_ns = 0
        """Nothing is answered before this instant."""
        self._alarms: list[tuple[int, int, asyncio.Future[None]]] = []
        self._is_ticking = False
        self._waiting = 0

    def clock(self) -> int:
        return self.now_ns

    async def sleep(self, seconds: float) -> None:
        await self._until(self.now_ns + round(seconds * 1e9))

    async def _answer(self) -> None:
        self.asked += 1
        self._waiting += 1
        self.most_waiting = max(self.most_waiting, self._waiting)
        await self._until(max(self.now_ns, self.frozen_ns) + ANSWER_NS)
        self._waiting -= 1
        if self.fault is not None:
            raise self.fault

    async def _until(self, at_ns: int) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._alarms.append((at_ns, len(self._alarms), waiter))
        if not self._is_ticking:
            self._is_ticking = True
            loop.call_soon(self._settle, 3)
        await waiter

    def _settle(self, turns: int) -> None:
        """Let whoever can still do something do so; then move the clock to the next alarm."""
        if turns:
            asyncio.get_running_loop().call_soon(self._settle, turns - 1)
            return
        self._is_ticking = False
        self.now_ns = min(at_ns for at_ns, _, _ in self._alarms)
        due = [one for one in self._alarms if one[0] <= self.now_ns]
        self._alarms = [one for one in self._alarms if one[0] > self.now_ns]
        for _, _, waiter in due:
            if not waiter.done():
                waiter.set_result(None)
        if self._alarms and not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_soon(self._settle, 3)
