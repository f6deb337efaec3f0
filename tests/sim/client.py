"""A client of the simulated cluster: the real client's engine, session and codec in virtual time.

What it decides: nothing of its own. Where to send, when to try again, when to stamp anew and what
a session has seen are kvclient's; connections are opened, break and stall here as they would in
kvclient.stream. Laws: every operation ends by its deadline, once; no read is older than what its
session has seen, unless its bounds made it forget. Its tests are tests/sim/test_client.py,
tests/sim/test_cluster.py.
Left out: discovery, changes of the topology, bulk streams.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import partial
from typing import Any

from kvclient import codec
from kvclient.bounds import BOUNDS, Bounds
from kvclient.clock import hlc_of_ms
from kvclient.engine import Engine
from kvclient.operation import GET_EXPLAIN, PUT_DELETE, PUT_EXPLICIT, Lane, LaneState, Operation
from kvclient.session import Session
from kvnode.core.context import open_watermark, seal_context
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.messages import NodeNumber, SessionId
from kvnode.core.versions import NOTHING_SEEN, Context, Dot, covers, covers_all, join
from kvnode.runtime.topology_codec import encode_topology
from kvproto import kv_pb2
from tests.sim.checks import FAILED, OK, Read, Write
from tests.sim.cluster import CLUSTER_KEY, Cluster
from tests.sim.front import Front

DEADLINE_US = 5_000_000
_DELAY_US = (100, 1_000)
_SECOND_US = 1_000_000
_BEAT_S = 0.1
"""How often a node that owes an answer says at least that it lives."""


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
        bounds: Bounds = BOUNDS,
    ) -> None:
        self.cluster = cluster
        self.bounds = bounds
        self.number = number
        self.restamps = restamps
        self.restamps_retries = restamps_retries
        """Also puts of which an earlier attempt may have been seen: unsound, to show that it is."""
        self.prefers: NodeNumber | None = None
        """Asked rather than others, whatever the topology says."""
        self.deaf_to: set[NodeNumber] = set()
        """Nodes that are taken for silent as soon as they owe an answer for a while."""
        self.cut_from: set[NodeNumber] = set()
        """Nodes to and from which nothing gets through until they are mended."""
        self.seen: dict[StorageKey, Context] = {}
        """What the session has been told, to hold its reads to it."""
        self.chance = random.Random(f"{cluster.seed} client {number}")
        self._pinned: dict[int, NodeNumber] = {}
        self._alarm = 0
        self.engine = self._new_engine(lag_ms)

    def _new_engine(self, lag_ms: int) -> Engine:
        cluster = self.cluster
        engine = Engine(
            session=Session(bounds=self.bounds),
            rng=random.Random(f"{cluster.seed} attempts of client {self.number}"),
            random_bytes=random.Random(f"{cluster.seed} writes of client {self.number}").randbytes,
            alarm=self._set_alarm,
            suspect=lambda lane: self.streams[lane.number].suspect(),
            bounds=self.bounds,
        )
        assert engine.session is not None
        self.engine = engine
        engine.clock.observe(hlc_of_ms(cluster.wall_ms - lag_ms), self.now_s)
        topology = codec.topology_of(encode_topology(cluster.topology))
        engine.session.bind(topology.cluster_id, topology.partition_bits)
        self.streams = {each.number: Stream(self, each.number) for each in topology.members}
        lanes = {number: stream.lane for number, stream in self.streams.items()}
        engine.lanes = list(lanes.values())
        engine.router.install(topology, lanes)
        choose = engine.router.choose
        engine.router.choose = lambda operation, now: (  # type: ignore[method-assign]
            self._choose(operation) or choose(operation, now)
        )
        for stream in self.streams.values():
            stream.connect()
        return engine

    # ---- operations ----------------------------------------------------------------------

    def put(
        self,
        key: bytes,
        value: bytes | None,
        *,
        keyspace: str = "",
        at: NodeNumber | None = None,
        context: Read | None = None,
        w: int = 0,
        ttl_ms: int = 0,
        timeout_us: int = DEADLINE_US,
        wait: bool = True,
    ) -> Write:
        """Write (None: delete).

        `at`: the node that is asked first; `context`: of a read, explicitly; `wait`: until it ends.
        """
        keyspace = keyspace or self.cluster.keyspace.name
        name = encode_key(keyspace, key)
        explicit = None if context is None else seal_context(CLUSTER_KEY, name, context.context)
        flags = (PUT_DELETE if value is None else 0) | (PUT_EXPLICIT if explicit else 0)
        operation = Operation(
            keyspace,
            key,
            is_put=True,
            value=value,
            quorum=w,
            flags=flags,
            context=explicit or b"",
            ttl_ms=ttl_ms,
        )
        write = Write(name, value, explicit is not None, NOTHING_SEEN, self.cluster.now_us, w=w)
        write.client = self.number
        self.cluster.watch.began(write)
        self._submit(operation, _Putting(self, operation, write), at, timeout_us)
        if wait:
            self._wait(write)
        return write

    def delete(self, key: bytes, *, at: NodeNumber | None = None) -> Write:
        """Delete what the session has seen, and what is older."""
        return self.put(key, None, at=at)

    def get(
        self,
        key: bytes,
        *,
        keyspace: str = "",
        at: NodeNumber | None = None,
        r: int = 0,
        explain: bool = False,
        timeout_us: int = DEADLINE_US,
        wait: bool = True,
        then: Callable[[Read], None] | None = None,
    ) -> Read:
        """Read; `then` is called when it has ended."""
        keyspace = keyspace or self.cluster.keyspace.name
        flags = GET_EXPLAIN if explain else 0
        operation = Operation(keyspace, key, is_put=False, quorum=r, flags=flags)
        read = Read(encode_key(keyspace, key), self.cluster.now_us, r=r, client=self.number)
        self.cluster.watch.began(read)
        self._submit(operation, _Getting(self, operation, read, then), at, timeout_us)
        if wait:
            self._wait(read)
        return read

    def _submit(
        self, operation: Operation, waiter: Any, at: NodeNumber | None, timeout_us: int
    ) -> None:
        operation.waiter = waiter
        operation.deadline = (self.cluster.now_us + timeout_us) / _SECOND_US
        for stream in self.streams.values():
            stream.look(self.now_s)
        if at is not None:
            self._pinned[self.engine._next_id] = at  # the id that it is about to get
        self.engine.submit(operation, self.now_s)

    def _wait(self, call: Read | Write) -> None:
        self.cluster.run(2 * DEADLINE_US, until=lambda: call.outcome is not None)
        assert call.outcome is not None

    def _choose(self, operation: Operation) -> Lane | None:
        """Return the lane that the test wants, if any; each wish holds for one attempt."""
        node = self._pinned.pop(operation.id, None)
        if node is None:
            node = self.prefers
        if node is None:
            return None
        stream = self.streams[node]
        stream.connect()
        lane = stream.lane
        return lane if lane.state is LaneState.READY and lane not in operation.others else None

    def close(self) -> None:
        """Go away: whatever is under way ends with what may be concluded now."""
        self.engine.close()

    def learn(self, key: StorageKey, context: Context) -> None:
        """Remember what the session has now seen."""
        self.seen[key] = join(self.seen.get(key, NOTHING_SEEN), context)

    # ---- the cut between this client and a node -------------------------------------------------

    def cut(self, node: NodeNumber) -> None:
        """Have nothing get through to and from a node."""
        self.cut_from.add(node)

    def mend(self, node: NodeNumber) -> None:
        """Let through again, also what has been stuck on the way, unless it was given up."""
        self.cut_from.discard(node)
        self.streams[node].release()

    # ---- time ------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """The client's monotonic clock."""
        return self.cluster.now_us / _SECOND_US

    def _set_alarm(self, when: float) -> None:
        self._alarm += 1
        number = self._alarm
        delay_us = max(0, math.ceil(when * _SECOND_US) - self.cluster.now_us)
        self.cluster.later(delay_us, lambda: self._on_alarm(number, when))

    def _on_alarm(self, number: int, when: float) -> None:
        if number != self._alarm:
            return  # another one has taken its place
        now = max(self.now_s, when)
        for stream in self.streams.values():
            if stream.front is None or stream.lane.unanswered or stream.suspected_at is not None:
                stream.look(now)
        self.engine.on_alarm(now)


