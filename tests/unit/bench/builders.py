"""Jobs, figures and results for the tests of the benchmark."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.driver import CLIENT, Result
from kvnode.bench.histogram import Histogram
from kvnode.bench.tally import Tally, Window
from kvnode.bench.workers import Figures
from kvnode.bench.workload import WORKLOADS, Job


def a_job(workload: str = "a", **changes: Any) -> Job:
    settings: dict[str, Any] = {
        "draw": WORKLOADS[workload].draw,
        "in_flight": 4,
        "value_bytes": 100,
        "seconds": 1.0,
        "keys": 50,
        "seed": 7,
    }
    return Job(workload=workload, **(settings | changes))


def some_figures(
    job: Job, *, operations: int = 1000, faults: dict[str, int] | None = None
) -> Figures:
    """A second in which each operation took 2 ms, half of them updates, 10 us of the generator."""
    halves = {"update": operations // 2, "read": operations - operations // 2}
    return Figures(
        job=job,
        elapsed_s=1.0,
        tally=Tally(
            latency={kind: Histogram([2_000_000] * n) for kind, n in halves.items() if n},  # type: ignore[misc]  # a kind, as typed above
            faults=Counter(faults or {}),
            windows=[Window(operations // 10, 0, 2_000_000)] * 10,
        ),
        cpu_s=operations * 10e-6,
        client={
            "operations": operations,
            "attempts": operations,
            "frames_sent": operations // 10,
        },
    )


def a_result(
    job: Job,
    number: int = 0,
    *,
    system: str = "kvnode",
    operations: int = 1000,
    faults: dict[str, int] | None = None,
) -> Result:
    """The same, with 30 us of a node for each operation."""
    return Result(
        system=system,
        round=number,
        figures=some_figures(job, operations=operations, faults=faults),
        cpu_s={"n1": operations * 30e-6, CLIENT: operations * 10e-6},
        others_s=0.5,
        resident_mib={"n1": 60.0, CLIENT: 50.0},
    )
