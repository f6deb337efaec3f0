"""Admission: what begins, what waits, what is refused; and that an overloaded node stays useful."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

import pytest

from kvnode.core.admission import QUANTUM, Admission, Verdict
from kvnode.core.messages import ClientOps, ErrorCode, Instant, Outcome, SessionId
from tests.unit.core.builders import NOW, SECOND_US, at, get, put

MS = 1_000
MUCH_LATER = at(60 * SECOND_US)


def frame(session: int, ids: Iterable[int], *, deadline_us: Instant = MUCH_LATER) -> ClientOps:
    """A frame of gets, each with a deadline that does not matter unless said."""
    gets = [get()._replace(id=op_id, deadline_us=deadline_us) for op_id in ids]
    return ClientOps(SessionId(session), gets, [])


def begun(verdict: Verdict) -> list[tuple[SessionId, int]]:
    """(session, id) of what begins: reads in order, then writes."""
    gets = [(ops.session, op.id) for ops in verdict.run for op in ops.gets]
    return gets + [(ops.session, op.id) for ops in verdict.run for op in ops.puts]


def refused(verdict: Verdict) -> list[tuple[SessionId, int]]:
    return [(session, failure.id) for session, failure in verdict.refused]


def admission(*, running: int = 4, waiting: int = 8, target_ms: int = 100) -> Admission:
    return Admission(running=running, waiting=waiting, target_ms=target_ms)


def slow(*, running: int, waiting: int, ended_each_10_ms: int) -> tuple[Admission, int]:
    """One whose queue stands: half of it was filled at once, and it ends so many each 10 ms."""
    gate = admission(running=running, waiting=waiting)
    gate.arrive("greedy", frame(1, range(1, running + waiting // 2 + 1)), NOW)
    now = 0
    while not gate.is_standing:
        now += 10 * MS
        gate.done(ended_each_10_ms, at(now))
        gate.check()
        assert gate.waiting, "it drained before it stood"
    return gate, now


def test_what_fits_begins_as_the_frame_that_it_came_in() -> None:
    gate = admission()
    ops = frame(1, [1, 2, 3, 4])
    assert gate.arrive("a", ops, NOW).run == [ops]
    assert (gate.running, gate.waiting) == (4, 0)


def test_what_does_not_fit_waits_and_begins_as_others_end() -> None:
    gate = admission()
    first = gate.arrive("a", frame(1, [1, 2, 3, 4, 5, 6, 7]), NOW)
    assert begun(first) == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert begun(gate.done(2, at(1))) == [(1, 5), (1, 6)]
    assert begun(gate.done(3, at(2))) == [(1, 7)]
    assert (gate.running, gate.waiting) == (2, 0)
    gate.check()


def test_what_fits_neither_here_nor_there_is_refused_at_once_with_when_to_come_again() -> None:
    gate = admission()
    verdict = gate.arrive("a", frame(1, range(1, 20)), NOW)
    assert len(begun(verdict)) == 4
    assert gate.waiting == 4, "one share alone may hold half"
    assert refused(verdict) == [(1, op_id) for op_id in range(9, 20)]
    failure = verdict.refused[0][1]
    assert (failure.code, failure.outcome) == (ErrorCode.OVERLOADED, Outcome.NONE)
    assert failure.retry_after_ms > 0
    assert failure.message == "0 operations wait at this node"


def test_a_refused_write_is_not_applied() -> None:
    gate = admission(running=1, waiting=0)
    gate.arrive("a", frame(1, [1]), NOW)
    (failure,) = [x for _, x in gate.arrive("a", ClientOps(SessionId(1), [], [put()]), NOW).refused]
    assert (failure.code, failure.outcome) == (ErrorCode.OVERLOADED, Outcome.NOT_APPLIED)


def test_writes_that_waited_begin_as_writes() -> None:
    gate = admission(running=1)
    gate.arrive("a", frame(1, [1]), NOW)
    gate.arrive("a", ClientOps(SessionId(1), [get()], [put()]), NOW)
    (ops,) = gate.done(1, NOW).run
    assert ([op.id for op in ops.gets], ops.puts) == ([get().id], [])
    (ops,) = gate.done(1, NOW).run
    assert (ops.gets, [op.id for op in ops.puts]) == ([], [put().id])


def test_shares_take_turns_whatever_the_length_of_their_queues() -> None:
    gate = admission(running=QUANTUM, waiting=100 * QUANTUM)
    gate.arrive("greedy", frame(1, range(1, 20 * QUANTUM)), NOW)
    gate.arrive("modest", frame(2, [1, 2, 3]), NOW)
    gate.done(QUANTUM, NOW)  # greedy's turn, which it had already
    assert begun(gate.done(QUANTUM, NOW))[:3] == [(2, 1), (2, 2), (2, 3)]


def test_a_greedy_share_leaves_room_for_others() -> None:
    gate = admission(waiting=80)
    gate.arrive("greedy", frame(1, range(200)), NOW)
    assert gate.room("greedy", NOW) <= 1
    assert refused(gate.arrive("modest", frame(2, range(15)), NOW)) == []


def test_a_client_that_is_gone_is_waited_for_no_more() -> None:
    gate = admission()
    gate.arrive("a", frame(1, range(6)), NOW)
    gate.arrive("b", frame(2, [7]), NOW)
    gate.forget("a", NOW)
    gate.check()
    assert gate.waiting == 1
    assert begun(gate.done(4, NOW)) == [(2, 7)]
    gate.forget("never came", NOW)
    gate.check()


def test_a_deadline_that_passed_in_the_queue_is_told_and_nothing_begins_for_it() -> None:
    gate = admission(running=1)
    gate.arrive("a", frame(1, [1]), NOW)
    gate.arrive("a", frame(1, [2], deadline_us=at(50 * MS)), NOW)
    gate.arrive("a", frame(1, [3]), NOW)
    verdict = gate.done(1, at(50 * MS))
    assert begun(verdict) == [(1, 3)]
    ((session, failure),) = verdict.refused
    assert (session, failure.id, failure.code) == (1, 2, ErrorCode.TIMEOUT)
    assert "50 ms in the queue, from place 1" in failure.message
    gate.check()


def test_a_burst_that_drains_within_the_target_is_no_overload() -> None:
    gate = admission(running=10, waiting=1_000)
    assert refused(gate.arrive("a", frame(1, range(300)), NOW)) == []
    for tick in range(1, 31):
        gate.done(10, at(tick * 10 * MS))  # 1,000 a second: the burst takes 300 ms ...
        if tick > 20:
            assert not gate.is_standing  # ... yet less than the target from here on
    assert gate.waiting == 0


def test_a_queue_that_stands_lets_in_only_what_can_be_done_within_the_target() -> None:
    gate, now = slow(running=100, waiting=10_000, ended_each_10_ms=10)
    text, retry_ms = gate.refusal(at(now))
    assert 0.5 < gate.waiting / retry_ms < 2, "about a thousand a second, so as many ms"
    assert f"{gate.waiting:,} operations wait at this node" in text
    assert gate.room("greedy", at(now)) == 0
    assert gate.room("new", at(now)) == QUANTUM, "who has nothing waiting is not shut out"
    while gate.waiting > 40:
        now += 10 * MS
        gate.done(10, at(now))
    assert 0 < gate.room("greedy", at(now)) <= 100
    gate.check()


def test_a_queue_that_has_drained_takes_bursts_again() -> None:
    gate, now = slow(running=100, waiting=10_000, ended_each_10_ms=10)
    while gate.waiting:
        now += 10 * MS
        gate.done(min(10, gate.running), at(now))
    assert not gate.is_standing
    assert gate.room("greedy", at(now)) >= 5_000


def test_nothing_begins_that_would_end_too_late_at_the_present_rate() -> None:
    gate, now = slow(running=100, waiting=10_000, ended_each_10_ms=10)
    soon, later = at(now + 100 * MS), at(now + 60 * SECOND_US)
    gate.arrive("hasty", frame(2, [1], deadline_us=Instant(soon)), at(now))
    gate.arrive("patient", frame(3, [1], deadline_us=Instant(later)), at(now))
    begins: list[tuple[SessionId, int]] = []
    ends: list[tuple[SessionId, int]] = []
    for _ in range(10):
        verdict = gate.done(10, at(now))
        begins += begun(verdict)
        ends += refused(verdict)
    assert (3, 1) in begins
    assert ends == [(2, 1)]


def test_before_anything_could_have_ended_nothing_is_known_to_be_slow() -> None:
    gate = admission(running=100, waiting=1_000, target_ms=500)
    gate.arrive("a", frame(1, range(150)), NOW)
    for tick in range(1, 60):
        gate.arrive("a", frame(1, [1_000 + tick]), at(tick * 10 * MS))
    assert not gate.is_standing, "a hundred may end any moment, and as many again"
    assert gate.room("a", at(600 * MS)) > 100


def test_on_a_slow_machine_fewer_run_while_others_wait_and_all_again_when_none_does() -> None:
    gate = admission(running=100, waiting=10_000, target_ms=100)
    gate.arrive("a", frame(1, range(300)), NOW)
    now = 0
    while gate.waiting > 60:
        now += 10 * MS
        gate.done(min(4, gate.running), at(now))  # 400 a second: 40 within the target
        gate.check()
    assert 38 <= gate.running <= 42
    while gate.waiting:
        gate.done(gate.running, at(now))
    gate.done(gate.running, at(now))
    assert len(begun(gate.arrive("a", frame(1, range(100)), at(now)))) == 100


def test_however_slow_a_quarter_runs() -> None:
    gate = admission(running=100, waiting=10_000, target_ms=100)
    gate.arrive("a", frame(1, range(300)), NOW)
    for tick in range(1, 200):
        gate.done(1, at(tick * 100 * MS))
        gate.check()
    assert gate.running == 25


def test_a_node_at_which_nothing_ends_any_more_notices_by_what_arrives() -> None:
    gate = admission(running=10, waiting=1_000)
    gate.arrive("a", frame(1, range(20)), NOW)
    for tick in range(1, 60):
        gate.arrive("a", frame(1, [100 + tick]), at(tick * 10 * MS))
    assert gate.is_standing
    assert gate.room("a", at(600 * MS)) == 0


# ---- a simulated node ---------------------------------------------------------------------------


class _Machine:
    """Works on all that runs, in order, so many operations a second; refusing costs something."""

    def __init__(self, gate: Admission, *, per_s: int, refusal_us: int) -> None:
        self.gate = gate
        self.cost_us = SECOND_US / per_s
        self.refusal_us = refusal_us
        self.work: deque[tuple[SessionId, int, Instant]] = deque()
        self.credit_us = 0.0
        self.useful = 0
        self.wasted = 0
        self.refused: list[tuple[SessionId, int]] = []

    def take(self, verdict: Verdict) -> None:
        for ops in verdict.run:
            self.work += [(ops.session, op.id, op.deadline_us) for op in ops.gets]
        self.refused += [(session, failure.id) for session, failure in verdict.refused]
        self.credit_us -= self.refusal_us * len(verdict.refused)

    def step(self, now: Instant, elapsed_us: int) -> list[tuple[SessionId, int]]:
        """Work for so long; return what was answered in time."""
        self.credit_us += elapsed_us
        timely = []
        while self.work and self.credit_us >= self.cost_us:
            self.credit_us -= self.cost_us
            session, op_id, deadline = self.work.popleft()
            if now < deadline:
                self.useful += 1
                timely.append((session, op_id))
            else:
                self.wasted += 1
            self.take(self.gate.done(1, now))
        if not self.work:
            self.credit_us = min(self.credit_us, 0.0)
        return timely


def _overload(
    machine: _Machine, *, load: float, per_s: int, timeout_ms: int, seconds: int, sessions: int
) -> None:
    """Open-loop arrivals at `load` times the capacity, from several sessions in turn."""
    step_us = 5 * MS
    op_id = 0
    due = 0.0
    for tick in range(seconds * SECOND_US // step_us):
        now = at(tick * step_us)
        due += load * per_s * step_us / SECOND_US
        new = int(due) - op_id
        share = 1 + tick % sessions
        if new:
            ids = range(op_id, op_id + new)
            ops = frame(share, ids, deadline_us=Instant(now + timeout_ms * MS))
            op_id += new
            machine.take(machine.gate.arrive(share, ops, now))
        machine.gate.check()
        machine.step(now, step_us)


@pytest.mark.parametrize("timeout_ms", [400, 1_000, 5_000])
@pytest.mark.parametrize("sessions", [1, 7])
def test_at_three_times_its_capacity_a_node_does_nine_tenths_of_it_in_time(
    timeout_ms: int, sessions: int
) -> None:
    per_s, seconds = 1_000, 10
    gate = Admission(running=128, waiting=16_384, target_ms=500)
    machine = _Machine(gate, per_s=per_s, refusal_us=10)
    _overload(
        machine, load=3, per_s=per_s, timeout_ms=timeout_ms, seconds=seconds, sessions=sessions
    )
    assert machine.useful >= 0.9 * per_s * seconds
    assert machine.wasted <= 0.05 * per_s * seconds


def test_without_a_bounded_queue_the_same_load_would_be_answered_too_late() -> None:
    """The simulated node can collapse: so that it does not above is admission's doing."""
    per_s, seconds = 1_000, 10
    machine = _Machine(
        Admission(running=1_000_000, waiting=0, target_ms=500), per_s=per_s, refusal_us=10
    )
    _overload(machine, load=3, per_s=per_s, timeout_ms=1_000, seconds=seconds, sessions=7)
    assert machine.useful < 0.3 * per_s * seconds


