"""Claims about bench/report.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench import report
from bench.driver import CLIENT
from bench.profiler import Line
from tests.unit.bench.builders import a_job, a_result


def test_a_row_is_the_median_of_its_rounds_in_the_order_of_the_first() -> None:
    put, get = a_job("put"), a_job("get")
    results = [
        a_result(job, number, operations=operations)
        for number, operations in enumerate((1000, 9000, 2000))
        for job in (replace(put, tag=str(number)), replace(get, tag=str(number)))
    ]
    rows = report.medians(results)
    assert [(row["workload"], row["ops_per_s"], row["rounds"]) for row in rows] == [
        ("put", 2000, 3),
        ("get", 2000, 3),
    ]
    assert [rows[0]["latency_ms"][name] for name in ("p50", "p99")] == pytest.approx([2, 2], 1e-3)
    assert rows[0]["by_operation"].keys() == {"read", "update"}
    assert rows[0]["ops_per_s_runs"] == [1000, 9000, 2000]
    assert rows[0]["cpu_us_per_op"] == pytest.approx({"n1": 30.0, CLIENT: 10.0})


def test_the_table_shows_cost_only_when_asked() -> None:
    rows = report.medians([a_result(a_job("put"))])
    plain, full = report.table(rows, cpu=False), report.table(rows, cpu=True)
    assert "us/op" not in plain
    assert plain.splitlines()[1].split() == [
        *("kvnode", "put", "4", "100", "1,000", "2.00", "2.00", "2.00")
    ]
    assert full.splitlines()[1].split()[8:] == ["30.0", "10.0", "40.0", "10.0", "0.50"]


def test_stores_stand_beside_each_other_whatever_their_turns() -> None:
    results = [
        a_result(a_job(workload), number, system=system)
        for number, systems in enumerate((("x", "y"), ("y", "x")))
        for workload in ("put", "get")
        for system in systems
    ]
    rows = report.medians(results)
    assert [(row["workload"], row["system"], row["rounds"]) for row in rows] == [
        ("put", "x", 2),
        ("put", "y", 2),
        ("get", "x", 2),
        ("get", "y", 2),
    ]


def test_a_run_with_failures_says_so() -> None:
    results = [a_result(a_job("put"), number, faults={"Timeout": 2}) for number in (0, 1)]
    text = report.table(report.medians(results), cpu=False)
    assert text.endswith("FAILED in kvnode, put at 4 in flight, 100 bytes: 4 Timeout")


def test_operations_that_were_sent_again_are_told() -> None:
    result = a_result(a_job("put"))
    figures = replace(
        result.figures, client={"operations": 3000, "attempts": 4500, "frames_sent": 100}
    )
    result = replace(result, figures=figures)
    text = report.table(report.medians([result]), cpu=False)
    assert text.endswith(
        "DISTURBED in kvnode, put at 4 in flight, 100 bytes: 50.0% of operations were sent again"
    )


def test_a_run_in_which_nothing_was_answered_still_has_a_row() -> None:
    rows = report.medians([a_result(a_job("put"), operations=0, faults={"Unavailable": 9})])
    assert "9 Unavailable" in report.table(rows, cpu=True)


def test_the_document_keeps_every_run_and_says_where_it_was() -> None:
    results = [a_result(a_job("put"), number) for number in (0, 1)]
    made = report.document(
        machine={"processors": 2}, settings={"seed": 1}, notes={}, results=results
    )
    assert made["format"] == report.FORMAT
    assert (made["machine"], made["settings"]) == ({"processors": 2}, {"seed": 1})
    assert [run["round"] for run in made["runs"]] == [0, 1]
    assert len(made["medians"]) == 1


def test_the_costliest_functions_are_cut_to_the_limit() -> None:
    lines = [Line(function=name, own=0.25, total=0.5) for name in ("first", "second")]
    text = report.top_table(lines, 1)
    assert text.splitlines()[1].split() == ["25.0%", "50.0%", "first"]
    assert "second" not in text
