"""AsyncClient: the client for programs that have an event loop.

Decides nothing about requests: makes them, waits for them and gives the answers back. Laws: a
cancelled call leaves nothing behind here (a put may have left: it is uncertain); all views share
one connection.
Tests: tests/unit/client/test_aio.py.
Source: design, section 6.
Left out: item access, which cannot be awaited.
"""

# ruff: noqa: ASYNC109 -- a time-out on every call is part of the interface (design, section 6)
from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

from kvclient import answers, request
from kvclient._thread import FORKED, generation
from kvclient.admin import AsyncUpkeep
from kvclient.bounds import BOUNDS, Bounds
from kvclient.cluster import Cluster
from kvclient.operation import Operation
from kvclient.request import Items, Key, Value
from kvclient.results import Conflict, Metrics, Record, Status, WriteResult
from kvclient.routing import Topology, parse_seeds
from kvclient.session import Session

DEFAULT_TIMEOUT_S = 5.0
STATUS_TIMEOUT_S = 1.0
CLOSED = "this client is closed"
NO_SESSION = "this client keeps no session (session=False)"

SessionOption = str | Literal[False] | None
"""None: a new session. A token: resume that one. False: none at all."""


def make_session(option: SessionOption, bounds: Bounds) -> Session | None:
    """Return the session that a client's option asks for."""
    return None if option is False else Session(option, bounds=bounds)


def pairs_of(items: Items) -> list[tuple[Key, Value]]:
    """Return a mapping's items, or the pairs themselves."""
    pairs: Iterable[Any] = items.items() if isinstance(items, Mapping) else items
    return list(pairs)


class AsyncPort:
    """The connection behind a client and its views, made when it is first needed."""

    def __init__(
        self,
        seeds: tuple[str, ...],
        *,
        timeout_s: float,
        session: Session | None,
        bounds: Bounds,
    ) -> None:
        self.timeout_s = timeout_s
        self.bounds = bounds
        self.cluster: Cluster | None = None
        self._session = session
        self._seeds = seeds
        self._generation = generation()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connecting = asyncio.Lock()
        self._is_closed = False
        self._names: answers.AckNames | None = None

    @property
    def topology(self) -> Topology:
        """The topology in use. Raises: RuntimeError before the first call."""
        if self.cluster is None:
            raise RuntimeError("this client is not connected yet")
        return self.cluster.topology

    async def close(self) -> None:
        """Disconnect. Idempotent."""
        self._is_closed = True
        if self.cluster is not None and self._generation == generation():
            await self.cluster.close()

    @property
    def names(self) -> answers.AckNames:
        """Node ids for acknowledgements, by the topology in use."""
        names = self._names
        if names is None or names.topology is not self.topology:
            names = self._names = answers.AckNames(self.topology, self.bounds)
        return names

    async def finish(
        self, operation: Operation, timeout: float | None, session: Session | None
    ) -> None:
        """Submit one operation of a session and wait until it is finished."""
        timeout_s = self.timeout_s
        if timeout is not None:
            timeout_s = request.timeout_seconds(timeout, timeout_s)
        loop = asyncio.get_running_loop()
        operation.deadline = loop.time() + timeout_s
        if self._loop is not loop or self._is_closed or self._generation != generation():
            await self.connected(timeout_s)
        cluster = self.cluster
        assert cluster is not None
        if session is not None and not session.is_bound:
            cluster.bind(session)
        operation.session = session
        waiter: asyncio.Future[Operation] = loop.create_future()
        operation.waiter = waiter
        cluster.submit(operation)
        try:
            await waiter
        except BaseException:
            cluster.engine.abandon(operation)
            raise

    async def finish_all(
        self, operations: Sequence[Operation], timeout: float | None, session: Session | None
    ) -> None:
        """Submit a batch of a session and wait until all of it is finished."""
        timeout_s = request.timeout_seconds(timeout, self.timeout_s)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        cluster = await self.connected(timeout_s)
        if session is not None and not session.is_bound:
            cluster.bind(session)
        for operation in operations:
            operation.deadline = deadline
            operation.session = session
        waiter = loop.create_future()
        batch = answers.Batch(
            operations, submit_all=cluster.submit_all, waiter=waiter, bounds=self.bounds
        )
        batch.begin()
        try:
            await waiter
        except BaseException:
            for operation in batch.unfinished():
                cluster.engine.abandon(operation)
            raise

    async def connected(self, timeout_s: float) -> Cluster:
        """Return the connection, made if there is none yet. Raises: RuntimeError if misused."""
        if self._generation != generation():
            raise RuntimeError(FORKED)
        if self._is_closed:
            raise RuntimeError(CLOSED)
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise RuntimeError("this client belongs to another event loop; make one for each")
        async with self._connecting:
            if self.cluster is None:
                cluster = Cluster(self._seeds, session=self._session, bounds=self.bounds)
                try:
                    await cluster.connect(timeout_s)
                except BaseException:
                    await cluster.close()
                    raise
                self.cluster, self._loop = cluster, loop
            return self.cluster


