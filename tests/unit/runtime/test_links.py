"""Dialling: what takes a peer up and down, what is dialled anew, what travels where."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from grpc.aio._call import StreamStreamCall

from kvnode.core.messages import (
    Event,
    Instant,
    PeerClock,
    PeerDown,
    PeerHeard,
    PeerMessage,
    PeerReplies,
    PeerSilent,
    PeerUp,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    Status,
    WriteKind,
)
from kvnode.core.record import Encoded
from kvnode.core.topology import Member, NodeId, Topology
from kvnode.runtime import link
from kvnode.runtime.identity import Identity
from kvnode.runtime.links import Links, Peer
from kvnode.runtime.peer_codec import Header, PeerCodec, new_frame, parse_frame
from kvnode.runtime.pump import now_us, wall_ms
from kvnode.runtime.settings import ServeError
from kvnode.runtime.topology_codec import encode_topology
from kvnode.runtime.wire import handlers, server_options
from kvproto import peer_pb2
from tests.support.nodes import free_base
from tests.unit.core.builders import KEY, topology
from tests.unit.runtime.builders import Driven, edge, run, turns

LIFE = 22


def pair(port: int) -> Topology:
    """Return a cluster of n1 and n2, with n2 at a port."""
    members = [
        Member(id=NodeId("n1"), number=1, address="127.0.0.1:1"),
        Member(id=NodeId("n2"), number=2, address=f"127.0.0.1:{port}"),
    ]
    return topology(2).with_members(members)


class OtherNode:
    """n2: a server that keeps what it hears and answers as a test tells it to."""

    def __init__(self, port: int, cluster: Topology) -> None:
        self.header = Header(cluster.cluster_id, cluster.epoch, 0)
        self.hello = peer_pb2.Hello(node="n2", incarnation=LIFE, start_number=1, wall_ms=wall_ms())
        self.heard: asyncio.Queue[tuple[str, peer_pb2.PeerFrame]] = asyncio.Queue()
        self.contexts: dict[str, Any] = {}
        self.dialled: asyncio.Queue[str] = asyncio.Queue()
        self.answers_beats = True
        self.is_draining = False
        self.ahead_ms: int | None = None
        """What its heartbeats say of its clock; None: nothing."""
        self.server = grpc.aio.server(options=server_options(streams=64))
        methods = {"Link": self._serve("Link"), "Bulk": self._serve("Bulk")}
        self.server.add_generic_rpc_handlers((handlers("kvnode.v1.Peer", streams=methods),))
        self.server.add_insecure_port(f"127.0.0.1:{port}")

    async def say(self, kind: str, *messages: PeerMessage) -> None:
        codec = PeerCodec(edge(), now_us)
        await self.contexts[kind].write(codec.encode(new_frame(self.header), messages))

    async def next_request(self) -> tuple[str, peer_pb2.PeerFrame]:
        """Return what comes next that is more than a heartbeat, and on which stream."""
        while True:
            kind, frame = await self.heard.get()
            if not (frame.HasField("heartbeat") and frame.ByteSize() < 60):
                return kind, frame

    def _serve(self, kind: str) -> Callable[[Any, Any], Awaitable[None]]:
        async def method(_: Any, context: Any) -> None:
            parse_frame(await context.read())
            answer = new_frame(self.header)
            answer.hello.CopyFrom(self.hello)
            await context.write(answer.SerializeToString())
            self.contexts[kind] = context
            self.dialled.put_nowait(kind)
            while (data := await context.read()) is not grpc.aio.EOF:
                await self._take(kind, parse_frame(data))

        return method

    async def _take(self, kind: str, frame: peer_pb2.PeerFrame) -> None:
        if frame.HasField("heartbeat") and self.answers_beats:
            answer = new_frame(self.header)
            answer.heartbeat.reply = True
            answer.heartbeat.echo = frame.heartbeat.seq
            answer.heartbeat.draining = self.is_draining
            if self.ahead_ms is not None:
                answer.heartbeat.wall_ms = wall_ms() + self.ahead_ms
            await self.contexts[kind].write(answer.SerializeToString())
        self.heard.put_nowait((kind, frame))


class Events:
    """A pump that only keeps what it is given."""

    def __init__(self) -> None:
        self.all: list[Event] = []
        self._news: asyncio.Queue[Event] = asyncio.Queue()

    def submit(self, event: Event) -> None:
        self.all.append(event)
        self._news.put_nowait(event)

    async def next(self, kind: type) -> Any:
        """Return the next event of a kind."""
        while True:
            event = await self._news.get()
            if isinstance(event, kind):
                return event

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.all if isinstance(event, kind)]


class Rig:
    """n1's links to n2; `async with` ends them."""

    def __init__(self, *, starts: bool = True, **limits: Any) -> None:
        self.port = free_base(1)
        self.cluster = pair(self.port)
        self.starts = starts
        self.driven = Driven(self.cluster, **limits)
        self.limits = self.driven.node.limits
        self.events = Events()
        self.identity = Identity(self.driven.node, NodeId("n1"), self.driven.engine, 11)
        self.identity.begin_life()
        self.other = OtherNode(self.port, self.cluster)
        self.tasks = asyncio.TaskGroup()

    async def __aenter__(self) -> Rig:
        if self.starts:
            await self.other.server.start()
        await self.tasks.__aenter__()
        codec = PeerCodec(edge(self.cluster), now_us)
        self.links = Links(
            self.identity, codec, self.events, self.limits, overrides={}, tasks=self.tasks  # type: ignore[arg-type]
        )  # fmt: skip
        self.links.follow(self.cluster)
        return self

    async def __aexit__(self, *error: Any) -> None:
        self.links.stop()
        await self.tasks.__aexit__(None, None, None)
        await self.other.server.stop(None)

    @property
    def peer(self) -> Peer:
        return self.links.peers[2]

    async def up(self) -> None:
        """Wait until both streams are open."""
        await self.events.next(PeerUp)
        while not (self.peer.link.is_open and self.peer.bulk.is_open):
            await turns()


