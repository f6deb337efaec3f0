"""What RocksDB really does on damaged, failing and full disks, beside what we make of it."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import rocksdict

from kvnode.core.batch import Family, WriteBatch
from kvnode.storage.engine import open_engine
from kvnode.storage.folder import DataFolder
from kvnode.storage.port import StorageDamaged, StorageFenced, StorageFull
from kvnode.storage.rocks import RocksStore, Tuning
from tests.support import syncfault
from tests.support.stores import (
    COUNT,
    copy_live,
    copy_of_live_log,
    flip_bit,
    key,
    make_table,
    opened,
    put,
    records,
    run_child,
    small_disk,
    wait_until,
)

_CHILDREN = "tests.unit.storage.children"


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
    log = copy_of_live_log(path, writes=100)
    flip_bit(log, log.stat().st_size // 2)
    with opened(log.parent) as engine:
        left = records(engine)
        assert len(engine.damage) == 1
        assert "Corruption" in engine.damage[0]
        assert log.name in engine.damage[0]
    assert 0 < len(left) < 100
    assert sorted(left) == [key(number) for number in range(len(left))]


def test_damage_is_told_at_every_opening_until_it_is_forgotten(path: Path) -> None:
    log = copy_of_live_log(path, writes=10)
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
    log = copy_of_live_log(path, writes=100)
    flip_bit(log, log.stat().st_size // 2)
    with pytest.raises(Exception, match=r"^Corruption"):
        _open_in_mode(log.parent, rocksdict.DBRecoveryMode.tolerate_corrupted_tail_records())
    assert 0 < _open_in_mode(log.parent, None) < 100


def test_a_log_cut_anywhere_in_its_last_record_opens_quietly_without_it(path: Path) -> None:
    log = copy_of_live_log(path, writes=4, value=b"v")
    content = log.read_bytes()
    record = len(content) // 4
    for cut in range(len(content) - record, len(content)):
        target = path.parent / f"cut-{cut}"
        shutil.copytree(log.parent, target)
        (target / log.name).write_bytes(content[:cut])
        with opened(target) as engine:
            assert engine.damage == (), f"cut at {cut}"
            assert sorted(records(engine)) == [key(number) for number in range(3)], f"at {cut}"


def test_a_large_record_cut_at_the_edge_of_a_log_block_opens_quietly_without_it(path: Path) -> None:
    log = copy_of_live_log(path, writes=2, value=b"v" * 100_000)
    content = log.read_bytes()
    block = 32_768
    edges = [block * number for number in range(4, len(content) // block + 1)]
    for cut in [edge + offset for edge in edges for offset in (-7, -1, 0, 1, 7)]:
        target = path.parent / f"cut-{cut}"
        shutil.copytree(log.parent, target)
        (target / log.name).write_bytes(content[:cut])
        with opened(target) as engine:
            assert engine.damage == (), f"cut at {cut}"
            assert list(records(engine)) == [key(0)], f"cut at {cut}"


def test_a_bad_last_record_is_loud_and_loses_only_itself(path: Path) -> None:
    # It may be a torn write or a synced one: nobody can tell, so it counts as damage.
    log = copy_of_live_log(path, writes=10)
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
    copy = copy_live(path)
    engine.close(clean=False)
    for log in copy.glob("*.log"):
        flip_bit(log, log.stat().st_size // 2)
    with opened(copy) as engine:
        assert engine.damage
        floors = engine.scan(Family.FLOORS, b"", None, 1_000)
        assert 40 < len(floors) < 60
        assert [name for name, _ in floors] == sorted(records(engine))


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


def test_without_its_current_file_a_store_is_made_anew_over_the_tables_and_ours_refuses(
    path: Path,
) -> None:
    table = make_table(path, COUNT)
    (path / "CURRENT").unlink()
    for log in path.glob("*.log"):  # with one left RocksDB notices by itself
        log.unlink()
    with pytest.raises(StorageDamaged, match="CURRENT"):
        open_engine(path)
    assert table.exists()
    store = RocksStore(path, tuning=Tuning())
    assert store.scan(Family.RECORDS, b"", None, 1) == []
    store.close()
    assert not table.exists()


def test_a_manifest_that_lost_its_end_opens_without_a_word_and_the_seal_tells(
    tmp_path: Path,
) -> None:
    folder = DataFolder.open(tmp_path / "n1", cluster_id="c", node_id="n1")
    engine = open_engine(folder.store_path)
    put(engine, *((key(number), bytes(100)) for number in range(COUNT)))
    engine.close()
    folder.mark_clean_stop()
    (manifest,) = folder.store_path.glob("MANIFEST-*")
    quiet = 0
    for size in range(manifest.stat().st_size - 1, 0, -20):
        copy = tmp_path / f"cut{size}"
        shutil.copytree(folder.store_path, copy)
        os.truncate(copy / manifest.name, size)
        with suppress(StorageDamaged), opened(copy) as engine:
            quiet += len(records(engine)) < COUNT and not engine.damage
    assert quiet > 0, "it was told, or nothing was missing"
    os.truncate(manifest, manifest.stat().st_size - 1)
    assert manifest.name in folder.break_seal()
    folder.close()


def test_a_salvage_reads_what_is_not_in_a_missing_table(path: Path) -> None:
    with opened(path) as engine:
        batch = WriteBatch()
        batch.put(Family.META, b"fact", b"kept")
        engine.write(batch)
        put(engine, (key(1), b"lost"))
    for table in path.glob("*.sst"):
        if b"lost" in table.read_bytes():
            table.unlink()
    with pytest.raises(StorageDamaged, match=r"\.sst"):
        open_engine(path)
    store = RocksStore(path, tuning=Tuning(), read_only=True, is_salvage=True)
    assert store.get(Family.META, [b"fact"]) == [b"kept"]
    with pytest.raises(StorageDamaged):
        store.get(Family.RECORDS, [key(1)])
    assert store.scan_what_reads(Family.RECORDS, b"", None, 9)[1] is not None
    store.close()


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
