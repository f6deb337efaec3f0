"""Client: the client for programs without an event loop, safe to use from any of their threads.

Decides nothing about requests: makes them, waits for them and gives the answers back. Laws: a call
returns or raises, whatever becomes of the thread behind it; `close` is quiet, idempotent, and
happens by itself when the program ends.
Tests: tests/unit/client/test_api.py.
Source: design, section 6.
Left out: coroutines; see AsyncClient.

Cost: a call wakes the shared thread and is woken by it, about 0.1 ms; from many threads at once
those wake-ups are shared, and `put_many` and `get_many` need one for all their keys.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self

from kvclient import _thread, answers, codec, request
from kvclient._thread import FORKED, LoopThread, generation
from kvclient.admin import Upkeep
from kvclient.aio import (
    CLOSED,
    DEFAULT_TIMEOUT_S,
    NO_SESSION,
    STATUS_TIMEOUT_S,
    SessionOption,
    make_session,
    pairs_of,
)
from kvclient.bounds import BOUNDS, Bounds
from kvclient.cluster import Cluster
from kvclient.operation import Operation
from kvclient.request import Items, Key, Value
from kvclient.results import Conflict, Metrics, Record, Status, WriteResult
from kvclient.routing import Topology, parse_seeds
from kvclient.session import Session

GRACE_S = 10.0
"""The thread finishes each call by its deadline; how much longer a call waits to complain."""
CLOSE_S = 5.0


class _Waiter:
    """Lets one thread wait for the loop's thread."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def done(self) -> bool:
        """The caller is always waiting."""
        return False

    def set_result(self, result: Any, /) -> None:
        """Wake the caller."""
        self._lock.release()

    def wait(self, timeout_s: float) -> None:
        if not self._lock.acquire(timeout=timeout_s + GRACE_S):
            raise RuntimeError("the client's thread does not answer")


class Port:
    """The connection behind a client and its views."""

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
        self._generation = generation()
        self._names: answers.AckNames | None = None
        self.thread = _thread.acquire()
        try:
            self.cluster = self.thread.call(_connect(seeds, session, bounds, timeout_s))
        except BaseException:
            _thread.release(self.thread)
            raise
        self._closer = weakref.finalize(self, _close, self.thread, self.cluster)

    def close(self) -> None:
        """Disconnect. Idempotent."""
        self._closer()

    @property
    def names(self) -> answers.AckNames:
        """Node ids for acknowledgements, by the topology in use."""
        names = self._names
        if names is None or names.topology is not self.cluster.topology:
            names = self._names = answers.AckNames(self.cluster.topology, self.bounds)
        return names

    def require_open(self) -> None:
        """Raises: RuntimeError if the client is closed or was taken through a fork."""
        if self._generation != generation():
            raise RuntimeError(FORKED)
        if not self._closer.alive:
            raise RuntimeError(CLOSED)

    def finish(self, operation: Operation, timeout: float | None, session: Session | None) -> None:
        """Submit one operation of a session and wait until it is finished."""
        self.require_open()
        timeout_s = self.timeout_s
        if timeout is not None:
            timeout_s = request.timeout_seconds(timeout, timeout_s)
        thread, cluster = self.thread, self.cluster
        operation.session = session
        operation.waiter = waiter = _Waiter()
        operation.deadline = thread.loop.time() + timeout_s
        thread.post(partial(cluster.submit, operation))
        try:
            waiter.wait(timeout_s)
        except BaseException:
            thread.post(partial(cluster.engine.abandon, operation))
            raise

    def finish_all(
        self, operations: Sequence[Operation], timeout: float | None, session: Session | None
    ) -> None:
        """Submit a batch of a session and wait until all of it is finished."""
        self.require_open()
        timeout_s = request.timeout_seconds(timeout, self.timeout_s)
        thread, cluster = self.thread, self.cluster
        deadline = thread.loop.time() + timeout_s
        for operation in operations:
            operation.deadline = deadline
            operation.session = session
        waiter = _Waiter()
        batch = answers.Batch(
            operations, submit_all=cluster.submit_all, waiter=waiter, bounds=self.bounds
        )
        thread.post(batch.begin)
        try:
            waiter.wait(timeout_s)
        except BaseException:
            thread.post(partial(_abandon, batch, cluster))
            raise


