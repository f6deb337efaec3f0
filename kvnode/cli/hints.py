"""`hints`, `wait-converged`: what nodes keep for others, and whether the cluster is at rest.

Decides how the ledgers of all nodes are shown together, and what is told while one waits. Laws:
every member is listed however many are dead; progress goes to stderr; what is still outstanding at
the time-out is named. Held by tests/unit/cli/test_hints.py. Leaves out what rest means: kvclient.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import kvclient
from kvnode.cli import target, terminal
from kvnode.cli.arguments import Arguments
from kvnode.cli.errors import CommandError

Ledgers = dict[str, tuple[kvclient.HintLedger, ...] | None]

_FIND_S = 5.0
_LINE_EVERY_S = 5.0
_COLUMNS = ("node", "for", "pending", "bytes", "oldest", "delivered", "dropped", "refused")


# ---- hints -----------------------------------------------------------------------------------


def hints(arguments: Arguments) -> int:
    """Show what every node keeps for others."""
    with _client(arguments) as client:
        ledgers = client.hints()
    if all(kept is None for kept in ledgers.values()):
        raise CommandError("no node answered: is the cluster busy, or halted?")
    if arguments.json:
        print(json.dumps({"nodes": _as_json(ledgers)}, indent=2))
        return 0
    now_ms = time.time() * 1000
    rows = [row for node, kept in ledgers.items() for row in _rows(node, kept, now_ms)]
    terminal.table(_COLUMNS, rows, right="pending,bytes,oldest,delivered,dropped,refused")
    if terminal.is_terminal():
        print(f"\n{_summary(ledgers)}")
    return 0


def _rows(
    node: str, kept: tuple[kvclient.HintLedger, ...] | None, now_ms: float
) -> Iterator[list[str]]:
    if not kept:
        yield [node, "no answer" if kept is None else "nobody", *["-"] * 6]
        return
    for each in kept:
        age_s = max(0.0, now_ms - each.oldest_ms) / 1000
        dropped = ", ".join(f"{count:,} {why}" for why, count in each.dropped.items())
        yield [
            node,
            each.owner,
            terminal.count(each.pending),
            terminal.size(each.bytes),
            terminal.seconds(age_s) if each.oldest_ms else "-",
            terminal.count(each.delivered),
            dropped or "0",
            terminal.count(each.refused),
        ]


def _summary(ledgers: Ledgers) -> str:
    known = [kept for kept in ledgers.values() if kept is not None]
    pending = sum(each.pending for kept in known for each in kept)
    silent = len(ledgers) - len(known)
    unknown = f"; {terminal.count(silent, 'node')} did not answer" if silent else ""
    return f"{terminal.count(pending, 'hint')} pending{unknown}"


def _as_json(ledgers: Ledgers) -> list[dict[str, object]]:
    return [
        {"id": node, "hints": None if kept is None else [_ledger_json(each) for each in kept]}
        for node, kept in ledgers.items()
    ]


def _ledger_json(each: kvclient.HintLedger) -> dict[str, object]:
    return {
        "owner": each.owner,
        "pending": each.pending,
        "bytes": each.bytes,
        "oldest_ms": each.oldest_ms or None,
        "delivered": each.delivered,
        "dropped": dict(each.dropped),
        "refused": each.refused,
    }


# ---- wait-converged --------------------------------------------------------------------------


def wait(arguments: Arguments) -> int:
    """Wait until no hint is pending, nothing is unproven and all owners hold the same."""
    began = time.monotonic()
    with _client(arguments) as client, _told() as tell:
        client.wait_converged(arguments.timeout, watch=tell)
    print(f"converged in {terminal.seconds(time.monotonic() - began)}")
    return 0


@contextmanager
def _told() -> Iterator[Callable[[kvclient.Convergence], None]]:
    """Show what is outstanding: in place on a terminal, else as a line now and then."""
    if not terminal.is_terminal(sys.stderr):
        yield Lines()
        return
    with terminal.console(stderr=True).status("asking all nodes") as shown:
        yield lambda found: shown.update(str(found))


class Lines:
    """A line of text now and then, for logs and pipes."""

    def __init__(self, *, every_s: float = _LINE_EVERY_S) -> None:
        self._every_s = every_s
        self._next = time.monotonic() + every_s

    def __call__(self, found: kvclient.Convergence) -> None:
        """Tell, if it is time."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + self._every_s
            print(f"waiting: {found}", file=sys.stderr, flush=True)


@contextmanager
def _client(arguments: Arguments) -> Iterator[kvclient.Client]:
    """Raises: CommandError, when nobody is there."""
    addresses = target.reachable(arguments)
    with kvclient.Client(addresses, timeout=_FIND_S, session=False) as client:
        yield client
