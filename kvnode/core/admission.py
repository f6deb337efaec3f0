"""Which operations of clients begin, which wait, and which are refused at once.

    arrive --room in the running set--> run
       |---room in the queue----------> wait --its turn--> run
       |                                 '---too late----> refused
       '---neither--------------------> refused, with when to come again

A node that takes on all that comes does each operation too late: its clients have given up, ask
again, and what is done is for nobody (a metastable collapse). So only so many operations run at a
time, the others wait, and what would wait too long is refused while that still costs nothing.

- The waiting are served in turn, a few of each *share* (one client's stream; all unary calls of
  one connection). A share may queue as much as is free, so a greedy one leaves room for others.
- The backlog is the time that the waiting would take at the rate at which operations were last
  seen to end. If it stays above a target for as long as the target, the queue is *standing*: it
  does not smooth a burst, it only adds delay. Until it has drained, the queue's bound is what can
  be done within the target. A share with nothing in the queue may still have a few wait.
- While operations wait, only so many run as end within the target, at least a quarter of the bound:
  on a slow machine more would all take longer, and what they hold up with them.
- When its turn comes, an operation whose deadline has passed is dropped, and so is one that would
  end after its deadline at the present rate: it would be work for nobody.

Laws: every operation comes out exactly once, as run or as refused, unless its client is gone; no
more run or wait than the bounds; none waits while there is room to run; none that was let in is
refused later but for its deadline; a share that waits gets its turn after at most one quantum of
each other share. A refused write is `not applied`.
Cost: O(1) for each frame while nothing waits, and for each operation that waits.
Tests: tests/unit/core/test_admission.py, tests/property/test_admission_laws.py.
Source: Nichols and Jacobson, "Controlling Queue Delay" (2012), for the standing queue; Choudhury
and Hahne, "Dynamic Queue Length Thresholds" (1998), for the shares; Bronson et al., "Metastable
Failures in Distributed Systems" (HotOS 2021).
Left out: bytes, and what one stream may have unanswered: kvnode.runtime.clients. Work for peers is
never refused here: their own admission bounds it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence

from kvnode.core.messages import (
    ClientGet,
    ClientOps,
    ClientPut,
    ErrorCode,
    Failure,
    Instant,
    SessionId,
)
from kvnode.core.refusals import refuse_late, refused

QUANTUM = 32
"""Operations of one share that begin before the next share's turn."""

_RATE_WINDOW_US = 100_000
_RETRY_MS_UNKNOWN = 100
_RETRY_MS_LEAST = 10
_RETRY_MS_MOST = 5_000
_CAUTION = 1.5
"""What waits in order begins when it is just not too late yet; a little slower, and all is late."""
_FEWEST = 4
"""Of the running set this part may run however slow it is: fewer would share too little work."""
_DRAINED = 8
"""A standing queue has drained once its backlog is this part of the target."""

Refused = tuple[SessionId, Failure]


class Verdict:
    """What is to begin now, and what is refused."""

    __slots__ = ("refused", "run")

    def __init__(self) -> None:
        self.run: list[ClientOps] = []
        self.refused: list[Refused] = []


class _Part:
    """What waits of one frame, in order from `next`."""

    __slots__ = ("arrived", "next", "ops", "place", "session")

    def __init__(
        self,
        session: SessionId,
        ops: Sequence[ClientGet | ClientPut],
        *,
        arrived: Instant,
        place: int,
    ) -> None:
        self.session = session
        self.ops = ops
        self.next = 0
        self.arrived = arrived
        self.place = place


class _Pace:
    """How many operations a second end while the running set is full."""

    __slots__ = ("_began", "_count", "_rate", "is_fresh")

    def __init__(self) -> None:
        self._rate = 0.0
        self._began: Instant | None = None
        self._count = 0
        self.is_fresh = False
        """Whether it was measured since the running set was last seen to become full."""

    def begin(self, now: Instant) -> None:
        """The running set is full from now on."""
        self._began, self._count, self.is_fresh = now, 0, False

    def end(self) -> None:
        """It is not full any more: what ends now is what was asked for, not what can be done."""
        self._began = None

    def count(self, ended: int, now: Instant) -> bool:
        """So many operations ended; return whether the rate is another one now."""
        if self._began is None:
            return False
        self._count += ended
        elapsed = now - self._began
        is_over = elapsed >= _RATE_WINDOW_US
        if is_over:
            rate = 1e6 * self._count / elapsed
            self._rate = (self._rate + rate) / 2 if self.is_fresh else rate
            self._began, self._count, self.is_fresh = now, 0, True
        return is_over

    def rate(self, now: Instant, running: int) -> float:
        """Return operations a second, 0 if unknown.

        Nothing ending for long lowers it: to what it would be if all that runs ended just now.
        """
        if self._began is None or now - self._began <= _RATE_WINDOW_US:
            return self._rate
        recent = 1e6 * (self._count + running) / (now - self._began)
        return min(self._rate, recent) if self._rate else recent


