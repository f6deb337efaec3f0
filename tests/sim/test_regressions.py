"""Plans that once broke an invariant, and led to a fix, break none any more.

Each is a JSON file in tests/sim/regressions, made short by tests/sim/shrink.py. Its comment says
what it found, and what mended that. A plan stays as it was when it was found: what is drawn anew
for seeds does not touch it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim.plan import Plan
from tests.sim.run import run

FOLDER = Path(__file__).parent / "regressions"
PLANS = sorted(FOLDER.glob("*.json"))


def test_there_are_plans_to_replay() -> None:
    assert PLANS


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_what_was_found_once_is_found_no_more(path: Path) -> None:
    violation = run(Plan.from_json(path.read_text())).violation
    assert violation is None, f"{path.name}: {violation.invariant}: {violation.message}"


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_each_plan_says_what_it_found_and_is_short(path: Path) -> None:
    plan = Plan.from_json(path.read_text())
    assert len(plan.comment) > 40
    assert len(plan.items()) <= 60
    assert plan.to_json() == path.read_text()
