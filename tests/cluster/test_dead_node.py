"""A node that dies costs the requests in flight milliseconds, and not one of them fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest

import kvclient
from tests.support.nodes import Nodes

_WORKERS = 200
_OPERATIONS = 4_000
_WORST_S = 2.0
"""Generous: the shared machines of CI stall. On an idle one it is below a tenth of that."""


class Run:
    """What became of the operations so far."""

    def __init__(self, client: kvclient.AsyncClient) -> None:
        self.client = client
        self.done = 0
        self.worst_s = 0.0
        self.failed: list[kvclient.KVError] = []
        self.wrong: list[str] = []
        self.is_over = False
        self._goal = 0
        self._is_reached = asyncio.Event()

    async def work(self, number: int) -> None:
        """Put and get one key in turn until all is over."""
        key, count = f"key{number}", 0
        while not self.is_over:
            count += 1
            await self.timed(self.client.put(key, b"%d" % count))
            found = await self.timed(self.client.get(key))
            if found != b"%d" % count:
                self.wrong.append(f"{key}: {found!r} after putting {count}")

    async def timed(self, call: object) -> object:
        began = time.monotonic()
        try:
            return await call  # type: ignore[misc]
        except kvclient.KVError as error:
            self.failed.append(error)
            return None
        finally:
            self.done += 1
            if self.done >= self._goal:
                self._is_reached.set()
            self.worst_s = max(self.worst_s, time.monotonic() - began)

    async def reach(self, count: int) -> None:
        """Wait until so many operations are done."""
        self._goal, self._is_reached = count, asyncio.Event()
        async with asyncio.timeout(60):
            await self._is_reached.wait()


def test_a_death_under_two_hundred_requests_fails_none_of_them(
    cluster: Callable[..., Nodes], record_testsuite_property: Callable[[str, object], None]
) -> None:
    nodes = cluster(3)
    run = asyncio.run(killing(nodes))
    print(f"worst of {run.done} operations around a death: {1_000 * run.worst_s:.0f} ms")
    record_testsuite_property("worst_ms_around_a_death", round(1_000 * run.worst_s))
    assert run.failed == []
    assert run.wrong == []
    assert run.worst_s < _WORST_S


async def killing(nodes: Nodes) -> Run:
    async with kvclient.AsyncClient(nodes.seeds, timeout=10.0) as client:
        run = Run(client)
        async with asyncio.TaskGroup() as tasks:
            for number in range(_WORKERS):
                tasks.create_task(run.work(number))
            await run.reach(_OPERATIONS)
            await asyncio.to_thread(nodes.kill, "n2")
            await run.reach(run.done + _OPERATIONS)
            run.is_over = True
    return run


@pytest.mark.parametrize("victim", ["n1", "n3"])
def test_a_single_request_after_a_death_is_answered_at_once(
    cluster: Callable[..., Nodes], victim: str
) -> None:
    nodes = cluster(3)
    with nodes.client() as client:
        for number in range(50):
            client.put(f"k{number}", b"v")
        nodes.kill(victim)
        began = time.monotonic()
        assert all(client.get(f"k{number}") == b"v" for number in range(50))
    assert time.monotonic() - began < _WORST_S
