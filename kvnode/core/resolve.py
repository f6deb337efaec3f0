"""Which sibling a reader gets: the value that most owners voted for.

Only concurrent versions come here; causal order has been applied before. The rules, in order
(design, section 2.5):

1. Equal bytes are one value; tombstones and expired versions together are absence. One value
   left: no conflict.
2. Each owner counts once, for the newest (by HLC, then dot) survivor that it voted for.
3. Most votes win. A tie goes to the value of the newest version that got a vote; with no votes
   at all, to the newest version.
4. If the leader's lead is not greater than the number of owners unheard, it is provisional.

Laws: the outcome is a function of survivors, votes, owners heard and the instant; neither the
order of repair nor who holds which copy changes it. Of two verdicts on one record, whenever they
were given, one's losers are among the other's; so what both leave holds the answer.
Tests: tests/unit/core/test_resolve.py, tests/property/test_vote_rules.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, assert_never

from kvnode.core.topology import Resolve
from kvnode.core.versions import Dot, Record, Version

_ABSENCE = None
Value = bytes | None
"""What a reader would get: bytes, or None for absence."""


class Confidence(IntEnum):
    """How an answer came about. The numbers are those of the wire (kvnode.v1.Confidence)."""

    AGREED = 0
    VOTED = 1
    PROVISIONAL = 2
    NEWEST = 3
    SIBLINGS = 4
    STAND_INS = 5


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome for one key."""

    winner: Version | None
    """The newest version of the winning value; None if there is no version at all."""
    confidence: Confidence
    rule: str
    """One line for people: which rule decided."""


class Verdict(NamedTuple):
    """How a conflict is settled."""

    winner: Version
    losers: tuple[Dot, ...]
    """In order: the versions of other values than the winner's."""
    rule: str


def is_conflict(record: Record, now_ms: int) -> bool:
    """Say whether readers could see more than one value."""
    if len(record.versions) < 2:
        return False
    return len({_value(version, now_ms) for version in record.versions}) > 1


def decide(
    record: Record, *, owners: Sequence[int], unheard: int, now_ms: int, resolve: Resolve
) -> Decision:
    """Return what a reader gets.

    Args:
        record: the join of all that was heard.
        owners: the numbers of the key's n owners.
        unheard: how many of them have not answered, or cannot be believed.
        now_ms: cluster time at which expiry is judged, once.
        resolve: the keyspace's rule.
    """
    if not record.versions:
        return Decision(None, Confidence.AGREED, "no version is held")
    newest = max(record.versions, key=_age)
    if not is_conflict(record, now_ms):
        return Decision(newest, Confidence.AGREED, "one value")
    match resolve:
        case Resolve.NEWEST:
            return Decision(newest, Confidence.NEWEST, "concurrent versions: the newest by HLC")
        case Resolve.SIBLINGS:
            return Decision(newest, Confidence.SIBLINGS, "concurrent versions: left to the client")
        case Resolve.MAJORITY:
            return _majority(record, owners, unheard, now_ms)
    assert_never(resolve)


def settle(
    record: Record, *, owners: Sequence[int], now_ms: int, resolve: Resolve
) -> Verdict | None:
    """Return which versions may leave, given that all owners hold this very record; None: no
    version may, or not yet.

    Versions expire, and two owners may judge at different instants. Each could then cut what the
    other keeps. So losers are named only if whatever is decided later cuts no more than that.

    Args:
        record: what every owner holds, votes included.
        owners: the numbers of the key's n owners.
        now_ms: cluster time.
        resolve: the keyspace's rule.
    """
    if resolve is Resolve.SIBLINGS:
        return None
    decision, losers = _judge(record, owners, now_ms, resolve)
    if not losers or decision.winner is None:
        return None
    cut = frozenset(losers)
    for later_ms in sorted({one.expires_ms for one in record.versions if one.expires_ms > now_ms}):
        still = frozenset(_judge(record, owners, later_ms, resolve)[1])
        if not still <= cut:
            return None
        cut = still
    return Verdict(decision.winner, losers, decision.rule)


def _judge(
    record: Record, owners: Sequence[int], now_ms: int, resolve: Resolve
) -> tuple[Decision, tuple[Dot, ...]]:
    decision = decide(record, owners=owners, unheard=0, now_ms=now_ms, resolve=resolve)
    if decision.winner is None:
        return decision, ()
    value = _value(decision.winner, now_ms)
    return decision, tuple(one.dot for one in record.versions if _value(one, now_ms) != value)


def counted_votes(record: Record, owners: Sequence[int]) -> dict[int, Dot]:
    """Return for each owner that voted the newest survivor that it voted for."""
    age = {version.dot: _age(version) for version in record.versions}
    counted: dict[int, Dot] = {}
    for owner, dot in record.votes:
        if owner in owners and (owner not in counted or age[dot] > age[counted[owner]]):
            counted[owner] = dot
    return counted


def _majority(record: Record, owners: Sequence[int], unheard: int, now_ms: int) -> Decision:
    versions = {version.dot: version for version in record.versions}
    tally: dict[Value, list[Version]] = {}
    for dot in counted_votes(record, owners).values():
        tally.setdefault(_value(versions[dot], now_ms), []).append(versions[dot])
    ranking = sorted(tally.values(), key=lambda votes: (len(votes), max(map(_age, votes))))
    if not ranking:
        winner, lead, rule = max(record.versions, key=_age), 0, "no votes: the newest by HLC"
    else:
        rival = len(ranking[-2]) if len(ranking) > 1 else 0
        lead = len(ranking[-1]) - rival
        winner = _newest_of_value(record, ranking[-1][0], now_ms)
        rule = _describe(len(ranking[-1]), rival)
    if unheard and lead <= unheard:
        rule += f"; provisional: {unheard} of {len(owners)} owners unheard"
        return Decision(winner, Confidence.PROVISIONAL, rule)
    return Decision(winner, Confidence.VOTED, rule)


def _describe(votes: int, rival: int) -> str:
    if votes == rival:
        return f"a tie of {votes} to {rival} votes: the newest that got one"
    return f"most votes: {votes} to {rival}"


def _newest_of_value(record: Record, like: Version, now_ms: int) -> Version:
    value = _value(like, now_ms)
    return max((v for v in record.versions if _value(v, now_ms) == value), key=_age)


def _value(version: Version, now_ms: int) -> Value:
    return _ABSENCE if version.is_absence(now_ms) else version.value


def _age(version: Version) -> tuple[int, Dot]:
    return version.timestamp, version.dot
