"""`get`, `put`, `delete`: one request each.

Decides how a value comes in (a word, @FILE, or - for stdin) and how it goes out: raw bytes in a
pipe; escaped, with a newline, on a terminal. Laws: what was put from a file comes out of a pipe
byte by byte; an absent key is exit 1 and a line on stderr, never an empty value. Held by
tests/unit/cli/test_data.py. Leaves out retries and routing: kvclient.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import kvclient
from kvnode.cli import target, terminal
from kvnode.cli.arguments import Arguments
from kvnode.cli.errors import FAILED, CommandError

_INPUT_MAX = 64 * 1024 * 1024
"""Far above what a cluster takes (it refuses with both sizes), so that @/dev/zero ends too."""


def get(arguments: Arguments) -> int:
    """Print the value of a key, or with --explain how it came about."""
    with _keyspace(arguments) as keyspace:
        record = keyspace.get_record(
            arguments.key, r=arguments.r, timeout=arguments.timeout, explain=arguments.explain
        )
    if arguments.explain and record is not None:
        _show_explanation(record)
        return 0 if record.value is not None else FAILED
    if record is None:
        print(f"kvnode: no value under {terminal.printable(arguments.key)}", file=sys.stderr)
        return FAILED
    terminal.show_value(_single(record))
    return 0


def put(arguments: Arguments) -> int:
    """Store a value."""
    value = _value(arguments.value)
    with _keyspace(arguments) as keyspace:
        result = keyspace.put(
            arguments.key, value, ttl=arguments.ttl, w=arguments.w, timeout=arguments.timeout
        )
    print(f"stored {terminal.size(len(value))} on {', '.join(sorted(result.acked_by))}")
    return 0


def delete(arguments: Arguments) -> int:
    """Delete a key; deleting an absent one is no error."""
    with _keyspace(arguments) as keyspace:
        result = keyspace.delete(arguments.key, w=arguments.w, timeout=arguments.timeout)
    print(f"deleted on {', '.join(sorted(result.acked_by))}")
    return 0


@contextmanager
def _keyspace(arguments: Arguments) -> Iterator[kvclient.Keyspace]:
    """Open the keyspace of --keyspace for one request.

    Raises: CommandError, when nobody is there at all (which Unavailable alone does not tell).
    """
    addresses = target.reachable(arguments)
    with kvclient.Client(addresses, timeout=arguments.timeout) as client:
        yield client.keyspace(arguments.keyspace)


def _single(record: kvclient.Record) -> bytes:
    """Return the one value; several are for --explain, a pipe must not get just one of them."""
    live = {one.value for one in record.siblings if not one.is_tombstone}
    if record.confidence == "siblings" and len(live) > 1:
        raise CommandError(
            f"{len(live)} concurrent values: this keyspace leaves it to its users to merge them; "
            "`kvnode get --explain` shows them"
        )
    assert record.value is not None
    return record.value


def _value(word: str) -> bytes:
    if word == "-":
        return _limited(sys.stdin.buffer, "standard input")
    if not word.startswith("@"):
        return os.fsencode(word)
    try:
        with open(word[1:], "rb") as file:  # noqa: PTH123 (a path as typed, bytes and all)
            return _limited(file, word[1:])
    except FileNotFoundError:
        raise CommandError(f"file not found: {word[1:]}") from None


def _limited(source: BinaryIO, name: str) -> bytes:
    value = source.read(_INPUT_MAX + 1)
    if len(value) > _INPUT_MAX:
        limit = terminal.size(_INPUT_MAX)
        raise CommandError(f"{name} is larger than {limit}: `kvnode load` stores large files")
    return value


# ---- how it came about ----------------------------------------------------------------------


def _show_explanation(record: kvclient.Record) -> None:
    value = "absent" if record.value is None else terminal.printable(record.value)
    print(f"value       {value if len(value) <= 200 else value[:200] + ' …'}")
    print(f"decided by  {_rule(record)} ({record.confidence})")
    if record.value is not None:
        print(f"written     {terminal.instant(record.timestamp)}")
    if record.explain is None:
        return
    print(f"repaired    {', '.join(record.explain.repaired) or 'nobody: nothing to mend'}")
    print()
    columns = ("replica", "part", "answer", "latency", "versions", "vote", "checksum", "proven")
    rows = [_replica(report) for report in record.explain.replicas]
    terminal.table(columns, rows, right="latency")
    if len(record.siblings) > 1:
        print()
        _show_siblings(record)


def _rule(record: kvclient.Record) -> str:
    return record.explain.rule if record.explain else "agreement"


def _replica(report: kvclient.ReplicaReport) -> list[str]:
    return [
        report.node,
        "primary" if report.is_primary else "fallback",
        report.answer,
        f"{report.latency_ms:.1f} ms",
        ", ".join(report.versions) or "-",
        report.vote or "-",
        report.checksum or "-",
        "yes" if report.is_proven else "no",
    ]


def _show_siblings(record: kvclient.Record) -> None:
    votes = list(record.votes.values())
    rows = [
        [one.dot, terminal.instant(one.timestamp), str(votes.count(one.dot)),
         "won" if one.has_won else "-",
         "deleted" if one.is_tombstone else terminal.printable(one.value)[:60]]
        for one in record.siblings
    ]  # fmt: skip
    terminal.table(("version", "written", "votes", "outcome", "value"), rows, right="votes")
