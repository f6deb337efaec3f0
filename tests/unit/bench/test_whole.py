"""The benchmark as it is run: a real cluster, the generator's process, the table and the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.__main__ import main


@pytest.mark.cluster
def test_a_short_run_measures_every_workload_and_keeps_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "result.json"
    words = ["--in-flight", "1,16", "--value-bytes", "100", "--keys", "50", "--rounds", "1"]
    words += ["--seconds", "0.3", "--warm", "0.1", "--dir", str(tmp_path)]
    assert main(["run", *words, "--cpu", "--json", str(kept)]) == 0
    result = json.loads(kept.read_text())
    assert [(row["mix"], row["in_flight"]) for row in result["medians"]] == [
        (mix, in_flight) for mix in ("put", "get", "mixed") for in_flight in (1, 16)
    ]
    assert all(row["ops_per_s"] > 0 and not row["faults"] for row in result["medians"])
    assert set(result["medians"][0]["cpu_us_per_op"]) == {"n1", "n2", "n3", "client"}
    assert "p99.9" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [kept]
