"""What several nodes list of conflicts, as one list.

    open      one for each key: its versions by dot, the votes of all
    settled   one for each key, instant and winner: what lost, by dot

Laws: the order of nodes and pages does not matter; an owner's vote is for the newest that it voted
for; a version is listed as lost once, as of the first time that it was logged, and not at all while
another node still lists it as open.
Left out: who leads is what nodes said, each by the votes that it knows, so several may.
Tests: tests/unit/client/test_conflicts.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import chain

from kvclient.codec import newest_votes, sibling_of, votes_of
from kvclient.results import Conflict, Sibling
from kvproto import kv_pb2 as pb

_Name = tuple[str, bytes]


def merged_conflicts(pages: Iterable[Sequence[pb.Conflict]]) -> list[Conflict]:
    """Return what nodes list: the open ones by key, then the settled ones by key and time."""
    opened: dict[_Name, Conflict] = {}
    lost: dict[tuple[str, bytes, str], Conflict] = {}
    for conflict in map(conflict_of, chain.from_iterable(pages)):
        name = (conflict.keyspace, conflict.key)
        if conflict.is_open:
            before = opened.get(name)
            opened[name] = conflict if before is None else _union(before, conflict)
            continue
        for one in conflict.siblings:
            alone = _with_siblings(conflict, (one,))
            known = lost.setdefault((*name, one.dot), alone)
            if alone.settled_ms < known.settled_ms:
                lost[*name, one.dot] = alone
    settled: dict[tuple[str, bytes, int, str], Conflict] = {}
    for (keyspace, key, dot), alone in lost.items():
        holder = opened.get((keyspace, key))
        if holder is None or all(one.dot != dot for one in holder.siblings):
            winner = "" if alone.winner is None else alone.winner.dot
            place = (keyspace, key, alone.settled_ms, winner)
            settled[place] = _union(settled[place], alone) if place in settled else alone
    return [opened[name] for name in sorted(opened)] + [settled[name] for name in sorted(settled)]


def conflict_of(conflict: pb.Conflict) -> Conflict:
    """Return a conflict as a value."""
    siblings = tuple(map(sibling_of, conflict.siblings))
    return Conflict(
        conflict.keyspace,
        conflict.key,
        siblings,
        votes_of(conflict.votes, siblings),
        conflict.settled_ms,
        conflict.rule,
        sibling_of(conflict.winner) if conflict.HasField("winner") else None,
        conflict.winner_held,
    )


def _union(one: Conflict, other: Conflict) -> Conflict:
    siblings: dict[str, Sibling] = {}
    for sibling in (*one.siblings, *other.siblings):
        if sibling.dot not in siblings or sibling.has_won:
            siblings[sibling.dot] = sibling
    votes = (*one.votes.items(), *other.votes.items())
    known = one if one.has_value or not other.has_value else other
    return Conflict(
        one.keyspace,
        one.key,
        tuple(siblings[dot] for dot in sorted(siblings)),
        newest_votes((node, siblings[dot]) for node, dot in votes if dot in siblings),
        one.settled_ms,
        one.rule,
        known.winner,
        known.has_value,
    )


def _with_siblings(conflict: Conflict, siblings: tuple[Sibling, ...]) -> Conflict:
    return replace(conflict, siblings=siblings)
