"""Claims about kvnode/bench/tally.py and kvnode/bench/summary.py."""

from __future__ import annotations

import json
import math

import pytest

from kvnode.bench import summary
from kvnode.bench.tally import Tally, Window
from tests.unit.bench.builders import a_job, some_figures

MS = 1_000_000


def a_tally(*operations: tuple[int, int, str | None]) -> Tally:
    tally = Tally()
    for since_ms, took_ms, fault in operations:
        tally.record("read", since_ms * MS, took_ms * MS, fault)
    return tally


def test_an_operation_is_in_the_window_in_which_it_ended() -> None:
    tally = a_tally((99, 5, None), (100, 7, None), (350, 9, "Timeout"))
    assert tally.windows == [
        Window(1, 0, 5 * MS),
        Window(1, 0, 7 * MS),
        Window(),
        Window(0, 1, 9 * MS),
    ]
    assert tally.operations == 2
    assert tally.faults == {"Timeout": 1}


def test_adding_tallies_equals_counting_everything_in_one() -> None:
    one, other = [(50, 5, None), (450, 8, "Timeout")], [(20, 9, None), (120, 1, "absent")]
    merged = a_tally(*one)
    merged.add(a_tally(*other))
    merged.add(Tally())
    assert merged == a_tally(*one, *other)


def test_a_tally_survives_json() -> None:
    tally = a_tally((50, 5, None), (450, 8, "Timeout"))
    tally.late.record(7)
    assert Tally.from_json(json.loads(json.dumps(tally.to_json()))) == tally


def test_rows_are_of_each_kind_and_of_all() -> None:
    rows = summary.rows(some_figures(a_job()))
    assert [(row["operation"], row["operations"]) for row in rows] == [
        ("read", 500),
        ("update", 500),
        ("all", 1000),
    ]
    assert rows[2]["ops_per_s"] == 1000
    assert rows[2]["latency_ms"] == pytest.approx(
        dict.fromkeys(("mean", "p50", "p90", "p99", "p99.9", "max"), 2.0), rel=1e-3
    )


def test_a_run_without_answers_has_a_row_without_latencies() -> None:
    (row,) = summary.rows(some_figures(a_job(), operations=0))
    assert row["operations"] == 0
    assert all(map(math.isnan, row["latency_ms"].values()))


def test_what_was_not_answered_is_null_in_json_which_knows_nothing_else() -> None:
    told = summary.text({"runs": [summary.to_json(some_figures(a_job(), operations=0))]})
    assert "NaN" not in told
    (run,) = json.loads(told)["runs"]
    assert run["rows"][0]["latency_ms"]["p50"] is None
    assert run["elapsed_s"] == 1.0


def test_an_outage_is_what_failed_and_for_how_long_nothing_was_answered() -> None:
    calm, silent = Window(5, 0, 3 * MS), Window()
    windows = [*[calm] * 10, *[silent] * 13, Window(0, 2, 900 * MS), *[calm] * 8]
    assert summary.outage(windows) == {
        "failed": 2,
        "error_s": 1,
        "silent_s": pytest.approx(1.4),
        "worst_ms": 900.0,
    }
    assert summary.outage([])["worst_ms"] == 0


def test_the_kept_form_is_json_and_has_everything() -> None:
    told = json.loads(json.dumps(summary.to_json(some_figures(a_job()))))
    assert told["job"]["workload"] == "a"
    assert told["tally"]["faults"] == {}
    assert told["late_ms"] is None
    assert told["is_whole"]
