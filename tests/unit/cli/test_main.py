"""The command as a whole: statuses, quiet ends, quick starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from kvnode.cli import main as program
from tests.unit.cli.conftest import Run

COMMAND = [sys.executable, "-m", "kvnode.cli.main"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **more}


def called(words: Sequence[str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], capture_output=True, text=True, env=environment(**more), check=False
    )


def test_an_unknown_command_is_wrong_usage_and_names_the_nearest(run: Run) -> None:
    assert run("stauts") == (
        2, "", "kvnode: no command 'stauts': did you mean 'status'? (see `kvnode --help`)\n",
    )  # fmt: skip


def test_an_unknown_flag_is_wrong_usage_and_names_the_nearest(run: Run) -> None:
    status, _, said = run("--verson")
    assert (status, "did you mean '--version'?" in said) == (2, True)
    assert "flags stand after the command" in run("--data", "x", "get")[2]


def test_no_command_is_wrong_usage_and_lists_them(run: Run) -> None:
    status, out, said = run()
    assert (status, out) == (2, "")
    assert "verify         Compare" in said


def test_help_and_version_are_no_failures(run: Run) -> None:
    assert run("--help")[0] == 0
    assert run("get", "--help")[0] == 0
    status, out, _ = run("--version")
    assert status == 0
    assert out.startswith("kvnode ")


def test_a_failure_without_a_name_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(program, "_call", lambda *_: 1 // 0)
    monkeypatch.delenv("KVNODE_DEBUG", raising=False)
    status, out, said = run("status")
    assert (status, out) == (1, "")
    assert said.startswith("kvnode: internal error (ZeroDivisionError")
    assert said.count("\n") == 1


def test_a_reader_that_goes_away_is_no_noise() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "config", "--defaults"],
        stdout=writer, stderr=subprocess.PIPE, env=environment(), check=False,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_an_interrupt_is_quiet_and_exits_with_130() -> None:
    child = subprocess.Popen(
        [*COMMAND, "put", "k", "-", "--seeds", "127.0.0.1:1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    assert child.stdin is not None
    _fill(child.stdin.fileno())  # it reads: so it is past its imports
    child.send_signal(signal.SIGINT)
    out, said = child.communicate(timeout=20)
    assert (child.returncode, out, said) == (130, b"", b"")


def _fill(descriptor: int) -> None:
    """Write more than a pipe holds: returns once the other side has begun to read."""
    deadline = time.monotonic() + 20
    left = 1 << 20
    while left and time.monotonic() < deadline:
        left -= os.write(descriptor, b"x" * min(left, 4096))


def test_importing_the_command_imports_nothing_slow() -> None:
    code = (
        "import sys, kvnode.cli.main;"
        "print(*sorted({'grpc', 'rich', 'rocksdict', 'kvclient', 'asyncio', 'google', 'uvloop',"
        " 'http', 'subprocess'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout == "\n"


def test_the_settings_are_described(run: Run) -> None:
    status, out, _ = run("config", "--defaults")
    assert status == 0
    assert "[keyspace.default]" in out
    assert run("config")[0] == 2


def test_the_debug_switch_shows_where_it_failed() -> None:
    done = called(["get", "k", "--data", "/nowhere"], KVNODE_DEBUG="1")
    assert "Traceback" in done.stderr
    assert "Traceback" not in called(["get", "k", "--data", "/nowhere"], KVNODE_DEBUG="").stderr
