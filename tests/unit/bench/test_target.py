"""Claims about bench/target.py."""

from __future__ import annotations

import importlib

import pytest

from bench import cluster, target
from bench.target import BenchError, Target


def test_a_store_is_started_by_its_name() -> None:
    assert target.starter("kvnode") is cluster.started


def test_a_missing_driver_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name="driver")

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BenchError, match=r"kvnode needs the Python package driver: pip install"):
        target.starter("kvnode")


def test_the_loss_of_a_node_is_that_of_any_process_unless_one_hurts_most() -> None:
    made = Target(name="x", where="", pids={"n1": 11, "n2": 12})
    assert made.victims() == [11]
    led = Target(name="x", where="", pids={"n1": 11, "n2": 12}, victim=lambda: [12])
    assert led.victims() == [12]
