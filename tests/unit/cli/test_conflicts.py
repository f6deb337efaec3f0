"""conflicts: what all nodes list of one key is shown once, open or settled."""

from __future__ import annotations

from kvproto import kv_pb2
from tests.support.nodes import free_base
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import FakeNode
from tests.unit.cli.test_show import STAMP, topology

SETTLED_MS = 1_700_000_000_000


def conflict(keyspace: str, key: bytes, *dots: int, votes: str = "") -> kv_pb2.Conflict:
    """Return one with values named after their dots; `votes` as in "n1=0 n2=1"."""
    siblings = [
        kv_pb2.Sibling(actor=7, counter=dot, timestamp=STAMP, value=b"v%d" % dot, won=dot == 1)
        for dot in dots
    ]
    pairs = (vote.split("=") for vote in votes.split())
    cast = [kv_pb2.Vote(node=node, sibling=int(index)) for node, index in pairs]
    return kv_pb2.Conflict(keyspace=keyspace, key=key, siblings=siblings, votes=cast)


def test_conflicts_of_all_nodes_and_pages_are_listed_once(run: Run) -> None:
    first = [conflict("default", b"b\x1b", 1, 2, votes="n1=0"), conflict("x", b"a", 1, 2)]
    second = [conflict("default", b"b\x1b", 1, 2, votes="n2=0"), conflict("a", b"z", 1)]
    with FakeNode(conflicts=first) as one, FakeNode(conflicts=second) as two:
        one.topology = topology(one.address, two.address)
        code, out, _ = run("conflicts", "--seeds", one.address)
        only = run("conflicts", "--seeds", one.address, "--keyspace", "x")[1]
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()[1:]]
    assert [row[:2] for row in rows] == [
        ["a", "z"], ["default", "b\\x1b"], ["default", "b\\x1b"], ["x", "a"], ["x", "a"],
    ]  # fmt: skip
    assert rows[1][2:] == [
        "0000000000000007:1", "2023-11-14 22:13:20.000Z", "2", "leads", "v1", "-",
    ]  # fmt: skip
    assert len(only.splitlines()) == 3


def test_a_node_that_was_not_asked_is_told(run: Run) -> None:
    with FakeNode(conflicts=[conflict("x", b"a", 1, 2)]) as node:
        node.topology = topology(node.address, f"127.0.0.1:{free_base(1)}")
        code, out, said = run("conflicts", "--seeds", node.address)
    assert code == 1
    assert len(out.splitlines()) == 3
    assert said == "kvnode: not asked, since not reached: n2\n"


def settled(key: bytes, lost: int, *, ms: int = SETTLED_MS, won: int = 1) -> kv_pb2.Conflict:
    found = conflict("x", key, lost, votes=f"n{lost}=0")
    found.siblings[0].won = False
    found.settled_ms, found.rule, found.winner_held = ms, "most votes: 2 to 1", True
    value = b"v%d" % won
    winner = kv_pb2.Sibling(actor=7, counter=won, timestamp=STAMP, value=value, won=True)
    found.winner.CopyFrom(winner)
    return found


def test_a_settled_conflict_is_shown_after_the_open_ones_with_rule_losers_and_time(
    run: Run,
) -> None:
    listed = [conflict("x", b"z", 1, 2), settled(b"a", 8), settled(b"a", 9)]
    with FakeNode(conflicts=listed) as one, FakeNode(conflicts=listed[1:]) as two:
        one.topology = topology(one.address, two.address)
        code, out, _ = run("conflicts", "--seeds", one.address)
    assert code == 0
    rows = [line.split("\t") for line in out.splitlines()[1:]]
    assert [row[1] for row in rows] == ["z", "z", "a", "a", "a"]
    instant = "2023-11-14 22:13:20.000Z"
    dot = "0000000000000007:"
    assert rows[2:] == [
        ["x", "a", f"{dot}1", instant, "-", "won: most votes: 2 to 1", "v1", instant],
        ["x", "a", f"{dot}8", instant, "1", "lost", "v8", instant],
        ["x", "a", f"{dot}9", instant, "1", "lost", "v9", instant],
    ]


def test_one_state_alone_is_asked_for(run: Run) -> None:
    with FakeNode(conflicts=[settled(b"a", 8)]) as node:
        node.topology = topology(node.address)
        code, _, _ = run("conflicts", "--seeds", node.address, "--state", "settled")
        refused = run("conflicts", "--seeds", node.address, "--state", "closed")[0]
    assert (code, refused) == (0, 2)
    assert node.states == ["settled"]
