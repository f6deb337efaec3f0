"""One node's Pipeline stream: dial, write frames, read frames, dial again.

Carries out what a lane and the engine decide. Laws: at most one write is in progress; a stream that
ends for whatever reason is reported to the engine exactly once; `close` leaves no task behind.
Tests: tests/unit/client/test_api.py and test_aio.py.
Source: design, sections 3 ("Wire") and 4.
Left out: TLS and authentication, which come later.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc import aio

from kvclient import codec
from kvclient.bounds import Bounds
from kvclient.bulk import PIPELINE, BulkStream
from kvclient.engine import Engine
from kvclient.operation import Lane, LaneState
from kvproto import kv_pb2 as pb

GET_STATUS = "/kvnode.v1.Cluster/GetStatus"

log = logging.getLogger("kvclient")

CLOSE_S = 1.0
"""How long what gRPC still owes is waited for when a stream is closed."""

Call = Any
"""grpc.aio's StreamStreamCall; its type is generic in ways that say nothing here."""


class Owner(Protocol):
    """What a stream tells and asks the client that owns it."""

    engine: Engine

    @property
    def epoch(self) -> int:
        """The epoch that the client routes by; 0 for none."""
        ...

    def on_topology(self, message: pb.Topology) -> None:
        """A node sent a newer topology."""
        ...


def open_channel(address: str, bounds: Bounds) -> aio.Channel:
    """Return a channel of our own to an address; it dials when first used."""
    return aio.insecure_channel(
        address,
        options=(
            ("grpc.initial_reconnect_backoff_ms", int(bounds.reconnect_first_ms)),
            ("grpc.max_reconnect_backoff_ms", int(bounds.reconnect_most_ms)),
            ("grpc.min_reconnect_backoff_ms", int(bounds.reset_ms)),
            ("grpc.max_send_message_length", bounds.message_bytes),
            ("grpc.max_receive_message_length", bounds.message_bytes),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),  # a proxy for the web is none for a store
            ("grpc.service_config_disable_resolution", 1),
        ),
        compression=grpc.Compression.NoCompression,
    )


