"""The part of `kvnode.v1.Cluster` about hints, convergence and repair, and the figures of these.

Laws: what is told is this node's own view at one instant, and reading it costs no turn; what an
operator asks for begins in the next turn.
Tests: tests/unit/runtime/test_care.py, tests/cluster/test_hints.py.
Source: design, sections 2.6 to 2.8. Left out: what is done about it, which is the core's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kvnode.core.hints import Ledger
from kvnode.core.messages import NodeNumber
from kvnode.core.node import Node
from kvnode.runtime.edge import Edge, name_node
from kvnode.runtime.wire import UnaryMethod, parsed
from kvproto import kv_pb2

Context = Any  # grpc.aio.ServicerContext; its stubs know no raw bytes
Figure = tuple[str, str, str, float]
"""(gauge or counter, name, help, value)."""


class Care:
    """What a node tells of its upkeep."""

    def __init__(self, node: Node, edge: Edge, *, node_id: str) -> None:
        self._node = node
        self._edge = edge
        self._id = node_id

    def unary(self) -> dict[str, UnaryMethod]:
        """Return the calls that are answered here, by name."""
        return {"GetHints": self._get_hints}

    # ---- hints ---------------------------------------------------------------------------

    def hints(self) -> kv_pb2.Hints:
        """Return what is kept for others."""
        node = self._node
        return kv_pb2.Hints(
            node=self._id,
            ledgers=[self._ledger(*entry) for entry in sorted(node.hints.ledgers.items())],
            bytes_max=node.limits.hint_bytes,
            under_way=node.handoff.under_way,
        )

    def _ledger(self, owner: NodeNumber, ledger: Ledger) -> kv_pb2.HintLedger:
        reasons = {"aged": ledger.aged, "damaged": ledger.damaged}
        dropped = [kv_pb2.HintsDropped(why=w, count=c) for w, c in reasons.items() if c]
        return kv_pb2.HintLedger(
            owner=name_node(self._edge, owner),
            pending=ledger.pending,
            bytes=ledger.bytes,
            oldest_ms=ledger.oldest_ms,
            delivered=ledger.delivered,
            dropped=dropped,
            refused=ledger.refused,
        )

    async def _get_hints(self, data: bytes, context: Context) -> bytes:
        await parsed(kv_pb2.GetHintsRequest, data, context)
        return self.hints().SerializeToString()

    # ---- figures -------------------------------------------------------------------------

    def figures(self) -> Iterable[Figure]:
        """Yield the metrics of upkeep; called by another thread than the node's."""
        node = self._node
        # A list at once: the node's thread may add an owner meanwhile.
        ledgers = [*node.hints.ledgers.values()]
        total = {
            name: float(sum(getattr(ledger, name) for ledger in ledgers))
            for name in ("pending", "bytes", "delivered", "aged", "damaged", "refused")
        }
        yield "gauge", "hints_pending", "Hints kept for other nodes.", total["pending"]
        yield "gauge", "hints_bytes", "Their bytes.", total["bytes"]
        yield "gauge", "hints_under_way", "Deliveries unanswered.", float(node.handoff.under_way)
        yield "counter", "hints_delivered", "Hints their owners have.", total["delivered"]
        yield (
            "counter",
            "hints_dropped",
            "Given up: old, and with w owners; or damaged.",
            total["aged"] + total["damaged"],
        )
        yield "counter", "hints_refused", "Writes that did not fit.", total["refused"]
