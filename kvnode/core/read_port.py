"""What a read has done for it: the port between one read and the node that coordinates it.

A read decides (kvnode.core.read) and asks for everything through this: so its tests need no node.
Tests: tests/unit/core/test_read.py plays it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from kvnode.core.messages import Failure, Instant, NodeNumber
from kvnode.core.record import Encoded
from kvnode.core.resolve import Decision
from kvnode.core.versions import Record

if TYPE_CHECKING:
    from kvnode.core.read import ReadOp


class ReadEffects(Protocol):
    """What a read has done for it."""

    def ask(self, op: ReadOp, node: NodeNumber) -> None:
        """Ask an owner what it holds."""

    def mend(self, op: ReadOp, node: NodeNumber, record: Encoded) -> None:
        """Have an owner merge this state."""

    def stand_ins(self, op: ReadOp) -> Sequence[NodeNumber]:
        """Return who may be asked in the place of owners; nobody in a strict keyspace."""

    def is_suspect(self, node: NodeNumber) -> bool:
        """Say whether a node has been silent for too long."""

    def patience_us(self, op: ReadOp) -> int:
        """Return how long to wait before one more is asked."""

    def pay_for_one_more(self) -> bool:
        """Take the price of an extra request; returns whether it was there."""

    def wake(self, op: ReadOp, at: Instant) -> None:
        """Call `on_wake` no earlier than `at`."""

    def finish(self, op: ReadOp, decision: Decision, merged: Record) -> None:
        """Answer the client."""

    def fail(self, op: ReadOp, failure: Failure) -> None:
        """Tell the client that there is no answer."""

    def cluster_ms(self) -> int:
        """Return cluster time, by which expiry is judged."""
