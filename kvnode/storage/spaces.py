"""Ordered spaces of keys in memory, one for each family: what engines without a real disk stand on.

What it decides: what a read, a scan and a batch of changes mean. What is durable, and what becomes
of the rest, is the engine's (kvnode.storage.memory, and the simulator's disk).

Laws: a key that cannot be read is a failure, never an absence, until it is written again; changes
are taken back to exactly what was there. Tests: tests/unit/storage/test_spaces.py.
Cost: O(log n) a change, O(log n + pairs) a scan.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from sortedcontainers import SortedDict

from kvnode.core.batch import Change, Family
from kvnode.storage.port import Found, ReadFailure, StorageDamaged

Space: TypeAlias = "SortedDict[bytes, bytes]"


class Spaces:
    """What is stored, and which of it cannot be read."""

    __slots__ = ("families", "unreadable")

    def __init__(self, families: Iterable[Space] = ()) -> None:
        """Hold nothing, or these families: one for each `Family`, in order."""
        self.families: list[Space] = list(families) or [SortedDict() for _ in Family]
        self.unreadable: dict[tuple[Family, bytes], str] = {}
        """Why a key fails to read, alone and in scans, until it is written again."""

    def multi_get(self, family: Family, keys: Sequence[bytes]) -> list[Found]:
        """Return what is stored under each key; see the port."""
        get, bad = self.families[family].get, self.unreadable
        if not bad:
            return [get(key) for key in keys]
        return [ReadFailure(bad[family, key]) if (family, key) in bad else get(key) for key in keys]

    def scan(
        self, family: Family, start: bytes, end: bytes | None, limit: int
    ) -> tuple[list[tuple[bytes, bytes]], StorageDamaged | None]:
        """Return the pairs up to the first that cannot be read, and why it cannot."""
        assert limit > 0
        values, bad = self.families[family], self.unreadable
        pairs: list[tuple[bytes, bytes]] = []
        for key in values.irange(start, end, inclusive=(True, False)):
            if len(pairs) == limit:
                break
            if bad and (family, key) in bad:
                return pairs, StorageDamaged(bad[family, key])
            pairs.append((key, values[key]))
        return pairs, None

    def apply(self, changes: Iterable[Change]) -> list[Change]:
        """Carry out `changes`; return what `take_back` needs to undo them."""
        before: list[Change] = []
        for family, key, value in changes:
            values = self.families[family]
            before.append((family, key, values.get(key)))
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value
            if self.unreadable:
                self.unreadable.pop((family, key), None)
        return before

    def take_back(self, before: Sequence[Change]) -> None:
        """Undo what `apply` did, newest first."""
        for family, key, value in reversed(before):
            if value is None:
                self.families[family].pop(key, None)
            else:
                self.families[family][key] = value

    def count(self) -> int:
        """Return how many records there are."""
        return len(self.families[Family.RECORDS])

    def size_bytes(self) -> int:
        """Return how many bytes the keys and values have. Cost: O(n)."""
        return sum(len(k) + len(v) for values in self.families for k, v in values.items())
