"""Whole clusters: the driver's own laws, and failures told step by step.

The numbers in comments are rows of the list of what goes wrong in stores of this kind; what needs
hints or anti-entropy is not here yet.
"""

from __future__ import annotations

import itertools
import random

import pytest

from kvclient.retry import Code, Refusal
from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.messages import (
    NodeNumber,
    PeerMessage,
    ReplicaWrite,
    ReplicaWriteReply,
    WriteKind,
)
from kvnode.core.record import Encoded, decode, encode, seal
from kvnode.core.topology import Keyspace, Resolve
from kvnode.core.versions import EMPTY, Record, check
from tests.sim.checks import FAILED, NOT_APPLIED, OK, UNCERTAIN, cores
from tests.sim.client import DEADLINE_US, Client
from tests.sim.cluster import Cluster
from tests.sim.healing import end_well
from tests.support.scale import scaled

KEY = b"k"
NAME = encode_key("default", KEY)
SIBLINGS = Keyspace(name="default", sloppy=False, resolve=Resolve.SIBLINGS)


QUIET = Limits(exchange_interval_ms=86_400_000)
"""Owners that compare nothing in the background: what a test holds back stays so."""


def cluster_of(
    seed: int, *, keyspace: Keyspace | None = None, limits: Limits | None = None
) -> Cluster:
    """Return five nodes that have heard of each other."""
    cluster = Cluster(seed, keyspace=keyspace, limits=limits)
    cluster.run(10_000)
    return cluster


def relink(cluster: Cluster) -> None:
    """Heal, which breaks connections, and wait until all living nodes are linked again."""
    cluster.heal()
    cluster.run(10_000)
    lives = [host.life for host in cluster.hosts.values() if host.life is not None]
    others = len(lives) - 1
    assert cluster.run(
        5_000_000, until=lambda: all(len(life.coordinator.reachable) == others for life in lives)
    )


def held(cluster: Cluster, node: NodeNumber, key: StorageKey = NAME) -> Record:
    """Return what a node's store holds."""
    (data,) = cluster.hosts[node].engine.multi_get(Family.RECORDS, [key])
    assert data is None or isinstance(data, bytes)
    return decode(key, data) if data else EMPTY


def values(record: Record) -> list[bytes]:
    return sorted(version.value for version in record.versions)


def corrupt(cluster: Cluster, node: NodeNumber, key: StorageKey = NAME) -> None:
    """Flip a bit of a record on a node's disk."""
    cluster.hosts[node].disk.garble(Family.RECORDS, key)


def holds(cluster: Cluster, node: NodeNumber, value: bytes) -> bool:
    """Say whether a node's disk holds this value, soundly."""
    (data,) = cluster.hosts[node].engine.multi_get(Family.RECORDS, [NAME])
    return isinstance(data, bytes) and value in [v.value for v in decode(NAME, data).versions]


def is_write(message: PeerMessage) -> bool:
    return isinstance(message, ReplicaWrite) and message.kind is WriteKind.WRITE


def is_repair(message: PeerMessage) -> bool:
    return isinstance(message, ReplicaWrite) and message.kind is WriteKind.REPAIR


# --- the driver ---------------------------------------------------------------------------------


def test_a_violation_tells_the_seed_and_the_keys_story(seed: int) -> None:
    cluster = cluster_of(seed)
    Client(cluster, 0).put(KEY, b"v")
    with pytest.raises(AssertionError, match=rf"(?s)seed {seed}: a claim.*put b'v' plainly.*holds"):
        cluster.fail(NAME, "a claim")


# --- conflicts and repair -------------------------------------------------------------------------


def conflicted(seed: int, *, limits: Limits | None = None) -> tuple[Cluster, list[NodeNumber]]:
    """Return a cluster where A is on two owners and B, concurrent, on the third alone."""
    cluster = cluster_of(seed, limits=limits)
    a, b, c = cluster.owners(NAME)
    for other in (a, b):
        cluster.network.links[other, c].holds = lambda _: True
    assert Client(cluster, 90).put(KEY, b"A", at=a).outcome == OK
    for other in (a, b):
        cluster.network.forget(other, c)
        cluster.network.links[c, other].holds = lambda _: True
    blind = Client(cluster, 91, restamps=False)
    blind.prefers = c
    write = blind.put(KEY, b"B", wait=False)
    cluster.run(2 * DEADLINE_US)
    assert write.outcome == UNCERTAIN
    for other in (a, b):
        cluster.network.forget(c, other)
    return cluster, [a, b, c]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
