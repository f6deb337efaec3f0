"""Settling in whole clusters: losers leave the record, no value and no answer does.

The numbers in comments are rows of the list of what goes wrong in stores of this kind.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest

from kvnode.core.bounds import Limits
from kvnode.core.conversations import (
    AskState,
    LogLosers,
    Prune,
    TellLogged,
    TellPruned,
    TellState,
)
from kvnode.core.messages import (
    Instant,
    NodeNumber,
    PeerMessage,
    ReplicaWrite,
    TopologyChanged,
    WriteKind,
)
from kvnode.core.record import encode
from kvnode.core.settling import Settling
from kvnode.core.topology import Keyspace, Resolve
from kvnode.core.versions import Context, Record
from tests.sim.checks import OK, Read, Write
from tests.sim.client import DEADLINE_US, Client
from tests.sim.cluster import Cluster
from tests.sim.healing import end_well
from tests.sim.invariants import check_kept
from tests.sim.test_cluster import KEY, NAME, conflicted, held, values
from tests.support.scale import scaled

A_WHILE_US = 60_000_000
NEWEST = Keyspace(name="default", sloppy=False, resolve=Resolve.NEWEST)


def answer(cluster: Cluster, *, at: NodeNumber | None = None) -> bytes | None:
    """Return what a full read says; it must say something."""
    read = Client(cluster, 80).get(KEY, at=at, r=3)
    assert read.outcome == OK
    return read.value


def logged(cluster: Cluster) -> dict[NodeNumber, list[bytes]]:
    """Return the values in the owners' conflict logs."""
    return {
        node: sorted({entry.loser.versions[0].value for entry in cluster.hosts[node].entries()})
        for node in cluster.owners(NAME)
    }


def live(cluster: Cluster) -> set[bytes]:
    return {value for node in cluster.owners(NAME) for value in values(held(cluster, node))}


def is_settled(cluster: Cluster) -> bool:
    return all(values(held(cluster, node)) == [b"A"] for node in cluster.owners(NAME))


def settling_of(cluster: Cluster, node: NodeNumber) -> Settling:
    life = cluster.hosts[node].life
    assert life is not None
    return life.upkeep.settling


def is_prune(message: PeerMessage) -> bool:
    return isinstance(message, Prune)


def hold(cluster: Cluster, source: NodeNumber, which: Callable[[PeerMessage], bool]) -> None:
    """Keep such messages of a node back, but for those to itself."""
    for other in cluster.hosts:
        cluster.network.links[source, other].holds = which


def release(cluster: Cluster, source: NodeNumber) -> None:
    for other in cluster.hosts:
        cluster.network.release(source, other)


def count_held(cluster: Cluster) -> int:
    return sum(len(link.held) for link in cluster.network.links.values())


def test_the_loser_of_a_conflict_goes_to_the_logs_and_the_answer_stays(seed: int) -> None:  # row 2
    cluster, owners = conflicted(seed)
    assert [answer(cluster, at=node) for node in owners] == [b"A"] * 3
    assert cluster.run(A_WHILE_US, until=lambda: is_settled(cluster))
    cluster.run(1_000_000)
    assert [answer(cluster, at=node) for node in owners] == [b"A"] * 3
    assert logged(cluster) == {node: [b"B"] for node in owners}
    for node in owners:
        life = cluster.hosts[node].life
        assert life is not None
        assert (life.replica.conflicts.open, life.upkeep.settling.under_way) == (0, 0)


def test_what_was_never_read_is_settled_too(seed: int) -> None:
    cluster, _ = conflicted(seed)
    assert cluster.run(A_WHILE_US, until=lambda: is_settled(cluster))
    assert {node: found for node, found in logged(cluster).items() if found} != {}


def test_with_an_owner_away_a_conflict_stays_open_until_it_is_back(seed: int) -> None:
    cluster, (a, b, c) = conflicted(seed)
    answer(cluster)
    cluster.hosts[b].kill()
    cluster.run(A_WHILE_US)
    assert values(held(cluster, a)) == values(held(cluster, c)) == [b"A", b"B"]
    cluster.hosts[b].start()
    assert cluster.run(A_WHILE_US, until=lambda: is_settled(cluster))


