"""One client's pipeline at a node: what it is owed, and when it is told so.

A client may have a second stream, its *bulk* stream, for large values: answers that are large leave
there, whatever they were asked on, so that they never delay small ones.

Laws: what one client is owed is bounded by whoever takes its frames; a client that does not read
its answers loses its stream; one that waits hears something in every second beat.
Tests: tests/unit/runtime/test_client_stream.py, tests/unit/runtime/test_clients.py.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from kvnode.core.bounds import Limits
from kvnode.core.messages import Detail, GetResult, Result, SessionId
from kvnode.runtime.outgoing import AnswerTime, Outgoing

_FASTEST_MS = 30_000
"""What was fastest is looked for in so long, and in so long before."""

Encode = Callable[["ClientStream", Sequence[Result]], bytes]


class ClientStream:
    """One client's pipeline.

    Args:
        session: its number at this node.
        encode: results to the bytes of one frame.
        waiting: how many of its operations wait for their turn.
    """

    def __init__(
        self,
        session: SessionId,
        encode: Encode,
        limits: Limits,
        *,
        waiting: Callable[[SessionId], int],
    ) -> None:
        self.session = session
        self.owed = 0
        self.owed_bytes = 0
        """Of frames not answered yet; an operation's part in them is taken to be the average."""
        self.owes_topology = False
        self.is_too_slow = False
        self.hearing: asyncio.Task[None] | None = None
        self._encode_frame = encode
        self._waiting = waiting
        self._frames = 0
        self._fastest_ms = self._fastest_before_ms = math.inf
        self._fastest_since_ms = -_FASTEST_MS - 1
        self._frames_at_beat = 0
        self.pair = b""
        """Which pair of streams this is one of; empty: none."""
        self.bulk: ClientStream | None = None
        """Where large answers leave, if the client has such a stream."""
        self.wants_bulk = False
        """Whether it was missed."""
        self._bulk_bytes = limits.bulk_bytes
        self._answers = AnswerTime()
        self.outgoing: Outgoing[Result] = Outgoing(
            self._encode, payload, self._in_flight, lambda: self._answers.ms, limits
        )

    def owe(self, count: int, size: int = 0) -> None:
        """Take note of operations that are to be answered here, and of the bytes of their frame."""
        self.owed += count
        self.owed_bytes += size
        self._answers.begin(count)

    def push(self, results: list[Result]) -> None:
        """Answer operations; a client that does not read its answers loses its stream."""
        if any(map(self._is_large, results)):
            results = self._push_large(results)
        self.outgoing.push(results)
        if self.outgoing.is_overfull and not self.is_too_slow:
            self.is_too_slow = True
            self.end()

    def delay_ms(self, sent_ms: int, now_ms: int) -> int:
        """Return how much longer a frame was under way than the fastest lately.

        Both clocks are monotonic, each with an origin of its own. 0 if the sender told nothing.
        """
        if not sent_ms:
            return 0
        apart_ms = now_ms - sent_ms
        if now_ms - self._fastest_since_ms > _FASTEST_MS:
            # A machine that slept has its clock behind for good: that is no delay for ever.
            self._fastest_before_ms, self._fastest_since_ms = self._fastest_ms, now_ms
            self._fastest_ms = apart_ms
        self._fastest_ms = min(self._fastest_ms, apart_ms)
        return int(apart_ms - min(self._fastest_ms, self._fastest_before_ms))

    def beat(self) -> bool:
        """Say something if an answer is owed and nothing was said since the last beat.

        Returns whether anything is owed.
        """
        if self.owed <= 0:
            return False
        if self._frames == self._frames_at_beat:
            self.outgoing.notice()
        self._frames_at_beat = self._frames
        return True

    def end(self) -> None:
        """End the stream, whatever is under way on it."""
        self.outgoing.close()
        if self.hearing is not None:
            self.hearing.cancel()

    def _is_large(self, result: Result) -> bool:
        if type(result) is not GetResult:
            return False
        value = result.value
        return value is not None and len(value) > self._bulk_bytes

    def _push_large(self, results: list[Result]) -> list[Result]:
        """Have large answers leave on the bulk stream; return the others."""
        bulk = self.bulk
        if bulk is None or bulk.outgoing.is_closed:
            self.wants_bulk = True
            return results
        large = [result for result in results if self._is_large(result)]
        self._answered(len(large))
        bulk.owe(len(large))
        bulk.push(large)
        return [result for result in results if not self._is_large(result)]

    def _in_flight(self) -> int:
        """What company an answer may expect soon: not that of operations that wait their turn."""
        return max(min(self.owed, 1), self.owed - self._waiting(self.session))

    def _answered(self, count: int) -> None:
        self.owed -= count
        self._answers.end(count)

    def _encode(self, results: Sequence[Result]) -> bytes:
        self._frames += 1
        self.owed_bytes -= self.owed_bytes * len(results) // max(1, len(results), self.owed)
        self._answered(len(results))
        return self._encode_frame(self, results)


def payload(result: Result) -> int:
    """Return about how many bytes an answer takes."""
    if isinstance(result, GetResult):
        size = 64 + len(result.value or b"") + len(result.context)
        return size if result.detail is None else size + _detail_bytes(result.detail)
    return 128


def _detail_bytes(detail: Detail) -> int:
    """Return about what a read's story takes. Not exact: values may be left out of it."""
    siblings = sum(128 + len(sibling.value) for sibling in detail.siblings)
    return 256 + siblings + 256 * len(detail.replicas)
