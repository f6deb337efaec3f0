"""Mending: brings one key to one state at this node and a peer, by asking and merging.

    READING our own state, or theirs if we hold none -> merged at the other side, which says what it
    holds then if that is another state -> merged at the first ... until both hold the same

A state without versions is an answer too: it says which dots its holder knows as superseded.

Laws: mending only merges, so it can be repeated, overtaken or broken off anywhere; never more than
`window` keys at a time, and no more than `per_s` a second are begun.
Tests: tests/unit/core/test_mending.py. Left out: which keys (kvnode.core.exchange).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from kvnode.core.keys import StorageKey
from kvnode.core.messages import (
    Instant,
    NodeNumber,
    Outbox,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Status,
    WriteKind,
)
from kvnode.core.record import Encoded

MEND_ID = 0b1010 << 60
"""The top four bits of ids that belong to mending."""
_TURNS_MAX = 6
"""Merges of one key. Two sides agree after three, unless writes keep coming."""
_TIMEOUT_US = 5_000_000

Done = Callable[[bool, Instant, Outbox], None]
"""Told whether the key is the same at both sides now."""


@dataclass(slots=True)
class _Job:
    """One key that is being mended."""

    key: StorageKey
    here: NodeNumber
    peer: NodeNumber
    done: Done
    gives_up_at: Instant
    holder: NodeNumber
    """Whose answer is awaited."""
    turns: int = 0


class Mender:
    """All keys that this node is mending."""

    __slots__ = (
        "_earned_at",
        "_here",
        "_jobs",
        "_next",
        "_per_s",
        "_tokens",
        "_waiting",
        "_window",
    )

    def __init__(self, here: NodeNumber, *, window: int, per_s: int) -> None:
        """Mend at most `window` keys at a time, and begin at most `per_s` in a second."""
        self._here = here
        self._window = window
        self._per_s = per_s
        self._next = 0
        self._jobs: dict[int, _Job] = {}
        self._waiting: deque[tuple[StorageKey, NodeNumber, bool, Done]] = deque()
        self._tokens = float(window)
        self._earned_at = Instant(0)

    @property
    def under_way(self) -> int:
        """How many keys are being mended or wait for it."""
        return len(self._jobs) + len(self._waiting)

    def mend(self, key: StorageKey, peer: NodeNumber, done: Done, *, is_held: bool) -> None:
        """Have a key mended with a peer. `is_held`: this side holds something of it."""
        self._waiting.append((key, peer, is_held, done))

    def on_time(self, now: Instant, out: Outbox) -> None:
        """Begin what window and rate allow, and give up what was never answered."""
        if not self._jobs and not self._waiting:
            return
        for job_id, job in [*self._jobs.items()]:
            if now < job.gives_up_at:
                break  # in order: all have the same patience
            self._end(job_id, now, out, is_mended=False)
        elapsed = now - self._earned_at
        self._tokens = min(float(self._window), self._tokens + elapsed * self._per_s / 1e6)
        self._earned_at = now
        while self._waiting and self._tokens >= 1 and len(self._jobs) < self._window:
            self._tokens -= 1
            self._begin(*self._waiting.popleft(), now, out)

    def next_wake(self, now: Instant) -> Instant | None:
        """Return when `on_time` has something to do."""
        if self._waiting and len(self._jobs) < self._window:
            return Instant(now + 1 + int(max(0.0, 1 - self._tokens) * 1e6 / self._per_s))
        first = next(iter(self._jobs.values()), None)
        return None if first is None else first.gives_up_at

    def on_read_reply(
        self, sender: NodeNumber, reply: ReplicaReadReply, now: Instant, out: Outbox
    ) -> None:
        """A side said what it holds: the other merges it."""
        job = self._jobs.get(reply.id)
        if job is None or sender != job.holder:
            return
        if reply.status not in (Status.DONE, Status.UNPROVEN):
            self._end(reply.id, now, out, is_mended=False)
        elif not reply.record:
            # Gone since it was listed: nothing is to be merged any more.
            self._end(reply.id, now, out, is_mended=True)
        else:
            self._send(reply.id, job, reply.record, now, out)

    def on_write_reply(
        self, sender: NodeNumber, reply: ReplicaWriteReply, now: Instant, out: Outbox
    ) -> None:
        """A side has merged; where it holds another state then, the other side merges that."""
        job = self._jobs.get(reply.id)
        if job is None or sender != job.holder:
            return
        if reply.status is not Status.DONE or job.turns >= _TURNS_MAX:
            self._end(reply.id, now, out, is_mended=False)
        elif not reply.record:
            self._end(reply.id, now, out, is_mended=True)
        else:
            self._send(reply.id, job, reply.record, now, out)

    def on_down(self, peer: NodeNumber, now: Instant, out: Outbox) -> None:
        """Whatever is to be mended with a peer cannot be."""
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            if entry[1] == peer:
                entry[3](False, now, out)
            else:
                self._waiting.append(entry)
        for job_id, job in [*self._jobs.items()]:
            if job.peer == peer:
                self._end(job_id, now, out, is_mended=False)

    def _begin(
        self,
        key: StorageKey,
        peer: NodeNumber,
        is_held: bool,
        done: Done,
        now: Instant,
        out: Outbox,
    ) -> None:
        self._next += 1
        holder = self._here if is_held else peer
        gives_up_at = Instant(now + _TIMEOUT_US)
        job_id = MEND_ID | self._next
        self._jobs[job_id] = _Job(key, self._here, peer, done, gives_up_at, holder)
        out.send(holder, ReplicaRead(job_id, key, gives_up_at, b""))

    def _send(self, job_id: int, job: _Job, record: Encoded, now: Instant, out: Outbox) -> None:
        job.holder = job.peer if job.holder == job.here else job.here
        job.turns += 1
        deadline = Instant(now + _TIMEOUT_US)
        out.send(job.holder, ReplicaWrite(job_id, job.key, record, deadline, WriteKind.REPAIR, 0))

    def _end(self, job_id: int, now: Instant, out: Outbox, *, is_mended: bool) -> None:
        self._jobs.pop(job_id).done(is_mended, now, out)
