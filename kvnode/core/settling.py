"""Settling: takes the losers of a conflict out of the way once all owners agree who they are.

The first owner of a key is its settler. It walks its open conflicts again and again and asks all
owners what they hold. Once all have held the same, votes included, for `settle_after_ms`, it has
the losers logged and then pruned. A conflict with an owner away or in doubt is left alone.

Why no value is lost without a trace: losers are pruned only after w owners have them in their logs.
Why no answer changes, as long as nobody writes the key: what is pruned is decided on one record,
votes included, that all n owners held. A settler that had seen another record cannot have its
prunes carried out beside this one's: an owner prunes only if its record, its life and its epoch are
those that it told of, within one life and epoch records only grow, and what one prune took out
every later record lacks. Two that saw the same record decide the same, but for what has expired
between: then one's losers are among the other's (kvnode.core.resolve.settle). So two settlers at
once, frames that come late or twice, and a settler that dies at any step do no harm. Waiting
matters for votes alone: as long as a write may be under way, a vote for it may.

A write that comes between the states and the prunes may supersede the winner alone. Owners that
have it keep the losers, the others prune them, and so they are gone: the new value stands, even
where a loser would have had more votes than it. They are in the logs.

Laws: never more than the window under way, nor more than the rate begun; what is remembered of keys
that wait is bounded; whatever is given up is found again by a later walk.
Tests: tests/unit/core/test_settling.py, tests/property/test_settling_laws.py; as whole clusters:
tests/sim/test_settling.py. Source: design, section 2.5.
Left out: the steps of one conflict (kvnode.core.settlement), the owner's part
(kvnode.core.pruning), the log's format (kvnode.core.conflict_log).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kvnode.core.batch import Family
from kvnode.core.bounds import SETTLING_KEYS_MAX, Limits
from kvnode.core.conflict_log import end_before
from kvnode.core.conversations import SettleTell
from kvnode.core.keys import StorageKey, is_storage_key, keyspace_of, partition_of_key
from kvnode.core.messages import Instant, NodeNumber, Outbox, ReplicaWriteReply, Scan
from kvnode.core.record import decode
from kvnode.core.replica import Replica
from kvnode.core.resolve import settle
from kvnode.core.settlement import Settlement, Stage
from kvnode.core.topology import Keyspace, Resolve

SETTLE_ID = 0b0111 << 60
"""The top four bits of ids that belong to settling: of asks, of repairs and of scans."""
_PURGE = SETTLE_ID
"""The scan for entries of the log that are too old."""
_SLICE = 64
_PURGE_SLICE = 128
_TIMEOUT_US = 10_000_000
_BUSY_SHARE = 4
_GAP_US = 20_000
_WALK_PACE_US = 250_000
"""Between two walks through the index at least, however soon conflicts are to be settled."""
_REST_US = 60_000_000
"""Between two looks for entries that are too old."""
_OFF_US = 1_000_000
"""Between two looks whether this node's clock is right again."""
_NEVER = Instant(0)


class _Agreed(NamedTuple):
    """A conflict of which all owners have told the same."""

    digest: bytes
    since: Instant
    walk: int
    """The last one that found it."""
    time_ms: int
    """Of its entries in the log, once they were asked for; 0: not yet."""


