"""What is counted while operations run, and what several processes counted together.

Decides what a run remembers of its operations. Laws: an operation that failed is counted by its
reason and never among the latencies; every operation is in the window in which it ended; adding
tallies equals counting everything in one; its JSON form comes back equal. Held by
tests/unit/bench/test_tally.py. Leaves out what the figures mean: kvnode/bench/summary.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from kvnode.bench.histogram import Histogram
from kvnode.bench.workload import Kind

WINDOW_MS = 100
"""What happened is kept for each such stretch of a run: for outages, and to show its course."""
_WINDOW_NS = WINDOW_MS * 1_000_000


@dataclass(slots=True)
class Window:
    """What ended in one stretch of a run."""

    done: int = 0
    failed: int = 0
    worst_ns: int = 0
    """The longest that any of them took, failed ones included."""

    def add(self, other: Window) -> None:
        """Add what another process saw in the same stretch."""
        self.done += other.done
        self.failed += other.failed
        self.worst_ns = max(self.worst_ns, other.worst_ns)


@dataclass(slots=True)
class Tally:
    """Everything that was counted in one run."""

    latency: dict[Kind, Histogram] = field(default_factory=dict)
    """In nanoseconds, by kind of operation: from when it should have begun until its answer."""
    late: Histogram = field(default_factory=Histogram)
    """At a fixed rate: how much later than they should have operations began, in nanoseconds."""
    faults: Counter[str] = field(default_factory=Counter)
    windows: list[Window] = field(default_factory=list)

    def record(self, kind: Kind, since_ns: int, took_ns: int, fault: str | None) -> None:
        """Count an operation that ended so long after the run began, after so long."""
        windows = self.windows
        while len(windows) * _WINDOW_NS <= since_ns:
            windows.append(Window())
        window = windows[since_ns // _WINDOW_NS]
        if took_ns > window.worst_ns:
            window.worst_ns = took_ns
        if fault is not None:
            window.failed += 1
            self.faults[fault] += 1
            return
        window.done += 1
        histogram = self.latency.get(kind)
        if histogram is None:
            histogram = self.latency[kind] = Histogram()
        histogram.record(took_ns)

    @property
    def operations(self) -> int:
        """How many were answered."""
        return sum(one.total for one in self.latency.values())

    def all_latencies(self) -> Histogram:
        """Return the latencies of all kinds together."""
        made = Histogram()
        for one in self.latency.values():
            made.merge(one)
        return made

    def add(self, other: Tally) -> None:
        """Add what another process counted in the same run."""
        for kind, histogram in other.latency.items():
            self.latency.setdefault(kind, Histogram()).merge(histogram)
        self.late.merge(other.late)
        self.faults.update(other.faults)
        both = zip_longest(self.windows, other.windows)
        merged = []
        for mine, theirs in both:
            window = Window()
            for one in (mine, theirs):
                if one is not None:
                    window.add(one)
            merged.append(window)
        self.windows = merged

    def to_json(self) -> dict[str, Any]:
        """Return all of it; windows as [done, failed, worst_ns]."""
        return {
            "latency_ns": {kind: one.to_json() for kind, one in self.latency.items()},
            "late_ns": self.late.to_json(),
            "faults": dict(self.faults),
            "window_ms": WINDOW_MS,
            "windows": [[one.done, one.failed, one.worst_ns] for one in self.windows],
        }

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Tally:
        """Return the tally that `to_json` described."""
        latencies = told["latency_ns"].items()
        return cls(
            latency={kind: Histogram.from_json(counts) for kind, counts in latencies},
            late=Histogram.from_json(told["late_ns"]),
            faults=Counter(told["faults"]),
            windows=[Window(*one) for one in told["windows"]],
        )
