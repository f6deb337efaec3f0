"""How far a long command is, on stderr alone."""

from __future__ import annotations

import sys

import pytest

from kvnode.cli.progress import Lines, progress
from tests.unit.cli.conftest import OnTerminal


def test_a_line_now_and_then_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Lines("loaded", 2_000, every_s=0.0)
    lines.bytes_done(1_500)
    lines.file_done()
    assert capsys.readouterr() == ("", "loaded 1 of 2,000 files, 1.5 kB\n")


def test_no_line_before_it_is_time(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("loaded", files=2, size=2) as shown:
        shown.file_done()
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(on_terminal: OnTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = on_terminal()
    monkeypatch.setattr(sys, "stderr", sys.stdout)
    with progress("loaded", files=1_234, size=10) as bar:
        bar.bytes_done(10)
        bar.file_done()
    assert "1/1,234 files" in shown()