class NodeStream:
    """Keeps one node's stream open, from the first `dial` until `close`."""

    def __init__(
        self,
        owner: Owner,
        node: str,
        *,
        number: int,
        address: str,
        bounds: Bounds,
        channel: aio.Channel | None = None,
    ) -> None:
        self._owner = owner
        self._engine = owner.engine
        self._bounds = bounds
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._probe: asyncio.Task[None] | None = None
        self._call: Call = None
        self._bulk: BulkStream | None = None
        self._pair = b""
        """Names this stream and its bulk stream to the node; new with every call."""
        self._has_heard = False
        self._closing = asyncio.Event()
        self._wake: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self.lane = Lane(
            node,
            number=number,
            address=address,
            wake=self._on_wake,
            wake_bulk=self._on_wake_bulk,
            dial=self.dial,
            bounds=bounds,
        )

    @property
    def channel(self) -> aio.Channel | None:
        """The connection in use, if there is one."""
        return self._channel

    def dial(self) -> None:
        """Begin to connect, and stay connected. Idempotent."""
        if self._task is None:
            self.lane.state = LaneState.CONNECTING
            self._task = self._loop.create_task(self._run(), name=f"kvclient {self.lane.node}")

    def suspect(self) -> None:
        """Ask the silent node until it answers; if it never does, connect anew."""
        if self._probe is None or self._probe.done():
            name = f"kvclient probe {self.lane.node}"
            self._probe = self._loop.create_task(self._probe_until_heard(), name=name)

    async def close(self) -> None:
        """End the stream and its tasks.

        First the call and the channel, then the tasks that wait for them: what gRPC still owes a
        cancelled task would otherwise arrive in a loop that is closed by then.
        """
        self._closing.set()
        if self._call is not None:
            self._call.cancel()
        await self._close_channel()
        tasks = [task for task in (self._task, self._probe) if task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- connecting ----

    async def _run(self) -> None:
        wait_s = 0.0
        while not await self._is_closed_within(wait_s):
            self._has_heard = False
            reason = await self._connect_and_converse()
            self._engine.on_broken(self.lane, reason, self._loop.time())
            if self._has_heard:
                wait_s = 0.0
            first, most = self._bounds.reconnect_first_ms, self._bounds.reconnect_most_ms
            wait_s = min(max(wait_s * 2, first / 1000), most / 1000)

    async def _is_closed_within(self, wait_s: float) -> bool:
        if wait_s and not self._closing.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), wait_s)
        return self._closing.is_set()

    async def _connect_and_converse(self) -> str:
        """Return why the stream ended."""
        try:
            channel = await self._connect()
            self._call = channel.stream_stream(PIPELINE)()
            self._pair = os.urandom(16)
            self._engine.on_connected(self.lane, self._loop.time())
            self._on_wake()
            if self.lane.bulk:
                self._on_wake_bulk()
            return await self._converse(self._call)
        except aio.AioRpcError as error:
            return f"unreached: {error.details() or error.code().name}"
        except (aio.UsageError, asyncio.InvalidStateError) as error:
            return f"unreached: {error}"  # the channel was closed under us, to connect anew
        except DecodeError:
            return "sent something that is no frame"
        except codec.DECODE_ERRORS as error:
            return f"sent a frame that contradicts itself: {error}"
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            return "unreached: the stream was given up"  # by the writer, which had failed
        finally:
            if self._call is not None:
                self._call.cancel()
                self._call = None
            await self._close_bulk()

    async def _connect(self) -> aio.Channel:
        """Wait until the channel is ready, reporting the node down as soon as it refuses."""
        if self._channel is None and not self._closing.is_set():
            self._channel = open_channel(self.lane.address, self._bounds)
        channel = self._channel
        if channel is None:
            raise asyncio.InvalidStateError("closing")
        state = channel.get_state(try_to_connect=True)
        while state is not grpc.ChannelConnectivity.READY:
            if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                self._on_refused()
            await channel.wait_for_state_change(state)
            state = channel.get_state(try_to_connect=True)
        return channel

    def _on_refused(self) -> None:
        if self.lane.state is not LaneState.DOWN:
            self._engine.on_broken(self.lane, "unreached: cannot connect", self._loop.time())

    async def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    # ---- frames ----

    async def _converse(self, call: Call) -> str:
        writer = self._loop.create_task(self._write(call))
        try:
            while True:
                data = await call.read()
                if data is aio.EOF:
                    return "closed the stream"
                response = pb.PipelineResponse.FromString(data)
                self._on_waiting(response.waiting)
                self._on_frame(response)
        finally:
            self._on_waiting(0)
            call.cancel()
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    def _on_waiting(self, count: int) -> None:
        """The node said how many operations wait for their turn there."""
        if count != self.lane.waiting:
            self._engine.metrics.waiting += count - self.lane.waiting
            self.lane.waiting = count

    async def _write(self, call: Call) -> None:
        """Write frames while some are due; the stream does not outlive this."""
        try:
            # Where the stream has ended, the reader says why.
            with suppress(aio.AioRpcError, asyncio.InvalidStateError):
                await self._write_frames(call)
        except Exception:
            log.exception("writer_failed", extra={"node": self.lane.node})
        finally:
            call.cancel()

    async def _write_frames(self, call: Call) -> None:
        lane, loop, metrics = self.lane, self._loop, self._engine.metrics
        pair = self._pair  # told with the first frame
        while True:
            wait_s = lane.wait_s(loop.time())
            if wait_s is None or wait_s > 0:
                await self._sleep(wait_s)
                continue
            if operations := lane.take():
                frame = codec.encode_frame(
                    operations, epoch=self._owner.epoch, now=loop.time(), pair=pair
                )
                pair = b""
                metrics.frames_sent += 1
                await call.write(frame)

    async def _sleep(self, wait_s: float | None) -> None:
        """Sleep until something is queued or answered, or the time is over."""
        self._wake = self._loop.create_future()
        if wait_s is not None:
            self._timer = self._loop.call_later(wait_s, self._on_wake)
        try:
            await self._wake
        finally:
            if wait_s is not None and self._timer is not None:
                self._timer.cancel()

    def _on_wake(self) -> None:
        if not self._wake.done():
            self._wake.set_result(None)

    def _on_frame(self, response: pb.PipelineResponse) -> None:
        engine, lane, now = self._engine, self.lane, self._loop.time()
        engine.metrics.frames_received += 1
        self._has_heard = True
        engine.on_frame(lane, response.hlc, now)
        if response.HasField("topology"):
            self._owner.on_topology(response.topology)
        if response.wants_bulk:
            self._on_wake_bulk()
        if response.draining and lane.state < LaneState.DRAINING:
            lane.state = LaneState.DRAINING
        if response.HasField("gets"):
            engine.on_gets(codec.read_gets(response.gets, lane.unanswered), now)
        if response.HasField("puts"):
            engine.on_puts(codec.read_puts(response.puts, lane.unanswered), now)
        for failure in response.failures:
            operation = lane.unanswered.pop(failure.id, None)
            if operation is not None:
                engine.on_refusal(lane, operation, codec.refusal_of(failure), now)
        if lane.outbox:
            self._on_wake()

    # ---- large values ----

    def _on_wake_bulk(self) -> None:
        """A large value is to be sent or to be had: open the second stream, once there is one."""
        if self._bulk is not None:
            self._bulk.wake()
        elif self._call is not None and self.lane.is_apart:
            self._bulk = BulkStream(
                self.lane,
                open_channel(self.lane.address, self._bounds),
                pair=self._pair,
                epoch=lambda: self._owner.epoch,
                on_frame=self._on_frame,
                on_end=self._on_bulk_end,
            )

    def _on_bulk_end(self, has_heard: bool) -> None:
        """What was owed there is lost: end the first stream too, and have all asked elsewhere."""
        if not has_heard:
            self.lane.is_apart = False  # the node serves no such stream: do without
        if self._call is not None:
            self._call.cancel()

    async def _close_bulk(self) -> None:
        bulk, self._bulk = self._bulk, None
        if bulk is not None:
            await bulk.close()

    # ---- silence ----

    async def _probe_until_heard(self) -> None:
        began = self._loop.time()
        pause_s = self._bounds.probe_ms / 1000
        while self.lane.state is LaneState.SUSPECTED:
            if await self._answers(pause_s):
                self._engine.on_frame(self.lane, 0, self._loop.time())
            elif self._loop.time() - began >= self._bounds.reset_ms / 1000:
                await self._reset()
            elif await self._is_closed_within(pause_s):
                return

    async def _answers(self, timeout_s: float) -> bool:
        if self._channel is None:
            return False
        ask: Any = self._channel.unary_unary(GET_STATUS)
        try:
            await ask(b"", timeout=timeout_s)
        except (aio.AioRpcError, aio.UsageError, asyncio.InvalidStateError):
            return False
        return True

    async def _reset(self) -> None:
        """Drop a connection that may be dead without knowing it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._close_channel()
        self._engine.on_broken(self.lane, "pending", self._loop.time())
        self._task = self._loop.create_task(self._run(), name=f"kvclient {self.lane.node}")


def _is_cancelled() -> bool:
    """Whether this task is being cancelled, and not just a call that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
