"""What the command's tests put in place of nodes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import grpc

from kvproto import kv_pb2

FAKE = (sys.executable, str(Path(__file__).with_name("fake_node.py")))


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 (protobuf's name)


class FakeNode:
    """Answers the questions of /kvnode.v1.Cluster with what it was made with."""

    def __init__(
        self,
        status: kv_pb2.Status | None = None,
        *,
        topology: kv_pb2.Topology | None = None,
        conflicts: Sequence[kv_pb2.Conflict] = (),
        port: int = 0,
        more: Mapping[str, Callable[[bytes], _Message]] | None = None,
    ) -> None:
        self.status = status or kv_pb2.Status()
        self.topology = topology or kv_pb2.Topology()
        self.conflicts = list(conflicts)
        self.states: list[str] = []
        """Of the conflicts that were asked for."""
        self._server = grpc.server(ThreadPoolExecutor(1))
        answers = {
            "GetStatus": lambda _request: self.status,
            "GetTopology": lambda _request: self.topology,
            "ListConflicts": self._page,
            **(more or {}),
        }
        handlers = {name: _handler(answer) for name, answer in answers.items()}
        service = grpc.method_handlers_generic_handler("kvnode.v1.Cluster", handlers)
        self._server.add_generic_rpc_handlers([service])
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.address = f"127.0.0.1:{self.port}"

    def _page(self, data: bytes) -> kv_pb2.ListConflictsResponse:
        """Return one conflict a page."""
        request = kv_pb2.ListConflictsRequest.FromString(data)
        self.states.append(request.state)
        at = int(request.after or b"0")
        mine = [c for c in self.conflicts if request.keyspace in ("", c.keyspace)]
        following = b"%d" % (at + 1) if at + 1 < len(mine) else b""
        return kv_pb2.ListConflictsResponse(conflicts=mine[at : at + 1], next=following)

    def __enter__(self) -> FakeNode:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()


def _handler(answer: Callable[[bytes], _Message]) -> grpc.RpcMethodHandler[bytes, bytes]:
    return grpc.unary_unary_rpc_method_handler(
        lambda data, _context: answer(data).SerializeToString()
    )
