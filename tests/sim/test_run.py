"""Plans drawn from the tree's seed, run to their checked end."""

from __future__ import annotations

import pytest

from tests.sim.generate import generate
from tests.sim.run import run
from tests.support.seeds import derive, run_seed


def test_the_same_plan_gives_the_same_trace() -> None:
    plan = generate(5)

    assert run(plan).digest == run(plan).digest != run(plan.without(["o0"])).digest


@pytest.mark.parametrize("number", range(4))
def test_a_random_plan_breaks_no_invariant(number: int) -> None:
    seed = derive(run_seed(), f"simulated plan {number}") % (1 << 32)

    verdict = run(generate(seed))

    assert verdict.violation is None, f"seed {seed}: {verdict.violation.message}"
