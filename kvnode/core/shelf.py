"""What a turn changes of this node's records, and what goes along with each change.

What a turn changes is seen by the rest of it and collected in its one batch, together with what
must agree with the records: the index of open conflicts, that of graves (what may be reaped one
day), the hash trees and the floors. What is written but not yet synced is *dirty*.

    Family.GRAVES   storage key -> u64 ms since 1970 from which all of it is absence; 0: now

Laws: records, indexes, trees and floors change in one batch; a record without versions is never
stored: what it knew as superseded, the floors know.
Tests: tests/unit/core/test_shelf.py, tests/unit/core/test_replica.py.
"""

from __future__ import annotations

import struct
from collections.abc import Container, Iterable, Mapping, Set

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.conflict_log import ConflictLog
from kvnode.core.floors import Floors
from kvnode.core.held import Held
from kvnode.core.keys import Partition, StorageKey, keyspace_of
from kvnode.core.proving import Proving
from kvnode.core.record import Encoded, absent_from, encode, fits, measure
from kvnode.core.resolve import is_conflict
from kvnode.core.topology import Durability, Topology
from kvnode.core.trees import Trees
from kvnode.core.unsynced import Unsynced
from kvnode.core.versions import Dot, Record, prune

_DUE = struct.Struct("<Q")


class TooMany(Exception):
    """A record would hold more siblings or context entries than one may."""


