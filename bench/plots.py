"""Plots of results, drawn by matplotlib.

Decides how figures look. Laws: a store has the same colour on every plot; each round is shown
beside the median, so that the spread can be seen; scales that span decades are logarithmic and say
so by their ticks; the same results give the same bytes. Held by tests/unit/bench/test_page.py.
Leaves out what is plotted: bench/page.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from bench.target import SYSTEMS, BenchError
from kvnode.bench.histogram import Histogram

try:
    import matplotlib as mpl
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter
except ModuleNotFoundError as error:
    raise BenchError("plots need matplotlib: pip install -e '.[page]'") from error

Row: TypeAlias = Mapping[str, Any]
Drawn: TypeAlias = Figure
COLOURS = dict(
    zip(
        SYSTEMS,
        ("#1f5fa8", "#7fb2e5", "#2f8f5b", "#c23b3b", "#7a4fb0", "#c98a1b", "#555555"),
        strict=False,
    )
)
_STYLE = {
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "svg.hashsalt": "bench",
}
_PROBABILITIES = [1 - 10 ** -(step / 20) for step in range(101)]
_TICKS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)
_CLIENT = "client"
_COLUMNS_MAX = 5


def save(figure: Figure, path: Path) -> None:
    """Write a figure; its form is that of the name's end."""
    with mpl.rc_context(_STYLE):
        # No date: the same results give the same bytes.
        figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)


def overview(rows: Sequence[Row], value_bytes: int) -> Figure:
    """Return ops/s, p50 with p99, and CPU an operation: a line of plots for each workload."""
    workloads = list(dict.fromkeys(row["workload"] for row in rows))
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.5, 0.7 + 2.25 * len(workloads)), layout="constrained")
        grid = figure.subplots(len(workloads), 3, squeeze=False)
        for workload, (rates, latencies, costs) in zip(workloads, grid, strict=True):
            mine = [row for row in rows if row["workload"] == workload]
            _rates(rates, mine, workload)
            _latencies(latencies, mine)
            _costs(costs, mine)
        _legend(figure, [row["system"] for row in rows])
        figure.suptitle(f"values of {value_bytes:,} B", x=0.01, ha="left", fontsize=10)
    return figure


