"""One simulated node: its process and its clock, on a disk that outlives its lives.

What it decides: nothing of its own; what a driver must do for a node (kvnode.core.node) is done
here as the runtime does it (kvnode.runtime.pump): records are fetched for a turn, its batch is
written, what is held leaves when a flush has ended.
Laws: nothing happens to a paused process until it is resumed, then everything that waited, in
order; what an ended life had asked for never happens. Its tests are tests/sim/test_world.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.conflict_log import ConflictLog, Entry, decode_entry
from kvnode.core.keys import Partition, StorageKey
from kvnode.core.messages import (
    Event,
    Instant,
    NodeNumber,
    PeerMessage,
    Scan,
    Scanned,
    Status,
    SyncedUpTo,
)
from kvnode.core.node import Node, Turn
from kvnode.core.trees import LEAVES, fingerprint_of_any
from kvnode.runtime.beginning import Begun, Start, begin_life
from kvnode.runtime.identity import Identity
from kvnode.runtime.proof import note_doubt
from kvnode.runtime.pump import as_events
from kvnode.storage.port import (
    ReadFailure,
    StorageDamaged,
    StorageError,
    StorageFenced,
    StorageFull,
    StorageStalled,
)
from kvnode.storage.rebuild import Salvage, copy_what_reads
from tests.sim.disk import Disk, Image
from tests.sim.links import Links
from tests.sim.network import Slot
from tests.sim.wire import Wire, is_request

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

Key = TypeVar("Key", bound=bytes)

BIRTH_MS = 1_700_000_000_000
"""True time when a world begins, ms since 1970."""
CLUSTER_KEY = b"simulated cluster key, 32 bytes."
_NONE: frozenset[bytes] = frozenset()
_STALL_RETRY_US = 20_000
_RESTART_US = 500_000
"""Until a node whose store was found damaged has begun anew and rebuilt it."""
_PULSE_US = 200_000
"""How exactly a process knows how long it was away."""
_ALARMS = 20


class Host:
    """One node: its disk and its clock outlive its lives."""

    def __init__(self, world: Cluster, number: NodeNumber, *, slot: Slot = 0) -> None:
        """Args: `slot`: of the machine, if it is not the member's."""
        self.number = number
        self.slot = slot or number
        self.disk = Disk()
        self.ahead_ms = 0
        """How far its physical clock is ahead of true time."""
        self.life: Node | None = None
        self.identity: Identity | None = None
        self.wire: Wire | None = None
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
        self._is_damaged = False
        """Something could not be read in this turn."""
        self._stalled: Turn | None = None
        """A turn whose batch found no room: no other turn may run before it."""
        self._is_due = False
        self._is_flushing = False
        self._sync_at: int | None = None
        """When a flush is to begin."""
        self._timer_at: int | None = None
        self._frozen: list[tuple[Callable[..., None], tuple[object, ...]]] | None = None
        """What waits until a paused process is resumed."""
        self._paused_us = 0
        self._lives = 0
        self._boots = 1

    @property
    def engine(self) -> Disk:
        """The disk, as an engine."""
        return self.disk

    @property
    def is_paused(self) -> bool:
        """Whether its process was stopped (SIGSTOP), and not continued yet."""
        return self._frozen is not None

    # ---- the process ---------------------------------------------------------------------

    def start(self, *, is_restored: bool = False) -> None:
        """Begin a new life on what the store holds, rebuilt if it is damaged.

        With `is_restored` its operator vouches that a life at another place is over.
        """
        world = self._world
        assert self.life is None
        self._lives += 1
        self.disk.open()
        if self.disk.rebuild_asked:
            self._rebuild(self.disk.rebuild_asked)
        try:
            begun = self._begin(is_restored=is_restored)
        except StorageDamaged as exc:
            self._rebuild(str(exc))
            begun = self._begin(is_restored=is_restored)
        except StorageError as exc:
            self._end(f"cannot begin: {exc}")
            return
        self.life, self.identity = begun.node, begun.identity
        begun.identity.pump = self
        world.tell("start", self.slot, self.life.replica.actor)
        wire = Wire(
            begun.identity,
            world.limits,
            cluster_key=CLUSTER_KEY,
            now_us=lambda: Instant(world.now_us),
        )
        self.wire = wire
        self.links = Links(self, world, begun.identity, wire)
        self.links.begin()
        for other in world.hosts.values():
            if other.links is not None and self.slot == self.number and other is not self:
                other.links.dial(self.number)

    def _begin(self, *, is_restored: bool) -> Begun:
        world = self._world
        if self.slot == self.number:
            world.watch.on_start(self.number)
        start = Start(
            node_id=f"n{self.number}",
            incarnation=world.new_actor(self.slot),
            limits=world.limits,
            cluster_key=CLUSTER_KEY,
            boot=b"%d.%d" % (self.slot, self._boots),
            place=f"{self.slot:032x} machine {self.slot}",
            is_restored=is_restored,
        )
        return begin_life(
            self.disk,
            self.disk,
            start,
            born=world.topology,
            wall_ms=self._read_clock,
            later=lambda delay_s, act: self.later(int(1e6 * delay_s), act),
        )

    def _rebuild(self, why: str) -> None:
        self._world.tell("rebuild", self.slot)
        self.disk.rebuild(why, lambda old, new: copy_what_reads(old, new.take, Salvage()))

    def kill(self, *, keeps: bool = True) -> None:
        """Power is lost here: chance says how much of the unsynced log is left, if any."""
        assert self.life is not None
        self._boots += 1
        keep = self.disk.crash(self._world.chance(f"crash {self.slot}"), keeps=keeps)
        self._world.tell("kill", self.slot, keep)
        self._end("killed")

    def down(self) -> None:
        """Be dead, and stay so until `start`, also if a rebuild is under way."""
        if self.life is not None:
            self.kill()
        self._lives += 1

    def end(self, why: str = "ended") -> None:
        """The process is killed, and the machine goes on: the page cache keeps what was written."""
        assert self.life is not None
        self._world.tell("end", self.slot, why)
        self._end(why)

    def stop(self) -> None:
        """Stop cleanly: everything is made durable, and marked so; what is in flight is lost."""
        assert self.life is not None
        self._world.tell("stop", self.slot)
        self.disk.close()
        self.disk.is_clean = True
        self._end("stopped")

    def pause(self) -> None:
        """Stop the process where it is: nothing happens in it until it is resumed."""
        if self._frozen is None and self.life is not None:
            self._frozen = []
            self._paused_us = self._world.now_us
            self._world.tell("pause", self.slot)

    def resume(self) -> None:
        """Continue a paused process: what has come meanwhile is taken now, in order; but nothing
        from streams if it was away for long."""
        if self._frozen is None:
            return
        world = self._world
        world.tell("resume", self.slot)
        frozen, self._frozen = self._frozen, None
        assert self.links is not None
        if world.now_us - self._paused_us > 1_000 * world.limits.silence_ms + _PULSE_US:
            self.links.on_away()
        for act, args in frozen:
            world.after(0, act, *args)

    def wipe(self) -> None:
        """Lose the disk (of a node that is not running)."""
        assert self.life is None
        self.disk.wipe()
        self._world.tell("wipe", self.slot)

    def restore(self, image: Image) -> None:
        """Put an older image on the disk (of a node that is not running)."""
        assert self.life is None
        self.disk.restore(image)
        self._world.tell("restore", self.slot)

    def doubt(self) -> None:
        """Have the store (of a node that is not running) say that it may lack something."""
        assert self.life is None
        self.disk.open()
        batch = WriteBatch()
        note_doubt(batch)
        self.disk.write(batch)
        self.disk.flush()

    @property
    def wall_ms(self) -> int:
        """What its clock says, ms since 1970."""
        return BIRTH_MS + self._world.now_us // 1_000 + self.ahead_ms

    def _read_clock(self) -> int:
        return BIRTH_MS + self._world.now_us // 1_000 + self.ahead_ms

    def set_clock(self, ahead_ms: int) -> None:
        """Make its physical clock wrong; it and its peers see that from their next heartbeats."""
        self.ahead_ms = ahead_ms
        self._world.tell("clock", self.slot, ahead_ms)
        self._world.watch.on_clock(ahead_ms)

    def fail(self, exc: BaseException) -> None:
        """Something ends the node: a refusal, or its store."""
        if self.life is None:
            return
        self._world.tell("fails", self.slot, type(exc).__name__)
        damaged = isinstance(exc, StorageDamaged)
        self._end(f"{type(exc).__name__}: {exc}")
        if damaged:
            self.disk.rebuild_asked = str(exc)
            self._world.after(_RESTART_US, self._begin_anew, self._lives)

    def _begin_anew(self, life: int) -> None:
        if self.life is None and self._lives == life:
            self.start()

    def _end(self, why: str) -> None:
        links, self.links = self.links, None
        self.life = self.identity = None
        self.why_ended = why
        self._inbox, self._held, self._unsynced = [], deque(), deque()
        self._stalled = self._frozen = self._sync_at = self._timer_at = None
        self._is_due = self._is_flushing = self._is_damaged = False
        self._synced_turn = 0
        if links is not None:
            links.close()

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
        self._carry_out(turn)
        if self._is_damaged:
            self._is_damaged = False
            self.fail(StorageDamaged("a record cannot be read"))

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
        failed = []
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
        if self.slot == self.number:
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
        self.later(self.disk.sync_us, lambda: self._end_flush(mark))

    def _end_flush(self, mark: int) -> None:
        self._is_flushing = False
        try:
            self.disk.sync(mark)
        except StorageFenced as fenced:
            # What the kernel had not written it may write yet, or not.
            self.disk.crash(self._world.chance(f"crash {self.slot}"))
            self.fail(fenced)
            return
        if self.slot == self.number:
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
            requests = [one for one in messages if is_request(one)]
            if requests:
                self.links.request(target, requests)
            if len(requests) < len(messages):
                self.links.reply(target, [one for one in messages if not is_request(one)])

    def _loop_back(self, messages: list[PeerMessage]) -> None:
        if self.slot == self.number:
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
        wake_at = self.life.next_wake()
        if wake_at is not None and wake_at <= self._world.now_us:
            self._turn()
        else:
            self._wake()  # what it was set for is over: a turn would do nothing

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
        trees = self.life.replica.trees
        trees.check()
        leaves: dict[tuple[Partition, int], int] = {}
        for name, data in self._all(Family.RECORDS):
            key = StorageKey(name)
            place = trees.partition_of(key), trees.leaf_of(key)
            leaves[place] = leaves.get(place, 0) ^ fingerprint_of_any(key, data)
        for partition in map(Partition, range(self._world.topology.partitions)):
            if trees.is_known(partition):
                held = trees.leaves(partition, 1, 0, LEAVES)
                told = [leaves.get((partition, leaf), 0) for leaf in range(LEAVES)]
                assert held == told, f"seed {self._world.seed}: node {self.number}: {partition}"
