"""Whether a cluster has converged: nothing differs between the owners of a key, and nothing will.

Decides by asking the cluster, where its nodes can tell (`AsyncClient.wait_converged`); else by
reading every key of the run with an explanation, over and over, until all of its owners answer with
the same versions.
Such reads mend what differs, so the second way also brings about what it waits for; it sees no
hints, and no keys that the run did not use.
Tests: tests/unit/client/test_testing_converge.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

from kvclient.aio import AsyncClient
from kvclient.errors import KVError
from kvclient.results import ReplicaReport

READERS = 64
_PAUSE_S = 0.2
_READ_S = 5.0
_HEARD = ("record", "absent")

Key = tuple[str, str]
"""A keyspace and a key in it."""


async def wait_converged(
    client: AsyncClient, keys: Iterable[Key], timeout_s: float
) -> float | None:
    """Wait until nothing differs; return after how many seconds, or None at the time-out."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        async with asyncio.timeout(timeout_s):
            if await _can_tell(client):
                await client.wait_converged(timeout_s)
            else:
                await _read_until_equal(client, list(keys))
    except (TimeoutError, KVError):
        return None
    return loop.time() - began


async def _can_tell(client: AsyncClient) -> bool:
    """Tell whether nodes know what keeps them from rest: they do not, in their first versions."""
    found = await client.convergence()
    return len(found.silent) < len(client.topology.members)


async def _read_until_equal(client: AsyncClient, keys: list[Key]) -> None:
    while keys := await _unequal(client, keys):  # noqa: ASYNC110 (nothing tells of agreement)
        await asyncio.sleep(_PAUSE_S)


async def _unequal(client: AsyncClient, keys: Iterable[Key]) -> list[Key]:
    """Return those whose owners differ, or do not all answer."""
    found: list[Key] = []
    waiting: Iterator[Key] = iter(keys)

    async def reader() -> None:
        for keyspace, key in waiting:
            if not await _is_equal(client, keyspace, key):
                found.append((keyspace, key))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(READERS):
            tasks.create_task(reader())
    return found


async def _is_equal(client: AsyncClient, keyspace: str, key: str) -> bool:
    n = client.topology.keyspaces[keyspace].n
    try:
        record = await client.keyspace(keyspace).get_record(key, r=n, explain=True, timeout=_READ_S)
    except KVError:
        return False
    return record is not None and record.explain is not None and agree(record.explain.replicas)


def agree(replicas: Iterable[ReplicaReport]) -> bool:
    """Tell whether all owners have answered, with the same versions."""
    owners = [each for each in replicas if each.is_primary]
    versions = {frozenset(each.versions) for each in owners}
    return len(versions) == 1 and all(each.answer in _HEARD for each in owners)
