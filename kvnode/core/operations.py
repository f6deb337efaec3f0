"""What all operations in progress at a node share: the table, ids, instants, the turn's outbox, and
who can be reached.

Laws: ids start at random in each life, so that an answer to an earlier one is not taken for one to
this, and stay below those of upkeep; the table's bound is held by kvnode.core.refusals.
Tests: tests/unit/core/test_operations.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvnode.core.keys import StorageKey, partition_of_key
from kvnode.core.messages import (
    GetResult,
    Instant,
    NodeNumber,
    Outbox,
    Result,
    SessionId,
)
from kvnode.core.read import ReadOp
from kvnode.core.replica import Replica
from kvnode.core.wheel import Wheel
from kvnode.core.write import ForwardOp, WriteOp

Operation = ReadOp | WriteOp | ForwardOp

OPERATION_ID_MAX = (1 << 62) - 1
"""Higher ids belong to upkeep."""


class Operations:
    """The operations in progress at one node."""

    __slots__ = (
        "_next_id",
        "_replica",
        "now",
        "out",
        "reachable",
        "suspects",
        "table",
        "wall_ms",
        "wheel",
    )

    def __init__(self, replica: Replica, *, first_id: int) -> None:
        self._replica = replica
        self._next_id = first_id
        self.table: dict[int, Operation] = {}
        self.wheel = Wheel()
        self.out = Outbox()
        self.now = Instant(0)
        self.wall_ms = 0
        self.reachable: set[NodeNumber] = set()
        """Nodes with an open link, this one not among them."""
        self.suspects: set[NodeNumber] = set()
        """Those of them that have been silent for too long."""

    def begin(self, out: Outbox, now: Instant, wall_ms: int) -> None:
        """Start a turn."""
        self.out = out
        self.now = now
        self.wall_ms = wall_ms

    def take_id(self) -> int:
        """Return the next id."""
        self._next_id = self._next_id % OPERATION_ID_MAX + 1
        return self._next_id

    def answer(self, origin: int, result: Result) -> None:
        """Answer whoever asked: a client's session, or (negative) the node that sent a write on."""
        if origin >= 0:
            self.out.answer(SessionId(origin), result)
        else:
            assert not isinstance(result, GetResult)  # only writes are sent on
            self.out.send(-origin, result)

    def owners(self, key: StorageKey, n: int) -> tuple[NodeNumber, ...]:
        """Return the key's first n owners."""
        topology = self._replica.topology
        partition = partition_of_key(key, topology.partition_bits)
        return topology.owner_numbers[partition][:n]

    def is_healthy(self, node: NodeNumber) -> bool:
        """Say whether a node, or this one, is likely to answer."""
        if node == self._replica.number:
            return True
        return node in self.reachable and node not in self.suspects

    def nearest(self, owners: Sequence[NodeNumber]) -> list[NodeNumber]:
        """Return the owners that can be reached: this node, the healthy, the suspects.

        Before others come those to which this turn speaks already: a frame costs more than what is
        in it, and reads of one turn can mostly ask the same node.
        """
        near = [node for node in owners if node in self.reachable]
        if self.out.peers:
            near.sort(key=self.out.peers.__contains__, reverse=True)
        if self.suspects:
            near.sort(key=self.suspects.__contains__)
        if self._replica.number in owners:
            near.insert(0, self._replica.number)
        return near

    def stand_ins(self, key: StorageKey, owners: Sequence[NodeNumber]) -> list[NodeNumber]:
        """Return the healthy nodes that own nothing of the key, in the order of the ring."""
        topology = self._replica.topology
        partition = partition_of_key(key, topology.partition_bits)
        return [
            member.number
            for member in topology.preference(partition)
            if member.number not in owners and self.is_healthy(member.number)
        ]