def tails(latencies: Mapping[str, Mapping[str, Histogram]]) -> Figure:
    """Return how latencies are distributed: a plot for each workload and pace, a line a store."""
    columns = min(_COLUMNS_MAX, len({title.partition(",")[2] for title in latencies}))
    lines = -(-len(latencies) // columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(0.5 + 2.6 * columns, 0.7 + 2.3 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False, sharey="row").flat
        stores: list[str] = []
        for axes, (title, by_store) in zip(grid, latencies.items(), strict=False):
            for store, histogram in by_store.items():
                _tail(axes, store, histogram)
                stores.append(store)
            axes.set_title(title, loc="left")
            _percentile_axis(axes)
        for axes in grid[len(latencies) :]:
            axes.set_visible(False)
        for axes in grid[::columns]:
            axes.set_ylabel("latency, ms")
        _legend(figure, stores)
    return figure


def losses(runs: Sequence[Row]) -> Figure:
    """Return what became of operations around the loss of a node: two plots for each store."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.5, 0.5 + 1.5 * len(runs)), layout="constrained")
        grid = figure.subplots(len(runs), 2, squeeze=False, sharex=True, sharey="col")
        for run, (counts, worst) in zip(runs, grid, strict=True):
            _course(run, counts, worst)
        grid[0][0].set_title("a second: answered, and in black failed", loc="left")
        grid[0][1].set_title("the longest that any operation took, ms", loc="left")
        for axes in grid[-1]:
            axes.set_xlabel("seconds; the node is killed at the line")
    return figure


# ---- parts -------------------------------------------------------------------------------------


def _rates(axes: Axes, rows: Sequence[Row], workload: str) -> None:
    for store, x, row, width in _bars(axes, rows):
        axes.bar(x, row["ops_per_s"], width, color=COLOURS[store])
        runs = row["ops_per_s_runs"]
        axes.plot([x] * len(runs), runs, ".", color="black", markersize=2.5)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_title(f"{workload}: operations a second, each round a dot", loc="left")


def _latencies(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw a stroke from p50 to p99, with p99.9 as a tick above."""
    for store, x, row, width in _bars(axes, rows):
        latency, colour = row["latency_ms"], COLOURS[store]
        if latency["p50"] is None:  # nothing was answered
            continue
        axes.plot([x, x], [latency["p50"], latency["p99"]], color=colour, linewidth=3)
        axes.plot(x, latency["p50"], "o", color=colour, markersize=5)
        axes.plot(
            [x - width / 3, x + width / 3], [latency["p99.9"]] * 2, color=colour, linewidth=1.5
        )
    axes.set_yscale("log")
    _plain_numbers(axes)
    axes.set_title("latency, ms: p50, to p99, p99.9", loc="left")


def _costs(axes: Axes, rows: Sequence[Row]) -> None:
    """Draw what the nodes spent on an operation, and above it, paler, the client."""
    for store, x, row, width in _bars(axes, rows):
        spent = row["cpu_us_per_op"]
        client = spent[_CLIENT]
        nodes = sum(spent.values()) - client
        axes.bar(x, nodes, width, color=COLOURS[store])
        axes.bar(x, client, width, bottom=nodes, color=COLOURS[store], alpha=0.4)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_title("CPU an operation, us: nodes, paler the client", loc="left")


def _bars(axes: Axes, rows: Sequence[Row]) -> list[tuple[str, float, Row, float]]:
    """Return store, place, row and width of each bar: a group for each pace, a bar a store."""
    is_rated = any(row["rate"] is not None for row in rows)
    paces = list(dict.fromkeys(row["in_flight"] for row in rows))
    stores = list(dict.fromkeys(row["system"] for row in rows))
    width = 0.8 / len(stores)
    axes.set_xticks(range(len(paces)), [f"{pace:,}" for pace in paces])
    axes.set_xlabel(f"at most in flight, {rows[0]['rate']:,.0f}/s" if is_rated else "in flight")
    axes.grid(visible=False, axis="x")
    shift = (len(stores) - 1) / 2
    return [
        (
            row["system"],
            paces.index(row["in_flight"]) + (stores.index(row["system"]) - shift) * width,
            row,
            width * 0.9,
        )
        for row in rows
    ]


def _tail(axes: Axes, store: str, histogram: Histogram) -> None:
    if not histogram.total:
        return
    # Beyond one in so many there is only the worst of them.
    shares = [share for share in _PROBABILITIES if 1 - share >= 1 / histogram.total]
    values = [histogram.quantile(share) / 1e6 for share in shares]
    axes.plot([1 / (1 - share) for share in shares], values, color=COLOURS[store], linewidth=1.4)


def _percentile_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1 / (1 - share) for share in _TICKS], [_percent(share) for share in _TICKS])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("percentile")
    _plain_numbers(axes)


def _percent(share: float) -> str:
    return f"{share * 100:.2f}".rstrip("0").rstrip(".")


def _plain_numbers(axes: Axes) -> None:
    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(NullFormatter())


def _course(run: Row, counts: Axes, worst: Axes) -> None:
    tally = run["tally"]
    width_s = tally["window_ms"] / 1e3
    windows = tally["windows"]
    times = [place * width_s for place in range(len(windows))]
    done = [window[0] / width_s for window in windows]
    failed = [window[1] / width_s for window in windows]
    colour = COLOURS[run["system"]]
    counts.fill_between(times, done, step="post", color=colour, linewidth=0)
    counts.fill_between(times, failed, step="post", color="black", linewidth=0)
    counts.set_ylabel(run["system"], rotation=0, ha="right", fontweight="bold")
    counts.set_ylim(0, 2 * run["job"]["rate"])
    # Where nothing ended there is no line.
    longest = [window[2] / 1e6 if window[0] or window[1] else math.nan for window in windows]
    worst.plot(times, longest, ".-", markersize=1.5, color=colour, linewidth=1)
    worst.set_yscale("log")
    _plain_numbers(worst)
    for axes in (counts, worst):
        axes.axvline(run["kill_after_s"], color="black", linewidth=0.8, linestyle=":")


def _legend(figure: Figure, stores: Sequence[str]) -> None:
    handles = [
        mpl.lines.Line2D([], [], color=COLOURS[store], linewidth=5, label=store)
        for store in dict.fromkeys(stores)
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))
