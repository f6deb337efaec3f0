"""Bugs of a store of this kind, each as somebody might really write it.

What it decides: what is broken, and nothing of who finds it (tests/sim/mutants.py).
Its tests are tests/sim/test_mutants.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from kvclient import attempts as client_attempts
from kvclient import session as client_session
from kvclient.operation import Operation
from kvnode.core import record as records
from kvnode.core import versions
from kvnode.core.batch import Family, WriteBatch
from kvnode.core.conversations import Fence
from kvnode.core.floors import Floors
from kvnode.core.handoff import Handoff
from kvnode.core.held import Held
from kvnode.core.hints import Hints
from kvnode.core.keys import StorageKey
from kvnode.core.messages import (
    ClientPut,
    ErrorCode,
    Failure,
    Instant,
    NodeNumber,
    Outbox,
    Outcome,
    PutResult,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Status,
    WriteKind,
)
from kvnode.core.node import Node
from kvnode.core.pruning import Pruner
from kvnode.core.read import ReadOp
from kvnode.core.read_port import ReadEffects
from kvnode.core.reaping import Obstacle, Reaping
from kvnode.core.record import DamagedRecord, Lone, absent_from, decode, encode
from kvnode.core.replica import Replica
from kvnode.core.resolve import Verdict
from kvnode.core.runs import Runs
from kvnode.core.settlement import Settlement, Stage
from kvnode.core.shelf import Shelf
from kvnode.core.trees import Trees
from kvnode.core.versions import EMPTY, Dot, Record, Version, Vote, find, with_vote
from kvnode.core.write import WriteOp
from kvnode.core.writing import Writes
from kvnode.runtime import claims, proof
from kvnode.runtime.identity import Identity
from kvnode.storage import rebuild
from kvnode.storage.port import Engine
from tests.sim.cluster import Cluster
from tests.sim.planted import MUTANTS as MUTANTS
from tests.sim.planted import Place, everywhere, mutant

# ---- durability ---------------------------------------------------------------------------------


@mutant("acknowledged before it is durable")
def _acknowledged_early() -> Sequence[Place]:
    """Owners acknowledge writes that a loss of power can still take back."""
    return [(Shelf, "is_dirty", lambda self, key: False)]


@mutant("hint acknowledged before it is durable")
def _hint_acknowledged_early() -> Sequence[Place]:
    """Stand-ins acknowledge hints that a loss of power can still take back."""
    on_requests = Node._on_requests

    class Early:
        def __init__(self, out: Outbox, early: frozenset[int]) -> None:
            self.out, self.early = out, early

        def send(self, target: NodeNumber, message: Any, *, durable: bool = False) -> None:
            is_early = isinstance(message, ReplicaWriteReply) and message.id in self.early
            self.out.send(target, message, durable=durable and not is_early)

    def broken(self: Node, event: Any, out: Outbox, now: Instant) -> None:
        early = frozenset(write.id for write in event.writes if write.stand_in_for)
        on_requests(self, event, Early(out, early), now)  # type: ignore[arg-type]

    return [(Node, "_on_requests", broken)]


@mutant("read error taken for absence")
def _error_is_absence() -> Sequence[Place]:
    """What a disk cannot read is taken for not there."""
    return [(Held, "_read_raw", lambda self, key: self._records.get(key))]


@mutant("damage taken for absence")
def _damage_is_absence() -> Sequence[Place]:
    """A record whose checksum is wrong is taken for not there."""

    def read(self: Held, key: StorageKey) -> bytes | None:
        data = self._read_raw(key)
        try:
            if data:
                records.verify(key, data)
        except DamagedRecord:
            return None
        return data

    def load(self: Held, key: StorageKey) -> Record:
        data = read(self, key)
        return decode(key, data) if data else EMPTY

    def lone(self: Held, key: StorageKey) -> Lone | None:
        data = read(self, key)
        return records.read_lone(key, data) if data else records.NOT_HELD

    return [(Held, "_read", read), (Held, "_load", load), (Held, "_lone", lone)]


@mutant("checksums ignored")
def _no_checksums() -> Sequence[Place]:
    """Whatever bytes a disk gives are believed."""
    return [(records, "_hash", lambda data: 0)]


@mutant("a node never doubts itself")
def _no_doubt() -> Sequence[Place]:
    """A store that is restored, wiped or damaged counts as if nothing were missing."""
    return [(Shelf, "doubt", lambda self, partitions: None)]


@mutant("an unproven owner counts towards r")
def _unproven_counts() -> Sequence[Place]:
    """An owner that may have lost records is believed like any other."""
    on_read = Replica.on_read

    def broken(self: Replica, request: ReplicaRead, now: Instant) -> ReplicaReadReply:
        reply = on_read(self, request, now)
        is_unproven = reply.status is Status.UNPROVEN
        return reply._replace(status=Status.DONE) if is_unproven else reply

    return [(Replica, "on_read", broken)]


@mutant("floors kept where records were lost")
def _floors_kept() -> Sequence[Place]:
    """What a store has lost passes for superseded there."""
    delete = WriteBatch.delete

    def broken(self: WriteBatch, family: Family, key: bytes) -> None:
        if family is not Family.FLOORS:
            delete(self, family, key)

    copied = (rebuild, "_COPIED", (*rebuild._COPIED, Family.FLOORS))
    dropped = (Floors, "drop", lambda self, partition: None)
    return [copied, dropped, (WriteBatch, "delete", broken)]


@mutant("a lost life is not admitted")
def _lost_life_ignored() -> Sequence[Place]:
    """A wiped or restored store does not heed that others know of later lives of its node."""
    return [(Identity, "_admit_lost_life", lambda self, hello: None)]


@mutant("lost ends of the log are not told")
def _damage_untold() -> Sequence[Place]:
    """A store that dropped part of its log opens as if it were whole."""
    judge = proof.judge

    class Quiet:
        damage = ()

        def __init__(self, engine: Engine) -> None:
            self.engine = engine

        def __getattr__(self, name: str) -> Any:
            return getattr(self.engine, name)

    def broken(engine: Engine, *args: Any, **more: Any) -> bytes | None:
        engine.forget_damage()
        return judge(Quiet(engine), *args, **more)

    return everywhere(judge, broken)


@mutant("an actor used again")
def _actor_reused() -> Sequence[Place]:
    """Every life of a node issues its writes under the same name, also on a wiped disk."""
    return [(Cluster, "new_actor", lambda self, number: 1_000 + number)]


# ---- lives and epochs ---------------------------------------------------------------------------


@mutant("an old epoch accepted")
def _old_epoch() -> Sequence[Place]:
    """Requests of nodes that have not heard of the newest topology are carried out."""
    return [(Identity, "is_older", lambda self, frame: False)]


@mutant("a copy of a folder is let in")
def _copy_let_in() -> Sequence[Place]:
    """Two lives under one identity go on beside one another: peers ask neither who it is."""
    judged = (claims, "judge", lambda node, known, hello: "")
    return [judged, (claims, "question", lambda node, known, hello, *, is_beside: None)]


# ---- versions and votes -------------------------------------------------------------------------


@mutant("repair overwrites")
def _repair_overwrites() -> Sequence[Place]:
    """A repair replaces what is held, instead of being merged with it."""
    merged = Replica._merged

    def broken(self: Replica, request: ReplicaWrite, mine: Record, theirs: Record) -> Record:
        if request.kind is WriteKind.REPAIR and theirs.versions:
            return theirs
        return merged(self, request, mine, theirs)

    return [(Replica, "_merged", broken)]


@mutant("a sibling dropped")
def _sibling_dropped() -> Sequence[Place]:
    """Of concurrent versions a merge keeps the newest alone."""
    sync = versions.sync

    def broken(left: Record, right: Record) -> Record:
        merged = sync(left, right)
        if len(merged.versions) < 2:
            return merged
        newest = max(merged.versions, key=_age)
        return versions.prune(merged, [v.dot for v in merged.versions if v is not newest])

    return everywhere(sync, broken)


@mutant("an explicit put buries what it has not seen")
def _explicit_buries() -> Sequence[Place]:
    """A put with a context supersedes whatever is older, as a plain one does."""
    return [(versions, "_postdates", lambda version, old: old.timestamp < version.timestamp)]


@mutant("repair votes")
def _repair_votes() -> Sequence[Place]:
    """A repair casts its owner's vote for the newest that it brings."""
    on_write = Replica.on_write

    def broken(self: Replica, request: ReplicaWrite, now: Instant) -> ReplicaWriteReply:
        if request.kind is WriteKind.REPAIR:
            held = decode(request.key, request.record)
            if held.versions:
                held = with_vote(held, Vote(self.number, max(held.versions, key=_age).dot))
                request = request._replace(record=encode(request.key, held))
        return on_write(self, request, now)

    return [(Replica, "on_write", broken)]


