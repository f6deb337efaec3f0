"""`kvnode bench`: a load on a cluster that runs already, and how fast it was answered.

Decides which runs there are, and how it ends: 0 if every operation succeeded, 1 if any failed, 130
if it was interrupted. Laws: what cannot be is told in a line before any load; Ctrl-C ends the run
and gives the sum so far; figures go to stdout, the course of things to stderr. Held by
tests/unit/cli/test_bench.py and tests/cluster/test_bench.py. Leaves out the load itself:
kvnode/bench.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import kvclient
from kvnode.bench import machine, summary, workers
from kvnode.bench.store import TIMEOUT_S, Options
from kvnode.bench.workers import Figures, Generator, WorkerDied, Workers
from kvnode.bench.workload import WORKLOADS, Job, default_keys, key_at
from kvnode.cli import target, terminal
from kvnode.cli.arguments import Arguments
from kvnode.cli.errors import FAILED, INTERRUPTED, CommandError, UsageError, nearest

FORMAT = 1
"""The version of the JSON results."""
_LATENCIES = ("mean", *summary.QUANTILES, "max")
_COLUMNS = ("workload", "operation", "operations", "ops/s", *(f"{n} ms" for n in _LATENCIES))


def bench(arguments: Arguments) -> int:
    """Load the keys, run the workloads, and tell how it went."""
    jobs = planned(arguments)
    where = ",".join(target.reachable(arguments))
    options = {key: getattr(arguments, key) for key in ("keyspace", "r", "w")}
    options = {key: value for key, value in options.items() if value is not None}
    _refuse_what_cannot_be(where, options, jobs[0], arguments)
    try:
        done = _carry_out(Generator(where=where, options=options, processes=arguments.processes),
                          jobs, arguments)  # fmt: skip
    except WorkerDied as error:
        raise CommandError(str(error)) from error
    show(done)
    if arguments.json is not None:
        arguments.json.write_text(summary.text(document(arguments, done)))
    if not all(one.is_whole for one in done):
        return INTERRUPTED
    return FAILED if any(one.tally.faults for one in done) else 0


# ---- what is to happen -----------------------------------------------------------------------


def planned(arguments: Arguments) -> list[Job]:
    """Return the runs that the flags ask for, the load phase first. Raises: UsageError."""
    for name in arguments.workload:
        if name not in WORKLOADS:
            hint = nearest(name, WORKLOADS) if len(name) > 1 else ""
            raise UsageError(f"no workload {name!r}{hint or ': there are ' + ', '.join(WORKLOADS)}")
    jobs = [_job(name, arguments) for name in arguments.workload]
    loading = replace(jobs[0], is_load=True, rate=None, seconds=0.0)
    match arguments.only:
        case "load":
            return [loading]
        case "run":
            return jobs
        case _:
            return [loading, *jobs]


def _job(name: str, arguments: Arguments) -> Job:
    return Job(
        workload=name,
        draw=arguments.draw or WORKLOADS[name].draw,
        value_bytes=arguments.value_bytes,
        keys=arguments.keys or default_keys(arguments.value_bytes),
        seed=arguments.seed,
        in_flight=arguments.in_flight,
        rate=arguments.rate,
        seconds=arguments.seconds,
        tag=f"{name}{time.time_ns():x}",
    )


def _refuse_what_cannot_be(where: str, options: Options, job: Job, arguments: Arguments) -> None:
    """Do one operation of each kind, so that a wrong keyspace, r, w or size is told in a line.

    Raises: kvclient.KVError.
    """
    key = key_at(0, job.value_bytes)
    with kvclient.Client(where, keyspace=arguments.keyspace, timeout=TIMEOUT_S) as db:
        if job.is_load:
            db.put(key, bytes(job.value_bytes), w=options.get("w"))
        if db.get(key, r=options.get("r")) is None:
            raise CommandError("the keys are not there: --only run needs --only load before it")


# ---- the runs --------------------------------------------------------------------------------


def _carry_out(generator: Generator, jobs: Sequence[Job], arguments: Arguments) -> list[Figures]:
    done: list[Figures] = []
    with workers.working(generator) as load, _stopped_by_ctrl_c(load):
        for job in jobs:
            _say(_about(job))
            if not job.is_load:
                warm = replace(job, seconds=arguments.warm, tag=f"{job.tag}w")
                if not load.run(warm).is_whole:
                    break
            done.append(load.run(job, _Course(job)))
            if not done[-1].is_whole:
                break
    return done


@contextmanager
def _stopped_by_ctrl_c(load: Workers) -> Iterator[None]:
    """Have the first Ctrl-C end the run; a second one ends the command."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        load.stop()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Course:
    """Tells every second how a run goes."""

    def __init__(self, job: Job) -> None:
        self._job, self._done, self._failed, self._second = job, 0, 0, 0

    def __call__(self, done: int, failed: int) -> None:
        self._second += 1
        fresh, worse = done - self._done, failed - self._failed
        self._done, self._failed = done, failed
        of = f" of {self._job.keys:,}" if self._job.is_load else ""
        said = f"{self._second:>5} s {fresh:>9,} ops/s{f'  {done:,}{of} keys' if of else ''}"
        _say(said + (f"  {terminal.count(worse, 'operation')} failed" if worse else ""))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _about(job: Job) -> str:
    size = terminal.size(job.value_bytes)
    if job.is_load:
        return f"loading {terminal.count(job.keys, 'key')} of {size}"
    pace = f"{job.in_flight:,} in flight"
    if job.rate is not None:
        pace = f"{job.rate:,.0f} a second, at most {pace}"
    about = WORKLOADS[job.workload].about
    return f"{job.workload} ({about}), {job.draw} keys, {size}: {pace}, {job.seconds:g} s"


# ---- what came of it -------------------------------------------------------------------------


def show(done: Sequence[Figures]) -> None:
    """Print a row for each kind of operation of each run, and what failed below."""
    rows = [_cells(figures, row) for figures in done for row in summary.rows(figures)]
    if rows:
        terminal.table(_COLUMNS, rows, right=",".join(_COLUMNS[2:]))
    for figures in done:
        name = _name(figures.job)
        if not figures.is_whole:
            print(f"{name}: interrupted after {terminal.seconds(figures.elapsed_s)}")
        if figures.tally.faults:
            told = ", ".join(f"{n:,} {reason}" for reason, n in figures.tally.faults.most_common())
            print(f"{name}: failed: {told}")
        if figures.tally.late.total:
            late = summary.latency_ms(figures.tally.late)
            print(f"{name}: began late by {late['p50']:.2f} ms (p50), {late['p99']:.2f} ms (p99)")


def _cells(figures: Figures, row: dict[str, Any]) -> list[str]:
    latency = row["latency_ms"]
    return [
        _name(figures.job),
        row["operation"],
        f"{row['operations']:,}",
        f"{row['ops_per_s']:,.0f}",
        *(f"{latency[name]:.2f}" for name in _LATENCIES),
    ]


def _name(job: Job) -> str:
    return "load" if job.is_load else job.workload


def document(arguments: Arguments, done: Sequence[Figures]) -> dict[str, Any]:
    """Return everything about the runs, to be kept as JSON."""
    settings = {name: value for name, value in vars(arguments).items() if name != "json"}
    return {
        "format": FORMAT,
        "machine": machine.describe(),
        "settings": settings,
        "runs": [summary.to_json(figures) for figures in done],
    }
