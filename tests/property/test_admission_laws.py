"""The laws of kvnode.core.admission, under any order of arrivals, ends and departures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.admission import QUANTUM, Admission, Verdict
from kvnode.core.messages import ClientGet, ClientOps, Instant, SessionId
from tests.unit.core.builders import at, get

SHARES = 4
arrivals = st.tuples(
    st.just("arrive"), st.integers(1, SHARES), st.integers(1, 90), st.integers(1, 2_000)
)
ends = st.tuples(st.just("done"), st.integers(1, 60))
departures = st.tuples(st.just("forget"), st.integers(1, SHARES))
pauses = st.tuples(st.just("pause"), st.integers(1, 400))
steps = st.lists(st.one_of(arrivals, ends, pauses, departures, arrivals, ends), max_size=60)
sizes = st.tuples(st.integers(1, 50), st.integers(0, 200), st.integers(1, 200))


class Model:
    """What went in, and what came out of it."""

    def __init__(self, running: int, waiting: int, target_ms: int) -> None:
        self.gate = Admission(running=running, waiting=waiting, target_ms=target_ms)
        self.now = at(0)
        self.last_id = 0
        self.inside: dict[int, tuple[int, Instant]] = {}
        self.running: list[int] = []
        self.was_refused: list[int] = []

    def take(self, verdict: Verdict) -> None:
        for ops in verdict.run:
            for op in ops.gets:
                share, deadline = self.inside.pop(op.id)
                assert share == ops.session
                assert deadline > self.now or self._is_new(op.id)
                self.running.append(op.id)
        for session, failure in verdict.refused:
            assert self.inside.pop(failure.id)[0] == session
            self.was_refused.append(failure.id)
        self.gate.check()
        assert len(self.running) == self.gate.running
        assert len(self.inside) == self.gate.waiting

    def _is_new(self, op_id: int) -> bool:
        return op_id in self._newest

    def do(self, step: tuple[object, ...]) -> None:
        match step:
            case ("arrive", int(share), int(count), int(timeout_ms)):
                self._newest = range(self.last_id + 1, self.last_id + count + 1)
                deadline = Instant(self.now + 1_000 * timeout_ms)
                gets: list[ClientGet] = []
                for op_id in self._newest:
                    self.inside[op_id] = (share, deadline)
                    gets.append(get()._replace(id=op_id, deadline_us=deadline))
                self.last_id += count
                self.take(self.gate.arrive(share, ClientOps(SessionId(share), gets, []), self.now))
            case ("done", int(count)):
                count = min(count, len(self.running))
                del self.running[:count]
                self.take(self.gate.done(count, self.now))
            case ("forget", int(share)):
                self.gate.forget(share, self.now)
                self.inside = {k: v for k, v in self.inside.items() if v[0] != share}
                self.gate.check()
                assert len(self.inside) == self.gate.waiting
            case ("pause", int(ms)):
                self.now = Instant(self.now + 1_000 * ms)
            case _:
                raise AssertionError(step)

    _newest = range(0)


@given(sizes, steps)
def test_all_come_out_once_and_the_bounds_hold(
    size: tuple[int, int, int], todo: list[tuple[object, ...]]
) -> None:
    model = Model(*size)
    for step in todo:
        model.do(step)
    ended = 0
    while model.running:
        ended += len(model.running)
        model.do(("done", len(model.running)))
    assert not model.inside, "nothing is left behind once all that ran has ended"
    assert not model.gate.is_standing
    assert len(set(model.was_refused)) == len(model.was_refused)


@given(st.integers(1, 40), st.lists(st.integers(1, 200), min_size=2, max_size=SHARES))
def test_no_share_waits_for_more_than_a_quantum_of_each_other(
    running: int, lengths: list[int]
) -> None:
    model = Model(running, 10_000, 10_000)
    model.do(("arrive", SHARES + 1, running, 60_000))
    for share, length in enumerate(lengths, 1):
        model.do(("arrive", share, length, 60_000))
    since = dict.fromkeys(range(1, len(lengths) + 1), 0)
    while model.inside:
        before = set(model.inside)
        owner = {op_id: share for op_id, (share, _) in model.inside.items()}
        model.do(("done", 1))
        for op_id in before - set(model.inside):
            for share in since:
                since[share] = 0 if share == owner[op_id] else since[share] + 1
        for share in {owner[op_id] for op_id in model.inside}:
            assert since[share] <= QUANTUM * (len(lengths) - 1)
