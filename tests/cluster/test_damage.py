"""Disks that lie, fill up or fail, under real nodes: clients never get a wrong byte or a false no.

What a damaged store yields is tried with many more places in tests/unit/storage/test_rebuild.py;
here are whole nodes, with clients that ask them.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

import kvclient
from kvnode.core.batch import Family, WriteBatch
from kvnode.core.keys import encode_key
from kvnode.storage.engine import open_engine
from kvproto import kv_pb2
from tests.support import seeds, syncfault
from tests.support.journaled import journal_of, program, trouble_of
from tests.support.load import Writers, acked_by, missing_on
from tests.support.nodes import Nodes, until
from tests.support.powercut import cut_power
from tests.support.scale import scaled
from tests.support.stores import flip_bit, small_disk
from tests.support.wire import Refusal, call

Cluster = Callable[..., Nodes]

_PARTS = 6
_PLACES = scaled(2, soak=34)
"""In each part of the test of spoilt stores."""
_KEYS = [f"key{number}" for number in range(400)]


def value_of(key: str) -> bytes:
    return f"value of {key} ".encode() * 20


def fill(nodes: Nodes) -> None:
    with nodes.client() as client:
        client.put_many({key: value_of(key) for key in _KEYS})


def stopped(nodes: Nodes) -> Path:
    """Stop n3, which writes everything into tables; return a copy of its folder."""
    nodes.stop("n3")
    assert max(table.stat().st_size for table in nodes.store("n3").glob("*.sst")) > 10_000
    copy = nodes.local.directory / "whole"
    shutil.copytree(nodes.node("n3").folder, copy)
    return copy


def check_reads(client: kvclient.Client) -> None:
    """Have n3 coordinate a read of each key, of one replica: often itself."""
    assert client.get_many(_KEYS, r=1) == [value_of(key) for key in _KEYS]


# ---- row 22: one bit, or the end of a file -----------------------------------------------------

_SPOILT = ("*.sst", "*.log", "MANIFEST-*", "CURRENT")


def spoil(store: Path, chance: random.Random) -> str:
    """Flip one bit, or cut a file, anywhere in a store; return what was done."""
    found = (file for kind in _SPOILT for file in store.glob(kind))
    # Large and small files alike: a manifest is as good a place as a table.
    file = chance.choice(sorted(file for file in found if file.stat().st_size))
    at = chance.randrange(file.stat().st_size)
    if chance.random() < 0.3:
        os.truncate(file, at)
        return f"{file.name} cut at {at}"
    flip_bit(file, at)
    return f"{file.name} flipped at {at}"


@pytest.mark.timeout(scaled(60, soak=1_200))
@pytest.mark.parametrize("part", range(_PARTS))
def test_a_spoilt_store_yields_no_wrong_byte_and_no_false_absence(
    cluster: Cluster, part: int
) -> None:
    chance = random.Random(seeds.derive(seeds.run_seed(), f"spoilt {part}"))
    nodes = cluster()
    fill(nodes)
    whole, folder = stopped(nodes), nodes.node("n3").folder
    for _ in range(_PLACES):
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        what = spoil(nodes.store("n3"), chance)
        nodes.local.start(["n3"])
        if (failed := nodes.local.wait_ready(["n3"])) != {}:
            assert "n3" in failed, what
            continue  # it refused to start, saying why
        with nodes.client("n3") as client:
            check_reads(client)
        nodes.kill("n3")
        log = nodes.log("n3")
        assert "crashed" not in log, what
        assert "Traceback" not in log, what


def test_a_bad_block_that_a_read_meets_has_the_store_rebuilt_under_the_same_pid(
    cluster: Cluster,
) -> None:
    nodes = cluster()
    fill(nodes)
    stopped(nodes)
    table = max(nodes.store("n3").glob("*.sst"), key=lambda file: file.stat().st_size)
    flip_bit(table, table.stat().st_size // 3)
    nodes.start("n3")
    pid, life = nodes.pid("n3"), nodes.status("n3").incarnation
    with nodes.client() as client:
        assert client.get_many(_KEYS) == [value_of(key) for key in _KEYS]
        until(lambda: "store_rebuilt" in nodes.log("n3"), what="rebuilding")
        nodes.wait_linked()
        assert client.get_many(_KEYS) == [value_of(key) for key in _KEYS]
        assert nodes.pid("n3") == pid
        assert nodes.status("n3").incarnation != life
        assert "alarm store_is_damaged" in nodes.log("n3")
        client.wait_converged(30)
    until(lambda: nodes.status("n3").state == "up", within_s=30, what="being proven")
    old = nodes.node("n3").folder / "store.old"
    assert old.exists()
    nodes.stop("n3")
    assert missing_on(nodes.store("n3"), {key.encode(): value_of(key) for key in _KEYS}) == []
    nodes.start("n3")
    assert not old.exists(), "it is not needed any more"


def test_a_node_that_lost_its_store_whole_becomes_equal_to_its_peers(cluster: Cluster) -> None:
    nodes = cluster()
    fill(nodes)
    stopped(nodes)
    (manifest,) = nodes.store("n3").glob("MANIFEST-*")
    flip_bit(manifest, 20)
    nodes.start("n3")
    nodes.wait_linked()
    assert "nothing in it could be read" in nodes.log("n3")
    with nodes.client("n3") as client:
        check_reads(client)
        client.wait_converged(30)
    until(lambda: nodes.status("n3").state == "up", within_s=30, what="being proven")
    nodes.kill()
    assert missing_on(nodes.store("n3"), {key.encode(): value_of(key) for key in _KEYS}) == []


# ---- row 23: no room ---------------------------------------------------------------------------


def put_at(nodes: Nodes, name: str, **fields: Any) -> Any:
    """Put a key by way of this node; return what it says."""
    with nodes.channel(name) as channel:
        return call(channel, "KV/Put", kv_pb2.PutRequest(key=b"k", value=b"v", **fields))


def takes_part(nodes: Nodes, name: str) -> bool:
    """Return whether a node takes a put that all owners are asked to take."""
    answer = put_at(nodes, name, w=3)
    if not isinstance(answer, Refusal):
        return True
    assert answer.failure is not None
    replies = {reply.node: reply.answer for reply in answer.failure.replies}
    assert replies[name] == "refused: refused_full"
    return False


@pytest.mark.root
def test_a_full_disk_refuses_puts_there_and_nothing_else_and_recovers_when_freed(
    cluster: Cluster,
) -> None:
    nodes = cluster(start=False)
    with small_disk(nodes.node("n3").folder, 16):
        try:
            nodes.start()
            nodes.wait_linked()
            fill(nodes)
            check_full_disk(nodes, nodes.node("n3").folder / ".ballast")
        finally:
            nodes.kill()


def check_full_disk(nodes: Nodes, ballast: Path) -> None:
    with nodes.client() as client, Writers(client) as writers:
        writers.wait_for(20)
        ballast.write_bytes(bytes(_free(ballast.parent) - (3 << 20)))
        until(lambda: not takes_part(nodes, "n3"), what="refusing for room")
        assert set(put_at(nodes, "n3").acked_by) == {"n1", "n2"}, "it knows who has room"
        writers.wait_for(200)
        with writers.resting():
            check_what_goes_on(nodes)
            nodes.kill("n1", "n2")
            until(lambda: not nodes.peers_up("n3"), what="noticing that n3 is alone")
            check_nobody_has_room(put_at(nodes, "n3", w=1))
            nodes.start("n1", "n2")
            nodes.wait_linked()
        ballast.unlink()
        until(lambda: takes_part(nodes, "n3"), what="recovering")
        writers.wait_for(50)
    assert writers.failed == []
    assert nodes.status("n3").state == "up", "it need not be started anew"
    with nodes.client() as client:
        assert client.get_many(writers.acked) == [one.value for one in writers.acked.values()]
        assert client.get("key7") is None


def check_what_goes_on(nodes: Nodes) -> None:
    """Reads and deletes, with n3 taking part."""
    with nodes.client("n3") as there:
        check_reads(there)
    with nodes.channel("n3") as channel:
        gone = kv_pb2.DeleteRequest(key=b"key7", w=3)
        assert set(call(channel, "KV/Delete", gone).acked_by) == set(nodes.ids)
    assert not takes_part(nodes, "n3")


def check_nobody_has_room(answer: Any) -> None:
    assert isinstance(answer, Refusal)
    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert answer.failure is not None
    assert answer.failure.code == kv_pb2.STORAGE_FULL
    assert answer.failure.outcome == kv_pb2.NOT_APPLIED


def _free(folder: Path) -> int:
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize


# ---- row 24: a sync that fails -----------------------------------------------------------------


@pytest.mark.skipif(not syncfault.is_supported(), reason="no seccomp filter for this machine")
def test_a_failed_sync_acknowledges_nothing_ends_the_node_and_its_peers_go_on(
    cluster: Cluster,
) -> None:
    nodes = cluster(program=program("failing"))
    folder, pid = nodes.node("n3").folder, nodes.pid("n3")
    with nodes.client() as client, Writers(client) as writers:
        until(
            lambda: len(acked_by("n3", writers.acked)) > 50,
            what="enough that the node was among the first to acknowledge",
        )
        trouble_of(folder).touch()
        until(lambda: nodes.local.exit_status(pid) is not None, what="the node's end")
        writers.wait_for(100)
    assert writers.failed == []
    assert nodes.local.exit_status(pid) == 70
    assert "Input/output error" in nodes.log("n3")
    assert not (folder / "clean-stop").exists()
    promised = acked_by("n3", writers.acked)
    assert len(promised) > 50
    cut_power(nodes.store("n3"), journal_of(folder))
    assert missing_on(nodes.store("n3"), promised) == []

    trouble_of(folder).unlink()
    nodes.start("n3")
    nodes.wait_linked()
    with nodes.client("n3") as client:
        assert client.get_many(writers.acked) == [one.value for one in writers.acked.values()]


# ---- row 8: a record whose checksum is wrong ---------------------------------------------------


def test_a_record_with_a_wrong_byte_is_brought_back_from_its_other_owners(
    cluster: Cluster,
) -> None:
    nodes = cluster()
    fill(nodes)
    nodes.stop("n3")
    (nodes.node("n3").folder / "clean-stop").unlink()  # else the seal would tell of our change
    place, engine = encode_key("default", b"key7"), open_engine(nodes.store("n3"))
    (data,) = engine.multi_get(Family.RECORDS, [place])
    assert isinstance(data, bytes)
    batch = WriteBatch()
    batch.put(Family.RECORDS, place, data[:-1] + bytes([data[-1] ^ 1]))
    engine.write(batch)
    engine.close()

    nodes.start("n3")
    nodes.wait_linked()
    assert nodes.status("n3").state == "up"
    with nodes.client("n3") as client:
        assert client.get("key7") == value_of("key7")
        until(lambda: answers_from_all(client), what="recovering")
    assert "alarm a record here is damaged" in nodes.log("n3")
    nodes.kill("n3")
    assert missing_on(nodes.store("n3"), {b"key7": value_of("key7")}) == []


def answers_from_all(client: kvclient.Client) -> bool:
    try:
        return client.get("key7", r=3, timeout=1.0) == value_of("key7")
    except kvclient.KVError:
        return False  # n3 abstains: two of three, where all are wanted
