"""What a store that is opened says, and that what cannot be read is never taken for absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvnode.core.batch import Family
from kvnode.runtime import config
from kvnode.runtime.birth import create
from kvnode.runtime.opening import Opened, _known_topology, _scan_all, open_node
from kvnode.storage.engine import open_engine
from kvnode.storage.folder import DataFolder
from kvnode.storage.memory import MemoryEngine
from kvnode.storage.port import StorageDamaged
from tests.support.stores import flip_bit
from tests.unit.core.builders import topology


def open_in(directory: Path) -> Opened:
    directory.mkdir(exist_ok=True)
    birth = create(directory)
    folder = DataFolder.open(directory / "n1", cluster_id=birth.cluster_id.hex(), node_id="n1")
    try:
        return open_node(
            node_id="n1",
            config=config.default_config(1, 7001),
            birth=birth,
            folder=folder,
            incarnation=7,
            sync_journal=None,
            is_restored=False,
        )
    finally:
        folder.close()


def test_a_topology_that_cannot_be_read_is_not_the_one_of_birth() -> None:
    engine = MemoryEngine()
    assert _known_topology(engine, topology()) == topology()
    engine.faults.unreadable.add((Family.META, b"topology"))
    with pytest.raises(StorageDamaged, match="the topology cannot be read"):
        _known_topology(engine, topology())


def test_all_pages_of_a_family_are_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvnode.runtime.opening._SCAN", 3)
    engine = MemoryEngine()
    pairs = {(b"%02d" % number, b"v") for number in range(9)}
    engine._families[Family.FLOORS].update(pairs)
    assert set(_scan_all(engine, Family.FLOORS)) == pairs


def test_facts_that_cannot_be_read_are_damage_and_leave_the_store_unlocked(tmp_path: Path) -> None:
    opened = open_in(tmp_path / "cluster")
    opened.engine.close()
    store = tmp_path / "cluster" / "n1" / "store"
    for table in store.glob("*.sst"):
        flip_bit(table, 20)
    with pytest.raises(StorageDamaged):
        open_in(tmp_path / "cluster")
    open_engine(store).close(clean=False)  # no StorageLocked
