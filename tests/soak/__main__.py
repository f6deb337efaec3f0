"""`python -m tests.soak [JOB ...]`: the same claims as in CI, tried as hard as they deserve.

Each job is a pytest run with full figures (tests/support/scale.py) or thorough search, each under a
seed of its own. A job that fails prints pytest's output with its seed, and the exit status is 1.
The last lines are a dated table for docs/testing.md. Its test file is tests/unit/test_soak.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.scale import VARIABLE
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


JOBS = (
    Job("main job", ("tests/cluster/test_main_job.py",)),
    Job("crashes and power cuts", ("tests/cluster/test_crash.py",)),
    Job("overload", ("tests/cluster/test_overload.py",)),
    Job("damaged, full and failing disks", (
        "tests/cluster/test_damage.py", "tests/unit/storage/test_rebuild.py",
    )),
    Job("every test on real processes", ("tests/cluster",), runs=3),
    Job("simulated clusters and mutants", ("tests/sim",), runs=5),
    Job("vote rules and restamping", (
        "tests/property/test_vote_rules.py", "tests/property/test_restamping.py",
    )),
    Job("laws", ("tests/property",), runs=3, settings={"KVNODE_PROFILE": "thorough"}),
)  # fmt: skip


def run(job: Job, seed: int) -> tuple[str, float]:
    """Run a job once; return pytest's last line and how long it took, in seconds."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--timeout={TIMEOUT_S}", *job.tests],
        cwd=ROOT,
        env={**os.environ, VARIABLE: "1", "KVNODE_SEED": str(seed), **job.settings},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout[-20_000:], done.stderr[-5_000:], sep="\n")
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    said = lines[-1].strip("= ") if lines else "nothing was said"
    return (said if done.returncode == 0 else f"FAILED: {said}"), time.monotonic() - began


def main(words: Sequence[str] | None = None) -> int:
    """Run the jobs that are named, or all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Full figures.")
    names = {job.name: job for job in JOBS}
    parser.add_argument("job", nargs="*", help=f"one of: {', '.join(names)}")
    parser.add_argument("--runs", type=int, help="runs of each job, instead of its own number")
    asked = parser.parse_args(words)
    chosen = asked.job or list(names)
    if unknown := [name for name in chosen if name not in names]:
        parser.error(f"no job {unknown[0]!r}; there are {', '.join(names)}")
    rows = []
    for name in chosen:
        for number in range(asked.runs or names[name].runs):
            seed = (tree_seed(ROOT) + number) % (1 << 32)
            said, took_s = run(names[name], seed)
            today = time.strftime("%Y-%m-%d")
            rows.append(f"| {today} | {name} | {seed} | {said} | {took_s:.0f} s |")
            print(rows[-1], flush=True)
    print("\n| date | job | seed | result | took |\n|---|---|---|---|---|", *rows, sep="\n")
    return 1 if any("FAILED" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
