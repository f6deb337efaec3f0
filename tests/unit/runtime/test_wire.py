"""gRPC as this project sets it: nothing compressed, nothing unbounded, quick to come back."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from kvnode.core.bounds import Limits
from kvnode.runtime.wire import channel_options, handlers, server_options
from tests.support.nodes import free_base
from tests.unit.runtime.builders import run

CHANNEL = channel_options(reconnect_ms=200, connect_ms=1_000)


async def echo(data: bytes, context: Any) -> bytes:
    return data


async def echo_all(_: Any, context: Any) -> None:
    while (data := await context.read()) is not grpc.aio.EOF:
        await context.write(data)


def serve(port: int) -> grpc.aio.Server:
    server = grpc.aio.server(options=server_options(streams=4))
    method = handlers("test.Echo", unary={"Say": echo}, streams={"Talk": echo_all})
    server.add_generic_rpc_handlers((method,))
    assert server.add_insecure_port(f"127.0.0.1:{port}") == port
    return server


def test_a_message_may_be_as_large_as_the_largest_frame() -> None:
    options = dict(server_options(streams=4))
    largest = 32 << 20  # `frame_bytes` at most
    assert largest < options["grpc.max_receive_message_length"]
    assert (
        options["grpc.max_receive_message_length"]
        == dict(CHANNEL)["grpc.max_receive_message_length"]
    )


def test_pauses_between_attempts_stay_short_while_an_attempt_may_take_long() -> None:
    options = dict(CHANNEL)
    assert options["grpc.max_reconnect_backoff_ms"] == Limits().reconnect_ms == 200
    assert options["grpc.initial_reconnect_backoff_ms"] <= 200
    assert options["grpc.min_reconnect_backoff_ms"] == 1_000


def test_handlers_take_and_give_bare_bytes() -> None:
    async def test() -> None:
        port = free_base(1)
        server = serve(port)
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL) as channel:
            say: Any = channel.unary_unary("/test.Echo/Say")
            assert await say(b"\xff\x00") == b"\xff\x00"
            talk: Any = channel.stream_stream("/test.Echo/Talk")
            call = talk()
            await call.write(b"one")
            assert await call.read() == b"one"
        await server.stop(None)

    run(test)


def test_what_is_compressed_is_refused() -> None:
    async def test() -> None:
        port = free_base(1)
        server = serve(port)
        await server.start()
        zipped = grpc.Compression.Gzip
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", compression=zipped) as channel:
            say: Any = channel.unary_unary("/test.Echo/Say")
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await say(bytes(1 << 20))
            assert failed.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await server.stop(None)

    run(test)


def test_a_second_server_cannot_take_the_port() -> None:
    async def test() -> None:
        port = free_base(1)
        server = serve(port)
        await server.start()
        with pytest.raises((RuntimeError, AssertionError)):
            serve(port)
        await server.stop(None)

    run(test)


def test_a_server_that_comes_late_is_reached_soon() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        port = free_base(1)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL) as channel:
            say: Any = channel.unary_unary("/test.Echo/Say")
            waiting = asyncio.ensure_future(say(b"hello", wait_for_ready=True))
            state = channel.get_state(try_to_connect=True)
            while state is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                await channel.wait_for_state_change(state)
                state = channel.get_state()
            server = serve(port)
            await server.start()
            began = loop.time()
            assert await waiting == b"hello"
            assert loop.time() - began < 5.0  # gRPC's own pauses grow to 120 s
        await server.stop(None)

    run(test)
