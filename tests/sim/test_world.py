"""The simulated world: processes, disks, clocks, streams and identities."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.liveness import Standing
from kvnode.core.messages import NodeNumber
from kvnode.core.topology import Keyspace
from tests.sim.bugs import MUTANTS
from tests.sim.checks import OK
from tests.sim.client import Client
from tests.sim.cluster import Cluster
from tests.sim.links import Links, Peer
from tests.sim.planted import planted
from tests.sim.story import Broken
from tests.sim.test_cluster import KEY, NAME, cluster_of, holds

MS, S = 1_000, 1_000_000
ROOT = Path(__file__).parents[2]

_TRACE = """
import sys
from tests.sim.generate import generate
from tests.sim.run import run
plan = generate(int(sys.argv[1]))
names = plan.items()
print(run(plan.only([*names[:60], *(name for name in names if name[0] == "f")])).digest)
"""


def standing(cluster: Cluster, here: NodeNumber, there: NodeNumber) -> Standing:
    links = cluster.hosts[here].links
    assert links is not None
    return links.standing(there)


def unproven(cluster: Cluster, node: NodeNumber) -> int:
    life = cluster.hosts[node].life
    assert life is not None
    return len(life.replica.proving.unproven)


def test_the_same_seed_gives_the_same_trace_in_any_process(seed: int) -> None:
    traces = set()
    for hash_seed in ("0", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", _TRACE, str(seed)]
        ran = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, check=True, timeout=60
        )
        traces.add(ran.stdout)
    assert len(traces) == 1


# --- processes ----------------------------------------------------------------------------------


def test_a_paused_node_is_silent_and_goes_on_where_it_was(seed: int) -> None:
    cluster = cluster_of(seed)
    a, b, _ = cluster.owners(NAME)
    life = cluster.hosts[a].life
    cluster.hosts[a].pause()
    cluster.run(3 * S)
    assert standing(cluster, b, a) is Standing.DOWN
    assert Client(cluster, 1).put(KEY, b"v", at=b).outcome == OK
    assert not holds(cluster, a, b"v")
    cluster.hosts[a].resume()
    cluster.run(3 * S)
    assert cluster.hosts[a].life is life
    assert standing(cluster, b, a) is Standing.UP


def test_what_waited_for_a_process_that_was_away_for_long_is_not_read(seed: int) -> None:
    cluster = cluster_of(seed)
    a, _, _ = cluster.owners(NAME)
    cluster.hosts[a].pause()
    cluster.run(10 * MS)
    links = cluster.hosts[a].links
    assert links is not None
    before = set(links.accepted)
    cluster.run(3 * S)
    cluster.hosts[a].resume()
    assert before
    assert not links.accepted
    cluster.run(S)
    assert set(links.accepted) == before


def test_a_process_that_is_killed_loses_nothing_and_a_stopped_one_says_so(seed: int) -> None:
    for ends in ("end", "stop"):
        cluster = cluster_of(seed)
        a, _, _ = cluster.owners(NAME)
        cluster.hosts[a].disk.sync_us = S
        Client(cluster, 0).put(KEY, b"v", at=a, wait=False)
        cluster.run(20 * MS)
        assert holds(cluster, a, b"v")
        getattr(cluster.hosts[a], ends)()
        assert cluster.hosts[a].disk.is_clean == (ends == "stop")
        cluster.hosts[a].start()
        assert holds(cluster, a, b"v")
        assert unproven(cluster, a) == 0


def test_a_node_that_is_told_of_a_later_life_of_its_own_must_doubt_its_store(seed: int) -> None:
    with planted(MUTANTS["a lost life is not admitted"]):
        cluster = cluster_of(seed)
        host = cluster.hosts[1]
        host.kill()
        host.wipe()
        host.start()
        with pytest.raises(Broken) as broken:
            cluster.run(5 * S)
    assert broken.value.invariant == "5-lost-life-is-doubted"


def test_a_store_that_lost_the_end_of_its_log_must_be_doubted(seed: int) -> None:
    with planted(MUTANTS["lost ends of the log are not told"]):
        cluster = cluster_of(seed)
        host = cluster.hosts[1]
        host.end()
        host.disk.damage = ("log: 3 writes behind a flipped bit were dropped",)
        with pytest.raises(Broken) as broken:
            host.start()
    assert broken.value.invariant == "5-damage-is-doubted"


# --- disks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["wiped", "restored"])
def test_a_node_whose_disk_is_older_learns_so_from_its_peers(seed: int, how: str) -> None:
    cluster = cluster_of(seed)
    host = cluster.hosts[cluster.owners(NAME)[0]]
    image = host.disk.image()
    for _ in range(2):
        host.kill()
        host.start()
        cluster.run(S)
    host.kill()
    if how == "wiped":
        host.wipe()
    else:
        host.restore(image)
    host.start()
    assert cluster.run(20 * MS, until=lambda: unproven(cluster, host.number) > 0)
    assert host.identity is not None
    assert host.identity.start_number > 3
    cluster.run(60 * S, until=lambda: unproven(cluster, host.number) == 0)
    assert unproven(cluster, host.number) == 0


def test_a_failed_sync_ends_the_node_and_others_serve(seed: int) -> None:
    cluster = cluster_of(seed)
    a, _, _ = cluster.owners(NAME)
    cluster.hosts[a].disk.fails_next_sync = True
    assert Client(cluster, 0).put(KEY, b"v", at=a).outcome == OK
    cluster.run(100 * MS)
    assert cluster.hosts[a].life is None
    assert "StorageFenced" in cluster.hosts[a].why_ended
    cluster.hosts[a].start()
    cluster.run(S)
    assert Client(cluster, 1).get(KEY, at=a).value == b"v"


def test_a_node_that_meets_damage_begins_anew_rebuilt_and_unproven(seed: int) -> None:
    cluster = cluster_of(seed)
    a, _, _ = cluster.owners(NAME)
    assert Client(cluster, 0).put(KEY, b"v", at=a).outcome == OK
    cluster.run(100 * MS)
    cluster.hosts[a].disk.unreadable(Family.RECORDS, NAME)
    before = cluster.hosts[a].life
    Client(cluster, 1).get(KEY, at=a)
    cluster.run(S)
    assert cluster.hosts[a].life is not before
    assert cluster.hosts[a].life is not None
    assert cluster.run(60 * S, until=lambda: unproven(cluster, a) == 0)
    assert holds(cluster, a, b"v")


def test_a_node_whose_first_sync_fails_does_not_begin_and_may_be_started_again(seed: int) -> None:
    cluster = cluster_of(seed)
    cluster.hosts[1].kill()
    for damaged in (False, True):
        cluster.hosts[1].disk.fails_next_sync = True
        if damaged:
            cluster.hosts[1].disk.unreadable(Family.META, b"start")
        cluster.hosts[1].start()
        assert cluster.hosts[1].life is None
        assert "cannot begin" in cluster.hosts[1].why_ended
    cluster.hosts[1].start()
    assert cluster.hosts[1].life is not None


def test_a_node_that_is_to_stay_down_does_not_begin_anew(seed: int) -> None:
    cluster = cluster_of(seed)
    a, _, _ = cluster.owners(NAME)
    assert Client(cluster, 0).put(KEY, b"v", at=a).outcome == OK
    cluster.hosts[a].disk.unreadable(Family.RECORDS, NAME)
    Client(cluster, 1).get(KEY, at=a)
    assert cluster.hosts[a].life is None
    cluster.hosts[a].down()
    cluster.run(10 * S)
    assert cluster.hosts[a].life is None


def test_a_node_without_room_waits_and_goes_on(seed: int) -> None:
    cluster = cluster_of(seed)
    a, b, _ = cluster.owners(NAME)
    cluster.hosts[a].disk.is_exhausted = True
    assert Client(cluster, 0).put(KEY, b"v", at=b).outcome == OK
    assert not holds(cluster, a, b"v")
    cluster.hosts[a].disk.is_exhausted = False
    cluster.run(20 * S, until=lambda: holds(cluster, a, b"v"))
    assert holds(cluster, a, b"v")


# --- clocks -------------------------------------------------------------------------------------


def test_peers_hear_of_a_clock_that_jumps(seed: int) -> None:
    cluster = cluster_of(seed)
    cluster.hosts[2].set_clock(120_000)
    cluster.run(S)
    for number, host in cluster.hosts.items():
        assert host.life is not None
        assert host.life.coordinator.clock_is_off == (number == 2)
    cluster.hosts[2].set_clock(0)
    cluster.run(S)
    assert cluster.hosts[2].life is not None
    assert not cluster.hosts[2].life.coordinator.clock_is_off


# --- streams ------------------------------------------------------------------------------------


def test_a_clogged_link_delivers_all_of_it_when_it_is_free(seed: int) -> None:
    cluster = cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    cluster.cut(a, c)
    cluster.network.clog(a, b, 150 * MS)
    write = Client(cluster, 0).put(KEY, b"v", at=a, wait=False)
    cluster.run(140 * MS)
    assert not holds(cluster, b, b"v")
    cluster.run(30 * MS)
    assert holds(cluster, b, b"v")
    cluster.run(50 * MS)
    assert write.outcome == OK


def test_what_is_stuck_arrives_once_all_links_are_free(seed: int) -> None:
    cluster = Cluster(seed)
    heard: list[int] = []
    cluster.network.clog(1, 2, 10 * S)
    cluster.network.clog(1, 2, 5 * S)
    for number in range(3):
        cluster.network.carry((1, 2), [0], 0, (heard.append, number))
    cluster.run(S)
    assert heard == []

    cluster.network.unclog_all()

    assert sorted(heard) == [0, 1, 2]
    cluster.network.carry((1, 2), [0], 0, (heard.append, 3))
    cluster.run(10 * MS)
    assert heard[-1] == 3


def test_a_connection_that_breaks_often_is_dialled_no_more_often_for_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(seed)
    cluster.run(S)
    looked: list[int] = []
    dial_again = Links._dial_again

    def note(self: Links, peer: Peer) -> None:
        looked.append(peer.number)
        dial_again(self, peer)

    monkeypatch.setattr(Links, "_dial_again", note)
    cluster.cut(1, 2)
    links = cluster.hosts[1].links
    assert links is not None
    for _ in range(20):
        links.reset(2)
    cluster.run(S)

    assert 0 < len(looked) <= S // (1_000 * cluster.limits.reconnect_ms) + 1


def test_frames_keep_their_order_where_nothing_overtakes(seed: int) -> None:
    def arrivals(reorders: float) -> list[int]:
        cluster = Cluster(seed)
        link = cluster.network.link(1, 2)
        link.reorders = reorders
        lanes = [0]
        heard: list[int] = []
        for number in range(50):
            cluster.network.carry((1, 2), lanes, 0, (heard.append, number))
        cluster.run(S)
        return heard

    assert arrivals(0.0) == list(range(50))
    assert arrivals(1.0) != list(range(50))


def test_a_hello_that_comes_late_leaves_no_stream_of_which_one_end_knows_nothing(
    seed: int,
) -> None:
    cluster = cluster_of(seed)
    here, there = cluster.hosts[1].links, cluster.hosts[2].links
    assert here is not None
    assert there is not None
    link = cluster.network.link(1, 2)
    usual, link.delay_us = link.delay_us, (50 * MS, 50 * MS)
    here.reset(2)
    link.delay_us = usual
    here.lose(2)  # another attempt, whose hello overtakes the first one's
    here.dial(2)
    cluster.run(S)
    assert here.peers[2].stream is there.accepted[1].stream
    assert standing(cluster, 1, 2) is Standing.UP


def test_large_values_go_on_the_bulk_stream_and_arrive(seed: int) -> None:
    cluster = Cluster(seed, limits=Limits(bulk_bytes=1_024))
    cluster.run(10 * MS)
    value = b"v" * 5_000
    assert Client(cluster, 0).put(KEY, value).outcome == OK
    assert Client(cluster, 1).get(KEY).value == value


def test_a_newer_topology_reaches_all_by_frames_and_older_requests_are_refused(seed: int) -> None:
    cluster = cluster_of(seed)
    cluster.follow(2, cluster.topology.with_members(cluster.topology.members))
    client = Client(cluster, 0)
    for number in range(10):
        assert client.put(KEY, b"v%d" % number).outcome == OK
    cluster.run(2 * S)
    assert {host.identity.topology.epoch for host in cluster.hosts.values() if host.identity} == {
        cluster.topology.epoch + 1
    }


# --- identities ---------------------------------------------------------------------------------


def test_a_copied_identity_goes_while_the_first_lives(seed: int) -> None:
    # Row 9.
    cluster = cluster_of(seed)
    first = cluster.hosts[3].life
    ghost = cluster.copy_identity(3)
    cluster.run(5 * S)
    assert ghost.life is None
    assert "n3 is alive" in ghost.why_ended
    assert cluster.hosts[3].life is first


def test_of_a_copy_and_a_first_that_was_down_the_later_claimant_goes(seed: int) -> None:
    # Row 9: peers remember.
    cluster = Cluster(seed, keyspace=Keyspace(name="default"))
    cluster.run(S)
    cluster.hosts[3].stop()
    cluster.run(S)
    ghost = cluster.copy_identity(3)
    cluster.run(5 * S)
    assert ghost.life is not None  # a move, as far as anybody can know
    cluster.hosts[3].start()
    cluster.run(5 * S)
    assert cluster.hosts[3].life is None
    assert "held by a life at machine" in cluster.hosts[3].why_ended
    assert ghost.life is not None
