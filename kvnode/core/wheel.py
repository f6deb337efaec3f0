"""A coarse wheel of instants: when which operation wants to be woken.

Adding costs O(1). Instants are rounded up to 4.096 ms; an operation that ended meanwhile wakes
nobody, or is simply not found by whoever asked. Never early, at most one notch late.
Tests: tests/unit/core/test_wheel.py.
"""

from __future__ import annotations

from collections.abc import Container

from kvnode.core.messages import Instant

_NOTCH_BITS = 12
_NEAR_US = 1 << 16
_COARSE_BITS = 14


def earliest(*instants: Instant | None) -> Instant | None:
    """Return the first of several instants at which something is to be done; None: never.

    Asked several times a turn: a loop, for `min` of a generator takes three times as long.
    """
    first = None
    for at in instants:
        if at is not None and (first is None or at < first):
            first = at
    return first


def at_common_instant(at: int, *, now: Instant) -> Instant:
    """Return `at`, or if that is more than 66 ms off an instant up to 16 ms later that many share:
    an idle node is then woken for many operations at once."""
    return Instant(at | (1 << _COARSE_BITS) - 1 if at - now > _NEAR_US else at)


class Wheel:
    """Operations by the notch at which they are due."""

    __slots__ = ("_next", "_notches")

    def __init__(self) -> None:
        self._notches: dict[int, list[int]] = {}
        self._next: int | None = None

    def add(self, at: Instant, op_id: int) -> None:
        """Wake `op_id` at `at` or up to a notch later."""
        notch = (at >> _NOTCH_BITS) + 1
        queue = self._notches.get(notch)
        if queue is not None:
            queue.append(op_id)
            return
        self._notches[notch] = [op_id]
        if self._next is None or notch < self._next:
            self._next = notch

    def next_due(self, live: Container[int]) -> Instant | None:
        """Return the earliest instant at which an operation is due that is in `live`; those before
        it that are not are forgotten: a node is not woken for what has ended. Cost: amortised O(1)
        for each that was added, and a look at every notch for each notch that has ended."""
        while self._next is not None:
            queue = self._notches[self._next]
            while queue and queue[-1] not in live:
                queue.pop()
            if queue:
                return Instant(self._next << _NOTCH_BITS)
            del self._notches[self._next]
            self._next = min(self._notches, default=None)
        return None

    def take_due(self, now: Instant) -> list[int]:
        """Remove and return what is due, in order. Costs a look at every notch that is held."""
        limit = now >> _NOTCH_BITS
        if self._next is None or self._next > limit:
            return []
        due = sorted(notch for notch in self._notches if notch <= limit)
        taken = [op_id for notch in due for op_id in self._notches.pop(notch)]
        self._next = min(self._notches, default=None)
        return taken
