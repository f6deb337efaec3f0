"""Sweeps: when this node compares which partitions with whom.

    every exchange_interval_ms, with each peer that can be reached: AskRoots, a batch at a time
        SAME -> complete       FLOORS -> both take over       DIFFER -> an exchange, in its turn

Of two owners the one with the lower number asks. For a partition in doubt its owner asks by itself,
as soon as a peer can be reached, and again soon. Hints go first: while there are fewer and fewer
for a peer, what it lacks is on its way, and nothing is compared with it.

Laws: one batch is unanswered with a peer at a time; floors are taken over only from before the
comparison, and only if it is complete.
Tests: tests/unit/core/test_sweeps.py; tests/property/test_exchange_laws.py.
Left out: exchanges (kvnode.core.runs), answers (kvnode.core.answering).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import assert_never

from kvnode.core.answering import Heard, Holdings, OnHeard
from kvnode.core.bounds import Limits
from kvnode.core.conversations import (
    AskRoots,
    RootAnswer,
    RootLine,
    TakeOver,
    Tell,
    TellRoots,
    Verdict,
)
from kvnode.core.exchange import Tally
from kvnode.core.floors import BadReport
from kvnode.core.keys import Partition
from kvnode.core.mending import Mender
from kvnode.core.messages import Instant, NodeNumber, Outbox
from kvnode.core.progress import Progress
from kvnode.core.runs import ANSWER_US, RUN_ID, Begun, Runs
from kvnode.core.wheel import earliest

SWEEP_ID = RUN_ID
"""The top four bits of the ids of asks: those of exchanges get other answers."""
_BATCH = 32
_RETRY_US = 1_000_000
"""Between sweeps while a partition is in doubt."""
_SETTLE_US = 2_000_000
"""After a peer came back, and between two looks whether it still gets hints."""
_NEVER = Instant(0)


@dataclass(slots=True)
class _Peer:
    """One peer that can be reached."""

    next_at: Instant
    left: deque[Partition] = field(default_factory=deque)
    """Of the sweep that is under way: what is still to be asked."""
    ask: int = 0
    """The AskRoots that is unanswered; 0: none."""
    gives_up_at: Instant = _NEVER
    lines: dict[Partition, Begun] = field(default_factory=dict)
    hints: int | None = None
    """How many were kept for it at the last look; None: it was not looked."""


class Sweeps:
    """The asking side of all comparisons of one node."""

    __slots__ = (
        "_holdings", "_limits", "_next", "_now", "_on_heard", "_out", "_peers", "_wakes_at",
        "hints_for", "on_proven", "progress", "runs",
    )  # fmt: skip

    def __init__(
        self, holdings: Holdings, mender: Mender, limits: Limits, on_heard: OnHeard
    ) -> None:
        self._holdings = holdings
        self._limits = limits
        self._on_heard = on_heard
        # Two lives of a node do not ask under one id: who answered one heeds it for that one.
        self._next = (holdings.last_own(Partition(0)).actor & 0xFFFF_FFFF) << 24
        self._peers: dict[NodeNumber, _Peer] = {}
        self._now = Instant(0)
        self._out = Outbox()
        self._wakes_at: Instant | None = None
        self.on_proven: Callable[[Partition], None] = lambda _: None
        self.hints_for: Callable[[NodeNumber], int] = lambda _: 0
        """Says how many hints are kept here for a node."""
        self.progress = Progress()
        self.runs = Runs(holdings, mender, limits, self._on_end)

    # ---- what happens --------------------------------------------------------------------

    def on_up(self, peer: NodeNumber, now: Instant) -> None:
        """A peer can be reached, perhaps in another life than before."""
        self.runs.on_down(peer)
        wait = _SETTLE_US if self._holdings.proving.is_whole else 0
        self._peers[peer] = _Peer(Instant(now + wait))
        self._wakes_at = now

    def on_down(self, peer: NodeNumber) -> None:
        """A peer is lost: nothing that was compared with it is completed."""
        self._peers.pop(peer, None)
        self.runs.on_down(peer)

    def follow(self, now: Instant) -> None:
        """The topology has changed: begin all anew."""
        self.progress.forget()
        for peer in [*self._peers]:
            self.runs.on_down(peer)
            self._peers[peer] = _Peer(now)
        self._wakes_at = now

    def kick(self, now: Instant) -> None:
        """Begin every sweep now."""
        for peer in self._peers.values():
            peer.next_at = min(peer.next_at, now)
            peer.hints = 0
        self._wakes_at = now

    def stop(self, partitions: Set[Partition]) -> None:
        """Break off what is compared of these partitions; the next sweep takes it up again."""
        for peer in self._peers.values():
            peer.left = deque(each for each in peer.left if each not in partitions)
        self.runs.stop(partitions)

    def on_tell(self, sender: NodeNumber, tell: Tell, now: Instant, out: Outbox) -> None:
        """A peer answers."""
        self._now, self._out = now, out
        if isinstance(tell, TellRoots):
            self._on_roots(sender, tell)
        else:
            self.runs.on_tell(sender, tell, now, out)
        self._wakes_at = now

    def on_scanned(
        self,
        scan_id: int,
        pairs: Sequence[tuple[bytes, bytes]] | None,
        now: Instant,
        out: Outbox,
    ) -> None:
        """A slice of this node's own records was read."""
        self._now, self._out = now, out
        self.runs.on_scanned(scan_id, pairs, now, out)
        self._wakes_at = now

    def on_time(self, now: Instant, out: Outbox, *, is_busy: bool = False) -> None:
        """Begin, go on with and give up what is due. Costs one comparison where nothing is."""
        if self._wakes_at is None or now < self._wakes_at:
            return
        self._now, self._out = now, out
        for number, peer in self._peers.items():
            self._sweep(number, peer)
        # A node in doubt is of less use to clients than their load costs it.
        self.runs.on_time(now, out, is_busy=is_busy and self._holdings.proving.is_whole)
        self._wakes_at = self._earliest()

    def next_wake(self) -> Instant | None:
        """Return when `on_time` has something to do."""
        return self._wakes_at

    # ---- sweeps --------------------------------------------------------------------------

    def _sweep(self, number: NodeNumber, peer: _Peer) -> None:
        if peer.ask and self._now >= peer.gives_up_at:
            peer.ask, peer.lines = 0, {}
        if peer.ask or (not peer.left and self._now < peer.next_at):
            return
        if not peer.left:
            is_whole = self._holdings.proving.is_whole
            if is_whole and self._gets_hints(number, peer):
                peer.next_at = Instant(self._now + _SETTLE_US)
                return
            peer.hints = None
            peer.left.extend(self._due(number))
            wait = 1_000 * self._limits.exchange_interval_ms
            peer.next_at = Instant(self._now + (wait if is_whole else min(wait, _RETRY_US)))
        self._ask_roots(number, peer)

    def _gets_hints(self, number: NodeNumber, peer: _Peer) -> bool:
        """Say whether hints are kept for a peer, and fewer than at the last look."""
        before, peer.hints = peer.hints, self.hints_for(number)
        return peer.hints > 0 and (before is None or peer.hints < before)

    def _due(self, number: NodeNumber) -> list[Partition]:
        """Return the partitions that this node compares with a peer in this sweep."""
        holdings = self._holdings
        asks_always = holdings.number < number
        doubted = holdings.proving.unproven
        return holdings.proving.owned() if asks_always else [*doubted]

    def _ask_roots(self, number: NodeNumber, peer: _Peer) -> None:
        holdings = self._holdings
        lines: list[RootLine] = []
        peer.lines = {}
        while peer.left and len(lines) < _BATCH:
            partition = peer.left.popleft()
            view = holdings.shared(number, partition)
            if view is None or self.runs.is_under_way(number, partition):
                continue
            report = holdings.floors.report(partition)
            doubt = holdings.proving.doubt_of(partition)
            nothing = Heard(b"", is_proven=False)
            peer.lines[partition] = Begun(
                number, view, report, doubt, nothing, holdings.floors.drops
            )
            lines.append(holdings.line(view))
        if lines:
            peer.ask = self._take_id()
            peer.gives_up_at = Instant(self._now + ANSWER_US)
            self._out.send(number, AskRoots(peer.ask, tuple(lines)), durable=True)

    def _on_roots(self, sender: NodeNumber, tell: TellRoots) -> None:
        peer = self._peers.get(sender)
        if peer is None or not peer.ask or peer.ask != tell.id:
            return
        lines, peer.ask, peer.lines = peer.lines, 0, {}
        for answer in tell.answers:
            begun = lines.pop(answer.partition, None)
            if begun is not None:
                self._on_answer(begun._replace(question=tell.id), answer)

    def _on_answer(self, begun: Begun, answer: RootAnswer) -> None:
        report = begun.report if answer.verdict is Verdict.SAME else answer.report
        begun = begun._replace(heard=Heard(report, answer.is_proven))
        match answer.verdict:
            case Verdict.SAME | Verdict.FLOORS:
                if self.runs.is_valid(begun):
                    self._complete(begun)
            case Verdict.DIFFER:
                # What it has seen it has seen, whatever becomes of the exchange.
                self._on_heard(begun.peer, begun.view, begun.heard)
                self.progress.on_begin(begun.peer, answer.partition)
                self.runs.add(begun)
            case Verdict.NOT_NOW:
                self.progress.on_refused(begun.peer, answer.partition)
            case _:
                assert_never(answer.verdict)

    def _on_end(
        self,
        begun: Begun,
        tally: Tally,
        is_complete: bool,
        now: Instant,
        out: Outbox,
    ) -> None:
        self._now, self._out = now, out
        partition = begun.view.partition
        self.progress.on_end(begun.peer, partition, tally, is_complete=is_complete)
        if is_complete:
            self._complete(begun)

    def _complete(self, begun: Begun) -> None:
        """Nothing differs (any more): take over what the other had seen, and have it do so."""
        holdings, view, heard = self._holdings, begun.view, begun.heard
        if begun.report != heard.report:
            try:
                holdings.take_over(view, heard.report)
            except BadReport:
                self.progress.on_refused(begun.peer, view.partition)
                return
            is_proven = holdings.proving.is_proven(view.partition)
            over = TakeOver(begun.question, view.partition, begun.report, is_proven)
            self._out.send(begun.peer, over, durable=True)
        self._on_heard(begun.peer, view, heard)
        self.progress.on_complete(begun.peer, view.partition, self._now)
        if holdings.proving.on_complete(
            view.partition, begun.peer, doubt=begun.doubt, is_peer_proven=heard.is_proven
        ):
            self.on_proven(view.partition)

    def _take_id(self) -> int:
        self._next += 1
        return SWEEP_ID | self._next

    def _earliest(self) -> Instant | None:
        wakes = [_wakes_at(peer, self._now) for peer in self._peers.values()]
        return earliest(self.runs.next_wake(), *wakes)


def _wakes_at(peer: _Peer, now: Instant) -> Instant:
    if peer.ask:
        return peer.gives_up_at
    return now if peer.left else peer.next_at
