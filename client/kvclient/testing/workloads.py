"""Workloads: what clients do while faults happen, each made so that its history proves something.

| name | what its workers do | what its history shows |
|---|---|---|
| `set` | put new keys, each once | a lost write |
| `register` | rewrite a key of their own, read it and others' | a read below what was seen |
| `context` | put shared keys with what they read; siblings are kept | a successor that lost |
| `rewrite` | put, delete and rewrite keys of their own | a zombie |
| `mixed` | read, put, delete shared keys, rewrite one of their own | what a user's load does |

Laws: every value is a token that no other write has; a worker does one thing at a time; what it
does is up to its own chance, so that a seed repeats it (not its timing); nothing begins before its
turn at the rate. An error of the store is recorded and never raised.
Tests: tests/unit/client/test_testing_workloads.py.
Left out: what a history must show (kvclient/testing/checks.py).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from kvclient.aio import AsyncSessionClient
from kvclient.errors import KVError
from kvclient.results import Record, WriteResult
from kvclient.testing.history import DEFAULT, Op, Recorder

STRICT = "strict"
KEPT = "kept"
KEYSPACES = f'[keyspace.{STRICT}]\nsloppy = false\n\n[keyspace.{KEPT}]\nresolve = "siblings"\n'
"""For cluster.toml: what the workloads need besides `default`."""

SHARED_KEYS = 1_000
KEPT_KEYS = 16
WRITES_OF_A_KEY = 2_000
"""A worker's own key is followed by a new one after so many: checking is quadratic in them."""
_TRIES = 10


@dataclass(slots=True)
class Tally:
    """What has happened so far, for whoever watches."""

    done: int = 0
    failed: int = 0
    worst_ms: float = 0.0
    latest_worst_ms: float = 0.0
    """Since it was last set to 0."""

    def add(self, op: Op) -> None:
        """Count an operation that has ended."""
        took_ms = op.latency_ms or 0.0
        self.done += 1
        self.failed += op.end != "ok"
        self.worst_ms = max(self.worst_ms, took_ms)
        self.latest_worst_ms = max(self.latest_worst_ms, took_ms)


class Pace:
    """Gives turns at an even rate, to all workers together."""

    BACKLOG_S = 0.1
    """Turns that nobody took are kept for so long; older ones are gone."""

    def __init__(self, rate: float) -> None:
        """Give `rate` turns a second."""
        self._gap_s = 1.0 / rate
        self._next_s = 0.0

    async def turn(self) -> None:
        """Wait for the next turn."""
        now_s = asyncio.get_running_loop().time()
        self._next_s = max(self._next_s + self._gap_s, now_s - self.BACKLOG_S)
        if self._next_s > now_s:
            await asyncio.sleep(self._next_s - now_s)


class Worker:
    """One worker's operations, each recorded. It is one session: one user."""

    def __init__(
        self,
        number: int,
        session: AsyncSessionClient,
        recorder: Recorder,
        *,
        chance: random.Random,
        pace: Pace,
        tally: Tally,
        keyspace: str = DEFAULT,
        place: int = 0,
        peers: int = 1,
    ) -> None:
        self.number = number
        """In the history, and in every token."""
        self.place = place
        """Among those that do the same, from 0."""
        self.peers = peers
        """How many do the same, this one included."""
        self.chance = chance
        self.keyspace = keyspace
        self.count = 0
        """Writes so far."""
        self._space = session.keyspace(keyspace)
        self._recorder = recorder
        self._pace = pace
        self._tally = tally

    async def put(self, key: str, *, context: Record | None = None, read: Op | None = None) -> Op:
        """Put a new token; with a context, name the get that gave it."""
        self.count += 1
        token = f"{self.number}.{self.count}"
        given = None if context is None else context.context
        op = await self._begun("put", key, value=token, context=None if read is None else read.op)
        return await self._written(op, self._space.put(key, token.encode(), context=given))

    async def delete(self, key: str) -> Op:
        """Delete a key."""
        op = await self._begun("delete", key)
        return await self._written(op, self._space.delete(key))

    async def get(self, key: str) -> tuple[Op, Record | None]:
        """Read a key; return also its record, which is None when absent or after a failure."""
        op = await self._begun("get", key)
        try:
            record = await self._space.get_record(key)
        except KVError as error:
            self._recorder.failed(op, error)
            record = None
        else:
            self._recorder.ok(op, values_of(record, is_kept=self.keyspace == KEPT))
        self._tally.add(op)
        return op, record

    async def _begun(
        self, f: str, key: str, *, value: str | None = None, context: int | None = None
    ) -> Op:
        await self._pace.turn()
        return self._recorder.invoke(
            self.number, f, key, value=value, keyspace=self.keyspace, context=context
        )

    async def _written(self, op: Op, write: Awaitable[WriteResult]) -> Op:
        try:
            result = await write
        except KVError as error:
            self._recorder.failed(op, error)
        else:
            self._recorder.ok(op, nodes=result.acked_by)
        self._tally.add(op)
        return op


