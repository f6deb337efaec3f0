"""What a stopped node's disk holds, read without touching it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvnode.cli.local import LocalCluster
from kvnode.core.batch import Family, WriteBatch
from kvnode.core.hlc import Timestamp
from kvnode.core.keys import encode_key
from kvnode.core.record import encode, seal
from kvnode.core.versions import Context, Dot, Record, Vote
from kvnode.storage.engine import open_engine
from kvnode.storage.folder import DataFolder
from tests.unit.cli.conftest import Run

STAMP = Timestamp(1_700_000_000_000 << 16)
KEY = encode_key("default", b"k")
DOT = Dot(0xA, 3)


def record() -> bytes:
    version = seal(KEY, dot=DOT, timestamp=STAMP, write_id=bytes(16), value=b"ada\x1b")
    return encode(KEY, Record(Context({0xA: 3}), (version,), (Vote(2, DOT),)))


@pytest.fixture
def disk(cluster: LocalCluster) -> Path:
    node = cluster.nodes["n1"]
    folder = DataFolder.open(node.folder, cluster_id="c" * 32, node_id="n1")
    engine = open_engine(folder.store_path)
    batch = WriteBatch()
    batch.put(Family.RECORDS, KEY, record())
    batch.put(Family.RECORDS, encode_key("default", b"damaged"), record())
    engine.write(batch)
    engine.flush()
    engine.close()
    folder.close()
    return cluster.directory


def test_a_record_is_shown_as_it_lies_on_the_disk(run: Run, disk: Path) -> None:
    status, out, said = run("inspect", "n1", "k", "--data", disk)
    assert (status, said) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("partition  ")
    assert lines[1] == f"record     {len(record())} bytes"
    assert lines[2:] == [
        "context    000000000000000a:3",
        "",
        "version\twritten\texpires\tkind\tvotes of\tvalue",
        "000000000000000a:3\t2023-11-14 22:13:20.000Z\tnever\tvalue, 4 B\tn2\tada\\x1b",
    ]


def test_nothing_stored_is_failure(run: Run, disk: Path) -> None:
    for words in (["other"], ["k", "--keyspace", "carts"]):
        status, out, said = run("inspect", "n1", *words, "--data", disk)
        assert (status, out) == (1, "")
        assert said == "kvnode: n1's disk holds nothing under this key\n"


def test_a_damaged_record_is_not_taken_for_an_absent_one(run: Run, disk: Path) -> None:
    status, out, said = run("inspect", "n1", "damaged", "--data", disk)
    assert (status, out) == (1, "")
    assert said.startswith("kvnode: the record on n1's disk is damaged: ")


def test_a_running_node_is_left_alone(run: Run, disk: Path, cluster: LocalCluster) -> None:
    cluster.start(["n1"])
    status, _, said = run("inspect", "n1", "k", "--data", disk)
    pid = cluster.pids()["n1"]
    assert status == 1
    assert said == (
        f"kvnode: n1 is running (pid {pid}): `kvnode get --explain` asks it, "
        f"and `kvnode kill n1 --signal TERM --data {disk}` stops it\n"
    )


def test_a_node_without_a_disk_and_an_unknown_one_are_told(run: Run, disk: Path) -> None:
    status, _, said = run("inspect", "n2", "k", "--data", disk)
    assert status == 1
    assert "n2" in said
    assert said.count("\n") == 1
    assert run("inspect", "n7", "k", "--data", disk)[0] == 2
