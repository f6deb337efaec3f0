"""Upkeep: the roof over what a node does in the background to be equal to the other owners.

It owns the sweeps and exchanges that this node asks for, its answers to others', the mending, the
rebuilding of trees, the reaping and the settling; gives each its time in a turn, and hands each the
answers that are its own, by the top four bits of their ids.

Laws: nothing here is waited for by a client; a turn in which nothing is due costs a few
comparisons; floors and trees are only ever compared as of one instant.
Tests: tests/unit/core/test_upkeep.py; as whole clusters: tests/sim/test_anti_entropy.py.
Left out: hints (kvnode.core.handoff).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kvnode.core.answering import ANSWER_ID, Answers, Heard, Holdings
from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.conversations import (
    SETTLE_ASKS,
    Ask,
    AskState,
    LogLosers,
    PeerAsks,
    Prune,
    SettleAsk,
    SettleTell,
    Tell,
    TellLogged,
    TellPruned,
    TellState,
)
from kvnode.core.exchange import PAGE, Shared
from kvnode.core.keys import Partition, StorageKey
from kvnode.core.mending import Mender
from kvnode.core.messages import (
    Instant,
    NodeNumber,
    Outbox,
    ReplicaReadReply,
    ReplicaWriteReply,
    Scan,
    Scanned,
)
from kvnode.core.pruning import Pruner
from kvnode.core.reaping import REAP_ID, Reaping
from kvnode.core.regrowth import Regrowth
from kvnode.core.replica import Replica
from kvnode.core.runs import RUN_ID
from kvnode.core.settling import SETTLE_ID, Settling
from kvnode.core.sweeps import Sweeps
from kvnode.core.wheel import earliest

REGROW_ID = 0b1011 << 60
"""The top four bits of the ids of scans that rebuild trees."""
_KIND = 0b1111 << 60
_REGROW_GAP_US = 5_000
_REGROW_RETRY_US = 60_000_000
"""After a range that cannot be read."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How this node stands, for those who wait until all are equal."""

    unproven: tuple[Partition, ...]
    unknown: tuple[Partition, ...]
    """Partitions whose trees are being rebuilt."""
    under_way: int
    """Exchanges and keys that are being mended, here or for others."""
    roots: dict[tuple[NodeNumber, Partition], int] = field(default_factory=dict)
    """For each other owner and partition: the root of what both own."""