@mutant("copies counted instead of votes")
def _copies_counted() -> Sequence[Place]:
    """Each owner counts for the newest version that it holds, whatever it voted for."""
    on_reply = ReadOp.on_reply

    def broken(
        self: ReadOp, node: NodeNumber, reply: ReplicaReadReply, now: Instant, fx: ReadEffects
    ) -> None:
        if reply.record:
            key = self.request.key
            try:
                held = decode(key, reply.record)._replace(votes=())
            except DamagedRecord:
                held = EMPTY
            if held.versions:
                held = with_vote(held, Vote(node, max(held.versions, key=_age).dot))
                reply = reply._replace(record=encode(key, held))
        on_reply(self, node, reply, now, fx)

    return [(ReadOp, "on_reply", broken)]


@mutant("expiry ignored")
def _never_expires() -> Sequence[Place]:
    """A value that has expired is read all the same."""
    return [(Version, "is_absence", lambda self, now_ms: self.is_tombstone)]


def _age(version: Version) -> tuple[int, Dot]:
    return version.timestamp, version.dot


# ---- deletes and trees --------------------------------------------------------------------------


@mutant("reaped without the others' proof")
def _reaped_alone() -> Sequence[Place]:
    """A tombstone goes as soon as its holder has seen what it covers."""
    obstacle = Reaping._obstacle

    def broken(self: Reaping, node: NodeNumber, partition: Any, held: Record) -> Obstacle | None:
        is_own = node == self._replica.number
        return obstacle(self, node, partition, held) if is_own else None

    return [(Reaping, "_obstacle", broken)]


