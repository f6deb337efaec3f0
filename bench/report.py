"""What is printed and kept of a benchmark: one row for each workload and store, medians over
rounds.

Decides which figures stand for several runs. Laws: a row's figure is the median of that figure over
the rounds, never a mean; runs with failed operations say so in their row. Held by
tests/unit/bench/test_report.py. Leaves out pictures.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bench.driver import CLIENT, Result
from bench.profiler import Line
from kvnode.bench import summary
from kvnode.bench.workload import Job

SHOWN = ("p50", "p99", "p99.9")
SENT_AGAIN_WORTH_TELLING = 0.001
FORMAT = 2
"""The version of the JSON results."""


def medians(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Return one row for each workload and store, in the order in which they were first run."""
    by_kind: dict[tuple[Job, str], list[Result]] = {}
    for one in results:
        job = dataclasses.replace(one.job, tag="")
        by_kind.setdefault((job, one.system), []).append(one)
    order = {job: place for place, (job, _) in enumerate(by_kind)}
    ordered = sorted(by_kind.items(), key=lambda item: order[item[0][0]])
    return [_row(system, job, runs) for (job, system), runs in ordered]


def _row(system: str, job: Job, runs: Sequence[Result]) -> dict[str, Any]:
    kinds = {row["operation"] for run in runs for row in summary.rows(run.figures)}
    return {
        "system": system,
        "workload": job.workload,
        "draw": job.draw,
        "in_flight": job.in_flight,
        "rate": job.rate,
        "value_bytes": job.value_bytes,
        "keys": job.keys,
        "rounds": len(runs),
        "ops_per_s": statistics.median(run.figures.rate for run in runs),
        "ops_per_s_runs": [run.figures.rate for run in runs],
        "latency_ms": _medians_by_name([_latency_ms(run) for run in runs]),
        "by_operation": {kind: _of_kind(kind, runs) for kind in sorted(kinds - {summary.ALL})},
        "cpu_us_per_op": _medians_by_name([_cpu_us(run) for run in runs]),
        "resident_mib": _medians_by_name([run.resident_mib for run in runs]),
        "others_cpus": statistics.median(run.others_s / run.figures.elapsed_s for run in runs),
        "client_per_op": _medians_by_name([_client_per_op(run) for run in runs]),
        "faults": dict(sum((run.figures.tally.faults for run in runs), Counter())),
    }


def _of_kind(kind: str, runs: Sequence[Result]) -> dict[str, float]:
    """Return the medians of the latencies of one kind of operation, in milliseconds."""
    told = [
        summary.latency_ms(histogram)
        for run in runs
        for name, histogram in run.figures.tally.latency.items()
        if name == kind
    ]
    return _medians_by_name(told)


def _medians_by_name(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure over several runs."""
    return {name: statistics.median(one[name] for one in figures) for name in figures[0]}


def _latency_ms(run: Result) -> dict[str, float]:
    return summary.latency_ms(run.figures.tally.all_latencies())


def _cpu_us(run: Result) -> dict[str, float]:
    return {process: run.cpu_us(process) for process in run.cpu_s}


def _client_per_op(run: Result) -> dict[str, float]:
    operations = max(1, run.figures.tally.operations)
    return {name: count / operations for name, count in run.figures.client.items()}


def table(rows: Sequence[dict[str, Any]], *, cpu: bool) -> str:
    """Return the rows as text; with what each process spent on an operation, if asked for."""
    head = ["store", "workload", "in flight", "bytes", "ops/s", *(f"{name} ms" for name in SHOWN)]
    head += ["nodes us/op", "client us/op", "all us/op", "ops/frame", "others' CPUs"] if cpu else []
    lines = [head, *(_cells(row, cpu=cpu) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    text = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*text, *_complaints(rows)])


def _cells(row: dict[str, Any], *, cpu: bool) -> list[str]:
    latency = row["latency_ms"]
    cells = [row["system"], row["workload"], f"{row['in_flight']:,}", f"{row['value_bytes']:,}"]
    cells += [f"{row['ops_per_s']:,.0f}", *(f"{latency[name]:.2f}" for name in SHOWN)]
    if cpu:
        client = row["cpu_us_per_op"][CLIENT]
        both = sum(row["cpu_us_per_op"].values())
        frames = row["client_per_op"].get("frames_sent")
        cells += [f"{both - client:.1f}", f"{client:.1f}", f"{both:.1f}"]
        cells += [f"{1 / frames:.1f}" if frames else "-", f"{row['others_cpus']:.2f}"]
    return cells


def _complaints(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield what spoils a row: operations that failed, or that had to be sent again."""
    for row in rows:
        where = f"{row['system']}, {row['workload']} at {row['in_flight']} in flight, "
        where += f"{row['value_bytes']} bytes"
        if row["faults"]:
            told = ", ".join(f"{count} {reason}" for reason, count in row["faults"].items())
            yield f"FAILED in {where}: {told}"
        again = _sent_again(row["client_per_op"])
        if again > SENT_AGAIN_WORTH_TELLING:
            yield f"DISTURBED in {where}: {again:.1%} of operations were sent again"


def _sent_again(client: Mapping[str, float]) -> float:
    """Return the share of our client's operations (a modify is two, a call for many, many)."""
    asked = client.get("operations", 0.0)
    return client["attempts"] / asked - 1 if asked else 0.0


def progress(result: Result) -> str:
    """Return one line on a run that has just ended."""
    job, latency = result.job, _latency_ms(result)
    name = f"{result.system} {job.workload}-{job.in_flight}-{job.value_bytes}B"
    return (
        f"round {result.round + 1}  {name:<28} {result.figures.rate:>9,.0f} ops/s  "
        f"p50 {latency['p50']:.2f} ms  client {result.cpu_us(CLIENT):.1f} us/op"
    )


def top_table(lines: Sequence[Line], limit: int) -> str:
    """Return the costliest functions of a profile as text."""
    rows = (f"{one.own:>6.1%}  {one.total:>6.1%}  {one.function}" for one in lines[:limit])
    return "\n".join(["   own   total  function", *rows])


def document(
    *,
    machine: dict[str, Any],
    settings: dict[str, Any],
    notes: Mapping[str, Sequence[str]],
    results: Sequence[Result],
) -> dict[str, Any]:
    """Return everything about a benchmark, to be kept as JSON. `notes` are by store."""
    return {
        "format": FORMAT,
        "kind": "run",
        "machine": machine,
        "settings": settings,
        "notes": {name: list(lines) for name, lines in notes.items()},
        "medians": medians(results),
        "runs": [result.to_json() for result in results],
    }
