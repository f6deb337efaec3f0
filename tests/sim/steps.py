"""What must hold whenever a store changes: each entry written is judged by what it replaces.

What it decides: which change of a record or a hint is a violation.

    3-one-payload-a-dot     a dot names one write, of one key, for good
    4-seen-never-shrinks    what a node has seen (context and floor together) only grows in one life
    1-nothing-vanishes      a version leaves if a write supersedes it, or w logs have it, or reaped
    1-pruned-as-told        losers are pruned from the very record that the settler was told of
    1-hint-kept             a hint leaves once its owner has it durably, or w owners if it is old
    2-reaped-with-proof     absence is reaped once all owners' floors cover what it covered
    5-votes-are-facts       an owner votes for what came straight from a coordinator; a vote stays
    6-not-applied-unseen    what was called not applied is nowhere

Laws: nothing here changes what happens; what is not known for certain (damage) is let pass.
Source: design, section 7. Its tests are tests/sim/test_checks.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from kvnode.core.batch import Family
from kvnode.core.conflict_log import decode_entry
from kvnode.core.conversations import Prune
from kvnode.core.hints import decode_hint, split_hint_key
from kvnode.core.keys import StorageKey, partition_of_key
from kvnode.core.messages import NodeNumber, PeerMessage, ReplicaWrite, WriteKind
from kvnode.core.pruning import digest
from kvnode.core.record import DamagedRecord, decode, encode
from kvnode.core.twins import named
from kvnode.core.versions import (
    NOTHING_SEEN,
    Context,
    Dot,
    Record,
    Version,
    check,
    covers,
    covers_all,
    join,
)
from tests.sim.history import NOT_APPLIED, Write
from tests.sim.stores import Fates, Stores, one_dot
from tests.sim.story import brief_context, brief_dot, brief_record, brief_version

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

_BRINGS = (WriteKind.WRITE, WriteKind.HANDOFF)
_PASSING = 64
"""Versions of one key at one node that may explain what happens to others."""
_OFFERED = 512
"""Writes of one key at one node that may yet be stored."""


class Judge(Protocol):
    """Who hears of violations, and knows the clients' writes."""

    stores: Stores
    fates: Fates
    writes_by_id: dict[bytes, Write]
    lead_ms: int

    def fail(self, name: str, key: StorageKey | None, message: str) -> None:
        """Report a violation."""
        ...


