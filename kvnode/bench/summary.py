"""What the figures of a run mean: rates, latencies, outages; as rows for people and programs.

Decides which figures stand for a run. Laws: a latency is a quantile of everything that was
answered, of each kind and of all; what failed is told beside it, never left out. Held by
tests/unit/bench/test_tally.py. Leaves out how rows are drawn.
"""

from __future__ import annotations

import json
import math
from typing import Any

from kvnode.bench.histogram import Histogram
from kvnode.bench.tally import WINDOW_MS, Window
from kvnode.bench.workers import Figures

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
ALL = "all"
_PER_S = 1000 // WINDOW_MS


def latency_ms(histogram: Histogram) -> dict[str, float]:
    """Return mean, quantiles and the worst, in milliseconds; not a number where nothing was."""
    if not histogram.total:
        return dict.fromkeys(("mean", *QUANTILES, "max"), math.nan)
    quantiles = {name: histogram.quantile(share) / 1e6 for name, share in QUANTILES.items()}
    return {"mean": histogram.mean / 1e6, **quantiles, "max": histogram.highest / 1e6}


def rows(figures: Figures) -> list[dict[str, Any]]:
    """Return a row for each kind of operation, and if there are several, one for all."""
    kinds = {str(kind): one for kind, one in sorted(figures.tally.latency.items())}
    if len(kinds) != 1:
        kinds[ALL] = figures.tally.all_latencies()
    return [_row(kind, histogram, figures) for kind, histogram in kinds.items()]


def _row(kind: str, histogram: Histogram, figures: Figures) -> dict[str, Any]:
    return {
        "operation": kind,
        "operations": histogram.total,
        "ops_per_s": histogram.total / max(figures.elapsed_s, 1e-9),
        "latency_ms": latency_ms(histogram),
    }


def outage(windows: list[Window]) -> dict[str, float]:
    """Return what an outage was like for those who asked: for runs at a fixed rate.

    Returns:
        failed: operations; error_s: seconds of the run in which any failed; silent_s: the longest
        stretch in which nothing was answered (to a tenth of a second); worst_ms: the longest that
        any operation took.
    """
    seconds = [windows[at : at + _PER_S] for at in range(0, len(windows), _PER_S)]
    silent = longest = 0
    for window in windows:
        silent = 0 if window.done else silent + 1
        longest = max(longest, silent)
    return {
        "failed": sum(one.failed for one in windows),
        "error_s": sum(any(one.failed for one in second) for second in seconds),
        "silent_s": longest * WINDOW_MS / 1e3,
        "worst_ms": max((one.worst_ns for one in windows), default=0) / 1e6,
    }


def text(document: Any) -> str:
    """Return a document as JSON; what is no number because nothing was answered is null there."""
    return json.dumps(_with_nulls(document), default=str, indent=1, allow_nan=False) + "\n"


def _with_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nulls(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_with_nulls(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(figures: Figures) -> dict[str, Any]:
    """Return everything about a run, to be kept."""
    return {
        "job": figures.job.to_json(),
        "elapsed_s": figures.elapsed_s,
        "is_whole": figures.is_whole,
        "rows": rows(figures),
        "outage": outage(figures.tally.windows),
        "late_ms": latency_ms(figures.tally.late) if figures.tally.late.total else None,
        "generator_cpu_s": figures.cpu_s,
        "client": figures.client,
        "tally": figures.tally.to_json(),
    }