def write(number: int, size: int = 10) -> ReplicaWrite:
    deadline = Instant(now_us() + 5_000_000)
    return ReplicaWrite(number, KEY, Encoded(bytes(size)), deadline, WriteKind.WRITE, 0)


def read(number: int) -> ReplicaRead:
    return ReplicaRead(number, KEY, Instant(now_us() + 5_000_000), b"")


def reply(number: int, size: int = 0) -> ReplicaReadReply:
    return ReplicaReadReply(number, Status.DONE, Encoded(bytes(size)), False)


def test_a_peer_is_up_once_both_have_said_hello_and_its_clock_is_noted() -> None:
    async def test() -> None:
        async with Rig() as rig:
            assert await rig.events.next(PeerUp) == PeerUp(2)
            assert rig.peer.is_up
            assert rig.identity.known("n2") == (1, LIFE)
            (clock, *_) = rig.events.of(PeerClock)
            assert clock.node == 2
            assert abs(clock.ahead_ms) < 10_000

    run(test)


def test_a_peer_that_starts_late_is_reached_soon() -> None:
    async def test() -> None:
        async with Rig(starts=False) as rig:
            await rig.other.server.start()
            await rig.events.next(PeerUp)

    run(test)


def test_an_attempt_that_grpc_forgets_is_given_up_and_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forgotten = iter(range(4))  # the first attempts of both streams
    sent: Any = StreamStreamCall._metadata_sent_observer

    def observer(call: Any) -> None:
        if next(forgotten, None) is None:
            sent(call)

    monkeypatch.setattr(StreamStreamCall, "_metadata_sent_observer", observer)
    monkeypatch.setattr(link, "_HELLO_S", 0.1)

    async def test() -> None:
        async with Rig() as rig:
            await rig.up()

    run(test)


def test_requests_travel_and_answers_come_back() -> None:
    async def test() -> None:
        async with Rig() as rig:
            await rig.up()
            rig.links.send(2, [write(1), read(2)])
            kind, frame = await rig.other.next_request()
            assert (kind, list(frame.writes.id), list(frame.reads.id)) == ("Link", [1], [2])
            assert rig.peer.in_flight.count == 2
            await rig.other.say("Link", reply(2))
            answer = await rig.events.next(PeerReplies)
            assert (answer.sender, [one.id for one in answer.reads]) == (2, [2])
            assert rig.peer.in_flight.count == 1

    run(test)


