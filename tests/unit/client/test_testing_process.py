"""The laws of kvclient.testing.process: on children that are no nodes."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvclient.testing.files import FAULTS_VARIABLE, KitError, make_folder
from kvclient.testing.process import NodeProcess, command_found

SLEEPS = "import os, time; print(os.environ['KVNODE_FAULTS'], flush=True); time.sleep(60)"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[list[NodeProcess]]:
    nodes: list[NodeProcess] = []
    yield nodes
    for node in nodes:
        node.kill()


def node(made: list[NodeProcess], folder: Path, program: str = SLEEPS) -> NodeProcess:
    files = make_folder(folder, [9])["n1"]
    made.append(NodeProcess(files, [sys.executable, "-c", program], {"MORE": "1"}))
    return made[-1]


def test_a_node_that_never_ran_has_neither_pid_nor_end(
    made: list[NodeProcess], tmp_path: Path
) -> None:
    one = node(made, tmp_path)
    assert (one.pid, one.exit_status, one.wait()) == (None, None, True)
    with pytest.raises(KitError, match="n1 does not run"):
        one.signal(signal.SIGTERM)


def test_it_runs_once_and_ends_as_it_was_told(made: list[NodeProcess], tmp_path: Path) -> None:
    one = node(made, tmp_path)
    assert one.start() == one.pid
    with pytest.raises(KitError, match="runs already"):
        one.start()
    one.signal(signal.SIGTERM)
    assert one.wait()
    assert one.exit_status == -signal.SIGTERM


def test_one_that_ends_while_it_is_killed_is_killed(
    made: list[NodeProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = node(made, tmp_path)
    pids = iter([one.start()])
    with monkeypatch.context() as patched:
        patched.setattr(NodeProcess, "pid", property(lambda self: next(pids, None)))
        one.kill()
    assert one.exit_status == -signal.SIGKILL


def test_a_pause_has_happened_when_the_call_returns_each_time(
    made: list[NodeProcess], tmp_path: Path
) -> None:
    one = node(made, tmp_path)
    pid = one.start()
    for _ in range(2):
        one.pause()
        assert state_of(pid) == "T"
        one.resume()
        assert not one.is_paused
    one.pause()
    one.kill()
    assert one.exit_status == -signal.SIGKILL


def state_of(pid: int) -> str:
    """Return how the kernel calls what a process does."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_child_that_dies_is_told_with_its_last_words(
    made: list[NodeProcess], tmp_path: Path
) -> None:
    one = node(made, tmp_path, "import sys; sys.exit('out of luck')")
    one.start()
    assert one.wait()
    with pytest.raises(KitError, match=r"n1 died \(1\): out of luck"):
        one.is_ready()


def test_a_child_learns_where_its_faults_are(made: list[NodeProcess], tmp_path: Path) -> None:
    one = node(made, tmp_path, f"import os; print(os.environ['{FAULTS_VARIABLE}'])")
    one.start()
    assert one.wait()
    assert one.files.log_text().strip() == str(one.files.faults)


def test_kvnode_can_be_called() -> None:
    assert command_found()