class Upkeep:
    """The background work of one node."""

    __slots__ = (
        "_regrows_at",
        "_regrowth",
        "_replica",
        "_scans",
        "answers",
        "holdings",
        "mender",
        "pruner",
        "reaping",
        "settling",
        "sweeps",
    )  # fmt: skip

    def __init__(
        self, replica: Replica, limits: Limits, is_healthy: Callable[[NodeNumber], bool]
    ) -> None:
        self._replica = replica
        self.holdings = Holdings(
            replica.number,
            replica.last_own,
            replica.trees,
            replica.floors,
            replica.proving,
            lambda: replica.topology,
        )
        self.mender = Mender(
            replica.number, window=limits.exchange_window, per_s=limits.exchange_keys_per_s
        )
        self.reaping = Reaping(replica, self.holdings, limits)
        self.answers = Answers(self.holdings, self._on_heard)
        self.sweeps = Sweeps(self.holdings, self.mender, limits, self._on_heard)
        self.pruner = Pruner(replica, limits)
        self.settling = Settling(replica, limits, is_healthy)
        self._regrowth: Regrowth | None = None
        self._regrows_at = Instant(0)
        self._scans = 0

    # ---- what happens --------------------------------------------------------------------

    def on_up(self, node: NodeNumber, now: Instant) -> None:
        """A node can be reached."""
        self.sweeps.on_up(node, now)

    def on_down(self, node: NodeNumber, now: Instant, out: Outbox) -> None:
        """A node cannot be reached."""
        self.sweeps.on_down(node)
        self.mender.on_down(node, now, out)
        self.settling.on_down(node)

    def follow(self, now: Instant) -> None:
        """Another topology is in force."""
        self.sweeps.follow(now)
        self.reaping.follow()
        self.settling.follow()

    def asked_for(self, event: PeerAsks) -> list[StorageKey]:
        """Return the records that the turn which answers must see."""
        return [ask.key for ask in event.asks if isinstance(ask, SETTLE_ASKS)]

    def on_asks(
        self, sender: NodeNumber, asks: Sequence[Ask | SettleAsk], wall_ms: int, out: Outbox
    ) -> None:
        """A peer compares its records with ours, or settles conflicts."""
        for ask in asks:
            if isinstance(ask, AskState | LogLosers | Prune):
                self.pruner.on_ask(sender, ask, wall_ms, out)
            else:
                self._replica.note_changes()
                self.answers.on_ask(sender, ask, out)

    def on_tells(
        self,
        sender: NodeNumber,
        tells: Sequence[Tell | SettleTell],
        now: Instant,
        wall_ms: int,
        out: Outbox,
    ) -> None:
        """A peer answers what we asked."""
        self._replica.note_changes()
        for tell in tells:
            if isinstance(tell, TellState | TellLogged | TellPruned):
                self.settling.on_tell(sender, tell, now, wall_ms, out)
            else:
                self.sweeps.on_tell(sender, tell, now, out)

    def on_read_reply(
        self, sender: NodeNumber, reply: ReplicaReadReply, now: Instant, out: Outbox
    ) -> None:
        """An owner says what it holds of a key that is being mended."""
        self.mender.on_read_reply(sender, reply, now, out)

    def on_write_reply(
        self, sender: NodeNumber, reply: ReplicaWriteReply, now: Instant, out: Outbox
    ) -> None:
        """An owner has merged what it was sent."""
        if reply.id & _KIND == SETTLE_ID:
            self.settling.on_write_reply(sender, reply, now, out)
        else:
            self.mender.on_write_reply(sender, reply, now, out)

    def wanted(self, event: Scanned) -> Sequence[StorageKey]:
        """Return the records that the turn which takes a slice must see."""
        return self.reaping.wanted(event.pairs) if event.id & _KIND == REAP_ID else ()

    def on_scanned(self, event: Scanned, now: Instant, out: Outbox) -> None:
        """A slice of the local store was read."""
        self._replica.note_changes()
        match event.id & _KIND:
            case kind if kind == ANSWER_ID:
                self.answers.on_scanned(event.id, event.pairs, out)
            case kind if kind == RUN_ID:
                self.sweeps.on_scanned(event.id, event.pairs, now, out)
            case kind if kind == SETTLE_ID:
                self.settling.on_scanned(event.id, event.pairs, now)
            case kind if kind == REAP_ID:
                self.reaping.on_scanned(event.pairs, now)
            case _:
                assert event.id & _KIND == REGROW_ID
                self._on_regrown(event, now)

    def on_time(
        self,
        now: Instant,
        wall_ms: int,
        out: Outbox,
        *,
        is_busy: bool = False,
        is_clock_off: bool = False,
    ) -> None:
        """Do what is due, at the end of a turn."""
        self._replica.note_changes()
        self.sweeps.on_time(now, out, is_busy=is_busy)
        self.mender.on_time(now, out)
        self.reaping.on_time(now, wall_ms, out)
        self.settling.on_time(now, wall_ms, out, is_busy=is_busy, is_allowed=not is_clock_off)
        if self._replica.trees.is_incomplete and now >= self._regrows_at:
            self._regrow(out)

    def next_wake(self, now: Instant) -> Instant | None:
        """Return when there is something to do without an event."""
        must_regrow = self._replica.trees.is_incomplete and not self._is_regrowing
        return earliest(
            self.sweeps.next_wake(),
            self.mender.next_wake(now),
            self.reaping.next_wake(),
            self.settling.next_wake(),
            self._regrows_at if must_regrow else None,
        )

    # ---- for people ----------------------------------------------------------------------

    def standing(self) -> Standing:
        """Return how this node stands. Costs O(partitions)."""
        replica = self._replica
        roots = {}
        for partition in replica.proving.owned():
            for node in replica.topology.owner_numbers[partition]:
                view = self.holdings.shared(node, partition)
                if view is not None:
                    roots[node, partition] = replica.trees.root(partition, view.least_n)
        return Standing(
            replica.proving.unproven,
            replica.trees.unknown,
            self.sweeps.runs.under_way + self.mender.under_way + self.answers.under_way,
            roots,
        )

    # ---- within --------------------------------------------------------------------------

    def _on_heard(self, peer: NodeNumber, view: Shared, heard: Heard) -> None:
        self.reaping.on_heard(peer, view, heard)

    @property
    def _is_regrowing(self) -> bool:
        return self._regrowth is not None and self._regrowth.is_waiting

    def _regrow(self, out: Outbox) -> None:
        if self._is_regrowing:
            return
        if self._regrowth is None:
            self._regrowth = Regrowth(self._replica.trees, self._replica.trees.unknown[0])
        start, end = self._regrowth.ask()
        self._scans += 1
        out.scans.append(Scan(REGROW_ID | self._scans, Family.RECORDS, start, end, PAGE))

    def _on_regrown(self, event: Scanned, now: Instant) -> None:
        regrowth = self._regrowth
        if regrowth is None:
            return
        if event.pairs is None:
            # Anew, later: once the store has been rebuilt or the scrub has mended it.
            regrowth.give_up()
            self._regrowth = None
            self._regrows_at = Instant(now + _REGROW_RETRY_US)
            return
        is_last = len(event.pairs) < PAGE
        self._regrows_at = Instant(now + _REGROW_GAP_US)
        if regrowth.on_slice(event.pairs, self._replica.batch, is_last=is_last):
            regrowth.finish(self._replica.batch)
            self._regrowth = None