def test_large_requests_travel_on_the_bulk_stream_and_are_not_counted_on_the_other() -> None:
    async def test() -> None:
        async with Rig(bulk_bytes=1_024) as rig:
            await rig.up()
            rig.links.send(2, [write(1, 2_000), write(2)])
            frames = dict([await rig.other.next_request(), await rig.other.next_request()])
            assert list(frames["Bulk"].writes.id) == [1]
            assert list(frames["Link"].writes.id) == [2]
            assert rig.peer.in_flight.count == 1
            await rig.other.say("Link", reply(1))
            await rig.events.next(PeerReplies)
            assert rig.peer.in_flight.count == 1
            await rig.other.say("Bulk", reply(2))
            await rig.events.next(PeerReplies)
            assert rig.peer.in_flight.count == 0

    run(test)


def test_a_broken_stream_takes_the_peer_down_at_once_and_is_dialled_anew() -> None:
    async def test() -> None:
        async with Rig() as rig:
            await rig.up()
            with pytest.raises(grpc.aio.AbortError):
                await rig.other.contexts["Link"].abort(grpc.StatusCode.ABORTED, "broken")
            await rig.events.next(PeerDown)
            await rig.events.next(PeerUp)

    run(test)


def test_a_lost_bulk_stream_takes_the_peer_down_too_since_what_was_on_it_is_unknown() -> None:
    async def test() -> None:
        async with Rig() as rig:
            await rig.up()
            with pytest.raises(grpc.aio.AbortError):
                await rig.other.contexts["Bulk"].abort(grpc.StatusCode.ABORTED, "broken")
            await rig.events.next(PeerDown)
            await rig.events.next(PeerUp)

    run(test)


def test_a_silent_peer_is_down_though_its_stream_is_open_and_up_when_it_answers() -> None:
    async def test() -> None:
        async with Rig(heartbeat_ms=10, silence_ms=300, failover_ms=100) as rig:
            rig.other.answers_beats = False
            await rig.up()
            await rig.events.next(PeerDown)
            assert rig.peer.link.is_open
            rig.other.answers_beats = True
            await rig.events.next(PeerUp)
            assert rig.other.dialled.qsize() == 2

    run(test)


def test_frames_that_answer_nothing_do_not_keep_a_peer_up() -> None:
    async def test() -> None:
        async with Rig(heartbeat_ms=10, silence_ms=50) as rig:
            rig.other.answers_beats = False
            await rig.up()
            while rig.peer.is_up:
                await rig.other.say("Link")
                await rig.other.heard.get()
            assert rig.events.of(PeerDown)

    run(test)


def test_a_peer_that_owes_answers_and_says_nothing_is_silent_and_back_when_it_answers() -> None:
    async def test() -> None:
        async with Rig(heartbeat_ms=20, silence_ms=5_000, failover_ms=50) as rig:
            await rig.up()
            rig.other.answers_beats = False
            rig.links.send(2, [read(1)])
            assert await rig.events.next(PeerSilent) == PeerSilent(2)
            rig.other.answers_beats = True
            await rig.other.say("Link", reply(1))
            assert await rig.events.next(PeerHeard) == PeerHeard(2)
            assert rig.events.of(PeerDown) == []

    run(test)


def test_a_peer_that_is_stopping_is_silent_before_it_goes() -> None:
    async def test() -> None:
        async with Rig(heartbeat_ms=10) as rig:
            await rig.up()
            rig.other.is_draining = True
            await rig.events.next(PeerSilent)
            assert rig.events.of(PeerDown) == []

    run(test)


def test_a_peers_clock_is_told_when_it_has_news_and_not_with_each_heartbeat() -> None:
    async def test() -> None:
        async with Rig(heartbeat_ms=10) as rig:
            rig.other.ahead_ms = 0
            await rig.up()
            for _ in range(10):
                await rig.other.heard.get()
            assert len(rig.events.of(PeerClock)) <= 3  # a slow machine may see jumps of its own
            rig.other.ahead_ms = 70_000
            while (await rig.events.next(PeerClock)).ahead_ms < 60_000:
                pass
            rig.peer.clock.forget()
            assert (await rig.events.next(PeerClock)).ahead_ms > 60_000

    run(test)


def test_a_peer_that_stays_silent_is_dialled_anew() -> None:
    async def test() -> None:
        async with Rig(heartbeat_ms=10, silence_ms=50) as rig:
            rig.other.answers_beats = False
            await rig.up()
            await rig.events.next(PeerDown)
            for _ in range(4):
                await rig.other.dialled.get()
            rig.other.answers_beats = True
            await rig.events.next(PeerUp)

    run(test)


