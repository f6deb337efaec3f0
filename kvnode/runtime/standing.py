"""The part of `kvnode.v1.Cluster` about being equal to the other owners: how this node stands,
repairs, and why a deleted key's marker is kept.

Laws: what is told is this node's own view at one instant, and reading it changes nothing; what is
asked for begins in the next turn, and is no faster than the limits on upkeep allow.
Tests: tests/unit/runtime/test_standing.py, tests/cluster/test_hints.py.
Source: design, sections 2.6 and 2.8. Left out: what is done, which is the core's (sweeps, reaping).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import grpc

from kvnode.core.batch import Family
from kvnode.core.keys import Partition, StorageKey
from kvnode.core.messages import ErrorCode
from kvnode.core.node import Node
from kvnode.core.reaping import Obstacle
from kvnode.core.record import DamagedRecord, decode
from kvnode.core.repair import Part, Repair
from kvnode.core.versions import Record
from kvnode.runtime.care import Care, Context, Figure
from kvnode.runtime.clock import now_us, wall_ms
from kvnode.runtime.edge import Edge, Refused, name_node
from kvnode.runtime.wire import UnaryMethod, parsed
from kvnode.storage.port import Engine
from kvproto import kv_pb2


class Standing:
    """What a node tells of itself beside the other owners."""

    def __init__(
        self,
        node: Node,
        edge: Edge,
        engine: Engine,
        care: Care,
        *,
        node_id: str,
        wake: Callable[[], None],
    ) -> None:
        """Args: `wake` has a turn run soon."""
        self._node = node
        self._edge = edge
        self._engine = engine
        self._care = care
        self._id = node_id
        self._wake = wake
        self._repair = Repair(node.upkeep.sweeps, node.upkeep.holdings)

    def unary(self) -> dict[str, UnaryMethod]:
        """Return the calls that are answered here, by name."""
        return {
            "GetConvergence": self._get_convergence,
            "StartRepair": self._start_repair,
            "GetRepair": self._get_repair,
            "CancelRepair": self._cancel_repair,
            "WhyNotReaped": self._why_not_reaped,
        }

    # ---- convergence ---------------------------------------------------------------------

    def convergence(self) -> kv_pb2.Convergence:
        """Return how far this node is from rest. Costs O(partitions)."""
        upkeep, topology = self._node.upkeep, self._node.topology
        standing = upkeep.standing()
        answer = kv_pb2.Convergence(
            node=self._id,
            epoch=topology.epoch,
            hints=[each for each in self._care.hints().ledgers if each.pending],
            unproven=standing.unproven,
            unknown=standing.unknown,
            exchanges=standing.under_way,
        )
        trees, number = upkeep.holdings.trees, self._node.number
        for n in sorted({keyspace.n for keyspace in topology.keyspaces}):
            for partition, row in enumerate(topology.owner_numbers):
                if number in row[:n] and trees.is_known(Partition(partition)):
                    answer.partition.append(partition)
                    answer.n.append(n)
                    # Of all keyspaces with at least this n: whoever owns by this n owns by those.
                    answer.root.append(trees.root(Partition(partition), n))
        return answer

    async def _get_convergence(self, data: bytes, context: Context) -> bytes:
        request = await parsed(kv_pb2.GetConvergenceRequest, data, context)
        if request.kick:
            self._node.handoff.hurry()
            self._node.upkeep.sweeps.kick(now_us())
            self._wake()
        return self.convergence().SerializeToString()

    # ---- repair --------------------------------------------------------------------------

    def repair(self) -> kv_pb2.Repair:
        """Return how far the latest repair is; what is left of a running one is hurried."""
        parts = self._repair.look(now_us(), wall_ms())
        self._wake()
        return kv_pb2.Repair(
            node=self._id,
            state=self._repair.state.value,
            began_ms=self._repair.began_ms,
            ended_ms=self._repair.ended_ms,
            lines=[self._line(part) for part in parts],
        )

    def _line(self, part: Part) -> kv_pb2.RepairLine:
        return kv_pb2.RepairLine(
            partition=part.partition,
            peer=name_node(self._edge, part.peer),
            state=part.state.value,
            differing=part.differing,
            mended=part.mended,
        )

    async def _start_repair(self, data: bytes, context: Context) -> bytes:
        request = await parsed(kv_pb2.StartRepairRequest, data, context)
        partitions = self._node.topology.partitions
        for number in request.partitions:
            if number >= partitions:
                text = f"partition must be 0 to {partitions - 1}, got {number}"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        self._repair.start(frozenset(request.partitions), now_us(), wall_ms())
        return self.repair().SerializeToString()

    async def _get_repair(self, data: bytes, context: Context) -> bytes:
        await parsed(kv_pb2.GetRepairRequest, data, context)
        return self.repair().SerializeToString()

    async def _cancel_repair(self, data: bytes, context: Context) -> bytes:
        await parsed(kv_pb2.CancelRepairRequest, data, context)
        self._repair.look(now_us(), wall_ms())
        self._repair.cancel(wall_ms())
        return self.repair().SerializeToString()

    # ---- reaping -------------------------------------------------------------------------

    async def _why_not_reaped(self, data: bytes, context: Context) -> bytes:
        request = await parsed(kv_pb2.WhyNotReapedRequest, data, context)
        try:
            asked = self._edge.get(
                0, kv_pb2.GetRequest(keyspace=request.keyspace, key=request.key), 0
            )
        except Refused as refused:
            is_unknown = refused.code is ErrorCode.UNKNOWN_KEYSPACE
            code = grpc.StatusCode.NOT_FOUND if is_unknown else grpc.StatusCode.INVALID_ARGUMENT
            await context.abort(code, str(refused))
            raise
        owners = self._node.stand_in.owners_of(asked.key)
        answer = kv_pb2.WhyNotReapedResponse(node=self._id, owner=self._node.number in owners)
        if answer.owner:
            self._explain_grave(answer, asked.key)
        return answer.SerializeToString()

    def _explain_grave(self, answer: kv_pb2.WhyNotReapedResponse, key: StorageKey) -> None:
        (found,) = self._engine.multi_get(Family.RECORDS, [key])
        if found is None:
            answer.state = "none"
            return
        try:
            record: Record | None = decode(key, found) if isinstance(found, bytes) else None
        except DamagedRecord:
            record = None
        if record is None:
            answer.state = "unreadable"
            return
        answer.state = self._state_of(record)
        if answer.state == "ready":
            obstacles = self._node.upkeep.reaping.obstacles(key, record)
            answer.waits_for.extend(map(self._obstacle, obstacles))
            answer.state = "waits" if obstacles else "ready"

    def _state_of(self, record: Record) -> str:
        now_ms = wall_ms()
        if not all(version.is_absence(now_ms) for version in record.versions):
            return "value"
        latest_ms = now_ms - self._node.limits.max_skew_ms
        is_over = all(version.is_absence(latest_ms) for version in record.versions)
        return "ready" if is_over else "recent"

    def _obstacle(self, obstacle: Obstacle) -> kv_pb2.ReapObstacle:
        return kv_pb2.ReapObstacle(
            node=name_node(self._edge, obstacle.node),
            why=_why(obstacle),
            lacks=[f"{lack.actor:016x}:{lack.needed} (at {lack.floor})" for lack in obstacle.lacks],
        )

    # ---- figures -------------------------------------------------------------------------

    def figures(self) -> Iterable[Figure]:
        """Yield the metrics of upkeep; called by another thread than the node's."""
        upkeep = self._node.upkeep
        progress, proving = upkeep.sweeps.progress, upkeep.holdings.proving
        under_way = upkeep.sweeps.runs.under_way
        yield "gauge", "exchanges_under_way", "Comparisons of partitions.", float(under_way)
        yield "counter", "exchanges", "Begun, since roots differed.", float(progress.exchanges)
        yield "counter", "exchange_keys_differing", "Found by them.", float(progress.differing)
        yield "counter", "exchange_keys_mended", "Made equal by them.", float(progress.mended)
        unproven = float(len(proving.unproven))
        yield "gauge", "partitions_unproven", "Owned; reads of them do not count.", unproven
        graves = float(upkeep.reaping.graves)
        yield "gauge", "tombstones", "Markers kept, as of the latest walk over them.", graves
        yield "counter", "reaped", "Records of deleted keys dropped.", float(upkeep.reaping.reaped)


def _why(obstacle: Obstacle) -> str:
    if not obstacle.is_heard:
        return "not compared with in this epoch"
    return "its floor was too low when last compared" if obstacle.is_proven else "unproven"
