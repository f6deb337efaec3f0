"""One simulated life's links to all peers: streams that are dialled, accepted, lost and made anew.

What it decides: when to dial, and who goes (tests/sim/wire.py has the bytes). It follows
kvnode.runtime.links and kvnode.runtime.accept: a node sends requests and heartbeats on the streams
that it dialled, and replies and echoes on those that it accepted; hellos are exchanged first, with
all that they say of lives; the detector that the runtime drives judges who is up.
Laws: what is sent without a stream is dropped; a broken stream loses what is under way on it; one
that is not open is dialled again and again; the same seed gives the same changes.
Its tests are tests/sim/test_liveness.py and tests/sim/test_world.py.
Left out: what is unsent in a stream that nobody reads is not bounded; heartbeats go alone and are
no bytes: there are a hundred a second, and they say three numbers and their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kvnode.core.conversations import PeerAsks, refuse
from kvnode.core.hlc import Timestamp
from kvnode.core.liveness import Change, Detector, Standing
from kvnode.core.messages import Instant, NodeNumber, PeerDown, PeerMessage, PeerReplies
from kvnode.core.skew import ClockNews
from kvnode.runtime import claims
from kvnode.runtime.accept import refused_by_epoch
from kvnode.runtime.identity import Identity
from kvnode.runtime.outgoing import InFlight
from kvnode.runtime.peer_codec import parse_frame
from kvproto import peer_pb2
from tests.sim.network import Way
from tests.sim.story import Broken
from tests.sim.wire import Wire

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster
    from tests.sim.host import Host

RESET_US = 500
"""Until the other side notices that a connection broke."""


class Beat(NamedTuple):
    """What heartbeats and their answers say; see `Left out`."""

    epoch: int
    hlc: int
    wall_ms: int


class Stream:
    """One connection, and what each of its ends knows of it."""

    __slots__ = ("accepted_by", "dialled_by", "is_open", "latest_us", "source", "target", "way")

    def __init__(
        self,
        source: NodeNumber,
        target: NodeNumber,
        dialled_by: Links,
        accepted_by: Links,
        way: Way,
    ) -> None:
        self.source = source
        """The number of who dialled."""
        self.target = target
        self.dialled_by = dialled_by
        self.accepted_by = accepted_by
        self.way = way
        self.is_open = False
        """Whether its dialler has heard a hello on it."""
        self.latest_us = [0, 0, 0, 0]
        """When the latest frame arrives of each lane: there, back, and the same of bulk."""


class Peer:
    """Another node, as this one is linked with it by the streams that it dials."""

    __slots__ = ("clock", "dialled_us", "id", "in_flight", "is_waiting", "life", "number", "stream")

    def __init__(self, number: NodeNumber, name: str) -> None:
        self.number = number
        self.id = name
        self.stream: Stream | None = None
        self.dialled_us = 0
        self.is_waiting = False
        """Whether it is to be seen again whether it must be dialled."""
        self.life = 0
        self.in_flight = InFlight()
        self.clock = ClockNews(number)

    @property
    def is_open(self) -> bool:
        """Whether messages may be sent."""
        return self.stream is not None and self.stream.is_open


class Accepted:
    """A stream that a peer dialled."""

    __slots__ = ("heard_us", "incarnation", "owes_topology", "stream")

    def __init__(self, stream: Stream, incarnation: int, now_us: int) -> None:
        self.stream = stream
        self.incarnation = incarnation
        self.heard_us = now_us
        self.owes_topology = False


class Links:
    """Links between one life of a node and all others."""

    def __init__(self, host: Host, world: Cluster, identity: Identity, wire: Wire) -> None:
        self.incarnation = identity.incarnation
        self.detector = Detector(world.limits, Instant(world.now_us))
        self.host = host
        self.is_over = False
        self._world = world
        self._network = world.network
        self._identity = identity
        self._wire = wire
        self.peers: dict[NodeNumber, Peer] = {}
        self.accepted: dict[NodeNumber, Accepted] = {}

    def begin(self) -> None:
        """Dial all peers, and look after them from here on."""
        for member in self._identity.topology.members:
            if member.number != self._identity.number:
                self.peers[member.number] = Peer(member.number, member.id)
                self.detector.add(member.number, self._now)
                self._dial_until_open(member.number)
        self.host.later(0, self._look)

    def standing(self, peer: NodeNumber) -> Standing:
        """Return what a peer is good for."""
        return self.detector.standing(peer)

    def close(self) -> None:
        """This life ends: the other ends of its streams notice, if anything gets through."""
        self.is_over = True
        for peer in self.peers.values():
            if peer.stream is not None:
                self._hang_up(peer.stream, peer.stream.accepted_by)
        for accepted in self.accepted.values():
            self._hang_up(accepted.stream, accepted.stream.dialled_by)

    def inject(self, number: NodeNumber, data: bytes) -> None:
        """Take a frame that comes on no stream: it was under way when an earlier one broke."""
        frame = parse_frame(data)
        self.take_requests(number, frame)
        if (peer := self.peers.get(number)) is not None:
            self.take_replies(peer, frame)

    def on_away(self) -> None:
        """The process was stopped for long: what waits in its streams is of unknown age."""
        for number, accepted in list(self.accepted.items()):
            del self.accepted[number]
            self._hang_up(accepted.stream, accepted.stream.dialled_by)

    # ---- dialling ------------------------------------------------------------------------

    def dial(self, number: NodeNumber) -> None:
        """Say hello now, if no stream is open: the peer has just been started."""
        peer = self.peers.get(number)
        if peer is None or peer.is_open:
            return
        there = self._world.hosts[number].links
        if there is None:
            return
        way = self._network.way(self.host.slot, there.host.slot)
        peer.stream = Stream(self._identity.number, number, self, there, way)
        peer.dialled_us = self._now
        self._carry(peer.stream, 0, there.on_hello, peer.stream, self._wire.hello(peer.id))

    def reset(self, number: NodeNumber) -> None:
        """The dialled connection breaks, and is made anew."""
        self.lose(number)
        self._dial_until_open(number)

    def lose(self, number: NodeNumber) -> None:
        """The dialled connection breaks."""
        peer = self.peers.get(number)
        if peer is None or peer.stream is None:
            return
        stream, peer.stream = peer.stream, None
        if stream.is_open:
            self._tell(self.detector.on_lost(number, "connection lost", self._now))
        self._hang_up(stream, stream.accepted_by)

    def on_broken(self, stream: Stream) -> None:
        """The other end of a stream has gone."""
        if self._peer_of(stream) is not None:
            self.reset(stream.target)
        elif self._accepted_of(stream) is not None:
            del self.accepted[stream.source]

    def _hang_up(self, stream: Stream, other: Links) -> None:
        network = self._world.network
        if other.is_over or network.link(self.host.slot, other.host.slot).is_cut:
            return
        self._world.after(RESET_US, other.host.take, other, other.on_broken, stream)

    def _dial_until_open(self, number: NodeNumber) -> None:
        peer = self.peers.get(number)
        if peer is None or peer.is_open:
            return
        limits = self._world.limits
        if peer.stream is None or self._now - peer.dialled_us >= 1_000 * limits.silence_ms:
            self.dial(number)
        if not peer.is_waiting:
            peer.is_waiting = True
            self.host.later(1_000 * limits.reconnect_ms, lambda: self._dial_again(peer))

    def _dial_again(self, peer: Peer) -> None:
        peer.is_waiting = False
        self._dial_until_open(peer.number)

    # ---- hellos --------------------------------------------------------------------------

    def on_hello(self, stream: Stream, data: bytes) -> None:
        """Somebody dials us."""
        frame = parse_frame(data)
        self._identity.take(frame)
        member = self._identity.topology.member(frame.hello.node)
        assert member is not None
        reply = self._wire.begin(with_topology=self._identity.is_older(frame))
        final = self._final_refusal(member.number, frame.hello)
        if refusal := final or self._refusal(member.number, frame.hello):
            reply.hello.refused, reply.hello.reason = True, refusal
            reply.hello.final = bool(final)
        else:
            reply.hello.CopyFrom(self._identity.hello(frame.hello.node))
            self._hear_hello(frame.hello)
            earlier = self.accepted.get(member.number)
            if earlier is not None and earlier.stream is not stream:
                self._hang_up(earlier.stream, earlier.stream.dialled_by)
            self.accepted[member.number] = Accepted(stream, frame.hello.incarnation, self._now)
        there = stream.dialled_by
        self._carry(stream, 1, there.on_welcome, stream, reply.SerializeToString())

    def on_welcome(self, stream: Stream, data: bytes) -> None:
        """The other side has answered our hello."""
        peer = self._peer_of(stream)
        if peer is None:
            self._hang_up(stream, stream.accepted_by)
        if peer is None or stream.is_open:
            return
        frame = parse_frame(data)
        self._identity.take(frame)
        hello = frame.hello
        if hello.refused and hello.final:
            self._identity.on_refused_for_good(hello.reason)
        is_refused = hello.refused or hello.node != peer.id
        if is_refused or claims.judge(peer.id, self._identity.known_life(peer.id), hello):
            peer.stream = None
            self._hang_up(stream, stream.accepted_by)
            return
        self._hear_hello(hello)
        peer.life, peer.in_flight = hello.incarnation, InFlight()
        peer.clock.forget()
        stream.is_open = True
        self._note_clock(peer, hello.wall_ms)
        self._tell(self.detector.on_opened(peer.number, peer.life, self._now))

    def _hear_hello(self, hello: peer_pb2.Hello) -> None:
        """A peer says who it is, and what it knows of us. Who is told of a later life of its own
        has an older store than was promised: from then on nothing that it holds may count."""
        identity, life = self._identity, self.host.life
        is_told = hello.known_incarnation not in (0, identity.incarnation)
        is_told &= hello.known_start >= identity.start_number
        identity.on_hello(hello)
        if is_told and life is not None:
            proving = life.replica.proving
            if any(proving.is_proven(partition) for partition in proving.owned()):
                text = f"seed {self._world.seed}: node {identity.number} was told of a later life"
                raise Broken("5-lost-life-is-doubted", f"{text} of its own, and counts")

    def _final_refusal(self, number: NodeNumber, hello: peer_pb2.Hello) -> str:
        if number == self._identity.number:
            return ""
        known = self._identity.known_life(hello.node)
        why = claims.question(hello.node, known, hello, is_beside=bool(self._other(number, hello)))
        if why is None:
            return ""
        alive = self._who_answers(number)
        if alive in (0, hello.incarnation):
            return why
        return claims.refuse_beside(hello.node, known, alive, f"sim:{number}")

    def _refusal(self, number: NodeNumber, hello: peer_pb2.Hello) -> str:
        if number == self._identity.number and hello.incarnation != self.incarnation:
            return f"{hello.node} is this node, and it is alive"
        other = self._other(number, hello)
        silence_us = 1_000 * self._world.limits.silence_ms
        if other is None or self._now - other.heard_us > silence_us:
            return ""
        return f"{hello.node} is alive as incarnation {other.incarnation:016x}"

    def _other(self, number: NodeNumber, hello: peer_pb2.Hello) -> Accepted | None:
        """Return the stream of another life of a peer."""
        found = self.accepted.get(number)
        return None if found is None or found.incarnation == hello.incarnation else found

    def _who_answers(self, number: NodeNumber) -> int:
        """Return the incarnation that answers at a member's address; 0 if none does."""
        there, network = self._world.hosts[number], self._world.network
        ways = network.link(self.host.slot, number), network.link(number, self.host.slot)
        if there.links is None or there.is_paused or any(way.is_cut for way in ways):
            return 0
        return there.links.incarnation

    # ---- messages ------------------------------------------------------------------------

    def request(self, number: NodeNumber, messages: list[PeerMessage]) -> None:
        """Send requests to a peer; dropped if its stream is not open."""
        peer = self.peers.get(number)
        if peer is None or not peer.is_open:
            return
        assert peer.stream is not None
        for batch in self._wire.batches(messages):
            peer.in_flight.begin(batch.messages, is_bulk=batch.is_bulk)
            self._send(peer.stream, 2 * batch.is_bulk, batch.messages, self._wire.begin())
        if not peer.in_flight.is_empty:
            self.detector.on_asked(number, self._now)

    def reply(self, number: NodeNumber, messages: list[PeerMessage]) -> None:
        """Send replies to a peer; dropped if it has no stream here."""
        accepted = self.accepted.get(number)
        if accepted is None:
            return
        for batch in self._wire.batches(messages):
            frame = self._wire.begin(with_topology=accepted.owes_topology)
            accepted.owes_topology = False
            self._send(accepted.stream, 1 + 2 * batch.is_bulk, batch.messages, frame)

    def _send(
        self, stream: Stream, lane: int, messages: list[PeerMessage], frame: peer_pb2.PeerFrame
    ) -> None:
        is_back = lane & 1
        there = stream.dialled_by if is_back else stream.accepted_by
        link = self._world.network.link(self.host.slot, there.host.slot)
        if link.holds is not None:
            messages = link.hold(messages)
            if not messages:
                return
        data = self._wire.codec.encode(frame, messages)
        hear = there.on_reply_frame if is_back else there.on_request_frame
        self._carry(stream, lane, hear, stream, data)

    def _carry(self, stream: Stream, lane: int, hear: Any, *args: object) -> None:
        there = stream.dialled_by if lane & 1 else stream.accepted_by
        slots = self.host.slot, there.host.slot
        self._network.carry(slots, stream.latest_us, lane, (there.host.take, there, hear, *args))

    def on_request_frame(self, stream: Stream, data: bytes) -> None:
        """A frame has come on an accepted stream: requests."""
        accepted, number = self._accepted_of(stream), stream.source
        if accepted is None:
            return  # it has been given up
        accepted.heard_us = self._now
        self._world.note_frame(number, self._identity.number, data)
        frame = parse_frame(data)
        self._identity.take(frame)
        accepted.owes_topology |= self._identity.is_older(frame)
        self.take_requests(number, frame)

    def take_requests(self, number: NodeNumber, frame: peer_pb2.PeerFrame) -> None:
        """Hand a frame's requests to the node, unless they are of an older epoch."""
        codec, epoch = self._wire.codec, self._identity.topology.epoch
        requests, failures = codec.requests(number, frame)
        asks = codec.asks(number, frame)
        if self._identity.is_older(frame):
            self.reply(number, refused_by_epoch(requests, frame, epoch))
            if asks is not None:
                tells = [tell for ask in asks.asks if (tell := refuse(ask)) is not None]
                self.reply(number, list(tells))
        else:
            if frame.epoch < epoch:
                text = f"node {self._identity.number} took what node {number} sent in {frame.epoch}"
                raise Broken("2.9-epoch", f"{text}, in epoch {epoch}")
            for box in (requests.writes, requests.reads, requests.forwards):
                if box:
                    self._world.note_messages(number, self._identity.number, box)
            if requests.writes or requests.reads or requests.forwards:
                self.host.hear(requests)
            if asks is not None:
                self._take_asks(number, asks)
        if failures:
            self.reply(number, list(failures))

    def _take_asks(self, number: NodeNumber, asks: PeerAsks) -> None:
        self._world.note_messages(number, self._identity.number, asks.asks)
        self.host.hear(asks)

    def on_reply_frame(self, stream: Stream, data: bytes) -> None:
        """A frame has come on a dialled stream: replies, or a newer topology alone."""
        peer = self._peer_of(stream)
        if peer is None:
            return
        self._world.note_frame(peer.number, self._identity.number, data)
        frame = parse_frame(data)
        self._identity.take(frame)
        self.take_replies(peer, frame)

    def take_replies(self, peer: Peer, frame: peer_pb2.PeerFrame) -> None:
        """Hand a frame's replies to the node."""
        codec = self._wire.codec
        replies = codec.replies(peer.number, frame)
        if replies.writes or replies.reads or replies.forwards:
            self._on_answered(peer, replies)
            self.host.hear(replies)
        if (tells := codec.tells(peer.number, frame)) is not None:
            peer.in_flight.end(tells.tells)
            owes = not peer.in_flight.is_empty
            self._tell(self.detector.on_answered(peer.number, self._now, owes=owes))
            self._world.note_messages(peer.number, self._identity.number, tells.tells)
            self.host.hear(tells)

    def _on_answered(self, peer: Peer, replies: PeerReplies) -> None:
        for box in (replies.writes, replies.reads, replies.forwards):
            if box:
                peer.in_flight.end(box)
        owes = not peer.in_flight.is_empty
        if changes := self.detector.on_answered(peer.number, self._now, owes=owes):
            self._tell(changes)

    # ---- heartbeats ----------------------------------------------------------------------

    def _look(self) -> None:
        detector, now = self.detector, self._now
        look = detector.look(now)
        if look.changes:
            self._tell(look.changes)
        for number in look.redials:
            self.reset(number)
        if look.beats:
            beat = self.beat_now()
            for number in look.beats:
                stream = self.peers[number].stream
                if stream is not None and stream.is_open:
                    self._beat(stream, beat, detector.begin_beat(number, now))
        self.host.later(detector.next_look() - now, self._look)

    def beat_now(self) -> Beat:
        """Return what a heartbeat or its answer says now: as `Identity.header`."""
        host = self.host
        life, wall_ms = host.life, host.wall_ms
        assert life is not None
        return Beat(life.replica.topology.epoch, life.clock.read(wall_ms), wall_ms)

    def _beat(self, stream: Stream, beat: Beat, number: int) -> None:
        """Send a heartbeat. Where nothing is amiss, there and back are one entry of the agenda."""
        there = stream.accepted_by
        if not there.host.is_paused and (delay_us := stream.way.round_trip_us()):
            self._world.after(delay_us, self._round_trip, stream, beat, number)
        else:
            self._carry(stream, 0, there.on_beat, stream, beat, number)

    def _round_trip(self, stream: Stream, beat: Beat, number: int) -> None:
        there, way = stream.accepted_by, stream.way
        if there.is_over or way.there.is_cut or way.back.is_cut:
            return
        if there.take_beat(stream, beat) is None or there.host.is_paused:
            return
        if self.host.links is self and not self.host.is_paused:
            self.on_echo(stream, there.beat_now(), number)  # as nearly always: what `take` does
        else:
            self.host.take(self, self.on_echo, stream, there.beat_now(), number)

    def take_beat(self, stream: Stream, beat: Beat) -> Accepted | None:
        """Take note of a heartbeat, and tell of a newer topology if there is one."""
        accepted = self._accepted_of(stream)
        if accepted is not None:
            accepted.heard_us = self._world.now_us
            self._observe(beat.hlc, self.host.wall_ms)
            if beat.epoch < self._identity.topology.epoch:
                accepted.owes_topology = True
            if accepted.owes_topology:
                self.reply_nothing(accepted)
        return accepted

    def on_beat(self, stream: Stream, beat: Beat, number: int) -> None:
        """A heartbeat has come: it is answered at once."""
        if self.take_beat(stream, beat) is not None:
            self._world.note_beat(stream.source, stream.target, number)
            there = stream.dialled_by
            self._carry(stream, 1, there.on_echo, stream, self.beat_now(), number)

    def reply_nothing(self, accepted: Accepted) -> None:
        """Send a frame without messages: its head has news."""
        frame = self._wire.begin(with_topology=accepted.owes_topology)
        accepted.owes_topology = False
        there = accepted.stream.dialled_by
        data = frame.SerializeToString()
        self._carry(accepted.stream, 1, there.on_reply_frame, accepted.stream, data)

    def on_echo(self, stream: Stream, beat: Beat, number: int) -> None:
        """A heartbeat was answered."""
        peer = self._peer_of(stream)
        if peer is None:
            return
        wall_ms = self.host.wall_ms
        self._observe(beat.hlc, wall_ms)
        self._world.note_beat(stream.target, stream.source, number)
        if (news := peer.clock.on_clock(beat.wall_ms, wall_ms)) is not None:
            self.host.hear(news)
        if changes := self.detector.on_echo(peer.number, number, self._now):
            self._tell(changes)

    # ---- within --------------------------------------------------------------------------

    @property
    def _now(self) -> Instant:
        return Instant(self._world.now_us)

    def _peer_of(self, stream: Stream) -> Peer | None:
        """Return whom this stream was dialled to, unless it has been given up."""
        peer = self.peers.get(stream.target)
        return peer if peer is not None and peer.stream is stream else None

    def _accepted_of(self, stream: Stream) -> Accepted | None:
        accepted = self.accepted.get(stream.source)
        return accepted if accepted is not None and accepted.stream is stream else None

    def _note_clock(self, peer: Peer, theirs_ms: int) -> None:
        news = peer.clock.on_clock(theirs_ms, self.host.wall_ms)
        if news is not None:
            self.host.hear(news)

    def _observe(self, hlc: int, wall_ms: int) -> None:
        """As `Identity.observe`."""
        assert self.host.life is not None
        clock = self.host.life.clock
        if hlc > clock.last:
            clock.observe(Timestamp(hlc), wall_ms)

    def _tell(self, changes: list[Change]) -> None:
        world, here = self._world, self._identity.number
        for change in changes:
            if type(change.event) is PeerDown:
                self.peers[change.event.node].clock.forget()
            world.tell("peer", here, change)
            world.changes.append((world.now_us, here, change))
            self.host.hear(change.event)
