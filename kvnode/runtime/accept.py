"""The accepting side of the links: other nodes' requests come in, replies go out.

Laws: the first frame is a hello; a foreign cluster is refused, and so is a second living
incarnation of one node, and a copy of a folder that lives elsewhere (kvnode.runtime.claims); a
request under an older topology is refused with the newer one attached.
Tests: tests/unit/runtime/test_accept.py, tests/cluster/.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc

from kvnode.core.bounds import Limits
from kvnode.core.conversations import PeerAsks, refuse
from kvnode.core.messages import (
    ClientPut,
    ErrorCode,
    Failure,
    Instant,
    NodeNumber,
    Outcome,
    PeerMessage,
    PeerRequests,
    ReplicaReadReply,
    ReplicaWriteReply,
    Status,
)
from kvnode.core.record import Encoded
from kvnode.core.refusals import refused
from kvnode.core.topology import Member, NodeId
from kvnode.runtime import claims
from kvnode.runtime.conversation import Conversation
from kvnode.runtime.identity import Identity
from kvnode.runtime.link import BULK, LINK, payload
from kvnode.runtime.outgoing import InFlight, Outgoing
from kvnode.runtime.peer_codec import BadFrame, PeerCodec, new_frame, parse_frame
from kvnode.runtime.pump import Pump, now_us, wall_ms
from kvnode.runtime.topology_codec import encode_topology
from kvnode.runtime.wire import handlers
from kvproto import peer_pb2

log = logging.getLogger(__name__)

_HELLO_S = 5.0
Context = Any  # grpc.aio.ServicerContext; its stubs know no raw bytes


class Accepted:
    """One accepted stream: who is at its other end, and the replies that go there."""

    def __init__(
        self,
        number: NodeNumber,
        incarnation: int,
        in_flight: InFlight,
        service: PeerService,
        *,
        is_bulk: bool,
    ) -> None:
        self.number = number
        self.incarnation = incarnation
        self.in_flight = in_flight
        self.is_bulk = is_bulk
        self.heard_us = now_us()
        self.owes_topology = False
        self.owes_heartbeat = False
        self.echo = 0
        """The number of the last heartbeat that was heard and not answered."""
        self.hearing: asyncio.Task[None] | None = None
        self._service = service
        self.outgoing: Outgoing[PeerMessage] = Outgoing(
            self._encode,
            payload,
            # On bulk a message has no company to wait for.
            lambda: 0 if is_bulk else in_flight.count,
            lambda: in_flight.answers.ms,
            service.limits,
        )

    def push(self, messages: list[PeerMessage]) -> None:
        """Queue replies; a peer that does not read them loses its stream, and dials again."""
        self.outgoing.push(messages)
        if self.outgoing.is_overfull:
            log.info("peer_reads_too_slowly peer=%d", self.number)
            self.end()

    def end(self) -> None:
        """End the stream, whatever is under way on it: the peer dials again."""
        self.outgoing.close()
        if self.hearing is not None:
            self.hearing.cancel()

    def answer_heartbeat(self) -> None:
        """Say at once that we are here: in the next frame, which leaves now."""
        self.owes_heartbeat = True
        self.outgoing.notice()

    def _encode(self, messages: Any) -> bytes:
        self.in_flight.end(messages)
        frame = self._service.begin_frame(with_topology=self.owes_topology)
        if self.owes_heartbeat:
            frame.heartbeat.wall_ms = wall_ms()
            frame.heartbeat.reply = True
            frame.heartbeat.echo, self.echo = self.echo, 0
            frame.heartbeat.draining = self._service.is_draining
        self.owes_topology = self.owes_heartbeat = False
        return self._service.codec.encode(frame, messages)


class PeerService:
    """`kvnode.v1.Peer`."""

    def __init__(
        self,
        identity: Identity,
        codec: PeerCodec,
        pump: Pump,
        limits: Limits,
        *,
        overrides: Mapping[str, str] | None = None,
        who_answers: Callable[[str, NodeId], Awaitable[int]] = claims.who_answers,
    ) -> None:
        """Serve peers; `overrides` are addresses of some, in place of the topology's."""
        self.identity = identity
        self.codec = codec
        self.limits = limits
        self._pump = pump
        self._overrides = overrides or {}
        self._who_answers = who_answers
        self._streams: dict[tuple[NodeNumber, str], Accepted] = {}
        self._in_flight: dict[NodeNumber, InFlight] = {}
        self.is_draining = False

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the gRPC handlers."""
        return handlers("kvnode.v1.Peer", streams={LINK: self._link, BULK: self._bulk})

    def reply(self, node: NodeNumber, messages: list[PeerMessage]) -> None:
        """Send replies to a node; dropped if it has no stream here."""
        bulk = self._streams.get((node, BULK))
        limit = self.limits.bulk_bytes
        if bulk is not None and max(map(payload, messages)) > limit:
            bulk.push([one for one in messages if payload(one) > limit])
            messages = [one for one in messages if payload(one) <= limit]
        link = self._streams.get((node, LINK))
        if link is not None and messages:
            link.push(messages)

    def end_streams(self) -> None:
        """End every accepted stream: what waits in them is of unknown age."""
        for accepted in list(self._streams.values()):
            accepted.end()

    def drain(self) -> None:
        """Coordinate nothing new for other nodes from here on, and tell them to go around us."""
        self.is_draining = True
        for accepted in self._streams.values():
            if not accepted.is_bulk:
                accepted.answer_heartbeat()

    async def _link(self, _: Any, context: Context) -> None:
        await self._serve(LINK, context)

    async def _bulk(self, _: Any, context: Context) -> None:
        await self._serve(BULK, context)

    async def _serve(self, kind: str, context: Context) -> None:
        accepted = await self._meet(kind, context)
        place = (accepted.number, kind)
        for earlier in self._of(accepted.number):
            # Of an earlier stream, or an earlier life: whatever still comes on it is not to be had.
            if earlier.is_bulk == accepted.is_bulk or earlier.incarnation != accepted.incarnation:
                earlier.end()
        self._streams[place] = accepted
        conversation = Conversation(context)
        refusal = None
        try:
            await conversation.run(
                hear=self._hear(accepted, conversation),
                speak=accepted.outgoing.run(conversation.write),
                hush=accepted.outgoing.close,
            )
        except BadFrame as exc:
            refusal = str(exc)
        except Exception as exc:  # noqa: BLE001 (handed on: it ends the node)
            self._pump.fail(exc)
        finally:
            accepted.outgoing.close()
            if self._streams.get(place) is accepted:
                del self._streams[place]
        if refusal is not None:
            log.warning("peer_frame_refused peer=%d why=%s", accepted.number, refusal)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal)

    async def _meet(self, kind: str, context: Context) -> Accepted:
        """Exchange hellos. Whoever does not get that far is refused."""
        code, text = grpc.StatusCode.INVALID_ARGUMENT, ""
        try:
            async with asyncio.timeout(_HELLO_S):
                return await self._greet(kind, context)
        except TimeoutError:
            code, text = grpc.StatusCode.DEADLINE_EXCEEDED, "no hello came"
        except BadFrame as exc:
            text = str(exc)
        except grpc.aio.BaseError:
            raise  # refused already, or gone
        except Exception as exc:
            self._pump.fail(exc)
            raise
        await context.abort(code, text)
        raise AssertionError  # abort raises

    async def _greet(self, kind: str, context: Context) -> Accepted:
        frame = parse_frame(await _read(context))
        topology = self.identity.topology
        if frame.cluster != topology.cluster_id:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, "this node belongs to another cluster"
            )
        self.identity.take(frame)
        member = self.identity.topology.member(frame.hello.node)
        if member is None:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"{frame.hello.node!r} is no member"
            )
        assert member is not None
        reply = self.begin_frame(with_topology=self.identity.is_older(frame))
        final = await self._final_refusal(member, frame.hello)
        refusal = final or self._refusal(member.number, frame.hello)
        if refusal:
            reply.hello.refused, reply.hello.reason = True, refusal
            reply.hello.final = bool(final)
            await context.write(reply.SerializeToString())
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, refusal)
        reply.hello.CopyFrom(self.identity.hello(frame.hello.node))
        self.identity.on_hello(frame.hello)
        await context.write(reply.SerializeToString())
        is_bulk = kind == BULK
        if not is_bulk:
            self._in_flight[member.number] = InFlight()
        in_flight = self._in_flight.setdefault(member.number, InFlight())
        incarnation = frame.hello.incarnation
        return Accepted(member.number, incarnation, in_flight, self, is_bulk=is_bulk)

    async def _final_refusal(self, member: Member, hello: peer_pb2.Hello) -> str:
        """Return why a claimant must go for good, if another life holds its identity."""
        if member.number == self.identity.number:
            return ""
        known, others = self.identity.known_life(hello.node), self._others(member.number, hello)
        why = claims.question(hello.node, known, hello, is_beside=bool(others))
        if why is None:
            return ""
        address = self._overrides.get(member.id, member.address)
        alive = await self._who_answers(address, member.id)
        if alive in (0, hello.incarnation):
            return why
        return claims.refuse_beside(hello.node, known, alive, address)

    def _refusal(self, number: NodeNumber, hello: peer_pb2.Hello) -> str:
        """Two lives of one node at the same time, it seems: the later one may ask again."""
        if number == self.identity.number and hello.incarnation != self.identity.incarnation:
            return f"{hello.node} is this node, and it is alive"
        others = self._others(number, hello)
        # Bulk may be silent for hours: what counts is when the peer was last heard at all.
        heard_us = max((one.heard_us for one in others), default=Instant(0))
        if not others or now_us() - heard_us > 1_000 * self.limits.silence_ms:
            return ""
        return (
            f"{hello.node} is alive as incarnation {others[0].incarnation:016x}: "
            "is a copy of its data folder in use?"
        )

    def _others(self, number: NodeNumber, hello: peer_pb2.Hello) -> list[Accepted]:
        """Return the streams of other lives of a peer."""
        return [one for one in self._of(number) if one.incarnation != hello.incarnation]

    def _of(self, number: NodeNumber) -> list[Accepted]:
        """Return a peer's streams."""
        found = (self._streams.get((number, kind)) for kind in (LINK, BULK))
        return [accepted for accepted in found if accepted is not None]

    async def _hear(self, accepted: Accepted, conversation: Conversation) -> None:
        accepted.hearing = asyncio.current_task()
        while (data := await conversation.read()) is not None:
            self._take_frame(accepted, parse_frame(data))

    def _take_frame(self, accepted: Accepted, frame: peer_pb2.PeerFrame) -> None:
        """Raises: BadFrame."""
        accepted.heard_us = now_us()
        self.identity.take(frame)
        accepted.owes_topology |= self.identity.is_older(frame)
        if frame.HasField("heartbeat"):
            accepted.echo = frame.heartbeat.seq
            accepted.answer_heartbeat()
        requests, failures = self.codec.requests(accepted.number, frame)
        in_flight, is_bulk = accepted.in_flight, accepted.is_bulk
        for box in (requests.writes, requests.reads, requests.forwards, failures):
            in_flight.begin(box, is_bulk=is_bulk)
        if self.identity.is_older(frame):
            accepted.push(refused_by_epoch(requests, frame, self.identity.topology.epoch))
        else:
            if self.is_draining and requests.forwards:
                failures = [*failures, *map(_refused_by_drain, requests.forwards)]
                requests.forwards = ()
            if requests.writes or requests.reads or requests.forwards:
                self._pump.submit(requests)
        if failures:
            accepted.push(list(failures))
        if (asks := self.codec.asks(accepted.number, frame)) is not None:
            self._take_asks(accepted, asks, frame)

    def _take_asks(self, accepted: Accepted, asks: PeerAsks, frame: peer_pb2.PeerFrame) -> None:
        accepted.in_flight.begin(asks.asks, is_bulk=accepted.is_bulk)
        if self.identity.is_older(frame):
            accepted.push([tell for ask in asks.asks if (tell := refuse(ask)) is not None])
        else:
            self._pump.submit(asks)

    def begin_frame(self, *, with_topology: bool) -> peer_pb2.PeerFrame:
        """Return a frame to another node."""
        frame = new_frame(self.identity.header())
        if with_topology:
            frame.topology.CopyFrom(encode_topology(self.identity.topology))
        return frame


def refused_by_epoch(
    requests: PeerRequests, frame: peer_pb2.PeerFrame, epoch: int
) -> list[PeerMessage]:
    """Return the answers to requests of a frame that is of an older epoch than this node's."""
    refused, nothing = Status.REFUSED_EPOCH, Encoded(b"")
    text = f"epoch {frame.epoch} is older than {epoch}"
    stale, none = ErrorCode.STALE_EPOCH, Outcome.NOT_APPLIED
    return [
        *(ReplicaWriteReply(one.id, refused, nothing) for one in requests.writes if one.id),
        *(ReplicaReadReply(one.id, refused, nothing, False) for one in requests.reads),
        *(Failure(one.id, stale, none, text, 0, ()) for one in requests.forwards),
    ]


def _refused_by_drain(put: ClientPut) -> Failure:
    return refused(put, ErrorCode.UNAVAILABLE, "this node is stopping")


async def _read(context: Context) -> bytes:
    data = await context.read()
    if data is grpc.aio.EOF:
        raise BadFrame("the stream ended before its hello")
    assert isinstance(data, bytes)
    return data
