"""The laws of a lane: when a frame leaves, and what is in it."""

from __future__ import annotations

import pytest

from kvclient.bounds import Bounds
from kvclient.operation import Lane, Operation

FLUSH_S = 0.004


def lane_of(**bounds: float) -> Lane:
    return Lane("n1", wake=lambda: None, dial=lambda: None, bounds=Bounds(**bounds))  # type: ignore[arg-type]


def queue(lane: Lane, count: int, *, now: float = 0.0, size: int = 1) -> list[Operation]:
    operations = []
    for number in range(count):
        operation = Operation("default", b"k", is_put=True, value=b"v" * size)
        operation.id = len(lane.unanswered) + len(lane.outbox) + 1000 * number + 1
        lane.queue(operation, now)
        operations.append(operation)
    return operations


def test_an_idle_lane_sends_at_once() -> None:
    lane = lane_of()
    assert lane.wait_s(0.0) is None
    queue(lane, 1)
    assert lane.wait_s(0.0) == 0.0


def test_a_frame_waits_until_it_is_half_of_all_in_flight() -> None:
    lane = lane_of()
    queue(lane, 4)
    lane.take()
    queue(lane, 3, now=1.0)
    assert lane.wait_s(1.0) == pytest.approx(FLUSH_S)
    queue(lane, 1, now=1.0)
    assert lane.wait_s(1.0) == 0.0


def test_a_frame_waits_no_longer_than_the_flush_time_of_its_first_operation() -> None:
    lane = lane_of()
    queue(lane, 4)
    lane.take()
    queue(lane, 1, now=1.0)
    queue(lane, 1, now=1.003)
    assert lane.wait_s(1.0 + FLUSH_S) == 0.0


def test_company_is_worth_half_of_what_answers_take_and_no_more_than_its_bound() -> None:
    lane = lane_of(flush_share=0.5, flush_most_ms=25)
    queue(lane, 4)
    lane.take()
    queue(lane, 1, now=1.0)
    for took_s, wait_s in ((0.002, FLUSH_S), (0.02, 0.01), (3.0, 0.025)):
        for _ in range(100):
            lane.note_answer(took_s)
        assert lane.wait_s(1.0) == pytest.approx(wait_s, rel=1e-3)


def test_a_frame_is_bounded_in_operations_and_bytes() -> None:
    lane = lane_of(frame_operations=3, frame_bytes=1000)
    queue(lane, 5)
    assert len(lane.take()) == 3
    assert len(lane.take()) == 2
    queue(lane, 3, size=400)
    assert len(lane.take()) == 2


def test_a_value_larger_than_a_frame_travels_alone() -> None:
    lane = lane_of(frame_bytes=1000)
    queue(lane, 2, size=5000)
    assert len(lane.take()) == 1
    assert len(lane.take()) == 1


def test_what_was_finished_in_the_outbox_does_not_leave() -> None:
    lane = lane_of()
    first, second = queue(lane, 2)
    first.is_done = True
    assert lane.take() == [second]
    assert first.id not in lane.unanswered


def test_a_node_that_owes_nothing_is_not_silent() -> None:
    lane = lane_of(silence_ms=200.0)
    assert not lane.is_silent(100.0)
    queue(lane, 1, now=100.0)
    assert not lane.is_silent(100.1)
    assert lane.is_silent(100.3)


def test_a_large_operation_passes_no_small_one_and_delays_none() -> None:
    lane = lane_of(bulk_bytes=1_000)
    small, large = queue(lane, 1), queue(lane, 2, size=2_000)
    assert lane.take() == small
    assert lane.take() == []
    assert lane.wait_s(0.0) is None
    assert lane.take_bulk() == large[:1]
    large[1].is_done = True
    assert lane.take_bulk() == []
    assert lane.unanswered.keys() == {small[0].id, large[0].id}


def test_where_there_is_no_second_stream_large_operations_leave_on_the_first() -> None:
    lane = lane_of(bulk_bytes=1_000)
    lane.is_apart = False
    large = queue(lane, 1, size=2_000)
    assert lane.take() == large


def test_what_is_taken_back_leaves_no_more() -> None:
    lane = lane_of(bulk_bytes=1_000)
    small, large = queue(lane, 1), queue(lane, 1, size=2_000)
    assert lane.take_back() == small + large
    assert (lane.take(), lane.take_bulk(), lane.owes) == ([], [], False)


def test_what_is_overdue_is_told_once() -> None:
    lane = lane_of()
    early, late = queue(lane, 2), queue(lane, 1, now=1.0)
    for operation in late:
        operation.sent_at = 1.0
    lane.take()
    del lane.unanswered[early[0].id]
    assert lane.take_overdue(0.5, 1.2) == []
    assert lane.take_overdue(0.1, 1.2) == [early[1], *late]
    assert lane.take_overdue(0.1, 9.0) == []
