"""What `kvnode chaos` shows: lines in a pipe, a picture on a terminal, a verdict on both."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console

from kvclient.testing.checks import Finding, Kind, Verdict
from kvclient.testing.nemesis import Event
from kvclient.testing.run import Outcome
from kvclient.testing.schedule import Fault
from kvclient.testing.workloads import Load, Tally
from kvnode.cli import terminal
from kvnode.cli.chaos_view import (
    FINDINGS_SHOWN,
    Lines,
    Picture,
    headline,
    show_outcome,
    show_verdict,
    view,
)

KILL = Fault(at_s=1, kind="kill", nodes=("n2",))
HALVES = Fault(at_s=9, kind="halves")
IDS = ("n1", "n2", "n3")


class Time:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def tally(done: int, *, failed: int = 0, worst_ms: float = 7.0) -> Tally:
    return Tally(done, failed, worst_ms, worst_ms)


def verdict(*findings: Finding) -> Verdict:
    ends = Counter({"ok": 1_234, "uncertain": 2})
    return Verdict(1_236, ends, Counter({"Uncertain": 2}), 81.4, findings)


LOST = Finding(Kind.LOST, "default", "k\x1b[2J", 7, 3, "3.1 was read after operation 3")


def test_a_headline_names_the_seed_that_repeats_it() -> None:
    load = Load(workloads=("set", "register"), seconds=30, rate=500, seed=42)
    assert headline(IDS, load, [KILL]) == (
        "3 nodes, set, register at up to 500 operations a second, 30.0 s and 1 fault, seed 42"
    )


def test_in_a_pipe_faults_are_lines_at_once_and_the_load_is_one_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    time = Time()
    lines = Lines(time, every_s=5)
    lines.on_phase("load")
    lines.on_tick(tally(0))
    time.now += 2
    lines.on_event(Event("begun", KILL))
    lines.on_tick(tally(1_000))
    time.now += 3
    lines.on_tick(tally(2_500, failed=1))
    time.now += 0.1
    lines.on_tick(tally(2_600))
    assert capsys.readouterr().out.splitlines() == [
        "0.0 s\tunder load",
        "2.0 s\tkill n2 begun",
        "5.0 s\t2,500 operations (500/s), 1 failed, worst 7 ms, lately 7 ms",
    ]


def test_the_latest_worst_begins_anew_with_each_line() -> None:
    time, told = Time(), tally(10)
    lines = Lines(time, every_s=5)
    time.now += 5
    lines.on_tick(told)
    assert (told.latest_worst_ms, told.worst_ms) == (0.0, 7.0)


class Live:
    """Keeps what was last drawn."""

    def __init__(self) -> None:
        self.text = ""

    def update(self, drawn: object) -> None:
        console = Console(file=io.StringIO(), width=100)
        console.print(drawn)
        self.text = console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def live() -> Live:
    return Live()


def test_on_a_terminal_each_node_shows_what_it_suffers(live: Live) -> None:
    picture = Picture(IDS, live, Time())  # type: ignore[arg-type]
    picture.on_event(Event("begun", KILL))
    assert live.text.count("kill n2") == 2  # at the node, and among what happened
    picture.on_event(Event("ended", KILL))
    assert live.text.count("kill n2") == 2  # begun, ended
    picture.on_event(Event("begun", HALVES))
    assert live.text.count("halves") == len(IDS) + 1


def test_on_a_terminal_the_load_and_the_phase_are_shown(live: Live) -> None:
    picture = Picture(IDS, live, Time())  # type: ignore[arg-type]
    picture.on_tick(tally(1_000, failed=3))
    assert "1,000 operations" in live.text
    assert "3 failed" in live.text
    picture.on_phase("reading")
    assert "reading every key" in live.text


def test_what_was_passed_over_is_not_suffered(live: Live) -> None:
    picture = Picture(IDS, live, Time())  # type: ignore[arg-type]
    picture.on_event(Event("passed over", KILL))
    assert live.text.count("kill n2 passed over") == 1
    assert picture._active == []


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_view_fits_where_it_is_shown(
    is_terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "is_terminal", lambda: is_terminal)
    with view(IDS, Load(), []) as shown:
        shown.on_phase("load")
        assert isinstance(shown, Picture if is_terminal else Lines)
    assert "3 nodes, mixed" in capsys.readouterr().out


def test_a_sound_outcome_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    show_outcome(Outcome(verdict(), 0.42, (KILL, KILL, HALVES)), Load(seed=42))
    assert capsys.readouterr().out.splitlines() == [
        "faults\t1 halves, 2 kill",
        "operations\t1,236",
        "failed\t2 (2 Uncertain)",
        "worst\t81 ms",
        "lost acknowledged writes\t0",
        "zombies\t0",
        "stale reads\t0",
        "visible not-applied writes\t0",
        "replaced siblings that came back\t0",
        "values from nowhere\t0",
        "converged\t0.42 s after the last fault",
        "seed\t42",
        "verdict\tsound",
    ]


def test_what_never_converged_is_not_sound(capsys: pytest.CaptureFixture[str]) -> None:
    show_outcome(Outcome(verdict(), None, ()), Load())
    said = capsys.readouterr().out.splitlines()
    assert "converged\tnot in time" in said
    assert said[-1] == "verdict\tNOT SOUND"


def test_what_was_not_read_is_told_and_is_not_sound(capsys: pytest.CaptureFixture[str]) -> None:
    show_outcome(Outcome(verdict(), 0.1, (), unread=1_200), Load())
    said = capsys.readouterr().out.splitlines()
    assert "keys left unread\t1,200" in said
    assert said[-1] == "verdict\tNOT SOUND"


def test_findings_are_told_escaped_and_not_without_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "is_terminal", lambda: True)
    show_verdict(verdict(*[LOST] * (FINDINGS_SHOWN + 2)))
    said = capsys.readouterr().out.splitlines()
    assert "\x1b" not in "".join(said)
    assert said[-1] == "and 2 more"
    assert said[-2] == (
        r"lost acknowledged write: default/k\x1b[2J, operation 7: 3.1 was read after operation 3"
    )
    assert said[:2] == [
        "operations                         1,236",
        "failed                             2 (2 Uncertain)",
    ]  # fmt: skip
