"""A conflict on real nodes: open, then settled, then still told of after everything was killed."""

from __future__ import annotations

from collections.abc import Callable

import kvclient
from tests.support.nodes import Nodes, until

Cluster = Callable[..., Nodes]

_BRISK = "\n[limits]\nsettle_after_ms = 300\nexchange_interval_ms = 500\n"
_WITHIN_S = 10.0


def tear(db: kvclient.Client, key: str) -> None:
    """Write two values, neither of which has seen the other."""
    base = db.put(key, b"base").context
    for value in (b"left", b"right"):
        db.put(key, value, context=base)


def settled(db: kvclient.Client, *keys: str) -> list[kvclient.Conflict]:
    wanted = {key.encode() for key in keys}
    found = [one for one in db.conflicts(state="settled") if one.key in wanted]
    return found if len(found) == len(wanted) else []


def walks(nodes: Nodes) -> list[float]:
    """Return how often each living node has looked through its open conflicts."""
    return [nodes.metric(name, "conflict_walks") for name in ("n1", "n2")]


def shown(nodes: Nodes) -> list[list[str]]:
    """Return what `kvnode conflicts` prints, without its heading."""
    process = nodes.command("conflicts", "--seeds", nodes.seeds)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output
    return [line.split("\t") for line in output.splitlines()[1:]]


def test_a_conflict_is_settled_listed_and_outlives_the_processes(cluster: Cluster) -> None:
    nodes = cluster(settings=_BRISK)
    with nodes.client() as db:
        for key in ("one", "two"):
            tear(db, key)
        assert db.get("one") == b"right"
        until(lambda: len(settled(db, "one", "two")) == 2, within_s=_WITHIN_S)
        for found in settled(db, "one", "two"):
            assert [one.value for one in found.siblings] == [b"left"]
            assert found.winner is not None
            assert (found.winner.value, found.rule[:10]) == (b"right", "most votes")
        until(lambda: not db.conflicts(state="open"), within_s=_WITHIN_S)
        assert [db.get(key) for key in ("one", "two")] == [b"right"] * 2
        said = [each for each in db.status().values() if each is not None]
        assert [each.open_conflicts for each in said] == [0, 0, 0]
    nodes.kill()
    nodes.start()
    nodes.wait_linked()
    rows = shown(nodes)
    assert [(row[1], row[5].split(":")[0], row[6]) for row in rows] == [
        ("one", "won", "right"),
        ("one", "lost", "left"),
        ("two", "won", "right"),
        ("two", "lost", "left"),
    ]


def test_a_conflict_with_an_owner_away_waits_for_it(cluster: Cluster) -> None:
    nodes = cluster(settings=_BRISK)
    nodes.kill("n3")
    with nodes.client("n1", "n2") as db:
        tear(db, "k")
        assert db.get("k") == b"right"
        # Two looks at all open conflicts settle what can be settled.
        before = walks(nodes)
        until(lambda: min(walks(nodes)) > max(before) + 4, within_s=_WITHIN_S)
        assert {one.key for one in db.conflicts(state="open")} == {b"k"}
        assert settled(db, "k") == []
        nodes.start("n3")
        until(lambda: len(settled(db, "k")) == 1, within_s=_WITHIN_S)
        assert db.get("k") == b"right"
