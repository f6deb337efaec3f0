"""The Python client of kvnode, a leaderless replicated key-value store.

    with kvclient.Client("127.0.0.1:7001") as db:
        db.put("user:1", b"ada")
        db.get("user:1")

`Client` is for threads, `AsyncClient` for event loops; see docs/client.md. It needs grpcio,
protobuf and mmh3, and nothing of the node.
"""

from kvclient import _quiet  # noqa: F401 -- before anything imports grpc
from kvclient.aio import AsyncClient, AsyncKeyspace, AsyncSessionClient
from kvclient.api import Client, Keyspace, SessionClient
from kvclient.bounds import Bounds
from kvclient.convergence import Convergence, Difference, HintLedger
from kvclient.errors import (
    CorruptData,
    InvalidRequest,
    KVError,
    MultipleValues,
    Overloaded,
    PartialFailure,
    PermissionDenied,
    Reply,
    StorageFull,
    Timeout,
    Unauthenticated,
    Unavailable,
    Uncertain,
    UnknownKeyspace,
)
from kvclient.results import (
    Confidence,
    Conflict,
    Explain,
    Metrics,
    Record,
    ReplicaReport,
    Sibling,
    Status,
    WriteResult,
)
from kvclient.routing import KeyspaceSettings, Member, Topology
from kvclient.session import Session

__all__ = [
    "AsyncClient",
    "AsyncKeyspace",
    "AsyncSessionClient",
    "Bounds",
    "Client",
    "Confidence",
    "Conflict",
    "Convergence",
    "CorruptData",
    "Difference",
    "Explain",
    "HintLedger",
    "InvalidRequest",
    "KVError",
    "Keyspace",
    "KeyspaceSettings",
    "Member",
    "Metrics",
    "MultipleValues",
    "Overloaded",
    "PartialFailure",
    "PermissionDenied",
    "Record",
    "ReplicaReport",
    "Reply",
    "Session",
    "SessionClient",
    "Sibling",
    "Status",
    "StorageFull",
    "Timeout",
    "Topology",
    "Unauthenticated",
    "Unavailable",
    "Uncertain",
    "UnknownKeyspace",
    "WriteResult",
]
