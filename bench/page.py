"""A page that compares stores, made of results that were kept: Markdown, with plots beside it.

Decides what is told and in which order: per file of results its origin, what each store promises, a
table with ratios, and plots; per file of losses what users saw. Laws: a ratio is the median of the
ratios of the rounds, never of medians; runs with failures say so; nothing on the page is typed by
hand, so the same files give the same page. Held by tests/unit/bench/test_page.py. Leaves out how a
plot is drawn: bench/plots.py.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from bench.target import BenchError
from kvnode.bench.histogram import Histogram

Document: TypeAlias = Mapping[str, Any]
OURS = "kvnode"
PAGE = "README.md"
FORMAT = 2
_HEAD = """# Stores compared

Made by `python -m bench page`; [bench](../README.md) tells how all of it is measured, and what each
store promises. Figures are medians over rounds in which the stores took turns.
"""


class Plot(NamedTuple):
    """A plot that the page shows: the name of its file, and what bench/plots.py is asked for."""

    stem: str
    kind: Literal["overview", "tails", "losses"]
    what: tuple[Any, ...]


def write(documents: Sequence[tuple[str, Document]], to: Path, *, form: str = "svg") -> list[Path]:
    """Write the page of these results, each with the name of its file; return what was written.

    Raises: BenchError, for results of another format, or where there is no matplotlib.
    """
    from bench import plots  # noqa: PLC0415 (slow, and not everybody's)

    text, wanted = told(documents, form=form)
    to.mkdir(parents=True, exist_ok=True)
    page = to / PAGE
    page.write_text(text)
    written = [page]
    for plot in wanted:
        written.append(to / f"{plot.stem}.{form}")
        plots.save(getattr(plots, plot.kind)(*plot.what), written[-1])
    return written


def told(documents: Sequence[tuple[str, Document]], *, form: str = "svg") -> tuple[str, list[Plot]]:
    """Return the page's text, and the plots that it shows. Raises: BenchError."""
    parts = [_HEAD]
    plots: list[Plot] = []
    for name, document in documents:
        if document.get("format") != FORMAT or "kind" not in document:
            raise BenchError(f"{name}: not a result of `python -m bench` of format {FORMAT}")
        lines, drawn = (_losses if document["kind"] == "failover" else _runs)(name, document)
        parts += [
            "\n".join(lines) + "\n",
            *(f"![{one.stem}]({one.stem}.{form})\n" for one in drawn),
        ]
        plots += drawn
    return "\n".join(parts), plots


def _runs(name: str, document: Document) -> tuple[list[str], list[Plot]]:
    rows = document["medians"]
    lines = [*_origin(name, document, "How fast"), *_notes(document["notes"])]
    lines += [*_table(rows), *_failures(rows)]
    plots = []
    for size in dict.fromkeys(row["value_bytes"] for row in rows):
        of_size = [row for row in rows if row["value_bytes"] == size]
        stem = f"{Path(name).stem}-{size}B"
        plots.append(Plot(stem, "overview", (of_size, size)))
        plots.append(Plot(f"{stem}-tails", "tails", (_tails(document, size),)))
    return lines, plots


def _losses(name: str, document: Document) -> tuple[list[str], list[Plot]]:
    runs = document["runs"]
    lines = [*_origin(name, document, "When a node is lost")]
    lines += _notes({run["system"]: run["notes"] for run in runs})
    head = ("store", "round", "failed", "seconds with errors", "longest silence s", "worst ms")
    lines += ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for run in runs:
        outage = run["outage"]
        lines.append(
            f"| {run['system']} | {run['round'] + 1} | {outage['failed']:,.0f} | "
            f"{outage['error_s']:.0f} | {outage['silent_s']:.1f} | {outage['worst_ms']:,.0f} |"
        )
    first = [run for run in runs if run["round"] == 0]
    return [*lines, ""], [Plot(Path(name).stem, "losses", (first,))]


# ---- words -----------------------------------------------------------------------------------


