"""Processes of a local cluster: started once, found again, stopped for good."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kvnode.cli.local import ClusterError, LocalCluster
from kvnode.runtime.config import default_config
from tests.unit.cli.fakes import FAKE


def ready(cluster: LocalCluster, *ids: str) -> dict[str, str]:
    return cluster.wait_ready(ids or tuple(cluster.nodes), timeout_s=20)


def test_every_node_is_started_once_and_becomes_ready(cluster: LocalCluster) -> None:
    told: list[str] = []
    assert cluster.start(cluster.nodes) == ("n1", "n2", "n3")
    assert cluster.wait_ready(cluster.nodes, timeout_s=20, on_ready=told.append) == {}
    assert sorted(told) == ["n1", "n2", "n3"]
    assert cluster.start(cluster.nodes) == ()
    assert None not in cluster.pids().values()


def test_another_command_finds_the_same_processes(cluster: LocalCluster) -> None:
    cluster.start(["n2"])
    other = LocalCluster.open(cluster.directory)
    assert other.running() == ("n2",)
    assert other.pids() == cluster.pids()


def test_a_killed_node_is_seen_as_dead_and_starts_again(cluster: LocalCluster) -> None:
    cluster.start(cluster.nodes)
    assert ready(cluster) == {}
    pid = cluster.signal("n2", signal.SIGKILL)
    assert pid is not None
    cluster.stop(["n2"])
    assert cluster.running() == ("n1", "n3")
    assert cluster.exit_status(pid) == -signal.SIGKILL
    assert cluster.signal("n2", signal.SIGKILL) is None
    assert cluster.start(cluster.nodes) == ("n2",)
    assert ready(cluster, "n2") == {}


def test_stopping_is_graceful_and_kills_only_those_that_do_not_obey(cluster: LocalCluster) -> None:
    (cluster.nodes["n3"].folder).mkdir(parents=True)
    (cluster.nodes["n3"].folder / "stubborn").touch()
    cluster.start(cluster.nodes)
    assert ready(cluster) == {}
    pids = cluster.pids()
    assert cluster.stop(timeout_s=1) == 1
    assert cluster.running() == ()
    assert [cluster.exit_status(pid) for pid in pids.values() if pid] == [0, 0, -signal.SIGKILL]


def test_a_halted_node_is_woken_to_stop(cluster: LocalCluster) -> None:
    cluster.start(["n1"])
    assert ready(cluster, "n1") == {}
    cluster.signal("n1", signal.SIGSTOP)
    assert cluster.stop(timeout_s=10) == 0


def test_a_node_that_refuses_to_start_is_told_with_its_last_words(cluster: LocalCluster) -> None:
    cluster.nodes["n2"].folder.mkdir(parents=True)
    (cluster.nodes["n2"].folder / "refuse").touch()
    cluster.start(cluster.nodes)
    assert ready(cluster) == {"n2": "died: the disk is not mine"}
    assert cluster.running() == ("n1", "n3")


def test_a_node_that_is_not_ready_in_time_is_told_with_its_log(cluster: LocalCluster) -> None:
    node = cluster.nodes["n1"]
    node.folder.mkdir(parents=True)
    (node.folder / "slow").touch()
    cluster.start(["n1"])
    assert cluster.wait_ready(["n1"], timeout_s=0.3) == {
        "n1": f"not ready after 0 s; see {node.log}"
    }


@pytest.mark.parametrize("offset", [0, 1000])
def test_a_taken_port_is_named_before_anything_starts(cluster: LocalCluster, offset: int) -> None:
    port = cluster.nodes["n2"].port + offset
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(ClusterError, match=f"port {port} .*n2.* is in use"):
            cluster.start(cluster.nodes)
        assert cluster.running() == ()


def test_a_node_of_another_machine_is_refused(tmp_path: Path) -> None:
    settings = default_config(1)
    (tmp_path / "f.toml").write_text('[[node]]\nid = "far"\naddress = "192.0.2.7:7001"\n')
    text = (tmp_path / "f.toml").read_text()
    cluster = LocalCluster.create(tmp_path / "d", settings, text=text)
    with pytest.raises(ClusterError, match=r"far is at 192.0.2.7:7001, which is not this machine"):
        LocalCluster.open(cluster.directory).start(["far"])


def test_a_node_inherits_no_descriptor_and_no_terminal(cluster: LocalCluster) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    cluster.start(["n1"])
    assert ready(cluster, "n1") == {}
    os.close(writer)
    assert os.read(reader, 1) == b""  # the end of the pipe: nobody else holds it open
    os.close(reader)
    pid = cluster.pids()["n1"]
    assert pid is not None
    assert os.getsid(pid) == pid


def test_a_node_outlives_the_command_that_started_it(cluster: LocalCluster) -> None:
    code = (
        "import sys; from pathlib import Path; from kvnode.cli.local import LocalCluster;"
        f"LocalCluster.open(Path({str(cluster.directory)!r}), program={FAKE!r}).start(['n1'])"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=_with_path())
    assert ready(cluster, "n1") == {}
    assert cluster.running() == ("n1",)


def _with_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_no_cluster_and_no_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"no cluster in .*kvnode up"):
        LocalCluster.open(tmp_path / "none")
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ClusterError, match="is a file"):
        LocalCluster.open(file)
    with pytest.raises(ClusterError, match="is a file"):
        LocalCluster.create(file, default_config(1))
    with pytest.raises(ClusterError, match="is a file"):
        LocalCluster.create(file / "below", default_config(1))


def test_the_configuration_that_was_given_keeps_its_comments(tmp_path: Path) -> None:
    text = '# ours\n[[node]]\nid = "n1"\naddress = "127.0.0.1:7001"\n'
    LocalCluster.create(tmp_path, default_config(1), text=text)
    assert (tmp_path / "cluster.toml").read_text() == text
