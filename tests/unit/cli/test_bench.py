"""`kvnode bench`: what is refused before anything starts, which runs there are, what is shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from kvnode.bench.histogram import Histogram
from kvnode.bench.workload import Job
from kvnode.cli.arguments import COMMANDS, Arguments, parse
from kvnode.cli.bench import document, planned, show
from kvnode.cli.errors import UsageError
from kvnode.cli.main import main
from tests.unit.bench.builders import a_job, some_figures


def arguments(*flags: str) -> Arguments:
    return parse("bench", COMMANDS["bench"], flags)


def plan(*flags: str) -> list[Job]:
    return planned(arguments(*flags))


def test_without_flags_ten_thousand_keys_are_loaded_and_half_read_half_updated() -> None:
    loading, running = plan()
    assert (loading.is_load, loading.keys, loading.rate) == (True, 10_000, None)
    assert (running.workload, running.draw, running.value_bytes) == ("a", "zipfian", 100)
    assert (running.in_flight, running.rate, running.seconds) == (64, None, 10.0)


def test_flags_are_carried_into_every_run() -> None:
    loading, *running = plan(
        *("--workload", "b,d", "--draw", "uniform", "--keys", "7", "--value-bytes", "10KiB"),
        *("--in-flight", "3", "--rate", "2.5", "--seconds", "1", "--seed", "9"),
    )
    assert loading.rate is None  # the load phase goes as fast as it can
    assert [run.workload for run in running] == ["b", "d"]
    assert {(r.draw, r.keys, r.value_bytes, r.in_flight, r.rate, r.seed) for r in running} == {
        ("uniform", 7, 10_240, 3, 2.5, 9)
    }
    assert running[0].tag != running[1].tag


def test_either_phase_can_be_had_alone() -> None:
    assert [job.is_load for job in plan("--only", "load")] == [True]
    assert [job.is_load for job in plan("--only", "run")] == [False]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--workload", "putt"], "no workload 'putt': did you mean 'put'?"),
        (["--workload", "g"], "no workload 'g': there are a, b, c, d, e, f, put, get"),
        (["--in-flght", "3"], "no flag --in-flght: did you mean '--in-flight'?"),
        (["--rate", "0"], "expected a number of operations a second above 0, got '0'"),
        (["--value-bytes", "1GiB"], "expected a size from 1 to 16MiB"),
        (["--value-bytes", "0"], "expected a size from 1 to 16MiB"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(flags: list[str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        plan(*flags)
    assert said in str(refused.value)


def test_nobody_there_is_told_before_any_load(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--seeds", "127.0.0.1:1"]) == 1
    assert "no node answers at 127.0.0.1:1" in capsys.readouterr().err


def test_a_row_for_each_kind_of_operation_and_what_spoiled_the_run_below(
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = some_figures(a_job(), faults={"Timeout": 2})
    tally = replace(figures.tally, late=Histogram([1_000_000]))
    show([replace(figures, tally=tally, is_whole=False)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[:4] for line in lines[1:4]] == [
        ["a", "read", "500", "500"],
        ["a", "update", "500", "500"],
        ["a", "all", "1,000", "1,000"],
    ]
    assert lines[4:] == [
        "a: interrupted after 1.00 s",
        "a: failed: 2 Timeout",
        "a: began late by 1.00 ms (p50), 1.00 ms (p99)",
    ]


def test_the_kept_form_has_settings_machine_and_every_run() -> None:
    figures = some_figures(a_job(), faults=Counter({"Timeout": 2}))
    kept = document(arguments("--seed", "5", "--workload", "a"), [figures])
    assert kept["settings"]["seed"] == 5
    assert kept["machine"].keys() > {"commit", "packages", "processors"}
    assert kept["runs"][0]["tally"]["faults"] == {"Timeout": 2}