class Admission:
    """The running set and the queue before it.

    Args:
        running: how many operations run at a time.
        waiting: how many more may wait.
        target_ms: the longest wait that is still taken for a burst's.
    """

    def __init__(self, *, running: int, waiting: int, target_ms: int) -> None:
        assert running > 0
        assert waiting >= 0
        self._running_most = running
        self._allowed = running
        """To run at present: fewer where that many would take longer than the target."""
        self._waiting_most = waiting
        self._target_us = 1_000 * target_ms
        self._queues: OrderedDict[Hashable, deque[_Part]] = OrderedDict()
        """Those with something in them, by share; the first has the next turn."""
        self._lengths: dict[Hashable, int] = {}
        self._pace = _Pace()
        self._above_since: Instant | None = None
        self.is_standing = False
        self.running = 0
        self.waiting = 0
        self.refused = 0
        """So far, for people."""

    def arrive(self, share: Hashable, ops: ClientOps, now: Instant) -> Verdict:
        """Take what fits; the rest is refused, the last of the frame first.

        Args:
            share: whose turn it takes.
            ops: checked operations, at least one.
            now: monotonic microseconds.
        """
        verdict = Verdict()
        count = len(ops.gets) + len(ops.puts)
        assert count > 0
        if not self.waiting and self.running + count <= self._running_most:
            self.running += count
            verdict.run.append(ops)
            return verdict
        every: list[ClientGet | ClientPut] = [*ops.gets, *ops.puts]
        room = self.room(share, now)
        if room < count:
            self._refuse(ops.session, every[room:], now, verdict)
            every = every[:room]
        if every:
            self._queue(share, _Part(ops.session, every, arrived=now, place=self.waiting))
            self._fill(now, verdict)
            self._judge(now)
        return verdict

    def done(self, count: int, now: Instant) -> Verdict:
        """So many of the running operations were answered: begin others in their place."""
        self.running -= count
        assert self.running >= 0, "answered more than was begun"
        verdict = Verdict()
        if self.waiting:
            if self._pace.count(count, now):
                self._adapt(now)
            self._fill(now, verdict)
            self._judge(now)
        return verdict

    def resize(self, running: int, now: Instant) -> Verdict:
        """Let so many run from now on; what runs beyond that is waited for. 0: begin nothing."""
        verdict = Verdict()
        if running != self._running_most:
            self._running_most = self._allowed = running
            self._fill(now, verdict)
            self._judge(now)
        return verdict

    def forget(self, share: Hashable, now: Instant) -> None:
        """A client is gone: what waits of it is for nobody. What runs still ends with `done`."""
        if self._queues.pop(share, None) is not None:
            self.waiting -= self._lengths.pop(share)
            self._judge(now)

    def room(self, share: Hashable, now: Instant) -> int:
        """Return how many more operations of a share would be let in now."""
        free_to_run = max(0, self._allowed - self.running)
        held = self._lengths.get(share, 0)
        bound = self._waiting_most
        if self.is_standing:
            bound = min(bound, int(self._rate(now) * self._target_us / 1e6))
        # As much as is free may be held: one share alone gets half of the queue, two a third each.
        in_turn = (bound - self.waiting - held + 1) // 2
        few = QUANTUM - held if self.is_standing else 0
        most = max(0, self._waiting_most - self.waiting)
        return free_to_run + min(most, max(in_turn, few, 0))

    def waiting_of(self, share: Hashable) -> int:
        """Return how many operations of a share wait."""
        return self._lengths.get(share, 0)

    def refusal(self, now: Instant) -> tuple[str, int]:
        """Return why what does not fit is refused, and after how many ms to come again."""
        rate = self._rate(now)
        if not rate:
            return f"{self.waiting:,} operations wait at this node", _RETRY_MS_UNKNOWN
        drain_ms = int(1_000 * self.waiting / rate)
        text = f"{self.waiting:,} operations wait at this node, about {drain_ms:,} ms of work"
        return text, min(max(drain_ms, _RETRY_MS_LEAST), _RETRY_MS_MOST)

    # ---- within --------------------------------------------------------------------------

    def _rate(self, now: Instant) -> float:
        return self._pace.rate(now, self.running)

    def _queue(self, share: Hashable, part: _Part) -> None:
        queue = self._queues.get(share)
        if queue is None:
            queue = self._queues[share] = deque()
        queue.append(part)
        count = len(part.ops)
        self._lengths[share] = self._lengths.get(share, 0) + count
        if not self.waiting:
            self._pace.begin(part.arrived)
        self.waiting += count

    def _fill(self, now: Instant, verdict: Verdict) -> None:
        """Begin what waits, share by share, while there is room."""
        queues = self._queues
        while queues and self.running < self._allowed:
            share, queue = next(iter(queues.items()))
            left = QUANTUM
            while queue and left > 0 and self.running < self._allowed:
                left -= self._begin(share, queue, left, now, verdict)
            if queue:
                queues.move_to_end(share)
            else:
                del queues[share], self._lengths[share]

    def _begin(
        self, share: Hashable, queue: deque[_Part], left: int, now: Instant, verdict: Verdict
    ) -> int:
        """Begin up to `left` operations of the first part; return how many were taken from it."""
        part = queue[0]
        count = min(left, len(part.ops) - part.next, self._allowed - self.running)
        taken = part.ops[part.next : part.next + count]
        part.next += count
        if part.next == len(part.ops):
            queue.popleft()
        self.waiting -= count
        self._lengths[share] -= count
        latest = now + self._time_to_run_us(now)
        timely = [op for op in taken if op.deadline_us > latest]
        if len(timely) < count:
            late = [op for op in taken if op.deadline_us <= latest]
            verdict.refused += [(part.session, self._too_late(op, part, now)) for op in late]
            self.refused += len(late)
        if timely:
            self.running += len(timely)
            verdict.run.append(_as_ops(part.session, timely))
        return count

    def _time_to_run_us(self, now: Instant) -> int:
        """Return how long what begins now will take (Little's law); 0 if not known yet."""
        rate = self._rate(now) if self._pace.is_fresh else 0.0
        return int(_CAUTION * 1e6 * max(1, self._allowed) / rate) if rate else 0

    def _adapt(self, now: Instant) -> None:
        """Let run what can be done within the target, of which there are at least a few."""
        within = int(self._rate(now) * self._target_us / 1e6)
        least = min(self._running_most, max(1, self._running_most // _FEWEST))
        self._allowed = min(self._running_most, max(least, within))

    def _judge(self, now: Instant) -> None:
        """Notice when the queue begins to stand, and when it has drained."""
        if not self.waiting:
            self._pace.end()
            self._allowed = self._running_most
        rate = self._rate(now)
        backlog_us = 1e6 * self.waiting / rate if rate else 0.0
        if self.is_standing:
            self.is_standing = backlog_us * _DRAINED > self._target_us
            self._above_since = None
        elif backlog_us <= self._target_us:
            self._above_since = None
        elif self._above_since is None:
            self._above_since = now
        else:
            self.is_standing = now - self._above_since >= self._target_us

    def _refuse(
        self,
        session: SessionId,
        ops: Sequence[ClientGet | ClientPut],
        now: Instant,
        verdict: Verdict,
    ) -> None:
        text, retry_ms = self.refusal(now)
        self.refused += len(ops)
        verdict.refused += [
            (session, refused(op, ErrorCode.OVERLOADED, text, retry_after_ms=retry_ms))
            for op in ops
        ]

    def _too_late(self, op: ClientGet | ClientPut, part: _Part, now: Instant) -> Failure:
        waited = f"after {(now - part.arrived) // 1_000:,} ms in the queue, from place "
        waited += f"{part.place + 1:,}"
        if op.deadline_us <= now:
            return refuse_late(op, f"the deadline passed before it began, {waited}")
        text = f"it would have ended after its deadline, {waited}"
        return refused(op, ErrorCode.OVERLOADED, text, retry_after_ms=self.refusal(now)[1])

    def check(self) -> None:
        """Assert every invariant."""
        lengths = {
            share: sum(len(part.ops) - part.next for part in queue)
            for share, queue in self._queues.items()
        }
        assert lengths == self._lengths
        assert all(length > 0 for length in lengths.values())
        assert self.waiting == sum(lengths.values())
        assert self.running >= 0
        assert self.waiting <= self._waiting_most
        assert not self.waiting or self.running >= self._allowed


def _as_ops(session: SessionId, ops: Sequence[ClientGet | ClientPut]) -> ClientOps:
    gets = [op for op in ops if isinstance(op, ClientGet)]
    puts = [op for op in ops if isinstance(op, ClientPut)]
    return ClientOps(session, gets, puts)
