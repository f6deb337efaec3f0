"""One get or put on its way, and the lane to one node on which it travels.

Decides when a frame leaves and what is in it; the stream only carries that out. Laws: an operation
is in at most one outbox; `unanswered` holds only what left and is not finished; a frame keeps its
bounds.
Tests: tests/unit/client/test_lane.py.
Source: design, section 4 (the rule in bold: flush when the outbox holds half of all in flight).
Left out: what an answer leads to (`engine`), and sockets (`stream`).

Not frozen dataclasses: these are the hot path, measured at about 1 us to make.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Protocol

from kvclient.bounds import BOUNDS, Bounds
from kvclient.errors import KVError, Reply

if TYPE_CHECKING:
    from kvclient.session import Session

GET_EXPLAIN = 1
PUT_DELETE = 2
PUT_EXPLICIT = 4
OVERHEAD_BYTES = 64
WRITE_ID_BYTES = 16
CLIENT_BYTES = 8
"""Of a write id: they name the client."""


class Waiter(Protocol):
    """Whoever waits for an operation; an asyncio.Future is one."""

    def done(self) -> bool:
        """Whether nobody waits any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Wake up: the operation is finished."""
        ...


class LaneState(IntEnum):
    """How much may be expected of a node. Lower is better."""

    READY = 0
    IDLE = 1
    """Never dialled."""
    CONNECTING = 2
    """Dialled for the first time."""
    DRAINING = 3
    """About to stop."""
    SUSPECTED = 4
    """Owes answers and is silent."""
    DOWN = 5
    """Known to be unreachable; dialled in the background."""


class Operation:
    """A get or a put: what to ask, how often it was tried, and in the end its answer or error."""

    __slots__ = (
        "attempts",
        "began",
        "beside",
        "confidence",
        "context",
        "deadline",
        "detail",
        "error",
        "expires_ms",
        "failure",
        "flags",
        "id",
        "is_done",
        "is_put",
        "key",
        "keyspace",
        "lane",
        "may_have_applied",
        "newer",
        "others",
        "partition",
        "quorum",
        "refused",
        "replies",
        "seen",
        "sent_at",
        "session",
        "size",
        "timestamp",
        "tries",
        "ttl_ms",
        "value",
        "waiter",
        "watermark",
        "write_id",
    )

    def __init__(
        self,
        keyspace: str,
        key: bytes,
        *,
        is_put: bool,
        value: bytes | None = None,
        quorum: int = 0,
        flags: int = 0,
        context: bytes = b"",
        ttl_ms: int = 0,
    ) -> None:
        self.keyspace = keyspace
        self.key = key
        self.is_put = is_put
        self.value = value
        self.quorum = quorum
        self.flags = flags
        self.context = context
        self.ttl_ms = ttl_ms
        self.size = OVERHEAD_BYTES + len(key) + (len(value) if value else 0)
        self.id = 0
        self.partition = 0
        self.began = self.deadline = self.sent_at = 0.0
        self.watermark = self.write_id = b""
        self.timestamp = self.expires_ms = self.newer = 0
        self.attempts = 0
        self.tries = 0
        """Attempts under the present write id that may have had an effect."""
        self.is_done = self.may_have_applied = False
        self.lane: Lane | None = None
        self.others: tuple[Lane, ...] = ()
        """Lanes besides `lane` on which an attempt is unanswered."""
        self.refused: tuple[Lane, ...] = ()
        self.beside: tuple[Lane, ...] = ()
        """Lanes to nodes that the last one to refuse for want of others did reach."""
        self.replies: tuple[Reply, ...] = ()
        self.failure: Any = None
        self.error: KVError | None = None
        self.session: Session | None = None
        """Whose it is; None: nobody's, or that of the client."""
        self.waiter: Waiter | None = None
        self.seen = b""
        self.confidence = 0
        self.detail: Any = None

    @property
    def is_explicit(self) -> bool:
        """Whether the caller gave the context, and with it what to replace."""
        return bool(self.flags & PUT_EXPLICIT)

    def begin_anew(self, write_id: bytes, timestamp: int) -> None:
        """Become a new write of the same value, which has seen what the old one's answer covers."""
        self.write_id, self.timestamp, self.context = write_id, timestamp, self.seen
        self.newer = self.tries = 0
        self.may_have_applied = True
        self.refused = self.beside = ()

    def note(self, node: str, answer: str, now: float) -> None:
        """Keep what a node said, for the error that may come of it. Bounded."""
        reply = Reply(node, answer, round((now - self.began) * 1000, 1))
        self.replies = (*self.replies[-31:], reply)


class WriteIds:
    """Names for the writes of one session: eight bytes of its own, then a number that grows.

    So nodes know the order of its puts, wherever these meet. Another session has other eight bytes;
    they are what nodes call a client.
    """

    __slots__ = ("_client", "_count")

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._client = random_bytes(CLIENT_BYTES)
        self._count = 0

    def draw(self) -> bytes:
        """Return a write id that was never returned before, and is greater than those that were."""
        self._count += 1
        return self._client + self._count.to_bytes(WRITE_ID_BYTES - CLIENT_BYTES, "big")


_FRESH = 8
"""How many answers' times a lane's average forgets after."""


