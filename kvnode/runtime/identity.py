"""Who this node is to others, in this life: its hello, its start number, what it knows of theirs.

A start number rises with every start and is remembered by every peer. A node that is told of a
start of its own that it does not know of stands on a restored or wiped folder: it is unproven. One
that is told that another life holds its identity (kvnode.runtime.claims) gives its start number
back and ends the node, so that a copy that is started again and again never outnumbers the life
that it was copied from.
Tests: tests/unit/runtime/test_identity.py. Source: design, sections 2.2 and 2.4; failures 7 and 9.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import struct
from collections.abc import Callable
from typing import Protocol, TypeAlias

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.hlc import Timestamp
from kvnode.core.messages import Event, TopologyChanged
from kvnode.core.node import Node
from kvnode.core.topology import NodeId, Topology
from kvnode.runtime.claims import NOBODY, Life, claim_of, unpack
from kvnode.runtime.clock import wall_ms as this_wall_ms
from kvnode.runtime.peer_codec import BadFrame, Header
from kvnode.runtime.proof import note_doubt
from kvnode.runtime.settings import ServeError
from kvnode.runtime.topology_codec import decode_topology, encode_topology
from kvnode.storage.port import (
    Engine,
    ReadFailure,
    StorageDamaged,
    StorageError,
    StorageFull,
    StorageStalled,
)
from kvproto import kv_pb2, peer_pb2

log = logging.getLogger(__name__)

_START = struct.Struct("<QQ")
_OWN_START = b"start"
_PEER_START = b"peer-start/"
TOPOLOGY = b"topology"
_RETRY_S = 0.05

Later: TypeAlias = Callable[[float, Callable[[], None]], object]
"""Does something after so many seconds."""


def on_loop(delay_s: float, act: Callable[[], None]) -> object:
    """Do something later on the running loop."""
    return asyncio.get_running_loop().call_later(delay_s, act)


class Turns(Protocol):
    """What runs the node's turns (kvnode.runtime.pump)."""

    def submit(self, event: Event) -> None:
        """Have the next turn take this event."""

    def fail(self, exc: BaseException) -> None:
        """End the node, loudly."""


