"""When a frame leaves, what it holds, and how an outbox ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest

from kvnode.core.bounds import FLUSH_MS_MOST, Limits
from kvnode.core.operations import OPERATION_ID_MAX
from kvnode.runtime.outgoing import AnswerTime, InFlight, Outgoing
from tests.unit.runtime.builders import run

NEVER_MS = 100
"""No test waits for so long: what leaves sooner was due."""


class Message(NamedTuple):
    id: int
    size: int = 10


class Rig:
    """An outbox whose frames are lists of ids, with a reader that may be stopped."""

    def __init__(self, *, owed: int = 0, answer_ms: float = 0, **limits: Any) -> None:
        self.owed = owed
        self.frames: list[list[int]] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.began = asyncio.Event()
        settings = {"flush_after_ms": NEVER_MS} | limits
        self.outgoing: Outgoing[Message] = Outgoing(
            self._encode,
            lambda message: message.size,
            lambda: self.owed,
            lambda: answer_ms,
            Limits(**settings),
        )
        self.task = asyncio.create_task(self.outgoing.run(self._write))

    def push(self, *ids: int, size: int = 10) -> None:
        self.outgoing.push([Message(number, size) for number in ids])

    async def settle(self) -> None:
        """Let the writer do all that it can do without time passing."""
        for _ in range(10):
            await asyncio.sleep(0)

    def _encode(self, messages: Sequence[Message]) -> bytes:
        self.owed -= len(messages)
        return bytes(message.id for message in messages)

    async def _write(self, frame: bytes) -> None:
        self.began.set()
        await self.reads.wait()
        self.frames.append(list(frame))


def test_alone_a_message_leaves_at_once() -> None:
    async def test() -> None:
        rig = Rig(owed=1)
        rig.push(1)
        await rig.settle()
        assert rig.frames == [[1]]

    run(test)


def test_messages_leave_when_they_are_half_of_what_is_in_flight() -> None:
    async def test() -> None:
        rig = Rig(owed=6)
        rig.push(1)
        rig.push(2)
        await rig.settle()
        assert rig.frames == []
        rig.push(3)
        await rig.settle()
        assert rig.frames == [[1, 2, 3]]

    run(test)


def test_less_than_half_leaves_after_a_while_and_not_sooner() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        rig = Rig(owed=1_000, flush_after_ms=5)
        before = loop.time()
        rig.push(1)
        await rig.began.wait()
        assert loop.time() - before >= 0.004

    run(test)


def test_while_answers_take_long_company_is_waited_for_longer() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        rig = Rig(owed=1_000, answer_ms=20, flush_after_ms=0)
        before = loop.time()
        rig.push(1)
        await rig.began.wait()
        assert loop.time() - before >= 0.009

    run(test)


def test_however_long_answers_take_company_is_waited_for_no_longer_than_its_bound() -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        rig = Rig(owed=1_000, answer_ms=1e6, flush_after_ms=0)
        before = loop.time()
        rig.push(1)
        await rig.began.wait()
        assert loop.time() - before >= FLUSH_MS_MOST / 1_000 - 0.001

    run(test)


def test_many_bytes_leave_whatever_is_in_flight() -> None:
    async def test() -> None:
        rig = Rig(owed=1_000, frame_bytes=64 << 10)
        rig.push(1, size=64 << 10)
        await rig.settle()
        assert rig.frames == [[1]]

    run(test)


def test_when_less_is_in_flight_a_look_lets_the_rest_leave() -> None:
    async def test() -> None:
        rig = Rig(owed=100)
        rig.push(1)
        rig.owed = 2
        rig.outgoing.look()
        await rig.settle()
        assert rig.frames == [[1]]

    run(test)


def test_a_frame_holds_at_most_the_operations_that_it_may_and_order_is_kept() -> None:
    async def test() -> None:
        rig = Rig(owed=5, frame_operations=2)
        rig.push(1, 2, 3, 4, 5)
        await rig.settle()
        assert rig.frames == [[1, 2], [3, 4], [5]]

    run(test)


def test_a_frame_holds_at_most_its_bytes_and_a_larger_message_travels_alone() -> None:
    async def test() -> None:
        rig = Rig(frame_bytes=64 << 10)
        rig.outgoing.push([Message(1), Message(2, 100 << 10), Message(3), Message(4)])
        await rig.settle()
        assert rig.frames == [[1], [2], [3, 4]]

    run(test)


def test_what_comes_during_a_write_travels_together_after_it() -> None:
    async def test() -> None:
        rig = Rig()
        rig.reads.clear()
        rig.push(1)
        await rig.began.wait()
        rig.push(2)
        rig.push(3)
        rig.reads.set()
        await rig.settle()
        assert rig.frames == [[1], [2, 3]]

    run(test)


def test_news_makes_a_frame_of_its_own_and_rides_on_one_that_is_due() -> None:
    async def test() -> None:
        rig = Rig(owed=1)
        rig.outgoing.notice()
        await rig.settle()
        rig.push(1)
        rig.outgoing.notice()
        await rig.settle()
        assert rig.frames == [[], [1]]

    run(test)


def test_it_is_idle_only_when_nothing_is_queued_or_being_written() -> None:
    async def test() -> None:
        rig = Rig(owed=10)
        seen = [rig.outgoing.is_idle]
        rig.reads.clear()
        rig.push(1)
        seen.append(rig.outgoing.is_idle)
        rig.outgoing.flush()
        await rig.began.wait()
        seen.append(rig.outgoing.is_idle)
        rig.reads.set()
        await rig.settle()
        assert [*seen, rig.outgoing.is_idle] == [True, False, False, True]

    run(test)


def test_what_is_unsent_beyond_the_bound_is_overfull_until_it_is_sent() -> None:
    async def test() -> None:
        rig = Rig(outbox_bytes=1 << 20)
        rig.reads.clear()
        rig.push(1, size=1 << 20)
        await rig.began.wait()
        rig.push(2, size=1 << 20)
        seen = [rig.outgoing.is_overfull]
        rig.push(3, size=1)
        seen.append(rig.outgoing.is_overfull)
        rig.reads.set()
        await rig.settle()
        assert [*seen, rig.outgoing.is_overfull] == [False, True, False]

    run(test)


def test_closing_drops_what_is_queued_and_takes_no_more() -> None:
    async def test() -> None:
        rig = Rig()
        rig.reads.clear()
        rig.push(1)
        await rig.began.wait()
        rig.push(2)
        rig.outgoing.notice()
        rig.outgoing.close()
        rig.push(3)
        rig.reads.set()
        await rig.task
        assert rig.frames == [[1]]
        assert rig.outgoing.is_closed

    run(test)


def test_what_a_write_raises_ends_the_run() -> None:
    async def test() -> None:
        async def broken(frame: bytes) -> None:
            raise OSError(frame)

        outgoing: Outgoing[Message] = Outgoing(
            lambda _: b"", lambda _: 1, lambda: 0, lambda: 0, Limits()
        )
        outgoing.push([Message(1)])
        with pytest.raises(OSError, match="b''"):
            await outgoing.run(broken)

    run(test)


def test_finishing_waits_for_what_is_owed_and_sent() -> None:
    async def test() -> None:
        rig = Rig(owed=2)
        finishing = asyncio.create_task(rig.outgoing.finish())
        rig.push(1)
        await rig.settle()
        assert not finishing.done()
        rig.reads.clear()
        rig.push(2)
        await rig.settle()
        assert not finishing.done()
        rig.reads.set()
        await finishing
        assert rig.frames == [[1], [2]]

    run(test)


def test_finishing_ends_when_the_stream_is_given_up() -> None:
    async def test() -> None:
        rig = Rig(owed=2)
        finishing = asyncio.create_task(rig.outgoing.finish())
        await rig.settle()
        rig.outgoing.close()
        await finishing

    run(test)


def boxes(*ids: int) -> list[Message]:
    return [Message(number) for number in ids]


def test_in_flight_is_what_began_and_did_not_end() -> None:
    flight = InFlight()
    flight.begin(boxes(1, 2, 3), is_bulk=False)
    flight.end(boxes(2))
    assert flight.count == 2


def test_what_is_never_answered_is_not_in_flight() -> None:
    flight = InFlight()
    flight.begin(boxes(0, 1, 0), is_bulk=False)
    assert flight.count == 1


def test_answers_count_on_whichever_stream_they_come() -> None:
    flight = InFlight()
    flight.begin(boxes(1, 2), is_bulk=False)
    flight.begin(boxes(8, 9), is_bulk=True)
    flight.end(boxes(8, 1))
    assert flight.count == 1
    flight.end(boxes(9))
    assert flight.count == 1
    flight.end(boxes(2))
    assert flight.count == 0


def test_what_no_client_waits_for_is_in_flight_and_no_company() -> None:
    flight = InFlight()
    background = OPERATION_ID_MAX + 1
    flight.begin(boxes(background, 1), is_bulk=False)
    assert flight.count == 1
    flight.end(boxes(1))
    assert (flight.count, flight.is_empty) == (0, False)
    flight.end(boxes(background))
    assert flight.is_empty


def test_an_answer_too_many_counts_for_nothing() -> None:
    flight = InFlight()
    flight.end(boxes(5, 6, 7))
    flight.begin(boxes(1, 2), is_bulk=False)
    assert flight.count == 2


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_what_answers_take_is_averaged_over_the_last_ones() -> None:
    clock = Clock()
    answers = AnswerTime(clock)
    assert answers.ms == 0
    for _ in range(50):
        answers.begin(3)
        clock.now_s += 0.04
        answers.end(3)
        clock.now_s += 1  # idle: nobody waits
    assert answers.ms == pytest.approx(40, rel=0.01)


def test_an_answer_that_never_comes_makes_others_seem_to_wait_for_one_more() -> None:
    clock = Clock()
    answers = AnswerTime(clock)
    answers.begin(1)  # this one is never answered
    for _ in range(50):
        answers.begin(2)
        clock.now_s += 0.01
        answers.end(2)
    assert answers.ms == pytest.approx(20, rel=0.1)


def test_answers_too_many_are_no_answers_to_what_comes_later() -> None:
    clock = Clock()
    answers = AnswerTime(clock)
    answers.end(10)
    answers.begin(1)
    clock.now_s += 0.02
    assert answers.ms == 0
    answers.end(1)
    assert answers.ms == pytest.approx(5)
