"""`kvnode.v1.Cluster`: the topology, this node's state, its open conflicts.

Tests: tests/cluster/test_services.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import grpc

import kvnode
from kvnode.core.batch import Family
from kvnode.core.explain import sibling_reports
from kvnode.core.keys import StorageKey, decode_key, partition_of_key
from kvnode.core.messages import NodeNumber
from kvnode.core.node import Node
from kvnode.core.record import DamagedRecord, decode
from kvnode.core.resolve import decide, is_conflict
from kvnode.core.versions import Record
from kvnode.runtime.care import Care, Figure
from kvnode.runtime.client_codec import encode_sibling
from kvnode.runtime.edge import Edge, name_node
from kvnode.runtime.identity import Identity
from kvnode.runtime.pump import wall_ms
from kvnode.runtime.standing import Standing
from kvnode.runtime.topology_codec import encode_topology
from kvnode.runtime.wire import handlers, parsed
from kvnode.storage.port import Engine
from kvproto import kv_pb2

Context = Any  # grpc.aio.ServicerContext; its stubs know no raw bytes

_PAGE = 100
_PAGE_MAX = 1_000
_SCAN_MAX = 1_000_000
"""Open conflicts are counted up to here."""


class ClusterService:
    """What a node tells of itself."""

    def __init__(
        self,
        node: Node,
        identity: Identity,
        engine: Engine,
        edge: Edge,
        state: Callable[[], str],
        wake: Callable[[], None],
    ) -> None:
        self._node = node
        self._identity = identity
        self._engine = engine
        self._edge = edge
        self._state = state
        self._care = Care(node, edge, node_id=identity.id)
        self._standing = Standing(node, edge, engine, self._care, node_id=identity.id, wake=wake)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the gRPC handlers."""
        return handlers(
            "kvnode.v1.Cluster",
            unary={
                "GetTopology": self._get_topology,
                "GetStatus": self._get_status,
                "ListConflicts": self._list_conflicts,
                **self._care.unary(),
                **self._standing.unary(),
            },
        )

    def figures(self) -> Iterable[Figure]:
        """Yield the metrics of upkeep; called by another thread than the node's."""
        yield from self._care.figures()
        yield from self._standing.figures()

    def status(self) -> kv_pb2.Status:
        """Return this node's state."""
        topology = self._node.topology
        member = topology.by_number(self._node.number)
        return kv_pb2.Status(
            node=self._identity.id,
            cluster=topology.name,
            epoch=topology.epoch,
            state=self._state(),
            incarnation=self._identity.incarnation,
            pid=os.getpid(),
            version=kvnode.__version__,
            records=self._engine.approximate_count(),
            bytes=self._engine.size_bytes(),
            open_conflicts=self._count_conflicts(),
            peers=[
                kv_pb2.PeerStatus(node=peer.id, state=self._state_of(peer.number))
                for peer in topology.members
                if peer.number != self._node.number
            ],
            hlc=self._node.clock.read(wall_ms()),
            address="" if member is None else member.address,
            wall_ms=wall_ms(),
            pending_hints=self._node.hints.pending,
            unproven_partitions=len(self._node.upkeep.holdings.proving.unproven),
        )

    def _state_of(self, peer: NodeNumber) -> str:
        coordinator = self._node.coordinator
        if peer not in coordinator.reachable:
            return "down"
        return "suspect" if peer in coordinator.suspects else "up"

    async def _get_topology(self, data: bytes, context: Context) -> bytes:
        await parsed(kv_pb2.GetTopologyRequest, data, context)
        return encode_topology(self._node.topology).SerializeToString()

    async def _get_status(self, data: bytes, context: Context) -> bytes:
        await parsed(kv_pb2.GetStatusRequest, data, context)
        return self.status().SerializeToString()

    async def _list_conflicts(self, data: bytes, context: Context) -> bytes:
        request = await parsed(kv_pb2.ListConflictsRequest, data, context)
        limit = min(request.limit or _PAGE, _PAGE_MAX)
        start = request.after + b"\x00" if request.after else b""
        page = self._engine.scan(Family.CONFLICTS, start, None, limit)
        keys = [StorageKey(key) for key, _ in page]
        response = kv_pb2.ListConflictsResponse()
        for key, found in zip(keys, self._engine.multi_get(Family.RECORDS, keys), strict=True):
            name = decode_key(key)
            if isinstance(found, bytes) and request.keyspace in ("", name.keyspace):
                self._add_conflict(response, key, found)
        if len(page) == limit:
            response.next = keys[-1]
        return response.SerializeToString()

    def _add_conflict(
        self, response: kv_pb2.ListConflictsResponse, key: StorageKey, data: bytes
    ) -> None:
        try:
            record: Record = decode(key, data)
        except DamagedRecord:
            return  # reads of it abstain and raise the alarm
        name = decode_key(key)
        keyspace = self._node.topology.keyspace(name.keyspace)
        if keyspace is None or not is_conflict(record, wall_ms()):
            return
        index = {version.dot: at for at, version in enumerate(record.versions)}
        partition = partition_of_key(key, self._node.topology.partition_bits)
        owners = self._node.topology.owner_numbers[partition][: keyspace.n]
        # As far as this node knows: a read asks all owners for their votes.
        decision = decide(
            record,
            owners=owners,
            unheard=0,
            now_ms=wall_ms(),
            resolve=keyspace.resolve,
        )
        response.conflicts.append(
            kv_pb2.Conflict(
                keyspace=name.keyspace,
                key=name.partition_part + name.sort_part,
                siblings=[encode_sibling(one) for one in sibling_reports(record, decision)],
                votes=[
                    kv_pb2.Vote(node=name_node(self._edge, vote.owner), sibling=index[vote.dot])
                    for vote in record.votes
                ],
            )
        )

    def _count_conflicts(self) -> int:
        return len(self._engine.scan(Family.CONFLICTS, b"", None, _SCAN_MAX))