def test_under_overload_a_modest_client_is_served_beside_a_greedy_one() -> None:
    per_s = 1_000
    gate = Admission(running=128, waiting=16_384, target_ms=500)
    machine = _Machine(gate, per_s=per_s, refusal_us=10)
    answered: list[tuple[SessionId, int]] = []
    for tick in range(2_000):
        now = at(tick * 5 * MS)
        machine.take(gate.arrive("greedy", frame(1, range(15)), now))
        if tick % 10 == 0:
            ops = frame(2, [tick], deadline_us=Instant(now + SECOND_US))
            machine.take(gate.arrive("modest", ops, now))
        answered += machine.step(now, 5 * MS)
    asked = 200
    assert sum(session == 2 for session, _ in answered) >= 0.95 * asked
    assert not [each for each in machine.refused if each[0] == 2]


def _sequence(verdicts: Sequence[Verdict]) -> list[tuple[SessionId, int]]:
    return [each for verdict in verdicts for each in begun(verdict)]


def test_one_share_keeps_its_order() -> None:
    gate = admission(running=3, waiting=100)
    verdicts = [gate.arrive("a", frame(1, range(10 * n, 10 * n + 4)), NOW) for n in range(5)]
    verdicts += [gate.done(2, NOW) for _ in range(9)]
    order = [op_id for _, op_id in _sequence(verdicts)]
    assert order == sorted(order)
    assert len(order) == 20