def test_a_heartbeat_goes_out_however_much_else_does() -> None:
    async def test() -> None:
        async with Rig(heartbeat_ms=20) as rig:
            await rig.up()
            beats = 0
            while beats < 3:
                rig.links.send(2, [read(beats + 1)])
                _, frame = await rig.other.heard.get()
                beats += frame.HasField("heartbeat") and frame.HasField("reads")

    run(test)


def test_a_peer_that_does_not_read_is_down_and_dialled_anew() -> None:
    async def test() -> None:
        async with Rig(outbox_bytes=1 << 20, bulk_bytes=16 << 20) as rig:
            await rig.up()
            while rig.peer.is_up:  # n2 never gets a turn to read
                rig.links.send(2, [write(1, 512 << 10)])
            await rig.events.next(PeerDown)
            await rig.events.next(PeerUp)
            assert not rig.peer.link.is_overfull

    run(test)


def test_who_refuses_us_is_told_of_once_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with Rig() as rig:
            rig.other.hello = peer_pb2.Hello(node="n2", refused=True, reason="n1 is alive")
            for _ in range(4):
                await rig.other.dialled.get()
            assert not rig.peer.is_up
            rig.other.hello = peer_pb2.Hello(node="n2", incarnation=LIFE, start_number=1)
            await rig.events.next(PeerUp)

    with caplog.at_level(logging.ERROR, "kvnode"):
        run(test)
    ours = [record for record in caplog.records if record.name.startswith("kvnode")]
    assert [record.message for record in ours] == ["peer_refused peer=n2 why=n1 is alive"]


def test_a_refusal_for_good_ends_the_node_with_its_reason() -> None:
    async def test() -> None:
        async with Rig() as rig:
            no = peer_pb2.Hello(node="n2", refused=True, final=True, reason="n1 lives elsewhere")
            rig.identity.pump = rig.driven.pump
            rig.other.hello = no
            with pytest.raises(ServeError, match="n1 lives elsewhere"):
                await rig.driven.pump.failed

    run(test)


def test_a_copy_that_answers_at_a_peers_address_is_not_linked_with() -> None:
    async def test() -> None:
        async with Rig(starts=False) as rig:
            known = peer_pb2.Hello(node="n2", incarnation=9, start_number=5, place="a" * 32)
            rig.identity.on_hello(known)
            rig.other.hello.place = "b" * 32
            await rig.other.server.start()
            for _ in range(3):
                await rig.other.dialled.get()
            assert not rig.peer.is_up
            assert rig.identity.known("n2") == (5, 9)

    run(test)


def test_another_node_at_the_address_is_not_linked_with() -> None:
    async def test() -> None:
        async with Rig() as rig:
            rig.other.hello.node = "n3"
            for _ in range(3):
                await rig.other.dialled.get()
            assert not rig.peer.is_up
            assert rig.events.of(PeerUp) == []

    run(test)


def test_a_newer_topology_in_a_hello_is_followed_and_who_left_is_dialled_no_more() -> None:
    async def test() -> None:
        async with Rig() as rig:
            await rig.up()
            alone = rig.cluster.with_members([rig.cluster.members[0]])
            frame = new_frame(rig.other.header)
            frame.topology.CopyFrom(encode_topology(alone))
            rig.identity.follow = lambda: rig.links.follow(rig.identity.topology)
            await rig.other.contexts["Link"].write(frame.SerializeToString())
            await rig.events.next(PeerDown)
            assert rig.links.peers == {}
            rig.links.send(2, [read(1)])  # to nobody

    run(test)


def test_a_member_with_a_new_address_is_dialled_there() -> None:
    async def test() -> None:
        async with Rig() as rig:
            await rig.up()
            first, second = rig.cluster.members
            port = free_base(1)
            moved = pair(port).with_members([first, pair(port).members[1]])
            there = OtherNode(port, moved)
            await there.server.start()
            rig.links.follow(moved)
            assert await there.dialled.get() in ("Link", "Bulk")
            assert rig.peer.address != second.address
            rig.links.stop()
            await there.server.stop(None)

    run(test)


def test_requests_to_a_peer_that_is_not_linked_are_dropped() -> None:
    async def test() -> None:
        async with Rig(starts=False) as rig:
            rig.links.send(2, [read(1)])
            assert rig.peer.in_flight.count == 0
            await rig.other.server.start()
            await rig.up()
            rig.links.send(2, [read(2)])
            assert list((await rig.other.next_request())[1].reads.id) == [2]

    run(test)
