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

import pytest

import kvclient
from tests.support import seeds
from tests.support.nodes import Nodes, until
from tests.support.scale import scaled
from tests.support.stores import flip_bit

Cluster = Callable[..., Nodes]

_PLACES = scaled(3, soak=50)
"""In each of the four parts of the test of spoilt stores."""
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
@pytest.mark.parametrize("part", range(4))
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
    assert nodes.status("n3").state == "unproven"
    assert "alarm store_is_damaged" in nodes.log("n3")
    assert (nodes.node("n3").folder / "store.old").exists()
    nodes.stop("n3")
    nodes.start("n3")
    assert nodes.status("n3").state == "unproven", "a clean stop proves nothing"
