"""The power-cut helper catches a missing sync, and a kill would not have."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.powercut import cut_power, synced_lengths
from tests.support.stores import opened, records, run_child


def test_a_kill_hides_a_missing_sync_and_a_power_cut_shows_it(tmp_path: Path) -> None:
    store, journal = tmp_path / "store", tmp_path / "syncs"
    child = run_child("tests.unit.storage.children:write_and_die", store, journal)
    assert child.returncode == -9, child.stderr
    shutil.copytree(store, tmp_path / "copy")
    assert cut_power(tmp_path / "copy", journal) > 0
    # Fifteen acknowledged, ten of them synced.
    with opened(store) as engine:
        assert len(records(engine)) == 15
    with opened(tmp_path / "copy") as engine:
        assert sorted(records(engine)) == [b"%02d" % number for number in range(10)]
        assert engine.damage == ()


def test_the_last_line_counts_only_when_complete(tmp_path: Path) -> None:
    journal = tmp_path / "syncs"
    assert synced_lengths(journal) == {}
    journal.write_text("000004.log 10\n000004.log 30\n000007.log 5\n000004.log 12")
    assert synced_lengths(journal) == {"000004.log": 30, "000007.log": 5}


def test_a_log_that_no_sync_covered_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "000004.log").write_bytes(bytes(50))
    (tmp_path / "000009.log").write_bytes(bytes(20))
    journal = tmp_path / "syncs"
    journal.write_text("000004.log 40\n")
    assert cut_power(tmp_path, journal) == 30
    assert (tmp_path / "000004.log").stat().st_size == 40
    assert (tmp_path / "000009.log").stat().st_size == 0
