"""What users see when a node is lost: a steady load, and SIGKILL in its middle.

Decides how the loss is made and what is told of it. Laws: operations begin at a fixed rate and
count from when they should have begun, so whoever comes during an outage counts; the node whose
loss hurts most is the one that is killed (a leader, where there is one); nothing is started again.
Held by tests/unit/bench/test_failover.py. Leaves out what the stores do about it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench import driver
from bench.driver import Load
from bench.target import BenchError, Target
from kvnode.bench import summary
from kvnode.bench.workers import Figures
from kvnode.bench.workload import Job

FORMAT = 2
WORKLOAD = "a"
VALUE_BYTES = 100
_COLUMNS = ("store", "round", "failed", "error s", "silent s", "worst ms", "p50 ms", "p99.9 ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a node is lost."""

    rate: float
    """Operations a second: well below what the slowest store can do."""
    seconds: float
    kill_after_s: float
    in_flight: int
    keys: int
    seed: int

    def job(self) -> Job:
        """Return the load: half reads, half updates, uniformly."""
        return Job(
            workload=WORKLOAD,
            draw="uniform",
            value_bytes=VALUE_BYTES,
            keys=self.keys,
            seed=self.seed,
            in_flight=self.in_flight,
            rate=self.rate,
            seconds=self.seconds,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What one loss was like."""

    system: str
    round: int
    plan: Plan
    figures: Figures
    notes: Sequence[str]

    def outage(self) -> dict[str, float]:
        """Return what its users saw: see kvnode/bench/summary.py."""
        return summary.outage(self.figures.tally.windows)

    def to_json(self) -> dict[str, Any]:
        """Return all of it."""
        told = {"system": self.system, "round": self.round, "notes": list(self.notes)}
        return told | {"kill_after_s": self.plan.kill_after_s} | summary.to_json(self.figures)


def lose_one(plan: Plan, target: Target, load: Load, number: int) -> Loss:
    """Load the keys, keep up the load, and kill a node meanwhile.

    Raises: BenchError, if it was not killed: then there was no loss to be told of.
    """
    job = plan.job()
    load.run(driver.loading(job))
    if target.settle_s:
        load.run(dataclasses.replace(job, seconds=target.settle_s, tag="settle"))
    victims, killed = list(target.victims()), list[int]()
    timer = threading.Timer(plan.kill_after_s, _kill, [victims, killed])
    timer.start()
    try:
        figures = load.run(job)
    finally:
        timer.cancel()
        timer.join()
    if killed != victims:
        raise BenchError(f"no node of {target.name} was killed: the run was over before, or it was")
    return Loss(system=target.name, round=number, plan=plan, figures=figures, notes=target.notes)


def _kill(pids: Sequence[int], killed: list[int]) -> None:
    """Kill these, and note each that is: in a thread of its own, where nobody catches errors."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)


def table(losses: Sequence[Loss]) -> str:
    """Return what was seen as text."""
    lines = [list(_COLUMNS), *(_cells(one) for one in losses)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(_COLUMNS))]
    text = ["  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    return "\n".join(text)


def _cells(loss: Loss) -> list[str]:
    outage = loss.outage()
    latency = summary.latency_ms(loss.figures.tally.all_latencies())
    return [
        loss.system,
        str(loss.round + 1),
        f"{outage['failed']:,.0f}",
        f"{outage['error_s']:.0f}",
        f"{outage['silent_s']:.1f}",
        f"{outage['worst_ms']:,.0f}",
        f"{latency['p50']:.2f}",
        f"{latency['p99.9']:.1f}",
    ]


def progress(loss: Loss) -> str:
    """Return one line on a loss that has just been lived through."""
    reasons = ", ".join(f"{n} {why}" for why, n in loss.figures.tally.faults.most_common())
    outage = loss.outage()
    told = f"{outage['failed']:,.0f} failed ({reasons or 'none'})"
    return f"{loss.system}: {told}, worst {outage['worst_ms']:,.0f} ms"


def document(
    *, machine: dict[str, Any], settings: dict[str, Any], results: Sequence[Loss]
) -> dict[str, Any]:
    """Return everything about the losses, to be kept as JSON."""
    return {
        "format": FORMAT,
        "kind": "failover",
        "machine": machine,
        "settings": settings,
        "runs": [one.to_json() for one in results],
    }
