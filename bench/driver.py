"""Carries out a benchmark: which run after which, what is measured around each.

Decides the order. Laws: stores take turns, run by run, and the rounds alternate, so that a slow
minute of the machine meets every workload of every store and none alone; each run is preceded by an
unmeasured one of the same kind, and what is slow at first is asked for a while before; the CPU time
of the nodes is read when nothing is under way. Held by tests/unit/bench/test_driver.py. Leaves out
what is printed (bench/report.py), and the load itself (kvnode/bench).
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from bench import profiler, usage
from bench.target import Target
from kvnode.bench import summary
from kvnode.bench.keys import Distribution
from kvnode.bench.workers import Figures
from kvnode.bench.workload import WORKLOADS, Job, default_keys

CLIENT = "client"
_SAMPLED_LONGER_S = 1.0
"""A profiled run goes on for so much longer than the recording, which thus sees load throughout."""
_SYNCS = 64
_SYNC_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is run."""

    workloads: Sequence[str]
    draw: Distribution | None
    """None: as each workload has it."""
    in_flight: Sequence[int]
    value_bytes: Sequence[int]
    keys: int | None
    seconds: float
    warm_s: float
    rounds: int
    seed: int
    rate: float | None = None
    profile: Path | None = None
    profile_format: profiler.Format = "raw"

    def jobs(self) -> list[Job]:
        """Return the runs of one round."""
        return [
            Job(
                workload=workload,
                draw=self.draw or WORKLOADS[workload].draw,
                in_flight=in_flight,
                rate=self.rate,
                value_bytes=value_bytes,
                keys=self.keys or default_keys(value_bytes),
                seconds=self.seconds,
                seed=self.seed,
            )
            for value_bytes in self.value_bytes
            for workload in self.workloads
            for in_flight in self.in_flight
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run showed."""

    system: str
    round: int
    figures: Figures
    cpu_s: dict[str, float]
    """By process: CLIENT, and the nodes where they are ours."""
    others_s: float
    """What the rest of the machine used meanwhile, in CPU seconds: the noise."""
    resident_mib: dict[str, float]

    @property
    def job(self) -> Job:
        """What was run."""
        return self.figures.job

    def cpu_us(self, process: str) -> float:
        """Return the microseconds of CPU time that a process spent on one operation."""
        return self.cpu_s[process] / max(1, self.figures.tally.operations) * 1e6

    def to_json(self) -> dict[str, Any]:
        """Return all of it."""
        return summary.to_json(self.figures) | {
            "system": self.system,
            "round": self.round,
            "cpu_s": self.cpu_s,
            "others_s": self.others_s,
            "resident_mib": self.resident_mib,
        }


class Load(Protocol):
    """What the load generator does for us."""

    @property
    def pids(self) -> Sequence[int]:
        """Its processes."""

    def run(self, job: Job) -> Figures:
        """Carry out one run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A store, and the load generator that is connected to it."""

    target: Target
    load: Load


def measure(settings: Settings, sides: Sequence[Side], tell: Callable[[Result], None]) -> list[
    Result
]:  # fmt: skip
    """Load the keys, then carry out all rounds; tell each result at once, and return all."""
    jobs = settings.jobs()
    for job in {job.value_bytes: job for job in jobs}.values():
        for side in sides:
            side.load.run(loading(job))
    for side in sides:
        _settle(side, jobs)
    results = []
    for number in range(settings.rounds):
        for place, job in enumerate(jobs):
            for side in _in_turn(sides, number):
                tag = f"{number}.{place}"
                side.load.run(dataclasses.replace(job, seconds=settings.warm_s, tag=f"{tag}w"))
                results.append(_measured(settings, side, dataclasses.replace(job, tag=tag), number))
                tell(results[-1])
    return results


def loading(job: Job) -> Job:
    """Return the load phase before a run."""
    many = max(64, job.in_flight)
    return dataclasses.replace(job, is_load=True, rate=None, seconds=0.0, in_flight=many)


def _settle(side: Side, jobs: Sequence[Job]) -> None:
    """Ask everything for a while, unmeasured, of a store that needs that."""
    for place, job in enumerate(jobs):
        if side.target.settle_s:
            seconds = side.target.settle_s / len(jobs)
            side.load.run(dataclasses.replace(job, seconds=seconds, tag=f"settle{place}"))


def _in_turn(sides: Sequence[Side], number: int) -> Sequence[Side]:
    """Return them in another order each round: who goes first meets what the one before left."""
    first = number % len(sides)
    return [*sides[first:], *sides[:first]]


def _measured(settings: Settings, side: Side, job: Job, number: int) -> Result:
    processes = {**side.target.pids, **_clients(side.load.pids)}
    before = usage.read(processes)
    with _profiled(settings, processes, f"{side.target.name}-{_name(job)}", number):
        figures = side.load.run(_stretched(settings, job))
    used = usage.read(processes).since(before)
    nodes = {name: used.processes[name] for name in side.target.pids}
    return Result(
        system=side.target.name,
        round=number,
        figures=dataclasses.replace(figures, job=job),
        cpu_s={**nodes, CLIENT: figures.cpu_s},
        others_s=max(0.0, used.machine - sum(used.processes.values())),
        resident_mib={name: usage.resident_mib(pid) for name, pid in processes.items()},
    )


def _clients(pids: Sequence[int]) -> Mapping[str, int]:
    return {f"{CLIENT}{number or ''}": pid for number, pid in enumerate(pids)}


def _name(job: Job) -> str:
    return f"{job.workload}-{job.in_flight}-{job.value_bytes}B"


def _profiled(
    settings: Settings, processes: dict[str, int], name: str, number: int
) -> AbstractContextManager[None]:
    """Record the first round, if profiles are wanted."""
    if settings.profile is None or number:
        return nullcontext()
    return profiler.recording(
        processes,
        folder=settings.profile,
        name=name,
        seconds=settings.seconds,
        form=settings.profile_format,
    )


def _stretched(settings: Settings, job: Job) -> Job:
    if settings.profile is None:
        return job
    return dataclasses.replace(job, seconds=job.seconds + _SAMPLED_LONGER_S)


def sync_p50_ms(folder: Path) -> float:
    """Return the median time of an fdatasync after appending 4 KiB to a file in `folder`."""
    path = folder / "sync-probe"
    took_s = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(b"\0" * _SYNC_BYTES)
            began_s = time.perf_counter()
            os.fdatasync(file.fileno())
            took_s.append(time.perf_counter() - began_s)
    path.unlink()
    return statistics.median(took_s) * 1e3
