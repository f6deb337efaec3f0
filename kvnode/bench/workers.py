"""The processes of the load generator, and what they are told: the parent's side.

Decides how a run is divided among processes and their figures put together. Laws: all processes
are connected before any begins; a run that is stopped still gives what was counted; none of them
outlives us. Held by tests/unit/bench/test_workers.py. Leaves out what a process does: worker.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import kvclient
import kvnode
import kvproto
from kvnode.bench.store import OURS, Options
from kvnode.bench.tally import Tally
from kvnode.bench.workload import Job

Loop: TypeAlias = Literal["uvloop", "asyncio"]
PROCESSES_MAX = 64
_END_TIMEOUT_S = 10.0


class WorkerDied(Exception):
    """A process of the load generator ended by itself; its last words are on stderr."""

    def __init__(self) -> None:
        super().__init__("the load generator died; its last words are above")


@dataclass(frozen=True, slots=True, kw_only=True)
class Generator:
    """Which processes make the load."""

    where: str
    """The store's address, as its adapter reads it."""
    adapter: str = OURS
    options: Options = field(default_factory=dict)
    processes: int = 1
    loop: Loop = "uvloop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one run showed, all processes together."""

    job: Job
    elapsed_s: float
    """Of the process that took longest."""
    tally: Tally
    cpu_s: float
    """Of the load generator."""
    client: dict[str, int]
    """By how much the client's own counters rose: attempts, reroutes, frames, ..."""
    is_whole: bool = True
    """Not stopped before its end."""

    @property
    def rate(self) -> float:
        """Answered operations per second."""
        return self.tally.operations / max(self.elapsed_s, 1e-9)


SoFar: TypeAlias = Callable[[int, int], None]
"""Is told every second how many operations are done, and how many have failed."""


class Workers:
    """The processes, connected and waiting for work."""

    def __init__(self, generator: Generator) -> None:
        """Start them. Raises: WorkerDied, if one cannot connect."""
        command = [sys.executable, "-m", "kvnode.bench.worker", generator.adapter, generator.where]
        command += ["--loop", generator.loop, "--options", json.dumps(dict(generator.options))]
        self._all = [_Worker(command) for _ in range(generator.processes)]
        self._is_stopped = False
        try:
            for one in self._all:
                one.listen("ready")
        except BaseException:
            self.kill()
            raise

    @property
    def pids(self) -> tuple[int, ...]:
        """Their process ids."""
        return tuple(one.pid for one in self._all)

    def run(self, job: Job, so_far: SoFar = lambda _done, _failed: None) -> Figures:
        """Carry out a run; return its figures, also if it was stopped. Raises: WorkerDied."""
        self._is_stopped = False
        count = min(len(self._all), job.in_flight)
        busy = self._all[:count]
        for number, one in enumerate(busy):
            one.tell({"run": job.part(number, count).to_json()})
        return self._together(job, [*_finished(busy, so_far)])

    def stop(self) -> None:
        """Have the run that is going on end now. May be called by a signal's handler."""
        self._is_stopped = True
        for one in self._all:
            one.tell({"stop": {}})

    def close(self) -> None:
        """End the processes."""
        for one in self._all:
            one.close()

    def kill(self) -> None:
        """End the processes at once."""
        for one in self._all:
            one.kill()

    def _together(self, job: Job, parts: list[Mapping[str, Any]]) -> Figures:
        tally, client = Tally(), Counter[str]()
        for part in parts:
            tally.add(Tally.from_json(part["tally"]))
            client.update(part["client"])
        return Figures(
            job=job,
            elapsed_s=max(part["elapsed_s"] for part in parts),
            tally=tally,
            cpu_s=sum(part["cpu_s"] for part in parts),
            client=dict(client),
            is_whole=not self._is_stopped,
        )


def _finished(busy: list[_Worker], so_far: SoFar) -> Iterator[Mapping[str, Any]]:
    """Yield what each says at its end; they tell the seconds until then in step."""
    while busy:
        done = failed = 0
        for one in [*busy]:
            said = one.listen("so_far", "done")
            if "done" in said:
                busy.remove(one)
                yield said["done"]
            else:
                done += said["so_far"]["done"]
                failed += said["so_far"]["failed"]
        if busy:
            so_far(done, failed)


@contextmanager
def working(generator: Generator) -> Iterator[Workers]:
    """Have the processes for a while; they are gone afterwards. Raises: WorkerDied."""
    workers = Workers(generator)
    try:
        yield workers
    except BaseException:
        workers.kill()
        raise
    workers.close()


class _Worker:
    """One process."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,  # Ctrl-C is for us, who then tell them
        )
        self.pid = self._process.pid

    def tell(self, what: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerDied from error

    def listen(self, *expected: str) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerDied
        said: dict[str, Any] = json.loads(line)
        assert said.keys() & set(expected), said.keys()
        return said

    def close(self) -> None:
        try:
            self._process.communicate(timeout=_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def environment() -> dict[str, str]:
    """Return our environment, with what we import ourselves on the path: a checkout works too."""
    packages = (kvnode, kvclient, kvproto)
    roots = (str(Path(one.__path__[0]).resolve().parent) for one in packages)
    inherited = os.environ.get("PYTHONPATH")
    path = dict.fromkeys([*roots, *([inherited] if inherited else [])])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
