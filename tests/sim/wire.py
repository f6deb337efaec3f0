"""Frames between simulated nodes, as bytes, by the runtime's own codecs.

What it decides: nothing of its own. One of these serves one life: what leaves is encoded and what
comes is decoded as kvnode.runtime.link and kvnode.runtime.accept do it.
Laws: nothing reaches a node but what its frames say. Its tests are tests/sim/test_world.py.
Left out: frames that wait for company (a turn's messages for one node are one frame, but for large
ones, which go alone on the bulk stream).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kvnode.core.bounds import Limits
from kvnode.core.conversations import ASKS, SETTLE_ASKS
from kvnode.core.messages import ClientPut, Instant, PeerMessage, ReplicaRead, ReplicaWrite
from kvnode.runtime.edge import Edge
from kvnode.runtime.identity import Identity
from kvnode.runtime.link import payload
from kvnode.runtime.peer_codec import PeerCodec, new_frame
from kvnode.runtime.topology_codec import encode_topology
from kvproto import peer_pb2

REQUESTS = frozenset((ReplicaWrite, ReplicaRead, ClientPut, *ASKS, *SETTLE_ASKS))
"""What goes on its sender's own stream; all else, on its receiver's."""


class Batch(NamedTuple):
    """Messages that go as one frame."""

    messages: list[PeerMessage]
    is_bulk: bool


class Wire:
    """Encodes and decodes for one life of a node."""

    def __init__(
        self,
        identity: Identity,
        limits: Limits,
        *,
        cluster_key: bytes,
        now_us: Callable[[], Instant],
    ) -> None:
        edge = Edge(lambda: identity.topology, limits, cluster_key=cluster_key, now_us=now_us)
        self.codec = PeerCodec(edge, now_us)
        self._identity = identity
        self._limits = limits

    def begin(self, *, with_topology: bool = False) -> peer_pb2.PeerFrame:
        """Return a frame with its head."""
        frame = new_frame(self._identity.header())
        if with_topology:
            frame.topology.CopyFrom(encode_topology(self._identity.topology))
        return frame

    def hello(self, to: str) -> bytes:
        """Return the first frame of a stream."""
        frame = self.begin()
        frame.hello.CopyFrom(self._identity.hello(to))
        return frame.SerializeToString()

    def batches(self, messages: list[PeerMessage]) -> Iterator[Batch]:
        """Split messages into what goes as one frame each."""
        limits = self._limits
        queue: list[PeerMessage] = []
        size = 0
        for message in messages:
            each = payload(message)
            if each > limits.bulk_bytes:
                yield Batch([message], is_bulk=True)
                continue
            if queue and (
                size + each > limits.frame_bytes or len(queue) == limits.frame_operations
            ):
                yield Batch(queue, is_bulk=False)
                queue, size = [], 0
            queue.append(message)
            size += each
        if queue:
            yield Batch(queue, is_bulk=False)
