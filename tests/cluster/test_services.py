"""What a node serves to any gRPC or HTTP client, seen from outside: the names, health, figures,
unary calls and raw frames.
"""

from __future__ import annotations

import http.client
import os
import signal
from collections.abc import Callable, Iterator

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from kvproto import kv_pb2
from tests.support import wire
from tests.support.nodes import Nodes, until
from tests.support.wire import Refusal, Stream, call

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def channel(trio: Nodes) -> Iterator[grpc.Channel]:
    with trio.channel("n1") as opened:
        yield opened


# ---- reflection and health ---------------------------------------------------------------------


def test_reflection_lists_and_describes_the_services(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    names = set(database.get_services())
    assert names >= {"kvnode.v1.KV", "kvnode.v1.Cluster", "grpc.health.v1.Health"}
    service = DescriptorPool(database).FindServiceByName("kvnode.v1.KV")
    assert {method.name for method in service.methods} == {"Get", "Put", "Delete", "Pipeline"}


@pytest.mark.parametrize("service", ["", "kvnode.v1.KV", "kvnode.v1.Cluster", "kvnode.v1.Peer"])
def test_a_ready_node_is_healthy_by_the_standard_service(
    channel: grpc.Channel, service: str
) -> None:
    assert health(channel, service) == SERVING


def health(channel: grpc.Channel, service: str) -> int:
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    answer: health_pb2.HealthCheckResponse = check(
        health_pb2.HealthCheckRequest(service=service), timeout=wire.TIMEOUT_S
    )
    return answer.status


def test_who_watches_a_nodes_health_hears_that_it_stops(cluster: Callable[..., Nodes]) -> None:
    nodes = cluster(1)
    with nodes.channel("n1") as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        states = watch(health_pb2.HealthCheckRequest(service=""), timeout=wire.TIMEOUT_S)
        assert next(states).status == SERVING
        os.kill(nodes.pid("n1"), signal.SIGTERM)
        assert next(states).status == NOT_SERVING


def test_probes_and_figures_are_served_over_http(trio: Nodes) -> None:
    assert trio.page("n1", "/live") == (200, "ok\n")
    assert trio.page("n1", "/ready") == (200, "ok\n")
    status, text = trio.page("n1", "/metrics")
    assert status == 200
    assert "# HELP kvnode_up " in text
    assert "# TYPE kvnode_operations_total counter" in text
    assert trio.metric("n1", "peers_up") == 2
    assert trio.metric("n1", "proven") == 1


def test_figures_count_what_a_node_does(trio: Nodes, channel: grpc.Channel) -> None:
    before = trio.metric("n1", "operations")
    for _ in range(5):
        call(channel, "KV/Get", kv_pb2.GetRequest(key=b"counted"))
    assert trio.metric("n1", "operations") == before + 5


def test_a_node_that_has_stopped_serves_no_page(cluster: Callable[..., Nodes]) -> None:
    nodes = cluster(1)
    nodes.stop("n1")
    with pytest.raises(ConnectionRefusedError):
        nodes.page("n1", "/live")


def test_a_node_without_its_peers_is_ready_and_says_who_is_down(
    cluster: Callable[..., Nodes],
) -> None:
    nodes = cluster(3, start=False)
    nodes.start("n1")
    assert nodes.page("n1", "/ready")[0] == http.client.OK
    assert {peer.node: peer.state for peer in nodes.status("n1").peers} == {
        "n2": "down",
        "n3": "down",
    }


# ---- unary calls -------------------------------------------------------------------------------


def test_what_is_put_by_hand_is_got_by_hand_at_any_node(trio: Nodes) -> None:
    with trio.channel("n1") as first, trio.channel("n3") as third:
        put = call(first, "KV/Put", kv_pb2.PutRequest(key=b"unary", value=b"one"))
        assert {"n1", "n2", "n3"} >= set(put.acked_by)
        assert len(put.acked_by) >= 2
        got = call(third, "KV/Get", kv_pb2.GetRequest(key=b"unary"))
        assert (got.found, got.value, got.timestamp) == (True, b"one", put.timestamp)


def test_an_absent_key_is_an_answer_and_no_failure(channel: grpc.Channel) -> None:
    got = call(channel, "KV/Get", kv_pb2.GetRequest(key=b"never put"))
    assert isinstance(got, kv_pb2.GetResponse)
    assert not got.found


def test_an_empty_value_is_a_value(channel: grpc.Channel) -> None:
    call(channel, "KV/Put", kv_pb2.PutRequest(key=b"empty", value=b""))
    got = call(channel, "KV/Get", kv_pb2.GetRequest(key=b"empty"))
    assert (got.found, got.value) == (True, b"")


def test_what_is_deleted_is_absent_and_may_be_put_again(channel: grpc.Channel) -> None:
    for value in (b"one", b"two"):
        call(channel, "KV/Put", kv_pb2.PutRequest(key=b"gone", value=value))
        assert call(channel, "KV/Get", kv_pb2.GetRequest(key=b"gone")).value == value
        call(channel, "KV/Delete", kv_pb2.DeleteRequest(key=b"gone"))
        assert not call(channel, "KV/Get", kv_pb2.GetRequest(key=b"gone")).found


def test_a_context_replaces_exactly_what_it_has_seen(channel: grpc.Channel) -> None:
    call(channel, "KV/Put", kv_pb2.PutRequest(key=b"seen", value=b"one"))
    seen = call(channel, "KV/Get", kv_pb2.GetRequest(key=b"seen")).context
    for value in (b"two", b"three"):
        call(channel, "KV/Put", kv_pb2.PutRequest(key=b"seen", value=value, context=seen))
    got = call(channel, "KV/Get", kv_pb2.GetRequest(key=b"seen", explain=True))
    assert {one.value for one in got.detail.siblings} == {b"two", b"three"}
    assert len(got.detail.explain.replicas) == 3


def test_a_write_id_makes_a_retry_elsewhere_the_same_write(trio: Nodes) -> None:
    request = kv_pb2.PutRequest(key=b"again", value=b"v", write_id=b"w" * 16, timestamp=wire.hlc())
    for name in ("n1", "n2", "n3"):
        with trio.channel(name) as channel:
            assert call(channel, "KV/Put", request).timestamp == request.timestamp
    with trio.channel("n1") as channel:
        got = call(channel, "KV/Get", kv_pb2.GetRequest(key=b"again", explain=True))
    assert got.value == b"v"
    assert got.confidence == kv_pb2.AGREED


def test_a_failure_travels_in_the_trailer(channel: grpc.Channel) -> None:
    answer = call(channel, "KV/Delete", kv_pb2.DeleteRequest(key=b"k", keyspace="carts"))
    assert isinstance(answer, Refusal)
    assert answer.code is StatusCode.NOT_FOUND
    assert answer.failure is not None
    assert answer.failure.code == kv_pb2.UNKNOWN_KEYSPACE
    assert answer.failure.outcome == kv_pb2.NOT_APPLIED
    assert answer.failure.message == answer.text


def test_without_a_quorum_a_write_is_unavailable_and_says_how_many_were_missing(
    cluster: Callable[..., Nodes],
) -> None:
    nodes = cluster(3)
    nodes.kill("n2", "n3")
    until(lambda: nodes.peers_up("n1") == set(), what="noticing two deaths")
    with nodes.channel("n1") as channel:
        answer = call(channel, "KV/Put", kv_pb2.PutRequest(key=b"k", value=b"v"))
    assert isinstance(answer, Refusal)
    assert answer.code is StatusCode.UNAVAILABLE
    assert answer.failure is not None
    assert answer.failure.outcome == kv_pb2.NOT_APPLIED
    assert "1 of 2 owners can be reached" in answer.text


# ---- what a node tells of the cluster ----------------------------------------------------------


def test_a_node_tells_the_topology(trio: Nodes, channel: grpc.Channel) -> None:
    topology = call(channel, "Cluster/GetTopology", kv_pb2.GetTopologyRequest())
    assert [member.id for member in topology.members] == list(trio.ids)
    assert topology.epoch == 1
    assert topology.cluster_id == trio.birth.cluster_id
    assert len(topology.walk) == topology.partitions * topology.walk_length == 256 * 3


def test_a_node_tells_its_state(trio: Nodes) -> None:
    status = trio.status("n2")
    assert (status.node, status.state, status.pid) == ("n2", "up", trio.pid("n2"))
    assert {peer.node: peer.state for peer in status.peers} == {"n1": "up", "n3": "up"}


def test_an_open_conflict_is_listed(channel: grpc.Channel, trio: Nodes) -> None:
    first = call(channel, "KV/Put", kv_pb2.PutRequest(key=b"torn", value=b"base")).context
    for value in (b"left", b"right"):
        call(channel, "KV/Put", kv_pb2.PutRequest(key=b"torn", value=value, context=first))
    with trio.client() as client:
        (found,) = [one for one in client.conflicts() if one.key == b"torn"]
    assert {sibling.value for sibling in found.siblings} == {b"left", b"right"}


# ---- the pipeline, by hand ---------------------------------------------------------------------


def test_a_frame_of_puts_and_gets_is_answered_by_columns(channel: grpc.Channel) -> None:
    pairs = {b"p%d" % number: b"v%d" % number for number in range(50)}
    with Stream(channel, "KV/Pipeline") as stream:
        written: set[int] = set()
        stream.send(wire.puts(pairs, timestamp=wire.hlc()))
        while len(written) < len(pairs):
            frame = stream.take()
            assert not frame.failures
            assert all(len(acked) >= 2 * 2 for acked in frame.puts.acked)
            written |= set(frame.puts.id)
        values: dict[int, bytes] = {}
        stream.send(wire.gets(*pairs, b"absent"))
        while len(values) < len(pairs) + 1:
            frame = stream.take()
            found = frame.gets.found or [1] * len(frame.gets.id)
            rows = zip(frame.gets.id, frame.gets.value, found, strict=True)
            values |= {op: value if there else b"absent" for op, value, there in rows}
    assert [values[op] for op in range(1, 52)] == [*pairs.values(), b"absent"]


def test_a_pipeline_that_is_half_closed_still_gets_its_answers(channel: grpc.Channel) -> None:
    with Stream(channel, "KV/Pipeline") as stream:
        stream.send(wire.gets(b"k", b"l"))
        stream.finish()
        answered: list[int] = []
        while (frame := stream.take()) is not None:
            answered += frame.gets.id
    assert sorted(answered) == [1, 2]


def test_a_client_that_knows_no_topology_is_given_it(channel: grpc.Channel) -> None:
    with Stream(channel, "KV/Pipeline") as stream:
        first = stream.ask(wire.gets(b"k"))
        assert first.topology.epoch == first.epoch == 1
        knowing = wire.gets(b"k")
        knowing.epoch = 1
        assert not stream.ask(knowing).HasField("topology")


def test_every_frame_carries_the_nodes_clock(channel: grpc.Channel) -> None:
    before = wire.hlc()
    with Stream(channel, "KV/Pipeline") as stream:
        assert stream.ask(wire.gets(b"k")).hlc >= before
