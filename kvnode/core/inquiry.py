"""Inquiries: keys about which other owners are asked, a few at a time, until enough has been heard.

    noticed --its rest is over, and the window has room--> asked --answered--> closed
       ^                                                     |
       '-------- a rest -------- an owner was silent --------'

What is asked, what the answers mean and when they are enough is the caller's (kvnode.core.recovery,
kvnode.core.dispute).

Laws: a key is noticed once, however often it is found; no more than the window is asked about at a
time, and what is noticed while as many wait as may is forgotten; all are given the same time to
answer, and rest as long.
Tests: tests/unit/core/test_inquiry.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from kvnode.core.keys import StorageKey
from kvnode.core.messages import Instant, Outbox

REST_US = 5_000_000
"""Between two attempts at one key."""
TIMEOUT_US = 2_000_000
"""How long the silent are waited for."""


@dataclass(slots=True)
class Inquiry:
    """One key that is being asked about."""

    key: StorageKey
    id: int
    """Of the requests."""
    ends_at: Instant
    attempt: int
    """1 for the first."""


InquiryT = TypeVar("InquiryT", bound=Inquiry)

Begin = Callable[[Inquiry, Outbox], InquiryT | None]
"""Ask about a key; None: it is of no interest any more."""


class Inquiries(Generic[InquiryT]):
    """The keys of one node that are asked about, or wait for it."""

    __slots__ = ("_begin", "_first_id", "_most", "_next", "_open", "_waiting", "_window")

    def __init__(
        self, first_id: int, begin: Begin[InquiryT], *, window: int, waiting_most: int
    ) -> None:
        """Begin without any; ids of requests come after `first_id`."""
        self._first_id = first_id
        self._begin = begin
        self._window = window
        self._most = waiting_most
        self._next = 0
        self._open: dict[int, InquiryT] = {}
        self._waiting: dict[StorageKey, tuple[Instant, int]] = {}
        """key -> (not before, attempts so far)."""

    @property
    def keys(self) -> int:
        """How many keys are asked about, or wait for it."""
        return len(self._waiting) + len(self._open)

    def add(self, key: StorageKey, now: Instant) -> bool:
        """A key was noticed. Returns whether that is news; what does not fit is none."""
        known = key in self._waiting or any(each.key == key for each in self._open.values())
        if known or len(self._waiting) >= self._most:
            return False
        self._waiting[key] = (now, 0)
        return True

    def get(self, number: int) -> InquiryT | None:
        """Return the inquiry whose requests have this id."""
        return self._open.get(number)

    def close(self, inquiry: InquiryT) -> None:
        """Enough was heard."""
        del self._open[inquiry.id]

    def retry(self, inquiry: InquiryT, now: Instant) -> None:
        """Too little was heard: ask again, after a rest."""
        del self._open[inquiry.id]
        self._waiting[inquiry.key] = (Instant(now + REST_US), inquiry.attempt)

    def on_time(self, now: Instant, out: Outbox) -> None:
        """Give up on silent owners for now, and begin what the window allows."""
        if not self._open and not self._waiting:
            return
        for inquiry in [*self._open.values()]:
            if now < inquiry.ends_at:
                break  # in order: all have the same patience
            self.retry(inquiry, now)
        for key, (not_before, attempts) in [*self._waiting.items()]:
            if len(self._open) >= self._window:
                return
            if now >= not_before:
                del self._waiting[key]
                self._ask(key, attempts + 1, now, out)

    def next_wake(self) -> Instant | None:
        """Return when `on_time` has something to do; None: no key is noticed."""
        if not self._open and not self._waiting:
            return None
        first = next(iter(self._open.values()), None)
        due = [] if first is None else [first.ends_at]
        if self._waiting and len(self._open) < self._window:
            due.append(min(not_before for not_before, _ in self._waiting.values()))
        return min(due, default=None)

    def _ask(self, key: StorageKey, attempt: int, now: Instant, out: Outbox) -> None:
        self._next += 1
        asked = Inquiry(key, self._first_id | self._next, Instant(now + TIMEOUT_US), attempt)
        inquiry = self._begin(asked, out)
        if inquiry is not None:
            self._open[inquiry.id] = inquiry
