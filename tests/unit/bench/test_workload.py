"""Claims about kvnode/bench/workload.py."""

from __future__ import annotations

import itertools
import json
from collections import Counter

import pytest

from kvnode.bench import keys, workload
from kvnode.bench.workload import MANY_MAX, WORKLOADS, Job, Step, Work
from tests.unit.bench.builders import a_job

STEPS = 4000


def first(job: Job, count: int = STEPS) -> list[Step]:
    """Return the first operations, each insert acknowledged before the next operation."""
    work, made = Work(job), []
    for step in itertools.islice(work.steps(), count):
        made.append(step)
        if step.kind == "insert" and not job.is_load:
            work.acknowledged(step)
    return made


def loaded(job: Job) -> list[Step]:
    return first(Job(**(job.to_json() | {"is_load": True})), 10**9)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_same_seed_gives_the_same_operations_byte_for_byte(name: str) -> None:
    assert first(a_job(name)) == first(a_job(name))
    assert first(a_job(name)) != first(a_job(name, seed=8))


@pytest.mark.parametrize("name", WORKLOADS)
def test_operations_come_in_the_shares_of_their_workload(name: str) -> None:
    found = Counter(step.kind for step in first(a_job(name)))
    for kind, share in WORKLOADS[name].shares.items():
        assert found[kind] / STEPS == pytest.approx(share, abs=0.03)
    assert found.keys() == WORKLOADS[name].shares.keys()


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("processes", [1, 3])
def test_whatever_is_read_was_loaded_or_inserted_before(name: str, processes: int) -> None:
    job = a_job(name)
    known = {step.key for part in range(processes) for step in loaded(job.part(part, processes))}
    assert len(known) == job.keys
    for step in first(job.part(0, processes)):
        if step.kind == "insert":
            assert step.key not in known
            known.add(step.key)
        assert step.key in known
        assert set(step.more) <= known


def test_processes_load_every_key_once_and_ask_for_different_ones() -> None:
    parts = [a_job("d", keys=1000).part(number, 3) for number in range(3)]
    names = [step.key for part in parts for step in loaded(part)]
    assert len(names) == len(set(names)) == 1000
    inserted = [{s.key for s in first(part) if s.kind == "insert"} for part in parts]
    assert not inserted[0] & inserted[1]
    assert first(parts[0]) != first(parts[1])


def test_parts_make_up_the_whole() -> None:
    parts = [a_job(in_flight=10, rate=90.0).part(number, 3) for number in range(3)]
    assert [part.in_flight for part in parts] == [4, 3, 3]
    assert [part.rate for part in parts] == [30.0] * 3


def test_what_was_inserted_last_is_read_most() -> None:
    job = a_job("d", keys=1000)
    work = Work(job)
    steps = work.steps()
    newest = [step for step in itertools.islice(steps, STEPS) if step.kind == "insert"][:20]
    for step in newest:
        work.acknowledged(step)
    reads = Counter(step.key for step in itertools.islice(steps, STEPS) if step.kind == "read")
    # YCSB's law over the thousand keys: 1 / zeta(1000) of all reads for the newest.
    share = 1 / keys.zeta(1000)
    assert reads.most_common(1)[0][0] == newest[-1].key
    assert reads[newest[-1].key] / reads.total() == pytest.approx(share, rel=0.1)


def test_an_insert_that_was_not_acknowledged_is_not_read() -> None:
    steps = [*itertools.islice(Work(a_job("d")).steps(), STEPS)]
    inserted = {step.key for step in steps if step.kind == "insert"}
    assert inserted
    assert not inserted & {step.key for step in steps if step.kind == "read"}


def test_runs_with_other_tags_insert_other_keys() -> None:
    one, other = ({s.key for s in first(a_job("d", tag=tag)) if s.value} for tag in "12")
    assert not one & other


def test_many_keys_follow_each_other_and_are_up_to_a_hundred() -> None:
    steps = [step for step in first(a_job("e", keys=500)) if step.kind == "many"]
    lengths = Counter(len(step.more) for step in steps)
    assert (min(lengths), max(lengths)) == (1, MANY_MAX)
    numbers = [int(key.rpartition(b":")[2]) for key in steps[0].more]
    assert numbers == [(numbers[0] + i) % 500 for i in range(len(numbers))]


def test_sizes_of_values_share_no_key_and_all_values_have_their_size() -> None:
    small, large = (loaded(a_job(value_bytes=size)) for size in (100, 1000))
    assert not {s.key for s in small} & {s.key for s in large}
    assert {len(step.value) for step in [*large, *first(a_job("put", value_bytes=1000))]} == {1000}


def test_large_values_get_fewer_keys_unless_told() -> None:
    assert workload.default_keys(100) == 10_000
    assert workload.default_keys(1 << 20) == 64
    assert workload.default_keys(1 << 30) == 1


def test_a_job_survives_json() -> None:
    job = a_job(rate=5.0)
    assert Job(**json.loads(json.dumps(job.to_json()))) == job
