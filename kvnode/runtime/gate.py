"""The gate before the core: carries out what admission decides for clients' operations.

Small operations and writes of large values queue apart, each with a running set of its own: a get
of a hundred bytes never waits for its turn behind a megabyte. Yet a megabyte takes a node, its disk
and its peers some ten milliseconds in which nothing else moves. So while there are small operations
large values are written one at a time, with a pause after each three times as long as it took; a
busy cluster takes longer, and so gets longer pauses.

Laws: every operation that enters is handed to the core once or answered with a refusal, unless its
client left; what was handed over is counted until its answer comes.
Tests: tests/unit/runtime/test_gate.py.
Source: kvnode.core.admission.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from kvnode.core.admission import Admission, Verdict
from kvnode.core.bounds import Limits
from kvnode.core.messages import ClientOps, Instant, Result, SessionId

_BULK_WAITING_EACH = 64
"""Writes of large values that may wait for each that may run."""
_PAUSES = 3
"""So many times as long as a large value took is the pause after it."""
_BESIDE_US = 100_000
"""Small operations are taken to go on for so long after the last one came."""


class Gate:
    """Admission of all clients at one node.

    Args:
        limits: how many may run and wait.
        submit: hands operations to the core, which answers each of them once.
        refuse: answers a client instead of the core.
        now_us: the monotonic clock.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        submit: Callable[[ClientOps], None],
        refuse: Callable[[SessionId, list[Result]], None],
        now_us: Callable[[], Instant],
    ) -> None:
        target_ms = limits.waiting_target_ms
        self._small = Admission(
            running=limits.operations_running,
            waiting=limits.operations_waiting,
            target_ms=target_ms,
        )
        self._bulk = Admission(
            running=limits.bulk_running,
            waiting=_BULK_WAITING_EACH * limits.bulk_running,
            target_ms=target_ms,
        )
        self._bulk_bytes = limits.bulk_bytes
        self._bulk_running = limits.bulk_running
        self._bulk_began = Instant(0)
        self._bulk_rests_until = Instant(0)
        self._small_at = Instant(-_BESIDE_US)
        self._running_bulk: dict[tuple[SessionId, int], int] = {}
        """How often each id of a session runs as bulk: a client with a bug may use one twice."""
        self._submit = submit
        self._refuse = refuse
        self._now_us = now_us
        self._refused_unread = 0

    @property
    def waiting(self) -> int:
        """How many operations wait."""
        return self._small.waiting + self._bulk.waiting

    @property
    def refused(self) -> int:
        """How many operations were refused so far."""
        return self._small.refused + self._bulk.refused + self._refused_unread

    def waiting_of(self, share: Hashable) -> int:
        """Return how many operations of a share wait."""
        return self._small.waiting_of(share) + self._bulk.waiting_of(share)

    def enter(self, share: Hashable, ops: ClientOps, *, size: int) -> None:
        """Take operations in; each begins, waits, or is refused at once.

        Args:
            share: whose turn they take.
            ops: checked operations.
            size: bytes of the frame that they came in.
        """
        now = self._now_us()
        if size > self._bulk_bytes:
            ops = self._enter_bulk(share, ops, now)
        if ops.gets or ops.puts:
            self._small_at = now
            self._carry_out(self._small.arrive(share, ops, now))

    def look(self) -> None:
        """Begin large values whose pause is over. To be called now and then while some wait."""
        if self._bulk.waiting:
            self._make_room_for_bulk(self._now_us())

    def refusal(self, share: Hashable, count: int) -> tuple[str, int] | None:
        """Return why nothing more of a share is let in, and for how many ms, if so.

        Spares the reading of `count` operations, which a caller then refuses.
        """
        now = self._now_us()
        if not self._small.waiting or self._small.room(share, now):
            return None
        self._refused_unread += count
        return self._small.refusal(now)

    def on_answered(self, session: SessionId, results: Sequence[Result]) -> None:
        """The core answered operations: others begin in their place."""
        now = self._now_us()
        count = len(results)
        if self._running_bulk:
            bulk = sum(1 for result in results if self._ends_bulk((session, result.id)))
            count -= bulk
            if bulk:
                self._on_bulk_answered(bulk, now)
        if count:
            self._carry_out(self._small.done(count, now))
            self.look()

    def leave(self, share: Hashable) -> None:
        """A client is gone: what waits of it is forgotten."""
        now = self._now_us()
        self._small.forget(share, now)
        self._bulk.forget(share, now)

    # ---- within --------------------------------------------------------------------------

    def _enter_bulk(self, share: Hashable, ops: ClientOps, now: Instant) -> ClientOps:
        """Take large values in; return the other operations of the frame."""
        large = [put for put in ops.puts if len(put.value) > self._bulk_bytes]
        if not large:
            return ops
        small = [put for put in ops.puts if len(put.value) <= self._bulk_bytes]
        self._make_room_for_bulk(now)
        self._carry_out_bulk(self._bulk.arrive(share, ClientOps(ops.session, (), large), now), now)
        return ClientOps(ops.session, ops.gets, small)

    def _carry_out(self, verdict: Verdict) -> None:
        for ops in verdict.run:
            self._submit(ops)
        for session, failure in verdict.refused:
            self._refuse(session, [failure])

    def _make_room_for_bulk(self, now: Instant) -> None:
        """Let as many large values run as the small operations allow."""
        if now - self._small_at >= _BESIDE_US and not self._small.running:
            room = self._bulk_running
        else:
            room = 1 if now >= self._bulk_rests_until else 0
        self._carry_out_bulk(self._bulk.resize(room, now), now)

    def _on_bulk_answered(self, count: int, now: Instant) -> None:
        self._bulk_rests_until = Instant(now + _PAUSES * (now - self._bulk_began))
        self._make_room_for_bulk(now)
        self._carry_out_bulk(self._bulk.done(count, now), now)

    def _carry_out_bulk(self, verdict: Verdict, now: Instant) -> None:
        running = self._running_bulk
        if verdict.run:
            self._bulk_began = now
        for ops in verdict.run:
            for put in ops.puts:
                key = ops.session, put.id
                running[key] = running.get(key, 0) + 1
        self._carry_out(verdict)

    def _ends_bulk(self, key: tuple[SessionId, int]) -> bool:
        count = self._running_bulk.get(key, 0)
        if count > 1:
            self._running_bulk[key] = count - 1
        elif count:
            del self._running_bulk[key]
        return count > 0
