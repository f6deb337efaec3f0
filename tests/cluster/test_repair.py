"""What operators ask of real nodes after failures: repairs, and why a marker is kept."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kvnode.cli.main import main
from kvnode.core.keys import encode_key, partition_of_key
from tests.support.load import missing_on
from tests.support.nodes import Nodes, until

Cluster = Callable[..., Nodes]

_NO_HINTS = "\n[limits]\nhint_bytes = 0\nexchange_grace_ms = 100\n"
_BRISK = "\n[limits]\nexchange_interval_ms = 200\nexchange_grace_ms = 50\n"


Run = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Give a function that runs a command on a cluster, here and at once: status, what it said."""

    def command(nodes: Nodes, *words: str) -> tuple[int, list[str], list[str]]:
        capfd.readouterr()
        status = main([*words, "--data", str(nodes.local.directory)])
        told = capfd.readouterr()
        return status, told.out.splitlines(), told.err.splitlines()

    return command


def test_a_repair_finds_and_mends_what_an_owner_missed_and_no_hint_kept(
    cluster: Cluster, run: Run
) -> None:
    nodes = cluster(3, settings=_NO_HINTS)
    writes = {b"k%d" % number: b"v%d" % number for number in range(100)}
    with nodes.client() as db:
        nodes.kill("n2")
        db.put_many(writes)
        nodes.start("n2")
        # For two seconds after its return no exchange begins by itself.
        status, told, _ = run(nodes, "repair")
    assert status == 0
    partitions = {partition_of_key(encode_key("default", key), 8) for key in writes}
    # 256 partitions, 3 pairs
    assert told[-1].startswith("compared 768 of 768 pairs of copies in ")
    rows = [line.split("\t") for line in told if "\tdone\t" in line]
    assert {int(row[0]) for row in rows} == partitions
    assert all(row[1] in {"n1, n2", "n2, n3"} for row in rows)
    assert {row[3] for row in rows if row[3] != row[4]} == set()  # all that differed was mended

    _, again, _ = run(nodes, "repair")
    assert again[-1].startswith("compared 768 of 768 pairs of copies in ")
    assert again[-1].endswith(": 0 keys differed, 0 mended")
    nodes.stop()
    assert missing_on(nodes.store("n2"), writes) == []


def test_a_marker_is_kept_for_an_owner_that_is_away_and_goes_when_it_is_back(
    cluster: Cluster, run: Run
) -> None:
    nodes = cluster(3, settings=_BRISK)
    with nodes.client() as db:
        db.put("k", b"v", w=3)
        nodes.kill("n2")
        db.delete("k")
        status, told, complaints = run(nodes, "why-not-reaped", "k")
        assert (status, complaints) == (1, ["kvnode: no answer from n2"])
        waits = {tuple(line.split("\t")[:3]) for line in told[1:]}
        assert {("n1", "waits", "n2"), ("n3", "waits", "n2")} <= waits
        assert db.get("k") is None

        nodes.start("n2")
        until(
            lambda: (
                sum("keeps nothing" in line for line in run(nodes, "why-not-reaped", "k")[1]) == 3
            ),
            what="reaping",
        )
        assert db.get("k") is None
        # Who reaps first tells the others in an exchange, if they have not done so themselves.
        assert 1 <= sum(nodes.metric(name, "reaped") for name in nodes.ids) <= 3
