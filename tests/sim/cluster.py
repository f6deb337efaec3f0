"""A whole cluster in one thread: the real core and codecs, disks, virtual time, one seed.

What it decides: the order of everything that happens. The nodes decide all else; what a driver
must do for them is done in tests/sim/host.py and tests/sim/links.py as the runtime does it.
Laws: the same seed and the same calls give the same trace, in any process; time moves only in
`run`; each purpose has a stream of chance of its own; every life has an actor of its own; nodes
hear of one another by bytes alone.
Its tests are tests/sim/test_world.py and tests/sim/test_cluster.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import random
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from kvnode.core.bounds import Limits
from kvnode.core.keys import Partition, StorageKey, keyspace_of, partition_of_key
from kvnode.core.liveness import Change, Standing
from kvnode.core.messages import (
    Failure,
    NodeNumber,
    PeerMessage,
    PutResult,
    ReplicaReadReply,
    ReplicaWriteReply,
    Result,
    SessionId,
)
from kvnode.core.node import Node
from kvnode.core.topology import Keyspace, Member, NodeId, Topology
from kvnode.runtime.pump import as_events
from kvnode.runtime.topology_codec import encode_topology
from kvnode.storage.port import StorageFenced, StorageFull, StorageStalled
from tests.sim.checks import Watch
from tests.sim.front import Front
from tests.sim.host import BIRTH_MS as BIRTH_MS
from tests.sim.host import CLUSTER_KEY as CLUSTER_KEY
from tests.sim.host import Host as Host
from tests.sim.network import Network
from tests.sim.story import Stories

PARTITIONS = 8
GHOSTS = 100
"""The first slot of machines that are no member's."""
_HEAD = struct.Struct("<QHHI")
_TOLD_BYTES = 1 << 16
_WITHOUT_KEY = frozenset((ReplicaWriteReply, ReplicaReadReply, PutResult, Failure))
_PLAIN = frozenset((str, int, bool, bytes, type(None)))


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
        self.stories = Stories()
        self._fronts: dict[NodeNumber, Front] = {}
        self.changes: list[tuple[int, NodeNumber, Change]] = []
        """When which node changed its mind about a peer."""
        self._trace = hashlib.blake2b(digest_size=16)
        self._told = bytearray()
        """What the trace is to take in next."""
        self._streams: dict[str, random.Random] = {}
        self._order = itertools.count()
        self._agenda: list[tuple[int, int, Callable[..., Any], tuple[object, ...]]] = []
        self.network = Network(self, nodes=nodes, seed=seed)
        self.turn_us = 0
        """Nodes begin turns at multiples of this only, so that what comes meanwhile shares one."""
        self.lives = 0
        """How many have begun, of all nodes."""
        self.ghosts: list[Host] = []
        """Second lives under identities that were copied."""
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
        self.after(delay_us, act)

    def after(self, delay_us: int, act: Callable[..., Any], *args: object) -> None:
        """Put a call on the agenda."""
        heapq.heappush(self._agenda, (self.now_us + delay_us, next(self._order), act, args))

    def run(self, for_us: int, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass, until `until` holds; returns whether it does."""
        end, agenda, pop = self.now_us + for_us, self._agenda, heapq.heappop
        while until is None or not until():
            if not agenda or agenda[0][0] > end:
                self.now_us = end
                return until is not None and until()
            self.now_us, _, act, args = pop(agenda)
            act(*args)
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

    def inject(self, source: NodeNumber, target: NodeNumber, message: PeerMessage) -> None:
        """Have a message reach a node, on no stream, though as bytes."""
        here, there = self.hosts[source], self.hosts[target]
        if source == target:
            for event in as_events(source, [message]):
                here.hear(event)
        elif there.links is not None and there.wire is not None:
            wire = here.wire or there.wire
            data = wire.codec.encode(wire.begin(), [message])
            there.take(there.links, there.links.inject, source, data)

    def note_frame(self, source: NodeNumber, target: NodeNumber, data: bytes) -> None:
        """A frame is heard: it goes into the trace."""
        self._told += _HEAD.pack(self.now_us, source, target, len(data))
        self._told += data
        if len(self._told) > _TOLD_BYTES:
            self._take_told()

    def note_beat(self, source: NodeNumber, target: NodeNumber, number: int) -> None:
        """A heartbeat or its answer is heard."""
        self._told += _HEAD.pack(self.now_us, source, target, number)

    def note_messages(
        self, source: NodeNumber, target: NodeNumber, messages: Iterable[PeerMessage]
    ) -> None:
        """Messages are heard: they go into the stories of their keys."""
        for message in messages:
            if type(message) in _WITHOUT_KEY:
                continue
            self.watch.on_message(source, target, message)
            if (key := getattr(message, "key", None)) is not None:
                self.stories.note(key, self.now_us, "message", (source, target, message))

    def copy_identity(self, source: NodeNumber) -> Host:
        """Copy a node's data folder to another machine, and start it there under its name."""
        self.tell("copy", source)
        ghost = Host(self, source, slot=GHOSTS + len(self.ghosts))
        self.ghosts.append(ghost)
        for number in self.numbers:
            self.network.link(ghost.slot, number)
            self.network.link(number, ghost.slot)
        ghost.disk.restore(self.hosts[source].disk.image())
        ghost.start()
        return ghost

    def follow(self, node: NodeNumber, topology: Topology) -> None:
        """Have one node hear of a newer topology; the others will hear of it in its frames.

        A node whose disk takes nothing at present does not follow.
        """
        self.tell("topology", node, topology.epoch)
        host = self.hosts[node]
        if host.identity is None or topology.epoch <= host.identity.topology.epoch:
            return
        try:
            with contextlib.suppress(StorageStalled, StorageFull):
                host.identity.install(encode_topology(topology))
        except StorageFenced as exc:
            host.fail(exc)

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
        lives = [host.life for host in self.hosts.values()]
        if not all(life is not None and life.replica.is_proven for life in lives):
            return False
        return all(self.is_equal(Partition(each)) for each in range(self.topology.partitions))

    def is_equal(self, partition: Partition, among: Sequence[NodeNumber] = ()) -> bool:
        """Say whether all owners of a partition live and hold the same: or those of some nodes."""
        row = self.topology.owner_numbers[partition]
        first: Node | None = None
        for place, number in enumerate(row, start=1):
            if among and number not in among:
                continue
            life = self.hosts[number].life
            if life is None:
                return False
            first = first or life
            # The owner in this place holds the keyspaces whose n is at least so much.
            here, there = life.replica.trees, first.replica.trees
            if here.root(partition, place) != there.root(partition, place):
                return False
        return True

    def owners(self, key: StorageKey) -> tuple[NodeNumber, ...]:
        """Return the numbers of a key's owners."""
        partition = partition_of_key(key, self.topology.partition_bits)
        return self.topology.owner_numbers[partition][: self.keyspace_of(key).n]

    def partition_of(self, key: StorageKey) -> Partition:
        """Return a key's partition."""
        return partition_of_key(key, self.topology.partition_bits)

    def keyspace_of(self, key: StorageKey) -> Keyspace:
        """Return a key's keyspace."""
        found = self.topology.keyspace(keyspace_of(key))
        assert found is not None
        return found

    def tell(self, what: str, *facts: object) -> None:
        """Add to the trace, and to the story of the key that it is about."""
        told = f"{self.now_us} {what}"
        for fact in facts:
            if type(fact) in _PLAIN:
                told = f"{told} {fact}"
            elif (key := getattr(fact, "key", None)) is not None:
                self.stories.note(key, self.now_us, what, facts)
        self._told += told.encode()

    def digest(self) -> str:
        """Return the hash of all that happened."""
        self._take_told()
        return self._trace.hexdigest()

    def _take_told(self) -> None:
        self._trace.update(self._told)
        self._told.clear()

    def fail(self, key: StorageKey, claim: str, *, name: str = "assertion") -> NoReturn:
        """Report a broken invariant, with its name, the seed and the key's story."""
        self.watch.fail(name, key, claim)


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
