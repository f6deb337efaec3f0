"""Claims about bench/driver.py, with load generators that only note what they are told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from bench import driver
from bench.driver import CLIENT, Result, Settings, Side
from bench.target import Target
from kvnode.bench.workers import Figures
from kvnode.bench.workload import Job
from tests.unit.bench.builders import some_figures

SETTINGS = Settings(
    workloads=("put", "get"),
    draw=None,
    in_flight=(1, 16),
    value_bytes=(100,),
    keys=50,
    seconds=5.0,
    warm_s=2.0,
    rounds=2,
    seed=1,
)
Told = list[tuple[str, str, int, float]]


class NotedLoad:
    """Stands in for the generator's processes."""

    def __init__(self, system: str, told: Told, tags: list[str]) -> None:
        self.pids = (os.getpid(),)
        self._system, self._told, self._tags = system, told, tags

    def run(self, job: Job) -> Figures:
        name = "load" if job.is_load else job.workload
        self._told.append((self._system, name, job.in_flight, job.seconds))
        self._tags.append(job.tag)
        return some_figures(job, operations=10)


def measured(settings: Settings, *systems: str) -> tuple[Told, list[str], list[Result]]:
    told: Told = []
    tags: list[str] = []
    pids = {"n1": os.getpid()}
    sides = [
        Side(target=Target(name=name, where="", pids=pids), load=NotedLoad(name, told, tags))
        for name in systems
    ]
    results: list[Result] = []
    assert driver.measure(settings, sides, results.append) == results
    return told, tags, results


def test_the_rounds_alternate_and_each_run_is_warmed_up_first() -> None:
    told, _, results = measured(SETTINGS, "x")
    kinds = [(workload, n) for workload in ("put", "get") for n in (1, 16)]
    runs = [("x", workload, n, seconds) for workload, n in kinds for seconds in (2.0, 5.0)]
    assert told == [("x", "load", 64, 0.0), *runs, *runs]
    assert [(one.round, one.job.workload, one.job.in_flight) for one in results] == [
        (number, *kind) for number in (0, 1) for kind in kinds
    ]


def test_stores_take_turns_at_each_run_in_another_order_each_round() -> None:
    settings = Settings(
        workloads=("a",), draw=None, in_flight=(4,), value_bytes=(100,), keys=50, seconds=5.0,
        warm_s=2.0, rounds=2, seed=1,
    )  # fmt: skip
    _, _, results = measured(settings, "x", "y")
    assert [(one.round, one.system) for one in results] == [(0, "x"), (0, "y"), (1, "y"), (1, "x")]


def test_a_store_that_is_slow_at_first_is_asked_everything_for_a_while_before() -> None:
    told: Told = []
    target = Target(name="x", where="", pids={"n1": os.getpid()}, settle_s=20.0)
    side = Side(target=target, load=NotedLoad("x", told, []))
    driver.measure(SETTINGS, [side], lambda _: None)
    kinds = [(workload, n) for workload in ("put", "get") for n in (1, 16)]
    assert told[1:5] == [("x", workload, n, 5.0) for workload, n in kinds]
    assert len(told) == 1 + 4 + 2 * 8


def test_no_two_runs_of_a_store_insert_the_same_keys() -> None:
    _, tags, _ = measured(SETTINGS, "x")
    assert len(tags[1:]) == len(set(tags[1:])) == 16


def test_a_result_knows_its_cost_and_its_json() -> None:
    result = measured(SETTINGS, "x")[2][0]
    assert result.cpu_us(CLIENT) == pytest.approx(10.0)
    assert set(result.cpu_s) == {"n1", CLIENT}
    kept = json.loads(json.dumps(result.to_json()))
    assert kept["job"]["workload"] == "put"
    assert kept["system"] == "x"
    assert kept["tally"]["latency_ns"]["update"]


def test_the_probe_of_a_sync_leaves_no_file_behind(tmp_path: Path) -> None:
    assert driver.sync_p50_ms(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []
