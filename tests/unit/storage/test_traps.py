"""What RocksDB through rocksdict really does: each trap shown beside what we do instead.

Damaged, failing and full disks are in test_damage.py.

The first half of each test pins the trap. If one fails after an upgrade of rocksdict, the trap has
changed: read docs/storage-engine.md before changing the test.
"""

from __future__ import annotations

import ast
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import rocksdict

from kvnode.core.batch import Family
from kvnode.storage import rocks
from kvnode.storage.engine import open_engine, open_read_only
from kvnode.storage.port import (
    ReadFailure,
    StorageDamaged,
    StorageLocked,
    StorageStalled,
)
from kvnode.storage.rocks import RocksStore, Tuning
from tests.support.stores import (
    COUNT,
    flip_bit,
    key,
    make_log,
    make_table,
    opened,
    put,
    records,
    run_child,
)

_CHILDREN = "tests.unit.storage.children"
# --- the interpreter lock -------------------------------------------------------------------------


@contextmanager
def _switches_during() -> Iterator[Callable[[Callable[[], object]], int]]:
    """Yield a function that tells how often another thread ran during a call."""
    ran = 0
    is_over = False

    def spin() -> None:
        nonlocal ran
        while not is_over:
            ran += 1
            time.sleep(0)  # offers the interpreter lock

    def during(call: Callable[[], object]) -> int:
        before = ran
        call()
        return ran - before

    interval = sys.getswitchinterval()
    # Nobody is made to give up the lock: who loses it has let it go.
    sys.setswitchinterval(30)
    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield during
    finally:
        is_over = True
        thread.join()
        sys.setswitchinterval(interval)


def test_a_synced_write_holds_the_interpreter_lock_and_a_flush_frees_it(path: Path) -> None:
    synced = rocksdict.WriteOptions()
    synced.sync = True
    with opened(path) as engine, _switches_during() as switches:
        assert engine._store is not None
        database = engine._store._db
        holding = [switches(lambda: database.put(b"k", b"v", synced)) for _ in range(20)]
        freeing = []
        for _ in range(20):
            put(engine, (b"k", b"v"))
            freeing.append(switches(engine.flush))
    assert sum(holding) == 0
    assert sum(freeing) > 0


def test_reading_one_key_holds_the_interpreter_lock_and_a_list_frees_it(path: Path) -> None:
    keys = [key(number) for number in range(COUNT)]
    with opened(path) as engine, _switches_during() as switches:
        put(engine, *((name, b"v") for name in keys))
        assert engine._store is not None
        family = engine._store._families[Family.RECORDS]
        for name in keys[:500]:
            assert switches(partial(family.get, name)) == 0
        lists = [switches(lambda: engine.multi_get(Family.RECORDS, keys)) for _ in range(20)]
    assert sum(lists) > 0


# --- writes ---------------------------------------------------------------------------------------


def test_a_write_that_meets_a_stall_is_refused_in_full_and_the_rest_stays_durable(
    path: Path,
) -> None:
    engine = open_engine(path, tuning=Tuning(write_buffer=70_000, stop_at_files=2))
    assert engine._store is not None
    engine._store._families[Family.RECORDS].set_options({"disable_auto_compactions": "true"})
    written = 0
    with pytest.raises(StorageStalled, match="Result incomplete"):
        while written < 1_000:
            put(engine, (key(written), bytes(5_000)), (key(written) + b"+", b""))
            written += 1
    assert engine.written == engine.flush() == written
    assert engine.fenced is None
    assert len(records(engine)) == 2 * written
    engine.close(clean=False)
    with opened(path) as engine:
        assert len(records(engine)) == 2 * written
        put(engine, (b"goes on", b""))


def test_without_the_log_a_kill_loses_what_was_written(path: Path) -> None:
    run_child(f"{_CHILDREN}:write_without_log_and_die", path)
    store = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    try:
        assert store.get([b"logged", b"unlogged"]) == [b"1", None]
    finally:
        store.close()


@pytest.mark.parametrize(
    "name", ["disable_wal", "repair", "set_iterate_lower_bound", "no_checksum", "items", "destroy"]
)
def test_the_shim_never_calls_what_is_a_trap(name: str) -> None:
    tree = ast.parse(Path(rocks.__file__).read_text(encoding="utf-8"))
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert hasattr(rocksdict, "Rdict")
    assert "flush_wal" in used
    assert name not in used


# --- reads and scans ------------------------------------------------------------------------------


