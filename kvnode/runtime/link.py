"""One dialled stream to a peer: said hello on, kept alive, and dialled again when it is lost.

Laws: requests on one stream keep their order; pauses between attempts never exceed `reconnect_ms`;
whatever a stream ends with is no reason to stop dialling. What the other side says, and when a
heartbeat is due, is for kvnode.runtime.links to say.
Tests: tests/unit/runtime/test_links.py, tests/cluster/.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any

import grpc

from kvnode.core.conversations import ASKS, SETTLE_ASKS, SETTLE_TELLS, TELLS
from kvnode.core.messages import (
    ClientPut,
    PeerMessage,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
)
from kvnode.runtime.exchange_codec import payload as exchanged
from kvnode.runtime.outgoing import Outgoing
from kvnode.runtime.peer_codec import BadFrame, new_frame, parse_frame
from kvnode.runtime.pump import wall_ms
from kvnode.runtime.settle_codec import payload as settling
from kvnode.runtime.wire import channel_options

if TYPE_CHECKING:
    from kvnode.runtime.links import Peer

log = logging.getLogger(__name__)

LINK, BULK = "Link", "Bulk"
_HELLO_S = 5.0
"""For an attempt to connect and to hear a hello; then it is made anew."""

_LOST = (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError)
"""What grpc.aio raises when a stream ends under a reader or a writer."""


_EXCHANGED = frozenset((*ASKS, *TELLS))
_SETTLING = frozenset((*SETTLE_ASKS, *SETTLE_TELLS))


def payload(message: PeerMessage) -> int:
    """Return a message's bytes, for bounds; small fields count as a flat sum."""
    # By exact type: asked for every message, and a match over classes takes three times as long.
    kind = type(message)
    if kind is ReplicaWrite:
        return 64 + len(message.key) + len(message.record)  # type: ignore[union-attr]
    if kind is ReplicaWriteReply or kind is ReplicaReadReply:
        return 64 + len(message.record)  # type: ignore[union-attr]
    if kind is ReplicaRead:
        return 32 + len(message.key)  # type: ignore[union-attr]
    if kind is ClientPut:
        return 128 + len(message.key) + len(message.value)  # type: ignore[union-attr]
    if kind in _EXCHANGED:
        return 64 + exchanged(message)  # type: ignore[arg-type]
    if kind in _SETTLING:
        return 64 + settling(message)  # type: ignore[arg-type]
    return 64


class Link:
    """One dialled stream to a peer, re-dialled for as long as the node runs."""

    def __init__(self, peer: Peer, kind: str) -> None:
        self._peer = peer
        self._is_bulk = kind == BULK
        self._kind = kind
        self._call: Any = None
        self._owes_beat = False
        self._last_why = ""
        self.outgoing: Outgoing[PeerMessage] | None = None

    @property
    def is_open(self) -> bool:
        """Whether both sides have said hello."""
        return self.outgoing is not None

    @property
    def is_overfull(self) -> bool:
        """Whether more is unsent than may be."""
        return self.outgoing is not None and self.outgoing.is_overfull

    def push(self, messages: list[PeerMessage]) -> None:
        """Send requests; dropped when the stream is not open."""
        if self.outgoing is not None:
            self._peer.in_flight.begin(messages, is_bulk=self._is_bulk)
            self.outgoing.push(messages)

    def beat(self) -> None:
        """Say a heartbeat, on whatever leaves next: now. It is answered at once, however slow the
        peer's log is."""
        self._owes_beat = True
        if self.outgoing is not None:
            self.outgoing.notice()

    def end(self) -> None:
        """End the stream, whatever is under way on it; it is dialled anew."""
        if self._call is not None:
            self._call.cancel()

    async def run(self) -> None:
        """Dial, serve the stream, and dial again."""
        peer = self._peer
        options = channel_options(
            reconnect_ms=peer.limits.reconnect_ms, connect_ms=peer.limits.silence_ms
        )
        # Not for ever: a cancellation that meets a breaking stream may get lost in it.
        while not peer.is_dropped:
            # A channel for each stream: one whose packets vanish would outlive its stream.
            async with grpc.aio.insecure_channel(peer.address, options=options) as channel:
                method: Any = channel.stream_stream(f"/kvnode.v1.Peer/{self._kind}")
                await self._serve_once(method(wait_for_ready=True))
            # Jitter, so that peers do not fall into step; chance decides nothing here.
            await asyncio.sleep(random.uniform(0.2, 1) * peer.limits.reconnect_ms / 2_000)

    async def _serve_once(self, call: Any) -> None:
        self._call = call
        try:
            await self._serve(call)
        except (*_LOST, BadFrame, TimeoutError) as exc:
            self._tell_lost(_short(exc))
        except asyncio.CancelledError:
            # grpc.aio raises it in a reader whose stream was cancelled, be it by the other side.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._tell_lost("cancelled")
        finally:
            call.cancel()
            self._call = None
            self._close()

    def _tell_lost(self, why: str) -> None:
        """Log what a stream ended with; the same again says nothing new."""
        if why != self._last_why:
            self._last_why = why
            log.info("link_lost peer=%s kind=%s why=%s", self._peer.id, self._kind, why)

    async def _serve(self, call: Any) -> None:
        peer = self._peer
        # The first write too: grpc.aio never wakes it if the stream breaks as it begins.
        async with asyncio.timeout(_HELLO_S):
            await call.write(peer.hello())
            hello = await _read(call)
        peer.on_hello(parse_frame(hello))
        self.outgoing = outgoing = Outgoing(
            self._encode,
            payload,
            lambda: 0 if self._is_bulk else peer.in_flight.count,
            lambda: peer.in_flight.answers.ms,
            peer.limits,
        )
        self._last_why = ""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write(call, outgoing))
                if not self._is_bulk:
                    peer.on_open()
                await self._hear(call)
        except BaseExceptionGroup as group:
            if group.split((*_LOST, BadFrame))[1] is not None:
                raise
            # Not in an `except*`: until Python 3.11.4 that put what it raises into another group.
            raise _first(group) from None

    async def _write(self, call: Any, outgoing: Outgoing[PeerMessage]) -> None:
        await outgoing.run(call.write)
        raise BadFrame("closed")

    async def _hear(self, call: Any) -> None:
        peer = self._peer
        while True:
            frame = parse_frame(await _read(call))
            peer.on_heard(frame)
            replies = peer.codec.replies(peer.number, frame)
            if replies.writes or replies.reads or replies.forwards:
                peer.on_answers(replies)
            if (tells := peer.codec.tells(peer.number, frame)) is not None:
                peer.on_tells(tells)

    def _encode(self, messages: Any) -> bytes:
        frame = new_frame(self._peer.header())
        if self._owes_beat:
            self._owes_beat = False
            frame.heartbeat.wall_ms = wall_ms()
            frame.heartbeat.seq = self._peer.begin_beat()
        return self._peer.codec.encode(frame, messages)

    def _close(self) -> None:
        if self.outgoing is not None:
            self.outgoing.close()
            self.outgoing = None
            self._peer.on_lost(self._kind)


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
    if isinstance(exc, TimeoutError):
        return "no hello"
    return str(exc.details() if isinstance(exc, grpc.aio.AioRpcError) else exc)