class Stream:
    """One client's connection to one node."""

    def __init__(self, client: Client, node: NodeNumber) -> None:
        self._client = client
        self._cluster = client.cluster
        self._bounds = client.bounds
        self._host = client.cluster.hosts[node]
        self.front: Front | None = None
        """At the other end; None: there is no connection."""
        self._session = SessionId(0)
        self._is_due = False
        self._dial_at = 0.0
        self._wait_s = 0.0
        self.suspected_at: float | None = None
        """Since when the node is taken for silent."""
        self._stuck: list[Callable[[], None]] = []
        """What is under way in a cut connection."""
        self._last_us = [0, 0]
        """When the latest frame of each direction arrives: none overtakes another."""
        self._chance = random.Random(f"{client.cluster.seed} client {client.number} to {node}")
        self.lane = Lane(
            f"n{node}", number=node, wake=self._wake, dial=self.connect, bounds=self._bounds
        )
        self.lane.is_apart = False  # large values go with the others

    @property
    def is_cut(self) -> bool:
        """Whether nothing gets through."""
        return self._host.number in self._client.cut_from

    def connect(self) -> None:
        """Open a stream, if there is none and somebody is there."""
        front = self._cluster.front(self._host.number)
        if (self.front is not None and self.front.has(self._session)) or front is None:
            return
        if front.is_silent or self.is_cut:
            return
        self._break("closed the stream")
        self.front, self._session = front, front.open(self)
        self._client.engine.on_connected(self.lane, self._client.now_s)
        self._wait_s = 0.0
        self._wake()

    def look(self, now: float) -> None:
        """See what has become of the connection since the last look."""
        front = self.front
        if front is not None and not front.has(self._session):
            self._break("closed the stream")
        if self.front is None and now >= self._dial_at:
            self.connect()
            if self.front is None:
                self._dial_later(now)
        if self.suspected_at is not None:
            self._probe(now, self.suspected_at)
        elif self.lane.owes and now - self.lane.heard_at >= _BEAT_S and self._is_heard():
            self._client.engine.on_frame(self.lane, 0, now)

    def suspect(self) -> None:
        """The node is silent: ask it now and then, and give the connection up in the end."""
        self.suspected_at = self._client.now_s

    def release(self) -> None:
        """Let what was stuck go on."""
        stuck, self._stuck = self._stuck, []
        for act in stuck:
            act()

    def send_back(self, session: SessionId, data: bytes) -> None:
        """A frame of answers leaves the node."""
        self._carry(1, lambda: self._on_frame(session, data))

    def _is_heard(self) -> bool:
        front = self.front
        if front is None or self.is_cut or self._host.number in self._client.deaf_to:
            return False
        return not front.is_silent

    def _probe(self, now: float, since: float) -> None:
        if self.lane.state is not LaneState.SUSPECTED:
            self.suspected_at = None
        elif now - since >= self._bounds.probe_ms / 1_000 and self._is_heard():
            self.suspected_at = None
            self._client.engine.on_frame(self.lane, 0, now)
        elif now - since >= self._bounds.reset_ms / 1_000:
            self._break("pending")

    def _break(self, reason: str) -> None:
        """The stream has ended, and what was under way on it is lost."""
        if self.front is None:
            return
        self.front.close(self._session)
        self.front, self.suspected_at, self._stuck = None, None, []
        self._dial_later(self._client.now_s)
        self._client.engine.on_broken(self.lane, reason, self._client.now_s)

    def _dial_later(self, now: float) -> None:
        first, most = self._bounds.reconnect_first_ms, self._bounds.reconnect_most_ms
        self._wait_s = min(max(2 * self._wait_s, first / 1_000), most / 1_000)
        self._dial_at = now + self._wait_s

    # ---- frames ----------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._cluster.later(0, self._write)

    def _write(self) -> None:
        """Write the frames that are due."""
        self._is_due = False
        while self.front is not None:
            now = self._client.now_s
            wait_s = self.lane.wait_s(now)
            if wait_s is None:
                return
            if wait_s > 0:
                self._is_due = True
                self._cluster.later(math.ceil(wait_s * _SECOND_US) + 1, self._write)
                return
            if operations := self.lane.take():
                for operation in operations:
                    call: Any = operation.waiter
                    call.on_sent(self._host.number, self._session)
                data = codec.encode_frame(operations, epoch=self._cluster.topology.epoch, now=now)
                self._carry(0, partial(self.front.arrive, self._session, data))

    def _carry(self, way: int, arrive: Callable[[], None]) -> None:
        if self.is_cut:
            self._stuck.append(lambda: self._carry(way, arrive))
            return
        at_us = self._cluster.now_us + self._chance.randint(*_DELAY_US)
        at_us = self._last_us[way] = max(at_us, self._last_us[way])
        self._cluster.later(at_us - self._cluster.now_us, arrive)

    def _on_frame(self, session: SessionId, data: bytes) -> None:
        """Take in answers, as kvclient.stream does."""
        if self.front is None or session != self._session or self.front.is_over:
            return  # of a stream that has ended
        engine, lane, now = self._client.engine, self.lane, self._client.now_s
        response = kv_pb2.PipelineResponse.FromString(data)
        engine.on_frame(lane, response.hlc, now)
        if response.HasField("gets"):
            engine.on_gets(codec.read_gets(response.gets, lane.unanswered), now)
        if response.HasField("puts"):
            answered = codec.read_puts(response.puts, lane.unanswered)
            for operation in answered:
                call: Any = operation.waiter
                call.on_acknowledged()
            engine.on_puts(answered, now)
        for failure in response.failures:
            refused = lane.unanswered.pop(failure.id, None)
            if refused is not None:
                engine.on_refusal(lane, refused, codec.refusal_of(failure), now)
        if lane.outbox:
            self._wake()


