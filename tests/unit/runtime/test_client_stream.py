"""Pipelines under load: who waits is told, who comes too much is refused, bulk goes apart."""

from __future__ import annotations

import os
from typing import Any

import grpc
import pytest

from kvnode.core.bounds import Limits
from kvnode.core.messages import SessionId
from kvnode.runtime.client_stream import ClientStream
from kvnode.runtime.pump import now_us
from kvproto import kv_pb2
from tests.unit.runtime.builders import Site, Talk, run, turns
from tests.unit.runtime.test_clients import ALONE, asked, auto_sync, frame, heard

LARGE = bytes(100_000)


def paired(request: Any, pair: bytes, *, bulk: bool = False) -> Any:
    request.pair, request.bulk = pair, bulk
    return request


def test_what_fits_neither_the_running_set_nor_the_queue_is_refused_at_once() -> None:
    async def test() -> None:
        async with Site(ALONE, operations_running=2, operations_waiting=1) as site:
            talk = site.open("KV/Pipeline")
            answer = await asked(talk, frame(puts=5))
            assert [failure.id for failure in answer.failures] == [104, 105]
            for failure in answer.failures:
                assert (failure.code, failure.outcome) == (kv_pb2.OVERLOADED, kv_pb2.NOT_APPLIED)
                assert failure.retry_after_ms > 0
            assert answer.waiting == 1
            auto_sync(site)
            site.sync()
            done: list[int] = []
            while len(done) < 3:
                done += (await heard(talk)).puts.id
            assert done == [101, 102, 103]
            assert site.clients.gate.refused == 2

    run(test)


def test_a_frame_for_which_there_is_no_room_at_all_is_refused_by_its_ids() -> None:
    async def test() -> None:
        async with Site(ALONE, operations_running=1, operations_waiting=2) as site:
            talk = site.open("KV/Pipeline")
            await asked(talk, frame(puts=3))
            request = frame(gets=1, puts=1)
            request.puts.write_id[0] = b"not read"
            answer = await asked(talk, request)
            outcomes = {failure.id: failure.outcome for failure in answer.failures}
            assert outcomes == {1: kv_pb2.OUTCOME_NONE, 101: kv_pb2.NOT_APPLIED}
            assert {failure.code for failure in answer.failures} == {kv_pb2.OVERLOADED}
            assert all("wait at this node" in failure.message for failure in answer.failures)

    run(test)


def test_a_unary_call_beyond_the_bounds_is_refused_and_one_within_waits_its_turn() -> None:
    async def test() -> None:
        async with Site(ALONE, operations_running=1, operations_waiting=0) as site:
            talk = site.open("KV/Pipeline")
            await talk.say(frame(puts=1))
            while site.engine.written < 2:
                await turns()
            get: Any = site.channel().unary_unary("/kvnode.v1.KV/Get")
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await get(kv_pb2.GetRequest(key=b"k").SerializeToString())
            assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            site.sync()
            while not (await heard(talk)).puts.id:
                pass
            assert await get(kv_pb2.GetRequest(key=b"k0").SerializeToString())

    run(test)


def test_who_waits_for_an_answer_hears_that_the_node_lives_and_then_no_more() -> None:
    async def test() -> None:
        async with Site(ALONE, client_beat_ms=5) as site:
            talk = site.open("KV/Pipeline")
            await talk.say(frame(puts=1))
            for _ in range(3):
                beat = await heard(talk)
                assert not beat.puts.id
                assert beat.hlc
            site.sync()
            while not (await heard(talk)).puts.id:
                pass
            while site.clients._beat is not None:
                await turns()
            assert site.clients.is_idle

    run(test)


def test_what_a_frame_waited_on_the_way_is_taken_off_its_time_outs() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            auto_sync(site)
            talk = site.open("KV/Pipeline")

            async def sent(ago_ms: int, timeout_ms: int) -> Any:
                request = frame(gets=1)
                request.sent_ms = 10_000_000 + now_us() // 1_000 - ago_ms
                request.gets.timeout_ms[0] = timeout_ms
                return await asked(talk, request)

            assert (await sent(5_000, 100)).gets.id, "clocks with origins of their own"
            assert (await sent(5_000, 60_000)).gets.id
            assert (await sent(8_000, 60_000)).gets.id, "late, and with time left"
            (failure,) = (await sent(8_000, 2_000)).failures
            assert failure.code == kv_pb2.TIMEOUT
            assert failure.message == "the deadline passed before it began"
            assert (await asked(talk, frame(gets=1))).gets.id, "a sender that does not tell"

    run(test)


def test_a_clock_that_stood_still_is_no_delay_for_ever() -> None:
    async def test() -> None:
        stream = ClientStream(SessionId(1), lambda *_: b"", Limits(), waiting=lambda _: 0)
        assert [stream.delay_ms(at, 500 + at) for at in (1, 2, 40_000)] == [0, 0, 0]
        slept_ms = 10_000
        late = [stream.delay_ms(at - slept_ms, 500 + at) for at in range(41_000, 141_000, 1_000)]
        assert late[0] == slept_ms
        assert late[-1] == 0
        assert late == sorted(late, reverse=True)

    run(test)


async def large_answer(site: Site, talk: Talk) -> Any:
    auto_sync(site)
    await asked(talk, frame(puts=1, value=LARGE))
    return await asked(talk, frame(gets=1))


def test_a_large_answer_leaves_where_it_was_asked_for_want_of_a_bulk_stream_and_says_so() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            answer = await large_answer(site, site.open("KV/Pipeline"))
            assert list(answer.gets.value) == [LARGE]
            assert answer.wants_bulk

    run(test)


def test_a_large_answer_leaves_on_the_bulk_stream_of_its_pair() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            auto_sync(site)
            small, bulk, stranger = (site.open("KV/Pipeline") for _ in range(3))
            pair = os.urandom(16)
            await asked(stranger, paired(frame(gets=1), os.urandom(16), bulk=True))
            await asked(bulk, paired(frame(puts=1, value=LARGE), pair, bulk=True))
            await small.say(paired(frame(gets=2), pair))
            assert list((await heard(bulk)).gets.value) == [LARGE]
            answer = await heard(small)
            assert list(answer.gets.id) == [2]
            assert not answer.wants_bulk
            assert site.clients.is_idle

    run(test)


def test_a_bulk_stream_that_ended_is_used_no_more() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            auto_sync(site)
            small, bulk = site.open("KV/Pipeline"), site.open("KV/Pipeline")
            pair = os.urandom(16)
            await asked(small, paired(frame(gets=1), pair))
            await asked(bulk, paired(frame(puts=1, value=LARGE), pair, bulk=True))
            await bulk.call.done_writing()
            await bulk.end()
            assert list((await asked(small, frame(gets=1))).gets.value) == [LARGE]
            await small.call.done_writing()
            await small.end()
            assert site.clients._pairs == {}

    run(test)


def test_a_pair_of_a_wrong_length_ends_its_stream() -> None:
    async def test() -> None:
        async with Site(ALONE) as site:
            talk = site.open("KV/Pipeline")
            await talk.say(paired(frame(gets=1), b"short"))
            code, text = await talk.end()
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert text == "pair has 5 bytes; it must have 16"

    run(test)
