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

import hashlib
import heapq
import itertools
import random
from collections.abc import Callable, Sequence

from kvnode.core.bounds import Limits
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
from kvnode.core.keys import Partition, StorageKey, keyspace_of, partition_of_key
from kvnode.core.liveness import Change, Standing
from kvnode.core.messages import (
    ClientGet,
    ClientPut,
    Event,
    Failure,
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
    SessionId,
)
from kvnode.core.topology import Keyspace, Member, NodeId, Topology
from tests.sim.checks import Stored, Watch, brief_context
from tests.sim.front import Front
from tests.sim.host import CLUSTER_KEY as CLUSTER_KEY
from tests.sim.host import Host as Host
from tests.sim.network import Network

BIRTH_MS = 1_700_000_000_000
PARTITIONS = 8


class Cluster:
    """Nodes 1 to `nodes`, all started and linked."""

    def __init__(
        self,
        seed: int,
        *,
        nodes: int = 5,
        keyspace: Keyspace | None = None,
        keyspaces: Sequence[Keyspace] = (),
        limits: Limits | None = None,
    ) -> None:
        """Args: `keyspaces` for several; the first is what tests use that name none."""
        self.seed = seed
        self.now_us = 0
        self.limits = limits or Limits()
        self.keyspaces = tuple(keyspaces) or (keyspace or Keyspace(name="default", sloppy=False),)
        self.keyspace = self.keyspaces[0]
        self.topology = _topology(nodes, self.keyspaces)
        self.watch = Watch(self)
        self.stories: dict[bytes, list[str]] = {}
        self._fronts: dict[NodeNumber, Front] = {}
        self.changes: list[tuple[int, NodeNumber, Change]] = []
        """When which node changed its mind about a peer."""
        self._trace = hashlib.blake2b(digest_size=16)
        self._streams: dict[str, random.Random] = {}
        self._order = itertools.count()
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        self.network = Network(
            nodes=nodes,
            seed=seed,
            now=lambda: self.now_us,
            schedule=self.later,
            deliver=self._deliver,
        )
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

    def front(self, node: NodeNumber) -> Front | None:
        """Return the service for clients of a node's present life; None if it is dead."""
        host = self.hosts[node]
        if host.life is None:
            return None
        front = self._fronts.get(node)
        if front is None or front.is_over:
            front = self._fronts[node] = Front(self, host)
        return front

    def answer(self, node: NodeNumber, session: SessionId, results: list[Result]) -> None:
        """Hand the results of a turn to the node's clients."""
        front = self.front(node)
        if front is not None:
            front.answer(session, results)

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
        return self.topology.owner_numbers[partition][: self.keyspace_of(key).n]

    def keyspace_of(self, key: StorageKey) -> Keyspace:
        """Return a key's keyspace."""
        found = self.topology.keyspace(keyspace_of(key))
        assert found is not None
        return found

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


def _topology(nodes: int, keyspaces: Sequence[Keyspace]) -> Topology:
    members = [
        Member(id=NodeId(f"n{number}"), number=number, address=f"sim:{number}")
        for number in range(1, nodes + 1)
    ]
    return Topology.at_birth(
        cluster_id=b"simulated cluste",
        name="sim",
        partitions=PARTITIONS,
        members=members,
        keyspaces=list(keyspaces),
    )
