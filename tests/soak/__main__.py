"""`python -m tests.soak [JOB ...]`: the same claims as in CI, tried as hard as they deserve.

Each job is a pytest run with full figures (tests/support/scale.py) or thorough search, each under a
seed of its own. A job that fails prints pytest's output with its seed, and the exit status is 1.
What tests measured (tests/support/figures.py) is printed too, also if they fail. The last lines are
a dated table for docs/testing.md. Its test file is tests/unit/test_soak.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak import branches
from tests.support import figures
from tests.support.scale import SHARE, VARIABLE
from tests.support.seeds import tree_seed

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 3_600


@dataclass(frozen=True, slots=True)
class Job:
    """One pytest run."""

    name: str
    tests: tuple[str, ...]
    runs: int = 1
    """How many times, each with a seed of its own."""
    settings: dict[str, str] = field(default_factory=dict)
    is_measured: bool = False
    """Whether the branches that it takes are counted (tests/soak/branches.py)."""


def _rolling(name: str, kind: str) -> Job:
    return Job(name, (f"tests/cluster/test_rolling.py::{ROLLING}[{kind}]",))


SLOW = "tests/cluster/test_slow_nodes.py"
MUTANTS = "tests/sim/test_mutants.py"
RETURNING = "tests/cluster/test_returning.py"
ROLLING = "test_faults_in_turn_cost_no_operation_and_no_data"
JOBS = (
    Job("main job", ("tests/cluster/test_main_job.py",)),
    Job("crashes and power cuts", ("tests/cluster/test_crash.py",)),
    Job("overload", ("tests/cluster/test_overload.py",)),
    Job("damaged, full and failing disks", (
        "tests/cluster/test_damage.py", "tests/unit/storage/test_rebuild.py",
    )),
    _rolling("rolling kill", "kill"),
    _rolling("rolling pause", "pause"),
    _rolling("rolling isolation", "isolate"),
    _rolling("rolling halves", "halves"),
    _rolling("rolling bridge", "bridge"),
    _rolling("rolling ring", "ring"),
    _rolling("rolling one-way cut", "cut"),
    Job("one-way cut", ("tests/cluster/test_cut_off.py",)),
    Job("slow disk", (f"{SLOW}::test_nobody_waits_for_one_slow_disk",)),
    Job("halted nodes", (
        f"{SLOW}::test_a_strict_history_around_a_halted_node_is_fresh_and_in_time",
        f"{SLOW}::test_what_a_halted_node_was_asked_is_neither_late_nor_stale_when_it_goes_on",
    )),
    Job("hints", (
        f"{RETURNING}::test_hints_all_arrive_under_a_load_and_no_faster_than_their_rate",
    )),
    Job("absence", (f"{RETURNING}::test_after_an_absence_all_owners_are_equal_again",)),
    # The short forms, as in CI: what takes long there has a job of its own.
    Job("every test on real processes", ("tests/cluster",), runs=3, settings={VARIABLE: "0"}),
    Job("simulated clusters", ("tests/sim",), runs=5),
    Job("mutants", (f"{MUTANTS}::test_the_mutant_is_found",), settings={"KVNODE_MUTANTS": "all"}),
    Job("vote rules and restamping", (
        "tests/property/test_vote_rules.py", "tests/property/test_restamping.py",
    )),
    # Once, with CI's figures: a branch is taken or it is not.
    Job("branches", branches.TESTS, settings={VARIABLE: "0"}, is_measured=True),
    Job("laws", ("tests/property",), runs=3, settings={"KVNODE_PROFILE": "thorough"}),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one run.

    Attributes:
        said: the last line of pytest.
        took_s: how long it took.
        told: the figures of its tests, a line each.
    """

    said: str
    took_s: float
    told: tuple[str, ...]


def run(job: Job, seed: int) -> Result:
    """Run a job once."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        told, data = Path(folder) / "figures", Path(folder) / "branches"
        given = {VARIABLE: "1", "KVNODE_SEED": str(seed), figures.VARIABLE: str(told)}
        done = subprocess.run(
            _command(job, data),
            cwd=ROOT,
            env={**os.environ, **given, **job.settings},
            capture_output=True,
            text=True,
            check=False,
        )
        lines_told = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
        is_enough = True
        if job.is_measured and data.exists():
            shares, is_enough = branches.judge(branches.measured(data, ROOT))
            lines_told += shares
    if done.returncode:
        print(done.stdout[-20_000:], done.stderr[-5_000:], sep="\n")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    said = lines[-1].strip("= ") if lines else "nothing was said"
    said = said if done.returncode == 0 and is_enough else f"FAILED: {said}"
    return Result(said, time.monotonic() - began, tuple(lines_told))


def _command(job: Job, data: Path) -> list[str]:
    tests = (f"--timeout={TIMEOUT_S}", *job.tests)
    if job.is_measured:
        return branches.command(tests, data)
    return [sys.executable, "-m", "pytest", "-q", *tests]


def main(words: Sequence[str] | None = None) -> int:
    """Run the jobs that are named, or all; return the exit status."""
    names = {job.name: job for job in JOBS}
    parser = _parser(names)
    asked = parser.parse_args(words)
    chosen = asked.job or list(names)
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"no job {unknown[0]!r}; there are {', '.join(names)}")
    os.environ[SHARE] = str(asked.share)
    rows = []
    for name in chosen:
        for number in range(asked.runs or names[name].runs):
            seed = (tree_seed(ROOT) + number) % (1 << 32)
            result = run(names[name], seed)
            rows.append(_row(name, seed, result))
            print(*(f"    {line}" for line in result.told), rows[-1], sep="\n", flush=True)
    print("\n| date | job | seed | result | took |\n|---|---|---|---|---|", *rows, sep="\n")
    return 1 if any("FAILED" in row for row in rows) else 0


def _parser(names: Iterable[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Full figures.")
    parser.add_argument("job", nargs="*", help=f"one of: {', '.join(names)}")
    parser.add_argument("--runs", type=int, help="runs of each job, instead of its own number")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the full length of what lasts long (1)"
    )
    return parser


def _row(name: str, seed: int, result: Result) -> str:
    said = "; ".join([*result.told, result.said])
    return f"| {time.strftime('%Y-%m-%d')} | {name} | {seed} | {said} | {result.took_s:.0f} s |"


if __name__ == "__main__":
    sys.exit(main())
