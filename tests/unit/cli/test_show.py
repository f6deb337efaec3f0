"""status and ring: put together from what nodes say and from their processes."""

from __future__ import annotations

import json
import socket

import pytest

from kvnode.cli import show, wire
from kvnode.cli.local import LocalCluster
from kvproto import kv_pb2
from tests.support.nodes import free_base
from tests.unit.cli.conftest import Run
from tests.unit.cli.fakes import FakeNode

STAMP = 1_700_000_000_000 << 16


def status_of(node: str) -> kv_pb2.Status:
    return kv_pb2.Status(
        node=node, cluster="kvnode", epoch=2, state="up", incarnation=255, pid=4242,
        version="0.1", records=12_345, bytes=2_000_000, pending_hints=1_200, unproven_partitions=7,
        peers=[kv_pb2.PeerStatus(node="n9", state="down")],
    )  # fmt: skip


def topology(*addresses: str) -> kv_pb2.Topology:
    members = [
        kv_pb2.Member(id=f"n{i}", number=i, address=address)
        for i, address in enumerate(addresses, 1)
    ]
    return kv_pb2.Topology(
        name="far", epoch=2, partitions=2, members=members, walk_length=1, walk=[1, 2],
        keyspaces=[kv_pb2.Keyspace(name="default", n=1)],
    )  # fmt: skip


def test_every_node_is_listed_however_many_are_dead(run: Run, cluster: LocalCluster) -> None:
    code, out, said = run("status", "--data", cluster.directory, "--json")
    assert (code, said) == (0, "")
    shown = json.loads(out)
    assert (shown["cluster"], shown["epoch"]) == ("kvnode", None)
    assert [(n["id"], n["pid"], n["state"]) for n in shown["nodes"]] == [
        ("n1", None, "down"), ("n2", None, "down"), ("n3", None, "down"),
    ]  # fmt: skip


def test_a_living_node_tells_of_itself(run: Run, cluster: LocalCluster) -> None:
    with FakeNode(status_of("n2"), port=cluster.nodes["n2"].port):
        shown = json.loads(run("status", "--data", cluster.directory, "--json")[1])
        table = run("status", "--data", cluster.directory)[1]
    assert shown["epoch"] == 2
    assert shown["nodes"][1] == {
        "id": "n2", "address": cluster.nodes["n2"].address, "pid": 4242, "state": "up",
        "epoch": 2, "records": 12_345, "bytes": 2_000_000, "open_conflicts": 0,
        "pending_hints": 1_200, "unproven_partitions": 7,
        "incarnation": "00000000000000ff", "version": "0.1", "peers": {"n9": "down"},
    }  # fmt: skip
    assert table.splitlines()[2].split("\t") == [
        "n2", cluster.nodes["n2"].address, "4242", "up", "2", "12,345", "2.0 MB", "0", "1,200", "7",
    ]  # fmt: skip


def test_a_stranger_at_a_nodes_address_is_not_taken_for_it(run: Run, cluster: LocalCluster) -> None:
    with FakeNode(status_of("other"), port=cluster.nodes["n1"].port):
        shown = json.loads(run("status", "--data", cluster.directory, "--json")[1])
    assert shown["nodes"][0]["state"] == "down"


def test_a_process_that_nobody_answers_for_is_starting_and_later_suspect(
    run: Run, cluster: LocalCluster
) -> None:
    cluster.start(["n1"])
    assert cluster.wait_ready(["n1"]) == {}
    shown = json.loads(run("status", "--data", cluster.directory, "--json")[1])
    assert shown["nodes"][0]["pid"] == cluster.pids()["n1"]
    assert shown["nodes"][0]["state"] in {"starting", "suspect"}


@pytest.mark.parametrize(
    ("said", "age_s", "state"),
    [
        ("up", 99.0, "up"),
        ("starting", 99.0, "starting"),
        ("unproven", 1.0, "unproven"),
        ("stopping", 1.0, "suspect"),
        (wire.REFUSED, 1.0, "starting"),
        (wire.REFUSED, 99.0, "suspect"),
        (wire.SILENT, 1.0, "suspect"),
        ("INTERNAL: odd", 1.0, "suspect"),
    ],
)
def test_the_state_of_a_living_process(said: str, age_s: float, state: str) -> None:
    words = {"up", "starting", "unproven", "stopping"}
    answer = kv_pb2.Status(state=said) if said in words else said
    assert show.judged(answer, age_s) == state


def seen_by(**others: list[str]) -> list[show.Node]:
    """Return nodes that are up and say what they think of n1, n2 and so on."""
    return [
        show.Node(
            id=name,
            address="x:1",
            pid=1,
            state="up",
            status=kv_pb2.Status(
                node=name,
                state="up",
                peers=[
                    kv_pb2.PeerStatus(node=f"n{number}", state=state)
                    for number, state in enumerate(states, 1)
                    if state
                ],
            ),
        )
        for name, states in others.items()
    ]


@pytest.mark.parametrize(
    ("nodes", "states"),
    [
        (seen_by(n1=["", "down", "down"], n2=["down", "", "up"], n3=["down", "up", ""]), "suspect"),
        (seen_by(n1=["", "up", "up"], n2=["down", "", "up"], n3=["up", "up", ""]), "up"),
        (seen_by(n1=["", "up", "up"], n2=["suspect", "", "up"], n3=["down", "up", ""]), "up"),
        (seen_by(n1=["", "down"], n2=["down", ""]), "up"),
    ],
    ids=["nobody", "one does", "one doubts", "one against one"],
)
def test_a_node_that_nobody_hears_is_suspect(nodes: list[show.Node], states: str) -> None:
    first, *others = show.doubted(nodes)
    assert (first.id, first.state) == ("n1", states)
    assert {node.state for node in others} == {"up"}


def test_by_seeds_the_members_are_found_and_the_dead_listed(run: Run) -> None:
    dead = f"127.0.0.1:{free_base(1)}"
    with FakeNode(status_of("n1")) as node, socket.create_server(("127.0.0.1", 0)) as deaf:
        node.topology = topology(node.address, dead, f"127.0.0.1:{deaf.getsockname()[1]}")
        code, out, _ = run("status", "--seeds", node.address, "--json")
    shown = json.loads(out)
    assert (code, shown["cluster"]) == (0, "far")
    assert [n["state"] for n in shown["nodes"]][:2] == ["up", "down"]
    assert [n["pid"] for n in shown["nodes"]] == [4242, None, None]


def test_no_server_is_told(run: Run) -> None:
    dead = f"127.0.0.1:{free_base(1)}"
    for command in ("status", "ring", "conflicts"):
        code, out, said = run(command, "--seeds", dead)
        assert (code, out) == (1, ""), command
        assert said.startswith(f"kvnode: no node answers at {dead}"), command


def test_the_ring_is_shown(run: Run) -> None:
    with FakeNode() as node:
        node.topology = topology(node.address, "x:1")
        code, out, _ = run("ring", "--seeds", node.address)
    assert code == 0
    assert out.startswith("cluster far · epoch 2 · 2 partitions · n = 1")
