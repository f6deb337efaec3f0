"""Claims about bench/workload.py."""

from __future__ import annotations

import dataclasses
import json

import pytest

from bench import workload
from bench.workload import Job, Mix
from tests.unit.bench.builders import a_job


def test_the_same_seed_gives_the_same_operations_byte_for_byte() -> None:
    job = a_job()
    expected = workload.plan(job)
    workload._planned.cache_clear()
    assert workload.plan(job) == expected
    assert workload.plan(dataclasses.replace(job, seed=8)) != expected


@pytest.mark.parametrize(("mix", "share"), [("put", 1.0), ("get", 0.0), ("mixed", 0.5)])
def test_the_mix_says_how_many_are_puts(mix: Mix, share: float) -> None:
    steps = workload.plan(a_job(mix))
    puts = sum(value is not None for _, value in steps)
    assert puts / len(steps) == pytest.approx(share, abs=0.01)


def test_whatever_is_asked_for_was_loaded_with_a_value_of_the_same_size() -> None:
    job = a_job()
    loaded = dict(workload.loading(job))
    assert len(loaded) == job.keys
    assert {key for key, _ in workload.plan(job)} == loaded.keys()
    values = [value for _, value in workload.plan(job) if value is not None]
    assert {len(value) for value in [*values, *loaded.values()]} == {job.value_bytes}


def test_sizes_of_values_share_no_key() -> None:
    small, large = (dict(workload.loading(a_job(value_bytes=size))).keys() for size in (100, 1000))
    assert not small & large


def test_large_values_get_fewer_keys() -> None:
    assert workload.key_count(10_000, 100) == 10_000
    assert workload.key_count(10_000, 1 << 20) == 64
    assert workload.key_count(10_000, 1 << 30) == 1


def test_a_job_survives_json() -> None:
    job = a_job()
    assert Job(**json.loads(json.dumps(job.to_json()))) == job
