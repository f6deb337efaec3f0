"""`conflicts`: which keys have concurrent versions, and which of them have been settled.

Laws: every node that answers is asked to its last page, and who does not is named; an open conflict
is shown once, with what all its owners hold; so is a settled one.
Tests: tests/unit/cli/test_conflicts.py.
"""

from __future__ import annotations

from kvclient.conflicts import merged_conflicts
from kvclient.results import Conflict, Sibling
from kvnode.cli import target, terminal, wire
from kvnode.cli.arguments import Arguments
from kvnode.cli.errors import CommandError
from kvproto import kv_pb2

_COLUMNS = ("keyspace", "key", "version", "written", "votes", "outcome", "value", "settled")
_VALUE_MAX = 60


def conflicts(arguments: Arguments) -> int:
    """List keys with concurrent versions: the open ones, then those that were settled."""
    known = wire.topology(target.reachable(arguments))
    if known is None:
        raise CommandError(target.nobody(target.addresses_of(arguments), arguments))
    members = {member.address: member.id for member in known.members}
    request = kv_pb2.ListConflictsRequest(
        keyspace=arguments.keyspace or "", limit=arguments.limit, state=arguments.state or ""
    )
    pages, silent = _pages(members, request)
    listed = merged_conflicts(pages)
    opened = [one for one in listed if one.is_open]
    settled = [one for one in listed if not one.is_open]
    rows = [row for conflict in opened[: arguments.limit] for row in _open_rows(conflict)]
    rows += [row for conflict in settled[: arguments.limit] for row in _settled_rows(conflict)]
    if rows or not terminal.is_terminal():
        terminal.table(_COLUMNS, rows, right="votes")
    if terminal.is_terminal():
        print(f"{terminal.count(len(opened), 'open conflict')}, {len(settled):,} settled")
    if silent:
        raise CommandError(f"not asked, since not reached: {', '.join(silent)}")
    return 0


def _pages(
    members: dict[str, str], request: kv_pb2.ListConflictsRequest
) -> tuple[list[list[kv_pb2.Conflict]], list[str]]:
    """Return what each node lists, up to about the limit of each state, and who did not answer."""
    found: dict[str, list[kv_pb2.Conflict]] = {address: [] for address in members}
    after = dict.fromkeys(members, b"")
    silent = []
    while after:
        asked, after = after, {}
        for address, start in asked.items():
            page = _page(address, request, start)
            if isinstance(page, str):
                silent.append(members[address])
                continue
            found[address] += page.conflicts
            if page.next and len(found[address]) <= 2 * request.limit:
                after[address] = page.next
    return list(found.values()), silent


def _page(
    address: str, asked: kv_pb2.ListConflictsRequest, start: bytes
) -> kv_pb2.ListConflictsResponse | str:
    request = kv_pb2.ListConflictsRequest()
    request.CopyFrom(asked)
    request.after = start
    parse = kv_pb2.ListConflictsResponse.FromString
    return wire.ask_all([address], "ListConflicts", request, parse)[address]


def _open_rows(conflict: Conflict) -> list[list[str]]:
    return [
        _row(conflict, one, _votes(conflict, one), "leads" if one.has_won else "-", _value(one))
        for one in conflict.siblings
    ]


def _settled_rows(conflict: Conflict) -> list[list[str]]:
    """Return the winner's row, with the rule, and one for each loser."""
    winner = conflict.winner
    rows = []
    if winner is not None:
        value = _value(winner) if conflict.has_value else "-"
        rows.append(_row(conflict, winner, "-", f"won: {conflict.rule}", value))
    return rows + [
        _row(conflict, one, _votes(conflict, one), "lost", _value(one)) for one in conflict.siblings
    ]


def _row(conflict: Conflict, one: Sibling, votes: str, outcome: str, value: str) -> list[str]:
    return [
        conflict.keyspace,
        terminal.printable(conflict.key),
        one.dot,
        terminal.instant(one.timestamp),
        votes,
        outcome,
        value,
        "-" if conflict.is_open else terminal.instant(conflict.settled_ms << 16),
    ]


def _votes(conflict: Conflict, one: Sibling) -> str:
    return str(list(conflict.votes.values()).count(one.dot))


def _value(one: Sibling) -> str:
    return "deleted" if one.is_tombstone else terminal.printable(one.value)[:_VALUE_MAX]