@mutant("a deletion leaves no tombstone")
def _no_tombstone() -> Sequence[Place]:
    """What is deleted is removed at once, with all that was known of it."""
    keep = Shelf._keep

    def broken(self: Shelf, key: StorageKey, encoded: Any) -> None:
        is_deleted = encoded is not None and absent_from(encoded) == 0
        keep(self, key, None if is_deleted else encoded)

    return [(Shelf, "_keep", broken)]


@mutant("trees skip tombstones")
def _trees_skip_tombstones() -> Sequence[Place]:
    """Owners that differ in a deletion alone have equal trees."""
    note = Trees.note

    def alive(data: bytes | None) -> bytes | None:
        return None if data and absent_from(data) == 0 else data

    def broken(self: Trees, key: StorageKey, old: bytes | None, new: bytes | None) -> None:
        note(self, key, alive(old), alive(new))

    return [(Trees, "note", broken)]


@mutant("an exchange that was broken off counts")
def _exchange_counts() -> Sequence[Place]:
    """Floors are taken over although not all that differs was mended."""
    end = Runs._end

    def broken(self: Runs, run: Any, *, is_complete: bool) -> None:
        end(self, run, is_complete=True)

    return [(Runs, "_end", broken)]


# ---- hints and slots ----------------------------------------------------------------------------


@mutant("hint deleted before its acknowledgement")
def _hint_deleted_early() -> Sequence[Place]:
    """A hint goes when it is sent, not when its owner has it."""
    begin = Handoff._begin

    def broken(self: Handoff, request: Any) -> int:
        number = begin(self, request)
        self._hints.on_delivered(request.name, number)
        return number

    return [(Handoff, "_begin", broken)]


