"""The accepting side of the links: other nodes' requests come in, replies go out.

Laws: the first frame is a hello; a foreign cluster is refused, and so is a second living
incarnation of one node; a request under an older topology is refused with the newer one attached.
Tests: tests/unit/runtime/test_accept.py, tests/cluster/.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import grpc

from kvnode.core.bounds import Limits
from kvnode.core.messages import (
    ErrorCode,
    Failure,
    NodeNumber,
    Outcome,
    PeerMessage,
    PeerRequests,
    ReplicaReadReply,
    ReplicaWriteReply,
    Status,
)
from kvnode.core.record import Encoded
from kvnode.runtime.conversation import Conversation
from kvnode.runtime.identity import Identity
from kvnode.runtime.links import BULK, LINK, payload
from kvnode.runtime.outgoing import Outgoing
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

    def __init__(self, number: NodeNumber, incarnation: int, service: PeerService) -> None:
        self.number = number
        self.incarnation = incarnation
        self.heard_us = now_us()
        self.owed = 0
        self.owes_topology = False
        self.owes_heartbeat = False
        self._service = service
        self.outgoing: Outgoing[PeerMessage] = Outgoing(
            self._encode, payload, lambda: self.owed, service.limits
        )

    def _encode(self, messages: Any) -> bytes:
        self.owed -= len(messages)
        frame = self._service.begin_frame(with_topology=self.owes_topology)
        if self.owes_heartbeat:
            frame.heartbeat.wall_ms = wall_ms()
            frame.heartbeat.reply = True
        self.owes_topology = self.owes_heartbeat = False
        return self._service.codec.encode(frame, messages)


class PeerService:
    """`kvnode.v1.Peer`."""

    def __init__(self, identity: Identity, codec: PeerCodec, pump: Pump, limits: Limits) -> None:
        self.identity = identity
        self.codec = codec
        self.limits = limits
        self._pump = pump
        self._streams: dict[tuple[NodeNumber, str], Accepted] = {}

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the gRPC handlers."""
        return handlers("kvnode.v1.Peer", streams={LINK: self._link, BULK: self._bulk})

    def reply(self, node: NodeNumber, messages: list[PeerMessage]) -> None:
        """Send replies to a node; dropped if it has no stream here."""
        bulk = self._streams.get((node, BULK))
        limit = self.limits.bulk_bytes
        if bulk is not None and any(payload(message) > limit for message in messages):
            bulk.outgoing.push([one for one in messages if payload(one) > limit])
            messages = [one for one in messages if payload(one) <= limit]
        link = self._streams.get((node, LINK))
        if link is not None and messages:
            link.outgoing.push(messages)

    async def _link(self, _: Any, context: Context) -> None:
        await self._serve(LINK, context)

    async def _bulk(self, _: Any, context: Context) -> None:
        await self._serve(BULK, context)

    async def _serve(self, kind: str, context: Context) -> None:
        try:
            async with asyncio.timeout(_HELLO_S):
                accepted = await self._greet(kind, context)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no hello came")
        except BadFrame as exc:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))
        place = (accepted.number, kind)
        self._streams[place] = accepted
        conversation = Conversation(context)
        try:
            await conversation.run(
                hear=self._hear(accepted, conversation),
                speak=accepted.outgoing.run(conversation.write),
                hush=accepted.outgoing.close,
            )
        except BadFrame as exc:
            log.warning("peer_frame_refused peer=%d why=%s", accepted.number, exc)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(exc))
        except Exception as exc:  # noqa: BLE001 (handed on: it ends the node)
            self._pump.fail(exc)
        finally:
            accepted.outgoing.close()
            if self._streams.get(place) is accepted:
                del self._streams[place]

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
        is_old = frame.epoch < self.identity.topology.epoch
        reply = self.begin_frame(with_topology=is_old)
        refusal = self._refusal(member.number, kind, frame.hello)
        if refusal:
            reply.hello.refused, reply.hello.reason = True, refusal
            await context.write(reply.SerializeToString())
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, refusal)
        reply.hello.CopyFrom(self.identity.hello(frame.hello.node))
        self.identity.on_hello(frame.hello)
        await context.write(reply.SerializeToString())
        return Accepted(member.number, frame.hello.incarnation, self)

    def _refusal(self, number: NodeNumber, kind: str, hello: peer_pb2.Hello) -> str:
        """Two lives of one node at the same time: the later claimant is refused."""
        if number == self.identity.number and hello.incarnation != self.identity.incarnation:
            return f"{hello.node} is this node, and it is alive"
        other = self._streams.get((number, kind))
        if other is None or other.incarnation == hello.incarnation:
            return ""
        if now_us() - other.heard_us > 1_000 * self.limits.silence_ms:
            return ""
        return (
            f"{hello.node} is alive as incarnation {other.incarnation:016x}: "
            "is a copy of its data folder in use?"
        )

    async def _hear(self, accepted: Accepted, conversation: Conversation) -> None:
        while (data := await conversation.read()) is not None:
            frame = parse_frame(data)
            accepted.heard_us = now_us()
            self.identity.take(frame)
            accepted.owes_topology |= frame.epoch < self.identity.topology.epoch
            if frame.HasField("heartbeat"):
                accepted.owes_heartbeat = True
                accepted.outgoing.notice()
            requests = self.codec.requests(accepted.number, frame)
            expected = sum(1 for write in requests.writes if write.id)
            expected += len(requests.reads) + len(requests.forwards)
            accepted.owed += expected
            if frame.epoch < self.identity.topology.epoch:
                self._refuse_epoch(accepted, frame, requests)
            elif expected or requests.writes:
                self._pump.submit(requests)

    def _refuse_epoch(
        self, accepted: Accepted, frame: peer_pb2.PeerFrame, requests: PeerRequests
    ) -> None:
        refused, nothing = Status.REFUSED_EPOCH, Encoded(b"")
        text = f"epoch {frame.epoch} is older than {self.identity.topology.epoch}"
        stale, none = ErrorCode.STALE_EPOCH, Outcome.NOT_APPLIED
        replies: list[PeerMessage] = []
        replies += [ReplicaWriteReply(one.id, refused, nothing) for one in requests.writes]
        replies += [ReplicaReadReply(one.id, refused, nothing, False) for one in requests.reads]
        replies += [Failure(one.id, stale, none, text, 0, ()) for one in requests.forwards]
        accepted.outgoing.push(replies)

    def begin_frame(self, *, with_topology: bool) -> peer_pb2.PeerFrame:
        """Return a frame to another node."""
        frame = new_frame(self.identity.header())
        if with_topology:
            frame.topology.CopyFrom(encode_topology(self.identity.topology))
        return frame


async def _read(context: Context) -> bytes:
    data = await context.read()
    if data is grpc.aio.EOF:
        raise BadFrame("the stream ended before its hello")
    assert isinstance(data, bytes)
    return data