class Lane:
    """What is queued for one node and what it has not answered.

    `wake` is called when something was queued; whoever writes then asks `wait_s` and `take`.
    """

    __slots__ = (
        "_bounds",
        "_sent",
        "address",
        "answer_ms",
        "bulk",
        "dial",
        "heard_at",
        "is_apart",
        "node",
        "number",
        "outbox",
        "queued_at",
        "state",
        "suspected_at",
        "unanswered",
        "waiting",
        "wake",
        "wake_bulk",
    )

    def __init__(
        self,
        node: str,
        *,
        number: int = 0,
        address: str = "",
        wake: Callable[[], None],
        dial: Callable[[], None],
        wake_bulk: Callable[[], None] | None = None,
        bounds: Bounds = BOUNDS,
    ) -> None:
        self.node = node
        self.number = number
        self.address = address
        self.wake = wake
        self.wake_bulk = wake_bulk or wake
        self.dial = dial
        self.state = LaneState.IDLE
        self.outbox: list[Operation] = []
        self.bulk: deque[Operation] = deque()
        """Queued too, but too large to go before small ones: they leave on another stream."""
        self.is_apart = True
        """Whether there is, or may be, such a stream."""
        self._sent: deque[list[Operation]] = deque()
        """Small frames that have left and were not yet looked at for being late."""
        self.unanswered: dict[int, Operation] = {}
        self.queued_at = 0.0
        self.answer_ms = 0.0
        """How long its answers take just now, a moving average."""
        self.heard_at = 0.0
        self.suspected_at = 0.0
        self.waiting = 0
        """How many operations have not begun there, as the node last said: it is busy."""
        self._bounds = bounds

    def queue(self, operation: Operation, now: float) -> None:
        """Put an operation into the outbox."""
        if not self.owes:
            self.heard_at = now  # until now the node owed nothing
        if operation.size > self._bounds.bulk_bytes and self.is_apart:
            self.bulk.append(operation)
            self.wake_bulk()
            return
        if not self.outbox:
            self.queued_at = now
        self.outbox.append(operation)
        self.wake()

    def wait_s(self, now: float) -> float | None:
        """Return the seconds until a frame should leave; None if nothing is queued."""
        if not self.outbox:
            return None
        if len(self.outbox) >= len(self.unanswered):
            return 0.0
        bounds = self._bounds
        patience_ms = min(bounds.flush_share * self.answer_ms, bounds.flush_most_ms)
        wait_ms = max(bounds.flush_ms, patience_ms)
        return max(0.0, self.queued_at + wait_ms / 1000 - now)

    def note_answer(self, took_s: float) -> None:
        """An answer came after so many seconds."""
        self.answer_ms += (1_000 * took_s - self.answer_ms) / _FRESH

    def take(self) -> list[Operation]:
        """Return the operations of the next frame; they are unanswered from now on."""
        count = self._frame_length()
        frame = [operation for operation in self.outbox[:count] if not operation.is_done]
        del self.outbox[:count]
        if self.outbox:
            self.queued_at = self.outbox[0].sent_at
        unanswered = self.unanswered
        for operation in frame:
            unanswered[operation.id] = operation
        if frame:
            self._sent.append(frame)
        return frame

    def take_bulk(self) -> list[Operation]:
        """Return the next operation that travels apart, alone in its frame; empty if none waits."""
        while self.bulk:
            operation = self.bulk.popleft()
            if not operation.is_done:
                self.unanswered[operation.id] = operation
                return [operation]
        return []

    def take_back(self) -> list[Operation]:
        """Return what has not left, and does not leave here any more."""
        queued = [operation for operation in self.outbox if not operation.is_done]
        queued += [operation for operation in self.bulk if not operation.is_done]
        self.outbox.clear()
        self.bulk.clear()
        return queued

    def take_overdue(self, after_s: float | None, now: float) -> list[Operation]:
        """Return what left so long ago and is not answered, once; None: forget what is old."""
        limit = now - (self._bounds.silence_ms / 1000 if after_s is None else after_s)
        overdue: list[Operation] = []
        while self._sent and self._sent[0][-1].sent_at <= limit:
            frame = self._sent.popleft()
            if after_s is not None:
                overdue += [operation for operation in frame if operation.id in self.unanswered]
        return overdue

    def empty(self) -> tuple[list[Operation], list[Operation]]:
        """Give up everything; return what had left and what had not, unfinished operations only."""
        left = [operation for operation in self.unanswered.values() if not operation.is_done]
        self.unanswered.clear()
        self._sent.clear()
        return left, self.take_back()

    def is_stuck(self, now: float) -> bool:
        """Whether operations wait for too long to leave, although the node could be written to."""
        if not self.outbox or self.state is not LaneState.READY:
            return False
        return now - self.queued_at > self._bounds.queue_ms / 1000

    @property
    def owes(self) -> bool:
        """Whether the node has something to answer."""
        return bool(self.unanswered or self.outbox or self.bulk)

    def is_silent(self, now: float, patience: float = 1.0) -> bool:
        """Whether the node owes something and has sent nothing at all for too long."""
        return self.owes and now - self.heard_at >= self._bounds.silence_ms / 1000 * patience

    def _frame_length(self) -> int:
        size = 0
        for count, operation in enumerate(self.outbox[: self._bounds.frame_operations]):
            size += operation.size
            if size > self._bounds.frame_bytes:
                return max(count, 1)
        return min(len(self.outbox), self._bounds.frame_operations)

    def check(self) -> None:
        """Assert every invariant of a lane."""
        queued = [id(operation) for operation in (*self.outbox, *self.bulk)]
        assert len(set(queued)) == len(queued), "queued twice"
        assert all(key == operation.id for key, operation in self.unanswered.items())
