"""Jobs, results and clocks for the tests of the benchmark."""

from __future__ import annotations

from bench.driver import CLIENT, Result
from bench.histogram import Histogram
from bench.workload import Job, Mix


def a_job(
    mix: Mix = "mixed", *, in_flight: int = 4, value_bytes: int = 100, seconds: float = 1.0
) -> Job:
    return Job(
        mix=mix, in_flight=in_flight, value_bytes=value_bytes, keys=50, seconds=seconds, seed=7
    )


def a_result(
    job: Job, number: int = 0, *, operations: int = 1000, faults: dict[str, int] | None = None
) -> Result:
    """A second in which each operation took 2 ms, 10 us of the client and 30 us of a node."""
    return Result(
        job=job,
        round=number,
        elapsed_s=1.0,
        operations=operations,
        faults=faults or {},
        latency=Histogram([2_000_000] * operations),
        cpu_s={"n1": operations * 30e-6, CLIENT: operations * 10e-6},
        others_s=0.5,
        resident_mib={"n1": 60.0, CLIENT: 50.0},
        client={"attempts": operations, "frames_sent": operations // 10},
    )
