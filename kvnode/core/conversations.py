"""What two owners say to one another to compare a partition: asks, and what is told in answer.

The asker keeps all state; who is asked answers from what it holds. Partitions are of the epoch that
the frame names. Hashes and roots are of the view that both see (kvnode.core.exchange.Shared).
Test: tests/unit/core/test_exchange.py. Left out: columns of the wire (kvnode.runtime).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from kvnode.core.keys import Partition, StorageKey


class Verdict(IntEnum):
    """What comparing one partition's summaries showed. Numbers of the wire."""

    SAME = 0
    """Equal floors, equal roots: nothing differs."""
    FLOORS = 1
    """Equal roots: the records are the same, what was seen is not."""
    DIFFER = 2
    NOT_NOW = 3
    """Not comparable: not an owner (any more), or the trees are being rebuilt."""


class RootLine(NamedTuple):
    """A partition, summed up."""

    partition: Partition
    root: int
    digest: int
    """Of the asker's floors."""
    is_proven: bool


class AskRoots(NamedTuple):
    """Compare these partitions with yours."""

    id: int
    lines: tuple[RootLine, ...]


class RootAnswer(NamedTuple):
    """What comparing a partition showed."""

    partition: Partition
    verdict: Verdict
    is_proven: bool
    report: bytes
    """The answerer's floors, where they differ (FLOORS, DIFFER)."""


class TellRoots(NamedTuple):
    """The answer to AskRoots: one for each line, in order."""

    id: int
    answers: tuple[RootAnswer, ...]


class AskHashes(NamedTuple):
    """Tell the 32 groups of a partition (`groups` is empty), or the leaves of these groups."""

    id: int
    partition: Partition
    groups: tuple[int, ...]


class TellHashes(NamedTuple):
    """Groups, or leaves of the groups asked for, in order."""

    id: int
    is_known: bool
    hashes: tuple[int, ...]


class AskKeys(NamedTuple):
    """List keys and fingerprints from `start` up to but not `end` (empty: the partition's)."""

    id: int
    partition: Partition
    start: bytes
    end: bytes
    limit: int


class TellKeys(NamedTuple):
    """A listing, in order."""

    id: int
    is_known: bool
    keys: tuple[StorageKey, ...]
    hashes: tuple[int, ...]
    is_last: bool
    """Nothing follows in the range."""
    covered: bytes
    """If something follows: the last key that was looked at."""


class TakeOver(NamedTuple):
    """An exchange that this side asked for is complete: what it had seen when that began. There is
    no answer."""

    id: int
    partition: Partition
    report: bytes
    is_proven: bool


Ask = AskRoots | AskHashes | AskKeys | TakeOver
Tell = TellRoots | TellHashes | TellKeys
ASKS = (AskRoots, AskHashes, AskKeys, TakeOver)
TELLS = (TellRoots, TellHashes, TellKeys)


@dataclass(slots=True)
class PeerAsks:
    """An event: a peer compares its records with ours."""

    sender: int
    asks: Sequence[Ask]


@dataclass(slots=True)
class PeerTells:
    """An event: answers to what we asked."""

    sender: int
    tells: Sequence[Tell]
