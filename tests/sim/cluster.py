"""A whole cluster in one thread: the real core, the memory engine, virtual time, one seed.

What it decides: the order of everything that happens. The nodes decide all else, and what a driver
must do for them (kvnode.core.node) is done here as the runtime does it: records are fetched for a
turn, its batch is written, what is held leaves when a flush has ended.
Laws: the same seed and the same calls give the same trace; time moves only in `run`; a crash keeps
nothing that was not flushed, but for a prefix that chance decides; every life has an actor of its
own. Its tests are tests/sim/test_cluster.py. Left out: torn writes, clocks that jump, a full disk
(the full simulator grows from here).
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import itertools
import random
from collections.abc import Callable
from typing import TypeVar

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.bounds import Limits
from kvnode.core.conflict_log import ConflictLog, Entry, decode_entry
from kvnode.core.conversations import (
    AskHashes,
    AskKeys,
    AskRoots,
    AskState,
    LogLosers,
    PeerAsks,
    PeerTells,
    Prune,
    TakeOver,
    TellHashes,
    TellKeys,
    TellLogged,
    TellPruned,
    TellRoots,
    TellState,
)
from kvnode.core.floors import Floors
from kvnode.core.hints import Hints
from kvnode.core.keys import Partition, StorageKey, partition_of_key
from kvnode.core.liveness import Change, Standing
from kvnode.core.messages import (
    ClientGet,
    ClientPut,
    Event,
    Failure,
    Instant,
    NodeNumber,
    PeerClock,
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
    SyncedUpTo,
)
from kvnode.core.node import Node
from kvnode.core.proving import UNPROVEN
from kvnode.core.topology import Keyspace, Member, NodeId, Topology
from kvnode.core.trees import LEAVES, trees_of
from kvnode.storage.memory import MemoryEngine
from kvnode.storage.port import ReadFailure, StorageDamaged
from tests.sim.checks import Stored, Watch, brief_context
from tests.sim.links import RESET_US, Links
from tests.sim.network import Network

Key = TypeVar("Key", bound=bytes)

CLUSTER_KEY = b"simulated cluster key, 32 bytes."
BIRTH_MS = 1_700_000_000_000
PARTITIONS = 8


class Host:
    """One node: its store outlives its lives."""

    def __init__(self, world: Cluster, number: NodeNumber) -> None:
        self.number = number
        self.engine = MemoryEngine()
        self.ahead_ms = 0
        """How far its physical clock is ahead of true time."""
        self.flush_us = 3_000
        self.is_proven = True
        """Whether the next life begins without a doubt other than those that its store knows of."""
        self.life: Node | None = None
        self.links: Links | None = None
        """Its life's."""
        self._world = world
        self._inbox: list[Event] = []
        self._held: list[tuple[NodeNumber, PeerMessage]] = []
        self._is_due = False
        self._is_flushing = False
        self._lives = 0

    def start(self) -> None:
        """Begin a new life on what the store holds."""
        world = self._world
        assert self.life is None
        self._lives += 1
        floors = Floors()
        floors.load(self._all(Family.FLOORS))
        hints = Hints(bytes_max=world.limits.hint_bytes)
        hints.load(self._all(Family.HINTS))
        trees = trees_of(world.topology)
        trees.load(self._all(Family.TREES))
        (mark,) = self.engine.multi_get(Family.META, [UNPROVEN])
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
        if not self.is_proven:
            self.is_proven = True
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
        """End this life at once; chance says how much of the unflushed log it keeps, if any."""
        assert self.life is not None
        world = self._world
        unflushed = self.engine.written - self.engine.durable if keeps else 0
        keep = world.chance("crash").randint(0, unflushed)
        self.engine.crash(keep=keep)
        self.life = None
        self._inbox, self._held = [], []
        self._is_due = self._is_flushing = False
        world.tell("kill", self.number, keep)
        self.links = None
        for other in world.hosts.values():
            if (
                other.links is not None
                and not world.network.links[self.number, other.number].is_cut
            ):
                other.later(RESET_US, functools.partial(other.links.reset, self.number))

    def _all(self, family: Family) -> list[tuple[bytes, bytes]]:
        return self.engine.scan(family, b"", None, 1 << 20)

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
        for partition in map(Partition, range(PARTITIONS)):
            held = trees.leaves(partition, 1, 0, LEAVES)
            assert held == fresh.leaves(partition, 1, 0, LEAVES), self._world.seed

    def wipe(self) -> None:
        """Lose the disk (of a node that is not running): what it held is no longer proven."""
        assert self.life is None
        self.engine = MemoryEngine()
        self.is_proven = False
        self._world.tell("wipe", self.number)

    def set_clock(self, ahead_ms: int) -> None:
        """Make its physical clock wrong; it and its peers see that from their next frames."""
        self.ahead_ms = ahead_ms
        self._world.tell("clock", self.number, ahead_ms)
        for other in self._world.hosts.values():
            if other is not self and self._world.is_linked(self.number, other.number):
                self.hear(PeerClock(other.number, other.ahead_ms - ahead_ms))
                other.hear(PeerClock(self.number, ahead_ms - other.ahead_ms))

    def hear(self, event: Event) -> None:
        """Take note of an event; the turn comes as soon as whatever happens now is over."""
        if self.life is None:
            return
        if isinstance(event, PeerReplies) and self.links is not None:
            self.links.on_replies(event)
        self._inbox.append(event)
        if not self._is_due:
            self._is_due = True
            self.later(0, self._turn)

    def later(self, delay_us: int, act: Callable[[], None]) -> None:
        """Do something later, unless this life has ended by then."""
        life = self._lives
        self._world.later(delay_us, lambda: act() if self.is_life(life) else None)

    def is_life(self, number: int) -> bool:
        """Say whether this is still that life."""
        return self.life is not None and self._lives == number

    def _turn(self) -> None:
        life, world = self.life, self._world
        assert life is not None
        events, self._inbox = self._inbox, []
        self._is_due = False
        needs = life.plan(events)
        records, failed = self._fetch(Family.RECORDS, needs.records)
        hints, failed_hints = self._fetch(Family.HINTS, needs.hints)
        turn = life.apply(
            events,
            records,
            hints=hints,
            unreadable=failed | failed_hints,
            now=Instant(world.now_us),
            wall_ms=world.wall_ms + self.ahead_ms,
        )
        if turn.batch:
            self._write(turn.batch)
        self._send(turn.out.peers, turn.out.held_peers)
        for session, results in turn.out.clients.items():
            world.answer(self.number, session, results)
        for scan in turn.out.scans:
            self.hear(Scanned(scan.id, self._scan(scan)))
        self._wake()

    def _fetch(
        self, family: Family, keys: list[Key]
    ) -> tuple[dict[Key, bytes | None], frozenset[bytes]]:
        found = self.engine.multi_get(family, keys)
        failed = frozenset(k for k, v in zip(keys, found, strict=True) if self._is_failure(v))
        records = {k: v for k, v in zip(keys, found, strict=True) if isinstance(v, bytes)}
        return {key: records.get(key) for key in keys}, failed

    def _scan(self, scan: Scan) -> list[tuple[bytes, bytes]] | None:
        try:
            return self.engine.scan(scan.family, scan.start, scan.end, scan.limit)
        except StorageDamaged:
            return None

    @staticmethod
    def _is_failure(found: bytes | ReadFailure | None) -> bool:
        """Read failures are told from absences here and nowhere else (a mutant confuses them)."""
        return isinstance(found, ReadFailure)

    def _write(self, batch: WriteBatch) -> None:
        self._world.watch.on_write(self.number, self.engine, batch)
        self.engine.write(batch)
        if not self._is_flushing:
            self._is_flushing = True
            self.later(self.flush_us, self._flush)

    def _flush(self) -> None:
        assert self.life is not None
        self._is_flushing = False
        self.engine.flush()
        held, self._held = self._held, []
        for target, message in held:
            self._post(target, message)
        self.hear(SyncedUpTo(self.life.replica.turn))

    def _send(
        self,
        boxes: dict[NodeNumber, list[PeerMessage]],
        held: dict[NodeNumber, list[PeerMessage]],
    ) -> None:
        for target, messages in boxes.items():
            for message in messages:
                self._post(target, message)
        waiting = [(target, message) for target, queue in held.items() for message in queue]
        if self.engine.durable < self.engine.written:
            self._held += waiting
            return
        for target, message in waiting:
            self._post(target, message)

    def _post(self, target: NodeNumber, message: PeerMessage) -> None:
        assert self.links is not None
        self.links.on_sent(target, message)
        self._world.network.send(self.number, target, message)

    def _wake(self) -> None:
        assert self.life is not None
        at = self.life.next_wake()
        if at is not None and not self._is_due:
            self.later(max(0, at - self._world.now_us), self._turn_if_idle)

    def _turn_if_idle(self) -> None:
        if not self._is_due:
            self._turn()


