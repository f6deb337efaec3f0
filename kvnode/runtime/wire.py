"""gRPC as this project uses it: options, and method handlers on raw bytes.

Handlers get bytes and parse them themselves: a deserializer that raises makes grpc.aio answer
UNKNOWN with a Python repr, where a client deserves INVALID_ARGUMENT.
Tests: tests/unit/runtime/test_wire.py, tests/cluster/test_bad_input.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

Options = list[tuple[str, Any]]

_MESSAGE_BYTES_MAX = 48 << 20
"""Above the largest frame (32 MiB) with its keys and contexts."""
_IDENTITY_ONLY = 1
"""Compression is off: a bomb of 400 MiB once cost that much memory."""


def server_options(*, streams: int) -> Options:
    """Return the options of a node's server."""
    return [
        ("grpc.so_reuseport", 0),  # else a second node could take the same port
        ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
        ("grpc.compression_enabled_algorithms_bitset", _IDENTITY_ONLY),
        ("grpc.max_concurrent_streams", streams),
        ("grpc.http2.max_ping_strikes", 0),
    ]


def channel_options(*, reconnect_ms: int, connect_ms: int) -> Options:
    """Return the options of a channel to a peer. gRPC's own back-off would grow to 120 s.

    Args:
        reconnect_ms: longest pause between two attempts.
        connect_ms: how long one attempt may take, which a busy peer needs.
    """
    return [
        ("grpc.initial_reconnect_backoff_ms", min(50, reconnect_ms)),
        ("grpc.min_reconnect_backoff_ms", connect_ms),
        ("grpc.max_reconnect_backoff_ms", reconnect_ms),
        ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
        ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]


UnaryMethod = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]
StreamMethod = Callable[[Any, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[None]]


def handlers(
    service: str,
    *,
    unary: Mapping[str, UnaryMethod] | None = None,
    streams: Mapping[str, StreamMethod] | None = None,
) -> grpc.GenericRpcHandler:
    """Return the handlers of a service."""
    methods: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(method) for name, method in (unary or {}).items()
    } | {
        name: grpc.stream_stream_rpc_method_handler(method)
        for name, method in (streams or {}).items()
    }
    return grpc.method_handlers_generic_handler(service, methods)


async def parsed(kind: Any, data: bytes, context: Any) -> Any:
    """Return the message of this kind in `data`; end the call with INVALID_ARGUMENT if none is."""
    try:
        return kind.FromString(data)
    except DecodeError:
        text = f"not a {kind.DESCRIPTOR.full_name}"
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
