"""What the simulator found once, and no kept plan shows: told step by step.

Each holds of the store as it is, and fails of what it was before the fix (`BEFORE`). Those that a
plan shows are in tests/sim/regressions. docs/testing.md lists all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from struct import Struct

import pytest

from kvclient import session as sessions
from kvclient.attempts import Attempts
from kvclient.bounds import BOUNDS, Bounds
from kvclient.clock import HybridClock
from kvclient.operation import Operation
from kvclient.session import CONTEXT_HEAD_BYTES, MAC_BYTES, Pairs, Session, pack_pairs
from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.handoff import Handoff
from kvnode.core.keys import encode_key
from kvnode.core.messages import NodeNumber
from kvnode.core.node import Node
from kvnode.core.replica import Replica
from kvnode.core.settling import Settling
from kvnode.core.topology import Keyspace
from kvnode.runtime import beginning
from kvnode.storage.port import Engine
from tests.sim.checks import OK, Read
from tests.sim.client import Client
from tests.sim.cluster import Cluster
from tests.sim.planted import Mutant, Place, planted

PAGE = Path(__file__).resolve().parents[2] / "docs/testing.md"
PLANS = Path(__file__).parent / "regressions"
S = 1_000_000
KEY = b"k"
NAME = encode_key("default", KEY)
QUIET = Limits(exchange_interval_ms=86_400_000)
ONE = Keyspace(name="default", n=3, r=1, w=1, sloppy=False)
SLOPPY_ONE = Keyspace(name="default", n=3, r=1, w=1)


def cluster_of(
    seed: int, keyspace: Keyspace | None = None, limits: Limits | None = None
) -> Cluster:
    """Return five nodes that have heard of each other; strict, if nothing else is asked for."""
    cluster = Cluster(seed, keyspace=keyspace, limits=limits)
    cluster.run(10_000)
    return cluster


def must(is_so: bool) -> None:
    """Without this a scenario shows nothing."""
    if not is_so:
        raise LookupError("the scenario does not come about")


def apart(cluster: Cluster, *nodes: NodeNumber) -> None:
    """Cut nodes off from all others, and wait until all know."""
    for node in nodes:
        cluster.isolate(node)
    cluster.run(3 * S)


def heal(cluster: Cluster) -> None:
    """Mend all links, and wait until all living nodes are linked again."""
    cluster.heal()
    cluster.run(S)
    lives = [host.life for host in cluster.hosts.values() if host.life is not None]
    wanted = len(lives) - 1
    must(
        cluster.run(
            10 * S, until=lambda: all(len(life.coordinator.reachable) == wanted for life in lives)
        )
    )


def neighbour(cluster: Cluster) -> bytes:
    """Return another key of the same partition."""
    partition = cluster.partition_of(NAME)
    names = (b"k%d" % number for number in range(1_000))
    return next(
        name for name in names if cluster.partition_of(encode_key("default", name)) == partition
    )


# ---- sessions --------------------------------------------------------------------------------


def a_put_over_an_old_read_makes_a_session_forget_nothing(seed: int) -> None:
    """A stand-in hands a session's put over, and later takes one over an older read: the single dot
    of that one does not stand for the put before it, which the next owner that is asked lacks."""
    cluster = cluster_of(seed, SLOPPY_ONE, QUIET)
    a, b, c = cluster.owners(NAME)
    stand_in, other = (node for node in cluster.hosts if node not in (a, b, c))
    client = Client(cluster, 0)
    nothing = client.get(KEY, at=a)
    apart(cluster, stand_in)
    must(client.put(KEY, b"first", at=stand_in).outcome == OK)
    heal(cluster)
    must(cluster.run(60 * S, until=lambda: not _hints(cluster, stand_in)))
    for owner in (a, b, c):
        cluster.cut(stand_in, owner)
    cluster.run(3 * S)
    must(client.put(KEY, b"second", at=stand_in, context=nothing).outcome == OK)
    must(cluster.run(60 * S, until=lambda: not _hints(cluster, other)))
    holder = next(node for node in (b, c) if _has(cluster, node, b"second"))
    must(not _has(cluster, holder, b"first"))
    assert client.get(KEY, at=holder).outcome == OK  # else: 5-session-goes-on


def a_single_dot_asks_for_nothing_that_nobody_has(seed: int) -> None:
    """Two answers cross; the later one lacks a single dot of the earlier one. What lies below that
    dot is on a dead node alone, and none of the session's."""
    cluster = cluster_of(seed, limits=QUIET)
    a, b, _ = cluster.owners(NAME)
    client, rival = Client(cluster, 0), Client(cluster, 1)
    client.put(KEY, b"old", at=a, w=3)
    before = client.get(KEY, at=a, r=3)
    cluster.isolate(a)
    rival.put(neighbour(cluster), b"only there", at=a, timeout_us=S // 2)
    cluster.run(3 * S)
    rival.put(KEY, b"rival", at=b, context=before)
    heal(cluster)
    read = _answer_held_back(cluster, client, at=b)
    must(client.put(KEY, b"new", at=a, context=before, w=3).outcome == OK)
    client.mend(b)
    must(cluster.run(S, until=lambda: read.outcome is not None))
    cluster.hosts[a].kill()
    cluster.run(2 * S)
    assert client.get(KEY, at=b).outcome == OK


def what_finds_no_room_is_counted_as_forgotten(seed: int) -> None:
    """Three answers cross, of three rivals; one pair is remembered beside a context, no more."""
    cluster = cluster_of(seed, ONE, QUIET)
    a, b, c = cluster.owners(NAME)
    client = Client(cluster, 0, bounds=Bounds(session_partition_pairs=1))
    apart(cluster, a, b, c)
    for number, node in enumerate((a, b, c)):
        write = Client(cluster, 1 + number).put(KEY, b"v%d" % number, at=node)
        must(write.outcome == OK)
    for node in (a, b, c):
        client.cut(node)
    reads = [client.get(KEY, at=node, wait=False) for node in (a, b, c)]
    for node, read in zip((a, b, c), reads, strict=True):
        client.mend(node)
        must(cluster.run(S // 10, until=lambda read=read: read.outcome == OK))  # type: ignore[misc]
    cluster.mend(a, c)  # the third answer leads, the first one's pair is beside it
    cluster.run(3 * S)
    assert client.get(KEY, at=c).outcome == OK  # else: 5-session-goes-on


def _answer_held_back(cluster: Cluster, client: Client, *, at: NodeNumber) -> Read:
    """Begin a read of which the answer is on its way until the client is mended."""
    read = client.get(KEY, at=at, wait=False)
    life = cluster.hosts[at].life
    assert life is not None
    must(cluster.run(S, until=lambda: life.coordinator.in_flight > 0))
    client.cut(at)
    cluster.run(20_000)
    must(read.outcome is None)
    return read


def _hints(cluster: Cluster, node: NodeNumber) -> list[tuple[bytes, bytes]]:
    return cluster.hosts[node].engine.scan(Family.HINTS, b"", None, 10)


def _has(cluster: Cluster, node: NodeNumber, value: bytes) -> bool:
    (data,) = cluster.hosts[node].engine.multi_get(Family.RECORDS, [NAME])
    return isinstance(data, bytes) and value in data


# ---- clients -----------------------------------------------------------------------------------


def a_node_whose_clock_is_off_tells_clients_no_time(seed: int) -> None:
    cluster = cluster_of(seed)
    a, b, _ = cluster.owners(NAME)
    cluster.hosts[a].set_clock(300_000)
    cluster.run(3 * S)
    client = Client(cluster, 0, lag_ms=1_000)
    client.get(KEY, at=a)
    assert client.put(KEY, b"v", at=b).outcome == OK


def a_client_that_one_node_dragged_ahead_is_set_right_by_two_others(seed: int) -> None:
    """The node tells its time before anybody has told it that it is wrong."""
    cluster = cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    cluster.run(3 * S)
    cluster.hosts[a].set_clock(300_000)
    client = Client(cluster, 0)
    for node in (a, b, c):
        client.get(KEY, at=node)
    assert client.put(KEY, b"v", at=b).outcome == OK


def while_nobody_is_there_operations_ask_no_more_often_than_is_set(seed: int) -> None:
    cluster = cluster_of(seed)
    client = Client(cluster, 0)
    cluster.run(S)
    for host in cluster.hosts.values():
        host.kill()
    cluster.run(S)
    looked = [0]
    choose = client.engine.router.choose

    def counting(operation: Operation, now: float) -> object:
        looked[0] += 1
        return choose(operation, now)

    client.engine.router.choose = counting  # type: ignore[assignment]
    for _ in range(10):
        client.get(KEY, timeout_us=4 * S, wait=False)
    cluster.run(2 * S)
    assert 10 < looked[0] <= 10 * 2_000 / BOUNDS.nobody_ms


# ---- nodes -------------------------------------------------------------------------------------


def trees_that_outlived_their_records_are_not_believed(seed: int) -> None:
    cluster = cluster_of(seed)
    c = cluster.owners(NAME)[2]
    must(Client(cluster, 0).put(KEY, b"v", w=3).outcome == OK)
    cluster.run(S)
    host = cluster.hosts[c]
    host.stop()
    families = host.disk.spaces.families
    for name in list(families[Family.RECORDS]):
        del families[Family.RECORDS][name]
    must(bool(families[Family.TREES]))
    host.disk.damage = ("log: its end is lost",)
    host.start()
    life = host.life
    assert life is not None
    must(cluster.run(120 * S, until=lambda: life.replica.is_proven))
    assert Client(cluster, 1).get(KEY, at=c, r=1).value == b"v"


def a_write_that_was_superseded_before_it_came_raises_floors(seed: int) -> None:
    """The disk that had it is lost, and it is a single dot in the context of a tombstone."""
    cluster = cluster_of(seed, ONE)
    a, b, _ = cluster.owners(NAME)
    client, rival = Client(cluster, 0), Client(cluster, 1)
    nothing = client.get(KEY, at=b)
    rival.put(neighbour(cluster), b"v", at=a, w=3)
    rival.put(KEY, b"beside", at=b, w=3)
    cluster.isolate(a)
    must(client.put(KEY, b"v", at=a, context=nothing).outcome == OK)
    must(client.delete(KEY, at=b).outcome == OK)
    cluster.run(S)
    cluster.hosts[a].kill()
    cluster.hosts[a].wipe()
    cluster.hosts[a].start()
    heal(cluster)
    assert cluster.run(60 * S, until=lambda: not any(_records(cluster)))  # it is reaped


def _records(cluster: Cluster) -> list[object]:
    engines = [cluster.hosts[node].engine for node in cluster.owners(NAME)]
    return [engine.multi_get(Family.RECORDS, [NAME])[0] for engine in engines]


def a_look_that_is_not_paid_for_yet_is_not_tried_before(seed: int) -> None:
    cluster = cluster_of(seed, limits=Limits(settle_keys_per_s=1, settle_after_ms=100))
    keys = [b"k%d" % number for number in range(12)]
    rivals = [Client(cluster, number) for number in range(2)]
    nothing = [rivals[0].get(key) for key in keys]
    for key, read in zip(keys, nothing, strict=True):
        for rival in rivals:
            must(rival.put(key, b"of %d" % rival.number, context=read).outcome == OK)
    before = _turns(cluster)
    cluster.run(2 * S)
    assert max(now - then for now, then in zip(_turns(cluster), before, strict=True)) < 60


def _turns(cluster: Cluster) -> list[int]:
    lives = [host.life for host in cluster.hosts.values()]
    return [life.replica.turn for life in lives if life is not None]


def a_hint_is_looked_at_once_it_is_too_old(seed: int) -> None:
    """It was made late in its second, of which alone the ledger knows."""
    cluster = cluster_of(seed, Keyspace(name="default"), Limits(hint_age_ms=3_000))
    a, _, c = cluster.owners(NAME)
    apart(cluster, c)
    cluster.run(S - cluster.now_us % S - 50_000)
    must(Client(cluster, 0).put(KEY, b"v", at=a).outcome == OK)
    stand_ins = [node for node in cluster.hosts if node not in cluster.owners(NAME)]
    cluster.run(S)
    must(any(_hints(cluster, node) for node in stand_ins))
    cluster.run(6 * S)
    assert [node for node in stand_ins if _hints(cluster, node)] == []


# ---- what the code was like before each fix ------------------------------------------------------


_PAIR = Struct("<QQ")


def _pairs(context: bytes) -> Pairs:
    return dict(_PAIR.iter_unpack(context[CONTEXT_HEAD_BYTES:-MAC_BYTES]))


def _beyond(pairs: Pairs, cover: Pairs) -> Pairs:
    return {actor: counter for actor, counter in pairs.items() if cover.get(actor, 0) < counter}


def _a_single_dot_stands_for_all_below_it() -> list[Place]:
    def before(self: Session, old: sessions._Entry, context: bytes) -> sessions._Entry:
        new, known = _pairs(context), _pairs(old.context)
        if not _beyond(new, known):
            return sessions._Entry(old.context, old.partition, old.beside)
        rest = _beyond({**known, **dict(_PAIR.iter_unpack(old.beside))}, new)
        return sessions._Entry(context, old.partition, pack_pairs(rest.items()))

    return [(Session, "_merged", before)]


def _the_later_answer_leads() -> list[Place]:
    return [(sessions, "_overreach", lambda context, other: 0)]


def _what_finds_no_room_is_not_counted() -> list[Place]:
    merged = Session._merged

    def before(self: Session, old: sessions._Entry, context: bytes) -> sessions._Entry:
        forgotten = self.forgotten
        entry = merged(self, old, context)
        self.forgotten = forgotten
        return entry

    return [(Session, "_merged", before)]


def _a_node_always_tells_its_time() -> list[Place]:
    return [(Node, "time_for_clients", lambda self, wall_ms: self.clock.read(wall_ms))]


def _whoever_is_ahead_is_believed() -> list[Place]:
    return [(HybridClock, "_contradicting", lambda self, hlc, now: [])]


def _nobody_is_asked_at_once_again() -> list[Place]:
    later = Attempts._begin_later

    def before(self: Attempts, operation: Operation, at_least_s: float, now: float) -> None:
        later(self, operation, 0.0, now)

    return [(Attempts, "_begin_later", before)]


def _trees_are_believed_without_records() -> list[Place]:
    has = beginning._has

    def before(engine: Engine, family: Family) -> bool:
        return family is Family.RECORDS and has(engine, family)

    return [(beginning, "_has", before)]


def _floors_pass_only_what_came() -> list[Place]:
    return [(Replica, "_pass_single_dots", lambda self, key, context: None)]


def _looks_are_tried_at_once_again() -> list[Place]:
    return [(Settling, "_lacks_us", lambda self: 0)]


def _an_owners_oldest_hint_is_as_old_as_its_second() -> list[Place]:
    def before(self: Handoff, owner: NodeNumber, wall_ms: int) -> bool:
        return owner in self._up or self._is_aged(self._hints.ledgers[owner].oldest_ms, wall_ms)

    return [(Handoff, "_may_walk", before)]


Scenario = Callable[[int], None]
BEFORE: dict[Scenario, Callable[[], list[Place]]] = {
    a_put_over_an_old_read_makes_a_session_forget_nothing: _a_single_dot_stands_for_all_below_it,
    a_single_dot_asks_for_nothing_that_nobody_has: _the_later_answer_leads,
    what_finds_no_room_is_counted_as_forgotten: _what_finds_no_room_is_not_counted,
    a_node_whose_clock_is_off_tells_clients_no_time: _a_node_always_tells_its_time,
    a_client_that_one_node_dragged_ahead_is_set_right_by_two_others: _whoever_is_ahead_is_believed,
    while_nobody_is_there_operations_ask_no_more_often_than_is_set: _nobody_is_asked_at_once_again,
    trees_that_outlived_their_records_are_not_believed: _trees_are_believed_without_records,
    a_write_that_was_superseded_before_it_came_raises_floors: _floors_pass_only_what_came,
    a_look_that_is_not_paid_for_yet_is_not_tried_before: _looks_are_tried_at_once_again,
    a_hint_is_looked_at_once_it_is_too_old: _an_owners_oldest_hint_is_as_old_as_its_second,
}


@pytest.mark.parametrize("scenario", BEFORE, ids=lambda each: each.__name__)
def test_what_was_found_once_holds(scenario: Scenario, seed: int) -> None:
    scenario(seed)


@pytest.mark.parametrize("scenario", BEFORE, ids=lambda each: each.__name__)
def test_without_its_fix_it_does_not_hold(scenario: Scenario, seed: int) -> None:
    bug = Mutant(scenario.__name__, "as before its fix", BEFORE[scenario])
    with planted(bug), pytest.raises(AssertionError):
        scenario(seed)


def test_the_table_names_every_plan_and_scenario_and_no_other() -> None:
    section = (
        PAGE.read_text().partition("## What the simulator found\n")[2].partition("\n\nWhat")[0]
    )
    shown = [row.rstrip(" |").rpartition(" | ")[2] for row in section.splitlines()[5:]]
    plans = [path.stem for path in PLANS.glob("*.json")]
    named = [name for cell in shown for name in re.findall(r"`([^`]+)`", cell)]
    assert all(shown)
    assert sorted(named) == sorted([*plans, *(scenario.__name__ for scenario in BEFORE)])
