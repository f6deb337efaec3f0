"""A node's second stream, for large values: they travel there and never delay what is small.

Opened when the first large value is to be sent, or when the node has said that it has a large
answer to give. It lives and dies with the node's first stream, with which it shares the lane: both
streams' answers are answers to the lane's operations, whichever stream they were asked on.

Laws: one large operation a frame; a stream that ends for whatever reason is reported once.
Tests: tests/unit/client/test_bulk.py.
Source: design, section 3 ("Wire").
Left out: dialling again, which the first stream does for both (`stream`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from google.protobuf.message import DecodeError
from grpc import aio

from kvclient import codec
from kvclient.operation import Lane
from kvproto import kv_pb2 as pb

PIPELINE = "/kvnode.v1.KV/Pipeline"

log = logging.getLogger("kvclient")

_LOST = (aio.AioRpcError, aio.UsageError, asyncio.InvalidStateError, DecodeError)


class BulkStream:
    """Sends a lane's large operations.

    Args:
        lane: shared with the first stream.
        channel: a connection of its own; closed at the end.
        pair: names both streams to the node.
        epoch: that the client routes by.
        on_frame: takes what the node says.
        on_end: called once with whether the node had ever said anything here.
    """

    def __init__(
        self,
        lane: Lane,
        channel: aio.Channel,
        *,
        pair: bytes,
        epoch: Callable[[], int],
        on_frame: Callable[[pb.PipelineResponse], None],
        on_end: Callable[[bool], None],
    ) -> None:
        self._lane = lane
        self._channel = channel
        self._pair = pair
        self._epoch = epoch
        self._on_frame = on_frame
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._has_work = asyncio.Event()
        self._has_heard = False
        self._call: Any = None
        self._task = self._loop.create_task(self._run(), name=f"kvclient bulk {lane.node}")

    def wake(self) -> None:
        """Something was queued."""
        self._has_work.set()

    async def close(self) -> None:
        """End the stream; nothing is reported any more."""
        self._on_end = lambda _: None
        if self._call is not None:
            self._call.cancel()
        await self._channel.close()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await self._converse()
        except (*_LOST, *codec.DECODE_ERRORS) as error:
            # The first stream ends too, and says to whom it matters what it met.
            log.debug("bulk_ended", extra={"node": self._lane.node, "why": str(error)})
        except Exception:
            log.exception("bulk_failed", extra={"node": self._lane.node})
        finally:
            self._on_end(self._has_heard)
            with suppress(aio.UsageError):
                await self._channel.close()

    async def _converse(self) -> None:
        call: Any = self._channel.stream_stream(PIPELINE)()
        self._call = call
        writer = self._loop.create_task(self._write(call))
        try:
            while (data := await call.read()) is not aio.EOF:
                self._has_heard = True
                self._on_frame(pb.PipelineResponse.FromString(data))
        finally:
            call.cancel()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, call: Any) -> None:
        """Write while there is something to write; the stream does not outlive this."""
        try:
            hello = codec.encode_frame(
                (), epoch=self._epoch(), now=0.0, pair=self._pair, is_bulk=True
            )
            await call.write(hello)
            while True:
                self._has_work.clear()
                while operations := self._lane.take_bulk():
                    now = self._loop.time()
                    await call.write(codec.encode_frame(operations, epoch=self._epoch(), now=now))
                await self._has_work.wait()
        finally:
            call.cancel()
