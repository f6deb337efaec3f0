"""Links to the other nodes: one dialled stream for small messages, one for bulk, for each peer.

A node dials every other; on its own streams it sends requests and hears replies, on the accepted
ones (kvnode.runtime.accept) the reverse. What a peer is good for is judged in kvnode.core.liveness,
from what is told to it here: hellos, echoes, answers, broken streams.

Laws: requests on one stream keep their order; what is queued towards a peer is bounded, past that
its streams are ended; pauses between attempts never exceed `reconnect_ms`; the detector looks when
it asked to, and its changes reach the core in their order.
Tests: tests/unit/runtime/test_links.py, tests/cluster/.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

from kvnode.core.bounds import Limits
from kvnode.core.conversations import PeerTells
from kvnode.core.liveness import Change, Detector, Standing
from kvnode.core.messages import (
    NodeNumber,
    PeerDown,
    PeerHeard,
    PeerMessage,
    PeerReplies,
    PeerSilent,
    PeerUp,
)
from kvnode.core.skew import ClockNews
from kvnode.core.topology import Member, Topology
from kvnode.runtime.claims import judge
from kvnode.runtime.identity import Identity
from kvnode.runtime.link import BULK, LINK, Link, payload
from kvnode.runtime.outgoing import InFlight
from kvnode.runtime.peer_codec import BadFrame, Header, PeerCodec, new_frame
from kvnode.runtime.pump import Pump, now_us, wall_ms
from kvproto import peer_pb2

log = logging.getLogger(__name__)

_NAMES = {PeerUp: "up", PeerDown: "down", PeerSilent: "silent", PeerHeard: "heard"}


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
        self.is_dropped = False
        """No member any more: its streams are ending."""
        self.link = Link(self, LINK)
        self.bulk = Link(self, BULK)
        self._identity = identity
        self.in_flight = InFlight()
        self._links = links
        self._detector = links.detector
        self._life = 0
        self._refused_why = ""
        self.clock = ClockNews(member.number)

    @property
    def is_up(self) -> bool:
        """Whether the peer answers."""
        return self._detector.standing(self.number) is Standing.UP

    def send(self, messages: list[PeerMessage]) -> None:
        """Send requests: values above `bulk_bytes` on their own stream."""
        limit = self.limits.bulk_bytes
        if self.bulk.is_open and max(map(payload, messages)) > limit:
            self.bulk.push([one for one in messages if payload(one) > limit])
            messages = [one for one in messages if payload(one) <= limit]
        if messages:
            self.link.push(messages)
        if not self.in_flight.is_empty:
            self._detector.on_asked(self.number, now_us())
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
        if frame.hello.refused and frame.hello.final:
            self._identity.on_refused_for_good(frame.hello.reason)
        if frame.hello.refused:
            self._complain(frame.hello.reason)
        if why := judge(self.id, self._identity.known_life(self.id), frame.hello):
            self._complain(why)  # that life will hear it when it dials us
        if frame.hello.node != self.id:
            self._complain(f"{frame.hello.node!r} answers at {self.address}")
        self._refused_why = ""
        self._identity.on_hello(frame.hello)
        self._life = frame.hello.incarnation
        self.clock.forget()
        self._note_clock(frame.hello.wall_ms)

    def on_open(self) -> None:
        """The link carries messages."""
        self.in_flight = InFlight()
        if not self.is_dropped:
            self._links.tell(self._detector.on_opened(self.number, self._life, now_us()))

    def on_lost(self, kind: str) -> None:
        """One stream is gone. Nobody knows what was on it: the other goes too."""
        if kind == LINK:
            self._links.tell(self._detector.on_lost(self.number, "connection lost", now_us()))
        else:
            self.link.end()

    def on_heard(self, frame: peer_pb2.PeerFrame) -> None:
        """Something came from the peer. Raises: BadFrame."""
        self._links.take_topology(frame)
        if not frame.HasField("heartbeat"):
            return
        beat, now = frame.heartbeat, now_us()
        self._note_clock(beat.wall_ms)
        if beat.echo:
            self._links.tell(self._detector.on_echo(self.number, beat.echo, now))
        if beat.draining:
            self._links.tell(self._detector.on_leaving(self.number, now))

    def on_answers(self, replies: PeerReplies) -> None:
        """Requests were answered."""
        self._on_answered(replies.writes, replies.reads, replies.forwards)
        self.pump.submit(replies)

    def on_tells(self, tells: PeerTells) -> None:
        """Asks were answered."""
        self._on_answered(tells.tells)
        self.pump.submit(tells)

    def _on_answered(self, *boxes: Collection[Any]) -> None:
        for box in boxes:
            self.in_flight.end(box)
        owes = not self.in_flight.is_empty
        self._links.tell(self._detector.on_answered(self.number, now_us(), owes=owes))
        if self.link.outgoing is not None:
            self.link.outgoing.look()

    def begin_beat(self) -> int:
        """Return the number of the heartbeat that leaves now."""
        return self._detector.begin_beat(self.number, now_us())

    def end(self, why: str) -> None:
        """Give both streams up; they are dialled anew."""
        self._links.tell(self._detector.on_lost(self.number, why, now_us()))
        self.link.end()
        self.bulk.end()

    def _judge_backlog(self) -> None:
        if self.link.is_overfull or self.bulk.is_overfull:
            self.end("too much unsent")

    def _complain(self, why: str) -> NoReturn:
        if why != self._refused_why:
            self._refused_why = why
            log.error("peer_refused peer=%s why=%s", self.id, why)
        raise BadFrame(why)

    def _note_clock(self, theirs_ms: int) -> None:
        news = self.clock.on_clock(theirs_ms, wall_ms()) if theirs_ms else None
        if news is not None:
            self.pump.submit(news)


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
        self.detector = Detector(limits, now_us())
        self._watching = tasks.create_task(self._watch())

    def follow(self, topology: Topology) -> None:
        """Link with exactly the other members of a topology."""
        wanted = {member.number: member for member in topology.members}
        wanted.pop(self._identity.number, None)
        for number in [number for number in self.peers if number not in wanted]:
            self._drop(number, "no member any more")
        for number, member in wanted.items():
            address = self._overrides.get(member.id, member.address)
            known = self.peers.get(number)
            if known is not None and known.address != address:
                self._drop(number, "it has moved")
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

    def tell(self, changes: list[Change]) -> None:
        """Have the core hear what has become of peers."""
        for event, why in changes:
            peer = self.peers.get(event.node)
            name = event.node if peer is None else peer.id
            log.info("peer_%s peer=%s why=%s", _NAMES[type(event)], name, why)
            if peer is not None and type(event) is PeerDown:
                peer.clock.forget()
            self._pump.submit(event)

    def stop(self) -> None:
        """End all links."""
        self._watching.cancel()
        for number in list(self.peers):
            self._drop(number, "this node stops")

    async def _watch(self) -> None:
        """Have the detector look whenever it wants to."""
        while True:
            await asyncio.sleep(max(0, self.detector.next_look() - now_us()) / 1e6)
            look = self.detector.look(now_us())
            self.tell(look.changes)
            for node in look.redials:
                self.peers[node].end("silent")
            for node in look.beats:
                self.peers[node].link.beat()

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
        self.detector.add(member.number, now_us())
        self._running[member.number] = [
            self._tasks.create_task(link.run()) for link in (peer.link, peer.bulk)
        ]

    def _drop(self, number: NodeNumber, why: str) -> None:
        self.tell(self.detector.drop(number, why, now_us()))
        self.peers.pop(number).is_dropped = True
        for task in self._running.pop(number):
            task.cancel()
