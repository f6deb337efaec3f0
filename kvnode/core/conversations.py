"""What owners say to one another in the background: to compare a partition, and to settle a
conflict. Asks, and what is told in answer.

The asker keeps all state; who is asked answers from what it holds. Partitions are of the epoch that
the frame names. Hashes and roots are of the view that both see (kvnode.core.exchange.Shared).
Test: tests/unit/core/test_conversations.py. Left out: columns of the wire (kvnode.runtime).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, assert_never

from kvnode.core.keys import Partition, StorageKey
from kvnode.core.versions import Dot


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
    """An exchange that this side asked for is complete: what it had seen when that began."""

    id: int
    """Of the AskRoots that began it. Whoever answered that in an earlier life, or has dropped
    floors since, heeds this no more. There is no answer."""
    partition: Partition
    report: bytes
    is_proven: bool


# ---- settling -------------------------------------------------------------------------------


class Fence(NamedTuple):
    """What must still be as it was when an owner told its state, or it does nothing."""

    epoch: int
    actor: int
    """The owner's life."""
    digest: bytes
    """Of the whole record with its votes: see kvnode.core.pruning.digest."""


class AskState(NamedTuple):
    """Tell what you hold of a key, votes included."""

    id: int
    key: StorageKey
    epoch: int
    digest: bytes
    """Of what the asker holds: the same need not be sent. Empty: send it in any case."""


class TellState(NamedTuple):
    """The answer to AskState; durable."""

    id: int
    is_known: bool
    """Not: unproven, unreadable, no owner, or another epoch."""
    actor: int
    is_same: bool
    record: bytes
    """Encoded; empty: the same, or absent."""


class LogLosers(NamedTuple):
    """Keep these versions of your record in the conflict log."""

    id: int
    key: StorageKey
    fence: Fence
    time_ms: int
    """The same at all owners, ms since 1970: part of the entries' names."""
    winner: Dot
    losers: tuple[Dot, ...]
    rule: str


class TellLogged(NamedTuple):
    """The losers are in the log, durably; or nothing was done."""

    id: int
    is_done: bool


class Prune(NamedTuple):
    """Take these versions, which are in the conflict log of w owners, out of your record."""

    id: int
    key: StorageKey
    fence: Fence
    losers: tuple[Dot, ...]


class TellPruned(NamedTuple):
    """They are out; or nothing was done."""

    id: int
    is_done: bool


Ask = AskRoots | AskHashes | AskKeys | TakeOver
Tell = TellRoots | TellHashes | TellKeys
ASKS = (AskRoots, AskHashes, AskKeys, TakeOver)
TELLS = (TellRoots, TellHashes, TellKeys)
SettleAsk = AskState | LogLosers | Prune
SettleTell = TellState | TellLogged | TellPruned
SETTLE_ASKS = (AskState, LogLosers, Prune)
SETTLE_TELLS = (TellState, TellLogged, TellPruned)


def refuse(ask: Ask | SettleAsk) -> Tell | SettleTell | None:
    """Return the answer that tells nothing; None for what is not answered."""
    match ask:
        case AskRoots(number, _):
            return TellRoots(number, ())
        case AskHashes():
            return TellHashes(ask.id, is_known=False, hashes=())
        case AskKeys():
            return TellKeys(ask.id, False, (), (), is_last=False, covered=b"")
        case TakeOver():
            return None
        case AskState():
            return TellState(ask.id, is_known=False, actor=0, is_same=False, record=b"")
        case LogLosers():
            return TellLogged(ask.id, is_done=False)
        case Prune():
            return TellPruned(ask.id, is_done=False)
        case _:
            assert_never(ask)


@dataclass(slots=True)
class PeerAsks:
    """An event: a peer compares its records with ours, or settles a conflict."""

    sender: int
    asks: Sequence[Ask | SettleAsk]


@dataclass(slots=True)
class PeerTells:
    """An event: answers to what we asked."""

    sender: int
    tells: Sequence[Tell | SettleTell]
