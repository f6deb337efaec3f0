"""Repairs: what counts as done, what a cancelled one keeps, what is left out."""

from __future__ import annotations

from kvnode.core.bounds import Limits
from kvnode.core.keys import Partition
from kvnode.core.repair import Part, PartState, Repair, State
from tests.support.sides import Sides, keys_of, three_owners
from tests.unit.core.builders import WALL_MS, record, version

P, Q = Partition(0), Partition(1)
SELDOM = Limits(exchange_interval_ms=3_600_000)


def linked(nodes: int = 3) -> Sides:
    """Return owners whose first sweeps are over, and the next ones an hour away."""
    sides = Sides(three_owners(nodes=nodes), SELDOM)
    for a in sides.sides:
        for b in range(a + 1, nodes + 1):
            sides.link(a, b)
    sides.run(5)
    sides.asked.clear()
    return sides


def spread(sides: Sides, partition: int, count: int, *, at: int = 1) -> None:
    """Have one owner alone hold some keys."""
    for number, key in enumerate(keys_of(partition, count)):
        sides[at].hold(key, record(version(f"a{number + 1}", key=key)))


def repair_of(sides: Sides, number: int = 1) -> Repair:
    return Repair(sides[number].sweeps, sides[number].holdings)


def look(repair: Repair, sides: Sides) -> list[Part]:
    return repair.look(sides.now, WALL_MS + sides.now // 1_000)


def state_of(repair: Repair) -> State:
    """Return the state, whatever a test has shown it to be before."""
    return repair.state


def start(repair: Repair, sides: Sides, *partitions: int) -> None:
    repair.start(partitions, sides.now, WALL_MS + sides.now // 1_000)


def test_nothing_was_asked_for_at_first() -> None:
    repair = repair_of(linked())
    assert repair.look(SIDES_NOW, WALL_MS) == []
    assert (repair.state, repair.began_ms, repair.ended_ms) == (State.NONE, 0, 0)


SIDES_NOW = Sides().now


def test_a_repair_compares_at_once_and_tells_what_it_mended() -> None:
    sides = linked()
    spread(sides, P, 12)
    repair = repair_of(sides)
    start(repair, sides)
    assert {part.state for part in look(repair, sides)} == {PartState.WAITING}
    sides.run(10)
    assert look(repair, sides) == [
        Part(P, 2, PartState.DONE, 12, 12),
        Part(P, 3, PartState.DONE, 12, 12),
        Part(Q, 2, PartState.DONE, 0, 0),
        Part(Q, 3, PartState.DONE, 0, 0),
    ]
    assert state_of(repair) is State.DONE
    assert sides[1].records == sides[2].records == sides[3].records


def test_it_ended_when_the_last_pair_was_equal_however_late_one_looks() -> None:
    sides = linked(2)
    repair = repair_of(sides)
    start(repair, sides)
    began = repair.began_ms
    sides.run(600)
    look(repair, sides)
    assert began <= repair.ended_ms < began + 1_000


def test_what_was_compared_before_the_start_does_not_count() -> None:
    sides = linked(2)
    assert sides[1].sweeps.progress.line(2, P).completed == 1
    repair = repair_of(sides)
    start(repair, sides)
    assert {part.state for part in look(repair, sides)} == {PartState.WAITING}


def test_partitions_can_be_chosen() -> None:
    sides = linked()
    repair = repair_of(sides)
    start(repair, sides, Q, 99)
    sides.run(3)
    assert [(part.partition, part.peer) for part in look(repair, sides)] == [(Q, 2), (Q, 3)]
    assert state_of(repair) is State.DONE


def test_of_two_owners_the_one_that_asks_repairs() -> None:
    sides = linked()
    every = [
        (number, part.peer)
        for number in sides.sides
        for part in _started(repair_of(sides, number), sides)
        if part.partition == P
    ]
    assert every == [(1, 2), (1, 3), (2, 3)]


def _started(repair: Repair, sides: Sides) -> list[Part]:
    start(repair, sides)
    return look(repair, sides)


def test_a_peer_that_is_away_is_waited_for() -> None:
    sides = linked()
    sides.part(1, 3)
    repair = repair_of(sides)
    start(repair, sides)
    sides.run(5)
    assert [(p.peer, p.state) for p in look(repair, sides) if p.partition == P] == [
        (2, PartState.DONE),
        (3, PartState.WAITING),
    ]
    assert state_of(repair) is State.RUNNING
    sides.link(1, 3)
    sides.run(5)
    look(repair, sides)
    assert state_of(repair) is State.DONE


def test_what_was_broken_off_is_hurried_on_while_somebody_looks() -> None:
    sides = linked(2)
    spread(sides, P, 3)
    sides.lost = lambda *_: True
    repair = repair_of(sides)
    start(repair, sides)
    sides.run(30)
    assert look(repair, sides)[0].state is not PartState.DONE
    sides.lost = lambda *_: False
    for _ in range(10):
        sides.run(1)
        look(repair, sides)
    assert state_of(repair) is State.DONE


def test_a_cancelled_repair_breaks_off_and_goes_on_where_it_was() -> None:
    sides = linked(2)
    spread(sides, Q, 5)
    repair = repair_of(sides)
    start(repair, sides)
    sides.run(0)  # roots are compared; the exchange of Q pauses for writes in flight
    assert [part.state for part in look(repair, sides)] == [PartState.DONE, PartState.RUNNING]
    began = repair.began_ms
    repair.cancel(WALL_MS)
    assert state_of(repair) is State.CANCELLED
    assert repair.ended_ms == WALL_MS
    sides.run(60)
    assert sides[2].records == {}
    assert [part.state for part in look(repair, sides)] == [PartState.DONE, PartState.WAITING]

    start(repair, sides)
    assert (repair.state, repair.began_ms, repair.ended_ms) == (State.RUNNING, began, 0)
    assert look(repair, sides)[0].state is PartState.DONE
    sides.run(10)
    assert look(repair, sides)[1] == Part(Q, 2, PartState.DONE, 5, 5)
    assert state_of(repair) is State.DONE


def test_a_repair_of_other_partitions_begins_anew() -> None:
    sides = linked(2)
    repair = repair_of(sides)
    start(repair, sides, P)
    sides.run(3)
    repair.cancel(WALL_MS)
    start(repair, sides, Q)
    assert look(repair, sides) == [Part(Q, 2, PartState.WAITING, 0, 0)]


def test_cancelling_what_does_not_run_changes_nothing() -> None:
    sides = linked(2)
    repair = repair_of(sides)
    repair.cancel(WALL_MS)
    assert state_of(repair) is State.NONE
    start(repair, sides)
    sides.run(3)
    look(repair, sides)
    repair.cancel(WALL_MS)
    assert state_of(repair) is State.DONE


def test_other_owners_meanwhile_do_not_keep_it_from_ending() -> None:
    sides = linked(2)
    sides.run(7_200)  # several sweeps: the count of completed ones is above 1
    repair = repair_of(sides)
    start(repair, sides)
    sides[1].sweeps.follow(sides.now)
    sides.run(3)
    look(repair, sides)
    assert state_of(repair) is State.DONE
