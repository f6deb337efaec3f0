"""One simulated node: its process and its clock, on a disk that outlives its lives.

What it decides: nothing of its own; what a driver must do for a node (kvnode.core.node) is done
here as the runtime does it (kvnode.runtime.pump): records are fetched for a turn, its batch is
written, what is held leaves when a flush has ended.
Laws: nothing happens to a paused process until it is resumed, then everything that waited, in
order; what an ended life had asked for never happens. Its tests are tests/sim/test_world.py.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from kvnode.core.batch import Family
from kvnode.core.conflict_log import ConflictLog, Entry, decode_entry
from kvnode.core.floors import Floors
from kvnode.core.hints import Hints
from kvnode.core.keys import Partition, StorageKey
from kvnode.core.messages import (
    Event,
    Instant,
    NodeNumber,
    PeerClock,
    PeerMessage,
    PeerReplies,
    Scan,
    Scanned,
    Status,
    SyncedUpTo,
)
from kvnode.core.node import Node, Turn
from kvnode.core.proving import UNPROVEN
from kvnode.core.trees import LEAVES, trees_of
from kvnode.storage.port import (
    ReadFailure,
    StorageDamaged,
    StorageFenced,
    StorageFull,
    StorageStalled,
)
from tests.sim.disk import Disk, Image
from tests.sim.links import RESET_US, Links

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

Key = TypeVar("Key", bound=bytes)

CLUSTER_KEY = b"simulated cluster key, 32 bytes."
_NONE: frozenset[bytes] = frozenset()
_STALL_RETRY_US = 20_000
_ALARMS = 20


class Host:
    """One node: its disk and its clock outlive its lives."""

    def __init__(self, world: Cluster, number: NodeNumber) -> None:
        self.number = number
        self.disk = Disk()
        self.ahead_ms = 0
        """How far its physical clock is ahead of true time."""
        self.is_proven = True
        """Whether the next life begins without a doubt other than those that its store knows of."""
        self.life: Node | None = None
        self.links: Links | None = None
        """Its life's."""
        self.why_ended = ""
        """Why its latest life ended."""
        self.alarms: list[str] = []
        """What people should have heard of it, over all lives; the latest."""
        self._world = world
        self._inbox: list[Event] = []
        self._held: deque[tuple[int, dict[NodeNumber, list[PeerMessage]]]] = deque()
        """By the position in the log that they wait for."""
        self._unsynced: deque[tuple[int, int]] = deque()
        """Position and turn of writes that no flush has covered."""
        self._synced_turn = 0
        self._stalled: Turn | None = None
        """A turn whose batch found no room: no other turn may run before it."""
        self._is_due = False
        self._is_flushing = False
        self._sync_at: int | None = None
        """When a flush is to begin."""
        self._timer_at: int | None = None
        self._frozen: list[Callable[[], None]] | None = None
        """What waits until a paused process is resumed."""
        self._lives = 0

    @property
    def engine(self) -> Disk:
        """The disk, as an engine."""
        return self.disk

    @property
    def is_paused(self) -> bool:
        """Whether its process was stopped (SIGSTOP), and not continued yet."""
        return self._frozen is not None

    # ---- the process ---------------------------------------------------------------------

    def start(self) -> None:
        """Begin a new life on what the store holds."""
        world = self._world
        assert self.life is None
        self._lives += 1
        self.disk.open()
        floors = Floors()
        floors.load(self._all(Family.FLOORS))
        hints = Hints(bytes_max=world.limits.hint_bytes)
        hints.load(self._all(Family.HINTS))
        trees = trees_of(world.topology)
        trees.load(self._all(Family.TREES))
        (mark,) = self.disk.multi_get(Family.META, [UNPROVEN])
        assert not isinstance(mark, ReadFailure)
        self.life = Node(
            number=self.number,
            actor=world.new_actor(self.number),
            topology=world.topology,
            limits=world.limits,
            cluster_key=CLUSTER_KEY,
            floors=floors,
            hints=hints,
            trees=trees,
            conflicts=self.conflict_log(),
        )
        self.life.replica.proving.load(mark)
        if not self.is_proven or self.disk.damage:
            self.is_proven = True
            self.disk.forget_damage()
            self.life.replica.doubt(self.life.replica.proving.owned())
        world.tell("start", self.number, f"{self.life.replica.actor:x}")
        world.watch.on_start(self.number)
        self.links = Links(
            self, world, [number for number in world.numbers if number != self.number]
        )
        self.links.begin()
        for other in world.hosts.values():
            if other.links is not None and other is not self:
                other.links.dial(self.number)

    def kill(self, *, keeps: bool = True) -> None:
        """Power is lost here: chance says how much of the unsynced log is left, if any."""
        assert self.life is not None
        keep = self.disk.crash(self._world.chance(f"crash {self.number}"), keeps=keeps)
        self._world.tell("kill", self.number, keep)
        self._end("killed")

    def end(self, why: str = "ended") -> None:
        """The process is killed, and the machine goes on: the page cache keeps what was written."""
        assert self.life is not None
        self._world.tell("end", self.number, why)
        self._end(why)

    def stop(self) -> None:
        """Stop cleanly: everything is made durable, and marked so; what is in flight is lost."""
        assert self.life is not None
        self._world.tell("stop", self.number)
        self.disk.close()
        self.disk.is_clean = True
        self._end("stopped")

    def pause(self) -> None:
        """Stop the process where it is: nothing happens in it until it is resumed."""
        if self._frozen is None and self.life is not None:
            self._frozen = []
            self._world.tell("pause", self.number)

    def resume(self) -> None:
        """Continue a paused process: what has come meanwhile is taken now, in order."""
        if self._frozen is None:
            return
        self._world.tell("resume", self.number)
        frozen, self._frozen = self._frozen, None
        for act in frozen:
            self._world.later(0, act)

    def wipe(self) -> None:
        """Lose the disk (of a node that is not running): what it held is no longer proven."""
        assert self.life is None
        self.disk.wipe()
        self.is_proven = False
        self._world.tell("wipe", self.number)

    def restore(self, image: Image) -> None:
        """Put an older image on the disk (of a node that is not running)."""
        assert self.life is None
        self.disk.restore(image)
        self.is_proven = False
        self._world.tell("restore", self.number)

    def set_clock(self, ahead_ms: int) -> None:
        """Make its physical clock wrong; it and its peers see that from their next frames."""
        self.ahead_ms = ahead_ms
        self._world.tell("clock", self.number, ahead_ms)
        for other in self._world.hosts.values():
            if other is not self and self._world.is_linked(self.number, other.number):
                self.hear(PeerClock(other.number, other.ahead_ms - ahead_ms))
                other.hear(PeerClock(self.number, ahead_ms - other.ahead_ms))

    def _end(self, why: str) -> None:
        self.life = None
        self.why_ended = why
        self._inbox, self._held, self._unsynced = [], deque(), deque()
        self._stalled = self._frozen = self._sync_at = self._timer_at = None
        self._is_due = self._is_flushing = False
        self._synced_turn = 0
        self.links = None
        world = self._world
        for other in world.hosts.values():
            if (
                other.links is not None
                and not world.network.links[self.number, other.number].is_cut
            ):
                other.later(RESET_US, functools.partial(other.links.reset, self.number))

    # ---- turns ---------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """Take note of an event; the turn comes as soon as whatever happens now is over."""
        if self.life is None:
            return
        if isinstance(event, PeerReplies) and self.links is not None:
            self.links.on_replies(event)
        self._inbox.append(event)
        if not self._is_due:
            self._is_due = True
            self.later(0, self._run)

    def later(self, delay_us: int, act: Callable[[], None]) -> None:
        """Do something later, unless this life has ended by then."""
        self._world.later(delay_us, functools.partial(self._fire, self._lives, act))

    def is_life(self, number: int) -> bool:
        """Say whether this is still that life."""
        return self.life is not None and self._lives == number

    def _fire(self, life: int, act: Callable[[], None]) -> None:
        if self.life is None or self._lives != life:
            return
        if self._frozen is not None:
            self._frozen.append(functools.partial(self._fire, life, act))
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
        needs = life.plan(events)
        records, failed = self._fetch(Family.RECORDS, needs.records)
        hints, failed_hints = self._fetch(Family.HINTS, needs.hints)
        turn = life.apply(
            events,
            records,
            hints=hints,
            unreadable=failed | failed_hints if failed_hints else failed,
            now=Instant(world.now_us),
            wall_ms=world.wall_ms + self.ahead_ms,
        )
        self._carry_out(turn)

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
            self.hear(Scanned(scan.id, self._scan(scan)))
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
        found = self.disk.multi_get(family, keys)
        failed = frozenset(k for k, v in zip(keys, found, strict=True) if self._is_failure(v))
        records = {k: v for k, v in zip(keys, found, strict=True) if isinstance(v, bytes)}
        return {key: records.get(key) for key in keys}, failed

    def _scan(self, scan: Scan) -> list[tuple[bytes, bytes]] | None:
        try:
            return self.disk.scan(scan.family, scan.start, scan.end, scan.limit)
        except StorageDamaged:
            return None

    @staticmethod
    def _is_failure(found: bytes | ReadFailure | None) -> bool:
        """Read failures are told from absences here and nowhere else (a mutant confuses them)."""
        return isinstance(found, ReadFailure)

    # ---- the log -------------------------------------------------------------------------

    def _write(self, turn: Turn) -> None:
        position = self.disk.write(turn.batch)
        self._world.watch.on_write(self.number, self.disk, turn.batch)
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
        self.later(self.disk.sync_us, lambda: self._end_flush(mark))

    def _end_flush(self, mark: int) -> None:
        self._is_flushing = False
        try:
            self.disk.sync(mark)
        except StorageFenced as fenced:
            self._world.tell("fenced", self.number)
            # What the kernel had not written it may write yet, or not.
            self.disk.crash(self._world.chance(f"crash {self.number}"))
            self._end(f"fenced: {fenced}")
            return
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
        assert self.links is not None
        for target, messages in boxes.items():
            for message in messages:
                self.links.on_sent(target, message)
                self._world.network.send(self.number, target, message)

    def _wake(self) -> None:
        """Keep one timer at the core's next instant."""
        assert self.life is not None
        due = self.life.next_wake()
        if due is not None and (self._timer_at is None or due < self._timer_at):
            self._timer_at = due
            self.later(max(0, due - self._world.now_us), lambda: self._on_timer(due))

    def _on_timer(self, due: int) -> None:
        if self._timer_at == due:  # else an earlier one has taken its place
            self._timer_at = None
            if not self._is_due:
                self._run()

    # ---- looking at it from outside --------------------------------------------------------

    def _all(self, family: Family) -> list[tuple[bytes, bytes]]:
        return self.disk.scan(family, b"", None, 1 << 20)

    def conflict_log(self) -> ConflictLog:
        """Return a fresh count of conflicts and of the log."""
        log = ConflictLog(bytes_max=self._world.limits.conflict_log_bytes)
        log.load(len(self._all(Family.CONFLICTS)), self._all(Family.CONFLICT_LOG))
        return log

    def entries(self) -> list[Entry]:
        """Return the conflict log."""
        return [decode_entry(*pair) for pair in self._all(Family.CONFLICT_LOG)]

    def check_trees(self) -> None:
        """Assert that the trees are those of the records that the store holds."""
        assert self.life is not None
        trees, fresh = self.life.replica.trees, trees_of(self._world.topology)
        for name, data in self._all(Family.RECORDS):
            fresh.note(StorageKey(name), None, data)
        trees.check()
        for partition in map(Partition, range(self._world.topology.partitions)):
            held = trees.leaves(partition, 1, 0, LEAVES)
            assert held == fresh.leaves(partition, 1, 0, LEAVES), self._world.seed
