"""What drives one life of a simulated node, as kvnode.runtime.pump does on a real one.

What it decides: nothing of its own: records are fetched for a turn, its batch is written, what is
held leaves when a flush that covers it has ended, and one timer is kept at the core's next instant.
Laws: turns run one after another in the order of their events; a turn that finds no room waits, and
all behind it; a record that cannot be read is a failure once, and the end of the life; nothing
happens to a paused process until it is resumed, then everything that waited, in order; what an
ended life had asked for never happens. Its tests are tests/sim/test_world.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from kvnode.core.batch import Family
from kvnode.core.keys import partition_of_key
from kvnode.core.messages import (
    Event,
    Instant,
    NodeNumber,
    PeerMessage,
    PeerRequests,
    ReplicaReadReply,
    Scan,
    Scanned,
    Status,
    SyncedUpTo,
)
from kvnode.core.node import Node, Turn
from kvnode.runtime.pump import as_events
from kvnode.storage.port import (
    ReadFailure,
    StorageDamaged,
    StorageError,
    StorageFenced,
    StorageFull,
    StorageStalled,
)
from tests.sim.disk import Disk
from tests.sim.links import Links
from tests.sim.network import Slot
from tests.sim.story import Broken
from tests.sim.turns import check_turn, items_of
from tests.sim.wire import REQUESTS

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

Key = TypeVar("Key", bound=bytes)

BIRTH_MS = 1_700_000_000_000
"""True time when a world begins, ms since 1970."""
_NONE: frozenset[bytes] = frozenset()
_STALL_RETRY_US = 20_000
_ALARMS = 20
_WAKES = 20
"""Turns at one instant that nothing but the timer asks for."""


class Driver:
    """The part of a process that runs turns; `life` and `links` are its present life's."""

    def __init__(self, world: Cluster, number: NodeNumber, slot: Slot) -> None:
        self.number = number
        self.slot = slot
        self.disk = Disk()
        self.ahead_ms = 0
        """How far its physical clock is ahead of true time."""
        self.life: Node | None = None
        self.links: Links | None = None
        self.alarms: list[str] = []
        """What people should have heard of it, over all lives; the latest."""
        self._world = world
        self._lives = 0
        self._frozen: list[tuple[Callable[..., None], tuple[object, ...]]] | None = None
        """What waits until a paused process is resumed."""
        self._forget()

    def fail(self, exc: BaseException) -> None:
        """Something ends the life: a refusal, or its store."""
        raise NotImplementedError

    def _forget(self) -> None:
        """What one life had under way is over."""
        self._inbox: list[Event] = []
        self._held: deque[tuple[int, dict[NodeNumber, list[PeerMessage]]]] = deque()
        """By the position in the log that they wait for."""
        self._unsynced: deque[tuple[int, int]] = deque()
        """Position and turn of writes that no flush has covered."""
        self._synced_turn = 0
        self._is_damaged = False
        """Something could not be read in this turn."""
        self._stalled: Turn | None = None
        """A turn whose batch found no room: no other turn may run before it."""
        self._is_due = False
        self._is_flushing = False
        self._sync_at: int | None = None
        """When a flush is to begin."""
        self._timer_at: int | None = None
        self._woken_us = self._wakes = 0
        """When the timer last led to a turn, and how often before at that instant."""
        self._frozen = None

    @property
    def wall_ms(self) -> int:
        """What its clock says, ms since 1970."""
        return BIRTH_MS + self._world.now_us // 1_000 + self.ahead_ms

    @property
    def is_paused(self) -> bool:
        """Whether its process was stopped (SIGSTOP), and not continued yet."""
        return self._frozen is not None

    @property
    def is_stalled(self) -> bool:
        """Whether a turn that was decided waits for room: the store is behind the node's memory."""
        return self._stalled is not None

    @property
    def _is_member(self) -> bool:
        """Whether it lives where its identity belongs: the watch follows no copies."""
        return self.slot == self.number

    # ---- turns ---------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """Take note of an event; the turn comes as soon as whatever happens now is over."""
        if self.life is None:
            return
        self._inbox.append(event)
        if not self._is_due:
            self._is_due = True
            world = self._world
            # What comes while the process is busy with other things makes one turn.
            delay_us = -world.now_us % world.turn_us if world.turn_us else 0
            world.after(delay_us, self._fire, self._lives, self._run)

    def submit(self, event: Event) -> None:
        """Hear (kvnode.runtime.identity)."""
        self.hear(event)

    def later(self, delay_us: int, act: Callable[[], None]) -> None:
        """Do something later, unless this life has ended by then."""
        self._world.after(delay_us, self._fire, self._lives, act)

    def take(self, links: Links, hear: Callable[..., None], *args: object) -> None:
        """Something has come on a stream of one life."""
        if links is not self.links:
            return
        if self._frozen is not None:
            self._frozen.append((self.take, (links, hear, *args)))
            return
        try:
            hear(*args)
        except StorageError as exc:
            self.fail(exc)

    def is_life(self, number: int) -> bool:
        """Say whether this is still that life."""
        return self.life is not None and self._lives == number

    def _fire(self, life: int, act: Callable[[], None]) -> None:
        if self._lives != life or self.life is None:
            return
        if self._frozen is not None:
            self._frozen.append((self._fire, (life, act)))
        else:
            act()

    def _run(self) -> None:
        self._is_due = False
        if self._stalled is None:
            self._turn()

    def _turn(self) -> None:
        life, world = self.life, self._world
        assert life is not None
        events, self._inbox = self._inbox, []
        if self._synced_turn:
            events.insert(0, SyncedUpTo(self._synced_turn))
            self._synced_turn = 0
        life.replica.refuses = Status.REFUSED_FULL if self.disk.is_full else None
        waiting = life.coordinator.in_flight
        needs = life.plan(events)
        records, failed = self._fetch(Family.RECORDS, needs.records)
        hints, failed_hints = self._fetch(Family.HINTS, needs.hints)
        turn = life.apply(
            events,
            records,
            hints=hints,
            unreadable=failed | failed_hints if failed_hints else failed,
            now=Instant(world.now_us),
            wall_ms=self.wall_ms,
        )
        check_turn(
            turn,
            items=items_of(events),
            waiting=waiting,
            fetched=len(needs.records) + len(needs.hints),
            limits=world.limits,
            topology=life.topology,
            lives=world.lives,
        )
        if not life.replica.is_proven:
            self._check_honest(events, turn)
        self._carry_out(turn)
        if self._is_damaged:
            self._is_damaged = False
            self.fail(StorageDamaged("a record cannot be read"))

    def _check_honest(self, events: list[Event], turn: Turn) -> None:
        """Assert that no answer counts that is of a partition in doubt."""
        assert self.life is not None
        asked = {
            (event.sender, read.id): read.key
            for event in events
            if isinstance(event, PeerRequests)
            for read in event.reads
            if not read.is_stand_in
        }
        bits, proving = self._world.topology.partition_bits, self.life.replica.proving
        for box in (turn.out.peers, turn.out.held_peers):
            for target, messages in box.items():
                for message in messages:
                    if isinstance(message, ReplicaReadReply) and message.status is Status.DONE:
                        key = asked.get((target, message.id))
                        if key is not None and not proving.is_proven(partition_of_key(key, bits)):
                            claim = f"node {self.number} counts, and is in doubt"
                            self._world.fail(key, claim, name="5-unproven-says-so")

    def _carry_out(self, turn: Turn) -> None:
        life, world = self.life, self._world
        assert life is not None
        if turn.batch:
            try:
                self._write(turn)
            except (StorageStalled, StorageFull):
                self._stalled = turn
                self.later(_STALL_RETRY_US, self._retry)
                return
        self._send(turn.out.peers, turn.out.held_peers)
        for session, results in turn.out.clients.items():
            world.answer(self.number, session, results)
        if alarms := life.take_alarms():
            self.alarms = [*self.alarms, *alarms][-_ALARMS:]
        for scan in turn.out.scans:
            self._scan(scan)
        self._wake()

    def _retry(self) -> None:
        turn, self._stalled = self._stalled, None
        assert turn is not None
        self._carry_out(turn)
        if self._inbox and not self._is_due:
            self._run()

    def _fetch(
        self, family: Family, keys: list[Key]
    ) -> tuple[dict[Key, bytes | None], frozenset[bytes]]:
        if not keys:
            return {}, _NONE
        records: dict[Key, bytes | None] = {}
        failed: list[bytes] = []
        for key, found in zip(keys, self.disk.multi_get(family, keys), strict=True):
            if self._is_failure(found):
                # Once, abstaining, the turn goes on.
                failed.append(key)
                self._is_damaged = True
            records[key] = found if isinstance(found, bytes) else None
        return records, frozenset(failed) if failed else _NONE

    def _scan(self, scan: Scan) -> None:
        try:
            pairs = self.disk.scan(scan.family, scan.start, scan.end, scan.limit)
        except StorageDamaged:
            self._is_damaged = True
        else:
            self.hear(Scanned(scan.id, pairs))

    @staticmethod
    def _is_failure(found: bytes | ReadFailure | None) -> bool:
        """Read failures are told from absences here and nowhere else (a mutant confuses them)."""
        return isinstance(found, ReadFailure)

    # ---- the log -------------------------------------------------------------------------

    def _write(self, turn: Turn) -> None:
        if self._is_member:
            self._world.watch.on_write(self.number, self.disk, turn.batch)
        position = self.disk.write(turn.batch)
        self._unsynced.append((position, turn.number))
        self._sync_within(1_000 * self._world.limits.periodic_sync_ms)

    def _sync_within(self, delay_us: int) -> None:
        """Have a flush begin by then, if none is under way: the next one begins when it ends."""
        at = self._world.now_us + delay_us
        if self._sync_at is None or at < self._sync_at:
            self._sync_at = at
            if not self._is_flushing:
                self.later(delay_us, self._begin_flush)

    def _begin_flush(self) -> None:
        if self._is_flushing or self._sync_at is None or self._sync_at > self._world.now_us:
            return
        self._is_flushing, self._sync_at = True, None
        mark = self.disk.written
        takes_us = self.disk.sync_us
        if self.disk.noise_us:
            takes_us += self._world.chance(f"flushes {self.slot}").randrange(self.disk.noise_us)
        self.later(takes_us, lambda: self._end_flush(mark))

    def _end_flush(self, mark: int) -> None:
        self._is_flushing = False
        try:
            self.disk.sync(mark)
        except StorageFenced as fenced:
            # What the kernel had not written it may write yet, or not.
            self.disk.crash(self._world.chance(f"crash {self.slot}"))
            self.fail(fenced)
            return
        if self._is_member:
            self._world.watch.on_sync(self.number)
        if self._sync_at is not None:
            self.later(max(0, self._sync_at - self._world.now_us), self._begin_flush)
        while self._unsynced and self._unsynced[0][0] <= mark:
            # No turn of its own: the next one begins with it.
            self._synced_turn = self._unsynced.popleft()[1]
        while self._held and self._held[0][0] <= mark:
            self._deliver(self._held.popleft()[1])

    def _send(
        self,
        boxes: dict[NodeNumber, list[PeerMessage]],
        held: dict[NodeNumber, list[PeerMessage]],
    ) -> None:
        if boxes:
            self._deliver(boxes)
        if not held:
            return
        if self.disk.durable < self.disk.written:
            self._held.append((self.disk.written, held))
            self._sync_within(0)
        else:
            self._deliver(held)

    def _deliver(self, boxes: dict[NodeNumber, list[PeerMessage]]) -> None:
        """Carry messages away: requests on our own streams, replies on the peers'."""
        assert self.links is not None
        for target, messages in boxes.items():
            if target == self.number:
                self._loop_back(messages)
                continue
            requests = [one for one in messages if type(one) in REQUESTS]
            if requests:
                self.links.request(target, requests)
            if len(requests) < len(messages):
                self.links.reply(target, [one for one in messages if type(one) not in REQUESTS])

    def _loop_back(self, messages: list[PeerMessage]) -> None:
        if self._is_member:
            self._world.note_messages(self.number, self.number, messages)
        for event in as_events(self.number, messages):
            self.hear(event)

    def _wake(self) -> None:
        """Keep one timer at the core's next instant."""
        assert self.life is not None
        due = self.life.next_wake()
        if due is not None and (self._timer_at is None or due < self._timer_at):
            self._timer_at = due
            delay_us = max(0, due - self._world.now_us)
            self._world.after(delay_us, self._on_timer, self._lives, due)

    def _on_timer(self, life: int, due: int) -> None:
        if self._lives != life or self.life is None or self._timer_at != due:
            return  # over, or an earlier one has taken its place
        if self._frozen is not None:
            self._frozen.append((self._on_timer, (life, due)))
            return
        self._timer_at = None
        if self._is_due or self._stalled is not None:
            return  # a turn comes anyway
        now, wake_at = self._world.now_us, self.life.next_wake()
        if wake_at is None or wake_at > now:
            self._wake()  # what it was set for is over: a turn would do nothing
            return
        self._wakes = self._wakes + 1 if self._woken_us == now else 0
        self._woken_us = now
        if self._wakes > _WAKES:
            told = f"seed {self._world.seed}: node {self.number} wakes again and again at {now} us"
            raise Broken("9-timers-rest", told)
        self._turn()
