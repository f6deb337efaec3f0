"""The owner's part: what this node holds, through one turn.

It decides what becomes of what is held (kvnode.core.shelf) when clients and other nodes write. What
is written but not yet synced is *dirty*: a reply that shows it waits for the log, so nothing is
shown that a crash could take back.

Laws: a record that cannot be read is never taken for an absent one; a merge never overwrites; a
vote is cast only for a version that came straight from its coordinator, in time; floors and
records change in one batch; no dot is issued twice (an actor is one life, its counters rise).
Tests: tests/unit/core/test_replica.py; as whole clusters: tests/sim/.
Left out: hints (kvnode.core.standin), what is compared with others (kvnode.core.upkeep).
"""

from __future__ import annotations

from typing import assert_never

from kvnode.core.bounds import CONTEXT_ENTRIES_MAX
from kvnode.core.conflict_log import ConflictLog
from kvnode.core.context import open_watermark
from kvnode.core.dispute import with_payloads
from kvnode.core.floors import Floors
from kvnode.core.held import Unreadable as Unreadable
from kvnode.core.hlc import Clock, Timestamp
from kvnode.core.issuer import Issuer
from kvnode.core.keys import Partition, StorageKey, partition_of_key
from kvnode.core.messages import (
    ClientPut,
    Instant,
    NodeNumber,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Status,
    WriteKind,
)
from kvnode.core.proving import Proving
from kvnode.core.record import (
    NOT_HELD,
    DamagedRecord,
    Encoded,
    Lone,
    cast_vote,
    core_of,
    decode,
    encode,
    encode_lone,
    read_lone,
)
from kvnode.core.shelf import Shelf, is_open
from kvnode.core.shelf import TooMany as TooMany
from kvnode.core.topology import Topology
from kvnode.core.trees import Trees, trees_of
from kvnode.core.twins import (
    Named,
    bury_twins,
    has_replaced,
    is_behind,
    named,
    remember,
    remember_one,
)
from kvnode.core.versions import (
    Context,
    Dot,
    Record,
    Version,
    Vote,
    accept,
    clashes,
    covers,
    find,
    find_write,
    join,
    put,
    replaced_at_put,
    sync,
    take_over,
    with_vote,
)
from kvnode.core.write import LocalWrite

_NOTHING = Encoded(b"")


