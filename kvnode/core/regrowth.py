"""Rebuilding the hash trees of one partition from its records, a slice at a time, while it serves.

Slices show the store as it was when they were read; records change meanwhile. So what changes in
the part that is not covered yet is remembered by its newest fingerprint until the slice that was
asked for arrives, and takes precedence over what the slice shows.

Laws: what is grown is what a scan at the end would give, whatever changes in between and whenever a
slice was read between its asking and its coming.
Tests: tests/unit/core/test_regrowth.py, tests/property/test_tree_laws.py.
Left out: when to do it (kvnode.core.upkeep).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from kvnode.core.batch import WriteBatch
from kvnode.core.keys import Partition, StorageKey
from kvnode.core.shelf import note_grave
from kvnode.core.trees import LEAVES, Trees, fingerprint_of_any

_BEHIND_ALL = b"\xff" * 9
"""A token of eight such bytes is followed by a keyspace's name, which is text."""


class Regrowth:
    """One partition's trees, growing. Changes come through `Trees.observer`."""

    __slots__ = (
        "_changed", "_cursor", "_end", "_is_void", "_leaves", "_start", "_trees", "is_waiting",
        "partition",
    )  # fmt: skip

    def __init__(self, trees: Trees, partition: Partition) -> None:
        assert not trees.is_known(partition)
        self.partition = partition
        self._trees = trees
        self._start, self._end = trees.leaf_bounds(partition, 0, LEAVES - 1)
        self._cursor = self._start
        self._is_void = False
        self._leaves: dict[int, array[int]] = {}
        self._changed: dict[StorageKey, int] = {}
        """What changed at or behind the cursor since the last slice was asked for. Bounded by what
        one slice's wait takes."""
        self.is_waiting = False
        """A slice was asked for."""
        trees.observer = self

    def ask(self) -> tuple[bytes, bytes | None]:
        """Return the range [start, end) of which the next slice is needed."""
        self._changed = {}
        self._is_void = False
        self.is_waiting = True
        return self._cursor, self._end

    def on_doubt(self, partition: Partition) -> None:
        """What was seen of a partition may be wrong: begin anew."""
        if partition == self.partition:
            self._is_void = True
            self._cursor = self._start
            self._leaves = {}

    def on_change(self, key: StorageKey, before: int, after: int) -> None:
        """A record changed."""
        if self._trees.partition_of(key) != self.partition:
            return
        if key < self._cursor:
            self._add(key, before ^ after)
        else:
            self._changed[key] = after

    def on_slice(
        self, pairs: Sequence[tuple[bytes, bytes]], batch: WriteBatch, *, is_last: bool
    ) -> bool:
        """Take the slice that `ask` named; `is_last`: nothing follows it in the range. Graves that
        a store which is older than their index does not know of are put into the batch.

        Returns whether all is covered.
        """
        self.is_waiting = False
        if self._is_void:
            return False
        covered = None if is_last else pairs[-1][0]
        for name, data in pairs:
            key = StorageKey(name)
            if key not in self._changed:
                self._add(key, fingerprint_of_any(key, data))
                note_grave(key, data, batch)
        for key, after in self._changed.items():
            if covered is None or key <= covered:
                self._add(key, after)
        self._changed = {}
        self._cursor = _BEHIND_ALL if covered is None else covered + b"\x00"
        return is_last

    def give_up(self) -> None:
        """A slice cannot be read: the trees stay unknown."""
        self._trees.observer = None

    def finish(self, batch: WriteBatch) -> None:
        """After the last slice: the trees are known from here on."""
        self._trees.observer = None
        self._trees.know(self.partition, self._leaves, batch)

    def _add(self, key: StorageKey, xor: int) -> None:
        n = self._trees.n_of(key)
        leaves = self._leaves.get(n)
        if leaves is None:
            leaves = self._leaves[n] = array("Q", bytes(8 * LEAVES))
        leaves[self._trees.leaf_of(key)] ^= xor
