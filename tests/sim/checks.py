"""What must hold in a simulated cluster, checked while it runs and when it has healed.

What it decides: which history is a violation (design, section 7). Values are unique, so a value
names its write.
Laws: a check never changes what happens; a violation is an AssertionError with the seed and the
key's story. Its tests are tests/sim/test_mutants.py: what is never caught checks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.hints import decode_hint, split_hint_key
from kvnode.core.keys import StorageKey
from kvnode.core.messages import NodeNumber, PeerMessage
from kvnode.core.record import core_of, decode
from kvnode.core.versions import (
    NOTHING_SEEN,
    Context,
    Dot,
    Record,
    Vote,
    check,
    covers,
    covers_all,
    is_same_state,
)
from kvnode.storage.port import Engine

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

OK, NOT_APPLIED, UNCERTAIN, FAILED = "ok", "not applied", "uncertain", "failed"


@dataclass(slots=True, eq=False)
class Write:
    """One put or delete as its caller sees it, over all its attempts."""

    key: StorageKey
    value: bytes | None
    """None: a delete."""
    is_explicit: bool
    seen: Context
    began_us: int
    write_ids: list[bytes] = field(default_factory=list)
    stamps: list[int] = field(default_factory=list)
    attempts: int = 0
    """Requests that reached a node."""
    ended_us: int | None = None
    outcome: str | None = None
    acked_us: int | None = None
    """When it was first acknowledged, perhaps to be stamped anew after that."""
    may_lose: bool = False
    """Acknowledged beside a newer rival, and not stamped anew."""


@dataclass(slots=True, eq=False)
class Read:
    """One get as its caller sees it."""

    key: StorageKey
    began_us: int
    outcome: str | None = None
    value: bytes | None = None
    context: Context = NOTHING_SEEN
    values: frozenset[bytes | None] = frozenset()
    """All survivors that it told of."""
    repaired: tuple[NodeNumber, ...] = ()


class Watch:
    """Sees every write to a disk and every operation of a client."""

    def __init__(self, cluster: Cluster) -> None:
        self.writes: list[Write] = []
        self.reads: list[Read] = []
        self.dots: dict[bytes, set[Dot]] = {}
        """The dots of each client write."""
        self.healed_us: int | None = None
        """Since when no fault is left and nothing waits for its owner."""
        self._cluster = cluster
        self._payloads: dict[tuple[StorageKey, Dot], int] = {}
        self._known: dict[tuple[NodeNumber, StorageKey], Context] = {}

    def on_start(self, node: NodeNumber) -> None:
        """A life begins: what it has seen, it may have lost with its log."""
        self._known = {place: seen for place, seen in self._known.items() if place[0] != node}

    def on_sync(self, node: NodeNumber) -> None:
        """A flush has ended."""

    def on_clock(self, ahead_ms: int) -> None:
        """A physical clock is so far ahead from now on."""

    def on_message(self, source: NodeNumber, target: NodeNumber, message: PeerMessage) -> None:
        """A node hears another one, or itself."""

    def on_write(self, node: NodeNumber, engine: Engine, batch: WriteBatch) -> None:
        """Check what a node is about to store."""
        for family, name, data in batch.changes:
            if family is Family.RECORDS and data is not None:
                key = StorageKey(name)
                record = decode(key, data)
                self._cluster.tell("store", node, Stored(key, record))
                self._check_record(key, record)
                self._check_seen(node, key, record.context)
            elif family is Family.RECORDS:
                self._cluster.tell("remove", node, Removed(StorageKey(name)))
                self._check_seen(node, StorageKey(name), NOTHING_SEEN)
            elif family is Family.HINTS and data is not None:
                owner, key = split_hint_key(name)
                record = decode(key, decode_hint(data).record)
                self._cluster.tell("hint", node, owner, Stored(key, record))
                self._check_record(key, record)

    def _check_record(self, key: StorageKey, record: Record) -> None:
        check(record)
        for version in record.versions:
            self.dots.setdefault(version.write_id, set()).add(version.dot)
            known = self._payloads.setdefault((key, version.dot), version.checksum)
            if known != version.checksum:
                self._cluster.fail(key, f"invariant 3: {version.dot} names two payloads")

    def _check_seen(self, node: NodeNumber, key: StorageKey, context: Context) -> None:
        """Context and floor together: what was reaped, the floor has seen."""
        known = self._known.get((node, key), NOTHING_SEEN)
        if not covers_all(context, known) and not self._has_floor_seen(node, key, known):
            self._cluster.fail(key, f"invariant 4: what node {node} has seen has shrunk")
        if context is not NOTHING_SEEN:
            self._known[node, key] = context

    def _has_floor_seen(self, node: NodeNumber, key: StorageKey, context: Context) -> bool:
        life = self._cluster.hosts[node].life
        assert life is not None
        replica = life.replica
        partition = replica.trees.partition_of(key)
        if not replica.proving.is_proven(partition):
            return True  # exchanges that began after the doubt will bring it back
        seen = replica.floors.seen(partition)
        single = all(seen.has_seen(dot) for dot in context.dots)
        return single and not seen.lacks(Context(context.vector))

    def check_read(self, read: Read) -> None:
        """Invariants 2, 5 and 6: is this an answer that a reader may get?"""
        if read.outcome != OK:
            return
        before = [w for w in self._acknowledged(read.key) if w.ended_us < read.began_us]  # type: ignore[operator]
        candidates = [w for w in self._of(read.key) if w.value == read.value]
        if read.value is None and not before:
            return
        if read.value is None and self._may_miss(read):
            return
        if not candidates:
            self._cluster.fail(read.key, f"invariant 5: read {read.value!r}, which nobody wrote")
        if all(self._is_out(each, before, read) for each in candidates):
            told = [(w.value, w.outcome) for w in before]
            self._cluster.fail(
                read.key, f"invariant 2, 5 or 6: read {read.value!r} begun after {told}"
            )

    def check_all_reads(self) -> None:
        """Check every read again, now that all outcomes are known."""
        for read in self.reads:
            self.check_read(read)

    def votes(self, key: StorageKey) -> set[Vote]:
        """Return all votes that are stored for a key."""
        return {vote for _, state in self._states(key) for vote in state.votes}

    def check_durable(self, key: StorageKey) -> None:
        """Invariants 1 and 8, for owners that have all been mended."""
        states = dict(self._states(key))
        joined = next(iter(states.values()))
        if any(not is_same_state(joined, state) for state in states.values()):
            self._cluster.fail(key, f"invariant 8: owners differ after healing: {states}")
        for write in self._acknowledged(key):
            if not any(self._is_known(key, joined, dot) for dot in self._dots_of(write)):
                self._cluster.fail(key, f"invariant 1: {write.value!r} is gone without a trace")
            live = {version.write_id for version in joined.versions}
            # A delete may have been reaped: `_is_known` holds it to that.
            is_gone = not live & set(write.write_ids) and write.value is not None
            if not is_gone or self._has_successor(write):
                continue
            if self.times_logged(write) < self._cluster.keyspace.w:
                self._cluster.fail(key, f"invariant 1: nothing superseded {write.value!r}")

    def _is_known(self, key: StorageKey, joined: Record, dot: Dot) -> bool:
        """Say whether all owners have seen a dot: by the record's context, or by their floors."""
        return covers(joined.context, dot) or all(
            self._has_floor_seen(node, key, Context({}, frozenset((dot,))))
            for node in self._cluster.owners(key)
        )

    def times_logged(self, write: Write) -> int:
        """Return how many owners have a write in their conflict logs."""
        return sum(
            any(
                entry.key == write.key and entry.loser.versions[0].write_id in write.write_ids
                for entry in self._cluster.hosts[node].entries()
            )
            for node in self._cluster.owners(write.key)
        )

    def _states(self, key: StorageKey) -> Iterator[tuple[NodeNumber, Record]]:
        for node in self._cluster.owners(key):
            (data,) = self._cluster.hosts[node].engine.multi_get(Family.RECORDS, [key])
            assert data is None or isinstance(data, bytes)
            yield node, decode(key, data) if data else Record(NOTHING_SEEN, (), ())

    def _of(self, key: StorageKey) -> list[Write]:
        return [write for write in self.writes if write.key == key]

    def _acknowledged(self, key: StorageKey) -> list[Write]:
        return [write for write in self._of(key) if write.outcome == OK]

    def _is_out(self, write: Write, acknowledged: list[Write], read: Read) -> bool:
        """Say whether no reader may be given this write after those acknowledged ones.

        With sloppy quorums a reader may miss what stand-ins hold until they have handed it over:
        order is kept once all is healed. A put by a clock that lags may then turn out older than
        one that was acknowledged before it began, of which the stand-ins could not tell it.
        """
        if write.outcome == NOT_APPLIED:
            return True
        if not self._cluster.keyspace.sloppy:
            return any(self._supersedes(later, write) for later in acknowledged)
        if self._may_miss(read):
            return False
        return any(
            self._is_seen_by(later, write)
            or (self._supersedes(later, write) and min(later.stamps) > max(write.stamps))
            for later in acknowledged
        )

    def _may_miss(self, read: Read) -> bool:
        is_early = self.healed_us is None or read.began_us < self.healed_us
        return self._cluster.keyspace.sloppy and is_early

    def _supersedes(self, later: Write, write: Write) -> bool:
        if later is write:
            return False
        if self._is_seen_by(later, write):
            return True
        ended = write.ended_us if write.outcome == OK else None
        if later.is_explicit or later.may_lose:
            return False
        return ended is not None and ended < later.began_us

    def _is_seen_by(self, later: Write, write: Write) -> bool:
        dots = self._dots_of(write)
        return later is not write and bool(dots) and all(covers(later.seen, dot) for dot in dots)

    def _has_successor(self, write: Write) -> bool:
        return any(
            any(covers(other.seen, dot) for dot in self._dots_of(write))
            or (not other.is_explicit and max(other.stamps) > min(write.stamps))
            for other in self._of(write.key)
            if other is not write and other.stamps
        )

    def _dots_of(self, write: Write) -> list[Dot]:
        return sorted(dot for name in write.write_ids for dot in self.dots.get(name, ()))


