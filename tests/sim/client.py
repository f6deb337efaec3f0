"""A client of the simulated cluster: one session, as kvnode's clients must behave.

What it decides: where to send, when to try again, when to stamp anew. Retries of a write reuse its
write id and its stamp. A put that comes back with a newer rival is done again as a new write,
stamped above the rival (docs/decisions/0004-newer-rival-restamping.md).
Laws: every operation ends by its deadline; `not applied` is said only if every attempt was
refused before any effect. Its tests are tests/sim/test_cluster.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from kvnode.core.context import open_context
from kvnode.core.hlc import Timestamp
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.messages import (
    ClientGet,
    ClientOps,
    ClientPut,
    ErrorCode,
    Failure,
    GetResult,
    Instant,
    NodeNumber,
    Outcome,
    PutResult,
    Result,
    SessionId,
)
from kvnode.core.versions import NOTHING_SEEN, Context, covers_all, join
from tests.sim.checks import FAILED, NOT_APPLIED, OK, UNCERTAIN, Read, Write
from tests.sim.cluster import CLUSTER_KEY, Cluster

DEADLINE_US = 5_000_000
PATIENCE_US = 1_500_000
"""After which a silent node is given up and another one asked."""
_PAUSE_US = (5_000, 60_000)
_LAST_ATTEMPT_US = 20_000
"""No further attempt begins this close to the deadline: its end would not be heard."""
_FINAL = (ErrorCode.INVALID_REQUEST, ErrorCode.UNKNOWN_KEYSPACE)
_FIRST_LOGICAL = 16


class Client:
    """One session."""

    def __init__(
        self,
        cluster: Cluster,
        number: int,
        *,
        lag_ms: int = 0,
        restamps: bool = True,
        restamps_retries: bool = False,
    ) -> None:
        self.cluster = cluster
        self.number = SessionId(number)
        self.restamps = restamps
        self.restamps_retries = restamps_retries
        """Also puts of which an earlier attempt may have been seen: unsound, to show that it is."""
        self.lag_ms = lag_ms
        """How far its idea of the cluster's time is behind, before it hears better."""
        self.seen: dict[StorageKey, Context] = {}
        self._last = Timestamp(0)
        self._requests: dict[int, Callable[[NodeNumber, Result], None]] = {}
        self._next_id = 0
        self._chance = cluster.chance(f"client {number}")
        cluster.clients[number] = self._hear

    # ---- operations ----------------------------------------------------------------------

    def put(
        self,
        key: bytes,
        value: bytes | None,
        *,
        at: NodeNumber | None = None,
        context: Read | None = None,
        patience_us: int = PATIENCE_US,
        wait: bool = True,
    ) -> Write:
        """Write (None: delete). `context`: of a read, explicitly; `wait`: until it has ended."""
        name = encode_key(self.cluster.keyspace.name, key)
        seen = self.seen.get(name, NOTHING_SEEN) if context is None else context.context
        write = Write(name, value, context is not None, seen, self.cluster.now_us)
        self.cluster.watch.writes.append(write)
        _Putting(self, write, patience_us).begin(at)
        if wait:
            self.cluster.run(2 * DEADLINE_US, until=lambda: write.outcome is not None)
            assert write.outcome is not None
        return write

    def delete(self, key: bytes, *, at: NodeNumber | None = None) -> Write:
        """Delete what the session has seen, and what is older."""
        return self.put(key, None, at=at)

    def get(
        self, key: bytes, *, at: NodeNumber | None = None, r: int = 0, wait: bool = True
    ) -> Read:
        """Read."""
        name = encode_key(self.cluster.keyspace.name, key)
        read = Read(name, self.cluster.now_us)
        self.cluster.watch.reads.append(read)
        _Getting(self, read, r or self.cluster.keyspace.r).begin(at)
        if wait:
            self.cluster.run(2 * DEADLINE_US, until=lambda: read.outcome is not None)
            assert read.outcome is not None
            self.cluster.watch.check_read(read)
        return read

    # ---- what operations use ---------------------------------------------------------------

    def stamp(self) -> Timestamp:
        """Return the next timestamp: what it last saw of the cluster's, or what time it thinks."""
        here = (self.cluster.wall_ms - self.lag_ms) << _FIRST_LOGICAL
        self._last = Timestamp(max(self._last + 1, here))
        return self._last

    def observe(self, stamp: int) -> None:
        """Never stamp below what was seen."""
        self._last = Timestamp(max(self._last, stamp))

    def learn(self, key: StorageKey, context: Context) -> None:
        """Remember what the session has now seen."""
        self.seen[key] = join(self.seen.get(key, NOTHING_SEEN), context)

    def new_write_id(self) -> bytes:
        """Return sixteen bytes that no other write has."""
        return self._chance.randbytes(16)

    def pause_us(self) -> int:
        """Return how long to wait before another attempt."""
        return self._chance.randint(*_PAUSE_US)

    def choose(self, key: StorageKey, avoid: NodeNumber | None) -> NodeNumber:
        """Return a node to ask: mostly an owner, not the one that just failed."""
        owners = self.cluster.owners(key)
        nodes = owners if self._chance.random() < 0.8 else tuple(self.cluster.hosts)
        return self._chance.choice([node for node in nodes if node != avoid] or list(nodes))

    def send(
        self,
        node: NodeNumber,
        make: Callable[[int], ClientOps],
        hear: Callable[[NodeNumber, Result], None],
    ) -> bool:
        """Send one request; returns whether the node was there at all."""
        host = self.cluster.hosts[node]
        if host.life is None:
            return False
        self._next_id += 1
        self._requests[self._next_id] = hear
        event = make(self._next_id)
        for request in (*event.gets, *event.puts):
            self.cluster.tell("request", self.number, node, request)
        host.later(self._chance.randint(100, 1_000), lambda: host.hear(event))
        return True

    def _hear(self, node: NodeNumber, result: Result) -> None:
        hear = self._requests.pop(result.id, None)
        if hear is not None:
            hear(node, result)


