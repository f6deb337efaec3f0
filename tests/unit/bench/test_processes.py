"""Claims about bench/peers/processes.py, with processes that only sleep."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.peers import processes
from bench.peers.processes import free_ports, is_listening, program
from bench.target import BenchError

SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("deaf", "w")
time.sleep(600)
"""


def test_neither_processes_nor_folder_are_left_behind_even_by_a_failure(tmp_path: Path) -> None:
    pids: dict[str, int] = {}

    def fail() -> None:
        with processes.processes("x", tmp_path) as running:
            running.start("one", SLEEP)
            running.start("two", SLEEP)
            pids.update(running.pids)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert list(tmp_path.iterdir()) == []
    assert [Path(f"/proc/{pid}").exists() for pid in pids.values()] == [False, False]


def test_what_does_not_go_when_asked_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_STOP_TIMEOUT_S", 0.2)
    with processes.processes("x", tmp_path) as running:
        running.start("one", [sys.executable, "-c", DEAF])
        running.wait("it is deaf", (running.folder / "deaf").exists)
        (pid,) = running.pids.values()
    assert not Path(f"/proc/{pid}").exists()


def test_a_process_that_ends_by_itself_is_told_with_its_last_words(tmp_path: Path) -> None:
    with processes.processes("x", tmp_path) as running:
        running.start("one", [sys.executable, "-c", "print('no such port'); raise SystemExit(3)"])
        with pytest.raises(BenchError, match="one ended by itself: no such port"):
            running.wait("it answers", lambda: False)


def test_what_never_comes_up_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "READY_TIMEOUT_S", 0.2)
    with processes.processes("x", tmp_path) as running:
        running.start("one", SLEEP)
        with pytest.raises(BenchError, match="not within 0 s: it answers"):
            running.wait("it answers", lambda: False)


def test_a_missing_program_is_told_with_its_package() -> None:
    assert Path(program("sh", "dash")).exists()
    with pytest.raises(BenchError, match="nosuchd is not installed: apt-get install nosuch"):
        program("nosuchd", "nosuch")


def test_free_ports_are_different_and_nobody_listens_there() -> None:
    ports = free_ports(5)
    assert len(set(ports)) == 5
    assert not any(is_listening("127.0.0.1", port) for port in ports)
