"""The stand-in's part: what a node does with a key of which it owns nothing, for owners that
cannot be reached.

It takes writes as an owner would (a plain put supersedes what is older), under hints of their own;
it answers reads with what it keeps; where no owner at all can be reached it applies a client's
write itself, under a dot of its own. It casts no vote and notes no floor: both are owners' facts.

Laws: nothing is acknowledged or shown before it is durable; damage is an abstention; that nothing
is kept is never said to be an absence of the key.
Tests: tests/unit/core/test_standin.py; as whole clusters: tests/sim/test_hints.py.
Source: Dynamo (SOSP 2007), section 4.6; design, section 2.7.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvnode.core.bounds import OWN_WRITES_MAX
from kvnode.core.hints import Hints, HintsFull, UnreadableHint, hint_key
from kvnode.core.hlc import Timestamp
from kvnode.core.keys import StorageKey, keyspace_of, partition_of_key
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
from kvnode.core.record import DamagedRecord, Encoded, core_of, decode, encode, fits, measure
from kvnode.core.replica import Replica, TooMany, Unreadable
from kvnode.core.twins import bury_twins
from kvnode.core.unsynced import Unsynced
from kvnode.core.versions import Record, Version, accept, clashes, find_write, put, sync
from kvnode.core.write import LocalWrite

_NOTHING = Encoded(b"")


class StandIn:
    """The hints of one node, as coordinators see them."""

    __slots__ = ("_forgot_own", "_hints", "_newest_own", "_replica", "_unsynced")

    def __init__(self, replica: Replica, hints: Hints) -> None:
        self._replica = replica
        self._hints = hints
        self._unsynced = Unsynced()
        self._newest_own: dict[StorageKey, Timestamp] = {}
        """The newest stamp of each key that this life wrote itself: what it handed over is no
        longer here, and must not be buried by a later write under the same actor."""
        self._forgot_own = False

    def owners_of(self, key: StorageKey) -> Sequence[NodeNumber]:
        """Return the numbers of a key's owners; none if its keyspace is unknown here."""
        topology = self._replica.topology
        keyspace = topology.keyspace(keyspace_of(key))
        if keyspace is None:
            return ()
        partition = partition_of_key(key, topology.partition_bits)
        return topology.owner_numbers[partition][: keyspace.n]

    def names_of(self, key: StorageKey) -> list[bytes]:
        """Return the entries in which something of a key may be kept."""
        return [hint_key(owner, key) for owner in self.owners_of(key)]

    def on_synced(self, turn: int) -> None:
        """The log is durable up to and with this turn."""
        self._unsynced.on_synced(turn)

    def is_dirty(self, key: StorageKey) -> bool:
        """Say whether what is kept of the key could still be lost in a crash."""
        return key in self._unsynced

    def can_coordinate(self, owner: NodeNumber, key: StorageKey) -> bool:
        """Say whether this turn sees what is kept of a key for an owner."""
        return self._hints.has_fetched(owner, key)

    def coordinate(self, request: ClientPut, owner: NodeNumber) -> LocalWrite:
        """Apply a client's write here for an owner, under a new dot, or find that of an earlier
        attempt.

        Raises:
            Unreadable, TooMany, HintsFull: nothing was changed.
        """
        key = request.key
        mine = self._held(key, (owner,))
        version = find_write(mine, request.write_id)
        is_new = version is None
        if version is None:
            version = self._replica.seal_over(mine, request)
            mine = put(mine, version, seen=request.seen, holds_all=self._postdates_own(request))
        encoded = self._keep(owner, key, mine, w=request.w)
        if is_new:
            self._replica.note_hint(key, version)
            self._note_own(key, version)
        return LocalWrite(version, mine, encoded, mine.versions.index(version))

    def on_write(self, request: ReplicaWrite, now: Instant) -> ReplicaWriteReply:
        """Keep a state for an owner; the reply waits for the log."""
        if now > request.deadline_us:
            return ReplicaWriteReply(request.id, Status.REFUSED_LATE, _NOTHING)
        try:
            return self._take(request)
        except Unreadable:
            return ReplicaWriteReply(request.id, Status.ABSTAINED, _NOTHING)
        except HintsFull:
            return ReplicaWriteReply(request.id, Status.REFUSED_FULL, _NOTHING)
        except (DamagedRecord, TooMany) as exc:
            self._replica.alarms.append(f"refused a hint of another node: {exc}")
            return ReplicaWriteReply(request.id, Status.REFUSED_INVALID, _NOTHING)

    def on_read(self, request: ReplicaRead, now: Instant) -> ReplicaReadReply:
        """Say what is kept of a key, whichever of its owners it is for; empty: nothing."""
        if now > request.deadline_us:
            return ReplicaReadReply(request.id, Status.REFUSED_LATE, _NOTHING, False)
        try:
            held = self._held(request.key, self.owners_of(request.key))
        except Unreadable:
            return ReplicaReadReply(request.id, Status.ABSTAINED, _NOTHING, False)
        data = encode(request.key, held) if held.versions and fits(held) else _NOTHING
        return ReplicaReadReply(request.id, Status.DONE, data, False)

    def _take(self, request: ReplicaWrite) -> ReplicaWriteReply:
        key, owner = request.key, request.stand_in_for
        if owner not in self.owners_of(key):
            raise DamagedRecord(f"node {owner} owns nothing of the key")
        theirs = decode(key, request.record)
        refusal = self._replica.refusal_of(request, theirs)
        if refusal is not None:
            return ReplicaWriteReply(request.id, refusal, _NOTHING)
        mine = self._held(key, (owner,))
        if clashing := clashes(mine, theirs):
            raise DamagedRecord(f"one dot, two payloads: {clashing[0]}")
        if request.kind is WriteKind.WRITE:
            merged = accept(mine, theirs, theirs.versions[request.version].dot)
        else:
            merged = sync(mine, theirs)
        keyspace = self._replica.topology.keyspace(keyspace_of(key))
        assert keyspace is not None, "it has owners"
        merged = bury_twins(merged, mine, theirs)
        encoded = self._keep(owner, key, merged, w=keyspace.w)
        for version in theirs.versions:
            self._replica.note_hint(key, version)
        is_same = core_of(encoded) == core_of(request.record)
        return ReplicaWriteReply(request.id, Status.DONE, _NOTHING if is_same else encoded)

    def _postdates_own(self, request: ClientPut) -> bool:
        """Say whether a write supersedes whatever this life ever issued for its key."""
        newest = self._newest_own.get(request.key)
        if newest is None:
            return not self._forgot_own
        return not request.is_explicit and newest < request.timestamp

    def _note_own(self, key: StorageKey, version: Version) -> None:
        newest = max(version.timestamp, self._newest_own.pop(key, version.timestamp))
        self._newest_own[key] = newest
        if len(self._newest_own) > OWN_WRITES_MAX:
            del self._newest_own[next(iter(self._newest_own))]
            self._forgot_own = True

    def _keep(self, owner: NodeNumber, key: StorageKey, record: Record, *, w: int) -> Encoded:
        if not fits(record):
            raise TooMany(measure(record))
        encoded = self._hints.keep(owner, key, record, w=w)
        self._unsynced.add(key, self._replica.turn)
        return encoded

    def _held(self, key: StorageKey, owners: Sequence[NodeNumber]) -> Record:
        try:
            return self._hints.held(key, owners)
        except UnreadableHint as exc:
            raise Unreadable from exc
