"""Each kind of fault begins, ends, and leaves nothing behind; the atlas spares the last copy."""

from __future__ import annotations

import random

import pytest

from kvnode.core.keys import encode_key
from kvnode.core.topology import Keyspace
from tests.sim import mishaps
from tests.sim.bugs import MUTANTS
from tests.sim.client import Client
from tests.sim.cluster import Cluster
from tests.sim.faults import KINDS, Faults
from tests.sim.history import OK
from tests.sim.plan import Fault
from tests.sim.planted import planted
from tests.sim.story import Broken

NODES = 5
KEY = b"k"
NAME = encode_key("default", KEY)


def world_of(seed: int, *, is_unsafe: bool = False) -> tuple[Cluster, list[Client], Faults]:
    cluster = Cluster(seed, keyspace=Keyspace(name="default", sloppy=False))
    clients = [Client(cluster, number) for number in range(2)]
    cluster.run(1_000_000)
    return cluster, clients, Faults(cluster, clients, seed=seed, is_unsafe=is_unsafe)


def links(cluster: Cluster) -> list[tuple[object, ...]]:
    return [
        (
            *(link.is_cut, link.drops, link.duplicates, link.delay_us, link.reorders),
            link.clogged_until_us,
        )
        for pair, link in cluster.network.links.items()
        if max(pair) <= NODES
    ]


def state(cluster: Cluster) -> list[tuple[object, ...]]:
    hosts = [
        (
            *(host.life is not None, host.is_paused, host.ahead_ms, host.disk.sync_us),
            *(host.disk.noise_us, host.disk.is_full, host.disk.is_exhausted, host.disk.is_stalled),
        )
        for host in cluster.hosts.values()
    ]
    return [*links(cluster), *hosts]


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_fault_that_has_ended_has_left_nothing_behind(seed: int, kind: str) -> None:
    cluster, clients, faults = world_of(seed)
    before = state(cluster)
    args = mishaps._ARGS[kind](random.Random(seed), NODES)
    args["node"] = cluster.owners(NAME)[0]  # that of the kinds that happen to one
    assert clients[0].put(KEY, b"v").outcome == OK
    assert faults.begin(Fault(id="f0", at_us=0, kind=kind, args=args, for_us=1_000_000))
    cluster.run(4_000_000)
    faults.end_all()
    cluster.run(3_000_000)
    assert state(cluster) == before
    assert clients[1].get(KEY).value == b"v"


@pytest.mark.parametrize("end", ["all end", "a core is left"])
def test_a_clog_ends_with_all_other_faults(seed: int, end: str) -> None:
    cluster, _, faults = world_of(seed)
    fault = Fault(id="f0", at_us=0, kind="clog", args={"pairs": [[1, 2]]}, for_us=60_000_000)
    assert faults.begin(fault)
    cluster.run(3_000_000)
    assert not cluster.is_linked(1, 2)

    if end == "all end":
        faults.end_all()
    else:
        faults.leave_only([1, 2, 3], is_cut=True)

    cluster.run(3_000_000)
    assert cluster.is_linked(1, 2)


def test_what_two_faults_want_is_so_until_both_have_ended(seed: int) -> None:
    cluster, _, faults = world_of(seed)
    for name, for_us in (("f0", 1_000_000), ("f1", 2_000_000)):
        args = {"pairs": [[1, 2]]}
        faults.begin(Fault(id=name, at_us=0, kind="cut", args=args, for_us=for_us))
    cluster.run(1_500_000)
    assert cluster.network.links[1, 2].is_cut
    assert cluster.network.links[2, 1].is_cut
    cluster.run(1_000_000)
    assert not cluster.network.links[1, 2].is_cut


def test_a_second_disk_is_not_damaged_before_the_first_is_whole_again(seed: int) -> None:
    cluster, clients, faults = world_of(seed)
    assert clients[0].put(KEY, b"v").outcome == OK
    a, b, _ = cluster.owners(NAME)

    def wipe(name: str, node: int) -> bool:
        return faults.begin(Fault(id=name, at_us=0, kind="wipe", args={"node": node}, for_us=1))

    assert wipe("f0", a)
    assert not wipe("f1", b)
    cluster.run(60_000_000)
    assert wipe("f2", b)
    cluster.run(60_000_000)
    assert clients[1].get(KEY, r=3).value == b"v"


def test_an_unsafe_plan_may_damage_all_disks_at_once(seed: int) -> None:
    cluster, _, faults = world_of(seed, is_unsafe=True)
    for node in cluster.hosts:
        fault = Fault(id=f"f{node}", at_us=0, kind="wipe", args={"node": node}, for_us=1)
        assert faults.begin(fault)


def test_a_node_that_died_by_itself_is_started_by_somebody(seed: int) -> None:
    cluster, clients, faults = world_of(seed)
    a = cluster.owners(NAME)[0]
    faults.begin(Fault(id="f0", at_us=0, kind="fail_sync", args={"node": a}, for_us=100_000))
    clients[0].put(KEY, b"v", at=a)
    cluster.run(100_000)
    assert cluster.hosts[a].life is None
    cluster.run(3_000_000)
    assert cluster.hosts[a].life is not None


def test_each_flush_of_a_noisy_disk_takes_its_own_time(seed: int) -> None:
    cluster, clients, faults = world_of(seed)
    owners = list(cluster.owners(NAME))
    args = {"nodes": owners, "noise_us": 300_000}
    faults.begin(Fault(id="f0", at_us=0, kind="noisy_disks", args=args, for_us=60_000_000))
    waits = []
    for _ in range(12):
        write = clients[0].put(KEY, b"v", w=3)
        assert write.ended_us is not None
        waits.append(write.ended_us - write.began_us)
    # A disk that is slow alike each time has one wait, or that twice over.
    assert len({wait // 10_000 for wait in waits}) > 3
    assert 100_000 < max(waits) < 700_000  # one flush of each, perhaps after another one


def begin_twin(faults: Faults) -> None:
    args = {"node": 3, "stays": True}
    assert faults.begin(Fault(id="f0", at_us=0, kind="twin", args=args, for_us=1_000_000))


def test_a_copy_that_goes_on_beside_its_original_is_a_violation(seed: int) -> None:
    with planted(MUTANTS["a copy of a folder is let in"]):
        cluster, _, faults = world_of(seed)
        begin_twin(faults)
        with pytest.raises(Broken) as broken:
            cluster.run(20_000_000)
    assert broken.value.invariant == "one-life-an-identity"


def test_a_copy_may_go_on_while_nobody_reaches_both(seed: int) -> None:
    cluster, _, faults = world_of(seed)
    cluster.hosts[3].stop()
    args = {"pairs": [[3, 1], [3, 2], [3, 4], [3, 5]]}
    faults.begin(Fault(id="f1", at_us=0, kind="cut", args=args, for_us=30_000_000))
    begin_twin(faults)
    cluster.run(20_000_000)
    (ghost,) = cluster.ghosts
    assert None not in (ghost.life, cluster.hosts[3].life)