def test_a_conflict_has_one_answer_before_during_and_after_repair_in_every_order(
    seed: int, order: tuple[int, ...]
) -> None:
    # Row 2; invariant 7. (The loser stays listed as an open conflict: nothing settles yet.)
    cluster, owners = conflicted(seed)
    assert [values(held(cluster, node)) for node in owners] == [[b"A"], [b"A"], [b"B"]]
    reader = Client(cluster, 0)
    for at in order:
        assert reader.get(KEY, at=owners[at], r=3).value == b"A"
    assert {tuple(values(held(cluster, node))) for node in owners} == {(b"A", b"B")}
    for node in owners:
        (entry,) = cluster.hosts[node].engine.multi_get(Family.CONFLICTS, [NAME])
        assert entry == b""


def test_a_write_that_one_owner_took_is_never_followed_by_an_older_read(seed: int) -> None:
    # Row 18.
    cluster = cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    writer = Client(cluster, 0)
    writer.put(KEY, b"old")
    for other in (b, c):
        cluster.network.links[a, other].holds = is_write
    writer.put(KEY, b"new", at=a, wait=False)
    cluster.run(20_000)
    assert [values(held(cluster, node)) for node in (a, b, c)] == [[b"new"], [b"old"], [b"old"]]
    reader = Client(cluster, 1)
    first = reader.get(KEY, at=a)
    assert first.value == b"new"
    cluster.isolate(a)
    assert Client(cluster, 2).get(KEY, at=b).value == b"new"


def test_a_read_repair_that_was_held_back_does_not_undo_what_came_later(seed: int) -> None:
    # Row 17.
    cluster = cluster_of(seed, limits=QUIET)
    a, b, c = cluster.owners(NAME)
    client = Client(cluster, 0)
    cluster.cut(a, c)
    cluster.cut(b, c)
    client.put(KEY, b"old", at=a)
    relink(cluster)
    cluster.network.links[a, c].holds = is_repair
    assert client.get(KEY, at=a, r=3).value == b"old"
    assert values(held(cluster, c)) == []
    client.put(KEY, b"new", at=b)
    cluster.run(100_000)
    cluster.network.release(a, c)
    cluster.run(100_000)
    assert values(held(cluster, c)) == [b"new"]


# --- deletes --------------------------------------------------------------------------------------


def test_a_value_deleted_while_an_owner_was_away_never_comes_back(seed: int) -> None:
    # Row 4, the part without anti-entropy; invariant 2.
    cluster = cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    client = Client(cluster, 0)
    client.put(KEY, b"v")
    cluster.run(10_000)
    cluster.hosts[c].kill()
    cluster.run(2_000_000)
    assert client.delete(KEY, at=a).outcome == OK
    cluster.run(3_600_000_000)
    cluster.hosts[c].start()
    cluster.run(10_000)
    for at in (c, b, a):
        assert Client(cluster, 10 + at).get(KEY, at=at).value is None
    assert Client(cluster, 1).get(KEY, r=3).value is None


def test_a_stale_writer_after_a_delete_does_not_revive_what_was_deleted(seed: int) -> None:
    # Row 5, the part without hints.
    cluster = cluster_of(seed)
    client, stale = Client(cluster, 0), Client(cluster, 1)
    client.put(KEY, b"v1")
    read = stale.get(KEY)
    client.delete(KEY)
    assert stale.put(KEY, b"v2", context=read).outcome == OK
    assert Client(cluster, 2).get(KEY, r=3).values == {None, b"v2"}


# --- actors and disks -----------------------------------------------------------------------------


