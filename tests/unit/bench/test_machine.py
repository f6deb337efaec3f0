"""Claims about bench/machine.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bench import machine


def test_a_result_names_machine_versions_and_the_cost_of_a_sync(tmp_path: Path) -> None:
    told = machine.describe(tmp_path)
    assert told["python"] == sys.version.split()[0]
    assert told["packages"].keys() == set(machine.PACKAGES)
    assert told["processors"] >= 1
    assert told["sync_p50_ms"] > 0
    assert json.loads(json.dumps(told)) == told


def test_the_probe_leaves_no_file_behind(tmp_path: Path) -> None:
    machine.sync_p50_ms(tmp_path)
    assert list(tmp_path.iterdir()) == []
