"""The laws of kvclient.engine, without sockets: the test plays the nodes and is the clock."""

from __future__ import annotations

import pytest

from kvclient.bounds import Bounds
from kvclient.errors import Overloaded, Timeout, Unavailable, Uncertain
from kvclient.operation import CLIENT_BYTES, PUT_EXPLICIT, Lane, LaneState, Operation
from kvclient.retry import Code, Refusal
from kvclient.session import Session
from tests.unit.client.fakes import EPOCH_HLC, Bench, context_of


def state(lane: Lane) -> LaneState:
    """Read anew: a type checker takes it for unchanged otherwise."""
    return lane.state


def test_a_broken_stream_costs_nothing_but_another_attempt_with_the_same_write_id(
    bench: Bench,
) -> None:
    operation = bench.put()
    first, second = bench.lanes[:2]
    before = first.take()[0].write_id, operation.timestamp
    bench.engine.on_broken(first, "unreached", bench.now)
    assert second.outbox == [operation]
    assert (operation.write_id, operation.timestamp) == before
    second.take()
    bench.acknowledge(second, operation)
    assert operation.is_done
    assert operation.error is None


def test_an_acknowledged_put_is_finished_once_whoever_answers_late(bench: Bench) -> None:
    operation = bench.put()
    first, second = bench.lanes[:2]
    first.take()
    bench.advance(0.3)
    assert second.take() == [operation]
    bench.acknowledge(first, operation)
    bench.acknowledge(second, operation)
    assert operation.waiter.results == [operation]  # type: ignore[union-attr]


def test_a_silent_node_is_suspected_and_its_operations_are_asked_elsewhere(bench: Bench) -> None:
    operation = bench.get()
    first, second = bench.lanes[:2]
    first.take()
    bench.advance(0.19)
    assert state(first) is LaneState.READY
    bench.advance(0.1)
    assert state(first) is LaneState.SUSPECTED
    assert bench.suspected == ["n1"]
    assert second.outbox == [operation]
    bench.engine.on_frame(first, 0, bench.now)
    assert state(first) is LaneState.READY


def test_a_node_that_speaks_is_not_suspected_however_long_one_answer_takes(bench: Bench) -> None:
    bench.get()
    first = bench.lanes[0]
    first.take()
    bench.advance(1.0, heard=(first,))
    assert first.state is LaneState.READY


def test_nobody_is_suspected_when_this_loop_itself_was_held_up(bench: Bench) -> None:
    bench.get()
    bench.lanes[0].take()
    bench.alarms.clear()
    bench.engine.on_alarm(bench.now + 3.0)
    assert bench.suspected == []


def test_what_waits_in_the_outbox_of_a_silent_node_moves_without_becoming_uncertain(
    bench: Bench,
) -> None:
    operation = bench.put(timeout_s=0.5)
    bench.advance(0.3)
    assert bench.lanes[0].outbox == []
    assert bench.lanes[1].outbox == [operation]
    bench.advance(1.0)
    assert isinstance(operation.error, Unavailable)


def test_a_put_that_no_node_can_have_seen_fails_unavailable(bench: Bench) -> None:
    for lane in bench.lanes:
        lane.state = LaneState.DOWN
    operation = bench.put(timeout_s=1.0)
    bench.advance(2.0)
    assert isinstance(operation.error, Unavailable)
    assert operation.error.outcome == "not applied"


def test_an_unanswered_put_is_uncertain_and_a_get_timed_out_at_the_deadline(bench: Bench) -> None:
    put, get = bench.put(timeout_s=1.0), bench.get(timeout_s=1.0)
    for _ in range(20):
        for lane in bench.lanes:
            lane.take()
        bench.advance(0.1)
    assert isinstance(put.error, Uncertain)
    assert isinstance(get.error, Timeout)
    assert put.error.replies
    assert not any(lane.unanswered for lane in bench.lanes)


def test_a_put_broken_off_and_then_refused_is_uncertain_not_unavailable(bench: Bench) -> None:
    operation = bench.put(timeout_s=1.0)
    first, second, third = bench.lanes
    first.take()
    bench.engine.on_broken(first, "unreached", bench.now)
    third.state = LaneState.DOWN
    while not operation.is_done:
        for taken in second.take():
            del second.unanswered[taken.id]
            bench.engine.on_refusal(second, taken, Refusal(Code.UNAVAILABLE, "no"), bench.now)
        bench.advance(0.05, heard=(second,))
    assert isinstance(operation.error, Uncertain)


