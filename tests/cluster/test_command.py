"""The command on real nodes: what a person types, and what comes of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from kvnode.cli.local import LocalCluster
from tests.support.nodes import free_base, until

pytestmark = pytest.mark.cluster

COMMAND = [sys.executable, "-m", "kvnode.cli.main"]
BIG = os.urandom(3_000_000)


def call(*words: object, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a process of its own, with pipes."""
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=100,
        check=False,
    )


def told(done: subprocess.CompletedProcess[bytes]) -> tuple[int, bytes, str]:
    return done.returncode, done.stdout, done.stderr.decode()


class Cluster:
    """Five nodes, and the command on them."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.local = LocalCluster.open(data)

    def run(self, *words: object, stdin: bytes | None = None) -> tuple[int, bytes, str]:
        return told(call(*words, "--data", self.data, stdin=stdin))

    def states(self) -> dict[str, str]:
        shown = json.loads(self.run("status", "--json")[1])
        return {node["id"]: node["state"] for node in shown["nodes"]}

    def is_heard(self, name: str) -> bool:
        """Whether the others hear a node that says that it is up: until then it is suspect."""
        return self.states()[name] in {"up", "unproven"}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    data = tmp_path_factory.mktemp("command") / "cluster"
    base = free_base(5)
    began = call("up", "--nodes", 5, "--base-port", base, "--data", data, "--detach")
    try:
        assert began.returncode == 0, began.stderr
        yield Cluster(data)
    finally:
        LocalCluster.open(data).stop()


@pytest.fixture(autouse=True)
def everyone_is_up(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.local.start(cluster.local.nodes)
    assert cluster.local.wait_ready(cluster.local.nodes) == {}


def test_what_was_put_is_got_byte_by_byte(cluster: Cluster, tmp_path: Path) -> None:
    value = bytes(range(256)) * 100
    (tmp_path / "file").write_bytes(value)
    status, out, said = cluster.run("put", "k", f"@{tmp_path / 'file'}")
    assert (status, said) == (0, "")
    assert out.startswith(b"stored 25.6 kB on n")
    assert cluster.run("get", "k") == (0, value, "")
    assert cluster.run("put", "k", "-", stdin=b"from stdin\n")[0] == 0
    assert cluster.run("get", "k") == (0, b"from stdin\n", "")


def test_what_was_deleted_is_absent(cluster: Cluster) -> None:
    assert cluster.run("put", "gone", "v")[0] == 0
    assert cluster.run("delete", "gone")[0] == 0
    assert cluster.run("get", "gone") == (1, b"", "kvnode: no value under gone\n")
    assert cluster.run("get", "never") == (1, b"", "kvnode: no value under never\n")


def test_odd_keys_are_keys_like_any_other(cluster: Cluster) -> None:
    for key in ("../../etc/passwd", "a\nb", "\udcff"):
        assert told(call("put", "--data", cluster.data, "--", key, "odd"))[0] == 0
        assert told(call("get", "--data", cluster.data, "--", key))[:2] == (0, b"odd")


def test_bad_requests_are_wrong_usage_in_the_stores_words(cluster: Cluster) -> None:
    for words, line in [
        (["get", "k", "--r", "4"], "r must be 1 to 3"),
        (["put", "k", "v", "--w", "9"], "w must be 1 to 3"),
        (["get", ""], "1 to 4,096 bytes"),
        (["get", "k" * 4097], "4,097"),
    ]:
        status, out, said = cluster.run(*words)
        assert (status, out, said.count("\n")) == (2, b"", 1), words
        assert line in said, words
    status, out, said = cluster.run("get", "k", "--keyspace", "none")
    assert (status, out, "none" in said, said.count("\n")) == (1, b"", True, 1)
    status, _, said = cluster.run("put", "k", "-", stdin=bytes(1_048_577))
    assert (status, "1,048,576" in said, "1,048,577" in said) == (2, True, True)


def test_a_read_goes_on_while_a_node_is_dead(cluster: Cluster) -> None:
    assert cluster.run("put", "alive", "yes")[0] == 0
    for name in ("n1", "n4"):
        assert cluster.run("kill", name)[0] == 0
        assert cluster.states()[name] == "down"
        assert cluster.run("get", "alive")[:2] == (0, b"yes")
        status, out, _ = cluster.run("start", name)
        assert (status, out.startswith(f"{name} ready in ".encode())) == (0, True)
        until(partial(cluster.is_heard, name), what="being heard")


def test_a_halted_node_is_suspect_and_reads_go_on(cluster: Cluster) -> None:
    assert cluster.run("put", "alive", "still")[0] == 0
    assert cluster.run("kill", "n1", "--signal", "STOP")[0] == 0
    try:
        assert cluster.states()["n1"] == "suspect"
        assert cluster.run("get", "alive")[:2] == (0, b"still")
    finally:
        assert cluster.run("kill", "n1", "--signal", "CONT")[0] == 0


def test_explain_names_every_replica(cluster: Cluster) -> None:
    assert cluster.run("put", "why", "because")[0] == 0
    status, out, _ = cluster.run("get", "why", "--explain")
    assert status == 0
    lines = out.decode().splitlines()
    assert lines[0] == "value       because"
    assert sum(line.split("\t")[0] in cluster.local.nodes for line in lines) == 3


def test_ring_and_conflicts_are_shown(cluster: Cluster) -> None:
    status, out, _ = cluster.run("ring")
    assert status == 0
    assert b"256 partitions" in out
    assert sum(line.split(b"\t")[1:2] == [b"n3"] for line in out.splitlines()) == 1
    assert cluster.run("conflicts")[0] == 0


def test_a_folder_loads_while_a_node_dies_and_verifies(cluster: Cluster, tmp_path: Path) -> None:
    for i in range(300):
        (tmp_path / f"d{i % 7}").mkdir(exist_ok=True)
        (tmp_path / f"d{i % 7}" / f"{i}").write_bytes(os.urandom(i * 20))
    (tmp_path / "big").write_bytes(BIG)
    killer = threading.Thread(target=cluster.local.signal, args=("n2", signal.SIGKILL))
    killer.start()
    status, out, said = cluster.run("load", tmp_path, "--jobs", 8, "--prefix", "p/")
    killer.join()
    assert (status, said) == (0, "")
    assert out.startswith(b"loaded 301 files, 3.9 MB in ")
    assert out.endswith(b": 0 failed\n")
    (tmp_path / "d1" / "1").write_bytes(b"other bytes")
    (tmp_path / "new").touch()
    status, out, _ = cluster.run("verify", tmp_path, "--prefix", "p/")
    assert status == 1
    lines = out.decode().splitlines()
    assert lines[:2] == [
        "differ: p/d1/1: 20 bytes stored, 11 in the file",
        "missing: p/new: no such key",
    ]
    assert lines[2].startswith("verified 300 files, 3.9 MB in ")
    assert lines[2].endswith(": 1 differ, 1 missing, 0 failed")


def test_an_interrupted_load_is_quiet_and_harms_no_node(cluster: Cluster, tmp_path: Path) -> None:
    for i in range(5_000):
        (tmp_path / f"{i:04}").touch()
    pids = cluster.local.pids()
    words = ["load", tmp_path, "--jobs", 1, "--prefix", "cut/", "--data", cluster.data]
    with subprocess.Popen(
        [*COMMAND, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as child:
        while cluster.run("get", "cut/0000")[0]:
            assert child.poll() is None
        child.send_signal(signal.SIGINT)
        out, said = child.communicate(timeout=30)
    assert (child.returncode, out, said) == (130, b"", b"")
    assert cluster.run("get", "cut/0000")[0] == 0
    assert cluster.local.pids() == pids


def test_a_killed_nodes_disk_holds_what_it_acknowledged(cluster: Cluster) -> None:
    _, out, _ = cluster.run("put", "durable", "yes", "--w", "3")
    assert len(out.split(b" on ")[1].split(b",")) == 3
    name = out.decode().split()[-1]
    assert cluster.run("kill", name)[0] == 0
    status, shown, said = cluster.run("inspect", name, "durable")
    assert (status, said) == (0, "")
    assert shown.splitlines()[-1].endswith(b"\tyes")


def refused(cluster: Cluster, folder: Path, node: str = "n1", **more: str) -> str:
    """Return the words of a node that must not come up."""
    flags = [word for name, value in more.items() for word in (f"--{name}", value)]
    where = ("--config", cluster.data / "cluster.toml", "--data", folder)
    status, out, said = told(call("serve", "--node", node, *where, *flags))
    assert (status, out, said.count("\n")) == (1, b"", 1), said
    return said


def test_a_folder_that_cannot_be_a_nodes_is_refused_in_one_line(
    cluster: Cluster, tmp_path: Path
) -> None:
    running = cluster.local.nodes["n1"].folder
    pid = cluster.local.pids()["n1"]
    assert f"{pid}" in refused(cluster, running)
    assert "n1" in refused(cluster, running, node="n2")
    file = tmp_path / "file"
    file.touch()
    assert "is a file" in refused(cluster, file)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "photo.jpg").touch()
    assert str(foreign) in refused(cluster, foreign)
    newer = tmp_path / "newer"
    newer.mkdir()
    known = json.loads((running / "identity.json").read_text())
    (newer / "identity.json").write_text(json.dumps({**known, "format_version": 99}))
    assert "99" in refused(cluster, newer)
    other = tmp_path / "other"
    other.mkdir()
    (other / "identity.json").write_text(json.dumps({**known, "cluster_id": "0" * 32}))
    assert "cluster" in refused(cluster, other)


def test_what_a_node_cannot_be_is_refused_in_one_line(cluster: Cluster, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    assert "n9" in refused(cluster, fresh, node="n9")
    port = cluster.local.nodes["n1"].port
    assert f"127.0.0.1:{port + 1_000} (metrics and health) cannot" in refused(cluster, fresh)
    assert "--insecure" in refused(cluster, fresh, listen="0.0.0.0:1")


def test_a_cluster_without_its_key_is_refused_in_one_line(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text((cluster.data / "cluster.toml").read_text())
    done = call(
        "serve", "--node", "n1", "--config", tmp_path / "cluster.toml", "--data", tmp_path / "d"
    )
    assert done.returncode == 1
    assert b"cluster.key is missing" in done.stderr


def test_five_nodes_are_ready_in_under_three_seconds(tmp_path: Path) -> None:
    took = []
    base = free_base(5)
    for attempt in range(3):  # the machine of a test run has other things to do as well
        data = tmp_path / f"{attempt}"
        done = call("up", "--nodes", 5, "--base-port", base, "--data", data, "--detach")
        LocalCluster.open(data).stop()
        line = next(x for x in done.stdout.splitlines() if x.startswith(b"5 nodes ready in "))
        took.append(float(line.split()[4]))
        if took[-1] < 3:
            return
    raise AssertionError(took)
