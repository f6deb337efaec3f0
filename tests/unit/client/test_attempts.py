"""The laws of kvclient.attempts: first answers win, budgets hold, silence is answered at once."""

from __future__ import annotations

import pytest

from kvclient.bounds import Bounds
from kvclient.errors import Overloaded, Reply, Uncertain
from kvclient.hedging import SAMPLES_LEAST
from kvclient.operation import Lane, LaneState, Operation
from kvclient.retry import Code, Refusal
from tests.unit.client.fakes import Bench

USUAL_S = 0.01
LATE_S = 0.025
"""More than twice what is usual, and than the least."""


def warmed(**bounds: float) -> Bench:
    """A bench that knows what is usual, and nothing of which is in flight."""
    bench = Bench(bounds=Bounds(**bounds))  # type: ignore[arg-type]
    for number in range(SAMPLES_LEAST):
        operation = bench.put(b"warm%d" % number)
        bench.lanes[0].take()
        bench.now += USUAL_S
        bench.engine.on_frame(bench.lanes[0], 0, bench.now)
        bench.acknowledge(bench.lanes[0], operation)
    return bench


def refuse(bench: Bench, lane: Lane, operation: Operation, code: Code, after_ms: int = 0) -> None:
    del lane.unanswered[operation.id]
    refusal = Refusal(code, "refused", retry_after_ms=after_ms)
    bench.engine.on_refusal(lane, operation, refusal, bench.now)
    bench.engine._check()


def refuse_many(bench: Bench, count: int, code: Code, after_ms: int = 0) -> list[Operation]:
    """Begin gets at the first node, which refuses them all."""
    operations = [bench.get(b"k%d" % number) for number in range(count)]
    first = bench.lanes[0]
    first.take()
    for operation in operations:
        refuse(bench, first, operation, code, after_ms)
    return operations


def hedged(bench: Bench, operation: Operation) -> tuple[Lane, Lane]:
    """Have both the first and the second node owe an answer to an operation."""
    first, second = bench.lanes[:2]
    first.take()
    bench.advance(LATE_S * 2, heard=(first,))
    assert second.take() == [operation]
    return first, second


def silent(bench: Bench) -> Lane:
    """Have the first node take what is queued, and say nothing until it is given up."""
    first = bench.lanes[0]
    first.take()
    bench.advance(0.22)
    assert first.state is LaneState.SUSPECTED
    return first


def left(bench: Bench) -> list[str]:
    """The nodes that have the next frame, in order; what is queued leaves."""
    return [lane.node for lane in bench.lanes for _ in lane.take()]


# ---- hedges -------------------------------------------------------------------------------------


def test_what_is_later_than_usual_is_asked_elsewhere_too_with_the_same_write_id() -> None:
    bench = warmed()
    operation = bench.put()
    first, second = bench.lanes[:2]
    write_id = first.take()[0].write_id
    bench.advance(0.015, heard=(first,))
    assert second.outbox == []
    bench.advance(LATE_S, heard=(first,))
    assert second.take() == [operation]
    assert operation.write_id == write_id
    assert (bench.engine.metrics.hedges, bench.engine.metrics.suspicions) == (1, 0)


def test_a_late_answer_of_the_first_node_counts_if_it_comes_first() -> None:
    bench = warmed()
    operation = bench.put()
    first, second = hedged(bench, operation)
    bench.acknowledge(first, operation)
    assert operation.is_done
    assert operation.error is None
    assert not second.unanswered


def test_a_hedge_that_is_refused_leaves_the_first_attempt_to_be_answered() -> None:
    bench = warmed()
    operation = bench.put()
    first, second = hedged(bench, operation)
    refuse(bench, second, operation, Code.OVERLOADED)
    assert not operation.is_done
    assert operation.lane is first
    bench.acknowledge(first, operation)
    assert operation.error is None
    assert bench.engine.metrics.retries == 0


def test_hedges_stay_within_their_share() -> None:
    bench = warmed(hedge_share=0.05, hedge_burst=2.0)
    operations = [bench.get(b"k%d" % number) for number in range(100)]
    first = bench.lanes[0]
    first.take()
    bench.advance(LATE_S * 2, heard=(first,))
    assert bench.engine.metrics.hedges == 2
    assert len(bench.lanes[1].outbox) + len(bench.lanes[2].outbox) == 2
    assert not any(operation.is_done for operation in operations)


def test_an_operation_is_hedged_once() -> None:
    bench = warmed()
    hedged(bench, bench.get())
    bench.advance(0.15, heard=tuple(bench.lanes))
    assert bench.engine.metrics.hedges == 1


def test_nothing_is_hedged_when_nobody_else_is_ready() -> None:
    bench = warmed()
    for lane in bench.lanes[1:]:
        lane.state = LaneState.SUSPECTED
    bench.get()
    bench.lanes[0].take()
    bench.advance(0.1, heard=(bench.lanes[0],))
    assert bench.engine.metrics.hedges == 0