class _Call:
    """One operation of a client: keeps what its caller is told."""

    def __init__(self, client: Client, operation: Operation) -> None:
        self._client = client
        self._operation = operation

    def done(self) -> bool:
        return False

    def on_sent(self, node: NodeNumber, session: SessionId) -> None:
        """An attempt leaves for a node."""

    def _opened(self, context: bytes) -> Context:
        key = encode_key(self._operation.keyspace, self._operation.key)
        return self._client.cluster.watch.stores.context(key, context)


class _Putting(_Call):
    """A write on its way."""

    def __init__(self, client: Client, operation: Operation, write: Write) -> None:
        super().__init__(client, operation)
        self._write = write

    def on_sent(self, node: NodeNumber, session: SessionId) -> None:
        operation, write = self._operation, self._write
        write.attempts += 1
        if operation.write_id not in write.write_ids:
            write.write_ids.append(operation.write_id)
            write.stamps.append(operation.timestamp)
            self._client.cluster.watch.on_attempt(write)

    def on_acknowledged(self) -> None:
        """An attempt was acknowledged, perhaps only to be stamped anew."""
        operation, write = self._operation, self._write
        if write.acked_us is None:
            write.acked_us = self._client.cluster.now_us
        write.may_lose = operation.newer != 0
        if not self._client.restamps:
            operation.newer = 0
        elif self._client.restamps_retries:
            operation.tries = 1

    def set_result(self, result: Operation, /) -> None:
        write, error = self._write, result.error
        if error is None:
            self._client.learn(write.key, self._opened(result.seen))
        write.outcome = OK if error is None else error.outcome
        write.ended_us = self._client.cluster.now_us
        self._client.cluster.tell("ended", self._client.number, write.outcome, write.value)
        self._client.cluster.watch.ended(write)


