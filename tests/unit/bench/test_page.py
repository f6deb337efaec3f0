"""Claims about bench/page.py and bench/plots.py, with results that were made up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench import failover, page, report
from bench.__main__ import main
from bench.target import BenchError
from kvnode.bench import summary
from tests.unit.bench.builders import a_job, a_result
from tests.unit.bench.test_failover import a_loss

MACHINE = {
    "when": "2026-11-23T00:00:00+00:00",
    "commit": "c0ffee",
    "processor": "a processor",
    "processors": 2,
    "system": "a system",
    "python": "3.11",
    "packages": {"grpcio": "1.85.1", "kazoo": None},
    "sync_p50_ms": 0.18,
    "load_average": 0.1,
}


def results(*workloads: str, **faults: int) -> Mapping[str, Any]:
    """Three rounds of two stores: ours does 1,000, 2,000 and 9,000, the other always 1,000."""
    runs = [
        a_result(a_job(workload, tag=str(number)), number, system=system, operations=operations)
        for number, ours in enumerate((1000, 2000, 9000))
        for workload in workloads or ("put", "get")
        for system, operations in (("kvnode", ours), ("etcd", 1000))
    ]
    if faults:
        runs.append(a_result(a_job("a"), system="kvnode", faults=faults))
    made = report.document(
        machine=MACHINE,
        settings={"seed": 5, "durability": "synced"},
        notes={"etcd": ["linearizable"]},
        results=runs,
    )
    kept: Mapping[str, Any] = json.loads(json.dumps(made))
    return kept


def losses() -> Mapping[str, Any]:
    made = failover.document(machine=MACHINE, settings={"seed": 5}, results=[a_loss()])
    kept: Mapping[str, Any] = json.loads(json.dumps(made))
    return kept


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    text, _ = page.told([("one.json", results())])
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| put")]
    assert [(row[3], row[4], row[5].strip()) for row in rows] == [
        ("kvnode", "2,000", ""),
        ("etcd", "1,000", "2.00x"),
    ]


def test_the_page_says_where_results_come_from_and_what_each_store_promises() -> None:
    text, _ = page.told([("one.json", results())])
    for said in ("`c0ffee`", "2 processors", "Seed 5", "0.18 ms", "`one.json`", "grpcio 1.85.1"):
        assert said in text
    assert "- etcd: linearizable." in text
    assert "synced before the answer" in text
    assert "kazoo" not in text


def test_runs_with_failures_say_so() -> None:
    assert "Failed" not in page.told([("one.json", results())])[0]
    text, _ = page.told([("one.json", results(Timeout=7))])
    assert "- **Failed**, kvnode, a, 100 B, 4 in flight: 7 Timeout." in text


def test_a_store_that_answered_nothing_has_a_row() -> None:
    nothing = a_result(a_job("put"), system="etcd", operations=0, faults={"Timeout": 9})
    made = report.document(
        machine=MACHINE, settings={"seed": 5}, notes={}, results=[a_result(a_job("put")), nothing]
    )
    text, _ = page.told([("one.json", json.loads(summary.text(made)))])
    (row,) = (line.split(" | ") for line in text.splitlines() if "| etcd |" in line)
    assert row[4:9] == ["0", "", "-", "-", "-"]


def test_a_loss_is_told_as_its_users_saw_it() -> None:
    text, plots = page.told([("lost.json", losses())])
    assert "| x | 1 | 3 | 1 | 0.2 | 1,234 |" in text
    assert [(plot.stem, plot.kind) for plot in plots] == [("lost", "losses")]


def test_latencies_of_all_rounds_are_one_distribution() -> None:
    _, plots = page.told([("one.json", results())])
    (tails,) = (plot.what[0] for plot in plots if plot.kind == "tails")
    assert tails["put, 4 in flight"]["kvnode"].total == 12_000
    assert list(tails["get, 4 in flight"]) == ["kvnode", "etcd"]


@pytest.mark.parametrize("document", [{}, {"format": 1}, {"format": 2}])
def test_other_files_are_refused(document: Mapping[str, Any]) -> None:
    with pytest.raises(BenchError, match=r"one\.json: not a result"):
        page.told([("one.json", document)])


def test_the_same_results_give_the_same_files(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    documents = [("one.json", results("put")), ("lost.json", losses_of("etcd"))]
    first, second = (page.write(documents, tmp_path / name) for name in "ab")
    assert [path.name for path in first] == [
        *("README.md", "one-100B.svg", "one-100B-tails.svg", "lost.svg")
    ]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert all(path.stat().st_size > 1000 for path in first)


def losses_of(system: str) -> Mapping[str, Any]:
    """The same loss, of a store that has a colour."""
    kept = losses()
    return {**kept, "runs": [{**run, "system": system} for run in kept["runs"]]}


def test_the_command_makes_a_page_of_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    kept = tmp_path / "lost.json"
    kept.write_text(json.dumps(losses_of("etcd")))
    assert main(["page", str(kept), "--to", str(tmp_path / "page"), "--form", "png"]) == 0
    assert str(tmp_path / "page" / "README.md") in capsys.readouterr().out
    assert (tmp_path / "page" / "lost.png").read_bytes().startswith(b"\x89PNG")
