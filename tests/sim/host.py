"""One simulated node: its process and its clock, on a disk that outlives its lives.

What it decides: how lives begin and end: by the code that begins real ones
(kvnode.runtime.beginning), and by what is done to it. Between the two, tests/sim/driver.py.
Laws: a life that ends leaves its disk as a process or a machine would that dies so; one that met
damage begins anew, rebuilt. Its tests are tests/sim/test_world.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.conflict_log import ConflictLog, Entry, decode_entry
from kvnode.core.keys import Partition, StorageKey
from kvnode.core.messages import Instant, NodeNumber
from kvnode.core.trees import LEAVES, fingerprint_of_any
from kvnode.runtime.beginning import Begun, Start, begin_life
from kvnode.runtime.identity import Identity
from kvnode.runtime.proof import note_doubt
from kvnode.storage.port import StorageDamaged, StorageError, StorageFenced
from kvnode.storage.rebuild import Salvage, copy_what_reads
from tests.sim.disk import Disk, Image
from tests.sim.driver import BIRTH_MS as BIRTH_MS
from tests.sim.driver import Driver
from tests.sim.links import Links
from tests.sim.network import Slot
from tests.sim.story import Broken
from tests.sim.wire import Wire

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

CLUSTER_KEY = b"simulated cluster key, 32 bytes."
_RESTART_US = 500_000
"""Until a node whose store was found damaged has begun anew and rebuilt it."""
_PULSE_US = 200_000
"""How exactly a process knows how long it was away."""


class Host(Driver):
    """One node: its disk and its clock outlive its lives."""

    def __init__(self, world: Cluster, number: NodeNumber, *, slot: Slot = 0) -> None:
        """Args: `slot`: of the machine, if it is not the member's."""
        super().__init__(world, number, slot or number)
        self.identity: Identity | None = None
        self.wire: Wire | None = None
        self.why_ended = ""
        """Why its latest life ended."""
        self._paused_us = 0
        self._boots = 1

    @property
    def engine(self) -> Disk:
        """The disk, as an engine."""
        return self.disk

    # ---- the process ---------------------------------------------------------------------

    def start(self, *, is_restored: bool = False) -> None:
        """Begin a new life on what the store holds, rebuilt if it is damaged.

        With `is_restored` its operator vouches that a life at another place is over.
        """
        world = self._world
        assert self.life is None
        self._lives += 1
        self.disk.open()
        try:
            begun = self._open(is_restored=is_restored)
        except StorageError as exc:
            world.tell("refused", self.slot)
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
            if other.links is not None and self._is_member and other is not self:
                other.links.dial(self.number)

    def _open(self, *, is_restored: bool) -> Begun:
        """Begin, on a rebuilt store if this one is damaged. Raises: StorageError."""
        if self.disk.rebuild_asked:
            self._rebuild(self.disk.rebuild_asked)
        try:
            return self._begin(is_restored=is_restored)
        except StorageDamaged as exc:
            self._rebuild(str(exc))
            return self._begin(is_restored=is_restored)

    def _begin(self, *, is_restored: bool) -> Begun:
        world = self._world
        world.lives += 1
        if self._is_member:
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
        damage = self.disk.damage
        begun = begin_life(
            self.disk,
            self.disk,
            start,
            born=world.topology,
            wall_ms=lambda: self.wall_ms,
            later=lambda delay_s, act: self.later(int(1e6 * delay_s), act),
        )
        proving = begun.node.replica.proving
        if damage and any(proving.is_proven(each) for each in proving.owned()):
            text = f"seed {world.seed}: node {self.number} counts, and was opened with {damage}"
            raise Broken("5-damage-is-doubted", text)
        return begun

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
        try:
            self.disk.close()
        except StorageFenced as fenced:
            self.disk.crash(self._world.chance(f"crash {self.slot}"))
            self._end(f"cannot stop cleanly: {fenced}")
            return
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
        self._forget()
        if links is not None:
            links.close()

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
        partitions = self._world.topology.partitions
        told = [[0] * LEAVES for _ in range(partitions)]
        for name, data in self._all(Family.RECORDS):
            key = StorageKey(name)
            told[trees.partition_of(key)][trees.leaf_of(key)] ^= fingerprint_of_any(key, data)
        for partition in map(Partition, range(partitions)):
            if trees.is_known(partition):
                held = trees.leaves(partition, 1, 0, LEAVES)
                assert held == told[partition], (
                    f"seed {self._world.seed}: node {self.number}: {partition}"
                )
