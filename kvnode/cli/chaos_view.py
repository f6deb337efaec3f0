"""What a person sees of `kvnode chaos`: the faults and the load while they last, and the verdict.

Decides wording and pictures. On a terminal a table of the nodes that changes, with the load beside
it; elsewhere a line for each fault and one for the load every few seconds, then the verdict as
lines of a name, a tab and a value. Laws: it decides nothing about the run; what is shown of a
history is escaped. Held by tests/unit/cli/test_chaos_view.py.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from kvclient.testing.checks import Finding, Kind, Verdict
from kvclient.testing.nemesis import Event
from kvclient.testing.run import Outcome, Phase
from kvclient.testing.schedule import Fault
from kvclient.testing.workloads import Load, Tally
from kvnode.cli import terminal

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

LINE_EVERY_S = 5.0
FINDINGS_SHOWN = 10
_EVENTS_SHOWN = 8
_PHASES: dict[Phase, str] = {
    "load": "under load",
    "converging": "faults are over; waiting until nothing differs",
    "reading": "reading every key",
}


class View(Protocol):
    """Is told what happens."""

    def on_event(self, event: Event) -> None:
        """A fault has begun or ended."""

    def on_phase(self, phase: Phase) -> None:
        """The run is at something else now."""

    def on_tick(self, tally: Tally) -> None:
        """A moment has passed."""


@contextmanager
def view(ids: Sequence[str], load: Load, faults: Sequence[Fault]) -> Iterator[View]:
    """Show a run from its beginning to its end."""
    print(headline(ids, load, faults), flush=True)
    if not terminal.is_terminal():
        yield Lines()
        return
    from rich.live import Live  # noqa: PLC0415 (slow: only where it is drawn)

    with Live(console=terminal.console(), refresh_per_second=8, transient=True) as live:
        yield Picture(ids, live)


def headline(ids: Sequence[str], load: Load, faults: Sequence[Fault]) -> str:
    """Return what is about to happen, in a line, with the seed that repeats it."""
    what = f"{', '.join(load.workloads)} at up to {load.rate:,.0f} operations a second"
    how_long = f"{terminal.seconds(load.seconds)} and {terminal.count(len(faults), 'fault')}"
    return f"{terminal.count(len(ids), 'node')}, {what}, {how_long}, seed {load.seed}"


class _Clock:
    """Since when, and how fast of late."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began = now()
        self._past: deque[tuple[float, int]] = deque(maxlen=8)

    @property
    def elapsed_s(self) -> float:
        return self._now() - self._began

    def rate(self, done: int) -> float:
        """Note how many are done now; return how many a second lately."""
        now = self._now()
        self._past.append((now, done))
        then, before = self._past[0]
        return (done - before) / (now - then) if now > then else 0.0


def told(tally: Tally, rate: float) -> str:
    """Return how the load does, as words."""
    return (
        f"{terminal.count(tally.done, 'operation')} ({rate:,.0f}/s), {tally.failed:,} failed, "
        f"worst {tally.worst_ms:,.0f} ms, lately {tally.latest_worst_ms:,.0f} ms"
    )


class Lines:
    """For logs and pipes."""

    def __init__(
        self, now: Callable[[], float] = time.monotonic, *, every_s: float = LINE_EVERY_S
    ) -> None:
        self._clock = _Clock(now)
        self._every_s = every_s
        self._next_s = every_s

    def on_event(self, event: Event) -> None:
        """Print it."""
        self._say(f"{event.fault} {event.what}")

    def on_phase(self, phase: Phase) -> None:
        """Print it."""
        self._say(_PHASES[phase])

    def on_tick(self, tally: Tally) -> None:
        """Print how the load does, now and then."""
        rate = self._clock.rate(tally.done)
        if self._clock.elapsed_s >= self._next_s:
            self._next_s += self._every_s
            self._say(told(tally, rate))
            tally.latest_worst_ms = 0.0

    def _say(self, text: str) -> None:
        print(f"{self._clock.elapsed_s:.1f} s\t{text}", flush=True)


