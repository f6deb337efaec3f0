"""Exchanges under way: carries out what their conversations need, a few at a time.

    waiting --fewer than 8 run--> running: asks, scans, mends --> ended, complete or not
                                     |  ^ fewer than 8 run
                                     v  |
                                   pausing, up to 64 with those that run

While clients are served one runs at a time, and after each stretch comes a rest of several times as
long as it took: whatever is busy, this node, the peer or the machine that they share, makes that
longer.

Laws: what one asks for at a time is bounded; an ask that is not answered breaks its exchange off,
as do a peer that is lost, other owners, and a doubt that is newer than the exchange.
Tests: tests/unit/core/test_runs.py; tests/property/test_exchange_laws.py.
Left out: the conversation (kvnode.core.exchange), what is compared when (kvnode.core.sweeps).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Any, NamedTuple, assert_never

from kvnode.core.answering import Heard, Holdings, page_of
from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.conversations import AskHashes, AskKeys, TellHashes, TellKeys
from kvnode.core.exchange import (
    Conversation,
    Hashes,
    Listing,
    Mend,
    Page,
    Pause,
    Shared,
    Step,
    Tally,
    exchange,
)
from kvnode.core.keys import Partition, StorageKey
from kvnode.core.mending import Mender
from kvnode.core.messages import Instant, NodeNumber, Outbox, Scan
from kvnode.core.trees import GROUP_LEAVES, GROUPS

RUN_ID = 0b1100 << 60
"""The top four bits of ids that belong to exchanges: of asks and of scans."""
ANSWER_US = 5_000_000
"""How long an answer is waited for."""
_RUNNING_MAX = 8
_BUSY_REST = 3
"""Times as long as a stretch took: a quarter of the time at most is spent on exchanges."""
_REST_US = 1_000_000
"""The longest rest."""
_OPEN_MAX = 64
"""With those that pause, which cost nothing meanwhile."""


class Begun(NamedTuple):
    """What must be remembered from before a partition was compared."""

    peer: NodeNumber
    view: Shared
    report: bytes
    """This node's floors."""
    doubt: int
    heard: Heard
    """The peer's floors."""
    drops: int = 0
    """How often floors had been dropped here."""
    question: int = 0
    """The id of the question that compared it."""


@dataclass(slots=True)
class _Run:
    """An exchange under way."""

    begun: Begun
    talk: Conversation
    tally: Tally
    due_at: Instant
    """When it goes on (a pause), or is given up."""
    since: Instant
    """When it began, or went on after a pause."""
    is_pausing: bool = False
    ours: Page | None = None
    theirs: Page | None = None
    limit: int = 0
    expected: int = 0
    """How many hashes the answer must have."""
    mending: int = 0
    mended: int = 0


OnEnd = Callable[[Begun, Tally, bool, Instant, Outbox], None]
"""Told of each exchange that ended, and whether it is complete."""