class Keyspace:
    """Gets and puts in one keyspace."""

    def __init__(self, port: Port, name: str, session: Session | None) -> None:
        self._port = port
        self._session = session
        self._name = request.keyspace_name(name)

    @property
    def name(self) -> str:
        """The keyspace's name."""
        return self._name

    def get(self, key: Key, *, r: int | None = None, timeout: float | None = None) -> bytes | None:
        """Return the value of a key, or None if it is absent.

        Raises: MultipleValues where the keyspace keeps concurrent values; KVError.
        """
        operation = request.get(self._name, key, r)
        self._port.finish(operation, timeout, self._session)
        return answers.value_of(operation)

    def get_record(
        self,
        key: Key,
        *,
        explain: bool = False,
        r: int | None = None,
        timeout: float | None = None,
    ) -> Record | None:
        """Return a key's value with its context; None if absent, unless it is to be explained."""
        operation = request.get(self._name, key, r, explain=explain)
        self._port.finish(operation, timeout, self._session)
        return answers.record_of(operation)

    def put(
        self,
        key: Key,
        value: Value,
        *,
        ttl: float | None = None,
        context: bytes | None = None,
        w: int | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Set a key. With a context, replace exactly what that has seen. `ttl` is in seconds."""
        operation = request.put(self._name, key, value, w, ttl=ttl, context=context)
        self._port.finish(operation, timeout, self._session)
        return answers.write_of(operation, self._port.names)

    def delete(
        self,
        key: Key,
        *,
        context: bytes | None = None,
        w: int | None = None,
        timeout: float | None = None,
    ) -> WriteResult:
        """Delete a key; deleting an absent one is no error."""
        operation = request.delete(self._name, key, w, context=context)
        self._port.finish(operation, timeout, self._session)
        return answers.write_of(operation, self._port.names)

    def put_many(
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
        self._port.finish_all(operations, timeout, self._session)
        names = self._port.names
        keys = [key for key, _ in pairs]
        return answers.all_of(operations, keys, lambda o: answers.write_of(o, names))

    def get_many(
        self, keys: Iterable[Key], *, r: int | None = None, timeout: float | None = None
    ) -> list[bytes | None]:
        """Return the values of many keys, in their order. Raises: PartialFailure likewise."""
        wanted = list(keys)
        operations = [request.get(self._name, key, r) for key in wanted]
        self._port.finish_all(operations, timeout, self._session)
        return answers.all_of(operations, wanted, answers.value_of)

    def __getitem__(self, key: Key) -> bytes:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: Key, value: Value) -> None:
        self.put(key, value)

    def __delitem__(self, key: Key) -> None:
        # Without KeyError: to know whether it was there would take a read, and be out of date.
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str | bytes):
            return False
        operation = request.get(self._name, key, None)
        self._port.finish(operation, None, self._session)
        if operation.error is not None:
            raise operation.error
        return operation.value is not None or bool(codec.live_values(operation))


class SessionClient(Keyspace):
    """The interface of a session, over a connection that others may use too.

    Client is one; further ones are made by `start_session`. Nothing needs to be closed.
    """

    def keyspace(self, name: str) -> Keyspace:
        """Return the same interface on another keyspace; connection and session are shared."""
        return Keyspace(self._port, name, self._session)

    def start_session(self, token: str | None = None) -> SessionClient:
        """Return the same interface over this connection, for a session of its own.

        For parts of a program that act for different users. It has seen nothing yet, or what a
        token of `session.export()` says.

        Raises: InvalidRequest if the token is damaged, or of another cluster.
        """
        self._port.require_open()
        session = Session(token, bounds=self._port.bounds)
        self._port.cluster.bind(session)
        return SessionClient(self._port, self._name, session)

    @property
    def session(self) -> Session:
        """What has been seen here."""
        if self._session is None:
            raise RuntimeError(NO_SESSION)
        return self._session


class Client(SessionClient, Upkeep):
    """A client of one cluster.

    Args:
        seeds: "host:port", a comma list of them, or an iterable; the rest is discovered.
        keyspace: of the client's own methods.
        timeout: seconds for each call that names none, and for finding the cluster now.
        session: a token to resume, None for a new session, False for none.

    Raises: Unavailable, saying what was tried, if no seed answers.
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
        request.keyspace_name(keyspace)
        seen = make_session(session, bounds)
        port = Port(
            parse_seeds(seeds),
            timeout_s=request.timeout_seconds(timeout, DEFAULT_TIMEOUT_S),
            session=seen,
            bounds=bounds,
        )
        super().__init__(port, keyspace, seen)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def metrics(self) -> Metrics:
        """Counters since the client connected."""
        return self._port.cluster.engine.metrics

    @property
    def topology(self) -> Topology:
        """The members and the order in which they are asked."""
        return self._port.cluster.topology

    def status(self, *, timeout: float = STATUS_TIMEOUT_S) -> dict[str, Status | None]:
        """Return what each node says about itself; None for one that does not answer."""
        self._port.require_open()
        timeout_s = request.timeout_seconds(timeout, STATUS_TIMEOUT_S)
        return self._port.thread.call(self._port.cluster.status(timeout_s))

    def conflicts(
        self,
        keyspace: str | None = None,
        *,
        state: Literal["open", "settled"] | None = None,
        timeout: float | None = None,
    ) -> list[Conflict]:
        """Return the keys with concurrent versions, of one keyspace or of all: those that are open,
        then those that were settled in the last days, unless one state is asked for."""
        self._port.require_open()
        timeout_s = request.timeout_seconds(timeout, self._port.timeout_s)
        return self._port.thread.call(
            self._port.cluster.conflicts(keyspace or "", state or "", timeout_s)
        )

    def close(self) -> None:
        """Disconnect. Calls of other threads end as at their deadline. Idempotent."""
        self._port.close()


async def _connect(
    addresses: tuple[str, ...], session: Session | None, bounds: Bounds, timeout_s: float
) -> Cluster:
    cluster = Cluster(addresses, session=session, bounds=bounds)
    try:
        await cluster.connect(timeout_s)
    except BaseException:
        await cluster.close()
        raise
    return cluster


def _abandon(batch: answers.Batch, cluster: Cluster) -> None:
    for operation in batch.unfinished():
        cluster.engine.abandon(operation)


def _close(thread: LoopThread, cluster: Cluster) -> None:
    """Close a client that its user closed, lost, or left open at the end of the program."""
    if thread.generation != generation():
        return  # the thread stayed with the parent process
    thread.finish(cluster.close(), timeout_s=CLOSE_S)
    _thread.release(thread)
