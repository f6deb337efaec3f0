"""What is printed and kept of a benchmark: one row for each workload, medians over its rounds.

Decides which figures stand for several runs. Laws: a row's figure is the median of that figure over
the rounds, never a mean; runs with failed operations say so in their row. Held by
tests/unit/bench/test_report.py. Leaves out pictures.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from bench.driver import CLIENT, Result
from bench.profiler import Line
from bench.workload import Job

QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
SENT_AGAIN_WORTH_TELLING = 0.001
FORMAT = 1
"""The version of the JSON results."""


def medians(results: Iterable[Result]) -> list[dict[str, Any]]:
    """Return one row for each workload, in the order in which they were first run."""
    order = {job: place for place, job in enumerate(dict.fromkeys(one.job for one in results))}
    by_job = sorted(results, key=lambda one: order[one.job])
    return [_row(job, list(runs)) for job, runs in groupby(by_job, lambda one: one.job)]


def _row(job: Job, runs: Sequence[Result]) -> dict[str, Any]:
    return {
        "mix": job.mix,
        "in_flight": job.in_flight,
        "value_bytes": job.value_bytes,
        "rounds": len(runs),
        "ops_per_s": statistics.median(run.rate for run in runs),
        "latency_ms": _medians_by_name([_latency_ms(run) for run in runs]),
        "cpu_us_per_op": _medians_by_name([_cpu_us(run) for run in runs]),
        "resident_mib": _medians_by_name([run.resident_mib for run in runs]),
        "others_cpus": statistics.median(run.others_s / run.elapsed_s for run in runs),
        "client_per_op": _medians_by_name([_client_per_op(run) for run in runs]),
        "faults": dict(sum((Counter(run.faults) for run in runs), Counter())),
    }


def _medians_by_name(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each figure over several runs."""
    return {name: statistics.median(one[name] for one in figures) for name in figures[0]}


def _latency_ms(run: Result) -> dict[str, float]:
    return {name: _quantile_ms(run, share) for name, share in QUANTILES.items()}


def _cpu_us(run: Result) -> dict[str, float]:
    return {process: run.cpu_us(process) for process in run.cpu_s}


def _client_per_op(run: Result) -> dict[str, float]:
    return {name: count / max(1, run.operations) for name, count in run.client.items()}


def _quantile_ms(run: Result, share: float) -> float:
    return run.latency.quantile(share) / 1e6 if run.operations else float("nan")


def table(rows: Sequence[dict[str, Any]], *, cpu: bool) -> str:
    """Return the rows as text; with what each process spent on an operation, if asked for."""
    head = ["mix", "in flight", "bytes", "ops/s", *(f"{name} ms" for name in QUANTILES)]
    processes = list(rows[0]["cpu_us_per_op"]) if cpu else []
    head += [f"{name} us/op" for name in processes]
    head += ["all us/op", "ops/frame", "others' CPUs"] if cpu else []
    lines = [head, *(_cells(row, processes) for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    text = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*text, *_complaints(rows)])


def _cells(row: dict[str, Any], processes: Sequence[str]) -> list[str]:
    latency = row["latency_ms"]
    cells = [row["mix"], f"{row['in_flight']:,}", f"{row['value_bytes']:,}"]
    cells += [f"{row['ops_per_s']:,.0f}", *(f"{latency[name]:.2f}" for name in QUANTILES)]
    if processes:
        spent = row["cpu_us_per_op"]
        cells += [f"{spent[name]:.1f}" for name in processes]
        frames = row["client_per_op"]["frames_sent"]
        cells += [f"{sum(spent.values()):.1f}", f"{1 / frames:.1f}" if frames else "-"]
        cells.append(f"{row['others_cpus']:.2f}")
    return cells


def _complaints(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Yield what spoils a row: operations that failed, or that had to be sent again."""
    for row in rows:
        where = f"{row['mix']} at {row['in_flight']} in flight, {row['value_bytes']} bytes"
        if row["faults"]:
            told = ", ".join(f"{count} {reason}" for reason, count in row["faults"].items())
            yield f"FAILED in {where}: {told}"
        again = row["client_per_op"]["attempts"] - 1
        if again > SENT_AGAIN_WORTH_TELLING:
            yield f"DISTURBED in {where}: {again:.1%} of operations were sent again"


def progress(result: Result) -> str:
    """Return one line on a run that has just ended."""
    return (
        f"round {result.round + 1}  {result.job.name:<16} {result.rate:>9,.0f} ops/s  "
        f"p50 {_quantile_ms(result, 0.5):.2f} ms  client {result.cpu_us(CLIENT):.1f} us/op"
    )


def top_table(lines: Sequence[Line], limit: int) -> str:
    """Return the costliest functions of a profile as text."""
    rows = (f"{one.own:>6.1%}  {one.total:>6.1%}  {one.function}" for one in lines[:limit])
    return "\n".join(["   own   total  function", *rows])


def document(
    *, machine: dict[str, Any], settings: dict[str, Any], results: Sequence[Result]
) -> dict[str, Any]:
    """Return everything about a benchmark, to be kept as JSON."""
    return {
        "format": FORMAT,
        "machine": machine,
        "settings": settings,
        "medians": medians(results),
        "runs": [result.to_json() for result in results],
    }