def test_a_wiped_coordinator_issues_no_dot_twice_and_counts_once_it_is_proven(seed: int) -> None:
    # Rows 6 and 30: no dot names two payloads (invariant 3), and an empty store says nothing.
    cluster = cluster_of(seed)
    a, b, _ = cluster.owners(NAME)
    client = Client(cluster, 0)
    for value in (b"1", b"2", b"3"):
        assert client.put(KEY, value, at=a).outcome == OK
    cluster.run(10_000)
    cluster.hosts[a].kill()
    cluster.hosts[a].wipe()
    cluster.hosts[a].start()
    cluster.run(10_000)
    assert Client(cluster, 1).get(KEY, at=a).value == b"3"
    assert client.put(KEY, b"4", at=a).outcome == OK
    assert Client(cluster, 2).get(KEY, at=b).value == b"4"
    life = cluster.hosts[a].life
    assert life is not None
    assert cluster.run(60_000_000, until=lambda: life.replica.is_proven)
    cluster.hosts[b].kill()
    cluster.run(2_000_000)
    assert Client(cluster, 3).get(KEY, at=a).value == b"4"


def test_a_restored_old_image_issues_no_dot_twice_and_shows_nothing_old(seed: int) -> None:
    # Row 7, without the exchange.
    cluster = cluster_of(seed)
    a, b, _ = cluster.owners(NAME)
    client = Client(cluster, 0)
    client.put(KEY, b"1", at=a)
    cluster.run(10_000)
    image = cluster.hosts[a].disk.image()
    client.put(KEY, b"2", at=a)
    cluster.run(10_000)
    cluster.hosts[a].kill()
    cluster.hosts[a].restore(image)
    cluster.hosts[a].start()
    cluster.run(10_000)
    assert Client(cluster, 1).get(KEY, at=a).value == b"2"
    assert client.put(KEY, b"3", at=a).outcome == OK
    assert Client(cluster, 2).get(KEY, at=b).value == b"3"


def test_a_damaged_record_is_an_abstention_never_an_absence(seed: int) -> None:
    # Row 8, reading.
    cluster = cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    Client(cluster, 0).put(KEY, b"v")
    cluster.run(10_000)
    cluster.isolate(c)
    cluster.run(2_000_000)
    corrupt(cluster, a)
    assert Client(cluster, 2).get(KEY, at=a).outcome == FAILED
    assert Client(cluster, 3).get(KEY, at=b).outcome == FAILED
    cluster.heal()
    cluster.run(10_000_000)
    assert holds(cluster, a, b"v"), "it was not brought back"
    cluster.isolate(c)
    cluster.run(2_000_000)
    assert Client(cluster, 4).get(KEY, at=a).value == b"v"


@pytest.mark.parametrize("unreadable", [False, True], ids=["damaged", "unreadable"])
def test_a_write_through_a_record_that_cannot_be_read_goes_to_another_owner(
    seed: int, unreadable: bool
) -> None:
    # Row 8, writing: merging with nothing would bury nothing, and lose what was there.
    cluster = cluster_of(seed)
    a, _, _ = cluster.owners(NAME)
    client = Client(cluster, 0)
    client.put(KEY, b"v1")
    cluster.run(10_000)
    if unreadable:
        cluster.hosts[a].disk.unreadable(Family.RECORDS, NAME)
    else:
        corrupt(cluster, a)
    (before,) = cluster.hosts[a].engine.multi_get(Family.RECORDS, [NAME])
    assert client.put(KEY, b"v2", at=a).outcome == OK
    cluster.run(10_000)
    (after,) = cluster.hosts[a].engine.multi_get(Family.RECORDS, [NAME])
    if unreadable:
        assert after == before
    else:  # it was brought back, with the write or from before it
        cluster.run(1_000_000)
        assert holds(cluster, a, b"v2") or holds(cluster, a, b"v1")
    assert Client(cluster, 1).get(KEY, at=a).value == b"v2"


def test_other_bytes_under_one_dot_are_overruled_by_those_that_most_owners_hold(seed: int) -> None:
    # Invariant 3, broken by hand: a sound record with another value under the same dot.
    cluster = cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    Client(cluster, 0).put(KEY, b"v")
    cluster.run(10_000)
    (data,) = cluster.hosts[c].engine.multi_get(Family.RECORDS, [NAME])
    assert isinstance(data, bytes)
    state = decode(NAME, data)
    (wrong,) = state.versions
    twin = seal(NAME, dot=wrong.dot, timestamp=wrong.timestamp, write_id=wrong.write_id, value=b"w")
    cluster.hosts[c].disk.put(Family.RECORDS, NAME, encode(NAME, state._replace(versions=(twin,))))
    for number, at in enumerate((c, a, b)):
        assert Client(cluster, number + 1).get(KEY, at=at).value == b"v"
    cluster.run(1_000_000)
    assert all(holds(cluster, node, b"v") for node in (a, b, c))