class AsyncKeyspace:
    """Gets and puts in one keyspace."""

    def __init__(self, port: AsyncPort, name: str, session: Session | None) -> None:
        self._port = port
        self._session = session
        self._name = request.keyspace_name(name)

    @property
    def name(self) -> str:
        """The keyspace's name."""
        return self._name

    async def get(
        self, key: Key, *, r: int | None = None, timeout: float | None = None
    ) -> bytes | None:
        """Return the value of a key, or None if it is absent.

        Raises: MultipleValues where the keyspace keeps concurrent values; KVError.
        """
        operation = request.get(self._name, key, r)
        await self._port.finish(operation, timeout, self._session)
        return answers.value_of(operation)

    async def get_record(
        self,
        key: Key,
        *,
        explain: bool = False,
        r: int | None = None,
        timeout: float | None = None,
    ) -> Record | None:
        """Return a key's value with its context; None if absent, unless it is to be explained."""
        operation = request.get(self._name, key, r, explain=explain)
        await self._port.finish(operation, timeout, self._session)
        return answers.record_of(operation)

    async def put(
        self,
        key: Key,
        value: Value,
        *,
        ttl: float | None = None,
        context: bytes | None = None,
        w: int | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Set a key. With a context, replace exactly what that has seen. `ttl` is in seconds.

        A call that is cancelled may or may not have taken effect.
        """
        operation = request.put(self._name, key, value, w, ttl=ttl, context=context)
        await self._port.finish(operation, timeout, self._session)
        return answers.write_of(operation, self._port.names)

    async def delete(
        self,
        key: Key,
        *,
        context: bytes | None = None,
        w: int | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Delete a key; deleting an absent one is no error."""
        operation = request.delete(self._name, key, w, context=context)
        await self._port.finish(operation, timeout, self._session)
        return answers.write_of(operation, self._port.names)

    async def put_many(
        self,
        items: Items,
        *,
        ttl: float | None = None,
        w: int | None = None,
        timeout: float | None = None,
    ) -> list[WriteResult]:
        """Set many keys at once, each for itself. Raises: PartialFailure with each key's result."""
        pairs = pairs_of(items)
        operations = [request.put(self._name, key, value, w, ttl=ttl) for key, value in pairs]
        await self._port.finish_all(operations, timeout, self._session)
        names = self._port.names
        keys = [key for key, _ in pairs]
        return answers.all_of(operations, keys, lambda o: answers.write_of(o, names))

    async def get_many(
        self, keys: Iterable[Key], *, r: int | None = None, timeout: float | None = None
    ) -> list[bytes | None]:
        """Return the values of many keys, in their order. Raises: PartialFailure likewise."""
        wanted = list(keys)
        operations = [request.get(self._name, key, r) for key in wanted]
        await self._port.finish_all(operations, timeout, self._session)
        return answers.all_of(operations, wanted, answers.value_of)


class AsyncSessionClient(AsyncKeyspace):
    """The interface of a session, over a connection that others may use too.

    AsyncClient is one; further ones are made by `start_session`. Nothing needs to be closed.
    """

    def keyspace(self, name: str) -> AsyncKeyspace:
        """Return the same interface on another keyspace; connection and session are shared."""
        return AsyncKeyspace(self._port, name, self._session)

    def start_session(self, token: str | None = None) -> AsyncSessionClient:
        """Return the same interface over this connection, for a session of its own.

        For parts of a program that act for different users. It has seen nothing yet, or what a
        token of `session.export()` says.

        Raises: InvalidRequest if the token is damaged; if it is another cluster's, its calls do.
        """
        session = Session(token, bounds=self._port.bounds)
        return AsyncSessionClient(self._port, self._name, session)

    @property
    def session(self) -> Session:
        """What has been seen here."""
        if self._session is None:
            raise RuntimeError(NO_SESSION)
        return self._session


class AsyncClient(AsyncSessionClient, AsyncUpkeep):
    """A client of one cluster, in the running event loop.

    Args:
        seeds: "host:port", a comma list of them, or an iterable; the rest is discovered.
        keyspace: of the client's own methods.
        timeout: seconds for each call that names none.
        session: a token to resume, None for a new session, False for none.

    It connects at `async with`, or with its first call, within that call's time-out.
    """

    def __init__(
        self,
        seeds: str | Iterable[str],
        *,
        keyspace: str = "default",
        timeout: float = DEFAULT_TIMEOUT_S,
        session: SessionOption = None,
        bounds: Bounds = BOUNDS,
    ) -> None:
        seen = make_session(session, bounds)
        port = AsyncPort(
            parse_seeds(seeds),
            timeout_s=request.timeout_seconds(timeout, DEFAULT_TIMEOUT_S),
            session=seen,
            bounds=bounds,
        )
        super().__init__(port, keyspace, seen)

    async def __aenter__(self) -> Self:
        await self._port.connected(self._port.timeout_s)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def metrics(self) -> Metrics:
        """Counters since the client connected."""
        cluster = self._port.cluster
        return cluster.engine.metrics if cluster else Metrics()

    @property
    def topology(self) -> Topology:
        """The members and the order in which they are asked."""
        return self._port.topology

    async def status(self, *, timeout: float = STATUS_TIMEOUT_S) -> dict[str, Status | None]:
        """Return what each node says about itself; None for one that does not answer."""
        timeout_s = request.timeout_seconds(timeout, STATUS_TIMEOUT_S)
        return await (await self._port.connected(timeout_s)).status(timeout_s)

    async def conflicts(
        self,
        keyspace: str | None = None,
        *,
        state: Literal["open", "settled"] | None = None,
        timeout: float | None = None,
    ) -> list[Conflict]:
        """Return the keys with concurrent versions, of one keyspace or of all: those that are open,
        then those that were settled in the last days, unless one state is asked for."""
        timeout_s = request.timeout_seconds(timeout, self._port.timeout_s)
        cluster = await self._port.connected(timeout_s)
        return await cluster.conflicts(keyspace or "", state or "", timeout_s)

    async def close(self) -> None:
        """Disconnect. Calls under way end as at their deadline. Idempotent."""
        await self._port.close()