class _Putting:
    """A write on its way: attempts until it is ok, refused, or out of time."""

    def __init__(self, client: Client, write: Write, patience_us: int) -> None:
        self._client = client
        self._cluster = client.cluster
        self._write = write
        self._patience_us = patience_us
        self._deadline = Instant(write.began_us + DEADLINE_US)
        self._attempt = 0
        self._open = 0
        """Attempts that may have had an effect."""
        self._stamp_anew(0)

    def begin(self, at: NodeNumber | None) -> None:
        self._cluster.later(DEADLINE_US, self._on_deadline)
        self._try(at, None)

    def _stamp_anew(self, above: int) -> None:
        self._client.observe(above)
        self._write.write_ids.append(self._client.new_write_id())
        self._write.stamps.append(self._client.stamp())

    def _try(self, at: NodeNumber | None, avoid: NodeNumber | None) -> None:
        if self._write.outcome is not None:
            return
        if self._deadline - self._cluster.now_us < _LAST_ATTEMPT_US:
            return
        self._attempt += 1
        node = at if at is not None else self._client.choose(self._write.key, avoid)
        hear = partial(self._hear, len(self._write.write_ids))
        if self._client.send(node, self._request, hear):
            self._open += 1
            self._write.attempts += 1
            attempt = self._attempt
            self._cluster.later(self._patience_us, lambda: self._give_up(attempt, node))
        else:
            self._again(node)

    def _request(self, request_id: int) -> ClientOps:
        write, keyspace = self._write, self._cluster.keyspace
        put = ClientPut(
            id=request_id,
            key=write.key,
            keyspace=keyspace,
            w=keyspace.w,
            deadline_us=self._deadline,
            seen=write.seen,
            is_explicit=write.is_explicit,
            is_delete=write.value is None,
            value=write.value or b"",
            write_id=write.write_ids[-1],
            timestamp=write.stamps[-1],
            expires_ms=0,
        )
        return ClientOps(self._client.number, (), (put,))

    def _hear(self, generation: int, node: NodeNumber, result: Result) -> None:
        if self._write.outcome is not None or generation != len(self._write.write_ids):
            return
        match result:
            case PutResult():
                self._on_ok(result)
            case Failure():
                self._open -= result.outcome is Outcome.NOT_APPLIED
                if result.code in _FINAL:
                    self._end(NOT_APPLIED if not self._open else UNCERTAIN)
                else:
                    self._again(node)
            case GetResult():
                raise AssertionError("a read's answer to a write")

    def _on_ok(self, result: PutResult) -> None:
        write = self._write
        if write.acked_us is None:
            write.acked_us = self._cluster.now_us
        context = open_context(CLUSTER_KEY, write.key, result.context)
        if result.newer and self._may_stamp_anew():
            write.seen = join(write.seen, context)
            self._open = 0
            self._stamp_anew(result.newer + 1)
            self._try(None, None)
            return
        self._client.learn(write.key, context)
        write.may_lose = result.newer != 0
        self._end(OK)

    def _may_stamp_anew(self) -> bool:
        # Of several attempts one may have been seen and superseded: then the rival is its heir.
        if self._write.is_explicit or not self._client.restamps:
            return False
        return self._open == 1 or self._client.restamps_retries

    def _again(self, avoid: NodeNumber) -> None:
        self._attempt += 1
        self._cluster.later(self._client.pause_us(), lambda: self._try(None, avoid))

    def _give_up(self, attempt: int, node: NodeNumber) -> None:
        if attempt == self._attempt:
            self._try(None, node)

    def _on_deadline(self) -> None:
        if self._write.outcome is None:
            self._end(UNCERTAIN if self._open or self._write.acked_us is not None else NOT_APPLIED)

    def _end(self, outcome: str) -> None:
        self._write.outcome = outcome
        self._write.ended_us = self._cluster.now_us
        self._cluster.tell("ended", self._client.number, outcome, self._write.value)


