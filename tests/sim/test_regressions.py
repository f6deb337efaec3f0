"""Plans that once broke an invariant, and led to a fix, break none any more.

Each is a JSON file in tests/sim/regressions, made short by tests/sim/shrink.py. Its comment says
what it found, and what mended that. A plan stays as it was when it was found: what is drawn anew
for seeds does not touch it. Each breaks the same invariant again while what mended it is taken out:
one that no longer does shows nothing, and goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from kvnode.core.answering import Answers
from kvnode.core.conflict_log import ConflictLog
from kvnode.core.conversations import TakeOver
from kvnode.core.coordinator import Coordinator
from kvnode.core.messages import Instant, NodeNumber
from kvnode.core.read import Phase, ReadOp
from kvnode.core.read_port import ReadEffects
from kvnode.core.settling import Settling
from tests.sim.plan import Plan
from tests.sim.planted import Mutant, Place, planted
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


# ---- what the code was like before each fix ------------------------------------------------------


def _any_report_is_taken_over() -> list[Place]:
    def before(self: Answers, peer: NodeNumber, ask: TakeOver) -> None:
        view = self._holdings.shared(peer, ask.partition)
        if view is not None:
            self._holdings.take_over(view, ask.report)

    return [(Answers, "_take_over", before)]


def _late_owners_wake_reads_for_good() -> list[Place]:
    def before(self: ReadOp, at: int, now: Instant, fx: ReadEffects) -> None:
        if self._late_until_us and self.phase is Phase.WAITING:
            at = min(at, self._late_until_us)
        self._phase_ends_us = Instant(min(at, self.request.deadline_us))
        fx.wake(self, self._phase_ends_us)

    return [(ReadOp, "_wait_until", before)]


def _settling_wakes_for_what_it_may_not_do() -> list[Place]:
    on_time = Settling.on_time

    def before(self: Settling, *args: Any, is_allowed: bool, **more: Any) -> None:
        on_time(self, *args, is_allowed=is_allowed, **more)
        if not is_allowed:
            self._wakes_at = self._earliest()

    return [(Settling, "on_time", before)]


def _a_life_knows_only_what_it_logged_itself() -> list[Place]:
    load = ConflictLog.load

    def before(self: ConflictLog, conflicts: int, entries: Iterable[tuple[bytes, bytes]]) -> None:
        load(self, conflicts, entries)
        self._recent.clear()

    return [(ConflictLog, "load", before)]


def _who_has_met_nobody_counts() -> list[Place]:
    return [(Coordinator, "_must_be_current", lambda self, op_id: False)]


BEFORE: dict[str, Callable[[], list[Place]]] = {
    "a-wiped-node-that-has-met-nobody": _who_has_met_nobody_counts,
    "an-older-folder-that-has-met-nobody": _who_has_met_nobody_counts,
    "clock-is-off-and-a-purge-is-due": _settling_wakes_for_what_it_may_not_do,
    "logged-again-after-a-restart": _a_life_knows_only_what_it_logged_itself,
    "read-wakes-in-the-past": _late_owners_wake_reads_for_good,
    "take-over-reaches-a-wiped-life": _any_report_is_taken_over,
}


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_what_was_found_once_is_found_again_without_its_fix(path: Path) -> None:
    plan = Plan.from_json(path.read_text())
    with planted(Mutant(path.stem, "as before its fix", BEFORE[path.stem])):
        violation = run(plan).violation
    assert violation is not None
    assert plan.comment.startswith(f"{violation.invariant}: ")