def test_a_loser_that_comes_late_as_a_repair_or_from_a_stand_in_stays_covered(seed: int) -> None:
    cluster, owners = conflicted(seed)
    answer(cluster)
    before = held(cluster, owners[2])
    (lost,) = [one for one in before.versions if one.value == b"B"]
    assert cluster.run(A_WHILE_US, until=lambda: is_settled(cluster))
    late = Record(Context({}, frozenset((lost.dot,))), (lost,), ())
    for node in owners:
        for kind in (WriteKind.REPAIR, WriteKind.HANDOFF, WriteKind.WRITE):
            cluster.network.send(owners[0], node, late_write(cluster, late, kind))
    cluster.run(1_000_000)
    assert is_settled(cluster)
    assert answer(cluster) == b"A"


def late_write(cluster: Cluster, state: Record, kind: WriteKind) -> ReplicaWrite:
    deadline = Instant(cluster.now_us + 5_000_000)
    return ReplicaWrite(0, NAME, encode(NAME, state), deadline, kind, 0)


# --- kills --------------------------------------------------------------------------------------


KINDS = (AskState, TellState, LogLosers, TellLogged, Prune, TellPruned)


@pytest.mark.parametrize("keeps", [True, False], ids=["torn log", "lost log"])
@pytest.mark.parametrize("victim", range(3))
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_kill_at_any_step_loses_no_value_and_no_answer(
    seed: int, kind: type, victim: int, keeps: bool
) -> None:
    cluster, owners = conflicted(seed)
    assert answer(cluster) == b"A"
    sent: list[PeerMessage] = []

    def kills(message: PeerMessage) -> bool:
        if isinstance(message, kind) and not sent:
            sent.append(message)
            cluster.later(0, lambda: cluster.hosts[owners[victim]].kill(keeps=keeps))
        return False

    for node in owners:
        hold(cluster, node, kills)
    assert cluster.run(A_WHILE_US, until=lambda: bool(sent))
    cluster.run(3_000_000)
    assert nothing_is_lost(cluster)
    cluster.hosts[owners[victim]].start()
    assert cluster.run(2 * A_WHILE_US, until=lambda: is_settled(cluster))
    assert answer(cluster) == b"A"
    assert nothing_is_lost(cluster)


def nothing_is_lost(cluster: Cluster) -> bool:
    """Say whether A is live, and B is live at some owner or logged by w."""
    times = sum(found == [b"B"] for found in logged(cluster).values())
    return b"A" in live(cluster) and (b"B" in live(cluster) or times >= cluster.keyspace.w)


def test_a_prune_for_an_earlier_life_does_nothing(seed: int) -> None:
    cluster, (a, b, c) = conflicted(seed)
    answer(cluster)
    for node in (b, c):
        cluster.network.links[a, node].holds = is_prune
    assert cluster.run(A_WHILE_US, until=lambda: count_held(cluster) == 2)
    cluster.hosts[c].kill()
    cluster.run(1_000)
    state = held(cluster, c)
    cluster.hosts[c].start()
    cluster.hosts[a].kill()  # or it would mend c
    release(cluster, a)
    cluster.run(10_000)
    assert values(held(cluster, b)) == [b"A"]
    assert held(cluster, c) == state
    cluster.hosts[a].start()
    assert cluster.run(A_WHILE_US, until=lambda: is_settled(cluster))


def test_a_prune_of_an_earlier_epoch_does_nothing(seed: int) -> None:
    cluster, (a, b, c) = conflicted(seed)
    answer(cluster)
    for node in (b, c):
        cluster.network.links[a, node].holds = is_prune
    assert cluster.run(A_WHILE_US, until=lambda: count_held(cluster) == 2)
    newer = dataclasses.replace(cluster.topology, epoch=cluster.topology.epoch + 1)
    state = held(cluster, c)
    cluster.hosts[c].hear(TopologyChanged(newer))
    release(cluster, a)
    cluster.run(10_000)
    assert values(held(cluster, b)) == [b"A"]
    assert held(cluster, c) == state


