"""The ring's picture says what the topology says."""

from __future__ import annotations

import pytest

from kvnode.cli.picture import Ring, drawn, ring_of, show
from kvproto import kv_pb2
from tests.unit.cli.conftest import OnTerminal

QUARTERS = Ring(
    name="c",
    epoch=4,
    nodes=("n1", "n2"),
    n=2,
    owners=(("n1", "n2"), ("n2", "n1"), ("n1", "n2"), ("n2", "n1")),
)
MARKS = {"n1": "1", "n2": "2"}


def test_the_default_keyspaces_owners_are_taken_in_order() -> None:
    known = kv_pb2.Topology(
        name="c",
        epoch=4,
        partitions=2,
        members=[kv_pb2.Member(id=f"n{i}", number=i) for i in (1, 2, 5)],
        keyspaces=[kv_pb2.Keyspace(name="x", n=3), kv_pb2.Keyspace(name="default", n=2)],
        walk_length=3,
        walk=[5, 1, 2, 2, 5, 1],
    )
    assert ring_of(known) == Ring(
        name="c", epoch=4, nodes=("n1", "n2", "n5"), n=2, owners=(("n5", "n1"), ("n2", "n5"))
    )


def test_the_outer_rim_is_the_first_owner_and_it_runs_clockwise() -> None:
    lines = [line.ljust(41) for line in drawn(QUARTERS, MARKS)]
    corners = [lines[y][x] for y, x in ((3, 34), (17, 34), (17, 6), (3, 6))]
    assert corners == ["1", "2", "1", "2"]
    inner = [lines[y][x] for y, x in ((4, 31), (16, 31), (16, 9), (4, 9))]
    assert inner == ["2", "1", "2", "1"]


def test_rims_do_not_touch() -> None:
    column = [line.ljust(41)[20] for line in drawn(QUARTERS, MARKS)]
    assert "".join(column) == "1 2               2 1"


def test_shares_count_every_partition(capsys: pytest.CaptureFixture[str]) -> None:
    show(QUARTERS)
    out = capsys.readouterr().out
    assert out.startswith("cluster c · epoch 4 · 4 partitions · n = 2\n")
    assert "\x1b" not in out
    assert out.splitlines()[-3:] == [
        "mark\tnode\tas first owner\tas any owner\tof all keys\tshare",
        f"1\tn1\t2\t4\t100.0%\t{'█' * 30}",
        f"2\tn2\t2\t4\t100.0%\t{'█' * 30}",
    ]


def test_colours_on_a_terminal_only_repeat_the_marks(on_terminal: OnTerminal) -> None:
    shown = on_terminal()
    show(QUARTERS)
    assert "\x1b[96m1" in shown()
