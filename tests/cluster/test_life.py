"""Nodes stop, die, come back, are copied and restored: nothing acknowledged is lost, and a folder
that is not what it was promised to be is noticed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvproto import kv_pb2, peer_pb2
from tests.support import wire
from tests.support.load import Writers, acked_by, missing_on
from tests.support.nodes import Nodes, environment, finished, free_base, until
from tests.support.wire import Refusal, Stream, call

Cluster = Callable[..., Nodes]

_KEYS = [f"key{number}" for number in range(200)]


def fill(nodes: Nodes, text: str) -> None:
    with nodes.client() as client:
        client.put_many({key: f"{text} {key}".encode() for key in _KEYS})


def check(nodes: Nodes, text: str, *names: str) -> None:
    with nodes.client(*names) as client:
        assert client.get_many(_KEYS) == [f"{text} {key}".encode() for key in _KEYS]


# ---- death and return --------------------------------------------------------------------------


def test_a_cluster_killed_whole_comes_back_with_everything(cluster: Cluster) -> None:
    nodes = cluster()
    fill(nodes, "first")
    with nodes.client() as client:
        client.delete("gone")
        client.put("gone", b"x")
        client.delete("gone")
    nodes.kill()
    nodes.start()
    nodes.wait_linked()
    check(nodes, "first")
    with nodes.client() as client:
        assert client.get("gone") is None
    assert [nodes.status(name).state for name in nodes.ids] == ["up"] * 3


def test_a_killed_node_catches_up_by_read_repair(cluster: Cluster) -> None:
    nodes = cluster()
    fill(nodes, "old")
    nodes.kill("n2")
    fill(nodes, "new")
    nodes.start("n2")
    nodes.wait_linked()
    check(nodes, "new", "n2")


@pytest.mark.parametrize("name", ["n1", "n3"])
def test_a_node_stopped_under_load_loses_nothing_and_fails_nothing(
    cluster: Cluster, name: str
) -> None:
    nodes = cluster()
    with nodes.client() as client, Writers(client) as writers:
        writers.wait_for(300)
        pid = nodes.pid(name)
        nodes.stop(name)
        with writers.resting():
            promised = acked_by(name, writers.acked)
            assert missing_on(nodes.store(name), promised) == []
            assert len(promised) > 100
        writers.wait_for(100)
    assert writers.failed == []
    assert nodes.local.exit_status(pid) == 0
    assert (nodes.node(name).folder / "clean-stop").exists()
    assert "stopped clean=yes" in nodes.log(name)
    nodes.start(name)
    assert nodes.status(name).state == "up"
    assert not (nodes.node(name).folder / "clean-stop").exists()


def test_a_kill_leaves_no_mark_of_a_clean_stop(cluster: Cluster) -> None:
    nodes = cluster(1)
    nodes.kill()
    assert not (nodes.node("n1").folder / "clean-stop").exists()


def test_a_node_that_stops_tells_its_clients_first(cluster: Cluster) -> None:
    nodes = cluster(1)
    with nodes.channel("n1") as channel, Stream(channel, "KV/Pipeline") as stream:
        assert stream.ask(wire.gets(b"k")).draining is False
        os.kill(nodes.pid("n1"), signal.SIGTERM)
        assert stream.take().draining is True


def test_a_stopping_node_refuses_what_is_new_and_finishes_what_it_has_begun(
    cluster: Cluster,
) -> None:
    """Its peers are halted, so that one write is still under way when it is told to stop."""
    nodes = cluster(settings="\n[limits]\nsilence_ms = 60000\n")
    pid = nodes.pid("n1")
    for name in ("n2", "n3"):
        nodes.local.signal(name, signal.SIGSTOP)
    frame = wire.puts({b"begun": b"v"}, timestamp=wire.hlc())
    frame.puts.timeout_ms[0] = 3_000
    with nodes.channel("n1") as channel, Stream(channel, "KV/Pipeline") as stream:
        stream.send(frame)
        until(lambda: nodes.metric("n1", "operations_in_flight") == 1, what="a write under way")
        os.kill(pid, signal.SIGTERM)
        until(lambda: nodes.page("n1", "/ready")[0] == 503, what="draining")
        late = call(channel, "KV/Put", kv_pb2.PutRequest(key=b"late", value=b"v"))
        failures = failures_of(stream)
    assert isinstance(late, Refusal)
    assert (late.code, late.text) == (grpc.StatusCode.UNAVAILABLE, "this node is stopping")
    assert late.failure is not None
    assert late.failure.outcome == kv_pb2.NOT_APPLIED
    (begun,) = failures
    assert (begun.code, begun.outcome) == (kv_pb2.UNCERTAIN, kv_pb2.UNCERTAIN_OUTCOME)
    assert {reply.node: reply.answer for reply in begun.replies}["n1"] == "acknowledged"
    until(lambda: nodes.local.exit_status(pid) == 0, what="a good end")


def failures_of(stream: Stream) -> list[kv_pb2.Failure]:
    """Return the failures of the next frame that has any."""
    while not (frame := stream.take()).failures:
        assert isinstance(frame, kv_pb2.PipelineResponse)
    return list(frame.failures)


def test_a_write_stuck_in_a_halted_coordinator_never_buries_what_came_later(
    cluster: Cluster,
) -> None:
    """Retried elsewhere and acknowledged, then replaced; only then does the first attempt begin."""
    nodes = cluster()
    stuck = kv_pb2.PutRequest(key=b"k", value=b"old", write_id=b"w" * 16, timestamp=wire.hlc())
    nodes.local.signal("n1", signal.SIGSTOP)
    with nodes.channel("n1") as halted, nodes.channel("n2") as other:
        put: Any = halted.unary_unary("/kvnode.v1.KV/Put")
        attempt = put.future(stuck.SerializeToString(), timeout=60, wait_for_ready=True)
        until(lambda: "n1" not in nodes.peers_up("n2"), what="noticing the halt")
        assert set(call(other, "KV/Put", stuck).acked_by) == {"n2", "n3"}
        call(other, "KV/Put", kv_pb2.PutRequest(key=b"k", value=b"new"))
        nodes.local.signal("n1", signal.SIGCONT)
        kv_pb2.PutResponse.FromString(attempt.result(timeout=60))
    nodes.wait_linked()  # reads with r=3 need all of them
    for name in nodes.ids:
        with nodes.channel(name) as channel:
            for r in (2, 3):
                got = call(channel, "KV/Get", kv_pb2.GetRequest(key=b"k", r=r))
                assert got.value == b"new", (name, r)


# ---- backups ------------------------------------------------------------------------


@contextmanager
def serving(nodes: Nodes, name: str, data: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """Run a node of the cluster from another folder, at another port."""
    config = nodes.local.directory / "cluster.toml"
    options = ("--node", name, "--config", config, "--data", data, "--listen", f"127.0.0.1:{port}")
    process = subprocess.Popen(
        [sys.executable, "-m", "kvnode.cli.main", "serve", *map(str, options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    with finished(process):
        yield process


def test_a_node_on_an_older_folder_is_unproven_and_its_reads_do_not_count(
    cluster: Cluster, tmp_path: Path
) -> None:
    # No exchange mends what differs, and so ends the doubt, while the test looks.
    nodes = cluster(settings="\n[limits]\nexchange_grace_ms = 60000\n")
    fill(nodes, "old")
    nodes.stop("n3")
    shutil.copytree(nodes.node("n3").folder, tmp_path / "backup")
    nodes.start("n3")
    nodes.wait_linked()
    fill(nodes, "new")
    nodes.stop("n3")
    shutil.rmtree(nodes.node("n3").folder)
    shutil.copytree(tmp_path / "backup", nodes.node("n3").folder)

    nodes.local.start(["n3"])
    until(lambda: is_unproven(nodes, "n3"), what="noticing the older folder")
    assert "store_is_older" in nodes.log("n3")
    nodes.wait_linked()
    nodes.kill("n1")
    until(lambda: nodes.peers_up("n2") == {"n3"}, what="noticing a death")
    with nodes.channel("n2") as channel:
        answer = call(channel, "KV/Get", kv_pb2.GetRequest(key=b"key1"), timeout=1.0)
    assert isinstance(answer, Refusal), "an unproven replica made up the quorum"
    nodes.start("n1")
    nodes.wait_linked()
    check(nodes, "new", "n3")


def is_unproven(nodes: Nodes, name: str) -> bool:
    return nodes.status(name).state == "unproven" and nodes.metric(name, "proven") == 0


# ---- a new topology ----------------------------------------------------------------------------


def test_a_newer_topology_is_followed_passed_on_and_kept(cluster: Cluster) -> None:
    """A member moves to another address; the tests speak as that member while it is away."""
    nodes = cluster()
    fill(nodes, "kept")
    nodes.stop("n3")
    port = free_base(1)
    newer = moved(nodes, "n3", f"127.0.0.1:{port}")
    introduce(nodes, "n1", newer)
    until(lambda: nodes.status("n2").epoch == 2, what="passing the topology on")
    assert nodes.status("n1").epoch == 2
    check(nodes, "kept")

    with serving(nodes, "n3", nodes.node("n3").folder, port):
        until(lambda: nodes.peers_up("n1") == {"n2", "n3"}, what="linking with the new address")
        nodes.kill("n1")
        nodes.start("n1")
        assert nodes.status("n1").epoch == 2
        until(lambda: nodes.peers_up("n1") == {"n2", "n3"}, what="linking with it again")
        nodes.kill("n2")
        check(nodes, "kept", "n1")


def test_a_client_of_the_older_epoch_is_given_the_newer_topology(cluster: Cluster) -> None:
    nodes = cluster(3, start=False)
    nodes.start("n1", "n2")
    introduce(nodes, "n1", moved(nodes, "n3", f"127.0.0.1:{free_base(1)}"))
    with nodes.channel("n1") as channel, Stream(channel, "KV/Pipeline") as stream:
        frame = wire.gets(b"k")
        frame.epoch = 1
        assert stream.ask(frame).topology.epoch == 2


def moved(nodes: Nodes, name: str, address: str) -> kv_pb2.Topology:
    """Return the next topology, in which a member is at another address."""
    with nodes.channel("n1") as channel:
        topology = call(channel, "Cluster/GetTopology", kv_pb2.GetTopologyRequest())
    assert isinstance(topology, kv_pb2.Topology)
    topology.epoch += 1
    (member,) = [member for member in topology.members if member.id == name]
    member.address = address
    return topology


def introduce(nodes: Nodes, name: str, newer: kv_pb2.Topology) -> None:
    """Tell a node of a newer topology, as a peer that has heard of it."""
    said = peer_pb2.Hello(node="n3", incarnation=1, start_number=0)
    frame = peer_pb2.PeerFrame(
        format=1, cluster=newer.cluster_id, epoch=newer.epoch, hello=said, topology=newer
    )
    with nodes.channel(name) as channel, Stream(channel, "Peer/Link") as stream:
        assert isinstance(stream.ask(frame), peer_pb2.PeerFrame)
    assert nodes.status(name).epoch == newer.epoch
