"""`kvnode chaos` on real nodes: a run under faults, its history and its verdict."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

from kvclient.testing import history
from kvclient.testing.run import judged
from tests.support.nodes import environment, until

SCHEDULE = """
[[fault]]
at_s = 0.3
kind = "cut"
nodes = ["n3", "n1"]
for_s = 0.5
[[fault]]
at_s = 1.0
kind = "kill"
nodes = ["n2"]
for_s = 0.2
"""


def chaos(*words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kvnode.cli.main", "chaos", *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def test_a_run_under_faults_tells_both_and_its_history_proves_its_verdict(tmp_path: Path) -> None:
    schedule, lines = tmp_path / "faults.toml", tmp_path / "history.jsonl"
    schedule.write_text(SCHEDULE)
    command = chaos(
        *("--nodes", 3, "--seconds", 2, "--rate", 200, "--workload", "register,rewrite"),
        *("--schedule", schedule, "--history", lines, "--seed", 5, "--timeout", 20),
    )
    said, complaints = command.communicate(timeout=60)
    assert (command.returncode, complaints) == (0, ""), said
    told = said.splitlines()
    assert [line.partition("\t")[2] for line in told if "n3 to n1" in line or "kill" in line] == [
        "cut n3 to n1 begun", "cut n3 to n1 ended", "kill n2 begun", "kill n2 ended",
        "1 cut, 1 kill",
    ]  # fmt: skip
    figures = dict(line.split("\t") for line in told if re.match(r"[a-z -]+\t", line))
    assert figures["failed"] == "0"
    assert figures["lost acknowledged writes"] == "0"
    assert figures["verdict"] == "sound"
    with lines.open() as file:
        verdict = judged(history.read(file))
    assert f"{verdict.operations:,}" == figures["operations"]
    assert verdict.is_sound


def test_an_interrupted_run_is_quiet_and_leaves_no_process_but_its_history(
    tmp_path: Path,
) -> None:
    lines, folder = tmp_path / "history.jsonl", tmp_path / "cluster"
    command = chaos(
        *("--nodes", 1, "--seconds", 60, "--faults", "slow", "--history", lines, "--data", folder)
    )
    try:
        until(lambda: lines.exists() and lines.stat().st_size > 0, what="the first operations")
        command.send_signal(signal.SIGINT)
        said, complaints = command.communicate(timeout=20)
    finally:
        command.kill()
        command.communicate()
    assert (command.returncode, complaints) == (130, "")
    assert "verdict" not in said
    assert json.loads(lines.read_text().splitlines()[0])["type"] == "invoke"
    assert pids_with(str(folder)) == []


def pids_with(text: str) -> list[str]:
    """Return the processes whose command line has this in it."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text in path.read_text():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


def test_a_folder_that_holds_a_cluster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text("")
    command = chaos("--data", tmp_path)
    said, complaints = command.communicate(timeout=30)
    assert command.returncode == 1, said
    assert complaints == f"kvnode: there is a cluster in {tmp_path} already\n"
