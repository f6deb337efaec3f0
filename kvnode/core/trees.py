"""Hash trees: what a partition holds, in so few bytes that two owners can compare it.

Records are split by partition and by the n of their keyspace, since records with another n have
other owners; each such part has a tree of its own: 1,024 leaves, by the bits of the token behind
the partition's. A leaf is the XOR of the fingerprints of its records, 0 if it has none; a group is
the XOR of 32 leaves, the root that of all. So a change costs two hashes and no walk. Two owners
compare a *view*: the trees of a partition with an n that makes both of them owners, XORed.

A fingerprint is over the key and the record's core: dots, context, tombstones, expiry, checksums.
Votes are not in it: they are facts that owners need not share.

On disk (Family.TREES). A turn puts one entry, whatever it changed; entries are a ring:
    'd' | u32 place in the ring   u8 format | u64 number | changes: (u32 partition, u16 n, u16 leaf,
                                    u64 xor) each
    's' | u32 partition | u16 n   u8 format | u64 number | leaves, all or those that are not 0
    'v'                           u8 format: the trees speak of all records in this store
    'x' | u32 partition           its trees are not known and must be rebuilt from its records
A snapshot holds every change up to its number. Before the ring would overwrite an entry that a
tree still needs, that tree's snapshot is renewed, a few trees a turn.

Laws: a tree is what a scan of its records would give, in any history; one put a turn; a restart
gives the same trees; what is kept on disk and read at start is bounded (TREE_RING entries of
TREE_STEP changes on average at most).
Tests: tests/unit/core/test_trees.py, tests/property/test_tree_laws.py.
Source: Dynamo (SOSP 2007), section 4.7; the XOR in place of a hash of hashes: Riak's and DottedDB's
trees must walk up after each change, this one adds.
Left out: rebuilding (kvnode.core.regrowth), whom to compare with (kvnode.core.exchange).
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Protocol

import mmh3

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.bounds import TREE_RING, TREE_STEP
from kvnode.core.keys import Partition, StorageKey, keyspace_of
from kvnode.core.record import core_of
from kvnode.core.topology import Topology

FORMAT = 1
LEAF_BITS = 10
LEAVES = 1 << LEAF_BITS
GROUPS = 32
GROUP_LEAVES = LEAVES // GROUPS
_ALL = range(LEAVES)

_SEED = 0x74726565  # "tree"
_MASK = (1 << 64) - 1
_N_BITS = 16
_N_MAX = (1 << _N_BITS) - 1
_SPARSE_BELOW = LEAVES // 2
_RENEWALS_A_TURN = 2
_TOKEN = struct.Struct(">Q").unpack_from
_ENTRY = struct.Struct("<IHHQ")
_HEAD = struct.Struct("<BQ")
_SPARSE = struct.Struct("<HQ")
_DENSE = struct.Struct(f"<{LEAVES}Q")
_SLOT = struct.Struct(">cI")
_SNAPSHOT = struct.Struct(">cIH")
_VERSION = b"v"
_DAMAGED = b"\x00\xff" + bytes(4 + 64 * 255)


class Observer(Protocol):
    """Told of changes to records of partitions whose trees are not known (a rebuild)."""

    def on_change(self, key: StorageKey, before: int, after: int) -> None:
        """The record of `key` had one fingerprint and has another; 0: absent."""

    def on_doubt(self, partition: Partition) -> None:
        """What was seen of a partition may be wrong."""


def fingerprint(key: StorageKey, data: bytes) -> int:
    """Return 64 bits that stand for this state of this key, votes aside; `data` must be sound."""
    # The fastest of mmh3's calls that give the same bits.
    digest: int = mmh3.mmh3_x64_128_uintdigest(core_of(data) + key, _SEED)
    return digest & _MASK


def fingerprint_of_any(key: StorageKey, data: bytes) -> int:
    """Return the fingerprint also of bytes that may be damaged: no sound record has the like."""
    try:
        return fingerprint(key, data)
    except (struct.error, IndexError):
        return fingerprint(key, _DAMAGED)


def trees_of(topology: Topology) -> Trees:
    """Return empty trees for the partitions and keyspaces of a topology."""
    return Trees(topology.partition_bits, {k.name: k.n for k in topology.keyspaces})


class Trees:
    """The trees of one node, in memory; changes are collected until `save` puts them in a batch."""

    __slots__ = (
        "_changes", "_due", "_is_new", "_leaves", "_n_of", "_ns", "_number", "_only_n",
        "_roots", "_shift", "_unknown", "_unwritten", "observer",
    )  # fmt: skip

    def __init__(self, partition_bits: int, n_of: Mapping[str, int]) -> None:
        """Start empty.

        Args:
            partition_bits: how many top bits of a token name its partition.
            n_of: the n of each keyspace.
        """
        self._shift = 64 - partition_bits - LEAF_BITS
        self._n_of = n_of
        self._ns = tuple(sorted(set(n_of.values())))
        self._only_n = self._ns[0] if len(self._ns) == 1 else 0
        self._leaves: dict[int, array[int]] = {}
        """By partition << 16 | n."""
        self._roots: dict[int, int] = {}
        self._number = 0
        """Of the newest entry of the ring."""
        self._changes: list[bytes] = []
        self._due: dict[int, int] = {}
        """tree -> number of the oldest entry that its snapshot lacks; in order of these."""
        self._unknown: dict[Partition, None] = {}
        self._unwritten: list[tuple[bytes, bytes | None]] = []
        """Marks for the next batch: (key, value or None)."""
        self._is_new = True
        """The store does not say yet that there are trees."""
        self.observer: Observer | None = None

    # ---- changes ---------------------------------------------------------------------------

    def note(self, key: StorageKey, old: bytes | None, new: bytes | None) -> None:
        """A record became another one; none or b"" is an absent one. Costs at most two hashes."""
        before = fingerprint(key, old) if old else 0
        after = fingerprint(key, new) if new else 0
        if before == after:
            return  # only votes differ
        place = _TOKEN(key)[0] >> self._shift
        partition, leaf, xor = place >> LEAF_BITS, place & (LEAVES - 1), before ^ after
        if self._unknown and partition in self._unknown:
            if self.observer is not None:
                self.observer.on_change(key, before, after)
            return
        n = self._only_n or self.n_of(key)
        self._add(partition << _N_BITS | n, leaf, xor, self._number + 1)
        self._changes.append(_ENTRY.pack(partition, n, leaf, xor))

    def save(self, batch: WriteBatch) -> None:
        """Put what changed since the last call into the batch of the records it speaks of."""
        if self._unwritten:
            self._write_marks(batch)
        if not self._changes:
            return
        if self._is_new:
            self._is_new = False
            batch.put(Family.TREES, _VERSION, bytes((FORMAT,)))
        first = self._number + 1
        # A turn with many changes takes more room in the ring, so that its bytes are bounded.
        self._number += 1 + min(len(self._changes) // TREE_STEP, TREE_RING // 8)
        for skipped in range(first, self._number):
            batch.delete(Family.TREES, _slot(skipped))
        head = _HEAD.pack(FORMAT, self._number)
        batch.put(Family.TREES, _slot(self._number), head + b"".join(self._changes))
        self._changes = []
        self._renew(batch)

    def _renew(self, batch: WriteBatch) -> None:
        """Renew snapshots: a few from half the ring on, all that the next turns could outrun."""
        ripe, late = self._number - TREE_RING // 2, self._number - TREE_RING * 3 // 4
        renewed = 0
        while self._due:
            tree, oldest = next(iter(self._due.items()))
            if oldest > ripe or (oldest > late and renewed == _RENEWALS_A_TURN):
                return
            self._snapshot(tree, batch)
            renewed += 1

    def _snapshot(self, tree: int, batch: WriteBatch) -> None:
        self._due.pop(tree, None)
        head = _HEAD.pack(FORMAT, self._number)
        batch.put(
            Family.TREES,
            _SNAPSHOT.pack(b"s", tree >> _N_BITS, tree & _N_MAX),
            head + _pack(self._leaves[tree]),
        )

    def _add(self, tree: int, leaf: int, xor: int, number: int) -> None:
        leaves = self._leaves.get(tree)
        if leaves is None:
            leaves = self._leaves[tree] = array("Q", bytes(8 * LEAVES))
            self._roots[tree] = 0
        leaves[leaf] ^= xor
        self._roots[tree] ^= xor
        if tree not in self._due:
            self._due[tree] = number

    # ---- start and doubt -------------------------------------------------------------------

    def load(self, entries: Iterable[tuple[bytes, bytes]]) -> bool:
        """Take what earlier lives saved, before any change. Returns whether these trees speak of
        all records; if not, `doubt` every partition that may have any."""
        ring: list[tuple[int, bytes]] = []
        taken: dict[int, int] = {}
        is_complete = False
        for key, value in entries:
            if key == _VERSION:
                is_complete = value[0] == FORMAT
                self._is_new = False
                continue
            kind = key[:1]
            if kind == b"x":
                self._unknown[Partition(int.from_bytes(key[1:], "big"))] = None
                continue
            _, number = _HEAD.unpack_from(value)
            self._number = max(self._number, number)
            if kind == b"d":
                ring.append((number, value[_HEAD.size :]))
            else:
                self._load_snapshot(key, value, taken, number)
        for number, changes in sorted(ring):
            for partition, n, leaf, xor in _ENTRY.iter_unpack(changes):
                tree = partition << _N_BITS | n
                if number > taken.get(tree, 0) and partition not in self._unknown:
                    self._add(tree, leaf, xor, number)
        return is_complete

    def _load_snapshot(self, key: bytes, value: bytes, taken: dict[int, int], number: int) -> None:
        _, partition, n = _SNAPSHOT.unpack(key)
        tree = partition << _N_BITS | n
        taken[tree] = number
        leaves = self._leaves[tree] = _unpack(value[_HEAD.size :])
        self._roots[tree] = _xor(leaves)

    def doubt(self, partition: Partition) -> None:
        """This partition's records may be other than its trees say: know nothing of it."""
        self._unknown[partition] = None
        self._unwritten.append((_mark(partition), b""))
        if self.observer is not None:
            self.observer.on_doubt(partition)
        for tree in self._of(partition):
            del self._leaves[tree], self._roots[tree]
            self._due.pop(tree, None)

    def know(
        self, partition: Partition, leaves: Mapping[int, Sequence[int]], batch: WriteBatch
    ) -> None:
        """The trees of a partition were rebuilt: {n: its 1,024 leaves}. Written at once."""
        self._unknown.pop(partition, None)
        self._unwritten = [mark for mark in self._unwritten if mark[0] != _mark(partition)]
        self._unwritten.append((_mark(partition), None))
        for n in self._ns:
            tree = partition << _N_BITS | n
            kept = self._leaves[tree] = array("Q", leaves.get(n, bytes(8 * LEAVES)))
            self._roots[tree] = _xor(kept)
            self._snapshot(tree, batch)
        self._write_marks(batch)

    def n_of(self, key: StorageKey) -> int:
        """Return the n of the key's keyspace."""
        if self._only_n:
            return self._only_n
        return self._n_of.get(keyspace_of(key), self._ns[-1])

    @property
    def unknown(self) -> tuple[Partition, ...]:
        """The partitions that must be rebuilt."""
        return tuple(self._unknown)

    @property
    def is_incomplete(self) -> bool:
        """Whether any partition must be rebuilt."""
        return bool(self._unknown)

    # ---- views -----------------------------------------------------------------------------

    def is_known(self, partition: Partition) -> bool:
        """Say whether the partition's trees can be compared."""
        return partition not in self._unknown

    def root(self, partition: Partition, least_n: int) -> int:
        """Return the root of the view of the trees with an n of at least `least_n`."""
        root = 0
        for n in self._ns:
            if n >= least_n:
                root ^= self._roots.get(partition << _N_BITS | n, 0)
        return root

    def groups(self, partition: Partition, least_n: int) -> list[int]:
        """Return the 32 groups of a view. Cost: a walk over its leaves, some 50 microseconds."""
        leaves = self.leaves(partition, least_n, 0, LEAVES)
        return [_xor(leaves[at : at + GROUP_LEAVES]) for at in range(0, LEAVES, GROUP_LEAVES)]

    def leaves(self, partition: Partition, least_n: int, first: int, count: int) -> list[int]:
        """Return leaves `first` to `first + count - 1` of a view."""
        shown = [0] * count
        for n in self._ns:
            held = self._leaves.get(partition << _N_BITS | n) if n >= least_n else None
            if held is not None:
                shown = [a ^ b for a, b in zip(shown, held[first : first + count], strict=True)]
        return shown

    def leaf_bounds(
        self, partition: Partition, first: int, last: int
    ) -> tuple[bytes, bytes | None]:
        """Return the range [start, end) of the storage keys of leaves `first` to `last`; the very
        last one has no end."""
        start = (partition << LEAF_BITS | first) << self._shift
        end = ((partition << LEAF_BITS | last) + 1) << self._shift
        return start.to_bytes(8, "big"), end.to_bytes(8, "big") if end < 1 << 64 else None

    def partition_of(self, key: StorageKey) -> Partition:
        """Return the partition of a key."""
        return Partition(int.from_bytes(key[:8], "big") >> self._shift >> LEAF_BITS)

    def leaf_of(self, key: StorageKey) -> int:
        """Return the leaf of a key."""
        return int.from_bytes(key[:8], "big") >> self._shift & (LEAVES - 1)

    def check(self) -> None:
        """Assert that roots fit leaves and that no entry still needed can be overwritten."""
        assert self._leaves.keys() == self._roots.keys()
        for tree, leaves in self._leaves.items():
            assert _xor(leaves) == self._roots[tree]
            assert tree >> _N_BITS not in self._unknown
        oldest = list(self._due.values())
        assert oldest == sorted(oldest)
        assert not oldest or oldest[0] > self._number - TREE_RING

    def _of(self, partition: Partition) -> list[int]:
        found = (partition << _N_BITS | n for n in self._ns)
        return [tree for tree in found if tree in self._leaves]

    def _write_marks(self, batch: WriteBatch) -> None:
        for key, value in self._unwritten:
            if value is None:
                batch.delete(Family.TREES, key)
            else:
                batch.put(Family.TREES, key, value)
        self._unwritten = []


def _slot(number: int) -> bytes:
    return _SLOT.pack(b"d", number % TREE_RING)


def _mark(partition: Partition) -> bytes:
    return _SLOT.pack(b"x", partition)


def _xor(numbers: Iterable[int]) -> int:
    found = 0
    for number in numbers:
        found ^= number
    return found


def _pack(leaves: array[int]) -> bytes:
    """Return all leaves, or those that are not 0 if they are few (the length tells which)."""
    if LEAVES - leaves.count(0) < _SPARSE_BELOW:
        return b"".join([_SPARSE.pack(at, leaves[at]) for at in compress(_ALL, leaves)])
    return _DENSE.pack(*leaves)


def _unpack(data: bytes) -> array[int]:
    if len(data) == _DENSE.size:
        return array("Q", _DENSE.unpack(data))
    leaves = array("Q", bytes(8 * LEAVES))
    for at, leaf in _SPARSE.iter_unpack(data):
        leaves[at] = leaf
    return leaves
