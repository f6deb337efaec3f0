"""The fault atlas: which disk may be damaged now, so that never every copy of a record is.

What it decides: whether a fault that takes data away may act. The disk of one node at a time: the
next one only when all that the first had held is elsewhere again, and it is whole itself. That is
judged for each partition apart: at some instant since the damage all its owners were up, proven and
equal, and no hint waited anywhere. Until then what was acknowledged may be on one other disk alone.
Laws: a plan that is not unsafe never loses an acknowledged write by damage alone (a write that one
disk alone had to hold is not covered: such plans ask for w of two or more, or are unsafe).
Its tests are tests/sim/test_faults.py. Left out: power, which takes nothing that was synced.
"""

from __future__ import annotations

from kvnode.core.batch import Family
from kvnode.core.keys import Partition
from kvnode.core.messages import NodeNumber
from tests.sim.cluster import Cluster

Spot = tuple[Family, bytes]


class Atlas:
    """What is known of damage to the disks of one cluster."""

    def __init__(self, world: Cluster, *, is_unsafe: bool) -> None:
        self.damaged: NodeNumber | None = None
        """Whose disk may lack something that it had held."""
        self._world = world
        self._is_unsafe = is_unsafe
        self._behind: set[int] = set()
        """Partitions of which that may still be so."""
        self._garbled: dict[Spot, bytes] = {}
        """Values that were changed behind the checksums of blocks."""

    def may_damage(self, node: NodeNumber) -> bool:
        """Say whether the disk of a node may lose something now."""
        self.look()
        return self._is_unsafe or self.damaged in (None, node)

    def on_damage(self, node: NodeNumber, garbled: Spot | None = None) -> None:
        """The disk of a node loses something now, or has something changed."""
        if self.damaged != node:
            self._garbled = {}
        self.damaged = node
        self._behind = set(range(self._world.topology.partitions))
        if garbled is not None:
            (value,) = self._world.hosts[node].disk.multi_get(garbled[0], [garbled[1]])
            if isinstance(value, bytes):
                self._garbled[garbled] = value

    @property
    def is_whole(self) -> bool:
        """Whether no disk has anything left that it could show to be damaged."""
        return self.damaged is None or self._is_whole(self.damaged)

    def look(self) -> None:
        """See what has been mended since the last look. To be called now and then."""
        if self.damaged is None or not self._is_quiet() or not self._is_whole(self.damaged):
            return
        self._behind = {each for each in self._behind if not self._is_equal(Partition(each))}
        if not self._behind:
            self.damaged = None

    def _is_quiet(self) -> bool:
        """Whether every node is up, and no hint waits anywhere."""
        lives = [host.life for host in self._world.hosts.values()]
        return all(life is not None and not life.hints.pending for life in lives)

    def _is_whole(self, node: NodeNumber) -> bool:
        """Whether nothing is left of the damage that the disk could show later."""
        disk = self._world.hosts[node].disk
        if disk.damaged_keys or disk.has_flipped_log:
            return False
        found = {spot: disk.multi_get(spot[0], [spot[1]])[0] for spot in self._garbled}
        return all(found[spot] != value for spot, value in self._garbled.items())

    def _is_equal(self, partition: Partition) -> bool:
        row = self._world.topology.owner_numbers[partition]
        lives = [self._world.hosts[number].life for number in row]
        is_proven = all(life and life.replica.proving.is_proven(partition) for life in lives)
        return is_proven and self._world.is_equal(partition)
