"""The laws of kvclient.testing.files: the node reads what the kit writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvclient.testing.files import CLOCK_OFFSET, FAULTS_VARIABLE, KitError, make_folder
from kvnode.runtime import birth, config, faults


def test_the_node_can_read_the_configuration_and_the_key(tmp_path: Path) -> None:
    nodes = make_folder(tmp_path, [10_001, 10_007], "[keyspace.strict]\nsloppy = false\n")
    read = config.load(tmp_path / "cluster.toml")
    assert [(node.id, node.address) for node in read.nodes] == [
        ("n1", "127.0.0.1:10001"),
        ("n2", "127.0.0.1:10007"),
    ]
    assert [keyspace.sloppy for keyspace in read.keyspaces] == [True, False]
    assert nodes["n2"].address == "127.0.0.1:10007"
    assert len(birth.load(tmp_path).key) == 32
    assert (tmp_path / birth.FILE).stat().st_mode & 0o077 == 0


def test_two_clusters_are_not_the_same_cluster(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_folder(tmp_path / name, [10_001])
    assert birth.load(tmp_path / "a") != birth.load(tmp_path / "b")


def test_a_cluster_that_is_there_is_not_touched(tmp_path: Path) -> None:
    make_folder(tmp_path, [10_001])
    before = birth.load(tmp_path)
    with pytest.raises(KitError, match="already"):
        make_folder(tmp_path, [10_001])
    assert birth.load(tmp_path) == before


def test_wiping_leaves_the_logs_alone(tmp_path: Path) -> None:
    node = make_folder(tmp_path, [10_001])["n1"]
    (node.folder / "store").mkdir()
    (node.folder / "store" / "000001.sst").write_text("data")
    (node.folder / "identity").write_text("n1")
    for name in ("node.log", "node.log.1"):
        (node.folder / name).write_text("said")
    node.wipe()
    assert sorted(path.name for path in node.folder.iterdir()) == ["node.log", "node.log.1"]
    assert node.log_text() == "said"


def test_a_fault_is_what_the_node_finds_where_it_looks(tmp_path: Path) -> None:
    node = make_folder(tmp_path, [10_001])["n1"]
    assert faults.VARIABLE == FAULTS_VARIABLE
    node.suffer(CLOCK_OFFSET, -250.0)
    assert faults.Faults(node.faults)._read(CLOCK_OFFSET) == -250.0
