"""Plans of the tree's seed, run to their checked end; and phases that find what is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvnode.core.topology import Keyspace
from tests.sim.generate import generate
from tests.sim.host import Host
from tests.sim.plan import ClientPlan, Operation, Plan
from tests.sim.run import run
from tests.support.scale import scaled
from tests.support.seeds import derive, run_seed

_PARTS = 20
"""Tests among which the random plans are divided, so that several processes share them."""
_EACH = scaled(10, soak=100)
"""Plans of each."""


def _first() -> int:
    return derive(run_seed(), "simulated plans") % (1 << 32)


def quiet_plan(**changes: object) -> Plan:
    """A plan of some puts and gets, without faults."""
    kinds = ("put", "get", "edit")
    operations = tuple(
        Operation(
            id=f"o{number}",
            at_us=100_000 + 50_000 * number,
            client=number % 2,
            kind=kinds[number % len(kinds)],
            keyspace="default",
            key=f"k{number % 3}",
        )
        for number in range(30)
    )
    plan = Plan(
        seed=1,
        nodes=5,
        keyspaces=(Keyspace(name="default", sloppy=False),),
        clients=(ClientPlan(), ClientPlan()),
        operations=operations,
        faults=(),
        safety_us=2_000_000,
        liveness_us=0,
    )
    return replace(plan, **changes)  # type: ignore[arg-type]


def test_the_same_plan_gives_the_same_trace() -> None:
    plan = generate(5)
    plan = plan.without(item.id for item in plan.operations[60:])

    assert run(plan).digest == run(plan).digest != run(plan.without(["o0"])).digest


def test_without_faults_every_operation_succeeds() -> None:
    verdict = run(quiet_plan())

    assert verdict.violation is None
    assert {name.split()[1] for name in verdict.operations} == {"ok"}


def test_a_core_that_could_serve_and_does_not_is_a_violation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = replace(quiet_plan().operations[0], at_us=12_000_000)
    plan = quiet_plan(operations=(late,), liveness_us=13_000_000, core=(1, 2, 3, 4))
    assert run(plan).violation is None
    monkeypatch.setattr(Host, "hear", lambda self, event: None)

    violation = run(plan).violation

    assert violation is not None
    assert violation.invariant == "liveness-core-serves"


def test_an_error_that_nobody_caught_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(self: Host) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(Host, "_turn", break_down)

    violation = run(quiet_plan()).violation

    assert violation is not None
    assert violation.invariant == "raised-KeyError"
    assert "a bug" in violation.message


@pytest.mark.timeout(scaled(300, soak=3_600))
@pytest.mark.parametrize("part", range(_PARTS))
def test_random_plans_break_no_invariant(part: int) -> None:
    told = []
    for number in range(_first() + part * _EACH, _first() + part * _EACH + _EACH):
        violation = run(generate(number)).violation
        if violation is not None:
            how = f"python -m tests.sim --seed {number} --shrink"
            told.append(f"{violation.message}\nmake it short with: {how}")
    assert not told, "\n\n".join(told)
