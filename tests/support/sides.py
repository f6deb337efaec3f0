"""Owners in memory that exchange partitions with one another, without nodes, links or clocks.

What it decides: nothing. Each side has the core's trees, floors, proving, answers, mender and
sweeps over a dictionary of records, and merges as an owner does: what it has seen and no longer
holds was superseded. Messages are carried in order, one turn for each; `asked` counts them by kind.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from kvnode.core.answering import ANSWER_ID, Answers, Heard, Holdings
from kvnode.core.bounds import Limits
from kvnode.core.conversations import ASKS, TELLS
from kvnode.core.exchange import Shared
from kvnode.core.floors import Floors
from kvnode.core.keys import Partition, StorageKey, encode_key, partition_of_key
from kvnode.core.mending import MEND_ID, Mender
from kvnode.core.messages import (
    Instant,
    NodeNumber,
    Outbox,
    PeerMessage,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Scan,
    Status,
)
from kvnode.core.proving import Proving
from kvnode.core.record import Encoded, core_of, decode, encode
from kvnode.core.runs import RUN_ID
from kvnode.core.sweeps import Sweeps
from kvnode.core.topology import Keyspace, Member, NodeId, Topology
from kvnode.core.trees import Trees
from kvnode.core.versions import EMPTY, Context, Dot, Record, covers, find, join, sync

BITS = 1
_KIND = 0b1111 << 60


def three_owners(*keyspaces: Keyspace, nodes: int = 3, bits: int = BITS) -> Topology:
    return Topology.at_birth(
        cluster_id=b"c" * 16,
        name="sides",
        partitions=1 << bits,
        members=[
            Member(id=NodeId(f"n{number}"), number=number, address=f"127.0.0.1:{7000 + number}")
            for number in range(1, nodes + 1)
        ],
        keyspaces=keyspaces or [Keyspace(name="default")],
    )


def keys_of(partition: int, count: int, keyspace: str = "default") -> list[StorageKey]:
    """Return keys of a partition, in order."""
    every = (encode_key(keyspace, b"%d" % each) for each in range(8 * count + 64))
    return sorted([key for key in every if partition_of_key(key, BITS) == partition][:count])


class Side:
    """One owner."""

    def __init__(self, number: NodeNumber, topology: Topology, limits: Limits) -> None:
        self.number = number
        self.records: dict[StorageKey, bytes] = {}
        self.writes = 0
        """Records that merging changed."""
        self.floors = Floors()
        n_of = {keyspace.name: keyspace.n for keyspace in topology.keyspaces}
        self.trees = Trees(BITS, n_of)
        self.proving = Proving(number, topology)
        self.heard: dict[tuple[NodeNumber, Partition], Heard] = {}
        self.topology = topology
        self.holdings = Holdings(
            number,
            lambda _: Dot(1_000 + number, 0),
            self.trees,
            self.floors,
            self.proving,
            lambda: self.topology,
        )
        self.mender = Mender(
            number, window=limits.exchange_window, per_s=limits.exchange_keys_per_s
        )
        self.answers = Answers(self.holdings, self._on_heard)
        self.sweeps = Sweeps(self.holdings, self.mender, limits, self._on_heard)
        self.damaged: set[StorageKey] = set()

    def hold(self, key: StorageKey, record: Record) -> None:
        """Set what is held, as if it had been written here."""
        for version in record.versions:
            self.floors.add(partition_of_key(key, BITS), version.dot)
        self.keep(key, record)

    def keep(self, key: StorageKey, record: Record) -> None:
        """Set what is held; a record without versions is none."""
        old, new = self.records.get(key), encode(key, record) if record.versions else None
        self.trees.note(key, old, new)
        if new is None:
            self.records.pop(key, None)
        else:
            self.records[key] = new

    def lose(self, partition: int) -> None:
        """Lose all records of a partition, and know it."""
        for key in [key for key in self.records if partition_of_key(key, BITS) == partition]:
            self.keep(key, EMPTY)
        self.floors.drop(Partition(partition))
        self.proving.doubt([Partition(partition)])

    def state(self, key: StorageKey) -> Record:
        data = self.records.get(key)
        return decode(key, data) if data else EMPTY

    def scan(self, scan: Scan) -> list[tuple[bytes, bytes]]:
        pairs: list[tuple[bytes, bytes]] = [
            (key, data)
            for key, data in sorted(self.records.items())
            if scan.start <= key and (scan.end is None or key < scan.end)
        ]
        return pairs[: scan.limit]

    def take(self, sender: NodeNumber, message: PeerMessage, now: Instant, out: Outbox) -> None:
        """Hear one message."""
        match message:
            case ReplicaRead():
                ok = message.key not in self.damaged
                data = Encoded(self.records.get(message.key, b"") if ok else b"")
                status = Status.DONE if ok else Status.ABSTAINED
                out.send(sender, ReplicaReadReply(message.id, status, data, covers=False))
            case ReplicaWrite():
                out.send(sender, self._merge(message))
            case ReplicaReadReply():
                assert message.id & _KIND == MEND_ID
                self.mender.on_read_reply(sender, message, now, out)
            case ReplicaWriteReply():
                assert message.id & _KIND == MEND_ID
                self.mender.on_write_reply(sender, message, now, out)
            case _ if isinstance(message, ASKS):
                self.answers.on_ask(sender, message, out)
            case _:
                assert isinstance(message, TELLS)
                self.sweeps.on_tell(sender, message, now, out)

    def on_scanned(self, scan: Scan, now: Instant, out: Outbox) -> None:
        if scan.id & _KIND == ANSWER_ID:
            self.answers.on_scanned(scan.id, self.scan(scan), out)
        else:
            assert scan.id & _KIND == RUN_ID
            self.sweeps.on_scanned(scan.id, self.scan(scan), now, out)

    def _on_heard(self, peer: NodeNumber, view: Shared, heard: Heard) -> None:
        self.heard[peer, view.partition] = heard

    def _merge(self, message: ReplicaWrite) -> ReplicaWriteReply:
        key = message.key
        if key in self.damaged:
            return ReplicaWriteReply(message.id, Status.ABSTAINED, Encoded(b""))
        mine, theirs = self.state(key), decode(key, message.record)
        place = partition_of_key(key, BITS)
        gone = frozenset(
            version.dot
            for version in theirs.versions
            if self.floors.has_seen(place, version.dot)
            and not covers(mine.context, version.dot)
            and find(mine, version.dot) is None
        )
        filled = mine._replace(context=join(mine.context, Context({}, gone)))
        merged = sync(filled, theirs)
        self.writes += merged != mine
        self.hold(key, merged)
        for version in theirs.versions:
            self.floors.add(place, version.dot)
        data = encode(key, merged)
        is_same = core_of(data) == core_of(message.record)
        return ReplicaWriteReply(message.id, Status.DONE, Encoded(b"" if is_same else data))


class Sides:
    """All owners, and what is under way between them."""

    def __init__(self, topology: Topology | None = None, limits: Limits | None = None) -> None:
        self.topology = topology or three_owners()
        self.limits = limits or Limits()
        self.now = Instant(1_000_000)
        numbers = [member.number for member in self.topology.members]
        self.sides = {n: Side(n, self.topology, self.limits) for n in numbers}
        self.asked: Counter[str] = Counter()
        self.lines = 0
        self.on_turn: Callable[[], None] = lambda: None
        """Called between two messages: a client that writes meanwhile."""
        self.lost: Callable[[NodeNumber, NodeNumber, PeerMessage], bool] = lambda *_: False
        self._mail: deque[tuple[NodeNumber, NodeNumber, PeerMessage]] = deque()
        self._scans: deque[tuple[NodeNumber, Scan]] = deque()

    def __getitem__(self, number: NodeNumber) -> Side:
        return self.sides[number]

    def link(self, a: NodeNumber, b: NodeNumber) -> None:
        self.sides[a].sweeps.on_up(b, self.now)
        self.sides[b].sweeps.on_up(a, self.now)

    def part(self, a: NodeNumber, b: NodeNumber) -> None:
        for here, there in ((a, b), (b, a)):
            out = Outbox()
            self.sides[here].sweeps.on_down(there)
            self.sides[here].mender.on_down(there, self.now, out)
        self._mail = deque(each for each in self._mail if {each[0], each[1]} != {a, b})

    def run(self, seconds: float) -> None:
        """Let time pass: messages take none."""
        end = Instant(self.now + int(seconds * 1e6))
        while True:
            self._deliver_all()
            wakes = [at for side in self.sides.values() if (at := self._wake_of(side)) is not None]
            if not wakes or min(wakes) > end:
                self.now = end
                return
            self.now = max(Instant(self.now + 1), min(wakes))

    def _wake_of(self, side: Side) -> Instant | None:
        both = (side.sweeps.next_wake(), side.mender.next_wake(self.now))
        return min((at for at in both if at is not None), default=None)

    def _deliver_all(self) -> None:
        self._tick()
        while self._mail or self._scans:
            self.on_turn()
            if self._scans:
                number, scan = self._scans.popleft()
                out = Outbox()
                self.sides[number].on_scanned(scan, self.now, out)
                self._post(number, out)
            else:
                source, target, message = self._mail.popleft()
                if not self.lost(source, target, message):
                    out = Outbox()
                    self.sides[target].take(source, message, self.now, out)
                    self._post(target, out)
            self._tick()

    def _tick(self) -> None:
        for number, side in self.sides.items():
            out = Outbox()
            side.sweeps.on_time(self.now, out)
            side.mender.on_time(self.now, out)
            self._post(number, out)

    def _post(self, number: NodeNumber, out: Outbox) -> None:
        for box in (out.peers, out.held_peers):
            for target, messages in box.items():
                for message in messages:
                    self._mail.append((number, target, message))
                    if target != number:
                        self.asked[type(message).__name__] += 1
        self._scans.extend((number, scan) for scan in out.scans)