class Runs:
    """The exchanges that this node asks for."""

    __slots__ = (
        "_by_id", "_holdings", "_is_busy", "_limits", "_mender", "_next", "_now", "_on_end", "_out",
        "_queue", "_rests_until", "_runs",
    )  # fmt: skip

    def __init__(self, holdings: Holdings, mender: Mender, limits: Limits, on_end: OnEnd) -> None:
        self._holdings = holdings
        self._mender = mender
        self._limits = limits
        self._on_end = on_end
        self._next = 0
        self._queue: dict[tuple[NodeNumber, Partition], Begun] = {}
        self._runs: dict[tuple[NodeNumber, Partition], _Run] = {}
        self._by_id: dict[int, tuple[tuple[NodeNumber, Partition], NodeNumber]] = {}
        """What is waited for: (run, who answers)."""
        self._now = Instant(0)
        self._out = Outbox()
        self._is_busy = False
        self._rests_until = Instant(0)
        """While clients are served."""

    @property
    def under_way(self) -> int:
        """How many exchanges run or wait for their turn."""
        return len(self._runs) + len(self._queue)

    def is_under_way(self, peer: NodeNumber, partition: Partition) -> bool:
        """Say whether this partition is being exchanged with a peer, or will be."""
        return (peer, partition) in self._runs or (peer, partition) in self._queue

    def is_valid(self, begun: Begun) -> bool:
        """Say whether what was compared still stands: trees known, same owners, same doubt, nothing
        lost since."""
        partition = begun.view.partition
        proving = self._holdings.proving
        if begun.drops != self._holdings.floors.drops:
            return False
        # Proven meanwhile is as good; a newer doubt has taken floors and records into question.
        same_doubt = begun.doubt == proving.doubt_of(partition) or proving.is_proven(partition)
        return same_doubt and self._holdings.shared(begun.peer, partition) == begun.view

    # ---- what happens --------------------------------------------------------------------

    def add(self, begun: Begun) -> None:
        """Exchange a partition when its turn comes."""
        self._queue[begun.peer, begun.view.partition] = begun

    def on_down(self, peer: NodeNumber) -> None:
        """A peer is lost: nothing that was compared with it is completed."""
        self._drop([name for name in (*self._queue, *self._runs) if name[0] == peer])

    def stop(self, partitions: Set[Partition]) -> None:
        """Break off, or never begin, what is compared of these partitions."""
        self._drop([name for name in (*self._queue, *self._runs) if name[1] in partitions])

    def on_tell(
        self, sender: NodeNumber, tell: TellHashes | TellKeys, now: Instant, out: Outbox
    ) -> None:
        """A peer answers."""
        run = self._run_of(tell.id, sender)
        if run is None:
            return
        self._now, self._out = now, out
        if not tell.is_known:
            self._end(run, is_complete=False)
        elif isinstance(tell, TellHashes):
            if len(tell.hashes) == run.expected:
                self._resume(run, tell.hashes)
            else:
                self._end(run, is_complete=False)
        else:
            hashes = dict(zip(tell.keys, tell.hashes, strict=True))
            run.theirs = Page(hashes, None if tell.is_last else tell.covered)
            self._compare_if_both(run)

    def on_scanned(
        self,
        scan_id: int,
        pairs: Sequence[tuple[bytes, bytes]] | None,
        now: Instant,
        out: Outbox,
    ) -> None:
        """A slice of this node's own records was read."""
        run = self._run_of(scan_id, self._holdings.number)
        if run is None:
            return
        self._now, self._out = now, out
        if pairs is None:
            self._end(run, is_complete=False)
            return
        run.ours = page_of(pairs, self._holdings.trees, run.begun.view, limit=run.limit)
        self._compare_if_both(run)

    def on_time(self, now: Instant, out: Outbox, *, is_busy: bool = False) -> None:
        """Begin, go on with and give up what is due."""
        self._now, self._out, self._is_busy = now, out, is_busy
        due = [run for run in self._runs.values() if run.due_at <= now]
        for run in due:
            if not run.is_pausing:
                self._end(run, is_complete=False)
            elif self._has_room:
                self._resume(run, None)
        while self._queue and self._has_room and len(self._runs) < _OPEN_MAX:
            self._start(self._queue.pop(next(iter(self._queue))))

    def next_wake(self) -> Instant | None:
        """Return when `on_time` has something to do."""
        at = self._room_at
        if self._queue and at is not None and len(self._runs) < _OPEN_MAX:
            return at
        # One that has paused for long enough and finds no room goes on when another is done.
        ends = (run.due_at for run in self._runs.values() if not run.is_pausing)
        if at is None:
            return min(ends, default=None)
        goes_on = (max(at, run.due_at) for run in self._runs.values() if run.is_pausing)
        return min((*ends, *goes_on), default=None)

    @property
    def _room_at(self) -> Instant | None:
        """When another may run; None: once one of those that run does no more."""
        running = sum(not run.is_pausing for run in self._runs.values())
        if running >= (1 if self._is_busy else _RUNNING_MAX):
            return None
        return max(self._now, self._rests_until) if self._is_busy else self._now

    @property
    def _has_room(self) -> bool:
        return self._room_at == self._now

    def _rest(self, run: _Run) -> None:
        """An exchange runs no more: it has ended, or pauses."""
        rest_us = min(_BUSY_REST * (self._now - run.since), _REST_US)
        self._rests_until = max(self._rests_until, Instant(self._now + rest_us))

    # ---- conversations -------------------------------------------------------------------

    def _start(self, begun: Begun) -> None:
        if not self.is_valid(begun):
            self._on_end(begun, Tally(), False, self._now, self._out)
            return
        tally = Tally()
        # What a side in doubt lacks is lost, not under way.
        is_patient = not begun.doubt and begun.heard.is_proven
        talk = exchange(self._holdings.trees, begun.view, tally, is_patient=is_patient)
        run = _Run(begun, talk, tally, Instant(self._now + ANSWER_US), self._now)
        self._runs[begun.peer, begun.view.partition] = run
        self._carry_out(run, next(talk))

    def _resume(self, run: _Run, answer: Any) -> None:
        """Hand an exchange what it asked for."""
        if not self.is_valid(run.begun):
            self._end(run, is_complete=False)
            return
        if run.is_pausing:
            run.is_pausing, run.since = False, self._now
        try:
            step = run.talk.send(answer)
        except StopIteration as stop:
            self._end(run, is_complete=stop.value)
        else:
            self._carry_out(run, step)

    def _carry_out(self, run: _Run, step: Step) -> None:
        peer, partition = run.begun.peer, run.begun.view.partition
        run.due_at = Instant(self._now + ANSWER_US)
        match step:
            case Hashes(groups):
                run.expected = len(groups) * GROUP_LEAVES or GROUPS
                self._out.send(peer, AskHashes(self._id_for(run, peer), partition, groups))
            case Listing():
                self._list(run, step)
            case Pause():
                run.is_pausing = True
                self._rest(run)
                run.due_at = Instant(self._now + 1_000 * self._limits.exchange_grace_ms)
            case Mend(keys):
                self._mend(run, keys)
            case _:
                assert_never(step)

    def _list(self, run: _Run, step: Listing) -> None:
        peer, partition = run.begun.peer, run.begun.view.partition
        run.ours = run.theirs = None
        run.limit = step.limit
        ask = AskKeys(self._id_for(run, peer), partition, step.start, step.end or b"", step.limit)
        self._out.send(peer, ask)
        scan_id = self._id_for(run, self._holdings.number)
        self._out.scans.append(Scan(scan_id, Family.RECORDS, step.start, step.end, step.limit))

    def _compare_if_both(self, run: _Run) -> None:
        if run.ours is not None and run.theirs is not None:
            self._resume(run, (run.ours, run.theirs))

    def _mend(self, run: _Run, keys: tuple[tuple[StorageKey, bool], ...]) -> None:
        run.mending, run.mended = len(keys), 0
        # As long as it takes at the rate that is allowed to all exchanges together.
        most = 1_000_000 * _RUNNING_MAX * len(keys) // self._limits.exchange_keys_per_s
        run.due_at = Instant(self._now + ANSWER_US + 2 * most)

        def on_mended(is_mended: bool, now: Instant, out: Outbox) -> None:
            run.mending -= 1
            run.mended += is_mended
            if not run.mending and self._runs.get(_name(run)) is run:
                self._now, self._out = now, out
                self._resume(run, run.mended)

        for key, is_held in keys:
            self._mender.mend(key, run.begun.peer, on_mended, is_held=is_held)

    def _drop(self, names: Sequence[tuple[NodeNumber, Partition]]) -> None:
        for name in names:
            if name in self._queue:
                self._on_end(self._queue.pop(name), Tally(), False, self._now, self._out)
            else:
                self._end(self._runs[name], is_complete=False)

    def _end(self, run: _Run, *, is_complete: bool) -> None:
        for request in [each for each, known in self._by_id.items() if known[0] == _name(run)]:
            del self._by_id[request]
        run.talk.close()
        if not run.is_pausing:
            self._rest(run)
        del self._runs[_name(run)]
        is_valid = is_complete and self.is_valid(run.begun)
        self._on_end(run.begun, run.tally, is_valid, self._now, self._out)

    def _run_of(self, request: int, answerer: NodeNumber) -> _Run | None:
        """Return the run that waits for this very answer, once."""
        name, awaited = self._by_id.get(request, (None, 0))
        if name is None or awaited != answerer:
            return None
        del self._by_id[request]
        return self._runs.get(name)

    def _id_for(self, run: _Run, answerer: NodeNumber) -> int:
        self._next += 1
        self._by_id[RUN_ID | self._next] = (_name(run), answerer)
        return RUN_ID | self._next


def _name(run: _Run) -> tuple[NodeNumber, Partition]:
    return run.begun.peer, run.begun.view.partition
