"""Deliberately broken variants, each caught by a check that passes on the sound code.

A check here is a function of a seed that raises AssertionError. `test_the_sound_code_passes` runs
every check as the code is; each mutant is patched in and must be caught within its seeds.
What catches which is listed in docs/testing.md.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from kvnode.core import replica
from kvnode.core.conversations import Fence, LogLosers
from kvnode.core.keys import StorageKey
from kvnode.core.messages import (
    Instant,
    Outbox,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Status,
    WriteKind,
)
from kvnode.core.pruning import Pruner
from kvnode.core.read import ReadEffects, ReadOp
from kvnode.core.record import decode, encode
from kvnode.core.replica import Replica
from kvnode.core.resolve import Verdict
from kvnode.core.settlement import Settlement, Stage
from kvnode.core.versions import Dot, Record, Version, Vote, find, with_vote
from kvnode.storage.port import ReadFailure
from tests.sim import test_cluster as failures
from tests.sim import test_settling as settling
from tests.sim.checks import OK
from tests.sim.client import Client
from tests.sim.cluster import Cluster, Host
from tests.sim.test_cluster import KEY, NAME, cluster_of, conflicted, corrupt
from tests.sim.workload import Trial, chaos

SEEDS = 40
"""A mutant must be caught within as many."""


# --- checks ---------------------------------------------------------------------------------------


def random_histories(seed: int) -> None:
    """All invariants over one random history."""
    chaos(seed)


def late_repairs_merge(seed: int) -> None:
    """Row 17: a repair that was held back does not undo what came later."""
    failures.test_a_read_repair_that_was_held_back_does_not_undo_what_came_later(seed)


def power_cut(seed: int) -> None:
    """Row 34: all nodes lose power the instant that a put is acknowledged."""
    trial = Trial(seed)
    for host in trial.cluster.hosts.values():
        host.disk.sync_us = 20_000
    for _ in range(3):
        trial.put(0, b"a")
    for node in trial.cluster.hosts:
        trial.kill(node)
    trial.finish()


def full_reads_agree(seed: int) -> None:
    """Row 2: a conflict has one answer, whoever was mended in between."""
    cluster, owners = conflicted(seed)
    random.Random(seed).shuffle(owners)
    answers = [Client(cluster, at).get(KEY, at=at, r=3).value for at in owners]
    assert answers == [b"A"] * 3, f"seed {seed}: {answers}"


def votes_stay_where_they_were_cast(seed: int) -> None:
    """Row 2: repair leaves the votes of a conflict as they were."""
    cluster, owners = conflicted(seed)
    told = [cluster.watch.votes(NAME)]
    for at in owners:
        Client(cluster, at).get(KEY, at=at, r=3)
        told.append(cluster.watch.votes(NAME))
    assert all(votes == told[0] for votes in told), f"seed {seed}: {told}"


def restarts_issue_no_dot_twice(seed: int) -> None:
    """Row 6: invariant 3 after a coordinator lost its disk, and after it merely restarted."""
    for wipes in (False, True):
        cluster = cluster_of(seed)
        at = cluster.owners(NAME)[0]
        client = Client(cluster, 0)
        assert client.put(KEY, b"1", at=at).outcome == OK
        cluster.run(10_000)
        cluster.hosts[at].kill()
        if wipes:
            cluster.hosts[at].wipe()
        cluster.hosts[at].start()
        cluster.run(10_000)
        assert Client(cluster, 1).put(KEY, b"2", at=at).outcome == OK


def unreadable_is_not_absent(seed: int) -> None:
    """Row 8: what a disk cannot read is not an absence, for readers and for writers."""
    failures.test_a_write_through_a_record_that_cannot_be_read_goes_to_another_owner(
        seed, unreadable=True
    )


def damaged_is_not_absent(seed: int) -> None:
    """Row 8: a record whose checksum is wrong is not an absence."""
    cluster = cluster_of(seed)
    a, _, c = cluster.owners(NAME)
    Client(cluster, 0).put(KEY, b"v")
    cluster.run(10_000)
    corrupt(cluster, a)
    cluster.isolate(c)
    cluster.run(2_000_000)
    assert Client(cluster, 1).get(KEY, at=a).outcome != OK, f"seed {seed}: answered by one owner"


def losers_are_logged_first(seed: int) -> None:
    """Row 2: a value leaves its owners only once w of them have it in their logs."""
    cluster, (a, b, c) = conflicted(seed)
    for node in (b, c):
        cluster.network.links[a, node].holds = lambda message: isinstance(message, LogLosers)
    cluster.run(60_000_000)
    assert settling.nothing_is_lost(cluster), f"seed {seed}: B is gone without a trace"


def stale_prunes_do_nothing(seed: int) -> None:
    """Row 2: prunes that were decided on another record change no answer."""
    settling.test_prunes_that_were_overtaken_by_a_write_change_nothing(seed)


Check = Callable[[int], None]
CHECKS: tuple[Check, ...] = (
    random_histories,
    late_repairs_merge,
    power_cut,
    full_reads_agree,
    votes_stay_where_they_were_cast,
    restarts_issue_no_dot_twice,
    unreadable_is_not_absent,
    damaged_is_not_absent,
    losers_are_logged_first,
    stale_prunes_do_nothing,
)


# --- mutants --------------------------------------------------------------------------------------


def overwriting_sync(left: Record, right: Record) -> Record:
    """Whatever comes in replaces what is there."""
    return right if right.versions else left


def is_never_dirty(self: Replica, key: object) -> bool:
    """Nothing ever waits for the log."""
    return False


def reply_by_copies(
    self: ReadOp, node: int, reply: ReplicaReadReply, now: Instant, fx: ReadEffects
) -> None:
    """Each reply counts for the newest version that its owner holds, whatever was voted."""
    if reply.record:
        key = self.request.key
        held = decode(key, reply.record)._replace(votes=())
        copied = with_vote(held, Vote(node, newest(held).dot)) if held.versions else held
        reply = reply._replace(record=encode(key, copied))
    _on_reply(self, node, reply, now, fx)


def voting_repair(self: Replica, request: ReplicaWrite, now: Instant) -> ReplicaWriteReply:
    """Repair casts a vote for the newest that it brings."""
    if request.kind is WriteKind.REPAIR:
        record = decode(request.key, request.record)
        voted = with_vote(record, Vote(self.number, newest(record).dot))
        request = request._replace(record=encode(request.key, voted))
    return _on_write(self, request, now)


def actor_of_the_node(self: Cluster, number: int) -> int:
    """Every life of a node has the same actor."""
    return 1_000 + number


def error_is_absence(found: bytes | ReadFailure | None) -> bool:
    """No read ever failed: what could not be read is not there."""
    return False


def damage_is_absence(self: Replica, request: ReplicaRead, now: Instant) -> ReplicaReadReply:
    """A replica that cannot read what it holds says that it holds nothing."""
    reply = _on_read(self, request, now)
    return reply if reply.status is not Status.ABSTAINED else reply._replace(status=Status.DONE)


def prunes_at_once(self: Settlement, verdict: Verdict, time_ms: int, out: Outbox) -> None:
    """Losers are pruned without being logged."""
    self._verdict = verdict
    self._prune(out)
    assert self.stage is Stage.PRUNING


def unfenced(self: Pruner, key: StorageKey, fence: Fence, losers: tuple[Dot, ...]) -> Record | None:
    """Whatever record is held, in whatever life and epoch: losers are losers."""
    held = self._replica.held(key)
    record = decode(key, held) if held else None
    return record if record and all(find(record, dot) for dot in losers) else None


def newest(record: Record) -> Version:
    return max(record.versions, key=lambda version: (version.timestamp, version.dot))


_on_reply, _on_write, _on_read = ReadOp.on_reply, Replica.on_write, Replica.on_read


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug, where it is planted, and the check that finds it."""

    name: str
    places: tuple[tuple[object, str, object], ...]
    check: Check


