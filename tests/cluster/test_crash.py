"""Nothing that a node acknowledged is missing on its disk, after a kill and after a power cut.

A killed process loses nothing that reached the page cache, so a kill alone cannot show a missing
sync: the power-cut tests cut each log to its last completed sync (tests/support/powercut.py), and
the last of them shows that they would catch a node that does not sync.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.support import seeds
from tests.support.journaled import journal_of, program
from tests.support.load import Writers, acked_by, missing_on
from tests.support.nodes import Nodes
from tests.support.powercut import cut_power
from tests.support.scale import scaled
from tests.support.stores import flip_bit, newest

Cluster = Callable[..., Nodes]

_ROUNDS = scaled(20, soak=200)
_PATIENT = "\n[limits]\nperiodic_sync_ms = 60000\n"
"""Only what somebody waits for is synced: no later sync hides a missing one."""

_SOON_S = 2.0
"""Where all nodes die, the writes under way may as well give up."""


@pytest.mark.timeout(scaled(180, soak=1_800))
def test_a_kill_under_load_loses_nothing_that_was_acknowledged(cluster: Cluster) -> None:
    chance = random.Random(seeds.derive(seeds.run_seed(), "kills"))
    nodes = cluster()
    checked: dict[str, set[bytes]] = {name: set() for name in nodes.ids}
    with nodes.client() as client, Writers(client) as writers:
        for _ in range(_ROUNDS):
            victim = chance.choice(nodes.ids)
            writers.wait_for(chance.randint(1, 200))
            nodes.kill(victim)
            with writers.resting():
                check_new(nodes, victim, writers, checked[victim])
                nodes.start(victim)
                nodes.wait_linked()
    assert writers.failed == []
    assert sum(map(len, checked.values())) > 10 * _ROUNDS
    nodes.kill()
    for name in nodes.ids:
        assert missing_on(nodes.store(name), acked_by(name, writers.acked)) == []


def check_new(nodes: Nodes, name: str, writers: Writers, checked: set[bytes]) -> None:
    """Check what a dead node has acknowledged since it was last checked."""
    promised = acked_by(name, writers.acked)
    new = {key: value for key, value in promised.items() if key not in checked}
    assert missing_on(nodes.store(name), new) == []
    checked.update(new)


def test_when_power_is_lost_everywhere_every_acknowledged_write_survives(cluster: Cluster) -> None:
    nodes = cluster(program=program("faithful"), settings=_PATIENT)
    with nodes.client(timeout=_SOON_S) as client, Writers(client) as writers:
        writers.wait_for(500)
        nodes.kill()
    acked = dict(writers.acked)
    for name in nodes.ids:
        cut_power(nodes.store(name), journal_of(nodes.node(name).folder))
        assert missing_on(nodes.store(name), acked_by(name, acked)) == []
    nodes.start()
    nodes.wait_linked()
    with nodes.client() as client:
        found = client.get_many(acked)
    assert found == [write.value for write in acked.values()]


def test_a_node_that_does_not_sync_is_caught_by_a_power_cut_and_not_by_a_kill(
    cluster: Cluster,
) -> None:
    nodes = cluster(program=program("hasty"), settings=_PATIENT)
    with nodes.client(timeout=_SOON_S) as client, Writers(client) as writers:
        writers.wait_for(100)
        nodes.kill()
    for name in nodes.ids:
        promised = acked_by(name, writers.acked)
        assert missing_on(nodes.store(name), promised) == []
        cut_power(nodes.store(name), journal_of(nodes.node(name).folder))
        assert len(missing_on(nodes.store(name), promised)) == len(promised) > 0


# ---- row 21: the end of a log, and its middle --------------------------------------------------

_TORN = (200).to_bytes(2, "little").join((b"csum", b"\x01" + bytes(50)))
"""The first part of a log record that says it has 200 bytes."""


_KEEPS_DOUBTS = "\n[limits]\nexchange_grace_ms = 60000\n"
"""No exchange mends what differs while the test looks."""


def filled_and_killed(cluster: Cluster) -> tuple[Nodes, dict[str, bytes]]:
    """Give nodes of which n3 died with everything in its log; and what they hold."""
    nodes = cluster(settings=_KEEPS_DOUBTS)
    written = {f"key{number}": b"value %d" % number * 20 for number in range(300)}
    pairs = list(written.items())
    with nodes.client() as client:
        for start in range(0, len(pairs), 10):  # not all in one record of the log
            client.put_many(dict(pairs[start : start + 10]))
    nodes.kill("n3")
    return nodes, written


def check_there(nodes: Nodes, written: dict[str, bytes]) -> None:
    with nodes.client("n3") as client:
        for r in (1, 2):
            assert client.get_many(written, r=r) == list(written.values())


def test_a_torn_end_of_the_log_is_dropped_and_told_and_raises_no_doubt(cluster: Cluster) -> None:
    nodes, written = filled_and_killed(cluster)
    log = newest(nodes.store("n3"), "*.log")
    with log.open("ab") as file:
        file.write(_TORN)
    nodes.start("n3")
    nodes.wait_linked()
    assert f"log_torn file={log.name} dropped_bytes={len(_TORN)}" in nodes.log("n3")
    assert nodes.status("n3").state == "up"
    check_there(nodes, written)


def test_after_a_bit_flips_inside_a_synced_log_nothing_is_silently_gone(cluster: Cluster) -> None:
    nodes, written = filled_and_killed(cluster)
    log = newest(nodes.store("n3"), "*.log")
    flip_bit(log, log.stat().st_size // 2)
    lost = len(missing_on(nodes.store("n3"), {key.encode(): v for key, v in written.items()}))
    assert 0 < lost < len(written), "the flip cost nothing, or everything"
    nodes.start("n3")
    nodes.wait_linked()
    assert "store_damaged what=Corruption" in nodes.log("n3")
    assert f"{log.name} (" in nodes.log("n3")
    assert nodes.status("n3").state == "unproven"
    check_there(nodes, written)
