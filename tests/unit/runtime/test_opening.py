"""What a store that is opened says, and that what cannot be read is never taken for absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.keys import encode_key
from kvnode.core.trees import trees_of
from kvnode.runtime import config
from kvnode.runtime.beginning import _known_topology
from kvnode.runtime.birth import create, load
from kvnode.runtime.opening import Opened, open_node
from kvnode.storage.engine import note_damage, open_engine
from kvnode.storage.folder import DataFolder
from kvnode.storage.memory import MemoryEngine
from kvnode.storage.port import StorageDamaged
from kvnode.storage.rebuild import REBUILDS_MAX, old_store
from tests.support.stores import flip_bit
from tests.unit.core.builders import topology


def open_in(directory: Path) -> Opened:
    directory.mkdir(exist_ok=True)
    birth = load(directory) if (directory / "cluster.key").exists() else create(directory)
    folder = DataFolder.open(directory / "n1", cluster_id=birth.cluster_id.hex(), node_id="n1")
    try:
        return open_node(
            node_id="n1",
            config=config.default_config(3, 7001),
            birth=birth,
            folder=folder,
            incarnation=7,
            sync_journal=None,
            is_restored=False,
        )
    finally:
        folder.close()


def _cluster_id(tmp_path: Path) -> str:
    return load(tmp_path / "cluster").cluster_id.hex()


def test_a_topology_that_cannot_be_read_is_not_the_one_of_birth() -> None:
    engine = MemoryEngine()
    assert _known_topology(engine, topology()) == topology()
    engine.spaces.unreadable[Family.META, b"topology"] = "Corruption: injected"
    with pytest.raises(StorageDamaged, match="the topology cannot be read"):
        _known_topology(engine, topology())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Give the store of a node that lived once, and left it in tables."""
    opened = open_in(tmp_path / "cluster")
    assert opened.node.replica.is_proven
    opened.engine.close()
    return tmp_path / "cluster" / "n1" / "store"


def test_facts_that_cannot_be_read_have_the_store_rebuilt_and_doubted(
    store: Path, tmp_path: Path
) -> None:
    for table in store.glob("*.sst"):
        flip_bit(table, 20)
    opened = open_in(tmp_path / "cluster")
    assert not opened.node.replica.is_proven
    assert opened.identity.start_number == 1
    assert old_store(store).exists()
    opened.engine.close()
    opened = open_in(tmp_path / "cluster")
    assert not opened.node.replica.is_proven
    opened.engine.close()


def test_a_rebuild_that_was_asked_for_is_made_once(store: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cluster" / "n1"
    (folder / "rebuild").write_text("a block was bad\n")
    for _ in range(2):
        opened = open_in(tmp_path / "cluster")
        assert not opened.node.replica.is_proven
        opened.engine.close()
    assert opened.identity.start_number == 3
    assert not (folder / "rebuild").exists()
    (line,) = (folder / "store.rebuilds").read_text().splitlines()
    assert line.startswith("rebuilt: a block was bad; ")


def test_the_old_store_goes_at_a_start_of_the_proven_one(store: Path, tmp_path: Path) -> None:
    (store.parent / "rebuild").write_text("a block was bad\n")
    opened = open_in(tmp_path / "cluster")
    batch = WriteBatch()
    batch.delete(Family.META, b"unproven")  # as a complete comparison does
    opened.engine.write(batch)
    opened.engine.close()
    assert old_store(store).exists()
    opened = open_in(tmp_path / "cluster")
    assert opened.node.replica.is_proven
    opened.engine.close()
    assert not old_store(store).exists()
    assert not (store.parent / "store.rebuilds").exists()


def test_a_store_that_is_not_as_its_clean_stop_left_it_is_doubted(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = DataFolder.open(store.parent, cluster_id=_cluster_id(tmp_path), node_id="n1")
    folder.mark_clean_stop()
    folder.close()
    (manifest,) = store.glob("MANIFEST-*")
    with manifest.open("ab") as file:
        file.write(b"\x00")
    opened = open_in(tmp_path / "cluster")
    assert f"store_changed what=not as the clean stop left it: {manifest.name}" in caplog.text
    assert not opened.node.replica.is_proven
    opened.engine.close()


def test_trees_that_outlived_their_records_are_not_believed(store: Path, tmp_path: Path) -> None:
    """A manifest that lost its end may name the table of the trees and no longer that of records:
    equal trees would prove a partition that holds nothing."""
    trees = trees_of(topology())
    trees.note(encode_key("default", b"k"), None, bytes(64))
    batch = WriteBatch()
    trees.save(batch)
    engine = open_engine(store)
    engine.write(batch)
    engine.close()
    note_damage(store, ["a manifest lost its end"])
    opened = open_in(tmp_path / "cluster")
    assert len(opened.node.replica.trees.unknown) == opened.node.topology.partitions
    opened.engine.close()


def test_a_store_that_is_rebuilt_in_vain_is_refused_and_left_unlocked(
    store: Path, tmp_path: Path
) -> None:
    (store.parent / "store.rebuilds").write_text("rebuilt: again\n" * REBUILDS_MAX)
    for table in store.glob("*.sst"):
        flip_bit(table, 20)
    with pytest.raises(StorageDamaged, match="use another disk"):
        open_in(tmp_path / "cluster")
    open_engine(store).close(clean=False)  # no StorageLocked
