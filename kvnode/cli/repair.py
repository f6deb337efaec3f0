"""`repair`: has every node compare what it holds with the other owners, and shows how far that is.

Decides what of all nodes' progress is shown, and when there is nothing left to wait for. Laws: a
repair goes on in the nodes whether or not anyone watches; interrupted and called again, it goes on
where it was; exit 0 only if every pair of owners was compared. Held by
tests/unit/cli/test_repair.py. Leaves out the comparing: the nodes do it, at their rate limit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kvnode.cli import target, terminal, wire
from kvnode.cli.arguments import Arguments, spelled
from kvnode.cli.errors import CommandError, UsageError
from kvproto import kv_pb2

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

POLL_S = 0.25
LINE_EVERY_S = 5.0
_ROWS_MAX = 20

Answers = Mapping[str, "kv_pb2.Repair | None"]
"""By node; None for one that did not answer."""
Show = Callable[["View"], None]


class _Message(Protocol):
    def SerializeToString(self) -> bytes: ...  # noqa: N802 (protobuf's name)


@dataclass(frozen=True, slots=True)
class View:
    """The repairs of all nodes, put together."""

    lines: tuple[tuple[str, kv_pb2.RepairLine], ...]
    """With the node that compares."""
    silent: tuple[str, ...]
    states: Mapping[str, str]

    @classmethod
    def of(cls, answers: Answers) -> View:
        """Put together what nodes answered."""
        said = {node: answer for node, answer in answers.items() if answer is not None}
        return cls(
            tuple((node, line) for node, answer in said.items() for line in answer.lines),
            tuple(node for node in answers if node not in said),
            {node: answer.state for node, answer in said.items()},
        )

    @property
    def left(self) -> list[tuple[str, kv_pb2.RepairLine]]:
        """What is not done."""
        return [(node, line) for node, line in self.lines if line.state != "done"]

    @property
    def done(self) -> int:
        """How many pairs of owners were compared and are equal."""
        return len(self.lines) - len(self.left)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen: what is left was cancelled, or waits for the silent."""
        return not any(
            self.states[node] == "running" and line.peer not in self.silent
            for node, line in self.left
        )

    def total(self, column: str) -> int:
        """Return a sum over all lines."""
        return sum(getattr(line, column) for _, line in self.lines)


def repair(arguments: Arguments) -> int:
    """Begin a repair and show it until it is over; or only show, or cancel, what is going on."""
    known = wire.topology(target.reachable(arguments))
    if known is None:
        raise CommandError(target.nobody(target.addresses_of(arguments), arguments))
    for number in arguments.partition:
        if number >= known.partitions:
            raise UsageError(f"--partition: this cluster has 0 to {known.partitions - 1:,}")
    members = {member.address: member.id for member in known.members}
    if arguments.cancel:
        return _cancel(members)
    began = time.monotonic()
    start = kv_pb2.StartRepairRequest(partitions=sorted(set(arguments.partition)))
    answers = _ask(members, "GetRepair" if arguments.watch else "StartRepair", start)
    if arguments.watch and all(one is None or one.state == "none" for one in answers.values()):
        raise CommandError("no repair is going on: `kvnode repair` begins one")
    with _shown(len(View.of(answers).lines)) as show:
        view = _watched(members, answers, show, None if arguments.watch else start)
    return _end(view, time.monotonic() - began, arguments)


def _watched(
    members: dict[str, str],
    answers: Answers,
    show: Show,
    start: kv_pb2.StartRepairRequest | None,
) -> View:
    """Look again and again until it is over. A node that has restarted meanwhile is asked anew."""
    while True:
        view = View.of(answers)
        show(view)
        fresh = [a for a, node in members.items() if start and view.states.get(node) == "none"]
        if view.is_over and not fresh:
            return view
        time.sleep(POLL_S)
        if start and fresh:
            _ask({address: members[address] for address in fresh}, "StartRepair", start)
        answers = _ask(members, "GetRepair", kv_pb2.GetRepairRequest())


def _cancel(members: dict[str, str]) -> int:
    answers = _ask(members, "CancelRepair", kv_pb2.CancelRepairRequest())
    view = View.of(answers)
    broken = [node for node, state in view.states.items() if state == "cancelled"]
    if not broken:
        print("nothing to cancel: no repair is going on")
    else:
        print(f"cancelled: {view.done:,} of {len(view.lines):,} comparisons were done")
    if view.silent:
        raise CommandError(f"not reached: {', '.join(view.silent)}")
    return 0


def _ask(members: dict[str, str], method: str, request: _Message) -> Answers:
    answers = wire.ask_all(members, method, request, kv_pb2.Repair.FromString)
    said = {members[address]: answer for address, answer in answers.items()}
    return {node: None if isinstance(one, str) else one for node, one in said.items()}


# ---- what is shown ---------------------------------------------------------------------------


def _end(view: View, took_s: float, arguments: Arguments) -> int:
    """Tell how it ended. Raises: CommandError, unless all was compared."""
    _show_lines(view)
    found = f"{terminal.count(view.total('differing'), 'key')} differed"
    took = terminal.seconds(took_s)
    print(f"{_progress(view)} in {took}: {found}, {view.total('mended'):,} mended")
    if "cancelled" in view.states.values():
        raise CommandError(f"cancelled: `{spelled('repair', arguments.data)}` goes on with it")
    if view.silent:
        names = ", ".join(view.silent)
        raise CommandError(f"not reached: {names}; it is compared once it is back")
    return 0


def _progress(view: View) -> str:
    pairs = terminal.count(len(view.lines), "pair of copies", "pairs of copies")
    return f"compared {view.done:,} of {pairs}"


def _show_lines(view: View) -> None:
    """Show the partitions in which something was found or is left."""
    told = [(node, line) for node, line in view.lines if line.differing or line.state != "done"]
    told.sort(key=lambda entry: (entry[1].partition, entry[0], entry[1].peer))
    shown = told[:_ROWS_MAX] if terminal.is_terminal() else told
    rows = [
        [str(line.partition), f"{node}, {line.peer}", line.state, f"{line.differing:,}",
         f"{line.mended:,}"]
        for node, line in shown
    ]  # fmt: skip
    if rows:
        columns = ("partition", "between", "state", "differing", "mended")
        terminal.table(columns, rows, right="partition,differing,mended")
    if len(told) > len(shown):
        print(f"and {len(told) - len(shown):,} more")


@contextmanager
def _shown(pairs: int) -> Iterator[Show]:
    """Show progress: a bar on a terminal, else a line now and then."""
    if not terminal.is_terminal(sys.stderr):
        yield Lines()
        return
    with _bar() as bar:
        task = bar.add_task("comparing", total=pairs, mended="")

        def show(view: View) -> None:
            mended = f"{view.total('mended'):,} of {view.total('differing'):,} mended"
            bar.update(task, total=len(view.lines), completed=view.done, mended=mended)

        yield show


class Lines:
    """A line of text now and then, for logs and pipes."""

    def __init__(self, *, every_s: float = LINE_EVERY_S) -> None:
        self._every_s = every_s
        self._next = time.monotonic() + every_s

    def __call__(self, view: View) -> None:
        """Tell, if it is time."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + self._every_s
            text = f"{_progress(view)}, {view.total('mended'):,} keys mended"
            print(text, file=sys.stderr, flush=True)


def _bar() -> Bar:
    from rich import progress  # noqa: PLC0415 (slow: only where it is drawn)

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[mended]}"),
        progress.TimeElapsedColumn(),
        console=terminal.console(stderr=True),
        transient=True,
    )
