"""What clients meet at a simulated node: the real edge, gate and codecs, without gRPC.

What it decides: nothing of its own; it follows kvnode.runtime.clients for one life of a node. Every
frame is bytes, either way.
Laws: every operation taken is answered once, or its stream ends; a node that was away ends all
streams before it reads what came meanwhile. Its tests are tests/sim/test_client.py.
Left out: frames that wait for company, beats (tests/sim/client.py looks whether a node could have
sent one), bulk streams, draining.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from kvnode.core.messages import (
    ClientGet,
    ClientOps,
    ClientPut,
    Instant,
    NodeNumber,
    Result,
    SessionId,
)
from kvnode.core.topology import Topology
from kvnode.runtime.client_codec import encode_results
from kvnode.runtime.edge import Edge
from kvnode.runtime.gate import Gate
from kvproto import kv_pb2
from tests.sim.host import CLUSTER_KEY, Host

if TYPE_CHECKING:
    from tests.sim.client import Stream
    from tests.sim.cluster import Cluster

_HURRY_MS = 20
"""A frame that was under way for so much longer than usual has less time left than it says."""

OpT = TypeVar("OpT", ClientGet, ClientPut)


class Front:
    """The service for clients of one life of a node."""

    def __init__(self, world: Cluster, host: Host) -> None:
        self.node: NodeNumber = host.number
        self._world = world
        self._host = host
        self._life = host.life
        self._edge = Edge(self._topology, world.limits, cluster_key=CLUSTER_KEY, now_us=self._now)
        self._gate = Gate(world.limits, submit=host.hear, refuse=self._push, now_us=self._now)
        self._streams: dict[SessionId, Stream] = {}
        self._last_session = 0

    @property
    def is_over(self) -> bool:
        """Whether this life has ended."""
        return self._host.life is not self._life

    @property
    def is_silent(self) -> bool:
        """Whether nothing comes from here: the process is stopped, or dead."""
        return self.is_over or self._host.is_paused

    def open(self, stream: Stream) -> SessionId:
        """A client opens a stream."""
        self._last_session += 1
        session = SessionId(self._last_session)
        self._streams[session] = stream
        return session

    def has(self, session: SessionId) -> bool:
        """Say whether a stream is still open at this end."""
        return not self.is_over and session in self._streams

    def close(self, session: SessionId) -> None:
        """A client has ended its stream."""
        if self._streams.pop(session, None) is not None:
            self._gate.leave(session)

    def arrive(self, session: SessionId, data: bytes) -> None:
        """A frame has come as far as this machine; its process takes it, if it can."""
        at = self._world.now_us
        self._host.later(0, lambda: self._take(session, data, at))

    def _take(self, session: SessionId, data: bytes, arrived_us: int) -> None:
        if self._world.now_us - arrived_us > 1_000 * self._world.limits.silence_ms:
            self._end_streams()  # the process was away
        if not self.has(session):
            return
        request = kv_pb2.PipelineRequest.FromString(data)
        keyspaces = list(request.keyspaces)
        gets, failures = self._edge.decode_gets(request.gets, keyspaces)
        puts, more = self._edge.decode_puts(request.puts, keyspaces)
        delay_ms = self._now() // 1_000 - request.sent_ms
        if delay_ms > _HURRY_MS:
            gets, puts = _hurried(gets, delay_ms), _hurried(puts, delay_ms)
        requests: list[ClientGet | ClientPut] = [*gets, *puts]
        for each in requests:
            self._world.tell("request", session, self.node, each)
            self._world.watch.on_request(self.node, session, each)
        if gets or puts:
            self._gate.enter(session, ClientOps(session, gets, puts), size=len(data))
        if failures or more:
            self._push(session, [*failures, *more])

    def answer(self, session: SessionId, results: list[Result]) -> None:
        """Send the core's results to a client; if it is gone they are dropped."""
        for result in results:
            self._world.watch.on_answer(self.node, session, result)
        self._push(session, results)
        self._gate.on_answered(session, results)

    def _push(self, session: SessionId, results: list[Result]) -> None:
        stream = self._streams.get(session)
        if stream is None or self._life is None:
            return
        for result in results:
            self._world.tell("answer", self.node, session, result)
        wall_ms = self._world.wall_ms + self._host.ahead_ms
        frame = encode_results(
            self._edge,
            results,
            hlc=self._life.time_for_clients(wall_ms),
            explain_bytes=self._world.limits.explain_bytes,
        )
        stream.send_back(session, frame.SerializeToString())

    def _end_streams(self) -> None:
        for session in list(self._streams):
            self.close(session)

    def _topology(self) -> Topology:
        identity = self._host.identity
        return self._world.topology if identity is None else identity.topology

    def _now(self) -> Instant:
        return Instant(self._world.now_us)


def _hurried(ops: Sequence[OpT], by_ms: int) -> list[OpT]:
    return [op._replace(deadline_us=Instant(op.deadline_us - 1_000 * by_ms)) for op in ops]
