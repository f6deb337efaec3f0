"""The laws of kvnode.runtime.faults."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvnode.runtime.clock import set_wall_offset, wall_ms
from kvnode.runtime.faults import VARIABLE, Faults, asked_for
from kvnode.storage.port import Position


@pytest.fixture(autouse=True)
def right_clock() -> Iterator[None]:
    yield
    set_wall_offset(0)


class Disk:
    def __init__(self) -> None:
        self.flushed = 0

    def flush(self) -> Position:
        self.flushed += 1
        return Position(self.flushed)


def test_nobody_suffers_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert asked_for() is None


def test_an_empty_folder_means_no_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    faults = asked_for()
    assert faults is not None
    faults.look()
    assert faults.sync_delay_s == 0
    assert abs(wall_ms() - time.time_ns() // 1_000_000) < 1_000


def test_a_number_in_a_file_is_suffered_until_it_is_zero_again(tmp_path: Path) -> None:
    faults = Faults(tmp_path)
    (tmp_path / "clock_offset_ms").write_text("300000\n")
    (tmp_path / "sync_delay_ms").write_text("20")
    faults.look()
    assert wall_ms() > time.time_ns() // 1_000_000 + 299_000
    assert faults.sync_delay_s == 0.02
    (tmp_path / "clock_offset_ms").write_text("0")
    (tmp_path / "sync_delay_ms").unlink()
    faults.look()
    assert abs(wall_ms() - time.time_ns() // 1_000_000) < 1_000
    assert faults.sync_delay_s == 0


@pytest.mark.parametrize("text", ["soon", "", "1e300", "nan"])
def test_what_is_no_sensible_number_changes_nothing(tmp_path: Path, text: str) -> None:
    faults = Faults(tmp_path)
    (tmp_path / "sync_delay_ms").write_text("20")
    faults.look()
    (tmp_path / "sync_delay_ms").write_text(text)
    faults.look()
    assert faults.sync_delay_s == 0.02


def test_a_slow_disk_takes_its_time_and_then_really_syncs(tmp_path: Path) -> None:
    faults, disk = Faults(tmp_path), Disk()
    slow = faults.disk(disk)
    assert slow.flush() == 1
    faults.sync_delay_s = 0.05
    began = time.monotonic()
    assert slow.flush() == 2
    assert time.monotonic() - began >= 0.05


def test_a_change_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults(tmp_path)
    (tmp_path / "clock_offset_ms").write_text("-5")
    with caplog.at_level(logging.WARNING):
        faults.look()
        faults.look()
    assert [record.getMessage() for record in caplog.records] == [
        "faults clock_offset_ms=-5 sync_delay_ms=0"
    ]
