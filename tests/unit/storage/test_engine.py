"""The engine on RocksDB: what one fault means for all that comes after, and the sync journal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kvnode.core.batch import Change
from kvnode.storage.engine import RocksEngine, open_engine
from kvnode.storage.port import (
    StorageDamaged,
    StorageError,
    StorageFenced,
    StorageFull,
    StorageStalled,
)
from kvnode.storage.rocks import RocksStore, Tuning, translate
from tests.support.powercut import synced_lengths
from tests.support.stores import put


class FailingStore(RocksStore):
    """A store whose next call fails with a text that RocksDB was seen to raise."""

    next_write: str | None = None
    next_sync: str | None = None

    def write(self, changes: list[Change]) -> None:
        text, self.next_write = self.next_write, None
        if text is not None:
            raise translate(Exception(text))
        super().write(changes)

    def sync(self) -> None:
        text, self.next_sync = self.next_sync, None
        if text is not None:
            raise translate(Exception(text))
        super().sync()


@pytest.fixture
def store(tmp_path: Path) -> FailingStore:
    return FailingStore(tmp_path / "store", tuning=Tuning())


@pytest.fixture
def engine(store: FailingStore, tmp_path: Path) -> Iterator[RocksEngine]:
    made = RocksEngine(store, tmp_path / "store")
    yield made
    made.close(clean=False)


def test_a_stall_passes(engine: RocksEngine, store: FailingStore) -> None:
    store.next_write = "Result incomplete: Write stall"
    with pytest.raises(StorageStalled):
        put(engine, (b"a", b"1"))
    assert engine.fenced is None
    assert engine.written == 0
    assert put(engine, (b"a", b"1")) == 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("IO error: No space left on device: 1.log", StorageFull),
        ("Corruption: block checksum mismatch", StorageDamaged),
        ("IO error: While appending to file: Input/output error", StorageFenced),
    ],
)
def test_any_other_failed_write_fences(
    engine: RocksEngine, store: FailingStore, text: str, kind: type[StorageError]
) -> None:
    put(engine, (b"a", b"1"))
    store.next_write = text
    with pytest.raises(kind):
        put(engine, (b"b", b"1"))
    assert engine.fenced == text
    with pytest.raises(StorageFenced):
        put(engine, (b"b", b"1"))
    with pytest.raises(StorageFenced):
        engine.flush()
    assert (engine.written, engine.durable) == (1, 0)


def test_a_sync_that_would_work_again_is_not_tried(
    engine: RocksEngine, store: FailingStore
) -> None:
    put(engine, (b"a", b"1"))
    engine.flush()
    put(engine, (b"b", b"1"))
    store.next_sync = "IO error: While fdatasync: 1.log: Input/output error"
    for _ in range(3):
        with pytest.raises(StorageFenced, match="fdatasync"):
            engine.flush()
    assert engine.durable == 1
    with pytest.raises(StorageFenced):
        engine.close(clean=True)


def test_a_write_during_a_flush_is_not_covered_by_it(
    engine: RocksEngine, store: FailingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(engine, (b"a", b"1"))

    def write_meanwhile(self: FailingStore) -> None:
        put(engine, (b"b", b"1"))

    monkeypatch.setattr(FailingStore, "sync", write_meanwhile)
    assert engine.flush() == 1
    assert (engine.written, engine.durable) == (2, 1)


def test_the_journal_notes_each_log_as_long_as_a_completed_sync_covered_it(
    tmp_path: Path,
) -> None:
    journal = tmp_path / "syncs"
    engine = open_engine(tmp_path / "store", sync_journal=journal)
    put(engine, (b"a", b"1"))
    assert synced_lengths(journal) == {}
    engine.flush()
    (name, length), *rest = synced_lengths(journal).items()
    put(engine, (b"b", b"1"))
    assert rest == []
    assert 0 < length < (tmp_path / "store" / name).stat().st_size
    engine.close()
