"""The laws of kvclient.testing.workloads: on a store in memory that fails now and then."""

from __future__ import annotations

import asyncio
import random

import pytest

from kvclient import errors
from kvclient.results import Record, Sibling, WriteResult
from kvclient.testing.checks import check
from kvclient.testing.history import History, Recorder
from kvclient.testing.workloads import (
    KEPT,
    KEPT_KEYS,
    WORKLOADS,
    WRITES_OF_A_KEY,
    Load,
    Pace,
    Tally,
    Worker,
    values_of,
)

FAILURES = (errors.Unavailable("no"), errors.Uncertain("late"), errors.Timeout("late"))


class Store:
    """One copy of everything; every tenth operation fails, without effect."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.asked = 0

    def keyspace(self, name: str) -> Store:
        return self

    def failing(self) -> None:
        self.asked += 1
        if self.asked % 10 == 0:
            raise FAILURES[self.asked // 10 % 3]

    async def put(self, key: str, value: bytes, *, context: bytes | None = None) -> WriteResult:
        self.failing()
        assert context in (None, self.values.get(key))
        self.values[key] = value
        return WriteResult(value, ("n1",), 0)

    async def delete(self, key: str) -> WriteResult:
        self.failing()
        self.values.pop(key, None)
        return WriteResult(b"", ("n1",), 0)

    async def get_record(self, key: str) -> Record | None:
        self.failing()
        value = self.values.get(key)
        return None if value is None else Record(value, value, 0)


def work(name: str, steps: int, *, seed: int = 0, workers: int = 2) -> tuple[Recorder, Tally]:
    """Let workers take turns at steps of a workload."""
    recorder, tally, store = Recorder(), Tally(), Store()

    async def main() -> None:
        pace, workload = Pace(1e9), WORKLOADS[name]
        staff = [
            Worker(
                number, store, recorder, chance=random.Random(f"{seed} {number}"), pace=pace,  # type: ignore[arg-type]
                tally=tally, place=number, peers=workers,
                keyspace=Load().keyspace_of(workload),
            )
            for number in range(workers)
        ]  # fmt: skip
        for worker in staff:
            if workload.prepare is not None:
                await workload.prepare(worker)
        for number in range(steps):
            await workload.step(staff[number % workers])

    asyncio.run(main())
    return recorder, tally


@pytest.mark.parametrize("name", WORKLOADS)
def test_values_are_unique_and_failures_recorded_and_counted(name: str) -> None:
    recorder, tally = work(name, 300)
    history = recorder.history
    tokens = [op.value for op in history.ops if op.f == "put"]
    assert len(set(tokens)) == len(tokens) > 0
    assert all(op.end is not None for op in history.ops)
    assert tally.done == len(history.ops)
    assert tally.failed == sum(op.end != "ok" for op in history.ops) > 0


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_same_seed_does_the_same(name: str) -> None:
    def told(history: History) -> list[tuple[str, str, str | None]]:
        return [(op.f, op.key, op.value) for op in history.ops]

    one, same, other = (work(name, 100, seed=seed)[0].history for seed in (1, 1, 2))
    assert told(one) == told(same)
    assert told(one) != told(other)


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_store_of_one_copy_is_found_sound(name: str) -> None:
    recorder, _ = work(name, 300)
    assert check(recorder.history, strict=("default",)).findings == ()


def test_a_set_puts_each_key_once() -> None:
    keys = [op.key for op in work("set", 200)[0].history.ops if op.f == "put"]
    assert len(set(keys)) == len(keys) == 200


@pytest.mark.parametrize("name", ["register", "rewrite"])
def test_a_key_has_one_writer_and_not_too_many_writes(name: str) -> None:
    steps = 5 * WRITES_OF_A_KEY if name == "rewrite" else 2 * WRITES_OF_A_KEY + 500
    writers: dict[str, set[int]] = {}
    counts: dict[str, int] = {}
    for op in work(name, steps)[0].history.ops:
        if op.f == "put":
            writers.setdefault(op.key, set()).add(op.worker)
            counts[op.key] = counts.get(op.key, 0) + 1
    assert all(len(each) == 1 for each in writers.values())
    assert max(counts.values()) <= WRITES_OF_A_KEY
    assert len(counts) > 2


def test_puts_with_a_context_name_the_read_that_gave_it() -> None:
    ops = work("context", 400)[0].history.ops
    by_number = {op.op: op for op in ops}
    puts = [op for op in ops if op.f == "put" and op.context is not None]
    assert puts
    for put in puts:
        assert put.context is not None
        read = by_number[put.context]
        assert (read.f, read.key, read.end, read.keyspace) == ("get", put.key, "ok", KEPT)
    first = {op.key for op in ops if op.f == "put" and op.context is None}
    assert len(first) == KEPT_KEYS


def test_a_rewrite_deletes_and_looks() -> None:
    found = {op.f for op in work("rewrite", 100)[0].history.ops}
    assert found == {"put", "get", "delete"}


def test_turns_are_even_and_those_long_past_are_gone() -> None:
    async def turns() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        pace = Pace(1_000)
        began = loop.time()
        for _ in range(100):
            await pace.turn()
        first = loop.time() - began
        pace._next_s -= 3_600  # nobody took a turn for an hour
        began = loop.time()
        for _ in range(200):
            await pace.turn()
        return first, loop.time() - began

    first, second = asyncio.run(turns())
    assert first >= 0.098 - Pace.BACKLOG_S
    assert second >= 0.198 - Pace.BACKLOG_S


def sibling(value: bytes, *, is_tombstone: bool = False) -> Sibling:
    return Sibling("a:1", value, 0, is_tombstone, 0, False)


def test_a_read_returns_the_winner_or_all_that_is_kept() -> None:
    both = Record(b"2", b"", 0, siblings=(sibling(b"1"), sibling(b"2")))
    gone = Record(None, b"", 0, siblings=(sibling(b"", is_tombstone=True),))
    assert values_of(both, is_kept=False) == ["2"]
    assert values_of(both, is_kept=True) == ["1", "2"]
    assert values_of(gone, is_kept=True) == values_of(None, is_kept=True) == []
    assert values_of(Record(b"1", b"", 0), is_kept=True) == ["1"]
    assert values_of(gone, is_kept=False) == []


def test_strict_loads_work_where_real_time_counts_but_siblings_stay_kept() -> None:
    assert Load(is_strict=True).keyspace_of(WORKLOADS["mixed"]) == "strict"
    assert Load(is_strict=True).keyspace_of(WORKLOADS["context"]) == KEPT
    assert Load().keyspace_of(WORKLOADS["mixed"]) == "default"