def test_an_operation_is_finished_by_its_deadline_among_others_with_later_ones(
    bench: Bench,
) -> None:
    late, early = bench.get(timeout_s=9.0), bench.get(timeout_s=0.05)
    bench.advance(0.06)
    assert early.is_done
    assert not late.is_done


def test_past_the_bound_operations_are_refused_at_once() -> None:
    bench = Bench(bounds=Bounds(operations_in_flight=1))
    bench.get()
    refused = bench.get()
    assert isinstance(refused.error, Overloaded)
    assert refused.error.retry_after > 0
    assert bench.engine.metrics.overloaded == 1


def test_while_operations_cannot_leave_more_are_refused_at_once() -> None:
    bench = Bench(bounds=Bounds(frame_operations=4, queue_ms=1_000.0))
    for number in range(9):
        bench.get(b"k%d" % number)
    first = bench.lanes[0]
    bench.advance(0.9, heard=(first,))
    assert bench.get(b"early").error is None
    bench.advance(0.2, heard=(first,))
    refused = bench.get(b"late")
    assert isinstance(refused.error, Overloaded)
    assert refused.error.retry_after > 0
    while first.outbox:
        first.take()
    bench.advance(0.02, heard=(first,))
    assert bench.get(b"again").error is None


def test_the_bytes_in_flight_are_bounded() -> None:
    bench = Bench(bounds=Bounds(bytes_in_flight=1000))
    operation = bench.submit(Operation("default", b"k", is_put=True, value=b"v" * 1000))
    assert isinstance(operation.error, Overloaded)


def test_a_put_over_something_newer_is_redone_as_a_new_write_above_it(bench: Bench) -> None:
    operation = bench.put()
    lane = bench.lanes[0]
    lane.take()
    before, stamp, number = operation.write_id, operation.timestamp, operation.id
    newer = stamp + (5_000 << 16)
    bench.acknowledge(lane, operation, context=context_of((1, 1)), newer=newer)
    assert operation.id in bench.engine.pending
    assert operation.write_id != before
    assert operation.timestamp > newer
    assert operation.context == context_of((1, 1))
    assert operation.flags & PUT_EXPLICIT == 0
    assert operation.id != number
    assert bench.engine.metrics.restamps == 1
    lane.take()
    bench.acknowledge(lane, operation, context=context_of((1, 2)))
    assert operation.is_done
    assert operation.error is None


def test_a_put_with_an_explicit_context_is_never_restamped(bench: Bench) -> None:
    operation = bench.put(flags=PUT_EXPLICIT, context=context_of((1, 1)))
    bench.lanes[0].take()
    bench.acknowledge(bench.lanes[0], operation, newer=EPOCH_HLC * 2)
    assert operation.is_done
    assert operation.context == context_of((1, 1))


def test_a_put_still_being_restamped_at_the_deadline_is_uncertain(bench: Bench) -> None:
    operation = bench.put(timeout_s=0.1)
    bench.lanes[0].take()
    bench.acknowledge(bench.lanes[0], operation, newer=operation.timestamp + 1)
    bench.advance(0.2)
    assert isinstance(operation.error, Uncertain)


def test_a_put_that_was_also_sent_elsewhere_is_not_restamped(bench: Bench) -> None:
    operation = bench.put()
    first, second = bench.lanes[:2]
    first.take()
    bench.advance(0.3)
    assert second.outbox == [operation]
    bench.acknowledge(first, operation, newer=operation.timestamp + 1)
    assert operation.is_done
    assert operation.error is None
    assert bench.engine.metrics.restamps == 0


def test_a_put_whose_earlier_attempt_was_certainly_not_applied_is_restamped(bench: Bench) -> None:
    operation = bench.put()
    first, second = bench.lanes[:2]
    first.take()
    del first.unanswered[operation.id]
    bench.engine.on_refusal(first, operation, Refusal(Code.UNAVAILABLE, "no"), bench.now)
    bench.advance(0.1)
    second.take()
    bench.acknowledge(second, operation, newer=operation.timestamp + 1)
    assert bench.engine.metrics.restamps == 1