class Shelf(Held):
    """The records of one node through one turn, with all that must agree with them."""

    # A base of the replica, as its own base is: what is here runs for every write.
    __slots__ = (
        "_before",
        "_periodic",
        "_unsynced",
        "_wall_ms",
        "batch",
        "conflicts",
        "floors",
        "proving",
        "trees",
        "turn",
    )

    def __init__(
        self,
        topology: Topology,
        floors: Floors,
        trees: Trees,
        proving: Proving,
        conflicts: ConflictLog,
    ) -> None:
        super().__init__()
        self.floors = floors
        self.trees = trees
        self.proving = proving
        self.conflicts = conflicts
        self.turn = 0
        self.batch = WriteBatch()
        self._wall_ms = 0
        self._before: dict[StorageKey, bytes | None] = {}
        """What the turn found under the keys that it has changed."""
        self._unsynced = Unsynced()
        self._periodic: frozenset[str] = frozenset()
        self.follow(topology)

    def follow(self, topology: Topology) -> None:
        """Decide under this topology from here on."""
        periodic = [k.name for k in topology.keyspaces if k.durability is Durability.PERIODIC]
        self._periodic = frozenset(periodic)
        self.proving.follow(topology)

    def begin(
        self, records: Mapping[StorageKey, bytes | None], unreadable: Set[bytes], wall_ms: int
    ) -> None:
        """Start a turn with the records that it needs, at a physical instant."""
        self.turn += 1
        self._wall_ms = wall_ms
        self.begin_records(records, unreadable)
        self.batch = WriteBatch()

    def end(self) -> WriteBatch:
        """End the turn: return all that it changed."""
        self.note_changes()
        self.save(self.batch)
        return self.batch

    def save(self, batch: WriteBatch) -> None:
        """Put what agrees with the records into their batch. Also for what was put in doubt outside
        of a turn."""
        self.floors.save(batch)
        self.trees.save(batch)
        self.proving.save(batch)

    def on_synced(self, turn: int) -> None:
        """The log is durable up to and with this turn."""
        self._unsynced.on_synced(turn)

    def is_dirty(self, key: StorageKey) -> bool:
        """Say whether what is held of the key could still be lost in a crash."""
        return key in self._unsynced

    def peek(self, key: StorageKey) -> Record:
        """Return what is held. Raises: Unreadable."""
        return self._load(key)

    def remove(self, key: StorageKey, record: Record) -> None:
        """Drop a record of which nothing but absence is left, and which all owners' floors cover.
        `record` is what is held."""
        nothing = record._replace(versions=(), votes=())
        self._store(key, nothing, was_open=is_open(record))

    def held(self, key: StorageKey) -> bytes | None:
        """Return the bytes of what is held, all checksums checked. Raises: Unreadable."""
        return self._read(key)

    def prune(self, key: StorageKey, losers: Container[Dot]) -> None:
        """Take versions that are in the conflict log out of what is held. Raises: Unreadable."""
        mine = self._load(key)
        self._store(key, prune(mine, losers), was_open=is_open(mine))

    def doubt(self, partitions: Iterable[Partition]) -> None:
        """Records of these partitions may have been lost: their answers do not count, and their
        floors are dropped, until exchanges prove them. Takes effect with the next turn's batch."""
        doubted = list(partitions)
        owned = frozenset(self.proving.owned())
        for partition in doubted:
            self.floors.drop(partition)
        self.proving.doubt(partition for partition in doubted if partition in owned)

    def note_lost(self, key: StorageKey) -> None:
        """A record was damaged: what its partition has seen may be lost, and is no more known."""
        self.floors.drop(self.trees.partition_of(key))

    def replace_damaged(self, key: StorageKey, state: Record) -> None:
        """Put what other owners hold in the place of a damaged record; whatever is sound stays.

        Raises: TooMany, as every write.
        """
        if not self.is_damaged(key):
            return
        self.note_lost(key)
        # What the trees took in for it cannot be told any more.
        self.trees.doubt(self.trees.partition_of(key))
        self._before.setdefault(key, None)
        self.batch.delete(Family.GRAVES, key)
        self.batch.delete(Family.CONFLICTS, key)
        # Whether it was open nobody can tell: settling counts open conflicts anew now and then.
        self._store(key, state, was_open=is_open(state))

    def _store(self, key: StorageKey, record: Record, *, was_open: bool) -> Encoded:
        """Store a record in place of one that was an open conflict (`is_open`), or was none;
        returns its bytes, also of one without versions, which is removed. Raises: TooMany."""
        if not fits(record):
            raise TooMany(measure(record))
        encoded = encode(key, record)
        self._keep(key, encoded if record.versions else None)
        is_now = is_open(record)
        if is_now:
            self.batch.put(Family.CONFLICTS, key, b"")
        elif was_open:
            self.batch.delete(Family.CONFLICTS, key)
        self.conflicts.note_open(is_now - was_open)
        return encoded

    def _keep(self, key: StorageKey, encoded: Encoded | None) -> None:
        """Store the bytes of a record; None: remove it."""
        if key not in self._before:
            self._before[key] = self._records[key]
        self._records[key] = encoded
        if encoded is None:
            self.batch.delete(Family.RECORDS, key)
        else:
            self.batch.put(Family.RECORDS, key, encoded)
        if not self._periodic or keyspace_of(key) not in self._periodic:
            self._unsynced.add(key, self.turn)

    def note_changes(self) -> None:
        """Have trees and graves agree with the records that this turn has changed so far.

        Floors agree at once. Whoever compares both with a peer calls this first: floors that speak
        of a write which the trees do not show would pass it for superseded.
        """
        if not self._before:
            return
        records, note = self._records, self.trees.note
        for key, old in self._before.items():
            new = records[key]
            note(key, old, new)
            is_grave = new is not None and note_grave(key, new, self.batch)
            if not is_grave and old and absent_from(old) is not None:
                self.batch.delete(Family.GRAVES, key)
        self._before = {}


def is_open(record: Record) -> bool:
    """Say whether a record belongs into the index of open conflicts. Versions that expire count
    there for what they were: whether they have is judged by who looks, not by who wrote last."""
    return is_conflict(record, 0)


def note_grave(key: StorageKey, data: bytes, batch: WriteBatch) -> bool:
    """Put a record that is, or will be, nothing but absence among the graves; says if it is one.
    Damaged bytes are none."""
    try:
        due = absent_from(data)
    except (struct.error, IndexError):
        return False
    if due is not None:
        batch.put(Family.GRAVES, key, _DUE.pack(due))
    return due is not None


def due_of(value: bytes) -> int:
    """Return from when on a grave's record is absence, ms since 1970; 0: since ever."""
    due: int = _DUE.unpack(value)[0]
    return due
