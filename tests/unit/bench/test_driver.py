"""Claims about bench/driver.py, with a load generator that only notes what it is told."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from bench import driver
from bench.cluster import BenchError, Target
from bench.driver import CLIENT, Result, Settings
from bench.workload import Job

SETTINGS = Settings(
    mixes=("put", "get"),
    in_flight=(1, 16),
    value_bytes=(100,),
    keys=50,
    seconds=5.0,
    warm_s=2.0,
    rounds=2,
    seed=1,
)


class NotedLoad:
    """Stands in for the generator's process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.told: list[tuple[str, str, float]] = []

    def load(self, job: Job) -> dict[str, Any]:
        self.told.append(("load", str(job.value_bytes), 0.0))
        return {}

    def run(self, job: Job) -> dict[str, Any]:
        self.told.append(("run", job.name, job.seconds))
        figures = {"elapsed_s": job.seconds, "operations": 10, "cpu_s": 0.001, "faults": {}}
        return figures | {"latency_ns": {"1000": 10}, "client": {"attempts": 10}}


def measured(settings: Settings) -> tuple[list[tuple[str, str, float]], list[Result]]:
    load = NotedLoad()
    target = Target(seeds="", pids={"n1": os.getpid()})
    told: list[Result] = []
    assert driver.measure(settings, target, load, told.append) == told
    return load.told, told


def test_the_rounds_alternate_and_each_run_is_warmed_up_first() -> None:
    told, results = measured(SETTINGS)
    names = ["put-1-100B", "put-16-100B", "get-1-100B", "get-16-100B"]
    runs = [("run", name, seconds) for name in names for seconds in (2.0, 5.0)]
    assert told == [("load", "100", 0.0), *runs, *runs]
    assert [(one.round, one.job.name) for one in results] == [
        (number, name) for number in (0, 1) for name in names
    ]


def test_a_result_knows_its_rate_its_cost_and_its_json() -> None:
    result = measured(SETTINGS)[1][0]
    assert result.rate == 2.0
    assert result.cpu_us(CLIENT) == pytest.approx(100.0)
    assert set(result.cpu_s) == {"n1", CLIENT}
    kept = json.loads(json.dumps(result.to_json()))
    assert kept["job"]["mix"] == "put"
    assert kept["latency"] == {"1000": 10}


def test_a_generator_that_cannot_begin_is_told_as_such() -> None:
    job = SETTINGS.jobs()[0]
    with (
        pytest.raises(BenchError, match="the load generator died"),
        driver.generating("no-port", loop="asyncio", silence_ms=200.0) as generator,
    ):
        generator.load(job)
