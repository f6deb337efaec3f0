"""What operators ask of real nodes after failures: repairs, and why a marker is kept."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from kvnode.core.keys import encode_key, partition_of_key
from tests.support.load import missing_on
from tests.support.nodes import Nodes, finished, output, until

Cluster = Callable[..., Nodes]

_WITHIN_S = 15.0
_NO_HINTS = "\n[limits]\nhint_bytes = 0\nexchange_grace_ms = 100\n"
_BRISK = "\n[limits]\nexchange_interval_ms = 200\nexchange_grace_ms = 50\n"


def command(nodes: Nodes, *words: str) -> subprocess.Popen[str]:
    return nodes.command(*words, "--data", str(nodes.local.directory))


def said(nodes: Nodes, *words: str) -> str:
    with finished(command(nodes, *words)) as running:
        return output(running, within_s=_WITHIN_S)


def test_a_repair_finds_and_mends_what_an_owner_missed_and_no_hint_kept(cluster: Cluster) -> None:
    nodes = cluster(3, settings=_NO_HINTS)
    writes = {b"k%d" % number: b"v%d" % number for number in range(100)}
    with nodes.client() as db:
        nodes.kill("n2")
        db.put_many(writes)
        nodes.start("n2")
        told = said(nodes, "repair")
    partitions = {partition_of_key(encode_key("default", key), 8) for key in writes}
    last = told.splitlines()[-1]
    assert last.startswith("compared 768 of 768 pairs of copies in ")  # 256 partitions, 3 pairs
    rows = [line.split("\t") for line in told.splitlines() if "\tdone\t" in line]
    assert {int(row[0]) for row in rows} == partitions
    assert all(row[1] in {"n1, n2", "n2, n3"} for row in rows)
    assert {row[3] for row in rows if row[3] != row[4]} == set()  # all that differed was mended

    again = said(nodes, "repair").splitlines()
    assert again[-1].startswith("compared 768 of 768 pairs of copies in ")
    assert again[-1].endswith(": 0 keys differed, 0 mended")
    nodes.stop()
    assert missing_on(nodes.store("n2"), writes) == []


def test_a_marker_is_kept_for_an_owner_that_is_away_and_goes_when_it_is_back(
    cluster: Cluster,
) -> None:
    nodes = cluster(3, settings=_BRISK)
    with nodes.client() as db:
        db.put("k", b"v", w=3)
        nodes.kill("n2")
        db.delete("k")
        with finished(command(nodes, "why-not-reaped", "k")) as asked:
            text, _ = asked.communicate(timeout=_WITHIN_S)
        assert asked.returncode == 1
        assert text.splitlines()[-1] == "kvnode: no answer from n2"
        waits = {tuple(line.split("\t")[:3]) for line in text.splitlines()[1:-1]}
        assert {("n1", "waits", "n2"), ("n3", "waits", "n2")} <= waits
        assert db.get("k") is None

        nodes.start("n2")
        until(
            lambda: said(nodes, "why-not-reaped", "k").count("keeps nothing of it") == 3,
            what="reaping",
        )
        assert db.get("k") is None
        # Who reaps first tells the others in an exchange, if they have not done so themselves.
        assert 1 <= sum(nodes.metric(name, "reaped") for name in nodes.ids) <= 3
