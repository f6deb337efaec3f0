"""When a store counts as whole, and that a doubt outlives clean stops."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.runtime.proof import judge, note_doubt, scan_all, this_boot
from kvnode.storage.folder import DataFolder
from kvnode.storage.memory import MemoryEngine
from tests.unit.core.builders import DEFAULT, PERIODIC, topology


@dataclass
class Store:
    """A store that is opened again and again, on a machine that may boot in between."""

    folder: DataFolder
    boot_id: Path
    engine: MemoryEngine = field(default_factory=MemoryEngine)

    def open(self, *, clean: bool, boot: str = "one", periodic: bool = True) -> bool:
        self.boot_id.write_text(boot)
        if clean:
            self.folder.mark_clean_stop()
        keyspaces = [DEFAULT, PERIODIC] if periodic else [DEFAULT]
        cluster = topology(keyspaces=keyspaces)
        return judge(self.engine, self.folder, cluster, boot=this_boot(self.boot_id)) is None


@pytest.fixture
def store(tmp_path: Path) -> Store:
    folder = DataFolder.open(tmp_path / "n1", cluster_id="c", node_id="n1")
    folder.close()
    return Store(folder, tmp_path / "boot_id")


def test_a_first_start_is_proven(store: Store) -> None:
    assert store.open(clean=False)


def test_a_clean_stop_is_proven_after_any_boot(store: Store) -> None:
    store.open(clean=False)
    assert store.open(clean=True, boot="two")


def test_a_crash_under_fsync_is_proven(store: Store) -> None:
    store.open(clean=False)
    assert store.open(clean=False, boot="two", periodic=False)


def test_a_crash_of_the_process_alone_is_proven_under_periodic(store: Store) -> None:
    store.open(clean=False)
    assert store.open(clean=False)


def test_a_crash_of_the_machine_is_a_doubt_under_periodic(store: Store) -> None:
    store.open(clean=False)
    assert not store.open(clean=False, boot="two")


def test_a_machine_that_does_not_name_its_boots_is_taken_to_have_crashed(store: Store) -> None:
    store.boot_id = store.boot_id.parent / "missing" / "boot_id"
    store.boot_id.parent.mkdir()
    boot = this_boot(store.boot_id)
    first, second = (judge(store.engine, store.folder, topology(), boot=boot) for _ in range(2))
    assert first is None
    assert second == b""


def test_a_damaged_store_is_a_doubt_however_it_was_left(store: Store) -> None:
    store.open(clean=False)
    store.engine.damage = ("a log was cut",)
    assert not store.open(clean=True)


def test_damage_becomes_a_doubt_without_floors_and_is_told_no_more(store: Store) -> None:
    store.open(clean=False)
    batch = WriteBatch()
    for number in range(20):
        batch.put(Family.FLOORS, b"%02d" % number, b"seen")
    store.engine.write(batch)
    vars(store.engine)["damage"] = ("a log was cut",)
    assert not store.open(clean=True)
    assert store.engine.damage == ()
    store.engine.crash()
    assert list(scan_all(store.engine, Family.FLOORS)) == []
    assert not store.open(clean=True)


def test_all_slices_of_a_family_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvnode.runtime.proof._SCAN", 3)
    engine = MemoryEngine()
    pairs = {(b"%02d" % number, b"v") for number in range(9)}
    engine.spaces.families[Family.FLOORS].update(pairs)
    assert set(scan_all(engine, Family.FLOORS)) == pairs


def test_a_doubt_outlives_a_clean_stop(store: Store) -> None:
    store.open(clean=False)
    store.open(clean=False, boot="two")
    assert not store.open(clean=True, boot="two")


def test_a_doubt_that_was_noted_in_life_is_found_at_the_next_start(store: Store) -> None:
    store.open(clean=False)
    batch = WriteBatch()
    note_doubt(batch)
    store.engine.write(batch)
    assert not store.open(clean=True)


def test_the_judgement_is_durable_before_it_is_used(store: Store) -> None:
    store.open(clean=False)
    store.open(clean=False, boot="two")
    store.engine.crash()
    assert not store.open(clean=True, boot="two")
