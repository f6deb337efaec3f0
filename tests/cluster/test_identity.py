"""One identity, one life: a copied folder is turned away, a restored one is let in and doubted."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvnode.core.batch import Family
from kvnode.core.keys import StorageKey, partition_of_key
from kvnode.core.record import decode
from kvnode.storage.engine import open_read_only
from tests.support.nodes import Nodes, environment, finished, free_base, until

Cluster = Callable[..., Nodes]

_KEYS = [f"key{number}" for number in range(100)]


@pytest.fixture
def nodes(cluster: Cluster) -> Nodes:
    """Give three nodes that hold something; n3 has a twin folder, made while it was down."""
    nodes = cluster()
    fill(nodes, "old")
    nodes.stop("n3")
    shutil.copytree(nodes.node("n3").folder, twin(nodes))
    (twin(nodes) / "node.log").unlink()
    return nodes


def twin(nodes: Nodes) -> Path:
    return nodes.local.directory / "twin"


def fill(nodes: Nodes, text: str, *names: str) -> None:
    with nodes.client(*names) as client:
        client.put_many({key: f"{text} {key}".encode() for key in _KEYS})


def check(nodes: Nodes, text: str, *names: str) -> None:
    with nodes.client(*names) as client:
        assert client.get_many(_KEYS) == [f"{text} {key}".encode() for key in _KEYS]


def serving(nodes: Nodes, *words: str, port: int) -> subprocess.Popen[str]:
    """Start n3 on the twin folder, at another port."""
    config = nodes.local.directory / "cluster.toml"
    options = ("--node", "n3", "--config", config, "--data", twin(nodes))
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "kvnode.cli.main",
            "serve",
            *map(str, options),
            "--listen",
            f"127.0.0.1:{port}",
            *words,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )


def refused(nodes: Nodes, *words: str) -> str:
    """Return the one line with which the twin goes."""
    with finished(serving(nodes, *words, port=free_base(1))) as process:
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 1, said
    assert said.count("\n") == 1, said
    assert said.startswith("kvnode serve: n3 is "), said
    return said


def test_a_copy_of_a_living_nodes_folder_refuses_and_says_who_lives(nodes: Nodes) -> None:
    nodes.start("n3")
    nodes.wait_linked()
    living = nodes.status("n3")
    for words in ((), ("--restored",)):
        said = refused(nodes, *words)
        assert f"n3 is alive as incarnation {living.incarnation:016x}" in said
        assert str(nodes.node("n3").folder) in said
        assert nodes.node("n3").address in said
    assert nodes.status("n3").incarnation == living.incarnation
    assert nodes.peers_up("n3") == {"n1", "n2"}
    check(nodes, "old", "n3")


def test_a_copy_of_a_node_that_is_down_just_now_refuses_too(nodes: Nodes) -> None:
    """Again and again: a supervisor's patience must not wear the refusal down."""
    nodes.start("n3")
    nodes.wait_linked()
    incarnation = nodes.status("n3").incarnation
    nodes.kill("n3")
    for _ in range(2):
        said = refused(nodes)
        assert (
            f"n3 is held by a life at {_host_of(said)}:{nodes.node('n3').folder} (start 2" in said
        )
        assert f"incarnation {incarnation:016x}, since 20" in said
        assert str(twin(nodes)) in said
        assert "--restored" in said
    nodes.start("n3")
    nodes.wait_linked()
    assert nodes.status("n3").state == "up"


def _host_of(said: str) -> str:
    return said.partition(" at ")[2].partition(":")[0]


def is_known(log: str) -> bool:
    """Tell whether a node serves, and both peers have heard of its life."""
    return all(said in log for said in (" ready ", "peer_up peer=n1", "peer_up peer=n2"))


def test_what_its_operator_vouches_for_takes_over_and_the_first_is_refused_later(
    nodes: Nodes,
) -> None:
    nodes.start("n3")
    nodes.wait_linked()
    nodes.kill("n3")
    port = free_base(1)
    with finished(serving(nodes, "--restored", port=port)):
        log = twin(nodes) / "node.log"
        until(lambda: log.exists() and is_known(log.read_text()), what="serving")
        assert "store_is_older" in log.read_text()
    nodes.local.start(["n3"])
    failed = nodes.local.wait_ready(["n3"])
    until(lambda: "n3" not in nodes.local.running(), what="the first one's leaving")
    last = nodes.log("n3").splitlines()[-1]
    assert f"n3 is held by a life at {_host_of(last)}:{twin(nodes)} (start 3" in last, failed


@pytest.fixture
def restored(nodes: Nodes) -> Nodes:
    """Give the nodes with n3 on its older folder, in its own place; it has lived on meanwhile."""
    for text in ("newer", "newest"):
        nodes.start("n3")
        nodes.wait_linked()
        fill(nodes, text, "n3")
        nodes.stop("n3")
    shutil.copytree(nodes.node("n3").folder, nodes.local.directory / "lost")
    shutil.rmtree(nodes.node("n3").folder)
    shutil.copytree(twin(nodes), nodes.node("n3").folder)
    nodes.start("n3")
    nodes.wait_linked()
    return nodes


def test_an_older_folder_in_its_own_place_is_let_in_unproven_and_issues_no_dot_twice(
    restored: Nodes,
) -> None:
    nodes = restored
    assert "store_is_older" in nodes.log("n3")
    check(nodes, "newest", "n3")
    fill(nodes, "latest", "n3")
    check(nodes, "latest")
    nodes.kill()
    payloads: dict[tuple[int, int, int], set[tuple[StorageKey, int]]] = {}
    folders = [*map(nodes.store, nodes.ids), *(nodes.local.directory / n / "store" for n in _LOST)]
    for folder in folders:
        for partition, actor, counter, what in dots(folder):
            payloads.setdefault((partition, actor, counter), set()).add(what)
    assert len(payloads) >= 3 * len(_KEYS)
    assert [dot for dot, named in payloads.items() if len(named) > 1] == []


_LOST = ("lost", "twin")


def dots(store: Path) -> Iterator[tuple[int, int, int, tuple[StorageKey, int]]]:
    """Walk what a stopped node's store names by dots: (partition, actor, counter), and what."""
    reader = open_read_only(store)
    try:
        for place, data in reader.scan(Family.RECORDS, b"", None, 100_000):
            key = StorageKey(place)
            for version in decode(key, data).versions:
                actor, counter = version.dot
                yield partition_of_key(key, 8), actor, counter, (key, version.checksum)
    finally:
        reader.close()
