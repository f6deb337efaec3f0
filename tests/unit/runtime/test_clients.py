"""Pipelines and unary calls over real streams: every operation is answered, or its stream ends."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import Any

import grpc
import pytest

from kvnode.core.messages import Detail, GetResult, SessionId, SiblingReport
from kvnode.core.topology import Keyspace
from kvnode.runtime.client_stream import ClientStream, payload
from kvnode.runtime.pump import wall_ms
from kvnode.runtime.topology_codec import encode_topology
from kvnode.storage.port import Position
from kvproto import kv_pb2
from tests.unit.core.builders import topology
from tests.unit.runtime.builders import Site, Talk, run, turns

ALONE = topology(1, keyspaces=[Keyspace(name="default", n=1, r=1, w=1)])


def frame(*, gets: int = 0, puts: int = 0, value: bytes = b"v", epoch: int = 1) -> Any:
    """Return a frame of reads (ids 1 and up) and writes (ids 101 and up)."""
    request = kv_pb2.PipelineRequest(format=1, epoch=epoch)
    request.gets.id.extend(range(1, gets + 1))
    request.gets.key.extend(b"k%d" % number for number in range(gets))
    request.gets.timeout_ms.extend([5_000] * gets)
    request.puts.id.extend(range(101, 101 + puts))
    request.puts.key.extend(b"k%d" % number for number in range(puts))
    request.puts.value.extend([value] * puts)
    request.puts.write_id.extend(os.urandom(16) for _ in range(puts))
    request.puts.timestamp.extend(wall_ms() << 16 | number for number in range(1, puts + 1))
    request.puts.timeout_ms.extend([5_000] * puts)
    return request


async def heard(talk: Talk) -> kv_pb2.PipelineResponse:
    return kv_pb2.PipelineResponse.FromString(await talk.hear())


async def asked(talk: Talk, request: Any) -> kv_pb2.PipelineResponse:
    await talk.say(request)
    return await heard(talk)


def auto_sync(site: Site) -> None:
    """Make what is written durable as soon as somebody waits for it."""

    def sync(_: Position) -> None:
        asyncio.get_running_loop().call_soon(site.sync)

    site.pump._request_sync = sync


def stream_of(site: Site) -> ClientStream:
    (stream,) = site.clients._sessions.values()
    assert isinstance(stream, ClientStream)
    return stream


def test_reads_and_writes_of_a_frame_are_answered() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            auto_sync(site)
            talk = site.open("KV/Pipeline")
            written = await asked(talk, frame(puts=2))
            assert list(written.puts.id) == [101, 102]
            answer = await asked(talk, frame(gets=3))
            assert list(answer.gets.value) == [b"v", b"v", b""]
            assert list(answer.gets.found) == [1, 1, 0]
            assert answer.hlc >> 16 >= wall_ms() - 10_000
            assert site.clients.operations == 5
            while not site.clients.is_idle:
                await turns()

    run(test)


def test_what_is_wrong_in_a_frame_fails_alone() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            request = frame(gets=2)
            request.gets.key[0] = b""
            talk = site.open("KV/Pipeline")
            first = await asked(talk, request)
            second = first if first.HasField("gets") else await heard(talk)
            assert [failure.id for failure in first.failures] == [1]
            assert list(second.gets.id) == [2]
            assert stream_of(site).owed == 0

    run(test)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xff\xff", "not a kvnode.v1.PipelineRequest"),
        (b"", r"frame format 0 is not known here (this is 1)"),
        (kv_pb2.PipelineRequest(format=1, gets=kv_pb2.Gets(id=[1])), "column key has 0 entries"),
    ],
    ids=["garbage", "format", "columns"],
)
def test_a_frame_that_makes_no_sense_ends_its_stream_only(data: Any, text: str) -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            talk, other = site.open("KV/Pipeline"), site.open("KV/Pipeline")
            await talk.say(data)
            code, why = await talk.end()
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert text in why
            assert list((await asked(other, frame(gets=1))).gets.id) == [1]

    run(test)


def test_a_client_of_an_older_epoch_is_sent_the_topology_once() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            talk = site.open("KV/Pipeline")
            first = await asked(talk, frame(gets=1, epoch=0))
            assert first.topology == encode_topology(ALONE)
            assert not (await asked(talk, frame(gets=1))).HasField("topology")

    run(test)


def test_who_has_said_all_still_gets_what_he_is_owed() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            talk = site.open("KV/Pipeline")
            await talk.say(frame(puts=1))
            await talk.call.done_writing()
            while site.engine.written < 2:
                await turns()
            site.sync()
            assert list((await heard(talk)).puts.id) == [101]
            assert (await talk.end())[0] is grpc.StatusCode.OK
            assert site.clients._sessions == {}

    run(test)


def test_beyond_what_a_client_may_have_in_flight_it_is_refused_at_once() -> None:
    async def test() -> None:
        async with Site(ALONE, operations_per_client=4) as site:
            talk = site.open("KV/Pipeline")
            await talk.say(frame(puts=4))
            answer = await asked(talk, frame(gets=2, puts=2))
            assert sorted(failure.id for failure in answer.failures) == [1, 2, 101, 102]
            for failure in answer.failures:
                assert failure.code == kv_pb2.OVERLOADED
                assert failure.retry_after_ms > 0
                assert failure.message == "more than 4 operations of this client in flight"
            outcomes = {failure.id: failure.outcome for failure in answer.failures}
            assert outcomes[1] == kv_pb2.OUTCOME_NONE
            assert outcomes[101] == kv_pb2.NOT_APPLIED
            site.sync()
            assert sorted((await heard(talk)).puts.id) == [101, 102, 103, 104]
            auto_sync(site)
            assert list((await asked(talk, frame(puts=1))).puts.id) == [101]

    run(test)


def test_beyond_the_bytes_that_a_client_may_have_in_flight_it_is_refused_until_answered() -> None:
    async def test() -> None:
        async with Site(ALONE, client_bytes=1 << 20) as site:
            talk = site.open("KV/Pipeline")
            large = bytes(600_000)
            await talk.say(frame(puts=1, value=large))
            answer = await asked(talk, frame(puts=1, value=large))
            assert [failure.code for failure in answer.failures] == [kv_pb2.OVERLOADED]
            assert answer.failures[0].message == (
                "more than 1,048,576 bytes of this client in flight"
            )
            site.sync()
            assert list((await heard(talk)).puts.id) == [101]
            auto_sync(site)
            assert list((await asked(talk, frame(puts=1, value=large))).puts.id) == [101]

    run(test)


def test_one_stream_more_than_are_served_is_refused() -> None:
    async def test() -> None:
        async with Site(ALONE, client_streams=1) as site:
            first = site.open("KV/Pipeline")
            await asked(first, frame(gets=1))
            code, text = await site.open("KV/Pipeline").end()
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert text == "this node serves at most 1 streams"
            await first.call.done_writing()
            await first.end()
            third = site.open("KV/Pipeline")
            assert list((await asked(third, frame(gets=1))).gets.id) == [1]

    run(test)


def test_a_client_that_does_not_read_loses_its_stream_and_others_do_not_notice() -> None:
    async def test() -> None:
        async with Site(ALONE, outbox_bytes=1 << 20) as site:
            slow = site.open("KV/Pipeline")
            await slow.say(frame(gets=1))
            while not site.clients._sessions:
                await turns()
            stream = stream_of(site)
            result = GetResult(1, bytes(256 << 10), b"", 0, 0, None)
            while not stream.is_too_slow:
                stream.push([result])
                await turns()
            other = site.open("KV/Pipeline")
            assert list((await asked(other, frame(gets=1))).gets.id) == [1]
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                while await slow.hear():
                    pass  # it reads at last
            assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "wait for this client to read them" in (failed.value.details() or "")

    run(test)


def test_a_client_that_is_gone_leaves_nothing_behind() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            talk = site.open("KV/Pipeline")
            await talk.say(frame(puts=1))
            while site.engine.written < 2:
                await turns()
            talk.call.cancel()
            while site.clients._sessions:
                await turns()
            site.sync()
            await turns()
            assert site.clients.is_idle
            assert not site.pump.failed.done()

    run(test)


def test_a_stopping_node_tells_its_clients_and_begins_nothing_new() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            talk = site.open("KV/Pipeline")
            await talk.say(frame(puts=1))
            while site.engine.written < 2:
                await turns()
            site.clients.drain()
            assert (await heard(talk)).draining
            refused = await asked(talk, frame(gets=1))
            assert refused.failures[0].message == "this node is stopping"
            assert refused.failures[0].code == kv_pb2.UNAVAILABLE
            assert not site.clients.is_idle
            site.sync()
            assert list((await heard(talk)).puts.id) == [101]
            while not site.clients.is_idle:
                await turns()

    run(test)


def test_ending_all_streams_takes_nothing_more_from_them() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            talk = site.open("KV/Pipeline")
            await asked(talk, frame(gets=1))
            before = site.pump.events
            site.clients.end_streams()
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await talk.say(frame(gets=1))
            await talk.end()
            assert site.pump.events == before

    run(test)


def test_a_bug_in_taking_a_frame_ends_the_node() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            site.clients.edge.decode_gets = None  # type: ignore[method-assign, assignment]
            await site.open("KV/Pipeline").say(frame(gets=1))
            with pytest.raises(TypeError):
                await site.pump.failed

    run(test)


def test_a_frame_is_measured_with_the_stories_that_it_tells() -> None:
    sibling = SiblingReport(1, 1, 1, bytes(5_000), False, 0, False, b"")
    story = Detail((sibling, sibling), (), "", (), (), False, False)
    plain = GetResult(1, b"v" * 100, b"c" * 50, 0, 0, None)
    assert 150 < payload(plain) < 300
    assert payload(plain._replace(detail=story)) > 10_000


# ---- unary -----------------------------------------------------------------------------------


class Unary:
    """Unary calls of one client."""

    def __init__(self, site: Site) -> None:
        self._channel = site.channel()

    async def call(self, method: str, request: Any, within_s: float = 10) -> Any:
        data = request if isinstance(request, bytes) else request.SerializeToString()
        call: Any = self._channel.unary_unary(f"/kvnode.v1.KV/{method}")
        kind = kv_pb2.GetResponse if method == "Get" else kv_pb2.PutResponse
        return kind.FromString(await call(data, timeout=within_s))

    async def refused(self, method: str, request: Any) -> tuple[grpc.StatusCode, kv_pb2.Failure]:
        """Make a call that must fail; return its status and the failure in its trailer."""
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await self.call(method, request)
        trailer = dict(failed.value.trailing_metadata() or ())
        found = trailer.get("kvnode-failure-bin", b"")
        return failed.value.code(), kv_pb2.Failure.FromString(found)


def test_unary_calls_put_get_and_delete() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            auto_sync(site)
            unary = Unary(site)
            put = await unary.call("Put", kv_pb2.PutRequest(key=b"k", value=b"v"))
            assert list(put.acked_by) == ["n1"]
            got = await unary.call("Get", kv_pb2.GetRequest(key=b"k"))
            assert (got.found, got.value, got.timestamp) == (True, b"v", put.timestamp)
            await unary.call("Delete", kv_pb2.DeleteRequest(key=b"k", context=got.context))
            assert not (await unary.call("Get", kv_pb2.GetRequest(key=b"k"))).found
            told = await unary.call("Get", kv_pb2.GetRequest(key=b"k", explain=True))
            assert told.detail.explain.replicas[0].node == "n1"
            assert site.clients._sessions == {}

    run(test)


@pytest.mark.parametrize(
    ("method", "request_", "code", "error"),
    [
        ("Get", kv_pb2.GetRequest(), "INVALID_ARGUMENT", kv_pb2.INVALID_REQUEST),
        ("Put", kv_pb2.PutRequest(key=b"k", w=9), "INVALID_ARGUMENT", kv_pb2.INVALID_REQUEST),
        (
            "Delete",
            kv_pb2.DeleteRequest(key=b"k", keyspace="x"),
            "NOT_FOUND",
            kv_pb2.UNKNOWN_KEYSPACE,
        ),
    ],
    ids=["get", "put", "delete"],
)
def test_a_wrong_call_is_refused_with_the_failure_attached(
    method: str, request_: Any, code: str, error: int
) -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            status, failure = await Unary(site).refused(method, request_)
            assert status is grpc.StatusCode[code]
            assert failure.code == error
            wants = kv_pb2.OUTCOME_NONE if method == "Get" else kv_pb2.NOT_APPLIED
            assert failure.outcome == wants

    run(test)


def test_garbage_is_an_invalid_argument() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            with pytest.raises(
                grpc.aio.AioRpcError, match=r"not a kvnode\.v1\.GetRequest"
            ) as failed:
                await Unary(site).call("Get", b"\xff\xff")
            assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    run(test)


def test_a_full_node_refuses_with_the_status_of_the_table() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            site.engine.faults.is_full = True
            status, failure = await Unary(site).refused("Put", kv_pb2.PutRequest(key=b"k"))
            assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert failure.code == kv_pb2.STORAGE_FULL

    run(test)


def test_a_caller_that_gives_up_leaves_nothing_behind() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await Unary(site).call("Put", kv_pb2.PutRequest(key=b"k"), within_s=0.05)
            assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            while site.clients._sessions:
                await turns()
            site.sync()
            await turns()
            assert not site.pump.failed.done()

    run(test)


class Late:
    """The context of a call whose deadline has passed."""

    def __init__(self, left_s: float) -> None:
        self._left_s = left_s

    def time_remaining(self) -> float:
        return self._left_s

    async def abort(self, code: grpc.StatusCode, text: str, **_: Any) -> None:
        raise grpc.aio.AbortError(code, text)


@pytest.mark.parametrize("left_s", [0.0, -1.0, 0.0009])
@pytest.mark.parametrize("method", ["_get", "_put", "_delete"])
def test_a_call_that_comes_after_its_deadline_is_never_begun(method: str, left_s: float) -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            with pytest.raises(grpc.aio.AbortError, match="the deadline has passed"):
                await getattr(site.clients._unary, method)(b"", Late(left_s))
            assert site.clients.operations == 0

    run(test)


def test_a_stopping_node_refuses_unary_calls_too() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            site.clients.drain()
            status, failure = await Unary(site).refused("Get", kv_pb2.GetRequest(key=b"k"))
            assert status is grpc.StatusCode.UNAVAILABLE
            assert failure.message == "this node is stopping"

    run(test)


def test_a_bug_in_a_unary_call_ends_the_node() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            site.clients.edge.get = None  # type: ignore[method-assign, assignment]
            with pytest.raises(grpc.aio.AioRpcError):
                await Unary(site).call("Get", kv_pb2.GetRequest(key=b"k"))
            with pytest.raises(TypeError):
                await site.pump.failed

    run(test)


def test_answers_to_a_session_that_is_gone_are_dropped() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            site.clients._push(SessionId(99), [GetResult(1, b"", b"", 0, 0, None)])
            assert site.clients.is_idle

    run(test)