# --- several settlers -----------------------------------------------------------------------------


def all_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every owner of a key take itself for its settler."""
    monkeypatch.setattr(Settling, "_is_settler", lambda self, owners: True)


def test_two_settlers_at_once_do_no_harm(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    all_settle(monkeypatch)
    cluster, _ = conflicted(seed)
    answer(cluster)
    assert cluster.run(A_WHILE_US, until=lambda: is_settled(cluster))
    cluster.run(10_000_000)
    assert answer(cluster) == b"A"
    assert all(found == [b"B"] for found in logged(cluster).values())


# --- any history -------------------------------------------------------------------------------


def conflicting_cluster(seed: int) -> Cluster:
    """Return a cluster in which clients that see nothing of one another wrote a key."""
    cluster = Cluster(seed, keyspace=Keyspace(name="default", sloppy=False))
    cluster.run(10_000)
    chance = cluster.chance("workload")
    for count in range(chance.randint(2, 4)):
        nodes = list(cluster.hosts)
        for _ in range(chance.randint(0, 3)):
            a, b = chance.sample(nodes, 2)
            cluster.cut(a, b, one_way=chance.random() < 0.3)
        blind = Client(cluster, 60 + count, restamps=False, lag_ms=chance.choice((0, 0, 3_000)))
        blind.put(KEY, b"w%d" % count, at=chance.choice(cluster.owners(NAME)), wait=False)
        cluster.run(chance.choice((100, 2_000, 300_000)))
        cluster.heal()
    cluster.run(2 * DEADLINE_US)
    return cluster


def kill(cluster: Cluster, node: NodeNumber) -> None:
    if cluster.hosts[node].life is not None:
        cluster.hosts[node].kill()


def start_all(cluster: Cluster) -> None:
    for host in cluster.hosts.values():
        if host.life is None:
            host.start()


def disturb(cluster: Cluster) -> None:
    """Do something to the cluster that is no write."""
    chance = cluster.chance("disturbance")
    a, b = chance.sample(list(cluster.hosts), 2)
    acts: tuple[Callable[[], None], ...] = (
        lambda: kill(cluster, a),
        lambda: start_all(cluster),
        lambda: start_all(cluster),
        lambda: cluster.cut(a, b),
        cluster.heal,
        cluster.heal,
    )
    chance.choice(acts)()
    cluster.run(1_000 * chance.choice((5, 500, 4_000, 8_000)))


def full_answer(cluster: Cluster) -> tuple[bytes | None] | None:
    """Return what a full read says, if all owners can be asked."""
    read = Client(cluster, 81).get(KEY, r=3)
    return (read.value,) if read.outcome == OK else None


@pytest.mark.parametrize("settlers", ["one settler", "all settle"])
def test_settling_changes_no_answer_in_any_history(
    rng: random.Random, settlers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if settlers == "all settle":
        all_settle(monkeypatch)
    conflicts = 0
    for _ in range(scaled(10, soak=1_500)):
        cluster = conflicting_cluster(rng.getrandbits(32))
        told = full_answer(cluster)
        assert told is not None
        for _ in range(12):
            disturb(cluster)
            now = full_answer(cluster)
            assert now is None or now == told, f"seed {cluster.seed}: {told} became {now}"
        cluster.heal()
        start_all(cluster)
        end_well(cluster, [("default", KEY)])
        settle_all(cluster)
        assert full_answer(cluster) == told, cluster.seed
        check_all_found(cluster)
        conflicts += any(logged(cluster).values())
    assert conflicts > scaled(0, soak=200)


def settle_all(cluster: Cluster) -> None:
    cluster.run(A_WHILE_US, until=lambda: not still_open(cluster))
    assert not still_open(cluster), f"seed {cluster.seed}: an open conflict"


def still_open(cluster: Cluster) -> bool:
    return any(len(set(values(held(cluster, node)))) > 1 for node in cluster.owners(NAME))


def check_all_found(cluster: Cluster) -> None:
    """Every acknowledged write is live, superseded or in the logs of w owners."""
    check_kept(cluster, NAME)


# --- the fence ------------------------------------------------------------------------------------


def stale_prunes(seed: int) -> tuple[Cluster, list[NodeNumber]]:
    """Return a cluster where prunes of an older value are under way, while by now it is the answer.

    A is older than B, so B wins by its stamp and A is to be pruned. The settler dies before its own
    prune is durable. Then somebody supersedes B alone, with a clock that lags behind A.
    """
    cluster, owners = newest_conflict(seed)
    settler, *others = owners
    for node in others:
        cluster.network.links[settler, node].holds = is_prune
    assert cluster.run(A_WHILE_US, until=lambda: count_held(cluster) == 2)
    cluster.hosts[settler].kill(keeps=False)
    cluster.run(10_000)
    cluster.hosts[settler].start()
    cluster.run(1_000_000)
    (b_dot,) = [one.dot for one in held(cluster, others[0]).versions if one.value == b"B"]
    over_b = Read(NAME, cluster.now_us, context=Context({}, frozenset((b_dot,))))
    laggard = Client(cluster, 92, lag_ms=600_000, restamps=False)
    assert laggard.put(KEY, b"C", at=others[0], context=over_b).outcome == OK
    cluster.run(1_000_000)
    return cluster, owners


def newest_conflict(seed: int) -> tuple[Cluster, list[NodeNumber]]:
    """Return a cluster of a keyspace that decides by stamp, where all owners hold A and B."""
    cluster = Cluster(seed, keyspace=NEWEST)
    cluster.run(10_000)
    owners = list(cluster.owners(NAME))
    for link in cluster.network.links.values():
        link.holds = lambda message: (
            isinstance(message, ReplicaWrite) and message.kind is WriteKind.WRITE
        )
    writes: list[Write] = []
    for number, (node, value) in enumerate(((owners[1], b"A"), (owners[2], b"B"))):
        client = Client(cluster, 95 + number, restamps=False)
        writes.append(client.put(KEY, value, at=node, wait=False))
        cluster.run(20_000)
        client.close()
    for link in cluster.network.links.values():
        link.holds = None
        link.held.clear()
    cluster.run(2 * DEADLINE_US)
    assert answer(cluster) == b"B"
    assert {tuple(values(held(cluster, node))) for node in owners} == {(b"A", b"B")}
    return cluster, owners


def test_prunes_that_were_overtaken_by_a_write_change_nothing(seed: int) -> None:
    cluster, owners = stale_prunes(seed)
    assert answer(cluster) == b"A"
    release(cluster, owners[0])
    cluster.run(1_000_000)
    assert answer(cluster) == b"A"


# --- the log --------------------------------------------------------------------------------------


def test_a_log_that_is_full_leaves_conflicts_open(seed: int) -> None:
    cluster, owners = conflicted(seed, limits=Limits(conflict_log_bytes=10))
    assert answer(cluster) == b"A"
    cluster.run(A_WHILE_US)
    assert live(cluster) == {b"A", b"B"}
    assert all(settling_of(cluster, node).settled == 0 for node in owners)


def test_entries_outlive_their_node_and_are_purged_in_their_time(seed: int) -> None:
    cluster, owners = conflicted(seed, limits=Limits(conflict_log_ms=120_000))
    assert cluster.run(A_WHILE_US, until=lambda: is_settled(cluster))
    cluster.run(1_000_000)
    for node in owners:
        cluster.hosts[node].kill()
        cluster.hosts[node].start()
    assert all(logged(cluster).values())
    cluster.run(300_000_000)
    assert not any(logged(cluster).values())
