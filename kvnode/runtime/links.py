"""Links to the other nodes: one dialled stream for small messages, one for bulk, for each peer.

A node dials every other; on its own streams it sends requests and hears replies, on the accepted
ones (kvnode.runtime.accept) the reverse. A link is up once both sides have said hello and while
the peer is heard: a broken stream takes it down at once, silence after a while.

Laws: requests on one stream keep their order; what is queued towards a peer is bounded, past that
the peer counts as unreachable; pauses between attempts never exceed `reconnect_ms`.
Tests: tests/unit/runtime/test_links.py, tests/cluster/.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Mapping
from typing import Any

import grpc

from kvnode.core.bounds import Limits
from kvnode.core.messages import (
    ClientPut,
    NodeNumber,
    PeerClock,
    PeerDown,
    PeerMessage,
    PeerUp,
    ReplicaRead,
    ReplicaWrite,
)
from kvnode.core.topology import Member, Topology
from kvnode.runtime.identity import Identity
from kvnode.runtime.outgoing import Outgoing
from kvnode.runtime.peer_codec import BadFrame, Header, PeerCodec, new_frame, parse_frame
from kvnode.runtime.pump import Pump, now_us, wall_ms
from kvnode.runtime.wire import channel_options
from kvproto import peer_pb2

log = logging.getLogger(__name__)

LINK, BULK = "Link", "Bulk"
_HELLO_S = 5.0
_REQUESTS = (ReplicaWrite, ReplicaRead, ClientPut)


# What grpc.aio raises when a stream ends under a reader or a writer.
_LOST = (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError)


def payload(message: PeerMessage) -> int:
    """Return a message's bytes, for bounds; small fields count as a flat sum."""
    match message:
        case ReplicaWrite():
            return 64 + len(message.key) + len(message.record)
        case ClientPut():
            return 128 + len(message.key) + len(message.value)
        case ReplicaRead():
            return 32 + len(message.key)
        case _:
            return 64 + len(getattr(message, "record", b""))


class Link:
    """One dialled stream to a peer, re-dialled for as long as the node runs."""

    def __init__(self, peer: Peer, kind: str) -> None:
        self._peer = peer
        self._kind = kind
        self._in_flight = 0
        self._beats = False
        self.outgoing: Outgoing[PeerMessage] | None = None

    @property
    def is_open(self) -> bool:
        """Whether both sides have said hello."""
        return self.outgoing is not None

    def push(self, messages: list[PeerMessage]) -> None:
        """Send requests; dropped when the stream is not open."""
        if self.outgoing is not None:
            self._in_flight += len(messages)
            self.outgoing.push(messages)

    async def run(self) -> None:
        """Dial, serve the stream, and dial again."""
        peer = self._peer
        options = channel_options(reconnect_ms=peer.limits.reconnect_ms)
        async with grpc.aio.insecure_channel(peer.address, options=options) as channel:
            method: Any = channel.stream_stream(f"/kvnode.v1.Peer/{self._kind}")
            # A flag, since a TaskGroup whose tasks fail as it is cancelled forgets that it was.
            while not peer.is_dropped:
                try:
                    await self._serve(method(wait_for_ready=True))
                except (*_LOST, BadFrame) as exc:
                    log.debug("link_lost peer=%s kind=%s why=%s", peer.id, self._kind, _short(exc))
                finally:
                    self._close()
                # Jitter, so that peers do not fall into step; chance decides nothing here.
                await asyncio.sleep(random.uniform(0.2, 1) * peer.limits.reconnect_ms / 2_000)

    async def _serve(self, call: Any) -> None:
        peer = self._peer
        try:
            await call.write(peer.hello())
            peer.on_hello(parse_frame(await _read(call)))
            self._in_flight = 0
            self.outgoing = Outgoing(self._encode, payload, lambda: self._in_flight, peer.limits)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(call))
                if self._kind == LINK:
                    peer.on_open()
                    tasks.create_task(self._beat())
                await self._hear(call)
        except* (*_LOST, BadFrame) as group:
            raise _first(group) from None
        finally:
            call.cancel()

    async def _write(self, call: Any) -> None:
        assert self.outgoing is not None
        await self.outgoing.run(call.write)
        raise BadFrame("closed")

    async def _hear(self, call: Any) -> None:
        peer = self._peer
        while True:
            frame = parse_frame(await _read(call))
            peer.on_heard(frame)
            replies = peer.codec.replies(peer.number, frame)
            count = len(replies.writes) + len(replies.reads) + len(replies.forwards)
            if count:
                self._in_flight -= count
                peer.pump.submit(replies)
                if self.outgoing is not None:
                    self.outgoing.look()

    async def _beat(self) -> None:
        """Say something when nothing else is said, and notice silence."""
        peer = self._peer
        frames = -1
        while self.outgoing is not None:
            if self.outgoing.frames == frames and self.outgoing.is_idle:
                self._beats = True
                self.outgoing.notice()
            frames = self.outgoing.frames
            peer.judge_silence()
            await asyncio.sleep(peer.limits.heartbeat_ms / 1_000)

    def _encode(self, messages: Any) -> bytes:
        frame = new_frame(self._peer.header())
        if self._beats:
            self._beats = False
            frame.heartbeat.wall_ms = wall_ms()
        return self._peer.codec.encode(frame, messages)

    def _close(self) -> None:
        if self.outgoing is not None:
            self.outgoing.close()
            self.outgoing = None
            if self._kind == LINK:
                self._peer.on_lost()