def values_of(record: Record | None, *, is_kept: bool) -> list[str]:
    """Return the tokens that a read returned: the winner, or all siblings where they are kept."""
    if record is None:
        return []
    if is_kept and record.siblings:
        return [each.value.decode() for each in record.siblings if not each.is_tombstone]
    return [] if record.value is None else [record.value.decode()]


# ---- what workers do ---------------------------------------------------------------------------


async def _step_set(worker: Worker) -> None:
    """Put a new key; now and then look at an old one."""
    await worker.put(f"s{worker.place}.{worker.count}")
    if worker.chance.random() < 0.2:
        await worker.get(f"s{worker.place}.{worker.chance.randrange(worker.count)}")


def _own_key(worker: Worker, letter: str, place: int | None = None) -> str:
    """Return the key that a worker rewrites now; that of another, if it is as far."""
    place = worker.place if place is None else place
    return f"{letter}{place}.{worker.count // WRITES_OF_A_KEY}"


async def _step_register(worker: Worker) -> None:
    """Count one up and look; now and then look at the key of somebody else."""
    key = _own_key(worker, "r")
    await worker.put(key)
    await worker.get(key)
    if worker.chance.random() < 0.2:
        await worker.get(_own_key(worker, "r", worker.chance.randrange(worker.peers)))


async def _prepare_context(worker: Worker) -> None:
    """Give every shared key a first value: later puts have a context each."""
    for number in range(worker.place, KEPT_KEYS, worker.peers):
        for _ in range(_TRIES):
            if (await worker.put(f"c{number}")).end == "ok":
                break


async def _step_context(worker: Worker) -> None:
    """Replace exactly what is there, as far as this worker knows."""
    key = f"c{worker.chance.randrange(KEPT_KEYS)}"
    read, record = await worker.get(key)
    if record is not None:
        await worker.put(key, context=record, read=read)


async def _step_rewrite(worker: Worker) -> None:
    """Put, look, delete, look: each kind of look left out now and then."""
    key = f"{_own_key(worker, 'd')}.{worker.chance.randrange(4)}"
    await worker.put(key)
    if worker.chance.random() < 0.5:
        await worker.get(key)
    await worker.delete(key)
    if worker.chance.random() < 0.8:
        await worker.get(key)


async def _step_mixed(worker: Worker) -> None:
    """Read, put or delete a shared key; one time in ten rewrite and read the worker's own."""
    what = worker.chance.random()
    key = f"m{worker.chance.randrange(SHARED_KEYS)}"
    if what < 0.1:
        await worker.put(_own_key(worker, "o"))
        await worker.get(_own_key(worker, "o"))
    elif what < 0.15:
        await worker.delete(key)
    elif what < 0.6:
        await worker.put(key)
    else:
        await worker.get(key)


@dataclass(frozen=True, slots=True)
class Workload:
    """What one kind of worker does: `prepare` once, before all, then `step` until the end."""

    name: str
    step: Callable[[Worker], Awaitable[None]]
    prepare: Callable[[Worker], Awaitable[None]] | None = None
    keeps_siblings: bool = False


WORKLOADS: Mapping[str, Workload] = {
    each.name: each
    for each in (
        Workload("set", _step_set),
        Workload("register", _step_register),
        Workload("context", _step_context, _prepare_context, keeps_siblings=True),
        Workload("rewrite", _step_rewrite),
        Workload("mixed", _step_mixed),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much of what.

    Attributes:
        workloads: names; the workers are dealt out to them in turn.
        seconds: for how long new operations begin.
        rate: operations a second, all workers together.
        workers: how many operations may be under way at once; each is a user's, with a session.
        clients: connections that they share. Fewer make larger frames: what users of one connection
            ask for travels together, and frames cost more than operations, here and at the nodes.
        seed: of all that is left to chance.
        timeout_s: of each operation.
        is_strict: use the keyspace without stand-ins, where real time counts.
    """

    workloads: tuple[str, ...] = ("mixed",)
    seconds: float = 30.0
    rate: float = 500.0
    workers: int = 32
    clients: int = 2
    seed: int = 0
    timeout_s: float = 5.0
    is_strict: bool = False

    def keyspace_of(self, workload: Workload) -> str:
        """Return where a workload works."""
        if workload.keeps_siblings:
            return KEPT
        return STRICT if self.is_strict else DEFAULT
