"""Trials: a load on a cluster of the kit while it suffers, and what is asked of it afterwards.

Decides what every trial must show, whatever happened in it: nothing that was acknowledged is lost,
nothing stale or deleted was read, no operation failed, and all owners are equal in the end. Laws:
figures of time are told, and judged only in a soak (tests/support/scale.py).
Its test files are tests/cluster/test_rolling.py, test_cut_off.py and test_slow_nodes.py.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from kvclient.testing import Cluster
from kvclient.testing.checks import Finding
from kvclient.testing.history import History, Recorder
from kvclient.testing.run import Outcome, run
from kvclient.testing.schedule import Fault
from kvclient.testing.workloads import Load

_TOLD = 10
"""Of what a failure shows."""
_CHANGE = re.compile(r"^(\S+) INFO peer_(?:up|down|silent|heard) peer=(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Trial:
    """What one load under faults came to."""

    outcome: Outcome
    history: History
    seconds: float

    def figures(self) -> dict[str, object]:
        """Return what to tell of it."""
        verdict, converge_s = self.outcome.verdict, self.outcome.converge_s
        took = self.took_ms()
        return {
            "faults": len(self.outcome.faults),
            "operations": f"{verdict.operations:,}",
            "a_second": round(len(took) / self.seconds),
            "failed": verdict.failed,
            "worst_ms": round(verdict.worst_ms),
            "p99_ms": round(percentile(took, 0.99), 1),
            "findings": len(verdict.findings),
            "converged_s": None if converge_s is None else round(converge_s, 1),
        }

    def took_ms(self) -> list[float]:
        """Return how long each operation of the load took, the last reads left out."""
        final = self.history.final_at
        return [op.latency_ms or 0.0 for op in self.history.ops if op.invoked < final]

    def check(self) -> None:
        """Assert what every trial must show."""
        verdict = self.outcome.verdict
        assert verdict.findings == (), "\n".join(
            line for finding in verdict.findings[:_TOLD] for line in self._story(finding)
        )
        assert verdict.failed == 0, (verdict.ends, verdict.errors)
        assert self.outcome.unread == 0
        assert self.outcome.converge_s is not None, "the owners of some key still differ"
        assert self.outcome.faults != ()

    def _story(self, finding: Finding) -> list[str]:
        """Return what was found, and what had been done to its key by then."""
        before = [
            op
            for op in self.history.ops
            if (op.keyspace, op.key) == (finding.keyspace, finding.key) and op.op <= finding.op
        ]
        told = (
            before[-_TOLD:]
            if finding.because < 0
            else [op for op in before if op.op >= finding.because or op.value in before[-1].values][
                -5 * _TOLD :
            ]
        )
        return [f"{finding.kind}: {finding.text}", *(f"    {op}" for op in told)]


def suffer(cluster: Cluster, load: Load, faults: Sequence[Fault]) -> Trial:
    """Put a load on a cluster that is up, under faults; return what became of it."""
    recorder = Recorder()
    outcome = asyncio.run(run(cluster, load, faults, recorder))
    return Trial(outcome, recorder.history, load.seconds)


def percentile(values: Iterable[float], part: float) -> float:
    """Return a percentile; 0 of nothing."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(part * len(ranked)))] if ranked else 0.0


def changes(log: str) -> list[tuple[float, str]]:
    """Return when, in seconds, a node changed its mind about which peer, by its log."""
    return [(datetime.fromisoformat(at).timestamp(), peer) for at, peer in _CHANGE.findall(log)]


def most_in_a_minute(found: Sequence[tuple[float, str]]) -> int:
    """Return the most changes about one peer within any minute."""
    most: Counter[str] = Counter()
    for at, peer in found:
        count = sum(peer == other and at <= then < at + 60 for then, other in found)
        most[peer] = max(most[peer], count)
    return max(most.values(), default=0)