class Peer:
    """Another node, as this one is linked with it."""

    def __init__(
        self,
        member: Member,
        address: str,
        *,
        identity: Identity,
        codec: PeerCodec,
        pump: Pump,
        limits: Limits,
        links: Links,
    ) -> None:
        self.number = member.number
        self.id = member.id
        self.address = address
        self.codec = codec
        self.pump = pump
        self.limits = limits
        self.is_up = False
        self.is_dropped = False
        self.link = Link(self, LINK)
        self.bulk = Link(self, BULK)
        self._identity = identity
        self._links = links
        self._heard_us = now_us()

    def send(self, messages: list[PeerMessage]) -> None:
        """Send requests: values above `bulk_bytes` on their own stream."""
        limit = self.limits.bulk_bytes
        if self.bulk.is_open and any(payload(message) > limit for message in messages):
            self.bulk.push([one for one in messages if payload(one) > limit])
            messages = [one for one in messages if payload(one) <= limit]
        if messages:
            self.link.push(messages)
        self._judge_backlog()

    def header(self) -> Header:
        """Return what the next frame says of this node."""
        return self._links.header()

    def hello(self) -> bytes:
        """Return the first frame of a stream."""
        frame = new_frame(self.header())
        frame.hello.CopyFrom(self._identity.hello(self.id))
        return frame.SerializeToString()

    def on_hello(self, frame: peer_pb2.PeerFrame) -> None:
        """The peer has answered our hello. Raises: BadFrame, if it will not have us."""
        self._links.take_topology(frame)
        if frame.hello.refused:
            log.error("peer_refused peer=%s why=%s", self.id, frame.hello.reason)
            raise BadFrame(frame.hello.reason)
        if frame.hello.node != self.id:
            log.error("peer_is_another expected=%s found=%s", self.id, frame.hello.node)
            raise BadFrame("another node answers there")
        self._identity.on_hello(frame.hello)
        self._note_clock(frame.hello.wall_ms)

    def on_open(self) -> None:
        """The link carries messages."""
        self._heard_us = now_us()
        self._set_up(True, "linked")

    def on_lost(self) -> None:
        """The link's stream is gone."""
        self._set_up(False, "connection lost")

    def on_heard(self, frame: peer_pb2.PeerFrame) -> None:
        """Something came from the peer."""
        self._heard_us = now_us()
        self._links.take_topology(frame)
        if frame.HasField("heartbeat"):
            self._note_clock(frame.heartbeat.wall_ms)
        if not self.is_up and self.link.is_open:
            self._set_up(True, "heard again")

    def judge_silence(self) -> None:
        """Take the link down when nothing has come for too long."""
        if self.is_up and now_us() - self._heard_us > 1_000 * self.limits.silence_ms:
            self._set_up(False, "silent")

    def _judge_backlog(self) -> None:
        outgoing = self.link.outgoing
        if self.is_up and outgoing is not None and outgoing.backlog > self.limits.outbox_bytes:
            self._set_up(False, "too much unsent")

    def _note_clock(self, theirs_ms: int) -> None:
        if theirs_ms:
            self.pump.submit(PeerClock(self.number, theirs_ms - wall_ms()))

    def _set_up(self, is_up: bool, why: str) -> None:
        if self.is_up == is_up:
            return
        self.is_up = is_up
        log.info("peer_%s peer=%s why=%s", "up" if is_up else "down", self.id, why)
        self.pump.submit(PeerUp(self.number) if is_up else PeerDown(self.number))
        self._links.on_change()


