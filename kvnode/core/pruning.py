"""The owner's part in settling: tells its state, logs losers, prunes them.

    AskState -> TellState      LogLosers -> TellLogged      Prune -> TellPruned

Laws: losers are logged or pruned only if the record is, votes included, the one that this life told
of, in this epoch, and is proven; what is told is durable; nothing is kept for who asks; a prune
leaves at least one version, and the context as it is.
Tests: tests/unit/core/test_pruning.py; as whole clusters: tests/sim/test_settling.py.
Source: design, section 2.5. Left out: who asks what when, and why that is safe
(kvnode.core.settling).
"""

from __future__ import annotations

from typing import assert_never

import mmh3

from kvnode.core.bounds import Limits
from kvnode.core.conflict_log import entry_of
from kvnode.core.conversations import (
    AskState,
    Fence,
    LogLosers,
    Prune,
    SettleAsk,
    TellLogged,
    TellPruned,
    TellState,
)
from kvnode.core.keys import StorageKey, keyspace_of, partition_of_key
from kvnode.core.messages import NodeNumber, Outbox
from kvnode.core.record import decode
from kvnode.core.replica import Replica, Unreadable
from kvnode.core.versions import Dot, Record, find

_SEED = 0x736C6F67  # "slog"


def digest(record: bytes) -> bytes:
    """Return the hash of an encoded record, votes included; 16 bytes."""
    return mmh3.mmh3_x64_128_digest(record, _SEED)


class Pruner:
    """What one node does for whoever settles conflicts of its keys."""

    __slots__ = ("_limits", "_replica")

    def __init__(self, replica: Replica, limits: Limits) -> None:
        self._replica = replica
        self._limits = limits

    def on_ask(self, sender: NodeNumber, ask: SettleAsk, wall_ms: int, out: Outbox) -> None:
        """Answer. Who asks acts on it, so it leaves only once all that it speaks of is durable."""
        match ask:
            case AskState():
                out.send(sender, self._state(ask), durable=True)
            case LogLosers():
                out.send(sender, TellLogged(ask.id, self._log(ask, wall_ms)), durable=True)
            case Prune():
                out.send(sender, TellPruned(ask.id, self._prune(ask)), durable=True)
            case _:
                assert_never(ask)

    def _state(self, ask: AskState) -> TellState:
        actor = self._replica.actor
        held = self._held(ask.key, ask.epoch)
        if held is None:
            return TellState(ask.id, is_known=False, actor=actor, is_same=False, record=b"")
        is_same = ask.digest == digest(held)
        record = b"" if is_same else held
        return TellState(ask.id, is_known=True, actor=actor, is_same=is_same, record=record)

    def _log(self, ask: LogLosers, wall_ms: int) -> bool:
        record = self._fenced(ask.key, ask.fence, ask.losers)
        if record is None or find(record, ask.winner) is None or ask.winner in ask.losers:
            return False
        if self._replica.refuses is not None or not self._is_plausible(ask.time_ms, wall_ms):
            return False
        entries = [
            entry_of(
                record, ask.key, time_ms=ask.time_ms, winner=ask.winner, loser=loser, rule=ask.rule
            )
            for loser in ask.losers
        ]
        return self._replica.conflicts.add(self._replica.batch, entries)

    def _prune(self, ask: Prune) -> bool:
        record = self._fenced(ask.key, ask.fence, ask.losers)
        if record is None or len(ask.losers) >= len(record.versions):
            return False
        self._replica.prune(ask.key, ask.losers)
        return True

    def _fenced(self, key: StorageKey, fence: Fence, losers: tuple[Dot, ...]) -> Record | None:
        """Return the record if it is still what was told of, and holds all these versions."""
        if fence.actor != self._replica.actor:
            return None
        held = self._held(key, fence.epoch)
        if not held or digest(held) != fence.digest:
            return None
        record = decode(key, held)
        are_held = losers and all(find(record, dot) is not None for dot in losers)
        return record if are_held and len({*losers}) == len(losers) else None

    def _held(self, key: StorageKey, epoch: int) -> bytes | None:
        """Return what is held, empty for nothing; None if that must not be relied on."""
        replica, topology = self._replica, self._replica.topology
        partition = partition_of_key(key, topology.partition_bits)
        keyspace = topology.keyspace(keyspace_of(key))
        if epoch != topology.epoch or keyspace is None:
            return None
        is_owner = replica.number in topology.owner_numbers[partition][: keyspace.n]
        if not is_owner or not replica.proving.is_proven(partition):
            return None
        try:
            return replica.held(key) or b""
        except Unreadable:
            return None

    def _is_plausible(self, time_ms: int, wall_ms: int) -> bool:
        """Entries from the future would never be purged, too old ones at once."""
        oldest_ms = wall_ms - self._limits.conflict_log_ms // 2
        return oldest_ms <= time_ms <= wall_ms + self._limits.max_skew_ms
