"""The one write batch of a turn: what must reach the local store together.

Data, floors, the open-conflict index and counters of one operation are in one batch, so that a
crash keeps all of them or none. The batch is a plain list: the core fills it, an engine of
`kvnode.storage` carries it out. Order matters only for repeated writes of one key: the last wins.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

Change: TypeAlias = "tuple[Family, bytes, bytes | None]"
"""(family, key, value); a value of None deletes the key."""


class Family(IntEnum):
    """A separate ordered space of keys in the local store. The numbers are part of the format."""

    RECORDS = 0
    """Encoded records by storage key: partition order (see kvnode.core.keys)."""
    FLOORS = 1
    """What has been seen, by (partition, actor): see kvnode.core.floors."""
    META = 2
    """Small facts about this node: incarnations, peers' start numbers, stop markers."""
    CONFLICTS = 3
    """Storage keys of records whose survivors differ in value: the open conflicts."""
    HINTS = 4
    """Records that wait for an absent owner, by (owner, storage key): see kvnode.core.hints."""
    GRAVES = 5
    """Storage keys of records all of whose versions are tombstones: what may be reaped one day."""
    TREES = 6
    """What the hash trees need to survive a restart: see kvnode.core.trees."""
    CONFLICT_LOG = 7
    """Versions that lost a settled conflict, by time: see kvnode.core.settling."""


class WriteBatch:
    """Changes of one turn, in order."""

    __slots__ = ("changes",)

    def __init__(self) -> None:
        self.changes: list[Change] = []

    def put(self, family: Family, key: bytes, value: bytes) -> None:
        """Set `key` to `value`."""
        self.changes.append((family, key, value))

    def delete(self, family: Family, key: bytes) -> None:
        """Remove `key`; removing an absent key is no error."""
        self.changes.append((family, key, None))

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __len__(self) -> int:
        return len(self.changes)