class Links:
    """All peers of a node; follows the topology."""

    def __init__(
        self,
        identity: Identity,
        codec: PeerCodec,
        pump: Pump,
        limits: Limits,
        *,
        overrides: Mapping[str, str],
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._identity = identity
        self._codec = codec
        self._pump = pump
        self._limits = limits
        self._overrides = overrides
        self._tasks = tasks
        self._running: dict[NodeNumber, list[asyncio.Task[None]]] = {}
        self.peers: dict[NodeNumber, Peer] = {}
        self.changed = asyncio.Event()

    def follow(self, topology: Topology) -> None:
        """Link with exactly the other members of a topology."""
        wanted = {member.number: member for member in topology.members}
        wanted.pop(self._identity.number, None)
        for number in [number for number in self.peers if number not in wanted]:
            self._drop(number)
        for number, member in wanted.items():
            address = self._overrides.get(member.id, member.address)
            known = self.peers.get(number)
            if known is not None and known.address != address:
                self._drop(number)
            if number not in self.peers:
                self._dial(member, address)

    def send(self, node: NodeNumber, messages: list[PeerMessage]) -> None:
        """Send requests to a node; dropped if it is not linked."""
        peer = self.peers.get(node)
        if peer is not None:
            peer.send(messages)

    def header(self) -> Header:
        """Return what the next frame says of this node."""
        return self._identity.header()

    def take_topology(self, frame: peer_pb2.PeerFrame) -> None:
        """Take note of the clock and the topology that a frame brings."""
        self._identity.take(frame)

    def on_change(self) -> None:
        """Some link went up or down."""
        self.changed.set()
        self.changed.clear()

    def stop(self) -> None:
        """End all links."""
        for number in list(self.peers):
            self._drop(number)

    def _dial(self, member: Member, address: str) -> None:
        peer = Peer(
            member,
            address,
            identity=self._identity,
            codec=self._codec,
            pump=self._pump,
            limits=self._limits,
            links=self,
        )
        self.peers[member.number] = peer
        self._running[member.number] = [
            self._tasks.create_task(link.run()) for link in (peer.link, peer.bulk)
        ]

    def _drop(self, number: NodeNumber) -> None:
        peer = self.peers.pop(number)
        peer.is_dropped = True
        for task in self._running.pop(number):
            task.cancel()
        peer.on_lost()


async def _read(call: Any) -> bytes:
    data = await call.read()
    if data is grpc.aio.EOF:
        raise BadFrame("the stream ended")
    assert isinstance(data, bytes)
    return data


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    with contextlib.suppress(AttributeError):
        while True:
            group = group.exceptions[0]
    return group


def _short(exc: BaseException) -> str:
    return str(exc.details() if isinstance(exc, grpc.aio.AioRpcError) else exc)