MUTANTS = (
    Mutant(
        "a sync that overwrites",
        ((replica, "sync", overwriting_sync),),
        late_repairs_merge,
    ),
    Mutant(
        "an acknowledgement before durability",
        ((Replica, "is_dirty", is_never_dirty),),
        power_cut,
    ),
    Mutant(
        "copies counted instead of votes",
        ((ReadOp, "on_reply", reply_by_copies),),
        full_reads_agree,
    ),
    Mutant(
        "a vote cast by repair",
        ((Replica, "on_write", voting_repair),),
        votes_stay_where_they_were_cast,
    ),
    Mutant(
        "a dot reused after a restart",
        ((Cluster, "new_actor", actor_of_the_node),),
        restarts_issue_no_dot_twice,
    ),
    Mutant(
        "a read error taken for absence",
        ((Host, "_is_failure", staticmethod(error_is_absence)),),
        unreadable_is_not_absent,
    ),
    Mutant(
        "damage taken for absence",
        ((Replica, "on_read", damage_is_absence),),
        damaged_is_not_absent,
    ),
    Mutant(
        "settling before the log",
        ((Settlement, "log", prunes_at_once),),
        losers_are_logged_first,
    ),
    Mutant(
        "settling without the fence",
        ((Pruner, "_fenced", unfenced),),
        stale_prunes_do_nothing,
    ),
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_sound_code_passes(check: Check, rng: random.Random) -> None:
    for _ in range(10):
        check(rng.getrandbits(32))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_mutant_is_caught(
    mutant: Mutant, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, name, broken in mutant.places:
        monkeypatch.setattr(owner, name, broken)
    for count in range(1, SEEDS + 1):
        try:
            mutant.check(rng.getrandbits(32))
        except AssertionError as caught:
            print(f"{mutant.name}: caught in seed {count}: {str(caught).splitlines()[0]}")
            return
    pytest.fail(f"{mutant.name}: not caught by {mutant.check.__name__} in {SEEDS} seeds")