class Replica(Shelf):
    """The local records, floors and counters of one node in one life."""

    __slots__ = (
        "_issuer",
        "_partition_bits",
        "clock",
        "number",
        "refuses",
        "topology",
    )

    def __init__(
        self,
        number: NodeNumber,
        actor: int,
        topology: Topology,
        clock: Clock,
        floors: Floors,
        *,
        trees: Trees | None = None,
        proving: Proving | None = None,
        conflicts: ConflictLog | None = None,
    ) -> None:
        """Begin a life with what earlier ones saved; none: a store that never held anything."""
        trees, proving = trees or trees_of(topology), proving or Proving(number, topology)
        super().__init__(topology, floors, trees, proving, conflicts or ConflictLog(bytes_max=0))
        self.number = number
        self._issuer = Issuer(actor)
        self.clock = clock
        self.refuses: Status | None = None
        """Why writes are refused at present, if they are (no space)."""

    @property
    def actor(self) -> int:
        """This life as an issuer of writes."""
        return self._issuer.actor

    @property
    def is_proven(self) -> bool:
        """Whether no partition is in doubt."""
        return self.proving.is_whole

    def last_own(self, partition: Partition) -> Dot:
        """Return the last dot that this life has spent in a partition; counter 0: none."""
        return self._issuer.last(partition)

    def follow(self, topology: Topology) -> None:
        """Decide under this topology from here on."""
        super().follow(topology)
        self.topology = topology
        self._partition_bits = topology.partition_bits

    def refusal(self, *, is_delete: bool) -> Status | None:
        """Return why a write is refused at present. Deletes pass a full disk: they help."""
        return None if is_delete and self.refuses is Status.REFUSED_FULL else self.refuses

    def coordinate(self, request: ClientPut, now: Instant) -> LocalWrite:
        """Apply a client's write here, under a new dot, or find that of an earlier attempt.

        Raises:
            Unreadable, TooMany: nothing was changed.
        """
        held = self._lone(request.key)
        if held is None:
            return self._coordinate_among(request, now)
        new, old = _named(request), Named(held.write_id, held.is_explicit)
        if is_behind(new, old, held.memory) or not _is_replaced(held, request):
            return self._coordinate_among(request, now)
        version = self._seal(request, remember_one(new, old, held.memory))
        own = {version.dot.actor: version.dot.counter}  # a range: its issuer has seen them all
        context = join(request.seen, Context({**held.context, **own}))
        if context.dots or len(context.vector) > CONTEXT_ENTRIES_MAX or now >= request.deadline_us:
            record = Record(context, (version,), ())
            return self._finish_write(request, now, record, version, was_open=False)
        encoded = encode_lone(request.key, context, version, self.number)
        self._keep(request.key, encoded)
        self.clock.observe(version.timestamp, self._wall_ms)
        self._count(request.key, version.dot)
        record = Record(context, (version,), (Vote(self.number, version.dot),))
        return LocalWrite(version, record, encoded, 0)

    def _coordinate_among(self, request: ClientPut, now: Instant) -> LocalWrite:
        """The general case: siblings, an earlier attempt of the same write, a newer version."""
        mine = self._load(request.key)
        earlier = find_write(mine, request.write_id)
        if earlier is None and has_replaced(mine, _named(request)):
            # A late attempt: the write was here, and was superseded. It is done.
            encoded = self._store(request.key, mine, was_open=is_open(mine))
            return LocalWrite(mine.versions[0], mine, encoded, 0, is_replaced=True)
        if earlier is None:
            version = self.seal_over(mine, request)
            record = put(mine, version, seen=request.seen)
        else:
            version, record = earlier, mine
        return self._finish_write(request, now, record, version, was_open=is_open(mine))

    def _finish_write(
        self, request: ClientPut, now: Instant, record: Record, version: Version, *, was_open: bool
    ) -> LocalWrite:
        if now < request.deadline_us:
            record = with_vote(record, Vote(self.number, version.dot))
        encoded = self._store(request.key, record, was_open=was_open)
        self.clock.observe(version.timestamp, self._wall_ms)
        self._count(request.key, version.dot)
        return LocalWrite(version, record, encoded, record.versions.index(version))

    def on_write(self, request: ReplicaWrite, now: Instant) -> ReplicaWriteReply:
        """Merge a state that another node sent; the reply waits for the log."""
        if now > request.deadline_us:
            return ReplicaWriteReply(request.id, Status.REFUSED_LATE, _NOTHING)
        try:
            if request.kind is WriteKind.WRITE and not request.version:
                return self._take_over(request) or self._merge(request)
            return self._merge(request)
        except Unreadable:
            return ReplicaWriteReply(request.id, Status.ABSTAINED, _NOTHING)
        except (DamagedRecord, TooMany) as exc:
            self.alarms.append(f"refused a record of another node: {exc}")
            return ReplicaWriteReply(request.id, Status.REFUSED_INVALID, _NOTHING)

    def on_read(self, request: ReplicaRead, now: Instant) -> ReplicaReadReply:
        """Say what is held; damage is an abstention."""
        if now > request.deadline_us:
            return ReplicaReadReply(request.id, Status.REFUSED_LATE, _NOTHING, False)
        try:
            data = self._read(request.key)
        except Unreadable:
            return ReplicaReadReply(request.id, Status.ABSTAINED, _NOTHING, False)
        passed = bool(request.watermark) and self.floors.has_passed(
            self._partition(request.key), open_watermark(request.watermark)
        )
        is_proven = self.proving.is_proven(self._partition(request.key))
        status = Status.DONE if is_proven else Status.UNPROVEN
        return ReplicaReadReply(request.id, status, Encoded(data or b""), passed)

    def _take_over(self, request: ReplicaWrite) -> ReplicaWriteReply | None:
        """The common write: one version, under a context that covers all that is held here. It is
        stored as it came, with this owner's vote. None: it is another case.
        """
        key = request.key
        theirs = read_lone(key, request.record)
        if theirs is None:
            return None
        mine = self._lone(key)
        if mine is None or not mine.is_replaced_by(theirs):
            return None
        dot = theirs.dot
        if self.clock.is_too_far(theirs.timestamp, self._wall_ms):
            return ReplicaWriteReply(request.id, Status.REFUSED_SKEW, _NOTHING)
        if self.refuses is not None:
            refusal = self.refusal(is_delete=theirs.is_tombstone)
            if refusal is not None:
                return ReplicaWriteReply(request.id, refusal, _NOTHING)
        partition = partition_of_key(key, self._partition_bits)
        if self.floors.has_seen(partition, dot):
            return None
        self._keep(key, cast_vote(key, request.record, self.number))
        self.floors.add(partition, dot)
        self.clock.observe(theirs.timestamp, self._wall_ms)
        return ReplicaWriteReply(request.id, Status.DONE, _NOTHING)

    def _merge(self, request: ReplicaWrite) -> ReplicaWriteReply:
        key = request.key
        theirs = decode(key, request.record)
        if (refusal := self.refusal_of(request, theirs)) is not None:
            return ReplicaWriteReply(request.id, refusal, _NOTHING)
        mine = held = self._load(key)
        if clashing := clashes(held, theirs):
            self.alarms.append(f"one dot, two payloads: {clashing[0]}")
            if request.kind is not WriteKind.OVERRULE:
                self.disputed[key] = None
                return ReplicaWriteReply(request.id, Status.REFUSED_INVALID, _NOTHING)
            mine = with_payloads(held, {each.dot: each for each in theirs.versions})
        mine = self._filled(key, mine, theirs)
        merged = bury_twins(self._merged(request, mine, theirs), mine, theirs)
        if merged == held and held.versions:
            encoded = encode(key, merged)
        else:
            encoded = self._store(key, merged, was_open=is_open(held))
        # Only now: a dot that was refused has not been here, and must not pass for superseded. One
        # that goes with its record must, though its floor may have been dropped in a doubt.
        gone = held.versions if not merged.versions else ()
        for version in (*theirs.versions, *gone):
            self._count(key, version.dot)
            self.clock.observe(version.timestamp, self._wall_ms)
        self._pass_single_dots(key, merged.context)
        is_same = core_of(encoded) == core_of(request.record)
        return ReplicaWriteReply(request.id, Status.DONE, _NOTHING if is_same else encoded)

    def _pass_single_dots(self, key: StorageKey, context: Context) -> None:
        """Single dots of a context name writes of this key that were superseded before they came.
        Where all floors that knew them were dropped, nothing else would ever raise one past them.
        """
        for dot in sorted(context.dots):
            self.floors.add(self._partition(key), dot)

    def refusal_of(self, request: ReplicaWrite, theirs: Record) -> Status | None:
        """Return why a node's write is refused at present, if it is. Raises: DamagedRecord."""
        if request.kind is not WriteKind.WRITE:
            return self.refuses
        if request.version >= len(theirs.versions):
            raise DamagedRecord("no version of that index")
        written = theirs.versions[request.version]
        if self.clock.is_too_far(written.timestamp, self._wall_ms):
            return Status.REFUSED_SKEW
        return self.refusal(is_delete=written.is_tombstone)

    def _merged(self, request: ReplicaWrite, mine: Record, theirs: Record) -> Record:
        match request.kind:
            case WriteKind.WRITE:
                written = theirs.versions[request.version].dot
                return with_vote(accept(mine, theirs, written), Vote(self.number, written))
            case WriteKind.REPAIR | WriteKind.OVERRULE:
                return sync(mine, theirs)
            case WriteKind.HANDOFF:
                return take_over(mine, theirs)
        assert_never(request.kind)

    def _filled(self, key: StorageKey, mine: Record, theirs: Record) -> Record:
        """Add what the floor says: a dot that was here and is here no more was superseded."""
        partition = self._partition(key)
        gone = frozenset(
            version.dot
            for version in theirs.versions
            if self.floors.has_seen(partition, version.dot)
            and not covers(mine.context, version.dot)
            and find(mine, version.dot) is None
        )
        return mine._replace(context=join(mine.context, Context({}, gone))) if gone else mine

    def seal_over(self, mine: Record, request: ClientPut) -> Version:
        """Return a client's write over what is held, under the next dot, which is not spent yet."""
        stamp, explicit = Timestamp(request.timestamp), request.is_explicit
        replaced = replaced_at_put(mine, stamp, seen=request.seen, is_explicit=explicit)
        older = [old.extension for old in replaced]
        return self._seal(request, remember(_named(request), map(named, replaced), older))

    def _seal(self, request: ClientPut, memory: bytes) -> Version:
        partition = self._partition(request.key)
        return self._issuer.seal_next(request, partition, memory=memory)

    def note_hint(self, key: StorageKey, version: Version) -> None:
        """A write is kept for another node. No floor rises: nothing of the key is owned here."""
        self._issuer.spend(self._partition(key), version.dot)
        self.clock.observe(version.timestamp, self._wall_ms)

    def _count(self, key: StorageKey, dot: Dot) -> None:
        partition = self._partition(key)
        self.floors.add(partition, dot)
        self._issuer.spend(partition, dot)

    def _partition(self, key: StorageKey) -> Partition:
        return partition_of_key(key, self._partition_bits)


def _named(request: ClientPut) -> Named:
    return Named(request.write_id, request.is_explicit)


def _is_replaced(held: Lone, request: ClientPut) -> bool:
    """Say whether a client's write leaves nothing of the one version that is held."""
    if held.write_id == request.write_id:
        return False  # an earlier attempt of this write
    plain = not request.is_explicit and held.timestamp < request.timestamp
    return plain or covers(request.seen, held.dot) or held is NOT_HELD
