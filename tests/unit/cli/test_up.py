"""up, down, start and kill, with fake nodes behind them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvnode.cli.local import LocalCluster
from tests.unit.cli.conftest import OnTerminal, Run
from tests.unit.cli.fakes import FAKE

pytestmark = pytest.mark.usefixtures("fake_serve")

FOREGROUND = (
    "import sys; from kvnode.cli import local, main;"
    f"local.SERVE = {FAKE!r}; sys.exit(main.main(sys.argv[1:]))"
)


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "cluster"
    if (tmp_path / "cluster" / "cluster.toml").exists():
        LocalCluster.open(tmp_path / "cluster").stop(timeout_s=2)


@pytest.fixture
def up(data: Path, base_port: int) -> tuple[str, ...]:
    return ("up", "--data", str(data), "--base-port", str(base_port), "--detach")


def test_up_starts_every_node_and_says_what_to_do_next(
    run: Run, up: tuple[str, ...], data: Path, base_port: int
) -> None:
    status, out, said = run(*up, "--nodes", "3")
    assert (status, said) == (0, "")
    lines = out.splitlines()
    assert sorted(re.sub(r"after .*", "", line) for line in lines[:3]) == [
        f"n{i}\t127.0.0.1:{base_port + i - 1}\tready " for i in (1, 2, 3)
    ]
    assert lines[3].startswith("3 nodes ready in ")
    pids = LocalCluster.open(data).pids()
    metrics = f"http://127.0.0.1:{base_port + 1001}/metrics"
    row = ["n2", f"127.0.0.1:{base_port + 1}", metrics, str(pids["n2"]), str(data / "n2")]
    assert "\t".join(row) in lines
    assert f"  kvnode put hello world --data {data}  " in out


def test_up_again_leaves_what_runs_alone_and_starts_the_rest(
    run: Run, up: tuple[str, ...], data: Path
) -> None:
    run(*up, "--nodes", "3")
    before = LocalCluster.open(data).pids()
    assert run("kill", "n2", "--data", data)[0] == 0
    status, out, _ = run(*up)
    assert (status, out.splitlines()[0]) == (
        0, "n1, n3 are already running; starting only n2",
    )  # fmt: skip
    after = LocalCluster.open(data).pids()
    assert (after["n1"], after["n3"]) == (before["n1"], before["n3"])
    assert run(*up)[1].splitlines()[0] == "all 3 nodes were running already"
    assert LocalCluster.open(data).pids() == after


def test_what_contradicts_the_folder_is_refused(
    run: Run, up: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    run(*up, "--nodes", "2")
    status, _, said = run(*up, "--nodes", "3")
    assert status == 1
    assert said == (
        f"kvnode: {data} holds a cluster of 2 nodes, not 3: leave --nodes out, or name another "
        "folder with --data\n"
    )
    assert "whose first port is" in run("up", "--data", data, "--base-port", "9")[2]
    other = tmp_path / "other.toml"
    other.write_text('[[node]]\nid = "a"\naddress = "127.0.0.1:9"\n')
    assert "with other settings than" in run("up", "--data", data, "--config", other)[2]
    assert run("up", "--nodes", "2", "--config", other)[0] == 2


def test_a_new_cluster_is_made_by_the_file_that_was_named(
    run: Run, up: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[[node]]\nid = "a"\naddress = "127.0.0.1:9"\n')
    assert run(*up, "--config", file)[0] == 0
    made = LocalCluster.open(data)
    assert list(made.nodes) == ["a"]
    assert made.nodes["a"].port == int(up[4])  # --base-port moved it


def test_a_new_cluster_is_made_by_the_file_at_hand(
    run: Run, up: tuple[str, ...], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cluster.toml").write_text('[[node]]\nid = "here"\naddress = "127.0.0.1:9"\n')
    assert run(*up)[0] == 0
    assert list(LocalCluster.open(data).nodes) == ["here"]


def test_a_configuration_that_cannot_be_is_refused_before_a_folder_is_made(
    run: Run, data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "bad.toml"
    file.write_text("[cluster\n")
    status, _, said = run("up", "--data", data, "--config", file)
    assert (status, "bad.toml" in said, said.count("\n")) == (1, True, 1)
    assert run("up", "--data", data, "--config", "none.toml")[0] == 1
    assert not data.exists()


def test_a_node_that_does_not_start_is_told_and_the_others_run(
    run: Run, up: tuple[str, ...], data: Path
) -> None:
    (data / "n2").mkdir(parents=True)
    (data / "n2" / "refuse").touch()
    status, _, said = run(*up, "--nodes", "3")
    assert (status, said) == (1, "kvnode: n2 died: the disk is not mine\n")
    assert LocalCluster.open(data).running() == ("n1", "n3")


def test_start_returns_when_the_node_is_ready_and_again_when_it_runs_already(
    run: Run, up: tuple[str, ...], data: Path
) -> None:
    run(*up, "--nodes", "2")
    assert run("kill", "n1", "--data", data)[0] == 0
    status, out, _ = run("start", "n1", "--data", data)
    assert (status, out.startswith("n1 ready in ")) == (0, True)
    pid = LocalCluster.open(data).pids()["n1"]
    assert run("start", "n1", "--data", data) == (0, f"n1 runs already (pid {pid})\n", "")


def test_kill_sends_the_signal_and_waits_for_the_end(
    run: Run, up: tuple[str, ...], data: Path
) -> None:
    run(*up, "--nodes", "2")
    pid = LocalCluster.open(data).pids()["n2"]
    assert run("kill", "n2", "--data", data, "--signal", "STOP")[1] == (
        f"n2 (pid {pid}) got SIGSTOP\n"
    )
    assert LocalCluster.open(data).running() == ("n1", "n2")
    assert run("kill", "n2", "--data", data)[1] == f"n2 (pid {pid}) got SIGKILL\n"
    assert LocalCluster.open(data).running() == ("n1",)
    status, _, said = run("kill", "n2", "--data", data)
    assert (status, said) == (
        1,
        f"kvnode: n2 is not running: `kvnode start n2 --data {data}` starts it\n",
    )


def test_an_unknown_node_is_wrong_usage_and_names_the_nearest(
    run: Run, up: tuple[str, ...], data: Path
) -> None:
    run(*up, "--nodes", "2")
    for command in ("kill", "start"):
        status, _, said = run(command, "n22", "--data", data)
        assert (status, said) == (
            2, "kvnode: no node 'n22' in this cluster (n1, n2): did you mean 'n2'?\n",
        )  # fmt: skip


def test_down_stops_all_and_is_content_when_nothing_runs(
    run: Run, up: tuple[str, ...], data: Path
) -> None:
    run(*up, "--nodes", "2")
    assert run("down", "--data", data) == (0, "stopped 2 nodes\n", "")
    assert run("down", "--data", data) == (0, "no node was running\n", "")
    assert LocalCluster.open(data).running() == ()


def test_without_a_cluster_every_command_says_how_to_make_one(run: Run, tmp_path: Path) -> None:
    for words in (["down"], ["start", "n1"], ["kill", "n1"], ["status"], ["get", "k"], ["ring"]):
        status, out, said = run(*words, "--data", tmp_path)
        assert (status, out) == (1, ""), words
        assert said == f"kvnode: no cluster in {tmp_path}: `kvnode up` starts one there\n", words


def test_a_terminal_shows_nodes_becoming_ready(
    run: Run, up: tuple[str, ...], on_terminal: OnTerminal
) -> None:
    shown = on_terminal()
    assert run(*up, "--nodes", "2")[0] == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown())
    assert "✓ ready after" in text
    assert "starting" in text


def test_a_command_that_is_not_on_the_path_is_spelled_so_that_it_can_be_typed(
    run: Run, up: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "argv", [str(tmp_path / ".venv" / "bin" / "kvnode"), "up"])
    assert "  .venv/bin/kvnode get hello --data" in run(*up, "--nodes", "1")[1]
    for folder in (tmp_path / ".venv" / "bin", tmp_path / "bin"):
        folder.mkdir(parents=True)
        (folder / "kvnode").touch(mode=0o755)
    assert "  .venv/bin/kvnode get hello --data" in run(*up)[1]
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "kvnode"), "up"])
    assert "  kvnode get hello --data" in run(*up)[1]


# ---- in the foreground ------------------------------------------------------------------------


@contextmanager
def foreground(*words: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", FOREGROUND, *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def until(child: subprocess.Popen[str], end: str) -> str:
    """Read lines until one holds `end`; a missing one ends with the process or the test."""
    assert child.stdout is not None
    said = ""
    for line in child.stdout:
        said += line
        if end in line:
            return said
    raise AssertionError(said)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_stops_all_nodes(
    up: tuple[str, ...], data: Path, number: signal.Signals, status: int
) -> None:
    with foreground(*up[:-1], "--nodes", "3") as child:
        until(child, "stop all nodes")
        child.send_signal(number)
        out, _ = child.communicate(timeout=20)
    assert (child.returncode, out) == (status, "\nstopping 3 nodes …\nstopped\n")
    assert LocalCluster.open(data).running() == ()


def test_a_node_that_dies_is_told_and_not_started_again(
    run: Run, up: tuple[str, ...], data: Path
) -> None:
    with foreground(*up[:-1], "--nodes", "2") as child:
        until(child, "stop all nodes")
        run("kill", "n2", "--data", data)
        assert until(child, "n2").startswith(
            f"kvnode: n2 was killed by SIGKILL: `kvnode start n2 --data {data}` starts it again"
        )
        run("start", "n2", "--data", data)
        assert until(child, "n2").startswith("n2 started (pid ")
        assert run("down", "--data", data)[1] == "stopped 2 nodes\n"
        assert "no node is left running" in child.communicate(timeout=20)[0]
    assert child.returncode == 0
