"""Claims about bench/profiler.py."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from bench import profiler
from bench.profiler import Line
from bench.target import BenchError

STACKS = ["main;work;sum 6", "main;work 3", "main;walk;walk 1"]


def test_own_shares_come_first_and_calling_itself_counts_once() -> None:
    assert profiler.top(STACKS) == [
        Line(function="sum", own=0.6, total=0.6),
        Line(function="work", own=0.3, total=0.9),
        Line(function="walk", own=0.1, total=0.1),
        Line(function="main", own=0.0, total=1.0),
    ]


def test_an_empty_profile_has_no_functions() -> None:
    assert profiler.top([]) == []


def test_without_py_spy_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BenchError, match="pip install py-spy"):
        profiler.spy()


def test_a_recorder_that_fails_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "py-spy"
    fake.write_text("#!/bin/sh\necho 'no such process' >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setattr(profiler, "spy", lambda: str(fake))
    with (
        pytest.raises(BenchError, match="could not sample n1: no such process"),
        profiler.recording({"n1": os.getpid()}, folder=tmp_path, name="put", seconds=1, form="raw"),
    ):
        pass
