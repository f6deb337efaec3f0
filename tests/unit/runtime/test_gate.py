"""The gate: what enters is handed over once or refused, and large values queue apart."""

from __future__ import annotations

from typing import Any

from kvnode.core.bounds import Limits
from kvnode.core.messages import (
    ClientOps,
    ErrorCode,
    Failure,
    GetResult,
    Instant,
    PutResult,
    Result,
    SessionId,
)
from kvnode.runtime.gate import Gate
from tests.unit.core.builders import NOW, at, get, put

ME = SessionId(1)
LARGE = 65_537
TIMELY = at(60_000_000)


class Bench:
    """A gate whose core is the test."""

    def __init__(self, **limits: Any) -> None:
        self.begun: list[int] = []
        self.refused: list[Failure] = []
        self.now: Instant = NOW
        self.gate = Gate(
            Limits(**limits), submit=self._submit, refuse=self._refuse, now_us=lambda: self.now
        )

    def _submit(self, ops: ClientOps) -> None:
        self.begun += [op.id for op in ops.gets] + [op.id for op in ops.puts]

    def _refuse(self, session: SessionId, results: list[Result]) -> None:
        assert session == ME
        self.refused += [result for result in results if isinstance(result, Failure)]

    def later(self, ms: int) -> None:
        self.now = Instant(self.now + 1_000 * ms)
        self.gate.look()

    def gets(self, *ids: int) -> None:
        ops = [get()._replace(id=op_id, deadline_us=TIMELY) for op_id in ids]
        self.gate.enter(ME, ClientOps(ME, ops, []), size=100)

    def large(self, *ids: int, beside: tuple[int, ...] = ()) -> None:
        puts = [put()._replace(id=i, value=bytes(LARGE), deadline_us=TIMELY) for i in ids] + [
            put()._replace(id=i, deadline_us=TIMELY) for i in beside
        ]
        self.gate.enter(ME, ClientOps(ME, [], puts), size=LARGE * len(ids))

    def put_done(self, op_id: int) -> None:
        self.gate.on_answered(ME, [PutResult(op_id, b"", (), 0)])

    def answer(self, *ids: int) -> None:
        self.gate.on_answered(ME, [GetResult(i, b"", b"", 0, 0, None) for i in ids])


def test_what_is_answered_makes_room_for_what_waits() -> None:
    bench = Bench(operations_running=2)
    bench.gets(1, 2, 3)
    assert bench.begun == [1, 2]
    assert (bench.gate.waiting, bench.gate.waiting_of(ME)) == (1, 1)
    bench.answer(2)
    assert bench.begun == [1, 2, 3]
    assert (bench.gate.waiting, bench.refused) == (0, [])


def test_large_values_wait_among_themselves_and_hold_up_nothing_small() -> None:
    bench = Bench(operations_running=4, bulk_running=1)
    bench.large(1, 2, 3, beside=(4,))
    assert bench.begun == [1, 4]
    bench.gets(5, 6, 7)
    assert bench.begun == [1, 4, 5, 6, 7]
    bench.answer(4)
    assert bench.begun == [1, 4, 5, 6, 7], "a small answer makes no room for a large value"
    bench.put_done(1)
    bench.later(0)
    assert bench.begun == [1, 4, 5, 6, 7, 2]
    bench.gets(8)
    assert bench.begun[-1] == 8, "nor did the large one's answer count as a small one's"


def test_alone_large_values_run_side_by_side() -> None:
    bench = Bench(bulk_running=3)
    bench.large(1, 2, 3, 4)
    assert bench.begun == [1, 2, 3]
    bench.put_done(2)
    assert bench.begun == [1, 2, 3, 4]


def test_beside_small_operations_large_values_run_one_by_one_with_long_pauses() -> None:
    bench = Bench(bulk_running=16)
    bench.gets(1)
    bench.large(11, 12, 13)
    assert bench.begun == [1, 11]
    bench.later(40)
    bench.put_done(11)
    bench.later(119)
    assert bench.begun == [1, 11]
    bench.later(1)
    assert bench.begun == [1, 11, 12]
    bench.later(10)
    assert bench.begun == [1, 11, 12], "one is under way"


def test_once_the_small_operations_are_over_the_large_ones_go_on_by_themselves() -> None:
    bench = Bench(bulk_running=16)
    bench.gets(1)
    bench.large(11, 12, 13)
    bench.answer(1)
    bench.later(99)
    assert bench.begun == [1, 11]
    bench.later(1)
    assert bench.begun == [1, 11, 12, 13]


def test_one_id_used_twice_is_counted_twice() -> None:
    bench = Bench(bulk_running=2)
    bench.large(1, 1)
    bench.gets(1)
    bench.answer(1, 1, 1)
    bench.later(100)
    bench.large(2, 3, 4)
    assert bench.begun == [1, 1, 1, 2, 3]


def test_a_client_that_left_has_nothing_waiting() -> None:
    bench = Bench(operations_running=1, bulk_running=1)
    bench.gets(1, 2)
    bench.large(3, 4)
    bench.gate.leave(ME)
    assert bench.gate.waiting == 0
    bench.answer(1, 3)
    assert bench.begun == [1, 3]


def test_a_full_queue_says_so_before_anything_is_read() -> None:
    bench = Bench(operations_running=1, operations_waiting=4)
    assert bench.gate.refusal(ME, 1) is None
    bench.gets(1, 2)
    assert bench.gate.refusal(ME, 1) is None
    bench.gets(3, 4)
    assert [failure.id for failure in bench.refused] == [4]
    assert bench.refused[0].code is ErrorCode.OVERLOADED
    refusal = bench.gate.refusal(ME, 5)
    assert refusal is not None
    text, retry_ms = refusal
    assert text == "2 operations wait at this node"
    assert retry_ms > 0
    assert bench.gate.refused == 6