def _origin(name: str, document: Document, title: str) -> Iterator[str]:
    machine, settings = document["machine"], document["settings"]
    packages = ", ".join(
        f"{package} {version}" for package, version in machine["packages"].items() if version
    )
    durability = settings.get("durability", "synced")
    told = "synced before the answer" if durability == "synced" else "each store as it comes"
    yield f"## {title}: {told}\n"
    yield (
        f"{machine['when']}, commit `{machine['commit']}`; {machine['processors']} processors "
        f"({machine['processor']}), {machine['system']}, Python {machine['python']}, {packages}; "
        f"an fdatasync took {machine['sync_p50_ms']:.2f} ms (p50), the load before was "
        f"{machine['load_average']:.1f}. Seed {settings['seed']}. All of it: `{name}`.\n"
    )


def _notes(notes: Mapping[str, Sequence[str]]) -> Iterator[str]:
    told = {store: lines for store, lines in notes.items() if lines}
    for store, lines in told.items():
        yield f"- {store}: {'; '.join(lines)}."
    if told:
        yield ""


def _table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    is_rated = any(row["rate"] is not None for row in rows)
    heads = ["workload", "bytes", "rate" if is_rated else "in flight", "store", "ops/s"]
    heads += [f"{OURS} to it", "p50 ms", "p99 ms", "p99.9 ms", "CPU us/op", "others' CPUs"]
    yield "| " + " | ".join(heads) + " |"
    yield "|---|---:|---:|---|" + "---:|" * (len(heads) - 4)
    for row in rows:
        latency = row["latency_ms"]
        pace = row["rate"] if row["rate"] is not None else row["in_flight"]
        cells = [row["workload"], f"{row['value_bytes']:,}", f"{pace:,.0f}", row["system"]]
        cells += [f"{row['ops_per_s']:,.0f}", _ratio(row, rows)]
        cells += [_ms(latency[name]) for name in ("p50", "p99", "p99.9")]
        cells += [f"{sum(row['cpu_us_per_op'].values()):,.0f}", f"{row['others_cpus']:.2f}"]
        yield "| " + " | ".join(cells) + " |"
    yield ""


def _ms(value: float | None) -> str:
    """Return a latency; a dash where nothing was answered."""
    return "-" if value is None else f"{value:,.2f}"


def _ratio(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Return by how much ours is faster than this row's store, round by round."""
    if row["system"] == OURS:
        return ""
    ours = [one for one in rows if one["system"] == OURS and _kind(one) == _kind(row)]
    if not ours:
        return ""
    pairs = zip(ours[0]["ops_per_s_runs"], row["ops_per_s_runs"], strict=True)
    ratios = [mine / theirs for mine, theirs in pairs if theirs]
    return f"{statistics.median(ratios):.2f}x" if ratios else ""


def _kind(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("workload", "draw", "in_flight", "rate", "value_bytes"))


def _failures(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        if row["faults"]:
            told = ", ".join(f"{count:,} {why}" for why, count in row["faults"].items())
            where = f"{row['workload']}, {row['value_bytes']:,} B, {row['in_flight']:,} in flight"
            yield f"- **Failed**, {row['system']}, {where}: {told}."


# ---- what plots are made of --------------------------------------------------------------------


def _tails(document: Document, value_bytes: int) -> dict[str, dict[str, Histogram]]:
    """Return all latencies of each workload and pace, by store, all rounds together."""
    made: dict[str, dict[str, Histogram]] = {}
    for run in document["runs"]:
        job = run["job"]
        if job["value_bytes"] != value_bytes:
            continue
        pace = f"{job['in_flight']:,} in flight"
        if job["rate"] is not None:
            pace = f"{job['rate']:,.0f}/s"
        histogram = made.setdefault(f"{job['workload']}, {pace}", {}).setdefault(
            run["system"], Histogram()
        )
        for counts in run["tally"]["latency_ns"].values():
            histogram.merge(Histogram.from_json(counts))
    return made
