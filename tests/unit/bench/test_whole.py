"""The benchmark as it is run: a real cluster, the generator's process, the table and the file."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.__main__ import main
from kvnode.bench.machine import ROOT
from kvnode.bench.workers import environment


@pytest.mark.cluster
def test_a_short_run_measures_every_workload_and_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "result.json"
    words = [
        "--in-flight",
        "1,16",
        "--value-bytes",
        "100",
        "--workload",
        "put,f",
        "--keys",
        "50",
        "--rounds",
        "1",
    ]
    words += ["--seconds", "0.3", "--warm", "0.1", "--dir", str(tmp_path)]
    assert main(["run", *words, "--cpu", "--json", str(kept)]) == 0
    result = json.loads(kept.read_text())
    assert [(row["workload"], row["in_flight"]) for row in result["medians"]] == [
        (name, in_flight) for name in ("put", "f") for in_flight in (1, 16)
    ]
    assert all(row["ops_per_s"] > 0 and not row["faults"] for row in result["medians"])
    assert set(result["medians"][0]["cpu_us_per_op"]) == {"n1", "n2", "n3", "client"}
    assert "p99.9" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [kept]


@pytest.mark.cluster
def test_sigterm_leaves_neither_nodes_nor_folders_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench", "run", "--workload", "put", "--in-flight", "1"]
    command += ["--keys", "50", "--seconds", "0.1", "--warm", "0.1", "--rounds", "1000"]
    command += ["--dir", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE, text=True
    ) as bench:
        assert bench.stderr is not None
        assert "round 1" in bench.stderr.readline()
        pids = [int(json.loads(path.read_text())["pid"]) for path in tmp_path.rglob("*.pid")]
        bench.send_signal(signal.SIGTERM)
        assert bench.wait(timeout=60) == 128 + signal.SIGTERM
    assert len(pids) == 3
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert list(tmp_path.iterdir()) == []
