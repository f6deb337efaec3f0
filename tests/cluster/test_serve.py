"""`kvnode serve` refuses what it cannot do in one line, with exit status 1 and no traceback.

Each refusal is made by the real command in a process of its own, and nothing is left behind.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import rocksdict

from kvnode.core.batch import Family
from tests.support.nodes import Nodes, environment, finished, free_base, until

Cluster = Callable[..., Nodes]


@pytest.fixture
def alone(cluster: Cluster) -> Nodes:
    """Give a cluster of one node, which is not started."""
    return cluster(1, start=False)


def serving(
    nodes: Nodes, *words: str | Path, node: str = "n1", data: Path | None = None
) -> subprocess.Popen[str]:
    """Start `kvnode serve` for a node; what it says comes by its stdout."""
    options: tuple[str | Path, ...] = (
        *("--node", node, "--config", nodes.local.directory / "cluster.toml"),
        *("--data", data or nodes.local.directory / "data", *words),
    )
    return subprocess.Popen(
        [sys.executable, "-m", "kvnode.cli.main", "serve", *map(str, options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )


def refused(nodes: Nodes, *words: str | Path, node: str = "n1", data: Path | None = None) -> str:
    """Return the one line that `kvnode serve` ends with."""
    with finished(serving(nodes, *words, node=node, data=data)) as process:
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 1, said
    assert said.count("\n") == 1, said
    assert said.startswith("kvnode serve: "), said
    return said


# ---- where it listens --------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "example.org"])
def test_an_open_address_is_refused_with_the_reason(alone: Nodes, host: str) -> None:
    said = refused(alone, "--listen", f"{host}:{free_base(1)}")
    assert f"{host}:" in said
    assert "no TLS and no authentication" in said
    assert "--insecure" in said


def test_an_open_address_is_served_when_insisted_on_with_a_warning(alone: Nodes) -> None:
    data, port = alone.local.directory / "data", free_base(1)
    for _ in range(2):  # at every start
        with finished(serving(alone, "--listen", f"0.0.0.0:{port}", "--insecure")) as process:
            assert process.stdout is not None
            assert "warning: 0.0.0.0" in process.stdout.readline()
            until(lambda: is_ready(data / "node.log"), what="being ready")
            process.terminate()
            process.wait(20)
        log = (data / "node.log").read_text()
        assert "open to the network without TLS or authentication" in log
        (data / "node.log").write_text("")


def is_ready(log: Path) -> bool:
    return log.exists() and " ready " in log.read_text()


def test_a_peer_is_dialled_where_the_command_says(cluster: Cluster) -> None:
    nodes = cluster(2, start=False)
    port, folder = free_base(1), nodes.local.directory
    second = serving(nodes, "--listen", f"127.0.0.1:{port}", node="n2", data=folder / "second")
    there = f"n2=127.0.0.1:{port}"
    with finished(second), finished(serving(nodes, "--peer", there, data=folder / "first")):
        until(lambda: nodes.peers_up("n1") == {"n2"}, what="dialling n2 where it is")


@pytest.fixture
def taken() -> Iterator[Callable[[int], None]]:
    """Give a function that takes a port."""
    held: list[socket.socket] = []

    def take(port: int) -> None:
        one = socket.socket()
        held.append(one)
        one.bind(("127.0.0.1", port))
        one.listen()

    yield take
    for one in held:
        one.close()


@pytest.mark.parametrize("offset", [0, 1_000], ids=["requests", "http"])
def test_a_port_in_use_is_named(alone: Nodes, taken: Callable[[int], None], offset: int) -> None:
    port = alone.node("n1").port + offset
    taken(port)
    said = refused(alone)
    assert f":{port}" in said
    assert "in use" in said


# ---- the data folder ---------------------------------------------------------------------------


def test_a_folder_in_use_is_refused_with_its_process(cluster: Cluster) -> None:
    nodes = cluster(1)
    said = refused(nodes, "--listen", f"127.0.0.1:{free_base(1)}", data=nodes.node("n1").folder)
    assert f"in use by process {nodes.pid('n1')}" in said
    assert nodes.status("n1").state == "up"


def test_a_file_in_the_folders_place_is_refused(alone: Nodes, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "is a file" in refused(alone, data=tmp_path / "file")


def test_a_folder_of_something_else_is_refused_and_left_alone(alone: Nodes, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    assert "not a kvnode folder" in refused(alone, data=tmp_path / "photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def identity(alone: Nodes, folder: Path, **changes: object) -> Path:
    """Make a data folder of this cluster's n1, but for `changes`."""
    folder.mkdir()
    known = {
        "cluster_id": alone.birth.cluster_id.hex(),
        "cluster_name": "kvnode",
        "node_id": "n1",
        "format_version": 1,
    }
    (folder / "identity.json").write_text(json.dumps(known | changes))
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cluster_id": "00" * 16, "cluster_name": "shop"}, "belongs to another cluster: shop"),
        ({"node_id": "n7"}, "belongs to node n7, not n1"),
        ({"format_version": 2}, "has format 2; this kvnode reads up to 1"),
        ({"format_version": "x"}, "is damaged"),
    ],
    ids=["cluster", "node", "newer", "damaged"],
)
def test_a_folder_that_is_not_its_own_is_refused(
    alone: Nodes, tmp_path: Path, change: dict[str, object], words: str
) -> None:
    folder = identity(alone, tmp_path / "folder", **change)
    assert words in refused(alone, data=folder)
    assert [path.name for path in folder.iterdir()] == ["identity.json"]


# ---- the configuration -------------------------------------------------------------------------


def test_a_node_that_the_configuration_lacks_is_refused(alone: Nodes) -> None:
    assert "has no node 'n9'; it has n1" in refused(alone, node="n9")
    assert "no such node" in refused(alone, "--peer", "n9=127.0.0.1:1")


def test_a_broken_configuration_is_refused_with_its_place(alone: Nodes) -> None:
    path = alone.local.directory / "cluster.toml"
    path.write_text("[cluster\nname = 'x'\n")
    assert f"{path}:1:" in refused(alone)
    path.unlink()
    assert f"file not found: {path}" in refused(alone)


def test_a_missing_or_broken_key_file_is_refused(alone: Nodes) -> None:
    key = alone.local.directory / "cluster.key"
    key.write_text("{}")
    assert "is not a cluster's key file" in refused(alone)
    key.unlink()
    assert "cluster.key is missing" in refused(alone)


def test_a_store_of_a_newer_kvnode_is_refused_and_not_taken_for_damaged(cluster: Cluster) -> None:
    nodes = cluster(1)
    nodes.stop()
    options = rocksdict.Options(raw_mode=True)
    known = {family.name.lower(): options for family in Family}
    store = rocksdict.Rdict(str(nodes.store("n1")), options, column_families=known)
    store.create_column_family("future", options)
    store.close()
    said = refused(nodes, data=nodes.node("n1").folder)
    assert "newer kvnode" in said
    assert "future" in said
    assert not nodes.store("n1").with_name("store.old").exists()