class Identity:
    """This node's name, number, incarnation and start number."""

    def __init__(
        self,
        node: Node,
        node_id: NodeId,
        engine: Engine,
        incarnation: int,
        *,
        place: str = "",
        is_restored: bool = False,
        wall_ms: Callable[[], int] = this_wall_ms,
        later: Later = on_loop,
    ) -> None:
        """Make it known; `begin_life` makes it durable. `place` is as kvnode.runtime.claims says.

        With `is_restored` its operator vouches that the life known at another place is over.
        """
        self._wall_ms = wall_ms
        self._later = later
        self.id = node_id
        self.number = node.number
        self.incarnation = incarnation
        self.place = place
        self.claimed_ms = self._wall_ms()
        self._is_restored = is_restored
        self.start_number = 0
        self.follow: Callable[[], None] = lambda: None
        """Called when a newer topology is in force."""
        self.pump: Turns | None = None
        self._node = node
        self._engine = engine
        self._peers: dict[str, Life] = {}
        self._start_before: bytes | None = None
        self._header = Header(node.topology.cluster_id, node.topology.epoch, 0)

    def begin_life(self) -> None:
        """Load what is known of starts, and make this one durable before anything is issued."""
        batch = WriteBatch()
        found = self._engine.multi_get(Family.META, [_OWN_START])[0]
        if isinstance(found, ReadFailure):
            raise StorageDamaged(f"this node's start number cannot be read: {found.reason}")
        self._start_before = found
        previous = _START.unpack(found)[0] if found is not None else 0
        for key, value in self._engine.scan(Family.META, _PEER_START, b"peer-start0", 4_096):
            self._peers[key[len(_PEER_START) :].decode()] = unpack(value)
        self.start_number = previous + 1
        batch.put(Family.META, _OWN_START, _START.pack(self.start_number, self.incarnation))
        self._engine.write(batch)
        self._engine.flush()

    @property
    def topology(self) -> Topology:
        """The topology in force."""
        return self._node.topology

    def hello(self, to: str) -> peer_pb2.Hello:
        """Return what this node says first to `to`."""
        known = self.known_life(to)
        return peer_pb2.Hello(
            node=self.id,
            incarnation=self.incarnation,
            start_number=self.start_number,
            known_start=known.start,
            known_incarnation=known.incarnation,
            wall_ms=self._wall_ms(),
            place=self.place,
            claimed_ms=self.claimed_ms,
            restored=self._is_restored,
        )

    def known(self, peer: str) -> tuple[int, int]:
        """Return the newest (start number, incarnation) that is known of a peer; (0, 0) if none."""
        return self.known_life(peer)[:2]

    def known_life(self, peer: str) -> Life:
        """Return the newest life that is known of a peer."""
        return self._peers.get(peer, NOBODY)

    def on_hello(self, hello: peer_pb2.Hello) -> None:
        """A peer says who it is, and what it knows of us."""
        known, claim = self.known_life(hello.node), claim_of(hello)
        if hello.restored and claim.start <= known.start:
            # The number that it will go by as soon as it hears of the one that we know.
            claim = claim._replace(start=known.start + 1)
        if claim.incarnation != known.incarnation and claim.start > known.start:
            self._remember(hello.node, claim)
        knows_another = hello.known_incarnation not in (0, self.incarnation)
        if knows_another and hello.known_start >= self.start_number:
            self._admit_lost_life(hello)

    def on_refused_for_good(self, why: str) -> None:
        """Another life holds this identity: give the start number back, and end the node."""
        batch = WriteBatch()
        if self._start_before is None:
            batch.delete(Family.META, _OWN_START)
        else:
            batch.put(Family.META, _OWN_START, self._start_before)
        assert self.pump is not None
        try:
            self._engine.write(batch)
            self._engine.flush()
        except StorageError as exc:
            why = f"{why} (its start number stays {self.start_number}: {exc})"
        self.pump.fail(ServeError(why))

    def header(self) -> Header:
        """Return what the next frame says of this node."""
        topology = self._node.topology
        return Header(topology.cluster_id, topology.epoch, self._node.clock.read(self._wall_ms()))

    def take(self, frame: peer_pb2.PeerFrame) -> None:
        """Take note of the clock, and of the topology, that a frame brings. Raises: BadFrame."""
        self.observe(frame.hlc)
        if frame.HasField("topology") and frame.topology.epoch > self._node.topology.epoch:
            try:
                self.install(frame.topology)
            except (ValueError, AssertionError) as exc:
                raise BadFrame("a topology that this cluster cannot have") from exc
            except (StorageStalled, StorageFull) as exc:
                # It comes again with the next frame that answers one of the older epoch.
                log.info("topology_waits epoch=%d why=%s", frame.topology.epoch, exc)

    def is_older(self, frame: peer_pb2.PeerFrame) -> bool:
        """Say whether a frame is of an older epoch than this node's: its requests are refused."""
        return frame.epoch < self._node.topology.epoch

    def observe(self, hlc: int) -> None:
        """Take note of a peer's clock."""
        clock = self._node.clock
        if hlc > clock.last:
            clock.observe(Timestamp(hlc), self._wall_ms())

    def install(self, message: kv_pb2.Topology) -> None:
        """Put a newer topology in force: durable first, then followed by core and links.

        Raises:
            ValueError, AssertionError: it is no topology of this cluster, or not a newer one.
        """
        topology = decode_topology(message)
        if topology.cluster_id != self._node.topology.cluster_id:
            raise ValueError("a topology of another cluster")
        if topology.epoch <= self._node.topology.epoch:
            raise ValueError(f"epoch {topology.epoch} is not newer")
        batch = WriteBatch()
        batch.put(Family.META, TOPOLOGY, encode_topology(topology).SerializeToString())
        self._engine.write(batch)
        self._engine.flush()
        log.info("topology_changed epoch=%d members=%d", topology.epoch, len(topology.members))
        self._node.replica.follow(topology)
        if self.pump is not None:
            self.pump.submit(TopologyChanged(topology))
        self.follow()

    def _remember(self, peer: str, life: Life) -> None:
        self._peers[peer] = life
        batch = WriteBatch()
        batch.put(Family.META, _PEER_START + peer.encode(), life.pack())
        self._write(batch)

    def _admit_lost_life(self, hello: peer_pb2.Hello) -> None:
        """A peer knows a later life of this node: this store is older than what was promised."""
        log.error(
            "store_is_older peer=%s knows_start=%d own_start=%d: this node's reads do not count "
            "until its partitions have been compared with its peers'",
            hello.node,
            hello.known_start,
            self.start_number,
        )
        replica = self._node.replica
        # Durable with this batch as a whole; the next turn's says which partitions.
        replica.doubt(replica.proving.owned())
        self.start_number = hello.known_start + 1
        batch = WriteBatch()
        batch.put(Family.META, _OWN_START, _START.pack(self.start_number, self.incarnation))
        note_doubt(batch)
        self._write(batch)

    def _write(self, batch: WriteBatch) -> None:
        """Write as soon as there is room; durable with whatever is synced next."""
        try:
            self._engine.write(batch)
        except (StorageStalled, StorageFull):
            self._later(_RETRY_S, functools.partial(self._write, batch))
