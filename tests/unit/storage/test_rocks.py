"""The shim: which error a text stands for. What its calls do is in test_traps.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import rocksdict

from kvnode.core.batch import Family
from kvnode.storage.port import (
    StorageDamaged,
    StorageError,
    StorageFenced,
    StorageFull,
    StorageLocked,
    StorageStalled,
)
from kvnode.storage.rocks import RocksStore, Tuning, translate


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("Result incomplete: Write stall", StorageStalled),
        ("IO error: No space left on device: While appending to file: 1.log", StorageFull),
        ("IO error: lock hold by current process", StorageLocked),
        ("IO error: While lock file: LOCK: Resource temporarily unavailable", StorageLocked),
        ("Corruption: block checksum mismatch: stored = 1, computed = 2", StorageDamaged),
        ("IO error: While fdatasync: 1.log: Input/output error", StorageFenced),
        ("IO error: Writer has previous error.", StorageFenced),
        ("something never seen before", StorageFenced),
    ],
)
def test_an_error_is_known_by_how_its_text_begins(text: str, meaning: type[StorageError]) -> None:
    translated = translate(Exception(text))
    assert type(translated) is meaning
    assert str(translated) == text


def test_a_store_has_a_column_family_for_each_family_and_the_default(tmp_path: Path) -> None:
    RocksStore(tmp_path / "store", tuning=Tuning()).close()
    names = rocksdict.Rdict.list_cf(str(tmp_path / "store"), rocksdict.Options(raw_mode=True))
    assert set(names) == {"default", *(family.name.lower() for family in Family)}


def test_notes_of_rocksdb_are_bounded(tmp_path: Path) -> None:
    for _ in range(8):
        RocksStore(tmp_path / "store", tuning=Tuning()).close()
    assert len(list((tmp_path / "store").glob("LOG*"))) <= 6
