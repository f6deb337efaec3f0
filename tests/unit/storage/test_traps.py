"""What RocksDB through rocksdict really does: each trap shown beside what we do instead.

The first half of each test pins the trap. If one fails after an upgrade of rocksdict, the trap has
changed: read docs/storage-engine.md before changing the test.
"""

from __future__ import annotations

import ast
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import rocksdict

from kvnode.core.batch import Family, WriteBatch
from kvnode.storage import rocks
from kvnode.storage.engine import open_engine, open_read_only
from kvnode.storage.port import (
    ReadFailure,
    StorageDamaged,
    StorageFenced,
    StorageFull,
    StorageLocked,
    StorageStalled,
)
from kvnode.storage.rocks import RocksStore, Tuning
from tests.support import syncfault
from tests.support.stores import (
    flip_bit,
    key,
    make_log,
    make_table,
    newest,
    opened,
    put,
    records,
    run_child,
    small_disk,
    wait_until,
)

_CHILDREN = "tests.unit.storage.children"
COUNT = 5_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def bad_block(path: Path) -> Path:
    """A store of COUNT records with one bit flipped in the middle of its table file."""
    table = make_table(path, COUNT)
    flip_bit(table, table.stat().st_size // 2)
    return path


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


# --- damaged logs ---------------------------------------------------------------------------------


def _open_in_mode(path: Path, mode: rocksdict.DBRecoveryMode | None) -> int:
    options = rocksdict.Options(raw_mode=True)
    if mode is not None:
        options.set_wal_recovery_mode(mode)
    families = {family.name.lower(): rocksdict.Options(raw_mode=True) for family in Family}
    store = rocksdict.Rdict(str(path), options, column_families=families)
    try:
        return len(list(store.get_column_family("records").keys()))
    finally:
        store.close()


def test_a_bit_flipped_inside_a_synced_log_is_loud_and_keeps_what_precedes_it(path: Path) -> None:
    log = _copy_of_live_log(path, writes=100)
    flip_bit(log, log.stat().st_size // 2)
    with opened(log.parent) as engine:
        left = records(engine)
        assert len(engine.damage) == 1
        assert "Corruption" in engine.damage[0]
        assert log.name in engine.damage[0]
    assert 0 < len(left) < 100
    assert sorted(left) == [key(number) for number in range(len(left))]


def test_damage_is_told_at_every_opening_until_it_is_forgotten(path: Path) -> None:
    log = _copy_of_live_log(path, writes=10)
    flip_bit(log, log.stat().st_size // 2)
    with opened(log.parent) as engine:
        told = engine.damage
    for _ in range(2):
        with opened(log.parent) as engine:
            assert engine.damage == told != ()
    with opened(log.parent) as engine:
        engine.forget_damage()
        assert engine.damage == ()
    with opened(log.parent) as engine:
        assert engine.damage == ()


def test_the_default_mode_opens_a_damaged_log_without_a_word(path: Path) -> None:
    log = _copy_of_live_log(path, writes=100)
    flip_bit(log, log.stat().st_size // 2)
    with pytest.raises(Exception, match=r"^Corruption"):
        _open_in_mode(log.parent, rocksdict.DBRecoveryMode.tolerate_corrupted_tail_records())
    assert 0 < _open_in_mode(log.parent, None) < 100


def test_a_log_cut_anywhere_in_its_last_record_opens_quietly_without_it(path: Path) -> None:
    log = _copy_of_live_log(path, writes=4, value=b"v")
    content = log.read_bytes()
    record = len(content) // 4
    for cut in range(len(content) - record, len(content)):
        target = path.parent / f"cut-{cut}"
        target.mkdir()
        for file in log.parent.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        (target / log.name).write_bytes(content[:cut])
        with opened(target) as engine:
            assert engine.damage == (), f"cut at {cut}"
            assert sorted(records(engine)) == [key(number) for number in range(3)], f"at {cut}"


def test_a_bad_last_record_is_loud_and_loses_only_itself(path: Path) -> None:
    # It may be a torn write or a synced one: nobody can tell, so it counts as damage.
    log = _copy_of_live_log(path, writes=10)
    flip_bit(log, log.stat().st_size - 10)
    with opened(log.parent) as engine:
        assert len(engine.damage) == 1
        assert len(records(engine)) == 9


def test_no_family_is_ahead_of_another_after_a_damaged_log(path: Path) -> None:
    engine = open_engine(path, tuning=Tuning(write_buffer=256 << 10))
    for number in range(60):
        batch = WriteBatch()
        batch.put(Family.RECORDS, key(number), bytes(5_000))
        batch.put(Family.FLOORS, key(number), b"seen")
        engine.write(batch)
    engine.flush()
    assert engine._store is not None
    store = engine._store
    # One memtable is full; the thread that writes it out is RocksDB's own.
    wait_until(lambda: store._property(Family.RECORDS, "rocksdb.num-files-at-level0") == 1)
    copy = _copy(path)
    engine.close(clean=False)
    for log in copy.glob("*.log"):
        flip_bit(log, log.stat().st_size // 2)
    with opened(copy) as engine:
        assert engine.damage
        floors = engine.scan(Family.FLOORS, b"", None, 1_000)
        assert 40 < len(floors) < 60
        assert [name for name, _ in floors] == sorted(records(engine))


def _copy(path: Path) -> Path:
    copy = path.parent / "copy"
    copy.mkdir()
    # In order: logs, tables, then the manifest that names them.
    for file in sorted(path.iterdir()):
        with suppress(FileNotFoundError):  # a log whose tables are written is dropped
            (copy / file.name).write_bytes(file.read_bytes())
    return copy


def _copy_of_live_log(path: Path, *, writes: int, value: bytes = b"v" * 100) -> Path:
    """Return the log of a copy of a store whose `writes` records are in the log alone."""
    with opened(path) as engine:
        for number in range(writes):
            put(engine, (key(number), value))
        engine.flush()
        copy = _copy(path)
    return newest(copy, "*.log")


# --- damaged tables -------------------------------------------------------------------------------


def test_a_bad_block_fails_compaction_and_then_every_write(bad_block: Path) -> None:
    engine = open_engine(bad_block)
    put(engine, (key(0), b"new"), (key(COUNT), b"new"))
    assert engine._store is not None
    engine._store._families[Family.RECORDS].compact_range(None, None)
    with pytest.raises(StorageDamaged):
        put(engine, (b"no more", b"1"))
    with pytest.raises(StorageFenced):
        put(engine, (b"no more", b"1"))
    assert engine.multi_get(Family.RECORDS, [key(0), b"no more"]) == [b"new", None]
    engine.close(clean=False)


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_table_file_cut_or_missing_is_refused_with_its_name(path: Path, damage: str) -> None:
    table = make_table(path, COUNT)
    if damage == "cut":
        table.write_bytes(table.read_bytes()[: table.stat().st_size // 2])
    else:
        table.unlink()
    with pytest.raises(StorageDamaged, match=table.name):
        open_engine(path)


def test_repair_throws_everything_away(bad_block: Path) -> None:
    options = rocksdict.Options(raw_mode=True)
    rocksdict.Rdict.repair(str(bad_block), options)
    left = rocksdict.Rdict.list_cf(str(bad_block), options)
    families = {name: rocksdict.Options(raw_mode=True) for name in left}
    store = rocksdict.Rdict(str(bad_block), options, column_families=families)
    counts = [len(list(store.get_column_family(name).keys())) for name in left]
    store.close()
    assert sum(counts) < COUNT // 2


# --- failing and full disks -----------------------------------------------------------------------


@pytest.mark.skipif(not syncfault.is_supported(), reason="no seccomp filter for this machine")
def test_after_a_failed_sync_nothing_is_called_durable_again(path: Path) -> None:
    child = run_child(f"{_CHILDREN}:meet_failing_sync", path)
    assert child.returncode == 0, child.stderr
    seen, is_found, durable, fenced = json.loads(child.stdout)
    assert [line.split(":")[0] for line in seen] == ["StorageFenced"] * 3
    assert "Input/output error" in fenced
    assert is_found == [True, True]
    assert durable == 1
    with opened(path) as engine:
        # What the failed sync covered may be there or not: it is uncertain.
        assert records(engine).keys() - {b"during"} == {b"before"}


@pytest.mark.root
def test_a_full_disk_is_refused_at_the_watermark_and_recovers_when_freed(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        ballast = disk / "ballast"
        engine = open_engine(disk / "store")
        put(engine, (b"a", b"1"))
        ballast.write_bytes(bytes(13 << 20))
        engine.flush()
        is_full = engine.is_full
        assert is_full
        put(engine, (b"delete", b"goes on"))
        with ballast.open("ab") as more:
            more.write(bytes(1 << 20))
        engine.flush()
        with pytest.raises(StorageFull, match="reserve"):
            put(engine, (b"b", b"1"))
        assert engine.multi_get(Family.RECORDS, [b"a", b"b"]) == [b"1", None]
        ballast.unlink()
        is_full = engine.is_full
        assert not is_full
        put(engine, (b"b", b"1"))
        assert engine.flush() == engine.written
        engine.close()


@pytest.mark.root
def test_a_disk_that_is_really_full_fences_until_opened_anew(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        engine = open_engine(disk / "store", min_free_bytes=0)
        written = 0
        with pytest.raises(StorageFull, match="No space left"):
            while written < 100:
                put(engine, (key(written), bytes(1 << 20)))
                written += 1
        for attempt in (engine.flush, lambda: put(engine, (b"small", b""))):
            with pytest.raises(StorageFenced):
                attempt()
        assert engine.multi_get(Family.RECORDS, [key(0)]) == [bytes(1 << 20)]
        engine.close(clean=False)
        with opened(disk / "store") as engine:
            assert set(records(engine)) == {key(number) for number in range(written)}


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