@mutant("hint given up for its age alone")
def _hint_aged() -> Sequence[Place]:
    """A hint that is too old goes, whoever holds what it keeps."""

    def broken(
        self: Handoff, name: bytes, hint: Any, walk: Any, deadline: Instant, out: Outbox
    ) -> None:
        self._hints.note_sent(name, 1)
        self._hints.give_up(name, 1)

    return [(Handoff, "_ask_about", broken)]


@mutant("hints beyond their bound")
def _hints_unbounded() -> Sequence[Place]:
    """Stand-ins keep hints as long as they come."""
    keep = Hints.keep

    def broken(self: Hints, *args: Any, **more: Any) -> Any:
        bound, self._bytes_max = self._bytes_max, 1 << 62
        try:
            return keep(self, *args, **more)
        finally:
            self._bytes_max = bound

    return [(Hints, "keep", broken)]


@mutant("a hint counts in a strict keyspace")
def _hint_counts_strictly() -> Sequence[Place]:
    """With `sloppy` off stand-ins fill the slots of owners all the same."""
    begin = Writes.begin

    def broken(self: Writes, origin: int, request: ClientPut) -> None:
        sloppy = dataclasses.replace(request.keyspace, sloppy=True)
        begin(self, origin, request._replace(keyspace=sloppy))

    return [(Writes, "begin", broken)]


@mutant("an owner and its stand-in count as two")
def _two_of_one_slot() -> Sequence[Place]:
    """`ok` is said once w nodes hold a write, though they fill one slot."""

    def broken(self: WriteOp) -> PutResult | None:
        counted = [n for n in self._acked if not (self._merges and n == self._merging_at)]
        return self._result() if len(counted) >= self.request.w else None

    return [(WriteOp, "_result_if_met", broken)]


# ---- outcomes -----------------------------------------------------------------------------------


@mutant("uncertain called not applied by the node")
def _node_says_not_applied() -> Sequence[Place]:
    """A write that some owners may hold is said to be nowhere."""
    uncertain = WriteOp._uncertain

    def broken(self: WriteOp, why: str, now: Instant) -> Failure:
        failure = uncertain(self, why, now)
        return failure._replace(code=ErrorCode.UNAVAILABLE, outcome=Outcome.NOT_APPLIED)

    return [(WriteOp, "_uncertain", broken)]


@mutant("a retry turns uncertain into not applied")
def _retry_forgets() -> Sequence[Place]:
    """The client believes its last attempt, and forgets what the ones before may have done."""
    note = client_attempts._note

    def broken(operation: Operation, *args: Any) -> None:
        operation.may_have_applied = False
        note(operation, *args)

    return [(client_attempts, "_note", broken)]


@mutant("a retry under another name")
def _retry_renamed() -> Sequence[Place]:
    """Each attempt of a write is a write of its own."""
    send = client_attempts.Attempts._send

    def broken(self: client_attempts.Attempts, operation: Operation, *args: Any) -> None:
        if operation.attempts and operation.is_put:
            operation.write_id = operation.write_id[8:] + bytes([operation.attempts]) * 8
        send(self, operation, *args)

    return [(client_attempts.Attempts, "_send", broken)]


@mutant("a session that remembers nothing")
def _session_forgets() -> Sequence[Place]:
    """Operations go out with the context of no earlier one."""
    return [(client_session.Session, "recall", lambda self, *place: (b"", b""))]


# ---- settling -----------------------------------------------------------------------------------


@mutant("settling before the log")
def _settles_unlogged() -> Sequence[Place]:
    """Losers are pruned without being in anybody's conflict log."""

    def broken(self: Settlement, verdict: Verdict, time_ms: int, out: Outbox) -> None:
        self._verdict = verdict
        self._prune(out)
        assert self.stage is Stage.PRUNING

    return [(Settlement, "log", broken)]


@mutant("settling without the fence")
def _settles_unfenced() -> Sequence[Place]:
    """Losers are pruned from whatever is held meanwhile, in whatever life."""

    def broken(
        self: Pruner, key: StorageKey, fence: Fence, losers: tuple[Dot, ...]
    ) -> Record | None:
        held = self._replica.held(key)
        record = decode(key, held) if held else None
        return record if record and all(find(record, dot) for dot in losers) else None

    return [(Pruner, "_fenced", broken)]
