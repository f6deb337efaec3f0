"""The pump: feeds events to the core, turn by turn, and carries out what it decides.

One turn: the events since the last one (no more than keep the loop for a moment), one multi-get,
one decision, one write batch, one outbox per destination. What must be durable first waits for its
position in the log; the storage thread flushes for all that wait. Dumb on purpose: every decision
is the core's.

Laws: turns run one after another in the order of their events; nothing of a turn is sent before
its batch is written, nothing held before it is durable; a batch that finds the store stalled or
the disk's reserve used up waits, and all turns behind it; any other storage failure stops the node,
and so does a record whose block is bad: once, abstaining, its turn goes on (kvnode.runtime.serve
has the store rebuilt).
Tests: tests/unit/runtime/test_pump.py. Source: design, section 3.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar

from kvnode.core.batch import Family
from kvnode.core.bounds import TURN_OPERATIONS
from kvnode.core.conversations import SETTLE_ASKS, SETTLE_TELLS, PeerAsks, PeerTells
from kvnode.core.messages import (
    ClientOps,
    ClientPut,
    Event,
    Failure,
    Instant,
    NodeNumber,
    PeerMessage,
    PeerReplies,
    PeerRequests,
    PutResult,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Result,
    Scan,
    Scanned,
    SessionId,
    Status,
    SyncedUpTo,
)
from kvnode.core.node import Node, Turn
from kvnode.runtime.clock import now_us as now_us
from kvnode.runtime.clock import wall_ms as wall_ms
from kvnode.storage.port import (
    Engine,
    Position,
    ReadFailure,
    StorageDamaged,
    StorageFull,
    StorageStalled,
)

Key = TypeVar("Key", bound=bytes)

_NONE: frozenset[bytes] = frozenset()
_STALL_RETRY_S = 0.002
_FULL_RETRY_S = 0.05


class Post(Protocol):
    """Carries messages away."""

    def to_peer(self, node: NodeNumber, messages: list[PeerMessage]) -> None:
        """Send to another node; what cannot be sent is dropped."""

    def to_client(self, session: SessionId, results: list[Result]) -> None:
        """Answer a client; if it is gone the answers are dropped."""


class Pump:
    """Drives one node's core."""

    def __init__(
        self,
        node: Node,
        engine: Engine,
        post: Post,
        *,
        request_sync: Callable[[Position], None],
        request_later: Callable[[Position], None],
        on_alarm: Callable[[str], None],
    ) -> None:
        self._node = node
        self._engine = engine
        self._post = post
        self._request_sync = request_sync
        self._request_later = request_later
        self._on_alarm = on_alarm
        self._loop = asyncio.get_running_loop()
        self._inbox: list[Event] = []
        self._is_scheduled = False
        self._stalled: Turn | None = None
        self._is_full = False
        self._is_closed = False
        self._held: deque[tuple[Position, dict[NodeNumber, list[PeerMessage]]]] = deque()
        self._unsynced: deque[tuple[Position, int]] = deque()
        self._synced_turn = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = Instant(0)
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self.turns = 0
        self.events = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for a turn or for the log."""
        return not self._inbox and not self._held and self._stalled is None

    def submit(self, event: Event) -> None:
        """Have the next turn take this event."""
        self._inbox.append(event)
        self.wake()

    def wake(self) -> None:
        """Have a turn run soon: an operator asked for what no event tells of."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._run)

    def fail(self, exc: BaseException) -> None:
        """Something that must not break has broken: end the node, loudly."""
        if not self.failed.done():
            self.failed.set_exception(exc)

    def close(self) -> None:
        """Run no turn any more: the store is about to be closed."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    def on_synced(self, position: Position) -> None:
        """The log is durable up to `position`: let go of what waited for it."""
        turn = 0
        while self._unsynced and self._unsynced[0][0] <= position:
            turn = self._unsynced.popleft()[1]
        if turn:
            # No turn of its own: the next one begins with it, whatever that is for.
            self._synced_turn = turn
        while self._held and self._held[0][0] <= position:
            self._deliver(self._held.popleft()[1])

    def _run(self) -> None:
        """Run one turn; a crash in it is a bug, and stops the node loudly."""
        self._is_scheduled = False
        if self._stalled is not None or self._is_over:
            return
        try:
            self._turn()
        except Exception as exc:  # noqa: BLE001 (handed on: it ends the node)
            self.fail(exc)

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self.failed.done()

    def _turn(self) -> None:
        events = self._take()
        if self._synced_turn:
            events.insert(0, SyncedUpTo(self._synced_turn))
            self._synced_turn = 0
        # In every turn: a busy node uses up the reserve within a few of them.
        self._node.replica.refuses = Status.REFUSED_FULL if self._engine.is_full else None
        needs = self._node.plan(events)
        records, unreadable = self._fetch(Family.RECORDS, needs.records)
        hints, bad_hints = self._fetch(Family.HINTS, needs.hints)
        turn = self._node.apply(
            events,
            records,
            hints=hints,
            unreadable=unreadable | bad_hints if bad_hints else unreadable,
            now=now_us(),
            wall_ms=wall_ms(),
        )
        self.turns += 1
        self.events += len(events)
        self._carry_out(turn)
        if self._inbox:
            self.wake()

    def _take(self) -> list[Event]:
        """Return what has come, in order, and no more than a turn may hold, or one event."""
        size = 0
        for count, event in enumerate(self._inbox, 1):
            size += _size(event)
            if size >= TURN_OPERATIONS:
                events, self._inbox = self._inbox[:count], self._inbox[count:]
                return events
        events, self._inbox = self._inbox, []
        return events

    def _fetch(
        self, family: Family, keys: list[Key]
    ) -> tuple[dict[Key, bytes | None], frozenset[bytes]]:
        if not keys:
            return {}, _NONE
        records: dict[Key, bytes | None] = {}
        bad = []
        for key, found in zip(keys, self._engine.multi_get(family, keys), strict=True):
            if isinstance(found, ReadFailure):
                self._on_alarm(f"a record cannot be read: {found.reason}")
                if found.is_damage:
                    self.fail(StorageDamaged(found.reason))
                bad.append(key)
                records[key] = None
            else:
                records[key] = found
        return records, frozenset(bad)

    def _carry_out(self, turn: Turn) -> None:
        if turn.batch:
            try:
                position = self._engine.write(turn.batch)
            except (StorageStalled, StorageFull) as exc:
                self._wait_for_room(turn, exc)
                return
            self._is_full = False
            self._unsynced.append((position, turn.number))
            self._request_later(position)
        self._send(turn)
        for alarm in self._node.take_alarms():
            self._on_alarm(alarm)
        for scan in turn.out.scans:
            self._scan(scan)
        self._rearm()

    def _scan(self, scan: Scan) -> None:
        """Read one slice; the next turn has it."""
        try:
            pairs = self._engine.scan(scan.family, scan.start, scan.end, scan.limit)
        except StorageDamaged as exc:
            self._on_alarm(f"a range cannot be read: {exc}")
            self.fail(exc)
        else:
            self.submit(Scanned(scan.id, pairs))

    def _wait_for_room(self, turn: Turn, why: StorageStalled | StorageFull) -> None:
        """Nothing was applied. No other turn may run before this one is written."""
        is_full = isinstance(why, StorageFull)
        if is_full and not self._is_full:
            self._on_alarm(f"the disk is full, the node waits: {why}")
        self._is_full = is_full
        self._stalled = turn
        self._loop.call_later(_FULL_RETRY_S if is_full else _STALL_RETRY_S, self._retry)

    def _retry(self) -> None:
        turn, self._stalled = self._stalled, None
        if turn is None or self._is_over:
            return
        try:
            self._carry_out(turn)
        except Exception as exc:  # noqa: BLE001 (handed on: it ends the node)
            self.fail(exc)
        self._run()

    def _send(self, turn: Turn) -> None:
        out = turn.out
        for session, results in out.clients.items():
            self._post.to_client(session, results)
        if out.peers:
            self._deliver(out.peers)
        if out.held_peers:
            if self._engine.durable >= self._engine.written:
                self._deliver(out.held_peers)
            else:
                self._held.append((self._engine.written, out.held_peers))
                # Only what somebody waits for is hurried; the rest is synced within the period.
                self._request_sync(self._engine.written)

    def _deliver(self, boxes: dict[NodeNumber, list[PeerMessage]]) -> None:
        own = self._node.number
        for node, messages in boxes.items():
            if node == own:
                self._loop_back(messages)
            else:
                self._post.to_peer(node, messages)

    def _loop_back(self, messages: list[PeerMessage]) -> None:
        for event in as_events(self._node.number, messages):
            self.submit(event)

    def _rearm(self) -> None:
        """Keep one timer at the core's next instant."""
        due = self._node.next_wake()
        if due is None or (self._timer is not None and self._timer_at <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = due
        self._timer = self._loop.call_later(max(0, due - now_us()) / 1e6, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if not self._is_scheduled:
            self._is_scheduled = True
            self._run()


def _size(event: Event) -> int:
    """Return how many operations an event brings."""
    kind = type(event)
    if kind is ClientOps:
        return len(event.gets) + len(event.puts)  # type: ignore[union-attr]
    if kind is PeerRequests or kind is PeerReplies:
        return len(event.writes) + len(event.reads) + len(event.forwards)  # type: ignore[union-attr]
    return 1


def as_events(sender: NodeNumber, messages: Iterable[PeerMessage]) -> list[Event]:
    """Return messages of a node as the events that they are for their receiver."""
    boxes: dict[type, list[Any]] = {}
    for message in messages:
        boxes.setdefault(type(message), []).append(message)
    events: list[Event] = []
    if not boxes.keys().isdisjoint(_REQUESTS):
        events.append(PeerRequests(sender, *(boxes.get(kind, ()) for kind in _REQUESTS)))
    if not boxes.keys().isdisjoint(_REPLIES):
        results = [*boxes.get(PutResult, ()), *boxes.get(Failure, ())]
        events.append(
            PeerReplies(
                sender,
                boxes.get(ReplicaWriteReply, ()),
                boxes.get(ReplicaReadReply, ()),
                results,
            )
        )
    if asks := [one for kind in SETTLE_ASKS for one in boxes.get(kind, ())]:
        events.append(PeerAsks(sender, asks))
    if tells := [one for kind in SETTLE_TELLS for one in boxes.get(kind, ())]:
        events.append(PeerTells(sender, tells))
    return events


_REQUESTS = (ReplicaWrite, ReplicaRead, ClientPut)
"""In the order of PeerRequests' fields."""
_REPLIES = (ReplicaWriteReply, ReplicaReadReply, PutResult, Failure)
