"""Carries out a benchmark: which run after which, what is measured around each.

Decides the order. Laws: the rounds alternate, so that a slow minute of the machine meets every
workload and none alone; each run is preceded by an unmeasured one of the same kind; the CPU time of
the nodes is read when nothing is under way. Held by tests/unit/bench/test_driver.py. Leaves out
what is printed (bench/report.py) and what is asked (bench/workload.py).
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import kvclient
import kvproto
from bench import profiler, usage
from bench.cluster import BenchError, Target
from bench.histogram import Histogram
from bench.machine import ROOT
from bench.workload import Job, Mix, key_count

Loop: TypeAlias = Literal["uvloop", "asyncio"]
SILENCE_MS = kvclient.Bounds().silence_ms
CLIENT = "client"
_SAMPLED_LONGER_S = 1.0
"""A profiled run goes on for so much longer than the recording, which thus sees load throughout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is run."""

    mixes: Sequence[Mix]
    in_flight: Sequence[int]
    value_bytes: Sequence[int]
    keys: int
    seconds: float
    warm_s: float
    rounds: int
    seed: int
    profile: Path | None = None
    profile_format: profiler.Format = "raw"

    def jobs(self) -> list[Job]:
        """Return the runs of one round."""
        return [
            Job(
                mix=mix,
                in_flight=in_flight,
                value_bytes=value_bytes,
                keys=key_count(self.keys, value_bytes),
                seconds=self.seconds,
                seed=self.seed,
            )
            for value_bytes in self.value_bytes
            for mix in self.mixes
            for in_flight in self.in_flight
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one run showed."""

    job: Job
    round: int
    elapsed_s: float
    operations: int
    faults: dict[str, int]
    """Operations that failed, by reason; not among `operations`."""
    latency: Histogram
    """In nanoseconds."""
    cpu_s: dict[str, float]
    """By process: CLIENT, and the nodes where they are ours."""
    others_s: float
    """What the rest of the machine used meanwhile, in CPU seconds: the noise."""
    resident_mib: dict[str, float]
    client: dict[str, int]
    """By how much the client's own counters rose: attempts, reroutes, frames, ..."""

    @property
    def rate(self) -> float:
        """Answered operations per second."""
        return self.operations / self.elapsed_s

    def cpu_us(self, process: str) -> float:
        """Return the microseconds of CPU time that a process spent on one operation."""
        return self.cpu_s[process] / max(1, self.operations) * 1e6

    def to_json(self) -> dict[str, Any]:
        """Return all of it."""
        made = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return made | {"job": self.job.to_json(), "latency": self.latency.to_json()}


class Load(Protocol):
    """What the load generator does for us."""

    pid: int

    def load(self, job: Job) -> dict[str, Any]:
        """Put every key of the job once."""

    def run(self, job: Job) -> dict[str, Any]:
        """Carry out one run; see bench/generator.py for the figures."""


class Generator:
    """The load generator's process, and what it is told."""

    def __init__(self, seeds: str, loop: Loop, silence_ms: float) -> None:
        command = [sys.executable, "-m", "bench.generator", seeds, "--loop", loop]
        command += ["--silence-ms", str(silence_ms)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment()
        )
        self.pid = self._process.pid

    def load(self, job: Job) -> dict[str, Any]:
        """Put every key of the job once."""
        return self._ask({"do": "load", "job": job.to_json()})

    def run(self, job: Job) -> dict[str, Any]:
        """Carry out one run; return its figures."""
        return self._ask({"do": "run", "job": job.to_json()})

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise BenchError("the load generator died; its last words are above") from error
        answer = self._process.stdout.readline()
        if not answer:
            raise BenchError("the load generator died; its last words are above")
        told: dict[str, Any] = json.loads(answer)
        return told


@contextmanager
def generating(seeds: str, *, loop: Loop, silence_ms: float) -> Iterator[Generator]:
    """Have a load generator for a while; it is gone afterwards.

    Args:
        seeds: of the cluster.
        loop: which event loop the client runs on.
        silence_ms: after which the client asks another node. Raise it to see what an operation
            costs on a machine too busy to answer in time; the default is what users have.
    """
    generator = Generator(seeds, loop, silence_ms)
    try:
        yield generator
    except BaseException:
        generator.kill()
        raise
    generator.close()


def measure(
    settings: Settings, target: Target, load: Load, tell: Callable[[Result], None]
) -> list[Result]:
    """Load the keys, then carry out all rounds; tell each result at once, and return all."""
    jobs = settings.jobs()
    for job in {job.value_bytes: job for job in jobs}.values():
        load.load(job)
    results = []
    for number in range(settings.rounds):
        for job in jobs:
            load.run(dataclasses.replace(job, seconds=settings.warm_s))
            results.append(_measured(settings, target, load, job, number))
            tell(results[-1])
    return results


def _measured(settings: Settings, target: Target, load: Load, job: Job, number: int) -> Result:
    processes = {**target.pids, CLIENT: load.pid}
    before = usage.read(processes)
    with _profiled(settings, processes, job, number):
        figures = load.run(_stretched(settings, job))
    used = usage.read(processes).since(before)
    return Result(
        job=job,
        round=number,
        elapsed_s=figures["elapsed_s"],
        operations=figures["operations"],
        faults=figures["faults"],
        latency=Histogram.from_json(figures["latency_ns"]),
        cpu_s={**used.processes, CLIENT: figures["cpu_s"]},
        others_s=max(0.0, used.machine - sum(used.processes.values())),
        resident_mib={name: usage.resident_mib(pid) for name, pid in processes.items()},
        client=figures["client"],
    )


def _profiled(
    settings: Settings, processes: dict[str, int], job: Job, number: int
) -> AbstractContextManager[None]:
    """Record the first round, if profiles are wanted."""
    if settings.profile is None or number:
        return nullcontext()
    return profiler.recording(
        processes,
        folder=settings.profile,
        name=job.name,
        seconds=job.seconds,
        form=settings.profile_format,
    )


def _stretched(settings: Settings, job: Job) -> Job:
    if settings.profile is None:
        return job
    return dataclasses.replace(job, seconds=job.seconds + _SAMPLED_LONGER_S)


def _environment() -> dict[str, str]:
    """Return our environment, with what we import ourselves on the path: a checkout works too."""
    roots = [str(ROOT), *(str(Path(one.__path__[0]).parent) for one in (kvclient, kvproto))]
    inherited = os.environ.get("PYTHONPATH")
    path = dict.fromkeys([*roots, *([inherited] if inherited else [])])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
