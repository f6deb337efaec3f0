"""What becomes of each operation, from its beginning to its end: answers, errors, deadlines.

Decides and never acts: it is told the time, is handed its randomness, fills the lanes' outboxes and
finishes operations. Laws: each operation is finished exactly once, by its deadline; all attempts of
a put share one write id and one stamp, unless it is redone above a newer version; `pending` holds
exactly the unfinished operations.
Tests: tests/unit/client/test_engine.py.
Source: design, sections 2.2, 2.3 and 2.10.
Left out: where attempts go (`attempts`), frames and sockets (`codec`, `stream`), discovery
(`cluster`).
    submit --choose--> queued on a lane --frame--> unanswered --answer--> finished
              ^              |                        |  |
              |              |  lane broken or silent |  '--refused--> finished, or after a wait
              '--------------'------------------------'                again from `choose`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

from kvclient.attempts import Attempts
from kvclient.bounds import BOUNDS, Bounds
from kvclient.clock import HybridClock, ms_of_hlc
from kvclient.errors import KVError, Overloaded
from kvclient.operation import PUT_DELETE, Lane, LaneState, Operation, WriteIds
from kvclient.results import Metrics
from kvclient.retry import Code, Refusal, error_at_deadline
from kvclient.routing import Router
from kvclient.session import Session
from kvclient.silence import Silence

_SWEEP_GAP_S = 0.005


class Engine:
    """All operations of one client that are not finished.

    Args:
        session: of operations that have none of their own; None: they are nobody's.
        random_bytes: a source of write ids.
        alarm: called with an instant at which `on_alarm` must be called at the latest.
        suspect: called with a lane that fell silent.
    """

    def __init__(
        self,
        *,
        session: Session | None,
        rng: Random,
        random_bytes: Callable[[int], bytes],
        alarm: Callable[[float], None],
        suspect: Callable[[Lane], None],
        bounds: Bounds = BOUNDS,
    ) -> None:
        self.session = session
        self.clock = HybridClock(bounds)
        self.router = Router(bounds)
        self.metrics = Metrics()
        self.pending: dict[int, Operation] = {}
        self.bytes_in_flight = 0
        self.lanes: list[Lane] = []
        self._random_bytes = random_bytes
        self._write_ids = WriteIds(random_bytes)
        if session is not None:
            session.write_ids = self._write_ids
        self._alarm = alarm
        self._suspect = suspect
        self._bounds = bounds
        self._silence = Silence(bounds)
        self._attempts = Attempts(
            self.router, self.metrics, rng=rng, bounds=bounds, wake_at=lambda _: self._set_alarm()
        )
        self._next_id = 1
        self._alarm_at = math.inf
        self._sweep_at = math.inf
        self._look_at = math.inf
        self._is_stuck = False
        """Whether some lane was, at the last look."""

    # ---- from the caller ----

    def submit(self, operation: Operation, now: float) -> None:
        """Begin an operation; its waiter hears when it is finished, perhaps at once."""
        if self._is_full(operation):
            self.metrics.overloaded += 1
            message = f"{len(self.pending):,} operations of this client are unanswered"
            self._end(operation, Overloaded(message, retry_after=0.01))
            return
        if operation.deadline <= now:
            self._end(operation, error_at_deadline(operation))
            return
        self.metrics.operations += 1
        self._attempts.budget.earn()
        self._attempts.hedging.budget.earn()
        operation.began = now
        operation.id = self._next_id
        self._next_id += 1
        self.pending[operation.id] = operation
        self.bytes_in_flight += operation.size
        self._prepare(operation, now)
        self._attempts.begin(operation, now)
        if operation.deadline < self._sweep_at or self._look_at == math.inf:
            self._watch(operation.deadline, now)

    def abandon(self, operation: Operation) -> None:
        """Forget an operation nobody waits for. What has left cannot be called back."""
        if not operation.is_done and operation.id in self.pending:
            self._release(operation)

    def close(self) -> None:
        """Finish everything with what may be concluded now; the client is closing."""
        for operation in list(self.pending.values()):
            operation.failure = Refusal(Code.UNAVAILABLE, "the client was closed")
            self._finish(operation, error_at_deadline(operation))
        self._attempts.clear()

    # ---- from the nodes ----

    def on_frame(self, lane: Lane, hlc: int, now: float) -> None:
        """A node said something, whatever it was."""
        self._silence.on_heard(lane, now)
        if lane.state is LaneState.SUSPECTED:
            lane.state = LaneState.READY
        if hlc:
            self.clock.observe(hlc, now, lane.number)

    def on_gets(self, answered: Sequence[Operation], now: float) -> None:
        """Gets were answered by a node."""
        if answered:
            self._note_time(answered[0], now)
        for operation in answered:
            self._remember(operation, operation.watermark)
            self._finish(operation)

    def on_puts(self, answered: Sequence[Operation], now: float) -> None:
        """Puts were acknowledged by a node."""
        if answered:
            self._note_time(answered[0], now)
        for operation in answered:
            # After a retry or a hedge the rival may be an heir of the first attempt, even a delete
            # of it: then the put stands by its stamp.
            if operation.newer and operation.tries == 1 and not operation.is_explicit:
                self._restamp(operation, now)
                continue
            self._remember(operation, b"")
            self._finish(operation)

    def _note_time(self, answered: Operation, now: float) -> None:
        """Note how long an answer took; the others of its frame took about as long."""
        took_s = now - answered.sent_at
        self._attempts.hedging.note(took_s)
        if answered.lane is not None:
            answered.lane.note_answer(took_s)

    def _remember(self, operation: Operation, watermark: bytes) -> None:
        if operation.session is not None:
            operation.session.remember(
                operation.keyspace,
                operation.key,
                operation.partition,
                context=operation.seen,
                sent=operation.context,
                watermark=watermark,
            )

    def on_refusal(self, lane: Lane, operation: Operation, refusal: Refusal, now: float) -> None:
        """A node refused one attempt; the operation is out of its `unanswered` already."""
        error = self._attempts.on_refusal(lane, operation, refusal, now)
        if error is not None:
            self._finish(operation, error)

    def on_broken(self, lane: Lane, reason: str, now: float) -> None:
        """A stream ended: what it had not answered is asked elsewhere at once."""
        self._attempts.on_broken(lane, reason, now)

    def on_connected(self, lane: Lane, now: float) -> None:
        """A stream to the node is open."""
        lane.state = LaneState.READY
        lane.heard_at = now

    # ---- time ----

    def on_alarm(self, now: float) -> None:
        """The instant of the last alarm has come."""
        late_s = now - self._alarm_at
        self._alarm_at = math.inf
        self._attempts.begin_due(now)
        if now >= self._sweep_at:
            self._sweep(now)
        if now >= self._look_at:
            self._look(now, late_s)
        self._set_alarm()

    def _watch(self, deadline: float, now: float) -> None:
        """Have the deadline and the silence of nodes looked at in time."""
        if deadline < self._sweep_at:
            self._sweep_at = deadline
        if self._look_at == math.inf:
            self._look_at = now + self._bounds.tick_ms / 1000
        if self._sweep_at < self._alarm_at or self._look_at < self._alarm_at:
            self._set_alarm()

    def _set_alarm(self) -> None:
        when = min(self._sweep_at, self._look_at, self._attempts.next_due())
        if when < self._alarm_at:
            self._alarm_at = when
            self._alarm(when)

    def _sweep(self, now: float) -> None:
        """Finish what is late. One pass for all, at the earliest deadline there was."""
        late = [operation for operation in self.pending.values() if operation.deadline <= now]
        for operation in late:
            self._finish(operation, error_at_deadline(operation))
        earliest = min((o.deadline for o in self.pending.values()), default=math.inf)
        self._sweep_at = max(earliest, now + _SWEEP_GAP_S)

    def _look(self, now: float, late_s: float) -> None:
        """Look for slow and silent nodes."""
        self._look_at = now + self._bounds.tick_ms / 1000 if self.pending else math.inf
        for lane in self._silence.fallen(self.lanes, now, late_s):
            self._suspect(lane)
            self._attempts.on_silent(lane, now)
        # Here and not at each beginning: among a thousand in flight that was a seventh of all work.
        self._is_stuck = any(lane.is_stuck(now) for lane in self.lanes)
        # With nothing pending whatever left is answered, and need not be remembered.
        self._attempts.hedge(self.lanes, now if self.pending else math.inf)

    # ---- beginnings ----

    def _is_full(self, operation: Operation) -> bool:
        """Whether a bound is met, or this program or the nodes are too slow for what is asked."""
        bounds, count = self._bounds, len(self.pending)
        if count >= bounds.operations_in_flight:
            return True
        if self._is_stuck and count > bounds.frame_operations:
            return True
        return self.bytes_in_flight + operation.size > bounds.bytes_in_flight

    def _prepare(self, operation: Operation, now: float) -> None:
        """Fix what all attempts share."""
        operation.partition = self.router.partition(operation.keyspace, operation.key)
        if operation.session is None:
            operation.session = self.session
        if operation.session is not None and not operation.is_explicit:
            operation.context, operation.watermark = operation.session.recall(
                operation.keyspace, operation.key, operation.partition
            )
        if operation.is_put:
            operation.write_id = self._ids_of(operation.session).draw()
            operation.timestamp = self.clock.tick(now)
            self._stamp_expiry(operation)

    def _ids_of(self, session: Session | None) -> WriteIds:
        """Return the names for a session's writes: their order is that of its own writes alone."""
        if session is None:
            return self._write_ids
        if session.write_ids is None:
            session.write_ids = WriteIds(self._random_bytes)
        return session.write_ids

    def _stamp_expiry(self, operation: Operation) -> None:
        if operation.flags & PUT_DELETE:
            return
        topology = self.router.topology
        settings = topology.keyspaces.get(operation.keyspace) if topology else None
        if ttl_ms := operation.ttl_ms or (settings.ttl_ms if settings else 0):
            operation.expires_ms = ms_of_hlc(operation.timestamp) + ttl_ms

    def _restamp(self, operation: Operation, now: float) -> None:
        """Redo a put above what an owner holds: else it could be outlived by an older write."""
        self.metrics.restamps += 1
        self._withdraw(operation)
        del self.pending[operation.id]
        # A new id: late answers to the write that was given up must not be taken for its answer.
        operation.id = self._next_id
        self._next_id += 1
        self.pending[operation.id] = operation
        self.clock.observe(operation.newer, now)
        operation.begin_anew(self._ids_of(operation.session).draw(), self.clock.tick(now))
        self._attempts.begin(operation, now)

    # ---- ends ----

    def _finish(self, operation: Operation, error: KVError | None = None) -> None:
        self._release(operation)
        self._end(operation, error)

    def _release(self, operation: Operation) -> None:
        operation.is_done = True
        del self.pending[operation.id]
        self.bytes_in_flight -= operation.size
        self._withdraw(operation)

    def _withdraw(self, operation: Operation) -> None:
        """Wait for no further answer. One still in an outbox does not leave any more."""
        if operation.lane is not None:
            operation.lane.unanswered.pop(operation.id, None)
        for lane in operation.others:
            lane.unanswered.pop(operation.id, None)
        operation.others = ()

    def _end(self, operation: Operation, error: KVError | None) -> None:
        operation.is_done = True
        operation.error = error
        if error is not None and error.outcome == "uncertain":
            self.metrics.uncertain += 1
        waiter = operation.waiter
        assert waiter is not None
        if not waiter.done():
            waiter.set_result(operation)

    def _check(self) -> None:
        assert all(not operation.is_done for operation in self.pending.values())
        assert self.bytes_in_flight == sum(o.size for o in self.pending.values())
        for lane in self.lanes:
            lane.check()
            assert lane.unanswered.keys() <= self.pending.keys()