class Settling:
    """The conflicts that one node settles, and the purging of its log."""

    __slots__ = (
        "_agreed",
        "_changes",
        "_counted",
        "_cursor",
        "_is_healthy",
        "_is_resting",
        "_jobs",
        "_limits",
        "_next",
        "_now",
        "_out",
        "_purges_at",
        "_queue",
        "_recounts_at",
        "_replica",
        "_scan",
        "_tokens",
        "_tokens_at",
        "_wakes_at",
        "_walk",
        "_walks_at",
        "_wall_ms",
        "settled",
    )  # fmt: skip

    def __init__(
        self, replica: Replica, limits: Limits, is_healthy: Callable[[NodeNumber], bool]
    ) -> None:
        self._replica = replica
        self._limits = limits
        self._is_healthy = is_healthy
        self._next = 0
        self._now = _NEVER
        self._wall_ms = 0
        self._out = Outbox()
        self._jobs: dict[int, Settlement] = {}
        self._queue: deque[StorageKey] = deque()
        self._agreed: dict[StorageKey, _Agreed] = {}
        self._tokens = 0.0
        self._tokens_at = _NEVER
        self._wakes_at = _NEVER
        self._scan = 0
        """The slice of the index that is awaited; 0: none."""
        self._cursor = b""
        """Empty: the next walk has not begun."""
        self._counted = 0
        """Conflicts that this walk has come by."""
        self._changes = 0
        """Of their number, when it began."""
        self._walk = 0
        self._walks_at = _NEVER
        self._purges_at = _NEVER
        self._recounts_at = _NEVER
        self._is_resting = False
        """There was no conflict, so no walk is due but the one that counts them."""
        self.settled = 0
        """Conflicts whose losers this node had pruned, in this life."""

    @property
    def walks(self) -> int:
        """How often this node has begun to look through its open conflicts."""
        return self._walk

    @property
    def under_way(self) -> int:
        """How many conflicts are being looked at."""
        return len(self._jobs)

    # ---- what happens --------------------------------------------------------------------

    def on_down(self, node: NodeNumber) -> None:
        """A node cannot be reached: no conflict of its keys can be settled now."""
        for number in [number for number, job in self._jobs.items() if node in job.owners]:
            del self._jobs[number]

    def follow(self) -> None:
        """Another topology is in force: all that was told was told in another epoch."""
        self._jobs.clear()
        self._queue.clear()
        self._agreed.clear()

    def on_scanned(
        self, scan: int, pairs: Sequence[tuple[bytes, bytes]] | None, now: Instant
    ) -> None:
        """A slice of the index of conflicts, or of the log, was read."""
        self._now = self._wakes_at = now
        if scan == _PURGE:
            self._purge(pairs or ())
        elif scan == self._scan:
            self._scan = 0
            self._counted += len(pairs or ())
            self._queue.extend(
                key
                for key in (StorageKey(name) for name, _ in pairs or () if is_storage_key(name))
                if self._is_due(key)
            )
            if pairs is not None and len(pairs) == _SLICE:
                self._cursor = pairs[-1][0] + b"\x00"
            else:
                self._end_walk(is_whole=pairs is not None)

    def on_tell(
        self, sender: NodeNumber, tell: SettleTell, now: Instant, wall_ms: int, out: Outbox
    ) -> None:
        """An owner answers."""
        job = self._jobs.get(tell.id)
        if job is None or sender not in job.owners:
            return
        self._now, self._wall_ms, self._out = now, wall_ms, out
        keyspace, _ = self._place(job.key)
        assert keyspace is not None
        had_pruned = job.has_pruned
        job.on_tell(sender, tell, w=keyspace.w, now_ms=self._cluster_ms, out=out)
        if job.stage is Stage.AGREED:
            self._on_agreed(job, keyspace)
        if job.has_pruned and not had_pruned:
            self.settled += 1
            self._agreed.pop(job.key, None)
        self._after(job)

    def on_write_reply(
        self, sender: NodeNumber, reply: ReplicaWriteReply, now: Instant, out: Outbox
    ) -> None:
        """An owner has merged a repair."""
        job = self._jobs.get(reply.id)
        if job is not None and sender in job.owners:
            self._now = now
            job.on_write_reply(sender, reply, out)
            self._after(job)

    def on_time(
        self, now: Instant, wall_ms: int, out: Outbox, *, is_busy: bool, is_allowed: bool
    ) -> None:
        """Begin what is due, within window and rate. Costs two comparisons where nothing is.

        Args:
            now: monotonic microseconds.
            wall_ms: physical time, ms since 1970.
            out: what this turn sends.
            is_busy: clients are being served.
            is_allowed: this node's clock is not known to be off.
        """
        log = self._replica.conflicts
        if now < self._wakes_at and not (self._is_resting and log.open):
            return
        self._now, self._wall_ms, self._out = now, wall_ms, out
        for number in [number for number, job in self._jobs.items() if job.gives_up_at <= now]:
            del self._jobs[number]
        if is_allowed:
            self._earn(is_busy=is_busy)
            while self._queue and self._can_begin:
                self._begin(self._queue.popleft())
            self._walk_on()
            self._ask_for_old_entries()
        self._wakes_at = self._earliest() if is_allowed else Instant(now + _OFF_US)

    def next_wake(self) -> Instant:
        """Return when `on_time` has something to do."""
        return self._wakes_at

    # ---- walking -------------------------------------------------------------------------

    @property
    def _can_begin(self) -> bool:
        return self._tokens >= 1 and len(self._jobs) < self._limits.settle_window

    def _earn(self, *, is_busy: bool) -> None:
        rate = self._limits.settle_keys_per_s / (_BUSY_SHARE if is_busy else 1)
        earned = (self._now - self._tokens_at) * rate / 1e6
        self._tokens = min(self._tokens + earned, max(1.0, rate / 10))
        self._tokens_at = self._now

    def _walk_on(self) -> None:
        """Read the next slice of the index, once all keys of the last one have had their turn."""
        if self._scan or self._queue or self._tokens < 1:
            return
        log = self._replica.conflicts
        if not self._cursor:
            if self._now < (self._walks_at if log.open else self._recounts_at):
                return
            self._walk += 1
            self._counted, self._changes = 0, log.changes
            self._recounts_at = Instant(self._now + _REST_US)
            # Twice as often as a conflict must last, so that it lasts little longer than it must.
            pace_us = max(_WALK_PACE_US, 500 * self._limits.settle_after_ms)
            self._walks_at = Instant(self._now + pace_us)
        self._tokens -= 1
        self._scan = self._take_id()
        self._out.scans.append(Scan(self._scan, Family.CONFLICTS, self._cursor, None, _SLICE))

    def _end_walk(self, *, is_whole: bool) -> None:
        self._cursor = b""
        log = self._replica.conflicts
        if is_whole and log.changes == self._changes:
            log.open = self._counted  # what replaced a damaged record could not be counted
        for key in [key for key, agreed in self._agreed.items() if agreed.walk < self._walk]:
            del self._agreed[key]

    def _is_due(self, key: StorageKey) -> bool:
        """Say whether a conflict is this node's to settle, and worth a look now."""
        keyspace, owners = self._place(key)
        if keyspace is None or keyspace.resolve is Resolve.SIBLINGS:
            return False
        if not self._is_settler(owners) or not all(map(self._is_healthy, owners)):
            return False
        agreed = self._agreed.get(key)
        if agreed is None:
            return True
        self._agreed[key] = agreed._replace(walk=self._walk)
        return self._has_lasted(agreed)

    def _is_settler(self, owners: tuple[NodeNumber, ...]) -> bool:
        """One is enough. All owners must answer anyway, so no other could do it in its place."""
        return owners[0] == self._replica.number

    def _has_lasted(self, agreed: _Agreed) -> bool:
        return self._now >= agreed.since + 1_000 * self._limits.settle_after_ms

    def _place(self, key: StorageKey) -> tuple[Keyspace | None, tuple[NodeNumber, ...]]:
        topology = self._replica.topology
        keyspace = topology.keyspace(keyspace_of(key))
        if keyspace is None:
            return None, ()
        partition = partition_of_key(key, topology.partition_bits)
        return keyspace, topology.owner_numbers[partition][: keyspace.n]

    def _earliest(self) -> Instant:
        log, soon = self._replica.conflicts, Instant(self._now + max(_GAP_US, self._lacks_us()))
        self._is_resting = not (log.open or self._cursor or self._queue)
        instants = [Instant(self._now + _REST_US)]
        if self._jobs:
            instants.append(next(iter(self._jobs.values())).gives_up_at)
        if log.entries:
            instants.append(self._purges_at)
        if self._queue or (self._cursor and not self._scan):
            instants.append(soon)
        elif not self._scan:
            instants.append(max(soon, self._walks_at if log.open else self._recounts_at))
        return min(instants)

    def _lacks_us(self) -> int:
        """Return how long it takes, at the earliest, until the next look may be paid for."""
        return int(max(0.0, 1 - self._tokens) * 1e6 / self._limits.settle_keys_per_s)

    # ---- purging -------------------------------------------------------------------------

    def _ask_for_old_entries(self) -> None:
        if self._replica.conflicts.entries and self._now >= self._purges_at:
            self._purges_at = Instant(self._now + _REST_US)
            end = end_before(self._wall_ms - self._limits.conflict_log_ms)
            self._out.scans.append(Scan(_PURGE, Family.CONFLICT_LOG, b"", end, _PURGE_SLICE))

    def _purge(self, pairs: Sequence[tuple[bytes, bytes]]) -> None:
        self._replica.conflicts.purge(self._replica.batch, pairs)
        if len(pairs) == _PURGE_SLICE:
            self._purges_at = Instant(self._now + _GAP_US)

    # ---- one conflict --------------------------------------------------------------------

    def _begin(self, key: StorageKey) -> None:
        keyspace, owners = self._place(key)
        if keyspace is None or not all(map(self._is_healthy, owners)):
            return
        self._tokens -= 1
        job = Settlement(
            self._take_id(),
            key,
            owners,
            here=self._replica.number,
            epoch=self._replica.topology.epoch,
            gives_up_at=Instant(self._now + _TIMEOUT_US),
        )
        self._jobs[job.number] = job
        job.start(self._out)

    def _on_agreed(self, job: Settlement, keyspace: Keyspace) -> None:
        """All owners hold the same. Once they have for long enough, the losers may go."""
        verdict = settle(
            decode(job.key, job.record),
            owners=job.owners,
            now_ms=self._cluster_ms,
            resolve=keyspace.resolve,
        )
        agreed = self._agreed.get(job.key)
        if verdict is None:
            self._agreed.pop(job.key, None)
            job.drop()
        elif agreed is None or agreed.digest != job.digest:
            if agreed is not None or len(self._agreed) < SETTLING_KEYS_MAX:
                self._agreed[job.key] = _Agreed(job.digest, self._now, self._walk, 0)
            job.drop()
        elif not self._has_lasted(agreed):
            job.drop()
        else:
            time_ms = self._time_of(agreed)
            self._agreed[job.key] = agreed._replace(time_ms=time_ms)
            job.log(verdict, time_ms, self._out)

    def _time_of(self, agreed: _Agreed) -> int:
        """Return the instant that names the entries: of the first attempt, if that is not long ago,
        so that one that is repeated logs nothing twice."""
        is_recent = self._wall_ms - agreed.time_ms < self._limits.conflict_log_ms // 4
        return agreed.time_ms if is_recent else self._wall_ms

    @property
    def _cluster_ms(self) -> int:
        return self._replica.clock.read(self._wall_ms) >> 16

    def _after(self, job: Settlement) -> None:
        self._wakes_at = self._now
        if job.stage is Stage.OVER:
            del self._jobs[job.number]

    def _take_id(self) -> int:
        self._next += 1
        return SETTLE_ID | self._next
