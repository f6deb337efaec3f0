"""What users of AsyncClient see, against fake nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

import kvclient
from kvclient.bounds import Bounds
from kvproto import kv_pb2 as pb
from tests.unit.client.fakes import FakeCluster, Hold, Refuse, context_of

Body = Callable[[kvclient.AsyncClient], Awaitable[None]]


def run(cluster: FakeCluster, body: Body, *, bounds: Bounds | None = None) -> None:
    async def main() -> None:
        async with kvclient.AsyncClient(cluster.seeds, bounds=bounds or Bounds()) as db:
            await body(db)
        # gRPC's own task for a cancelled call ends with an event from its poller, a moment later.
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            _, left = await asyncio.wait(left, timeout=5)
        assert not left

    asyncio.run(main())


def test_every_method_is_a_coroutine_with_the_same_meaning(cluster: FakeCluster) -> None:
    async def body(db: kvclient.AsyncClient) -> None:
        await db.put("k", b"v")
        assert await db.get("k") == b"v"
        record = await db.get_record("k")
        assert record is not None
        assert record.value == b"v"
        await db.put_many({"a": b"1", "b": b"2"})
        assert await db.get_many(["b", "a", "c"]) == [b"2", b"1", None]
        await db.delete("k")
        assert await db.get("k") is None
        assert list(await db.status()) == ["n1", "n2", "n3"]
        assert await db.conflicts("default")
        carts = db.keyspace("carts")
        await carts.put("k", b"cart")
        assert await carts.get("k") == b"cart"

    run(cluster, body)


def test_many_calls_at_once_share_a_few_frames(cluster: FakeCluster) -> None:
    async def body(db: kvclient.AsyncClient) -> None:
        await asyncio.gather(*(db.put(f"k{number}", b"v") for number in range(1000)))
        assert db.metrics.frames_sent < 100

    run(cluster, body)


def test_it_connects_with_the_first_call(cluster: FakeCluster) -> None:
    async def main() -> None:
        db = kvclient.AsyncClient(cluster.seeds)
        with pytest.raises(RuntimeError, match="not connected"):
            _ = db.topology
        answers = await asyncio.gather(*(db.get("k") for _ in range(5)))
        assert answers == [None] * 5
        await db.close()
        await db.close()
        with pytest.raises(RuntimeError, match="closed"):
            await db.get("k")

    asyncio.run(main())


def test_a_session_of_its_own_may_begin_before_the_connection_does(cluster: FakeCluster) -> None:
    async def main() -> None:
        db = kvclient.AsyncClient(cluster.seeds)
        ada, bob = db.start_session(), db.start_session()
        await ada.put("k", b"v")
        assert await bob.get("k") == b"v"
        assert [row.context for row in cluster.received[-2:]] == [b"", b""]
        await ada.put_many({"k": b"w"})
        assert cluster.received[-1].context == context_of((7, 1))
        await db.start_session(ada.session.export()).keyspace("default").get("k")
        assert cluster.received[-1].context == context_of((7, 2))
        foreign = kvclient.Session()
        foreign.bind(b"x" * 16, 8)
        lost = db.start_session(foreign.export())
        for call in (lost.get("k"), lost.get_many(["k"])):
            with pytest.raises(kvclient.InvalidRequest, match="another cluster"):
                await call
        await db.close()

    asyncio.run(main())


def test_a_cancelled_put_leaves_nothing_behind(cluster: FakeCluster) -> None:
    cluster.script(lambda row: Hold())

    async def body(db: kvclient.AsyncClient) -> None:
        task = asyncio.create_task(db.put("k", b"v", timeout=60))
        await asyncio.to_thread(cluster.wait_for, lambda: cluster.received)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        engine = db._port.cluster.engine  # type: ignore[union-attr]
        assert not engine.pending
        assert engine.bytes_in_flight == 0
        engine._check()

    run(cluster, body)


def test_a_cancelled_batch_leaves_nothing_behind(cluster: FakeCluster) -> None:
    cluster.script(lambda row: Hold())

    async def body(db: kvclient.AsyncClient) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await db.put_many([(f"k{number}", b"v") for number in range(5000)], timeout=60)
        assert not db._port.cluster.engine.pending  # type: ignore[union-attr]

    run(cluster, body)


def test_more_in_flight_than_the_bound_is_overloaded_at_once(cluster: FakeCluster) -> None:
    cluster.script(lambda row: Hold())

    async def body(db: kvclient.AsyncClient) -> None:
        calls = (db.get(f"k{number}", timeout=0.3) for number in range(12))
        results = await asyncio.gather(*calls, return_exceptions=True)
        kinds = [type(result) for result in results]
        assert kinds.count(kvclient.Overloaded) == 2
        assert kinds.count(kvclient.Timeout) == 10

    run(cluster, body, bounds=Bounds(operations_in_flight=10))


def test_a_batch_larger_than_its_bound_goes_through_in_turns(cluster: FakeCluster) -> None:
    async def body(db: kvclient.AsyncClient) -> None:
        pairs = [(f"k{number}", b"v" * 100) for number in range(500)]
        assert len(await db.put_many(pairs)) == 500
        assert db.metrics.overloaded == 0

    run(cluster, body, bounds=Bounds(operations_in_flight=20, batch_in_flight=20))


def test_every_operation_of_a_batch_ends_by_the_deadline(cluster: FakeCluster) -> None:
    cluster.script(lambda row: Hold())

    async def body(db: kvclient.AsyncClient) -> None:
        pairs = [(f"k{number}", b"v") for number in range(100)]
        with pytest.raises(kvclient.PartialFailure) as caught:
            await db.put_many(pairs, timeout=0.2)
        outcomes = {error.outcome for error in caught.value.errors.values()}
        assert len(caught.value.errors) == 100
        assert outcomes == {"uncertain", "not applied"}

    run(cluster, body, bounds=Bounds(batch_in_flight=10))


def test_a_busy_cluster_gets_few_retries(cluster: FakeCluster) -> None:
    cluster.script(lambda row: Refuse(pb.OVERLOADED))

    async def body(db: kvclient.AsyncClient) -> None:
        calls = (db.put(f"k{number}", b"v") for number in range(2000))
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, kvclient.Overloaded) for result in results)
        assert db.metrics.retries <= 2000 * 0.1 + Bounds().retry_burst

    run(cluster, body)


def test_another_loop_is_told_to_make_its_own(cluster: FakeCluster) -> None:
    async def first() -> kvclient.AsyncClient:
        db = kvclient.AsyncClient(cluster.seeds)
        await db.get("k")
        return db

    loop = asyncio.new_event_loop()
    db = loop.run_until_complete(first())

    async def second() -> None:
        with pytest.raises(RuntimeError, match="another event loop"):
            await db.get("k")

    asyncio.run(second())
    loop.run_until_complete(db.close())
    loop.close()
