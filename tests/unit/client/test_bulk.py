"""Large values travel on a stream of their own; without one, on the first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import kvclient
from kvproto import kv_pb2 as pb
from tests.unit.client.fakes import FakeCluster, FakeNode, Hold, Row

LARGE = bytes(100_000)


class Streams:
    """Notes on which stream of a pair each operation came."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.came: list[tuple[bytes, bool, str, int]] = []
        for node in cluster.nodes:
            self._tap(node)

    def _tap(self, node: FakeNode) -> None:
        inner = node._pipeline

        async def pipeline(requests: Any, context: Any) -> None:
            await inner(self._noted(requests), context)

        node._pipeline = pipeline  # type: ignore[method-assign]

    async def _noted(self, requests: Any) -> Any:
        pair, is_bulk = b"", False
        async for data in requests:
            request = pb.PipelineRequest.FromString(data)
            if request.pair:
                pair, is_bulk = request.pair, request.bulk
            self.came += [(pair, is_bulk, "get", 0) for _ in request.gets.id]
            self.came += [(pair, is_bulk, "put", len(value)) for value in request.puts.value]
            yield data


@pytest.fixture
def single() -> Iterator[FakeCluster]:
    cluster = FakeCluster(1)
    yield cluster
    cluster.close()


def test_a_large_put_travels_apart_from_small_operations_of_the_same_pair(
    single: FakeCluster,
) -> None:
    streams = Streams(single)
    with kvclient.Client(single.seeds) as db:
        db.put("small", b"v")
        db.put("large", LARGE)
        assert db.get("large") == LARGE
        db.put("large", LARGE + b"2")
    pairs = {pair for pair, _, _, _ in streams.came}
    assert len(pairs) == 1
    assert len(next(iter(pairs))) == 16
    assert [(bulk, kind, size > 1) for _, bulk, kind, size in streams.came] == [
        (False, "put", False),
        (True, "put", True),
        (False, "get", False),
        (True, "put", True),
    ]


def test_a_client_without_large_values_opens_no_second_stream(single: FakeCluster) -> None:
    streams = Streams(single)
    with kvclient.Client(single.seeds) as db:
        db.put_many({f"k{number}": b"v" for number in range(50)})
    assert {bulk for _, bulk, _, _ in streams.came} == {False}


def test_a_small_operation_passes_large_ones_that_are_held_up(single: FakeCluster) -> None:
    def script(row: Row) -> Any:
        return Hold() if len(row.value) > 1 else None

    single.script(script)
    with kvclient.Client(single.seeds) as db:
        db.get("warm")
        held = db.keyspace("default")
        import threading  # noqa: PLC0415

        thread = threading.Thread(target=lambda: held.put("large", LARGE))
        thread.start()
        single.wait_for(lambda: single.nodes[0].rows())
        assert db.get("other") is None
        single.nodes[0].release()
        thread.join(10)
        assert not thread.is_alive()


def test_a_node_that_refuses_the_second_stream_gets_large_values_on_the_first(
    single: FakeCluster,
) -> None:
    node = single.nodes[0]
    inner = node._pipeline
    refused: list[bytes] = []

    async def pipeline(requests: Any, context: Any) -> None:
        async def checked() -> Any:
            async for data in requests:
                if pb.PipelineRequest.FromString(data).bulk:
                    refused.append(data)
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more streams")
                yield data

        await inner(checked(), context)

    node._pipeline = pipeline  # type: ignore[method-assign]
    with kvclient.Client(single.seeds) as db:
        db.put("large", LARGE)
        db.put("large", LARGE + b"2")
        assert db.get("large") == LARGE + b"2"
    assert len(refused) == 1


def test_how_many_operations_wait_at_busy_nodes_is_told(single: FakeCluster) -> None:
    node = single.nodes[0]
    with kvclient.Client(single.seeds) as db:
        node.waiting = 7
        db.put("k", b"v")
        assert db.metrics.waiting == 7
        node.waiting = 2
        db.put("k", b"v")
        assert db.metrics.waiting == 2
        node.kill()
        node.waiting = 0
        node.start()
        db.get("k")
        assert db.metrics.waiting == 0
