"""The one background thread in which all plain Clients of a process have their event loop.

Decides when that thread runs and how calls get into it. Laws: it runs while at least one client is
open; many submissions cost one wake-up; after a fork nothing waits for a thread that is not there.
Tests: tests/unit/client/test_thread.py.
Source: design, section 6 ("safe to use from threads; after a fork it says so rather than hang").
Left out: AsyncClient, which lives in its caller's loop.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


FORKED = (
    "gRPC does not survive a fork: make the client in the child process, before any in its parent, "
    "or start processes by spawn (multiprocessing.set_start_method)"
)


class _Process:
    """What this process has one of."""

    def __init__(self) -> None:
        self.generation = 0
        self.is_used = False
        self.is_lost = False
        self.thread: LoopThread | None = None
        self.lock = threading.Lock()

    def on_fork(self) -> None:
        """In the child: the thread stayed behind, and the lock may be held for ever."""
        self.generation += 1
        self.is_lost = self.is_lost or self.is_used
        self.thread = None
        self.lock = threading.Lock()


_process = _Process()
os.register_at_fork(after_in_child=_process.on_fork)


def generation() -> int:
    """Return a number that differs between a process and its forked children."""
    return _process.generation


def use() -> None:
    """Say that gRPC is about to run here. Raises: RuntimeError where it cannot run any more."""
    if _process.is_lost:
        raise RuntimeError(FORKED)
    _process.is_used = True


class PollerNoise(logging.Filter):
    """Keeps two known complaints of grpc.aio's poller from the user's stderr.

    With several event loops in a process, it wakes them all and only one finds something to read;
    asyncio then logs the others' BlockingIOError. And what a loop left behind when it was closed
    it still tries to deliver. Neither means anything.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for those alone."""
        if "PollerCompletionQueue._handle_events" not in record.getMessage():
            return True
        error = record.exc_info[1] if record.exc_info else None
        is_late = isinstance(error, RuntimeError) and "Event loop is closed" in str(error)
        return not (is_late or isinstance(error, BlockingIOError))


_noise = PollerNoise()
logging.getLogger("asyncio").addFilter(_noise)


class LoopThread:
    """An event loop in a daemon thread."""

    def __init__(self) -> None:
        self.users = 0
        self.generation = generation()
        self.loop = asyncio.new_event_loop()
        self._submitted: deque[Callable[[], object]] = deque()
        self._is_woken = False
        self._thread = threading.Thread(target=self._run, name="kvclient", daemon=True)
        self._thread.start()

    def post(self, action: Callable[[], object]) -> None:
        """Have an action done in the loop, soon and in order. Never waits."""
        self._submitted.append(action)
        if not self._is_woken:
            self._is_woken = True
            self.loop.call_soon_threadsafe(self._drain)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for it."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def finish(self, work: Coroutine[Any, Any, None], *, timeout_s: float) -> None:
        """Run a coroutine in the loop; wait for it, but not for ever, and not from within."""
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        if threading.current_thread() is not self._thread:
            with suppress(TimeoutError):
                future.result(timeout_s)

    def stop(self) -> None:
        """End the loop and the thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def _drain(self) -> None:
        # The flag first: what is appended from here on either is seen below or wakes again.
        self._is_woken = False
        submitted = self._submitted
        left = len(submitted)
        try:
            while left:
                left -= 1
                submitted.popleft()()
        finally:
            if left:  # one failed: the loop tells of it, and what came after must not wait for it
                self._is_woken = True
                self.loop.call_soon(self._drain)


def acquire() -> LoopThread:
    """Return the process's thread, starting it for its first user."""
    use()
    with _process.lock:
        if _process.thread is None:
            _process.thread = LoopThread()
        _process.thread.users += 1
        return _process.thread


def release(thread: LoopThread) -> None:
    """Give the thread back; with its last user it ends."""
    with _process.lock:
        thread.users -= 1
        is_last = thread.users == 0
        if is_last and _process.thread is thread:
            _process.thread = None
    if is_last:
        thread.stop()
