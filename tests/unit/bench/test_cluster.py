"""Claims about bench/cluster.py."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from bench import cluster
from bench.target import BenchError, Wanted
from kvnode.cli import local
from kvnode.core.topology import Durability
from tests.unit.cli.fakes import FAKE


def test_the_configuration_has_the_durability_that_was_asked_for() -> None:
    made = cluster.configured(3, 7900, Durability.PERIODIC)
    assert [(k.n, k.r, k.w, k.durability) for k in made.keyspaces] == [
        (3, 2, 2, Durability.PERIODIC)
    ]
    assert len(made.nodes) == 3


def test_taken_ports_are_passed_over_also_those_for_metrics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "FIRST_PORT", base := cluster.free_ports(4))
    for taken in (base, base + 1000):
        with socket.create_server(("127.0.0.1", taken)):
            assert cluster.free_ports(3) > base


def test_no_free_ports_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LAST_PORT", cluster.FIRST_PORT + 1)
    with pytest.raises(BenchError, match="no 3 adjacent ports are free from 7900 to 7901"):
        cluster.free_ports(3)


def test_nothing_is_left_behind_even_by_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "SERVE", FAKE)
    pids: dict[str, int] = {}

    def fail() -> None:
        with cluster.started(Wanted(nodes=1, parent=tmp_path)) as target:
            pids.update(target.pids)
            assert list(tmp_path.iterdir()) != []
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []
    assert [Path(f"/proc/{pid}").exists() for pid in pids.values()] == [False]
