"""What real nodes think of one another when one dies, hangs, stops, or is cut off one way.

The numbers in comments are rows of the list of what goes wrong in stores of this kind. Instants are
those that nodes log, by the clock that this process has too.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NamedTuple

import pytest

import kvclient
from kvclient.testing import Cluster
from kvnode.cli.main import main
from tests.support.nodes import environment, until
from tests.support.scale import scaled

_CHANGE = re.compile(r"^(\S+) INFO peer_(\w+) peer=(\w+) why=(.*)$", re.MULTILINE)
NEVER_SILENT = "\n[limits]\nsilence_ms = 60000\ntimeout_ms = 60000\n"
WITHIN_S = 10.0


class Change(NamedTuple):
    """A line of a node's log: it thinks otherwise of a peer."""

    after_s: float
    """Since a fault began."""
    what: str
    peer: str
    why: str


@contextmanager
def kit_of(settings: str = "", nodes: int = 3) -> Iterator[Cluster]:
    """Give a cluster of the kit whose nodes import what we do."""
    with Cluster(nodes, settings=settings, environment=environment()) as kit:
        yield kit


@pytest.fixture(scope="module")
def shared() -> Iterator[Cluster]:
    with kit_of() as kit:
        yield kit


@pytest.fixture
def kit(shared: Cluster) -> Iterator[Cluster]:
    """Give the shared cluster, and put it right again afterwards."""
    yield shared
    shared.resume()
    shared.heal()
    shared.start()
    shared.wait_linked()


@pytest.fixture
def patient() -> Iterator[Cluster]:
    """Give a cluster of its own where silence takes nobody down."""
    with kit_of(NEVER_SILENT) as kit:
        yield kit


def changes(kit: Cluster, node: str, since: float) -> list[Change]:
    """Return what a node has logged of its peers since an instant."""
    found = [
        Change(datetime.fromisoformat(at).astimezone(UTC).timestamp() - since, what, peer, why)
        for at, what, peer, why in _CHANGE.findall(kit.log(node))
    ]
    return [change for change in found if change.after_s >= -0.001]


def awaited(
    kit: Cluster, node: str, since: float, wanted: Callable[[Change], bool]
) -> list[Change]:
    """Wait for a change; return all up to it."""
    until(lambda: any(map(wanted, changes(kit, node, since))), within_s=WITHIN_S, what="a change")
    return changes(kit, node, since)


def is_down(peer: str) -> Callable[[Change], bool]:
    return lambda change: change.what == "down" and change.peer == peer


def peers(db: kvclient.Client, node: str) -> dict[str, str]:
    """Return the states of a node's peers, as it says itself."""
    status = db.status(timeout=5.0)[node]
    return {} if status is None else dict(status.peers)


class Asker:
    """Writes and reads, one after the other."""

    def __init__(self, db: kvclient.Client) -> None:
        self._db = db
        self.took_s: list[float] = []

    def ask(self, times: int = 40) -> None:
        """Put and get so many times; none may fail."""
        for _ in range(times):
            key, begun = f"k{len(self.took_s) % 20}", time.monotonic()
            self._db.put(key, b"v")
            self._db.get(key)
            self.took_s.append((time.monotonic() - begun) / 2)


@contextmanager
def asking(kit: Cluster, *names: str) -> Iterator[Asker]:
    """Ask these nodes before the block and after it; what it took is told from the block on."""
    seeds = ",".join(kit.node(name).address for name in names)
    with kvclient.Client(seeds, timeout=20.0) as db:
        asker = Asker(db)
        asker.ask()
        asker.took_s.clear()
        yield asker
        asker.ask()


def test_a_killed_node_is_noticed_by_the_break_and_not_by_silence(patient: Cluster) -> None:
    killed = time.time()
    patient.kill("n2")
    for name in ("n1", "n3"):
        *_, down = awaited(patient, name, killed, is_down("n2"))
        assert down.why == "connection lost"
        assert down.after_s < 2  # 20 ms alone, more where the machine is busy
    with patient.client() as db:
        assert peers(db, "n1") == {"n2": "down", "n3": "up"}


def test_a_halted_node_is_down_for_all_within_two_seconds_and_accuses_nobody(kit: Cluster) -> None:
    # Row 25.
    halted = time.time()
    kit.pause("n3")
    for name in ("n1", "n2"):
        *_, down = awaited(kit, name, halted, is_down("n3"))
        assert down.why == "silent"
        assert 0.5 < down.after_s <= 2.0
    resumed = time.time()
    kit.resume("n3")
    kit.wait_linked()
    own = changes(kit, "n3", resumed)
    assert all(change.why not in ("silent", "owes answers") for change in own), own


def test_what_a_halted_node_owes_is_asked_of_others_long_before_it_is_down(
    patient: Cluster,
) -> None:
    with asking(patient, "n1", "n2") as asker:
        halted = time.time()
        patient.pause("n3")
    assert max(asker.took_s) < 1.5
    for name in ("n1", "n2"):
        ours = [change for change in changes(patient, name, halted) if change.peer == "n3"]
        assert [(change.what, change.why) for change in ours] == [("silent", "owes answers")]
    with patient.client() as db:
        assert peers(db, "n1") == {"n2": "up", "n3": "suspect"}
        patient.resume("n3")
        until(lambda: peers(db, "n1") == {"n2": "up", "n3": "up"}, what="its return")


def test_a_node_that_is_cut_off_one_way_changes_minds_at_most_three_times(kit: Cluster) -> None:
    # Row 20: bytes stall, healing resets the connection.
    cut = time.time()
    kit.cut("n1", "n2")
    with asking(kit, "n1", "n2", "n3") as asker:
        for one, other in (("n1", "n2"), ("n2", "n1")):
            awaited(kit, one, cut, is_down(other))
        ends = time.monotonic() + scaled(3, soak=120)
        while time.monotonic() < ends:
            asker.ask(1)
    for one, other in (("n1", "n2"), ("n2", "n1")):
        told = [change for change in changes(kit, one, cut) if change.peer == other]
        assert [change.what for change in told if change.what != "silent"] == ["down"], told
        assert len(told) <= 2
    kit.heal()
    kit.wait_linked()
    for one, other in (("n1", "n2"), ("n2", "n1")):
        told = [change for change in changes(kit, one, cut) if change.peer == other]
        assert len(told) <= 3, told


def test_a_stopping_node_is_gone_around_before_it_goes(kit: Cluster) -> None:
    with asking(kit, "n1", "n2"):
        stopped = time.time()
        kit.kill("n3", signal=signal.SIGTERM)
    for name in ("n1", "n2"):
        told = [change for change in changes(kit, name, stopped) if change.peer == "n3"]
        assert [(change.what, change.why) for change in told[:2]] == [
            ("silent", "stopping"),
            ("down", "connection lost"),
        ]


@pytest.mark.parametrize("fault", ["pause", "isolate"])
def test_status_tells_who_hangs_and_whom_nobody_hears(
    kit: Cluster, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    getattr(kit, fault)("n3")

    def states() -> dict[str, str]:
        assert main(["status", "--json", "--seeds", kit.node("n1").address]) == 0
        told = json.loads(capfd.readouterr().out)
        return {node["id"]: node["state"] for node in told["nodes"]}

    until(lambda: states()["n3"] == "suspect", within_s=WITHIN_S, what="suspicion")
    assert states() == {"n1": "up", "n2": "up", "n3": "suspect"}
