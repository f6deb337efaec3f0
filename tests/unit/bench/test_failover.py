"""Claims about bench/failover.py, with a load that waits and a node that sleeps."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from bench import failover
from bench.failover import Loss, Plan
from bench.target import BenchError, Target
from kvnode.bench.tally import Window
from kvnode.bench.workers import Figures
from kvnode.bench.workload import Job
from tests.unit.bench.builders import some_figures

PLAN = Plan(rate=100.0, seconds=30.0, kill_after_s=0.01, in_flight=64, keys=50, seed=1)


class WaitsForTheEnd:
    """A load whose run lasts until the node is gone."""

    pids = (1,)

    def __init__(self, node: subprocess.Popen[bytes]) -> None:
        self.node = node
        self.seen: list[tuple[bool, float | None]] = []

    def run(self, job: Job) -> Figures:
        self.seen.append((job.is_load, job.rate))
        if not job.is_load:
            self.node.wait(timeout=30)
        return some_figures(job)


def test_the_node_is_killed_while_the_load_goes_on_at_its_rate() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as node:
        load = WaitsForTheEnd(node)
        target = Target(name="x", where="", pids={"n1": node.pid}, notes=("one",))
        loss = failover.lose_one(PLAN, target, load, 2)
        assert node.returncode == -signal.SIGKILL
    assert load.seen == [(True, None), (False, 100.0)]
    assert (loss.system, loss.round, loss.notes) == ("x", 2, ("one",))


def test_a_run_in_which_no_node_was_killed_tells_of_no_loss() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
        target = Target(name="x", where="", pids={"n1": gone.pid})
        plan = replace(PLAN, kill_after_s=0.0)
        with pytest.raises(BenchError, match="no node of x was killed"):
            failover.lose_one(plan, target, WaitsForTheEnd(gone), 0)
        with pytest.raises(BenchError, match="no node of x was killed"):
            failover.lose_one(replace(PLAN, kill_after_s=600), target, WaitsForTheEnd(gone), 0)


def a_loss() -> Loss:
    figures = some_figures(PLAN.job(), faults={"Timeout": 3})
    windows = [Window(5, 0, 2_000_000), Window(), Window(0, 3, 1_234_000_000)]
    tally = replace(figures.tally, windows=windows)
    return Loss(
        system="x", round=0, plan=PLAN, figures=replace(figures, tally=tally), notes=("one",)
    )


def test_failures_seconds_with_errors_and_the_worst_latency_are_told() -> None:
    row = failover.table([a_loss()]).splitlines()[1].split()
    assert row == ["x", "1", "3", "1", "0.2", "1,234", "2.00", "2.0"]
    assert failover.progress(a_loss()) == "x: 3 failed (3 Timeout), worst 1,234 ms"


def test_the_kept_form_is_json_and_says_when_the_node_was_killed() -> None:
    made = failover.document(machine={}, settings={"seed": 1}, results=[a_loss()])
    (run,) = json.loads(json.dumps(made))["runs"]
    assert (run["system"], run["kill_after_s"], run["notes"]) == ("x", 0.01, ["one"])
    assert run["outage"]["failed"] == 3