class _Getting:
    """A read on its way."""

    def __init__(self, client: Client, read: Read, r: int) -> None:
        self._client = client
        self._cluster = client.cluster
        self._read = read
        self._r = r
        self._seen = client.seen.get(read.key, NOTHING_SEEN)
        self._deadline = Instant(read.began_us + DEADLINE_US)
        self._attempt = 0

    def begin(self, at: NodeNumber | None) -> None:
        self._cluster.later(DEADLINE_US, self._on_deadline)
        self._try(at, None)

    def _try(self, at: NodeNumber | None, avoid: NodeNumber | None) -> None:
        if self._read.outcome is not None:
            return
        self._attempt += 1
        node = at if at is not None else self._client.choose(self._read.key, avoid)
        if self._client.send(node, self._request, self._hear):
            attempt = self._attempt
            self._cluster.later(PATIENCE_US, lambda: self._give_up(attempt, node))
        else:
            self._again(node)

    def _request(self, request_id: int) -> ClientOps:
        get = ClientGet(
            id=request_id,
            key=self._read.key,
            keyspace=self._cluster.keyspace,
            r=self._r,
            deadline_us=self._deadline,
            seen=self._seen,
            watermark=b"",
            explain=False,
        )
        return ClientOps(self._client.number, (get,), ())

    def _hear(self, node: NodeNumber, result: Result) -> None:
        if self._read.outcome is not None:
            return
        match result:
            case GetResult():
                self._on_answer(result)
            case Failure():
                self._again(node)
            case PutResult():
                raise AssertionError("a write's answer to a read")

    def _on_answer(self, result: GetResult) -> None:
        read = self._read
        read.context = open_context(CLUSTER_KEY, read.key, result.context)
        if not covers_all(read.context, self._seen):
            self._cluster.fail(read.key, "a read is older than what its session has seen")
        siblings = result.detail.siblings if result.detail is not None else ()
        told = {None if each.is_tombstone else each.value for each in siblings}
        read.value = result.value
        read.values = frozenset(told) | {result.value}
        read.repaired = result.detail.repaired if result.detail is not None else ()
        self._client.observe(result.timestamp)
        self._client.learn(read.key, read.context)
        self._end(OK)

    def _again(self, avoid: NodeNumber) -> None:
        self._attempt += 1
        self._cluster.later(self._client.pause_us(), lambda: self._try(None, avoid))

    def _give_up(self, attempt: int, node: NodeNumber) -> None:
        if attempt == self._attempt:
            self._try(None, node)

    def _on_deadline(self) -> None:
        if self._read.outcome is None:
            self._end(FAILED)

    def _end(self, outcome: str) -> None:
        self._read.outcome = outcome
        self._cluster.tell("ended", self._client.number, outcome, self._read.value)
