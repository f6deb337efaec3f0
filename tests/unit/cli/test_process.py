"""A pid with its birth names one life of one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kvnode.cli import process
from kvnode.cli.process import Process
from tests.support.stores import wait_until

_WAITING = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_a_process_is_found_again_by_its_file(tmp_path: Path) -> None:
    me = process.observed(os.getpid())
    assert me is not None
    process.write(tmp_path / "pid", me)
    assert process.read(tmp_path / "pid") == me
    assert me.age_s() > 0


def test_a_reused_pid_is_not_taken_for_the_process_that_had_it(tmp_path: Path) -> None:
    me = process.observed(os.getpid())
    assert me is not None
    process.write(tmp_path / "pid", Process(me.pid, me.born + "1"))
    assert process.read(tmp_path / "pid") is None
    assert not Process(me.pid, me.born + "1").send(signal.SIGKILL)


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen(_WAITING, stdin=subprocess.PIPE)
    seen = process.observed(child.pid)
    assert seen is not None
    assert seen.is_alive()
    assert seen.send(signal.SIGKILL)
    assert seen.wait(5)  # not reaped yet: that comes below
    child.communicate()
    assert not seen.send(signal.SIGTERM)


_LEADERLESS = """
import ctypes, platform, sys, threading
threading.Thread(target=lambda: print(flush=True) or sys.stdin.read()).start()
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)  # this thread ends
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="told from /proc only")
def test_a_zombie_whose_other_threads_live_still_holds_its_ports() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", _LEADERLESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    wait_until(lambda: "Z (zombie)" in Path(f"/proc/{child.pid}/status").read_text())
    seen = process.observed(child.pid)
    assert seen is not None
    child.communicate()
    assert not seen.is_alive()


def test_waiting_for_one_that_lives_on_ends_in_time() -> None:
    me = process.observed(os.getpid())
    assert me is not None
    assert not me.wait(0.02)


def test_a_missing_or_senseless_file_names_no_process(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    assert process.read(path) is None
    for text in ("", "12", "{}", '{"pid": "x", "born": 1}', "[1]", "\0"):
        path.write_text(text)
        assert process.read(path) is None, text


def test_ps_tells_a_life_from_another_where_there_is_no_proc() -> None:
    mine = process._birth_by_ps(os.getpid())
    assert mine is not None
    assert mine == process._birth_by_ps(os.getpid())
    assert process._birth_by_ps(2**22 + 1) is None