def test_power_lost_everywhere_costs_nothing_that_was_acknowledged(rng: random.Random) -> None:
    # Rows 31 and 34.
    for _ in range(scaled(4, soak=200)):
        cluster = cluster_of(rng.getrandbits(32))
        clients = [Client(cluster, number) for number in range(3)]
        for number in range(12):
            clients[number % 3].put(KEY, b"v%d" % number, wait=number % 4 != 3)
        for host in cluster.hosts.values():
            host.kill()
        for host in cluster.hosts.values():
            host.start()
        end_well(cluster, [("default", KEY)])


# --- clocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead_ms", [30_000, 288_000, 31_536_000_000, -31_536_000_000])
def test_a_wrong_clock_breaks_no_causal_order_and_drags_no_other_along(
    seed: int, ahead_ms: int
) -> None:
    # Row 3, the core's part.
    cluster = cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    cluster.hosts[a].set_clock(ahead_ms)
    cluster.run(500_000)
    client = Client(cluster, 0)
    for number, at in enumerate((a, b, c, a, b, c)):
        assert client.put(KEY, b"v%d" % number, at=at).outcome == OK
        assert client.get(KEY, at=at).value == b"v%d" % number
    life = cluster.hosts[a].life
    assert life is not None
    assert life.coordinator.clock_is_off == (abs(ahead_ms) > cluster.limits.max_skew_ms)
    for node in (b, c):
        life = cluster.hosts[node].life
        assert life is not None
        ahead = (life.clock.last >> 16) - cluster.wall_ms
        assert ahead <= cluster.limits.max_skew_ms


def test_a_write_stamped_beyond_the_skew_is_refused_and_never_seen(seed: int) -> None:
    # Invariant 6.
    cluster = cluster_of(seed)
    client = Client(cluster, 0, lag_ms=-cluster.limits.max_skew_ms - 5_000)
    assert client.put(KEY, b"from the future").outcome == NOT_APPLIED
    assert Client(cluster, 1).get(KEY, r=3).value is None
    assert set(cores(cluster, NAME).values()) == {b""}


# --- siblings -------------------------------------------------------------------------------------


def test_a_hundred_interleaved_writes_with_stale_contexts_leave_two_siblings(seed: int) -> None:
    # Row 15.
    cluster = cluster_of(seed, keyspace=SIBLINGS)
    clients = Client(cluster, 0), Client(cluster, 1)
    reads = [client.get(KEY) for client in clients]
    for number in range(50):
        for at, client in enumerate(clients):
            write = client.put(KEY, b"%d by %d" % (number, at), context=reads[at])
            assert write.outcome == OK
            reads[at].context = client.seen[NAME]
    final = Client(cluster, 2).get(KEY, r=3)
    assert final.values == {b"49 by 0", b"49 by 1"}


def test_two_hundred_blind_puts_leave_one_version_and_a_small_context(seed: int) -> None:
    # Row 16.
    cluster = cluster_of(seed)
    for number in range(200):
        assert Client(cluster, number).put(KEY, b"%d" % number).outcome == OK
    assert Client(cluster, 200).get(KEY, r=3).value == b"199"
    for node in cluster.owners(NAME):
        record = held(cluster, node)
        check(record)
        assert values(record) == [b"199"]
        assert len(record.context.vector) + len(record.context.dots) <= 3


# --- outcomes and stuck writes --------------------------------------------------------------------


def test_a_write_with_one_acknowledgement_is_uncertain_and_masks_nothing(seed: int) -> None:
    # Row 19.
    cluster, (a, b, c) = conflicted(seed)
    assert values(held(cluster, c)) == [b"B"]
    assert Client(cluster, 0).get(KEY, at=a, r=3).value == b"A"
    assert values(held(cluster, b)) == [b"A", b"B"]