def test_frames_that_were_answered_are_not_remembered() -> None:
    bench = warmed()
    bench.put()
    bench.lanes[0].take()
    (operation,) = bench.engine.pending.values()
    bench.acknowledge(bench.lanes[0], operation)
    bench.advance(0.5)
    assert not bench.lanes[0]._sent


# ---- silence ------------------------------------------------------------------------------------


def test_all_that_a_silent_node_owes_is_asked_elsewhere_at_once_outside_every_budget() -> None:
    bench = warmed(hedge_share=0.0, hedge_burst=0.0, retry_share=0.0, retry_burst=0.0)
    operations = [bench.put(b"k%d" % number) for number in range(50)]
    first = silent(bench)
    assert len(bench.lanes[1].outbox) == 50
    for operation in operations:
        bench.acknowledge(first, operation)
    assert all(operation.is_done and operation.error is None for operation in operations)
    assert left(bench) == []


def test_a_silent_node_is_avoided_until_it_is_heard() -> None:
    bench = warmed()
    bench.get()
    first = silent(bench)
    assert bench.get(b"other").lane is bench.lanes[1]
    bench.engine.on_frame(first, 0, bench.now)
    assert bench.get(b"third").lane is first


def test_when_the_hedged_node_falls_silent_the_other_attempt_stands() -> None:
    bench = warmed()
    operation = bench.get()
    first, second = hedged(bench, operation)
    bench.advance(0.25, heard=(first,))
    assert second.state is LaneState.SUSPECTED
    assert operation.lane is first
    assert bench.engine.metrics.reroutes == 0
    bench.advance(0.3)
    assert operation.lane is bench.lanes[2], "both silent: the third is asked"


def test_a_silent_nodes_work_waits_for_the_next_node_that_can_be_reached() -> None:
    bench = warmed()
    first, second, third = bench.lanes
    second.state = third.state = LaneState.DOWN
    operation = bench.put()
    first.take()
    bench.advance(0.3)
    assert operation.lane is None
    bench.engine.on_connected(third, bench.now)
    bench.advance(0.25)
    assert third.take() == [operation]
    bench.acknowledge(first, operation)
    assert operation.error is None


def test_a_put_that_a_silent_node_holds_is_never_called_not_applied() -> None:
    bench = warmed(retry_share=0.0, retry_burst=0.0)
    operation = bench.put(timeout_s=1.0)
    silent(bench)
    while not operation.is_done:
        for lane in bench.lanes[1:]:
            for taken in lane.take():
                refuse(bench, lane, taken, Code.OVERLOADED, 5)
        bench.advance(0.05, heard=tuple(bench.lanes[1:]))
    assert isinstance(operation.error, Uncertain)


def test_a_put_redone_while_it_waits_for_another_try_is_sent_once() -> None:
    bench = warmed()
    first, second, third = bench.lanes
    second.state = third.state = LaneState.DOWN
    operation = bench.put()
    silent(bench)
    assert operation.lane is None, "it waits for a node that can be reached"
    bench.engine.on_frame(first, 0, bench.now)
    bench.acknowledge(first, operation, newer=operation.timestamp + 1)
    assert bench.engine.metrics.restamps == 1
    bench.advance(0.15, heard=(first,))
    assert first.take() == [operation]
    assert left(bench) == []


@pytest.mark.parametrize("nobody_ms", [10.0, 100.0])
def test_while_no_node_is_there_an_operation_looks_for_one_as_often_as_its_bound_says(
    monkeypatch: pytest.MonkeyPatch, nobody_ms: float
) -> None:
    bench = warmed(nobody_ms=nobody_ms)
    for lane in bench.lanes:
        lane.state = LaneState.DOWN
    looks, choose = [], bench.engine.router.choose

    def looking(operation: Operation, now: float) -> Lane | None:
        looks.append(now)
        return choose(operation, now)

    monkeypatch.setattr(bench.engine.router, "choose", looking)
    operation = bench.get(timeout_s=10.0)
    bench.advance(3.0)
    least, first, most = nobody_ms, bench.bounds.retry_first_ms, 1.5 * nobody_ms
    assert 3_000 / (most + first) - 1 <= len(looks) <= 3_000 / least + 1
    bench.engine.on_connected(bench.lanes[0], bench.now)
    bench.advance((most + first) / 1_000)
    assert bench.lanes[0].take() == [operation]


# ---- refusals -----------------------------------------------------------------------------------


def test_a_retry_waits_at_least_as_long_as_the_node_asked_for_and_not_all_alike() -> None:
    bench = warmed(hedge_share=0.0, hedge_burst=0.0)
    refuse_many(bench, 20, Code.OVERLOADED, 100)
    bench.advance(0.099, heard=tuple(bench.lanes))
    assert left(bench) == []
    times = set()
    for step in range(20):
        bench.advance(0.005, heard=tuple(bench.lanes))
        if left(bench):
            times.add(step)
    assert len(times) > 5


