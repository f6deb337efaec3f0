"""Questions to many nodes at once, answered by those that live.

Decides how long a dead or silent node may hold up a command that looks at the whole cluster: not at
all beyond one short time-out, since all are asked at once. Law: the answer to "how is the cluster"
never depends on any single node. Held by tests/unit/cli/test_wire.py. Plain calls, not the client:
it routes around what these commands want to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Protocol, TypeVar

import grpc

from kvproto import kv_pb2

ANSWER_S = 1.0

SILENT = "silent"
"""It accepted the connection, or might have, and did not answer in time."""
REFUSED = "refused"
"""Nothing listens there."""

_OPTIONS = [
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 (protobuf's name)


_Answer = TypeVar("_Answer")


def ask_all(
    addresses: Iterable[str],
    method: str,
    request: _Message,
    parse: Callable[[bytes], _Answer],
    *,
    timeout_s: float = ANSWER_S,
) -> dict[str, _Answer | str]:
    """Call `method` of /kvnode.v1.Cluster at all addresses at once.

    Returns: for each address the answer, or why there is none: SILENT, REFUSED or the error's text.
    """
    with ExitStack() as stack:
        calls = {}
        for address in dict.fromkeys(addresses):
            channel = stack.enter_context(grpc.insecure_channel(address, options=_OPTIONS))
            ask: grpc.UnaryUnaryMultiCallable[_Message, _Answer] = channel.unary_unary(
                f"/kvnode.v1.Cluster/{method}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=parse,
            )
            calls[address] = ask.future(request, timeout=timeout_s)
        answers: dict[str, _Answer | str] = {}
        for address, call in calls.items():
            answer = _settled(call)
            answers[address] = answer
        return answers


def statuses(addresses: Iterable[str]) -> dict[str, kv_pb2.Status | str]:
    """Return what each node says about itself."""
    request = kv_pb2.GetStatusRequest()
    return ask_all(addresses, "GetStatus", request, kv_pb2.Status.FromString)


def topology(addresses: Iterable[str]) -> kv_pb2.Topology | None:
    """Return the newest topology that any of the nodes knows."""
    request = kv_pb2.GetTopologyRequest()
    answers = ask_all(addresses, "GetTopology", request, kv_pb2.Topology.FromString)
    known = [answer for answer in answers.values() if isinstance(answer, kv_pb2.Topology)]
    return max(known, key=lambda answer: answer.epoch, default=None)


def _settled(call: grpc.Future[_Answer]) -> _Answer | str:
    try:
        return call.result()
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return SILENT
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            return REFUSED
        return f"{error.code().name}: {error.details()}"
