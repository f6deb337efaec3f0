"""Group commit: one thread that flushes the engine for everyone who waits.

It decides when to flush. While a flush is under way requests gather, and the next flush serves them
all; so under load the disk is never idle and never asked twice for the same bytes.

Laws (tests/unit/storage/test_committer.py):
  1. `notify(p)` comes after a flush that began after every write up to p was applied.
  2. A request that comes during a flush is served by a later one.
  3. After a failure nothing is notified any more.

`notify` and `on_failure` run on the storage thread. The thread sets nothing global; how soon it
gets the interpreter lock back after a flush is up to `sys.setswitchinterval`: the process's choice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Protocol

from kvnode.storage.port import Position

_START = Position(0)


class Flushes(Protocol):
    """An engine, as far as it is used here."""

    def flush(self) -> Position:
        """Make all that was written durable; return up to where that is."""


class Committer:
    """Flushes one engine on a thread of its own."""

    def __init__(
        self,
        engine: Flushes,
        notify: Callable[[Position], None],
        on_failure: Callable[[BaseException], None],
        *,
        periodic_s: float = 1.0,
    ) -> None:
        """Start the thread.

        `notify` gets each position that became durable, rising. `on_failure` is called once, with
        what ended the thread. `periodic_s` bounds how long `request_later` may wait, in seconds.
        """
        self._engine = engine
        self._notify = notify
        self._on_failure = on_failure
        self._periodic_s = periodic_s
        self._wanted = _START
        self._wanted_later = _START
        self._durable = _START
        self._later_due: float | None = None
        self._is_idle = False
        self._is_closing = False
        # Wakes the thread; what it carries means nothing, and one ring too many is harmless.
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="storage", daemon=True)
        self._thread.start()

    def request(self, position: Position) -> None:
        """Have everything up to `position` flushed as soon as possible.

        Cost: a comparison while a flush is pending, else about a microsecond.
        """
        if position > self._wanted:
            self._wanted = position
            if self._is_idle:
                self._ring()

    def request_later(self, position: Position) -> None:
        """Have everything up to `position` flushed within the period, or with an earlier flush."""
        if position > self._wanted_later:
            self._wanted_later = position
            # With an instant set the thread wakes by itself. Idle is read after the line above is
            # done, and the thread looks once more after it has become idle: no request is missed.
            if self._is_idle and self._later_due is None:
                self._ring()

    def close(self) -> None:
        """Flush what was requested, now or later, and end the thread. Close the engine after."""
        self._is_closing = True
        self._bell.put(None)
        self._thread.join()

    def _ring(self) -> None:
        # Lowered by whoever rings, so that a burst of requests rings once.
        self._is_idle = False
        self._bell.put(None)

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._durable = self._engine.flush()
                # What came during the flush begins a period of its own.
                self._later_due = None
                self._notify(self._durable)
        except BaseException as error:  # noqa: BLE001 - a dead storage thread must stop the node
            self._on_failure(error)

    def _wait_for_work(self) -> bool:
        """Return True as soon as a flush is due, False when closed with nothing left to flush."""
        while not self._is_due():
            if self._is_closing:
                return False
            self._is_idle = True
            # Looked at again only now: a request before this line did not ring.
            if not self._is_due() and not self._is_closing:
                self._sleep()
            self._is_idle = False
        return True

    def _is_due(self) -> bool:
        if self._wanted > self._durable:
            return True
        if self._wanted_later <= self._durable:
            self._later_due = None
            return False
        if self._later_due is None:
            self._later_due = time.monotonic() + self._periodic_s
        return self._is_closing or time.monotonic() >= self._later_due

    def _sleep(self) -> None:
        due = self._later_due
        try:
            self._bell.get(timeout=None if due is None else max(0.0, due - time.monotonic()))
        except Empty:
            return  # The period is over.
