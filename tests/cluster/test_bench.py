"""`kvnode bench` on real nodes: figures, the file that is kept, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.nodes import Nodes, environment


def bench(trio: Nodes, *words: object) -> subprocess.Popen[str]:
    seeds = ",".join(trio.local.addresses)
    return subprocess.Popen(
        [sys.executable, "-m", "kvnode.cli.main", "bench", "--seeds", seeds, *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def test_every_workload_is_answered_and_kept(trio: Nodes, tmp_path: Path) -> None:
    kept = tmp_path / "result.json"
    command = bench(
        trio,
        *("--workload", "a,d,e,f", "--keys", 300, "--seconds", 0.4, "--warm", 0.1),
        *("--processes", 2, "--in-flight", 8, "--json", kept),
    )
    said, complaints = command.communicate(timeout=60)
    assert command.returncode == 0, said + complaints
    rows = [line.split("\t")[:2] for line in said.splitlines()[1:]]
    assert rows == [
        ["load", "insert"], ["a", "read"], ["a", "update"], ["a", "all"], ["d", "insert"],
        ["d", "read"], ["d", "all"], ["e", "insert"], ["e", "many"], ["e", "all"],
        ["f", "modify"], ["f", "read"], ["f", "all"],
    ]  # fmt: skip
    runs = json.loads(kept.read_text())["runs"]
    assert [run["job"]["workload"] for run in runs[1:]] == ["a", "d", "e", "f"]
    assert all(run["rows"][-1]["operations"] > 0 for run in runs)
    assert runs[1]["client"]["attempts"] >= runs[1]["rows"][-1]["operations"]


def test_ctrl_c_gives_the_sum_so_far(trio: Nodes) -> None:
    command = bench(trio, "--keys", 100, "--seconds", 600, "--rate", 50, "--warm", 0.1)
    assert command.stderr is not None
    while "1 s " not in (line := command.stderr.readline()):
        assert line, "it ended by itself"
    command.send_signal(signal.SIGINT)
    said, _ = command.communicate(timeout=30)
    assert command.returncode == 130
    (row,) = [line.split("\t") for line in said.splitlines() if line.startswith("a\tall")]
    assert 0 < int(row[2]) < 50 * 30
    assert "a: interrupted after" in said


def test_a_wrong_keyspace_or_quorum_is_told_in_a_line_before_any_load(trio: Nodes) -> None:
    for words, wanted in (
        (("--keyspace", "nope"), "kvnode: keyspace 'nope' does not exist\n"),
        (("--w", 9), "kvnode: w must be 1 to 3, got 9\n"),
        (("--only", "run", "--value-bytes", 77), "the keys are not there: --only run needs"),
    ):
        command = bench(trio, *words)
        said, complaints = command.communicate(timeout=30)
        assert (command.returncode, said) == (1 if "--w" not in words else 2, "")
        assert wanted in complaints
        assert complaints.count("\n") == 1