def test_a_put_stuck_in_a_stopped_coordinator_does_not_undo_a_newer_one(seed: int) -> None:
    # Row 33.
    cluster = cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    for other in (b, c):
        cluster.network.links[a, other].holds = is_write
    client = Client(cluster, 0)
    client.prefers = b
    client.deaf_to.add(a)
    first = client.put(KEY, b"first", at=a)
    assert (first.outcome, first.attempts) == (OK, 2)
    newer = Client(cluster, 1)
    assert newer.put(KEY, b"newer", at=b).outcome == OK
    for other in (b, c):
        cluster.network.release(a, other)
    cluster.run(100_000)
    for at in (a, b, c):
        assert Client(cluster, 10 + at).get(KEY, at=at, r=3).value == b"newer"


@pytest.mark.parametrize("restamps_retries", [False, True])
def test_a_retry_never_brings_back_a_deleted_value(seed: int, restamps_retries: bool) -> None:
    # The first attempt was seen and deleted while its acknowledgements were held up.
    cluster = cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    for other in (b, c):
        cluster.network.links[other, a].holds = lambda it: isinstance(it, ReplicaWriteReply)
    writer = Client(cluster, 0, restamps_retries=restamps_retries)
    writer.prefers = b
    writer.deaf_to.add(a)
    write = writer.put(KEY, b"v", at=a, wait=False)
    cluster.run(100_000)
    deleter = Client(cluster, 1)
    assert deleter.get(KEY, at=b).value == b"v"
    assert deleter.delete(KEY, at=b).outcome == OK
    cluster.run(1_000_000)
    assert (write.outcome, write.attempts) == (OK, 2)
    assert Client(cluster, 2).get(KEY, at=c, r=3).value is None


def test_too_few_owners_is_not_applied_at_once(seed: int) -> None:
    cluster = cluster_of(seed)
    a, _, _ = cluster.owners(NAME)
    cluster.isolate(a)
    cluster.run(2_000_000)
    client = Client(cluster, 0)
    client.put(KEY, b"v", at=a, wait=False)
    told: list[Refusal] = []
    client.engine.on_refusal = lambda lane, operation, refusal, now: (  # type: ignore[method-assign]
        told.append(refusal)
    )
    cluster.run(5_000)
    (refusal,) = told
    assert (refusal.code, refusal.is_uncertain) == (Code.UNAVAILABLE, False)
    assert set(cores(cluster, NAME).values()) == {b""}


def test_a_message_from_an_unknown_record_format_changes_nothing(seed: int) -> None:
    cluster = cluster_of(seed)
    a, b, _ = cluster.owners(NAME)
    Client(cluster, 0).put(KEY, b"v")
    cluster.run(10_000)
    before = cores(cluster, NAME)
    deadline = cluster.now_us + DEADLINE_US
    bad = ReplicaWrite(7, NAME, Encoded(b"\x09garbage"), deadline, WriteKind.REPAIR, 0)  # type: ignore[arg-type]
    cluster.network.send(a, b, bad)
    cluster.run(100_000)
    assert cores(cluster, NAME) == before
    assert Client(cluster, 1).get(KEY, at=b).value == b"v"


@pytest.mark.parametrize("crashes_at_ms", [0, 1, 2, 3, 5, 8])
def test_what_a_put_superseded_elsewhere_stays_so_though_its_coordinator_crashes(
    seed: int, crashes_at_ms: int
) -> None:
    # The coordinator learned of the old write from an acknowledgement, and must not answer before
    # it has stored that: it crashes, and then the owner that knew goes down.
    cluster = cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    cluster.isolate(a)
    cluster.run(2_000_000)
    assert Client(cluster, 0).put(KEY, b"old", at=b).outcome == OK
    relink(cluster)
    cluster.cut(a, c)
    put = Client(cluster, 1).put(KEY, b"new", at=a)
    assert put.outcome == OK
    cluster.run(1_000 * crashes_at_ms)
    cluster.hosts[a].kill(keeps=False)
    cluster.hosts[a].start()
    relink(cluster)
    cluster.hosts[b].kill()
    cluster.run(2_000_000)
    assert Client(cluster, 2).get(KEY, at=c).value == b"new"
