"""A plan that breaks an invariant is made as short as it can be, and still breaks the same one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from kvnode.core.topology import Keyspace
from tests.sim.plan import ClientPlan, Fault, Operation, Plan
from tests.sim.run import Verdict, Violation
from tests.sim.shrink import Shrinking, minimal, shrink

AN_HOUR_S = 3_600.0
ITEMS = 60


def a_plan(items: int = ITEMS) -> Plan:
    operations = [
        Operation(id=f"o{i}", at_us=1_000_000 * i, client=0, kind="put", keyspace="ks", key="k")
        for i in range(items)
    ]
    faults = [
        Fault(id=f"f{i}", at_us=1_000_000 * i + 500, kind="cut", args={"node": 1}, for_us=8_000_000)
        for i in range(items)
    ]
    return Plan(
        seed=1,
        nodes=7,
        keyspaces=(Keyspace(name="ks"), Keyspace(name="unused")),
        limits={"hint_bytes": 5.0, "silence_ms": 500.0},
        knobs={"a": 1.0, "b": 2.0},
        clients=(ClientPlan(lag_ms=5),),
        operations=tuple(operations),
        faults=tuple(faults),
        safety_us=100_000_000,
        liveness_us=10_000_000,
    )


class Store:
    """Stands for the code under test: breaks an invariant where a plan has all of some items."""

    def __init__(
        self, *needed: str, name: str = "1-kept", also: Callable[[Plan], bool] | None = None
    ) -> None:
        self.needed = needed
        self.name = name
        self.also = also
        self.runs = 0

    def __call__(self, plan: Plan) -> Verdict:
        self.runs += 1
        at_us = {operation.id: operation.at_us for operation in plan.operations}
        at_us |= {fault.id: fault.at_us for fault in plan.faults}
        verdict = Verdict(plan.seed, simulated_us=plan.safety_us)
        if all(name in at_us for name in self.needed) and (self.also is None or self.also(plan)):
            verdict.violation = Violation(self.name, "told")
            verdict.simulated_us = max((at_us[name] for name in self.needed), default=0) + 1
        return verdict


def shortest(store: Store, plan: Plan) -> Plan:
    return shrink(plan, within_s=AN_HOUR_S, runs=store)


def test_what_is_not_needed_is_left_out() -> None:
    found = shortest(Store("o7", "f30", "o50"), a_plan())
    assert found.items() == ["o7", "o50", "f30"]


def test_all_else_is_made_plain() -> None:
    found = shortest(Store("f3"), a_plan())
    assert (found.knobs, found.limits, found.liveness_us) == ({}, {}, 0)
    assert [each.name for each in found.keyspaces] == ["unused"] or len(found.keyspaces) == 1
    assert found.nodes == 3
    assert found.clients == (ClientPlan(),)
    assert found.faults[0].for_us <= 50_000
    assert found.safety_us < 1_000_000


def test_what_is_needed_besides_items_stays() -> None:
    store = Store("o3", also=lambda plan: plan.limits.get("hint_bytes") == 5 and plan.nodes > 5)
    found = shortest(store, a_plan())
    assert (found.items(), found.limits, found.nodes) == (["o3"], {"hint_bytes": 5.0}, 6)


def test_another_violation_is_none() -> None:
    def runs(plan: Plan) -> Verdict:
        verdict = Store("o5", "o6")(plan)
        if verdict.violation is None and len(plan.operations) < 10:
            verdict.violation = Violation("another", "told")
        return verdict

    found = shrink(a_plan(), within_s=AN_HOUR_S, runs=runs)
    assert {"o5", "o6"} <= {*found.items()}
    verdict = runs(found)
    assert verdict.violation is not None
    assert verdict.violation.invariant == "1-kept"


def test_a_plan_that_breaks_nothing_is_returned_as_it_is() -> None:
    store = Store("nothing like this")
    assert shortest(store, a_plan()) == a_plan()
    assert store.runs == 1


def test_when_the_time_is_up_the_shortest_so_far_is_returned() -> None:
    seconds = iter(range(1_000_000))
    store = Store("o7", "f30")
    shrinking = Shrinking(a_plan(), within_s=12, runs=store, now=lambda: float(next(seconds)))
    found = shrinking.go()
    assert {"o7", "f30"} <= {*found.items()}
    assert len(found.items()) < 2 * ITEMS
    assert shrinking.tried <= 12


def test_no_single_item_can_be_left_out_of_what_is_minimal(rng: random.Random) -> None:
    for _ in range(50):
        needed = frozenset(rng.sample(range(40), rng.randint(0, 6)))

        def is_enough(
            kept: Sequence[int], _gone: Sequence[int], needed: frozenset[int] = needed
        ) -> bool:
            return needed <= {*kept}

        assert minimal(range(40), is_enough) == sorted(needed)


def test_few_questions_are_asked_where_few_items_are_needed() -> None:
    store = Store("o7")
    shrinking = Shrinking(a_plan(500), within_s=AN_HOUR_S, runs=store)
    shrinking.go()
    assert shrinking.tried < 200