def test_retries_after_overload_stay_within_a_tenth_and_the_rest_is_told_at_once() -> None:
    bench = warmed(retry_share=0.1, retry_burst=5.0)
    operations = refuse_many(bench, 100, Code.OVERLOADED, 40)
    failed = [operation for operation in operations if operation.is_done]
    assert len(failed) == 95
    assert all(isinstance(operation.error, Overloaded) for operation in failed)
    assert {operation.error.retry_after for operation in failed} == {0.04}  # type: ignore[union-attr]
    assert bench.engine.metrics.retries == 5


def test_who_was_not_asked_yet_costs_no_budget_when_another_cannot_reach_enough() -> None:
    bench = Bench(n=1, bounds=Bounds(retry_share=0.0, retry_burst=0.0, hedge_burst=0.0))
    operation = bench.get()
    for lane in bench.lanes[:2]:
        assert bench.holder(operation) is lane
        lane.take()
        refuse(bench, lane, operation, Code.UNAVAILABLE)
        bench.advance(0.01, heard=tuple(bench.lanes))
    assert operation.lane is None, "an owner and one other were asked: now it waits"
    bench.advance(1.3, heard=tuple(bench.lanes))
    assert bench.holder(operation) is bench.lanes[2]


@pytest.mark.parametrize("answer", ["pending", "unreached", "refused: overloaded"])
def test_a_put_that_too_few_could_hold_is_no_sign_of_load_unless_one_refused(answer: str) -> None:
    bench = Bench(n=3, bounds=Bounds(retry_share=0.0, retry_burst=0.0, hedge_burst=0.0))
    operation = bench.put()
    first = bench.lanes[0]
    first.take()
    del first.unanswered[operation.id]
    replies = (Reply("n1", "acknowledged", 1.0), Reply("n2", answer, 100.0))
    refusal = Refusal(Code.UNCERTAIN, "left to the silent", is_uncertain=True, replies=replies)
    bench.engine.on_refusal(first, operation, refusal, bench.now)
    bench.advance(0.01, heard=tuple(bench.lanes))
    is_load = answer.startswith("refused")
    assert (operation.lane is None) is is_load
    another = bench.get()
    assert (bench.holder(another) is first) is is_load, "another of its partition"


def test_whom_a_node_did_reach_is_asked_last_when_it_could_not_reach_enough() -> None:
    bench = Bench(count=5, n=3, bounds=Bounds(hedge_burst=0.0))
    operation = bench.get()
    asked = []
    said = {"n2": "record", "n3": "unreached", "n4": "keeps nothing", "n5": "pending"}
    replies = tuple(Reply(node, answer, 1.0) for node, answer in said.items())
    for _ in range(5):
        lane = bench.holder(operation)
        asked.append(lane.node)
        assert lane.take() == [operation]
        del lane.unanswered[operation.id]
        refusal = Refusal(Code.UNAVAILABLE, "too few", replies=replies)
        bench.engine.on_refusal(lane, operation, refusal, bench.now)
        bench.advance(0.4, heard=tuple(bench.lanes))
    assert asked == ["n1", "n3", "n5", "n2", "n4"]
    assert bench.holder(operation).node == "n1", "all were asked: from the beginning"


def test_a_full_disk_is_not_the_last_word_while_others_are_away_and_may_have_room() -> None:
    bench = warmed(hedge_burst=0.0)
    full, back, dead = bench.lanes
    back.state = dead.state = LaneState.DOWN
    operation = bench.put()
    for _ in range(5):
        assert full.take() == [operation]
        refuse(bench, full, operation, Code.STORAGE_FULL)
        bench.advance(0.5, heard=(full,))
    bench.engine.on_connected(back, bench.now)
    refuse(bench, *_taken(full), Code.STORAGE_FULL)
    bench.advance(0.5, heard=(full, back))
    bench.acknowledge(back, *back.take())
    assert operation.is_done
    assert operation.error is None


def _taken(lane: Lane) -> tuple[Lane, Operation]:
    (operation,) = lane.take()
    return lane, operation


def test_past_the_budget_other_retries_slow_down_and_none_fails_for_it() -> None:
    bench = warmed(retry_share=0.0, retry_burst=1.0, retry_scarce_ms=400.0, hedge_burst=0.0)
    operations = refuse_many(bench, 10, Code.TIMEOUT)
    bench.advance(0.39, heard=tuple(bench.lanes))
    assert len(left(bench)) == 1
    bench.advance(0.3, heard=tuple(bench.lanes))
    assert len(left(bench)) == 9
    assert all(operation.error is None for operation in operations)


def test_a_put_in_doubt_does_not_fail_for_an_overload_but_its_retries_slow_down_too() -> None:
    bench = warmed(retry_share=0.0, retry_burst=0.0, retry_scarce_ms=400.0, hedge_burst=0.0)
    operation = bench.put(timeout_s=20.0)
    lanes = bench.lanes
    lanes[0].take()
    bench.engine.on_broken(lanes[0], "unreached", bench.now)
    sent = 0
    for _ in range(100):
        for lane in lanes[1:]:
            for taken in lane.take():
                sent += 1
                refuse(bench, lane, taken, Code.OVERLOADED, 5)
        bench.advance(0.05, heard=tuple(lanes[1:]))
    assert not operation.is_done
    assert 3 <= sent <= 6, "in five seconds"