class Picture:
    """For terminals: the nodes with what they suffer, what happened last, and the load."""

    def __init__(
        self, ids: Sequence[str], live: Live, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._ids = ids
        self._live = live
        self._clock = _Clock(now)
        self._active: list[Fault] = []
        self._events: deque[str] = deque(maxlen=_EVENTS_SHOWN)
        self._phase: Phase = "load"
        self._load = ""
        self._since_s = 0.0

    def on_event(self, event: Event) -> None:
        """Show it."""
        if event.what == "begun":
            self._active.append(event.fault)
        elif event.fault in self._active:
            self._active.remove(event.fault)
        self._events.append(f"{self._clock.elapsed_s:7.1f} s  {event.fault} {event.what}")
        self._live.update(self.drawn())

    def on_phase(self, phase: Phase) -> None:
        """Show it."""
        self._phase = phase
        self._live.update(self.drawn())

    def on_tick(self, tally: Tally) -> None:
        """Show how the load does."""
        self._load = told(tally, self._clock.rate(tally.done))
        if self._clock.elapsed_s - self._since_s >= LINE_EVERY_S:
            self._since_s = self._clock.elapsed_s
            tally.latest_worst_ms = 0.0
        self._live.update(self.drawn())

    def drawn(self) -> RenderableType:
        """Return the picture as it is now."""
        from rich.console import Group  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        nodes = Table.grid(padding=(0, 2))
        for name in self._ids:
            suffers = [str(each) for each in self._active if name in each.nodes or not each.nodes]
            style = "red" if suffers else "green"
            nodes.add_row(Text("●", style), Text(name, "bold"), Text(", ".join(suffers), style))
        at = f"{self._clock.elapsed_s:7.1f} s  {_PHASES[self._phase]}"
        events = [Text(line, "dim") for line in self._events]
        return Group(nodes, *events, Text(at, "bold"), Text(f"           {self._load}"))


# ---- the verdict -----------------------------------------------------------------------------


def show_outcome(outcome: Outcome, load: Load) -> None:
    """Print what became of a run."""
    kinds = Counter(fault.kind for fault in outcome.faults)
    listed = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))
    converged = "not in time"
    if outcome.converge_s is not None:
        converged = f"{terminal.seconds(outcome.converge_s)} after the last fault"
    rows = [
        ("faults", listed or "none"),
        *rows_of(outcome.verdict),
        *([("keys left unread", f"{outcome.unread:,}")] if outcome.unread else []),
        ("converged", converged),
        ("seed", str(load.seed)),
    ]
    _show(rows, outcome.verdict, is_sound=outcome.is_sound)


def show_verdict(verdict: Verdict) -> None:
    """Print what a history proves."""
    _show(rows_of(verdict), verdict, is_sound=verdict.is_sound)


def rows_of(verdict: Verdict) -> list[tuple[str, str]]:
    """Return a verdict as names and values."""
    errors = ", ".join(f"{count:,} {name}" for name, count in sorted(verdict.errors.items()))
    return [
        ("operations", f"{verdict.operations:,}"),
        ("failed", f"{verdict.failed:,}" + (f" ({errors})" if errors else "")),
        ("worst", f"{verdict.worst_ms:,.0f} ms"),
        *((_plural(kind), f"{verdict.count(kind):,}") for kind in Kind),
    ]


def _plural(kind: Kind) -> str:
    match kind:
        case Kind.UNKNOWN:
            return "values from nowhere"
        case Kind.RESURFACED:
            return "replaced siblings that came back"
        case _:
            return f"{kind.value}s"


def _show(rows: Sequence[tuple[str, str]], verdict: Verdict, *, is_sound: bool) -> None:
    width = max(len(name) for name, _ in rows) + 3 if terminal.is_terminal() else 0
    for name, value in [*rows, ("verdict", "sound" if is_sound else "NOT SOUND")]:
        print(f"{name:<{width}}{value}" if width else f"{name}\t{value}")
    for finding in verdict.findings[:FINDINGS_SHOWN]:
        print(line_of(finding))
    if (more := len(verdict.findings) - FINDINGS_SHOWN) > 0:
        print(f"and {more:,} more")


def line_of(finding: Finding) -> str:
    """Return a finding as a line."""
    where = f"{finding.keyspace}/{finding.key}"
    text = f"{finding.kind}: {where}, operation {finding.op}: {finding.text}"
    return terminal.printable(text.encode())
