"""One stream's outbox: when to flush decides between 2,000 and 30,000 operations a second.

A frame costs far more than an operation, so operations wait for company, but not for long: the
outbox is flushed when it holds half of all that is in flight on the stream, or after a few
milliseconds (more while answers take long). Alone, an operation leaves at once; under load frames
grow by themselves.

Laws: order is kept; one frame is written at a time; a frame holds at most the operations and bytes
that the limits allow, a larger message travels alone. What is queued is bounded by its owner, who
gives up a stream that `is_overfull`.
Tests: tests/unit/runtime/test_outgoing.py. Source: design, section 4.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Any, Generic, TypeVar

from kvnode.core.bounds import FLUSH_MS_MOST, FLUSH_SHARE, Limits
from kvnode.core.operations import OPERATION_ID_MAX

_FRESH = 4
"""How many answers' times the average forgets after."""

MessageT = TypeVar("MessageT")


class AnswerTime:
    """How long operations take to be answered just now, from begin to end, in whatever order.

    One is followed at a time: it counts as answered once as many have been as had begun by then.
    So a step costs a comparison, and an operation that is never answered only makes the others
    seem to wait for one more answer.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.ms = 0.0
        """A moving average."""
        self._clock = clock
        self._begun = self._ended = 0
        self._followed = 0
        """How many had begun with the one that is followed; 0: none is."""
        self._since = 0.0

    def begin(self, count: int) -> None:
        """Note operations."""
        self._begun += count
        if count and not self._followed:
            self._followed, self._since = self._begun, self._clock()

    def end(self, count: int) -> None:
        """Note answers; one too many counts for nothing."""
        self._ended = min(self._ended + count, self._begun)
        if self._followed and self._ended >= self._followed:
            took_ms = 1_000 * (self._clock() - self._since)
            self.ms += (took_ms - self.ms) / _FRESH
            self._followed = 0


class InFlight:
    """What a pair has in flight: sent or received, and not yet answered.

    `count` is of what brings company and waits for it: operations on the small stream. Apart, known
    by their ids, are those on bulk (an answer may come on the other stream) and what no client
    waits for: it may take long, and says nothing of how busy anybody is. An answer too many (to an
    earlier stream's request) counts for nothing.
    """

    def __init__(self) -> None:
        self.count = 0
        self.answers = AnswerTime()
        """Of those that are counted."""
        self._apart: set[int] = set()

    @property
    def is_empty(self) -> bool:
        """Whether everything was answered."""
        return not self.count and not self._apart

    def begin(self, messages: Iterable[Any], *, is_bulk: bool) -> None:
        """Note requests; those with id 0 are never answered."""
        count = 0
        for one in messages:
            if is_bulk or one.id > OPERATION_ID_MAX:
                self._apart.add(one.id)
            elif one.id:
                count += 1
        self._apart.discard(0)
        self.count += count
        self.answers.begin(count)

    def end(self, messages: Collection[Any]) -> None:
        """Note answers."""
        answered = len(messages)
        if self._apart:
            ids = {one.id for one in messages} & self._apart
            self._apart -= ids
            answered -= len(ids)
        self.count = max(0, self.count - answered)
        self.answers.end(answered)


class Outgoing(Generic[MessageT]):
    """Queues messages and writes them as frames.

    Args:
        encode: messages to the bytes of one frame.
        size: a message's payload in bytes.
        owed: how many operations the stream has in flight, the queued ones included.
        answer_ms: how long operations of the stream take, ms.
        limits: bounds of frames, and how long a message may wait.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[MessageT]], bytes],
        size: Callable[[MessageT], int],
        owed: Callable[[], int],
        answer_ms: Callable[[], float],
        limits: Limits,
    ) -> None:
        self._encode = encode
        self._size = size
        self._owed = owed
        self._limits = limits
        self._answer_ms = answer_ms
        self._queue: deque[MessageT] = deque()
        self._bytes = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._is_due = False
        self._is_closed = False
        self._is_writing = False
        self._has_news = False

    @property
    def is_overfull(self) -> bool:
        """Whether more is queued than the bound allows: the reader is too slow."""
        return self._bytes > self._limits.outbox_bytes

    @property
    def is_closed(self) -> bool:
        """Whether the stream has been given up: nothing more is taken from it either."""
        return self._is_closed

    @property
    def is_idle(self) -> bool:
        """Whether nothing is queued or being written."""
        return not self._queue and not self._is_writing

    def push(self, messages: Sequence[MessageT]) -> None:
        """Queue messages; they leave when the rule says so."""
        if self._is_closed:
            return
        self._queue.extend(messages)
        self._bytes += sum(map(self._size, messages))
        self.look()

    def look(self) -> None:
        """Look again whether a frame is due: what is in flight may have shrunk."""
        if self._is_due or not self._queue:
            return
        if 2 * len(self._queue) >= self._owed() or self._bytes >= self._limits.frame_bytes:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._wait_ms() / 1_000, self.flush)

    def flush(self) -> None:
        """Write what is queued as soon as the stream takes it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._is_due = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def notice(self) -> None:
        """Write a frame even if it carries no message: its head has news."""
        self._has_news = True
        self.flush()

    async def finish(self) -> None:
        """Wait until nothing is owed any more: the other side has said its last word."""
        while (self._queue or self._is_writing or self._owed() > 0) and not self._is_closed:
            self._drained = self._loop.create_future()
            await self._drained

    def close(self) -> None:
        """Drop what is queued and end `run` once the frame that is being written is."""
        self._is_closed = True
        self._has_news = False
        self._queue.clear()
        self._bytes = 0
        self.flush()
        self._tell_drained()

    def _wait_ms(self) -> float:
        """Return how long company is worth waiting for: little of what an answer takes anyway."""
        return max(self._limits.flush_after_ms, min(FLUSH_SHARE * self._answer_ms(), FLUSH_MS_MOST))

    async def run(self, write: Callable[[bytes], Awaitable[Any]]) -> None:
        """Write frames until closed; whatever `write` raises ends it."""
        while not self._is_closed:
            while self._is_due and (self._queue or self._has_news):
                await self._write_one(write)
            self._is_due = False
            self.look()
            if not self._is_due and not self._is_closed:
                await self._wait()

    async def _write_one(self, write: Callable[[bytes], Awaitable[Any]]) -> None:
        frame = self._take()
        self._is_writing = True
        try:
            await write(frame)
        finally:
            self._is_writing = False
            self._tell_drained()

    def _tell_drained(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _take(self) -> bytes:
        """Return the next frame: as much as it may hold, at least one message."""
        queue, limits = self._queue, self._limits
        self._has_news = False
        if len(queue) <= limits.frame_operations and self._bytes <= limits.frame_bytes:
            messages = list(queue)
            queue.clear()
            self._bytes = 0
        else:
            messages = self._take_some()
        return self._encode(messages)

    def _take_some(self) -> list[MessageT]:
        messages: list[MessageT] = []
        taken = 0
        while self._queue and len(messages) < self._limits.frame_operations:
            size = self._size(self._queue[0])
            if messages and taken + size > self._limits.frame_bytes:
                break
            messages.append(self._queue.popleft())
            taken += size
        self._bytes -= taken
        return messages
