"""Which of this node's partitions are known to hold all that it ever acknowledged: proven, or not.

A doubt (a wiped disk, a restored folder, a log that may have lost its end, damage) makes partitions
unproven: reads are answered, and do not count. A partition is proven again once exchanges that
began after the doubt are complete

    with all its other owners, or
    for each keyspace of which this node is an owner: with n - w + 1 proven ones of its other
    owners, since every acknowledged write is then at one of them.

So if all owners are unproven they exchange among themselves, and count once each has heard all.
What a write with a smaller w than its keyspace's was promised is not covered, as with reads.

Laws: doubt is durable with the loss of the floors; nothing but complete exchanges ends it.
Tests: tests/unit/core/test_proving.py. Source: design, section 2.4.
"""

from __future__ import annotations

from collections.abc import Iterable

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.keys import Partition
from kvnode.core.messages import NodeNumber
from kvnode.core.topology import Topology

UNPROVEN = b"unproven"
"""In Family.META: the partitions in doubt, as bits; no bits at all: every one of them."""


class Proving:
    """The partitions of one node in doubt."""

    __slots__ = ("_doubts", "_generation", "_heard", "_is_changed", "_number", "_topology")

    def __init__(self, number: NodeNumber, topology: Topology) -> None:
        self._number = number
        self._topology = topology
        self._doubts: dict[Partition, int] = {}
        """partition -> the number of its doubt."""
        self._heard: dict[Partition, dict[NodeNumber, bool]] = {}
        """partition -> owners with which an exchange is complete -> whether they were proven."""
        self._generation = 0
        self._is_changed = False

    @property
    def unproven(self) -> tuple[Partition, ...]:
        """The partitions in doubt."""
        return tuple(sorted(self._doubts))

    @property
    def is_whole(self) -> bool:
        """Whether no partition is in doubt."""
        return not self._doubts

    def is_proven(self, partition: Partition) -> bool:
        """Say whether this partition's answers count."""
        return partition not in self._doubts

    def doubt_of(self, partition: Partition) -> int:
        """Return the number of the partition's doubt, which an exchange that begins now notes; 0:
        it is proven."""
        return self._doubts.get(partition, 0)

    def owned(self) -> list[Partition]:
        """Return all partitions that this node owns."""
        return [Partition(each) for each in self._topology.partitions_of(self._number)]

    def doubt(self, partitions: Iterable[Partition]) -> None:
        """These may lack what was acknowledged. Their floors must go in the same batch."""
        self._generation += 1
        for partition in partitions:
            self._doubts[partition] = self._generation
            self._heard.pop(partition, None)
        self._is_changed = True
        self._prove()

    def follow(self, topology: Topology) -> None:
        """Other owners may be enough, or may be needed."""
        self._topology = topology
        owned = frozenset(self.owned())
        for partition in [each for each in self._doubts if each not in owned]:
            del self._doubts[partition]
            self._is_changed = True
        self._prove()

    def on_complete(
        self, partition: Partition, peer: NodeNumber, *, doubt: int, is_peer_proven: bool
    ) -> bool:
        """An exchange is complete that began when `doubt_of` the partition was this.

        Returns whether the partition is proven by that.
        """
        if not doubt or self._doubts.get(partition) != doubt:
            return False
        self._heard.setdefault(partition, {})[peer] = is_peer_proven
        return self._prove_one(partition)

    def waits_for(self, partition: Partition) -> tuple[NodeNumber, ...]:
        """Return the owners with which no exchange is complete since the doubt."""
        if partition not in self._doubts:
            return ()
        heard = self._heard.get(partition, {})
        return tuple(node for node in self._others(partition, None) if node not in heard)

    def load(self, data: bytes | None) -> None:
        """Take what META says."""
        if data is None:
            return
        bits = int.from_bytes(data, "little")
        owned = self.owned()
        self.doubt(each for each in owned if not data or bits >> each & 1)

    def save(self, batch: WriteBatch) -> None:
        """Put what changed since the last call into the batch."""
        if not self._is_changed:
            return
        self._is_changed = False
        if self._doubts:
            batch.put(Family.META, UNPROVEN, self._encode())
        else:
            batch.delete(Family.META, UNPROVEN)

    def _encode(self) -> bytes:
        bits = sum(1 << partition for partition in self._doubts)
        return bits.to_bytes((self._topology.partitions + 7) // 8, "little")

    def _prove(self) -> None:
        for partition in [*self._doubts]:
            self._prove_one(partition)

    def _prove_one(self, partition: Partition) -> bool:
        heard = self._heard.get(partition, {})
        for keyspace in self._topology.keyspaces:
            row = self._topology.owner_numbers[partition][: keyspace.n]
            if self._number not in row:
                continue
            others = self._others(partition, keyspace.n)
            proven = sum(heard.get(node, False) for node in others)
            if proven < len(row) - keyspace.w + 1 and any(node not in heard for node in others):
                return False
        del self._doubts[partition]
        self._heard.pop(partition, None)
        self._is_changed = True
        return True

    def _others(self, partition: Partition, n: int | None) -> list[NodeNumber]:
        row = self._topology.owner_numbers[partition][:n]
        return [node for node in row if node != self._number]
