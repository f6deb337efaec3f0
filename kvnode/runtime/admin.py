"""`kvnode.v1.Cluster`: the topology and this node's state; the rest is in the modules it names.

Tests: tests/cluster/test_services.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import grpc

import kvnode
from kvnode.core.messages import NodeNumber
from kvnode.core.node import Node
from kvnode.runtime.care import Care, Figure
from kvnode.runtime.conflicts import Conflicts
from kvnode.runtime.edge import Edge
from kvnode.runtime.identity import Identity
from kvnode.runtime.pump import wall_ms
from kvnode.runtime.standing import Standing
from kvnode.runtime.topology_codec import encode_topology
from kvnode.runtime.wire import handlers, parsed
from kvnode.storage.port import Engine
from kvproto import kv_pb2

Context = Any  # grpc.aio.ServicerContext; its stubs know no raw bytes


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
        self._state = state
        self._conflicts = Conflicts(node, edge, engine)
        self._care = Care(node, edge, node_id=identity.id)
        self._standing = Standing(node, edge, engine, self._care, node_id=identity.id, wake=wake)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the gRPC handlers."""
        return handlers(
            "kvnode.v1.Cluster",
            unary={
                "GetTopology": self._get_topology,
                "GetStatus": self._get_status,
                "ListConflicts": self._conflicts.answer,
                **self._care.unary(),
                **self._standing.unary(),
            },
        )

    def figures(self) -> Iterable[Figure]:
        """Yield the metrics of upkeep; called by another thread than the node's."""
        yield from self._care.figures()
        yield from self._standing.figures()
        yield from self._conflicts.figures()

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
            open_conflicts=self._node.replica.conflicts.open,
            settled_conflicts=self._node.replica.conflicts.entries,
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