@dataclass(frozen=True, slots=True)
class Stored:
    """What one store held after a turn, as a story tells it."""

    key: StorageKey
    record: Record

    def brief(self) -> str:
        """Return it on one line."""
        record = self.record
        versions = [
            f"{brief_dot(v.dot)}={'deleted' if v.is_tombstone else repr(v.value)} at {v.timestamp}"
            f" voted for by {[vote.owner for vote in record.votes if vote.dot == v.dot]}"
            for v in record.versions
        ]
        return f"holds {'; '.join(versions)} under {brief_context(record.context)}"


@dataclass(frozen=True, slots=True)
class Removed:
    """A record that a turn removed."""

    key: StorageKey


def brief_dot(dot: Dot) -> str:
    """Return a dot with the first digits of its actor."""
    return f"{dot.actor:016x}"[:4] + f":{dot.counter}"


def brief_context(context: Context) -> str:
    """Return a context: ranges, then single dots."""
    ranges = [brief_dot(Dot(*entry)) for entry in sorted(context.vector.items())]
    return f"<{' '.join([*ranges, *('=' + brief_dot(dot) for dot in sorted(context.dots))])}>"


def cores(cluster: Cluster, key: StorageKey) -> dict[NodeNumber, bytes]:
    """Return what each owner holds, votes and values aside."""
    found = {}
    for node in cluster.owners(key):
        (data,) = cluster.hosts[node].engine.multi_get(Family.RECORDS, [key])
        found[node] = core_of(data) if isinstance(data, bytes) else b""
    return found
