"""Where each attempt of an operation goes, and what its refusal, loss or lateness leads to.

Decides and never acts: fills the lanes' outboxes. Laws: an operation waits for an answer of `lane`
and of `others`, and takes the first that comes; an attempt that was lost or is owed by a silent
node is made elsewhere at once, whatever that costs; all other extra attempts keep their budgets.
Tests: tests/unit/client/test_attempts.py, tests/unit/client/test_engine.py.
Source: design, section 2.3; Brooker, "Exponential Backoff And Jitter" (2015).
Left out: when operations begin and end (`engine`), who is silent (`silence`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from random import Random

from kvclient.bounds import Bounds
from kvclient.budget import Budget
from kvclient.errors import KVError
from kvclient.hedging import Hedging
from kvclient.operation import Lane, LaneState, Operation
from kvclient.results import Metrics
from kvclient.retry import (
    EFFECT_POSSIBLE,
    Code,
    Refusal,
    backoff_s,
    comes_too_late,
    error_now,
    is_in_doubt,
    overloaded,
)
from kvclient.routing import Router


class Attempts:
    """All attempts of one client.

    Args:
        router: chooses nodes.
        metrics: what is counted.
        rng: for jitter.
        wake_at: called with an instant at which `begin_due` must be called at the latest.
    """

    def __init__(
        self,
        router: Router,
        metrics: Metrics,
        *,
        rng: Random,
        bounds: Bounds,
        wake_at: Callable[[float], None],
    ) -> None:
        self.hedging = Hedging(bounds)
        self.budget = Budget(bounds.retry_share, bounds.retry_burst)
        self._router = router
        self._metrics = metrics
        self._rng = rng
        self._bounds = bounds
        self._wake_at = wake_at
        self._waiting: list[tuple[float, int, Operation]] = []

    # ---- beginning ----

    def begin(self, operation: Operation, now: float) -> None:
        """Send an operation to the best node there is, or wait for one."""
        if comes_too_late(operation, now, self._bounds):
            return
        if (lane := self._router.choose(operation, now)) is None:
            self._begin_later(operation, self._bounds.nobody_ms / 1000, now)
        else:
            self._send(operation, lane, now)

    def next_due(self) -> float:
        """Return the instant of the next `begin_due`."""
        return self._waiting[0][0] if self._waiting else math.inf

    def begin_due(self, now: float) -> None:
        """Send what has waited long enough."""
        while self._waiting and self._waiting[0][0] <= now:
            _, number, operation = heappop(self._waiting)
            # One that was redone meanwhile has another id, and is on its way.
            if not operation.is_done and operation.id == number:
                self.begin(operation, now)

    def clear(self) -> None:
        """Begin nothing any more."""
        self._waiting.clear()

    def _send(self, operation: Operation, lane: Lane, now: float) -> None:
        operation.lane = lane
        operation.sent_at = now
        operation.attempts += 1
        operation.tries += 1
        self._metrics.attempts += 1
        lane.queue(operation, now)

    def _begin_later(self, operation: Operation, at_least_s: float, now: float) -> None:
        # Jitter on top of what a node asked for: else all that it refused come back together.
        wait_s = at_least_s * self._rng.uniform(1.0, 1.5)
        at = now + wait_s + backoff_s(operation.attempts, self._rng, self._bounds)
        heappush(self._waiting, (at, operation.id, operation))
        self._wake_at(at)

    # ---- what becomes of them ----

    def on_refusal(
        self, lane: Lane, operation: Operation, refusal: Refusal, now: float
    ) -> KVError | None:
        """A node refused one attempt; return the error if that is the operation's end."""
        _note(operation, lane, refusal, now)
        if refusal.code is Code.OVERLOADED:
            self.hedging.rest(now)
        elif refusal.is_for_want_of_nodes:
            self._router.avoid(operation.partition, lane, now)
            self._router.go_across(operation, refusal.reached())
        if operation.lane is not lane:
            operation.others = without(operation.others, lane)
            return None  # another attempt is under way
        operation.lane = None
        operation.refused = (*operation.refused, lane)
        if (earlier := _alive(operation.others)) is not None:
            operation.lane = earlier
            operation.others = without(operation.others, earlier)
            return None  # so is an earlier one
        nodes = len(self._router.order(operation.partition))
        if (error := error_now(operation, refusal, nodes=nodes, now=now)) is not None:
            return error
        pause_s = self._pause_s(operation, refusal)
        if pause_s is None:
            return overloaded(operation, refusal)
        self._metrics.retries += 1
        self._begin_later(operation, pause_s, now)
        return None

    def _pause_s(self, operation: Operation, refusal: Refusal) -> float | None:
        """Return how long to wait besides the backoff; None: not worth another attempt.

        Past the budget all slow down and none fails, but for what nodes are too busy to begin.
        """
        asked_s = refusal.retry_after_ms / 1000
        if refusal.is_for_want_of_nodes:
            # While a network is in halves, to ask the next node is the only way.
            is_free, rounds = self._router.has_another(operation), 1
        else:
            is_free, rounds = False, min(operation.attempts, 5)
        if is_free or self.budget.spend():
            return asked_s
        if refusal.code is Code.OVERLOADED and not is_in_doubt(operation):
            return None
        self.budget.owe()
        return max(asked_s, self._bounds.retry_scarce_ms / 1000 * rounds)

    def on_broken(self, lane: Lane, reason: str, now: float) -> None:
        """A stream ended: what it had not answered is asked elsewhere at once."""
        lane.state = LaneState.DOWN
        left, queued = lane.empty()
        for operation in left:
            operation.note(lane.node, reason, now)
            operation.may_have_applied |= operation.is_put
        for operation in queued:
            operation.tries -= 1  # it never left
        for operation in (*left, *queued):
            if operation.lane is lane:
                operation.lane = None
                self._reroute(operation, now)
            else:
                operation.others = without(operation.others, lane)

    def on_silent(self, lane: Lane, now: float) -> None:
        """A node owes answers and says nothing: all that it owes is asked elsewhere at once."""
        self._metrics.suspicions += 1
        lane.state = LaneState.SUSPECTED
        lane.suspected_at = now
        for operation in lane.take_back():
            operation.lane = None
            operation.tries -= 1
            self._reroute(operation, now)
        for operation in list(lane.unanswered.values()):
            if operation.lane is lane:
                self._ask_too(operation, lane, now)

    def _reroute(self, operation: Operation, now: float) -> None:
        """Make an attempt anew that was lost, unless another is under way."""
        if (earlier := _alive(operation.others)) is not None:
            operation.lane = earlier
            operation.others = without(operation.others, earlier)
            return
        self._metrics.reroutes += 1
        self.begin(operation, now)

    def _ask_too(self, operation: Operation, silent: Lane, now: float) -> None:
        """Ask elsewhere too; whoever answers first wins."""
        earlier = _alive(operation.others)
        operation.others = (*without(operation.others, earlier), silent)
        operation.lane = earlier
        if earlier is not None:
            return
        operation.note(silent.node, "pending", now)
        self._metrics.reroutes += 1
        self.begin(operation, now)

    def hedge(self, lanes: Sequence[Lane], now: float) -> None:
        """Ask another node too where one is slower than usual, within the budget."""
        after_s = self.hedging.after_s(now)
        for lane in lanes:
            for operation in lane.take_overdue(after_s, now):
                self._hedge_one(operation, lane, now)

    def _hedge_one(self, operation: Operation, lane: Lane, now: float) -> None:
        """Ask for one operation elsewhere too, if somebody is ready and the budget allows it."""
        if operation.is_done or operation.lane is not lane or operation.others:
            return
        operation.others = (lane,)
        other = self._router.choose(operation, now)
        if other is None or other.state is not LaneState.READY or not self.hedging.budget.spend():
            operation.others = ()
            return
        operation.note(lane.node, "slow", now)
        self._metrics.hedges += 1
        self._send(operation, other, now)


def without(lanes: tuple[Lane, ...], gone: Lane | None) -> tuple[Lane, ...]:
    """Return all lanes but one."""
    return tuple(lane for lane in lanes if lane is not gone)


def _alive(lanes: tuple[Lane, ...]) -> Lane | None:
    """Return a lane from which an answer may still be expected."""
    return next((lane for lane in lanes if lane.state < LaneState.SUSPECTED), None)


def _note(operation: Operation, lane: Lane, refusal: Refusal, now: float) -> None:
    """Keep what a refusal says about its operation."""
    for reply in refusal.replies:
        operation.note(reply.node, reply.answer, now)
    operation.note(lane.node, f"refused: {refusal.message}", now)
    if operation.is_put and (refusal.is_uncertain or refusal.code in EFFECT_POSSIBLE):
        operation.may_have_applied = True
    else:
        operation.tries -= 1
    operation.failure = refusal
