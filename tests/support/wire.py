"""The bare wire, for tests that say what no proper client says.

Decides nothing: calls methods by name with whatever bytes a test likes, and returns what came
back. Laws: a refusal is a value, not an exception; streams end when their test does. Its test
files are tests/cluster/test_bad_input.py, tests/cluster/test_bad_peers.py and
tests/cluster/test_services.py.
"""

from __future__ import annotations

import os
import queue
import time
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
from google.protobuf.message import Message

from kvproto import kv_pb2, peer_pb2

TIMEOUT_S = 10.0

_REPLIES: dict[str, type[Message]] = {
    "KV/Get": kv_pb2.GetResponse,
    "KV/Put": kv_pb2.PutResponse,
    "KV/Delete": kv_pb2.PutResponse,
    "KV/Pipeline": kv_pb2.PipelineResponse,
    "Cluster/GetTopology": kv_pb2.Topology,
    "Cluster/GetStatus": kv_pb2.Status,
    "Cluster/ListConflicts": kv_pb2.ListConflictsResponse,
    "Peer/Link": peer_pb2.PeerFrame,
    "Peer/Bulk": peer_pb2.PeerFrame,
}


class Refusal(NamedTuple):
    """How a call failed."""

    code: grpc.StatusCode
    text: str
    failure: kv_pb2.Failure | None
    """The trailer's, if there was one."""


def call(
    channel: grpc.Channel, method: str, request: Message | bytes, *, timeout: float = TIMEOUT_S
) -> Any:
    """Make a unary call; return its reply, parsed, or a `Refusal`."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    ask: Any = channel.unary_unary(f"/kvnode.v1.{method}")
    try:
        answer = ask(data, timeout=timeout)
    except grpc.RpcError as error:
        return refusal(error)
    assert isinstance(answer, bytes)
    return _REPLIES[method].FromString(answer)


def refusal(error: Any) -> Refusal:
    """Return what an error says."""
    trailers = dict(error.trailing_metadata() or ())
    found = trailers.get("kvnode-failure-bin")
    failure = None if found is None else kv_pb2.Failure.FromString(found)
    return Refusal(error.code(), error.details() or "", failure)


class Stream:
    """One bidirectional stream."""

    def __init__(self, channel: grpc.Channel, method: str) -> None:
        """Open it; `with` cancels it at the end."""
        self._reply = _REPLIES[method]
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        opened: Any = channel.stream_stream(f"/kvnode.v1.{method}")
        self._call: Any = opened(iter(self._requests.get, None), timeout=2 * TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._requests.put(None)
        self._call.cancel()

    def send(self, frame: Message | bytes) -> None:
        """Send a frame."""
        self._requests.put(frame if isinstance(frame, bytes) else frame.SerializeToString())

    def finish(self) -> None:
        """Say that no more frames will come."""
        self._requests.put(None)

    def take(self) -> Any:
        """Return the next frame, parsed; the `Refusal` that ended it; None at its good end."""
        try:
            return self._reply.FromString(next(self._call))
        except StopIteration:
            return None
        except grpc.RpcError as error:
            return refusal(error)

    def ask(self, frame: Message | bytes) -> Any:
        """Send a frame and return what comes next."""
        self.send(frame)
        return self.take()

    def end(self) -> Refusal:
        """Read on until the node ends the stream; return how."""
        while not isinstance(found := self.take(), Refusal):
            assert found is not None, "the stream ended well"
        return found


def hlc() -> int:
    """Return the present as a client stamps it."""
    return time.time_ns() // 1_000_000 << 16


def gets(*keys: bytes, **columns: Any) -> kv_pb2.PipelineRequest:
    """Return a frame of reads; further columns as they are given."""
    request = kv_pb2.PipelineRequest(format=1)
    request.gets.id.extend(range(1, len(keys) + 1))
    request.gets.key.extend(keys)
    _fill(request.gets, {"timeout_ms": [5_000] * len(keys)} | columns)
    return request


def puts(pairs: dict[bytes, bytes], *, timestamp: int, **columns: Any) -> kv_pb2.PipelineRequest:
    """Return a frame of writes; further columns as they are given."""
    request = kv_pb2.PipelineRequest(format=1)
    count = len(pairs)
    request.puts.id.extend(range(1, count + 1))
    request.puts.key.extend(pairs)
    request.puts.value.extend(pairs.values())
    given = {
        "write_id": [os.urandom(16) for _ in pairs],
        "timestamp": [timestamp] * count,
        "timeout_ms": [5_000] * count,
    }
    _fill(request.puts, given | columns)
    return request


def _fill(message: Any, columns: dict[str, Any]) -> None:
    for name, values in columns.items():
        getattr(message, name).extend(values)