class _Getting(_Call):
    """A read on its way."""

    def __init__(
        self,
        client: Client,
        operation: Operation,
        read: Read,
        then: Callable[[Read], None] | None,
    ) -> None:
        super().__init__(client, operation)
        self._read = read
        self._then = then
        self._seen = client.seen.get(read.key, NOTHING_SEEN)

    def set_result(self, result: Operation, /) -> None:
        self._end(result)
        if self._then is not None:
            # Not at once: the engine is in the middle of a frame.
            self._client.cluster.later(0, partial(self._then, self._read))

    def _end(self, result: Operation) -> None:
        read, client, error = self._read, self._client, result.error
        read.outcome = FAILED if error is not None else OK
        client.cluster.tell("ended", client.number, read.outcome, result.value)
        if error is not None:
            return
        read.context = self._opened(result.seen)
        if not self._goes_on(read.context, result.watermark):
            told = "a read is older than what its session has seen"
            client.cluster.fail(read.key, told, name="5-session-goes-on")
        read.value = result.value
        read.values = frozenset((result.value, *_told(result)))
        if result.detail is not None and result.detail.HasField("explain"):
            read.repaired = tuple(int(node[1:]) for node in result.detail.explain.repaired)
        client.learn(read.key, read.context)
        client.cluster.watch.ended(read)

    def _goes_on(self, context: Context, watermark: bytes) -> bool:
        """Say whether an answer covers what the session had seen as it asked."""
        cluster, key, session = self._client.cluster, self._read.key, self._client.engine.session
        assert session is not None
        # What it asked for beside a context the node has shown to be here, if only by its floors.
        shown = join(context, Context(dict(open_watermark(watermark))))
        if session.forgotten or covers_all(shown, self._seen):
            return True
        # What was reaped is in no record any more, and in the floors of all owners.
        partition = cluster.partition_of(key)
        lives = [cluster.hosts[node].life for node in cluster.owners(key)]
        floors = [life.replica.floors for life in lives if life is not None]
        dots = [Dot(*entry) for entry in sorted(self._seen.vector.items())]
        missing = [dot for dot in (*dots, *sorted(self._seen.dots)) if not covers(shown, dot)]
        return all(each.has_seen(partition, dot) for each in floors for dot in missing)


def _told(result: Operation) -> list[bytes | None]:
    """Return all survivors that a read tells of."""
    siblings = () if result.detail is None else result.detail.siblings
    return [None if each.tombstone else each.value for each in siblings]