def test_one_bad_key_fails_a_whole_multi_get_and_ours_fails_for_bad_keys_only(
    bad_block: Path,
) -> None:
    keys = [key(number) for number in range(COUNT)]
    with opened(bad_block) as engine:
        assert engine._store is not None
        with pytest.raises(StorageDamaged):
            engine._store.get(Family.RECORDS, keys)
        found = engine.multi_get(Family.RECORDS, keys)
    failed = [value for value in found if isinstance(value, ReadFailure)]
    assert 0 < len(failed) < 100
    assert "block checksum mismatch" in failed[0].reason
    assert None not in found
    assert len(found) == COUNT


def test_items_ends_early_at_a_bad_block_and_our_scan_says_so(bad_block: Path) -> None:
    with opened(bad_block) as engine:
        assert engine._store is not None
        family = engine._store._families[Family.RECORDS]
        assert 0 < len(list(family.items())) < COUNT
        with pytest.raises(StorageDamaged, match="block checksum mismatch"):
            records(engine)
        assert len(engine.scan(Family.RECORDS, b"", None, 100)) == 100


def test_without_block_checksums_wrong_bytes_come_back_and_stay_cached(path: Path) -> None:
    table = make_table(path, COUNT)
    with opened(path) as engine:
        true = records(engine)
    flip_bit(table, table.stat().st_size // 2)
    careless = rocksdict.ReadOptions()
    careless.set_verify_checksums(False)
    with opened(path) as engine:
        assert engine._store is not None
        family = engine._store._families[Family.RECORDS]
        assert dict(family.items(read_opt=careless)) != true
        # One careless reader spoils the careful ones.
        assert engine.multi_get(Family.RECORDS, list(true)) != list(true.values())
        del family
    with opened(path) as engine:
        found = engine.multi_get(Family.RECORDS, list(true))
    for value, written in zip(found, true.values(), strict=True):
        assert isinstance(value, ReadFailure) or value == written


def test_the_lower_bound_is_an_upper_bound_so_we_seek(path: Path) -> None:
    with opened(path) as engine:
        put(engine, (b"a", b""), (b"b", b""), (b"c", b""))
        assert engine._store is not None
        bounded = rocksdict.ReadOptions()
        bounded.set_iterate_lower_bound(b"b")
        family = engine._store._families[Family.RECORDS]
        assert list(family.keys(read_opt=bounded)) == [b"a"]
        assert [name for name, _ in engine.scan(Family.RECORDS, b"b", None, 9)] == [b"b", b"c"]


# --- closing --------------------------------------------------------------------------------------


def test_an_iterator_keeps_a_closed_folder_locked_and_ours_leave_none(bad_block: Path) -> None:
    store = RocksStore(bad_block, tuning=Tuning())
    iterator = store._families[Family.RECORDS].iter()
    store.close()
    with pytest.raises(StorageLocked):
        RocksStore(bad_block, tuning=Tuning())
    del iterator
    engine = open_engine(bad_block)
    engine.scan(Family.RECORDS, b"", None, 9)
    with pytest.raises(StorageDamaged) as held:
        records(engine)
    engine.close()
    open_engine(bad_block).close()
    assert held.value is not None


def test_a_second_opening_is_refused(path: Path) -> None:
    with opened(path), pytest.raises(StorageLocked):
        open_engine(path)


def test_close_syncs_what_no_flush_did(path: Path) -> None:
    # So a power-cut test copies the open store: after a close there is nothing left to lose.
    engine = open_engine(path)
    put(engine, (b"a", b"1"))
    assert not list(path.glob("*.sst"))
    engine.close(clean=False)
    assert list(path.glob("*.sst"))


# --- the rest -------------------------------------------------------------------------------------


def test_a_stopped_or_running_store_can_be_read_beside_its_owner(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_read_only(path)
    with opened(path) as engine:
        put(engine, (b"a", b"1"))
        reader = open_read_only(path)
        assert reader.multi_get(Family.RECORDS, [b"a", b"b"]) == [b"1", None]
        assert reader.scan(Family.RECORDS, b"", None, 9) == [(b"a", b"1")]
        reader.close()
        put(engine, (b"b", b"1"))


def test_keys_and_values_other_than_bytes_are_a_bug_that_writes_nothing(path: Path) -> None:
    with opened(path) as engine:
        with pytest.raises((KeyError, ValueError), match="raw mode only support bytes"):
            put(engine, (b"a", b"1"), (b"b", bytearray(b"1")))  # type: ignore[arg-type]
        assert records(engine) == {}


def test_a_log_is_not_needed_for_what_tables_hold(path: Path) -> None:
    make_log(path, 3)
    with opened(path) as engine:
        assert len(records(engine)) == 3