class Cluster:
    """Nodes 1 to `nodes`, all started and linked."""

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 5,
        keyspace: Keyspace | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.seed = seed
        self.now_us = 0
        self.limits = limits or Limits()
        self.keyspace = keyspace or Keyspace(name="default", sloppy=False)
        self.topology = _topology(nodes, self.keyspace)
        self.watch = Watch(self)
        self.stories: dict[bytes, list[str]] = {}
        self.clients: dict[int, Callable[[NodeNumber, Result], None]] = {}
        self.changes: list[tuple[int, NodeNumber, Change]] = []
        """When which node changed its mind about a peer."""
        self._trace = hashlib.blake2b(digest_size=16)
        self._streams: dict[str, random.Random] = {}
        self._order = itertools.count()
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self.network = Network(nodes=nodes, seed=seed, schedule=self.later, deliver=self._deliver)
        self.numbers = range(1, nodes + 1)
        self.hosts = {number: Host(self, number) for number in self.numbers}
        for host in self.hosts.values():
            host.start()

    # ---- time and chance -----------------------------------------------------------------

    @property
    def wall_ms(self) -> int:
        """True time, ms since 1970."""
        return BIRTH_MS + self.now_us // 1_000

    def chance(self, purpose: str) -> random.Random:
        """Return the stream of chance for one purpose."""
        if purpose not in self._streams:
            self._streams[purpose] = random.Random(f"{self.seed} {purpose}")
        return self._streams[purpose]

    def new_actor(self, number: NodeNumber) -> int:
        """Return a fresh 64-bit actor for a life."""
        return self.chance(f"actor {number}").getrandbits(64) | 1

    def later(self, delay_us: int, act: Callable[[], None]) -> None:
        """Put something on the agenda."""
        heapq.heappush(self._agenda, (self.now_us + delay_us, next(self._order), act))

    def run(self, for_us: int, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass, until `until` holds; returns whether it does."""
        end = self.now_us + for_us
        while not until():
            if not self._agenda or self._agenda[0][0] > end:
                self.now_us = end
                return until()
            self.now_us, _, act = heapq.heappop(self._agenda)
            act()
        return True

    # ---- links ---------------------------------------------------------------------------

    def cut(self, a: NodeNumber, b: NodeNumber, *, one_way: bool = False) -> None:
        """Cut the link from a to b (and back): what is sent there is lost, silently."""
        self.tell("cut", a, b, one_way)
        self.network.links[a, b].is_cut = True
        self.network.links[b, a].is_cut |= not one_way

    def isolate(self, node: NodeNumber) -> None:
        """Cut a node off from all others."""
        for other in self.hosts:
            if other != node:
                self.cut(node, other)

    def heal(self) -> None:
        """Mend all links."""
        self.tell("heal")
        for a, b in itertools.combinations(self.hosts, 2):
            self.mend(a, b)

    def mend(self, a: NodeNumber, b: NodeNumber) -> None:
        """Mend a link, if it is cut either way; connections over it break, and are made anew."""
        there, back = self.network.links[a, b], self.network.links[b, a]
        if not (there.is_cut or back.is_cut):
            return
        there.is_cut = back.is_cut = False
        for here, peer in ((a, b), (b, a)):
            if (links := self.hosts[here].links) is not None:
                links.reset(peer)

    def is_linked(self, a: NodeNumber, b: NodeNumber) -> bool:
        """Say whether two nodes take one another to be up."""
        here, there = self.hosts[a].links, self.hosts[b].links
        if here is None or there is None:
            return False
        return here.standing(b) is Standing.UP and there.standing(a) is Standing.UP

    def _deliver(self, source: NodeNumber, target: NodeNumber, message: PeerMessage) -> None:
        self.tell("message", source, target, message)
        self.hosts[target].hear(_event(source, message))

    # ---- clients and the story -------------------------------------------------------------

    def answer(self, node: NodeNumber, session: int, results: list[Result]) -> None:
        """Carry results to a client: a while later, and lost if the node dies meanwhile."""
        delay = self.chance("clients").randint(100, 1_000)
        for result in results:
            self.tell("answer", node, session, result)
            hear = self.clients[session]
            self.hosts[node].later(delay, lambda hear=hear, it=result: hear(node, it))  # type: ignore[misc]

    def are_owners_equal(self) -> bool:
        """Say whether all nodes live, are proven, and hold the same as the other owners."""
        lives = {number: host.life for number, host in self.hosts.items()}
        if not all(life is not None and life.replica.is_proven for life in lives.values()):
            return False
        for partition, row in enumerate(self.topology.owner_numbers):
            owners = [life for number in row if (life := lives[number]) is not None]
            if len({life.replica.trees.root(Partition(partition), 1) for life in owners}) > 1:
                return False
        return True

    def owners(self, key: StorageKey) -> tuple[NodeNumber, ...]:
        """Return the numbers of a key's owners."""
        partition = partition_of_key(key, self.topology.partition_bits)
        return self.topology.owner_numbers[partition][: self.keyspace.n]

    def tell(self, what: str, *facts: object) -> None:
        """Add to the trace, and to the story of the key that it is about."""
        line = f"{self.now_us:>10} {what} {' '.join(map(repr, facts))}"
        self._trace.update(line.encode() + b"\n")
        for fact in facts:
            key = getattr(fact, "key", None)
            if key is not None:
                self.stories.setdefault(key, []).append(self._brief(what, facts))

    def _brief(self, what: str, facts: tuple[object, ...]) -> str:
        told = " ".join(fact.brief() if isinstance(fact, Stored) else brief(fact) for fact in facts)
        return f"{self.now_us / 1_000_000:>10.6f} s  {what} {told}"

    def digest(self) -> str:
        """Return the hash of all that happened."""
        return self._trace.hexdigest()

    def fail(self, key: StorageKey, claim: str) -> None:
        """Report a broken invariant with the seed and the key's story."""
        story = "\n".join(self.stories.get(key, [])[-80:])
        raise AssertionError(f"seed {self.seed}: {claim}\nstory of {key!r}:\n{story}")


def brief(fact: object) -> str:
    """Return a fact as a story tells it: messages without the bytes that they carry."""
    match fact:
        case ClientPut():
            value = "delete" if fact.is_delete else repr(fact.value)
            how = "explicitly" if fact.is_explicit else "plainly"
            return (
                f"put {value} {how} at {fact.timestamp} as {fact.write_id.hex()[:6]} "
                f"over {brief_context(fact.seen)}"
            )
        case ClientGet():
            return f"get with r={fact.r} beyond {brief_context(fact.seen)}"
        case ReplicaWrite():
            return f"{fact.kind.name} #{fact.id}"
        case ReplicaRead():
            return f"READ #{fact.id}"
        case _:
            return repr(fact)


def _event(source: NodeNumber, message: PeerMessage) -> Event:
    match message:
        case ReplicaWrite():
            return PeerRequests(source, writes=(message,))
        case ReplicaRead():
            return PeerRequests(source, reads=(message,))
        case ClientPut():
            return PeerRequests(source, forwards=(message,))
        case ReplicaWriteReply():
            return PeerReplies(source, writes=(message,))
        case ReplicaReadReply():
            return PeerReplies(source, reads=(message,))
        case PutResult() | Failure():
            return PeerReplies(source, forwards=(message,))
        case AskRoots() | AskHashes() | AskKeys() | TakeOver() | AskState() | LogLosers() | Prune():
            return PeerAsks(source, (message,))
        case TellRoots() | TellHashes() | TellKeys() | TellState() | TellLogged() | TellPruned():
            return PeerTells(source, (message,))


def _topology(nodes: int, keyspace: Keyspace) -> Topology:
    members = [
        Member(id=NodeId(f"n{number}"), number=number, address=f"sim:{number}")
        for number in range(1, nodes + 1)
    ]
    return Topology.at_birth(
        cluster_id=b"simulated cluste",
        name="sim",
        partitions=PARTITIONS,
        members=members,
        keyspaces=[keyspace],
    )
