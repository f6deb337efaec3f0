"""What the engine in memory can do besides: keep part of a log's end, and fail on demand."""

from __future__ import annotations

import pytest

from kvnode.core.batch import Family
from kvnode.storage.memory import MemoryEngine
from kvnode.storage.port import StorageFenced, StorageFull, StorageStalled
from tests.support.stores import put


@pytest.mark.parametrize("keep", [0, 1, 2, 3])
def test_a_crash_keeps_a_prefix_of_the_unflushed_writes(keep: int) -> None:
    engine = MemoryEngine()
    for number in range(3):
        put(engine, (b"%d" % number, b"v"), (b"same", b"%d" % number))
    engine.crash(keep=keep)
    found = engine.multi_get(Family.RECORDS, [b"0", b"1", b"2", b"same"])
    same = b"%d" % (keep - 1) if keep else None
    assert found == [*([b"v"] * keep), *([None] * (3 - keep)), same]


def test_a_refused_write_leaves_no_trace() -> None:
    engine = MemoryEngine()
    engine.faults.is_stalled = True
    with pytest.raises(StorageStalled):
        put(engine, (b"a", b"1"))
    engine.faults.is_stalled = False
    engine.faults.is_full = True
    assert engine.is_full
    with pytest.raises(StorageFull):
        put(engine, (b"a", b"1"))
    engine.faults.is_full = False
    assert engine.multi_get(Family.RECORDS, [b"a"]) == [None]
    assert engine.written == 0


def test_a_failed_flush_fences_for_good() -> None:
    engine = MemoryEngine()
    put(engine, (b"a", b"1"))
    engine.faults.fails_next_flush = True
    for _ in range(2):
        with pytest.raises(StorageFenced):
            engine.flush()
    with pytest.raises(StorageFenced):
        put(engine, (b"b", b"1"))
    assert engine.durable == 0
    engine.crash()
    assert engine.fenced is None
    assert engine.multi_get(Family.RECORDS, [b"a"]) == [None]