class Steps:
    """The rules for single changes of stores."""

    def __init__(self, cluster: Cluster, judge: Judge) -> None:
        self._cluster = cluster
        self._judge = judge
        self._stores, self._fates = judge.stores, judge.fates
        self._payloads: dict[tuple[int, Dot], tuple[StorageKey, int]] = {}
        """By (partition, dot)."""
        self._cast: set[tuple[StorageKey, NodeNumber, Dot]] = set()
        self._offered: dict[tuple[NodeNumber, StorageKey], deque[Dot | bytes]] = {}
        """What coordinators and clients brought a node: dots, and ids of writes."""
        self._passing: dict[tuple[NodeNumber, StorageKey], deque[Version]] = {}
        """Versions that a node told of, and that its store did not have a little later."""
        self._came: dict[tuple[NodeNumber, StorageKey], deque[Version]] = {}
        """Versions that were brought to a node, not by repair: plain puts may supersede there."""
        self._newest_plain: dict[StorageKey, Version] = {}
        """Of each key, among all that any store held."""
        self._prunes: dict[tuple[NodeNumber, StorageKey], Prune] = {}
        """The latest that a node was told, unless it has been brought something since."""
        self.reaped: dict[StorageKey, Context] = {}
        """What removed records had seen."""
        self.issuers: dict[int, NodeNumber] = {}
        """Whose life each actor is."""
        self.dropped: dict[tuple[NodeNumber, int], None] = {}
        """Nodes that have dropped the floors of a partition, since records may have been lost."""

    # ---- what leads to a change ------------------------------------------------------------

    def on_message(self, source: NodeNumber, target: NodeNumber, message: PeerMessage) -> None:
        """A node hears another one."""
        if isinstance(message, Prune):
            self._prunes[target, message.key] = message
        if not isinstance(message, ReplicaWrite):
            return
        self._prunes.pop((target, message.key), None)  # what leaves now may leave for that
        if message.kind not in _BRINGS:
            return
        try:
            versions = self._stores.record(message.key, message.record).versions
        except DamagedRecord:
            return
        for version in versions:
            # Of several writes of one turn stores see the last; acknowledged are all.
            self._fates.note_version(message.key, version)
        held = self._stores.held.get((source, Family.RECORDS, message.key))
        if held is not None and held.record.versions != versions:
            self._note_passing(source, message.key, versions, held.record)
        came = self._came.setdefault((target, message.key), deque(maxlen=_PASSING))
        came.extend(version for version in versions if version not in came)
        if message.kind is WriteKind.WRITE and message.version < len(versions):
            self.offer(target, message.key, versions[message.version].dot)

    def _note_passing(
        self,
        source: NodeNumber,
        key: StorageKey,
        versions: tuple[Version, ...],
        held: Record,
    ) -> None:
        """Of several states that a record had in one turn, messages tell and its store does not."""
        passing = self._passing.setdefault((source, key), deque(maxlen=_PASSING))
        passing.extend(version for version in versions if version not in passing)
        self._note_passed(key, (*passing, *self._came.get((source, key), ())), held)

    def _note_passed(self, key: StorageKey, seen: Collection[Version], held: Record) -> None:
        """Of what a node has told of or was brought, its store holds some, and knows the others as
        superseded: by one of these."""
        for version in seen:
            if self._fates.is_gone(version.write_id) or version in held.versions:
                continue
            if not covers(held.context, version.dot):
                continue
            ahead = self._fates.ahead_of(key, named(version))
            for other in (*held.versions, *seen):
                if other.write_id != version.write_id and self._supersedes(other, version, ahead):
                    self._fates.note_gone(version.write_id, other.write_id)

    def offer(self, node: NodeNumber, key: StorageKey, what: Dot | bytes) -> None:
        """A node may vote for this dot, or this write's, from here on."""
        offered = self._offered.get((node, key))
        if offered is None:
            offered = self._offered[node, key] = deque(maxlen=_OFFERED)
        offered.append(what)

    # ---- changes ---------------------------------------------------------------------------

    def on_record(self, node: NodeNumber, key: StorageKey, old: Record | None, new: Record) -> None:
        """An owner stores a record in place of another; `old` is None if that is not known."""
        self._check_versions(key, new)
        self._check_votes(node, key, old, new)
        self._note_passed(key, self._came.get((node, key), ()), new)
        if old is None:
            return
        seen = old.context
        if not covers_all(new.context, seen) and not self.has_floor_seen(node, key, seen):
            lost = f"{brief_context(seen)}, now {brief_context(new.context)}"
            self._fail("4-seen-never-shrinks", key, f"node {node} had seen {lost}")
        self._check_revived(node, key, old, new)
        self._check_fence(node, key, old, new)
        for version in old.versions:
            if version not in new.versions:
                self._check_vanished(node, f"node {node}", key, version, new)

    def on_removed(self, node: NodeNumber, key: StorageKey, old: Record | None) -> None:
        """An owner removes a record."""
        if old is None or not old.versions:
            return
        if not self.has_floor_seen(node, key, old.context):
            seen = brief_context(old.context)
            self._fail("4-seen-never-shrinks", key, f"node {node} no longer knows {seen}")
        gone = [self._fates.is_gone(version.write_id) for version in old.versions]
        if not all(gone):
            if all(self._is_absence(version) for version in old.versions):
                self._check_proof(node, key, old)
            else:
                nothing = old._replace(versions=(), votes=())
                for version in old.versions:
                    self._check_vanished(node, f"node {node}", key, version, nothing)
        for version in old.versions:
            self._fates.note_gone(version.write_id, Fates.REAPED)
        self.reaped[key] = join(self.reaped.get(key, NOTHING_SEEN), old.context)

    def on_hint(
        self, node: NodeNumber, owner: NodeNumber, key: StorageKey, old: Record | None, new: Record
    ) -> None:
        """A stand-in keeps a record for an owner in place of another."""
        self._check_versions(key, new)
        self._check_votes(node, key, old, new)
        for version in old.versions if old is not None else ():
            if version not in new.versions:
                where = f"the hint of node {node} for node {owner}"
                self._check_vanished(node, where, key, version, new)

    def on_hint_removed(
        self, node: NodeNumber, owner: NodeNumber, key: StorageKey, old: Record | None, w: int
    ) -> None:
        """A stand-in deletes what it kept for an owner."""
        for version in old.versions if old is not None else ():
            owners = self._cluster.owners(key)
            targets = [owner] if owner in owners else list(owners)
            if all(self._has_taken(target, key, version) for target in targets):
                continue
            if sum(self._has_taken(target, key, version) for target in owners) >= w:
                continue
            told = f"node {node} deletes its hint for node {owner}, which has not stored"
            self._fail("1-hint-kept", key, f"{told} {brief_version(version)} durably")

    # ---- rules -----------------------------------------------------------------------------

    def has_floor_seen(self, node: NodeNumber, key: StorageKey, context: Context) -> bool:
        """Say whether a node's floors cover a context, or are known to be incomplete."""
        life = self._cluster.hosts[node].life
        if life is None:
            return False
        replica = life.replica
        partition = replica.trees.partition_of(key)
        if not replica.proving.is_proven(partition) or (node, partition) in self.dropped:
            return True  # exchanges that began after the loss will bring it back
        seen = replica.floors.seen(partition)
        single = all(seen.has_seen(dot) for dot in context.dots)
        return single and not seen.lacks(Context(context.vector))

    def _check_versions(self, key: StorageKey, record: Record) -> None:
        try:
            check(record)
        except AssertionError as error:
            self._fail("3-records-are-in-order", key, str(error))
        partition = partition_of_key(key, self._cluster.topology.partition_bits)
        for version in record.versions:
            self._fates.note_version(key, version)
            newest = self._newest_plain.get(key)
            if not version.is_explicit and (newest is None or newest.timestamp < version.timestamp):
                self._newest_plain[key] = version
            known = self._payloads.setdefault((partition, version.dot), (key, version.checksum))
            if known != (key, version.checksum):
                self._fail("3-one-payload-a-dot", key, f"{version.dot} names two payloads")
            write = self._judge.writes_by_id.get(version.write_id)
            if write is not None and write.outcome == NOT_APPLIED:
                told = f"{brief_version(version)} is stored"
                self._fail("6-not-applied-unseen", key, f"{told}, and was called not applied")

    def _check_revived(self, node: NodeNumber, key: StorageKey, old: Record, new: Record) -> None:
        held = {version.dot for version in old.versions}
        for version in new.versions:
            if version.dot not in held and covers(old.context, version.dot):
                told = f"{brief_version(version)} had been superseded at node {node}, and is back"
                self._fail("4-superseded-stays-so", key, told)

    def _check_fence(self, node: NodeNumber, key: StorageKey, old: Record, new: Record) -> None:
        """A record from which nothing but losers goes is what its owner had told of."""
        prune = self._prunes.get((node, key))
        if prune is None or new.context != old.context:
            return
        gone = {version.dot for version in old.versions if version not in new.versions}
        if (
            not gone
            or not gone <= {*prune.losers}
            or len(old.versions) - len(gone) != len(new.versions)
        ):
            return
        if digest(encode(key, old)) != prune.fence.digest:
            told = f"node {node} prunes {brief_record(old)}"
            self._fail("1-pruned-as-told", key, f"{told}, which it had not told of as that")

    def _check_vanished(
        self, node: NodeNumber, where: str, key: StorageKey, version: Version, new: Record
    ) -> None:
        ahead = self._fates.ahead_of(key, named(version))
        for other in new.versions:
            if other.write_id == version.write_id:
                return  # a twin stays
            # Also if it is gone already: what superseded it elsewhere may be lost with a log.
            if self._supersedes(other, version, ahead):
                self._fates.note_gone(version.write_id, other.write_id)
        self._note_late(node, key, version, ahead)
        for heir in ahead.values():
            self._fates.note_gone(version.write_id, heir)  # another attempt of it was replaced
        logs = self._stores.logged.get((key, version.write_id), {})
        w = self._cluster.keyspace_of(key).w
        if len(logs) >= w:
            self._fates.note_gone(version.write_id, Fates.SETTLED)
        if self._fates.is_gone(version.write_id):
            return
        told = f"{brief_version(version)} vanishes from {where}: nothing there supersedes it"
        if logs:
            logged = f"it is in the conflict log of {list(logs)} alone, not of {w} owners"
            self._fail("1-logged-before-pruned", key, f"{told}, and {logged}")
        self._fail("1-nothing-vanishes", key, told)

    def _note_late(
        self, node: NodeNumber, key: StorageKey, version: Version, ahead: Collection[Dot]
    ) -> None:
        """An attempt that came late supersedes what is older, and goes since it was replaced."""
        fates, gone = self._fates, version.write_id
        for other in self._came.get((node, key), ()):
            if fates.is_gone(other.write_id) and self._supersedes(other, version, ahead):
                fates.note_gone(gone, other.write_id)
        # Reads merge what stand-ins keep as its owners will: plain puts supersede there, too.
        newest = self._newest_plain.get(key)
        if newest is None or fates.is_gone(gone) or not self._cluster.keyspace_of(key).sloppy:
            return
        if self._supersedes(newest, version, ahead):
            fates.note_gone(gone, newest.write_id)

    def _supersedes(self, other: Version, version: Version, ahead: Collection[Dot]) -> bool:
        """Args: `ahead`: what replaced `version` by name, as a later put of the same client, or
        since another attempt of it was replaced."""
        if not other.is_explicit and other.timestamp > version.timestamp:
            return True
        if other.dot in ahead:
            return True
        write = self._judge.writes_by_id.get(other.write_id)
        if write is None:
            return False
        seen = write.seen
        return any(covers(seen, dot) for dot in self._fates.dots[version.write_id])

    def _check_proof(self, node: NodeNumber, key: StorageKey, old: Record) -> None:
        for owner in self._cluster.owners(key):
            if self._cluster.hosts[owner].life is None:
                continue  # what it had reported cannot be asked for any more
            if not self.has_floor_seen(owner, key, old.context):
                told = f"node {node} reaps what the floors of node {owner} do not cover:"
                self._fail("2-reaped-with-proof", key, f"{told} {brief_context(old.context)}")

    def _is_absence(self, version: Version) -> bool:
        now_ms = self._cluster.wall_ms + self._judge.lead_ms
        return version.is_absence(now_ms)

    def _check_votes(
        self, node: NodeNumber, key: StorageKey, old: Record | None, new: Record
    ) -> None:
        for vote in new.votes:
            cast = (key, vote.owner, vote.dot)
            if cast in self._cast:
                continue
            if not self._may_vote(vote.owner, key, new, vote.dot):
                told = f"a vote of node {vote.owner} for {brief_dot(vote.dot)} appears at {node}"
                self._fail("5-votes-are-facts", key, f"{told}: it was never cast")
            self._cast.add(cast)
        if old is None or not old.votes or old.votes == new.votes:
            return
        alive = {version.dot for version in new.versions}
        for vote in old.votes:
            if vote.dot in alive and vote not in new.votes:
                told = f"the vote of node {vote.owner} for {brief_dot(vote.dot)} is gone at {node}"
                self._fail("5-votes-are-facts", key, told)

    def _may_vote(self, node: NodeNumber, key: StorageKey, record: Record, dot: Dot) -> bool:
        if self.issuers.get(dot.actor) == node:
            return True
        offered = self._offered.get((node, key), ())
        if dot in offered:
            return True
        return any(v.write_id in offered for v in record.versions if v.dot == dot)

    def _has_taken(self, owner: NodeNumber, key: StorageKey, version: Version) -> bool:
        if self._stores.has_durable(owner, key, [version.dot]):
            return True
        if self._cluster.hosts[owner].life is None:
            return True  # its floors may have covered it when it answered
        # What was superseded before it came is stored nowhere, and the floors know it.
        is_gone = self._fates.is_gone(version.write_id)
        return is_gone and self.has_floor_seen(owner, key, one_dot(version.dot))

    def _fail(self, name: str, key: StorageKey, message: str) -> None:
        self._judge.fail(name, key, message)


def loser_of(name: bytes, value: bytes) -> tuple[StorageKey, bytes]:
    """Return the key of a conflict log's entry, and the write id of the version that lost."""
    entry = decode_entry(name, value)
    return entry.key, entry.loser.versions[0].write_id


def hint_of(name: bytes, value: bytes) -> tuple[NodeNumber, StorageKey, Record, int]:
    """Return whom an entry is for, its key, its record and w."""
    owner, key = split_hint_key(name)
    hint = decode_hint(value)
    return owner, key, decode(key, hint.record), hint.w