def test_a_put_that_is_nowhere_is_not_sent_again_when_no_answer_could_come_in_time(
    bench: Bench,
) -> None:
    operation = bench.put(timeout_s=0.1)
    first = bench.lanes[0]
    first.take()
    bench.advance(0.085, heard=(first,))
    del first.unanswered[operation.id]
    bench.engine.on_refusal(first, operation, Refusal(Code.UNAVAILABLE, "no"), bench.now)
    bench.advance(0.014)
    assert [lane.outbox for lane in bench.lanes] == [[]] * len(bench.lanes)
    assert not operation.is_done
    bench.advance(0.01)
    assert type(operation.error) is Unavailable


def test_a_sessions_context_travels_with_the_next_operation_on_the_key() -> None:
    bench = Bench(session=Session())
    operation = bench.put()
    bench.lanes[0].take()
    bench.acknowledge(bench.lanes[0], operation, context=context_of((1, 1)))
    assert bench.get().context == context_of((1, 1))
    assert bench.get(b"other").context == b""


def test_sessions_of_one_client_know_nothing_of_each_other() -> None:
    bench, mine, yours = Bench(session=Session()), Session(), Session()
    for number, session in enumerate((None, mine, yours)):
        operation = bench.put(session=session)
        bench.lanes[0].take()
        bench.acknowledge(bench.lanes[0], operation, context=context_of((1, 1 + number)))
    assert bench.get(session=mine).context == context_of((1, 2))
    assert bench.get(session=yours).context == context_of((1, 3))
    assert bench.get().context == context_of((1, 1))


def test_the_write_ids_of_each_session_grow_and_name_it_alone() -> None:
    bench, mine, yours = Bench(session=Session()), Session(), Session()
    turns = [None, mine, yours, mine, None, yours, mine]
    ids = [(session, bench.put(session=session).write_id) for session in turns]
    names = set()
    for session in (None, mine, yours):
        own = [each for whose, each in ids if whose is session]
        assert own == sorted(set(own))
        names |= {each[:CLIENT_BYTES] for each in own}
    assert len(names) == 3


def test_a_put_that_is_redone_stays_its_sessions() -> None:
    bench, mine = Bench(session=Session()), Session()
    operation = bench.put(session=mine)
    first = bench.lanes[0].take()[0].write_id
    bench.acknowledge(bench.lanes[0], operation, newer=EPOCH_HLC + 5)
    assert operation.write_id[:CLIENT_BYTES] == first[:CLIENT_BYTES]
    assert operation.write_id > first
    bench.lanes[0].take()
    bench.acknowledge(bench.lanes[0], operation, context=context_of((1, 1)))
    assert bench.get(session=mine).context == context_of((1, 1))
    assert bench.get().context == b""


def test_an_explicit_context_is_sent_instead_of_the_sessions() -> None:
    bench = Bench(session=Session())
    operation = bench.put()
    bench.lanes[0].take()
    bench.acknowledge(bench.lanes[0], operation, context=context_of((1, 1)))
    given = context_of((2, 2))
    assert bench.put(flags=PUT_EXPLICIT, context=given).context == given


def test_expiry_is_stamped_once_by_the_clusters_clock(bench: Bench) -> None:
    operation = bench.put(ttl_ms=1500)
    assert operation.expires_ms == (EPOCH_HLC >> 16) + 1500
    bench.lanes[0].take()
    bench.now += 0.1
    bench.engine.on_broken(bench.lanes[0], "unreached", bench.now)
    assert operation.expires_ms == (EPOCH_HLC >> 16) + 1500


def test_an_abandoned_operation_that_has_not_left_never_leaves(bench: Bench) -> None:
    operation = bench.put()
    bench.engine.abandon(operation)
    assert bench.lanes[0].take() == []
    assert not bench.engine.pending


def test_closing_finishes_everything_with_what_may_be_concluded(bench: Bench) -> None:
    left = bench.put()
    bench.lanes[0].take()
    queued = bench.put(b"other")
    bench.engine.close()
    assert isinstance(left.error, Uncertain)
    assert isinstance(queued.error, Unavailable)
    assert not bench.engine.pending


@pytest.mark.parametrize("attempts", [1, 5])
def test_a_refused_operation_waits_before_it_is_asked_again(bench: Bench, attempts: int) -> None:
    operation = bench.get()
    for _ in range(attempts):
        lane = bench.holder(operation)
        lane.take()
        del lane.unanswered[operation.id]
        bench.engine.on_refusal(lane, operation, Refusal(Code.UNAVAILABLE, "no"), bench.now)
        assert operation.lane is None
        bench.advance(0.2)
        assert bench.holder(operation) is not lane
    assert bench.engine.metrics.retries == attempts
