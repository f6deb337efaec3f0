"""Whole nodes in one process: from an open store to the last sync, over real sockets and disks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from kvnode.core.batch import Family
from kvnode.core.sweeps import Sweeps
from kvnode.runtime import config
from kvnode.runtime.birth import create
from kvnode.runtime.identity import TOPOLOGY
from kvnode.runtime.server import Server
from kvnode.runtime.settings import HTTP_PORT_OFFSET, ServeError
from kvnode.runtime.topology_codec import encode_topology
from kvnode.storage.engine import open_read_only
from kvnode.storage.folder import DataFolder
from kvnode.storage.port import StorageFenced
from kvproto import kv_pb2
from tests.support.nodes import free_base
from tests.unit.runtime.builders import run, turns


class Node:
    """One node of a cluster, in this process."""

    def __init__(self, cluster: Cluster, number: int, *, host: str) -> None:
        self.address = f"{host}:{cluster.base + number - 1}"
        self.folder = DataFolder.open(
            cluster.directory / f"n{number}",
            cluster_id=cluster.birth.cluster_id.hex(),
            node_id=f"n{number}",
        )
        self.stop = asyncio.Event()
        self.server = Server.open(
            node_id=f"n{number}",
            config=cluster.config,
            birth=cluster.birth,
            folder=self.folder,
            listen=self.address,
            overrides={},
            incarnation=100 * cluster.lives() + number,
            sync_journal=None,
        )

    async def live(self) -> None:
        try:
            await self.server.run(self.stop)
        finally:
            self.folder.close()

    async def ready(self) -> None:
        while self.server.state == "starting":
            await turns()


class Cluster:
    """Some nodes on free ports."""

    def __init__(self, directory: Path, count: int, settings: str = "") -> None:
        self.directory = directory
        self.base = free_base(count)
        text = config.render(config.default_config(count, self.base)) + settings
        self.config = config.parse(text)
        self.birth = create(directory)
        self._lives = 0

    def lives(self) -> int:
        self._lives += 1
        return self._lives

    @asynccontextmanager
    async def node(self, number: int = 1, *, host: str = "127.0.0.1") -> AsyncIterator[Node]:
        """Run a node; stop it gracefully at the end."""
        node = Node(self, number, host=host)
        task = asyncio.create_task(node.live())
        ready = asyncio.create_task(node.ready())
        await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        try:
            yield node
        finally:
            node.stop.set()
            await task

    @asynccontextmanager
    async def linked(self) -> AsyncIterator[list[Node]]:
        """Run all nodes, linked with one another."""
        async with AsyncExitStack() as stack:
            starts = [self.node(number) for number in range(1, len(self.config.nodes) + 1)]
            nodes = await asyncio.gather(*map(stack.enter_async_context, starts))
            for node in nodes:
                while len(node.server.node.coordinator.reachable) < len(nodes) - 1:
                    await turns()
            yield list(nodes)


async def call(node: Node, method: str, request: Any, reply: Any) -> Any:
    async with grpc.aio.insecure_channel(node.address) as channel:
        unary: Any = channel.unary_unary(method)
        return reply.FromString(await unary(request.SerializeToString(), timeout=10))


async def put(node: Node, key: bytes, value: bytes) -> kv_pb2.PutResponse:
    request = kv_pb2.PutRequest(key=key, value=value)
    answer: kv_pb2.PutResponse = await call(node, "/kvnode.v1.KV/Put", request, kv_pb2.PutResponse)
    return answer


async def get(node: Node, key: bytes) -> kv_pb2.GetResponse:
    request = kv_pb2.GetRequest(key=key)
    answer: kv_pb2.GetResponse = await call(node, "/kvnode.v1.KV/Get", request, kv_pb2.GetResponse)
    return answer


async def health(node: Node, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    reply = health_pb2.HealthCheckResponse
    return int((await call(node, "/grpc.health.v1.Health/Check", request, reply)).status)


async def page(node: Node, path: str) -> str:
    """Return the first line and the body of a page."""
    host, _, port = node.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port) + HTTP_PORT_OFFSET)
    writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
    text = (await reader.read()).decode()
    writer.close()
    return text


def test_a_node_serves_and_a_clean_stop_leaves_everything_on_the_disk(tmp_path: Path) -> None:
    async def test() -> None:
        cluster = Cluster(tmp_path, 1)
        async with cluster.node() as node:
            assert list((await put(node, b"k", b"v")).acked_by) == ["n1"]
        assert (tmp_path / "n1" / "clean-stop").exists()
        async with cluster.node() as node:
            assert node.server.state == "up"
            assert (await get(node, b"k")).value == b"v"
            assert node.server.identity.start_number == 2

    run(test)


def test_nodes_find_one_another_and_replicate(tmp_path: Path) -> None:
    async def test() -> None:
        async with Cluster(tmp_path, 3).linked() as nodes:
            await put(nodes[0], b"k", b"v")
            for node in nodes:
                assert (await get(node, b"k")).value == b"v"

    run(test)


def test_large_values_pass_between_nodes(tmp_path: Path) -> None:
    async def test() -> None:
        async with Cluster(tmp_path, 2).linked() as (one, two):
            await put(one, b"k", bytes(1 << 20))
            assert (await get(two, b"k")).value == bytes(1 << 20)

    run(test)


def test_health_is_told_for_the_node_and_each_service(tmp_path: Path) -> None:
    async def test() -> None:
        cluster = Cluster(tmp_path, 2)
        starting = Node(cluster, 1, host="127.0.0.1")
        task = asyncio.create_task(starting.live())
        waits = health_pb2.HealthCheckResponse.NOT_SERVING
        async with grpc.aio.insecure_channel(starting.address) as channel:
            check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
            answer = await check(b"", wait_for_ready=True, timeout=10)
        assert health_pb2.HealthCheckResponse.FromString(answer).status == waits
        async with cluster.node(2):
            await starting.ready()
            for name in ("", "kvnode.v1.KV", "kvnode.v1.Cluster", "kvnode.v1.Peer"):
                status = await health(starting, name)
                assert status == health_pb2.HealthCheckResponse.SERVING
            starting.stop.set()
            await task

    run(test)


def test_http_says_live_ready_and_figures(tmp_path: Path) -> None:
    async def test() -> None:
        async with Cluster(tmp_path, 1).node() as node:
            assert "200 OK" in await page(node, "/live")
            assert "200 OK" in await page(node, "/ready")
            text = await page(node, "/metrics")
            assert "kvnode_up 1.0" in text
            assert "kvnode_alarms_total 0.0" in text

    run(test)


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_a_node_listens_on_an_ipv6_address(tmp_path: Path) -> None:
    async def test() -> None:
        async with Cluster(tmp_path, 1).node(host="[::1]") as node:
            await put(node, b"k", b"v")
            assert "200 OK" in await page(node, "/ready")

    run(test)


def refusal(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ServeError)
    return str(error)


@pytest.mark.parametrize("offset", [0, HTTP_PORT_OFFSET], ids=["grpc", "http"])
def test_a_port_in_use_is_named_and_the_store_is_left_clean(tmp_path: Path, offset: int) -> None:
    async def test() -> None:
        cluster = Cluster(tmp_path, 1)
        async with cluster.node():
            pass
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", cluster.base + offset))
            taken.listen()
            with pytest.raises(ExceptionGroup) as failed:
                await Node(cluster, 1, host="127.0.0.1").live()
        text = refusal(failed.value)
        assert f"127.0.0.1:{cluster.base + offset}" in text
        assert "cannot be listened on" in text
        assert (tmp_path / "n1" / "clean-stop").exists()
        async with cluster.node() as node:
            assert node.server.state == "up"

    run(test)


def test_a_stopping_node_finishes_what_is_in_flight(tmp_path: Path) -> None:
    async def test() -> None:
        cluster = Cluster(tmp_path, 3)
        async with cluster.linked() as (one, *_):
            writes = [asyncio.create_task(put(one, b"k%d" % i, b"v")) for i in range(50)]
            while not one.server.node.coordinator.in_flight:
                await turns()
            one.stop.set()
            done = await asyncio.gather(*writes, return_exceptions=True)
        acked = [at for at, each in enumerate(done) if isinstance(each, kv_pb2.PutResponse)]
        failed = [each for each in done if isinstance(each, grpc.aio.AioRpcError)]
        assert acked
        assert len(acked) + len(failed) == 50
        # What gRPC had not handed over yet when the server closed is cancelled: never begun either.
        refused = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
        assert {each.code() for each in failed} <= refused
        async with cluster.linked() as (one, *_):
            for at in acked:
                assert (await get(one, b"k%d" % at)).value == b"v"

    run(test)


def test_a_storage_thread_that_fails_ends_the_node_and_leaves_no_clean_mark(
    tmp_path: Path,
) -> None:
    async def test() -> None:
        cluster = Cluster(tmp_path, 1)
        node = Node(cluster, 1, host="127.0.0.1")
        task = asyncio.create_task(node.live())
        await node.ready()
        engine = node.server._engine

        def fail() -> Any:
            engine.fenced = "injected"
            raise StorageFenced("injected")

        engine.flush = fail  # type: ignore[method-assign]
        writing = asyncio.create_task(put(node, b"k", b"v"))
        with pytest.raises(ExceptionGroup) as failed:
            await task
        writing.cancel()
        assert failed.group_contains(StorageFenced)
        assert not (tmp_path / "n1" / "clean-stop").exists()
        engine.close(clean=False)

    run(test)


def test_a_node_that_was_away_has_its_clients_say_it_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with Cluster(tmp_path, 1).node() as node:
            async with grpc.aio.insecure_channel(node.address) as channel:
                opened: Any = channel.stream_stream("/kvnode.v1.KV/Pipeline")
                pipeline = opened()
                frame = kv_pb2.PipelineRequest(format=1)
                frame.gets.id.append(1)
                frame.gets.key.append(b"k")
                await pipeline.write(frame.SerializeToString())
                assert await pipeline.read()
                node.server._pulse._last -= 60
                node.server._pulse.beat()
                assert await pipeline.read() is grpc.aio.EOF
            assert not (await get(node, b"k")).found

    run(test)


def test_a_topology_that_was_followed_is_in_force_after_a_restart(tmp_path: Path) -> None:
    async def test() -> None:
        cluster = Cluster(tmp_path, 1)
        async with cluster.node() as node:
            known = node.server.node.topology
            newer = known.with_members(known.members)
            node.server.identity.install(encode_topology(newer))
            assert node.server.node.topology.epoch == 2
        async with cluster.node() as node:
            assert node.server.node.topology == newer
        reader = open_read_only(tmp_path / "n1" / "store")
        assert reader.multi_get(Family.META, [TOPOLOGY]) == [
            encode_topology(newer).SerializeToString()
        ]
        reader.close()

    run(test)


def test_a_node_on_a_wiped_disk_is_unproven_until_its_partitions_were_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        cluster = Cluster(tmp_path, 2)
        async with cluster.node(2):
            async with cluster.node(1):
                pass
            (tmp_path / "n1").rename(tmp_path / "lost")
            monkeypatch.setattr(Sweeps, "_due", lambda sweeps, peer: [])
            async with cluster.node(1) as node:
                replica = node.server.node.replica
                replica.doubt(replica.proving.owned())
                assert node.server.state == "unproven"
                proven = asyncio.Event()
                node.server.node.upkeep.sweeps.on_proven = lambda _: (
                    proven.set() if replica.is_proven else None
                )
                monkeypatch.undo()
                async with asyncio.timeout(10):
                    await proven.wait()
                assert node.server.state == "up"

    run(test)
