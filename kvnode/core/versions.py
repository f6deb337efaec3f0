"""What a key *is*: a set of siblings under one context (a dotted version vector set).

Each version has a dot, (actor, counter): the name of one write. A context maps an actor to the
highest of its counters that was seen of this key, and may name single dots beside. Every state
that travels is whole: all the siblings of its holder with the context they stand under. So an
entry (a, c) means that *every* dot of `a` up to `c` for this key was seen, and a dot that is
covered but absent is superseded. Single dots are what a writer knows of its own write when
siblings stand beside it: without them its next write would bury what it never saw.

Laws: `sync` is commutative, associative and idempotent; what is covered never shrinks; a dot
that both cover and one of them no longer holds does not come back; the survivors of a put are
those that it neither saw nor (plain put) postdates. Votes are facts that travel along: `sync`
joins them and nothing here makes one but `accept`.
Tests: tests/unit/core/test_versions.py, tests/property/test_version_laws.py.
Sources: Preguiça et al., "Dotted Version Vectors" (arXiv:1011.5808), the set form of section 5;
Gonçalves et al., "DottedDB" (SRDS 2017).
Left out: encoding (kvnode.core.record), which sibling wins (kvnode.core.resolve).
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import NamedTuple

from kvnode.core.hlc import Timestamp


class Dot(NamedTuple):
    """The name of one write: `actor` is one life of a node, `counter` its n-th write (from 1)
    in the partition."""

    actor: int
    counter: int


class Context(NamedTuple):
    """What was seen of a key. Never mutated."""

    vector: Mapping[int, int]
    """actor -> highest counter; all below it are seen too."""
    dots: frozenset[Dot] = frozenset()
    """Single dots above the vector."""


class Version(NamedTuple):
    """One write's payload. A tuple, not a frozen dataclass: it is made twice or thrice for each
    operation, and a dataclass of ten fields takes four times as long (measured: 2.1 against 0.5
    microseconds)."""

    dot: Dot
    timestamp: Timestamp
    write_id: bytes
    expires_ms: int
    """Absolute, ms since 1970 in cluster time; 0: never."""
    is_tombstone: bool
    is_explicit: bool
    """Written with a context that its caller gave: it supersedes exactly what that covers."""
    type_tag: int
    """0: blob."""
    compression: int
    """0: none."""
    extension: bytes
    """Fields of later formats, kept as they came."""
    checksum: int
    """Over the key and all of the above and below: see kvnode.core.record.seal."""
    value: bytes

    def is_absence(self, now_ms: int) -> bool:
        """Say whether a reader sees nothing: deleted, or expired by cluster time `now_ms`."""
        return self.is_tombstone or 0 < self.expires_ms <= now_ms


class Vote(NamedTuple):
    """The fact that an owner accepted this dot directly from its coordinator, in time."""

    owner: int
    """The member's number in the topology."""
    dot: Dot


class Record(NamedTuple):
    """The state of one key at one holder: siblings in order of their dots, and sorted votes."""

    context: Context
    versions: tuple[Version, ...]
    votes: tuple[Vote, ...]


NOTHING_SEEN = Context({})
EMPTY = Record(NOTHING_SEEN, (), ())


def covers(context: Context, dot: Dot) -> bool:
    """Say whether `context` has seen `dot`."""
    return context.vector.get(dot.actor, 0) >= dot.counter or dot in context.dots


def covers_all(context: Context, other: Context) -> bool:
    """Say whether `context` has seen all that `other` has, and says so in no weaker form: an entry
    is covered by an entry alone, never by single dots, whatever they add up to (`join` keeps the
    stronger form, whichever side it is on)."""
    vector = context.vector
    for actor, counter in other.vector.items():
        if vector.get(actor, 0) < counter:
            return False
    return not other.dots or all(covers(context, dot) for dot in other.dots)


def join(left: Context, right: Context) -> Context:
    """Return the least context that covers both."""
    if covers_all(left, right):
        return left
    vector = dict(left.vector)
    for actor, counter in right.vector.items():
        if counter > vector.get(actor, 0):
            vector[actor] = counter
    dots = left.dots | right.dots
    if dots:
        dots = frozenset(dot for dot in dots if vector.get(dot.actor, 0) < dot.counter)
    return Context(vector, dots)


def is_same_state(left: Record, right: Record) -> bool:
    """Say whether two holders need no repair of one another (votes do not matter)."""
    return left.context == right.context and _dots(left) == _dots(right)


def sync(left: Record, right: Record) -> Record:
    """Return the join of two states: what neither has superseded, under both contexts.

    Where both hold one dot with different payloads, which nothing but damage or a broken peer
    can bring about (see `clashes`), the greater one is kept, so that order never matters.
    """
    kept = {version.dot: version for version in left.versions if _lives(version, right)}
    for version in right.versions:
        if _lives(version, left):
            twin = kept.get(version.dot)
            kept[version.dot] = version if twin is None else max(version, twin)
    return _assemble(join(left.context, right.context), kept, left.votes, right.votes)


def clashes(left: Record, right: Record) -> tuple[Dot, ...]:
    """Return the dots that name two payloads: always empty, or the alarm of invariant 3."""
    theirs = {version.dot: version.checksum for version in right.versions}
    return tuple(
        version.dot
        for version in left.versions
        if theirs.get(version.dot, version.checksum) != version.checksum
    )


def put(record: Record, version: Version, *, seen: Context, holds_all: bool = True) -> Record:
    """Return the state after a client's write at its coordinator.

    Args:
        record: what the coordinator holds.
        version: the write, under a new dot of the coordinator.
        seen: what the writer had seen: its session's or an explicit context.
        holds_all: every earlier write of this key under that actor is held here or superseded by
            this one, as it is for owners; a stand-in may have handed some over.
    """
    # An entry for the whole range, where the issuer of an actor's dots has seen all of them.
    dot = version.dot
    own = Context({dot.actor: dot.counter}) if holds_all else Context({}, frozenset((dot,)))
    context = join(join(record.context, seen), own)
    superseded = {
        old.write_id for old in record.versions if covers(seen, old.dot) or _postdates(version, old)
    }
    kept = {old.dot: old for old in record.versions if old.write_id not in superseded}
    kept[version.dot] = version
    return _assemble(context, kept, record.votes, ())


def replaced_at_put(
    record: Record, timestamp: Timestamp, *, seen: Context, is_explicit: bool
) -> list[Version]:
    """Return what a client's write supersedes at its coordinator, newest first."""
    replaced = [
        old
        for old in record.versions
        if covers(seen, old.dot) or (not is_explicit and old.timestamp < timestamp)
    ]
    return sorted(replaced, key=lambda old: old.timestamp, reverse=True)


def accept(mine: Record, theirs: Record, written: Dot) -> Record:
    """Return the state of an owner after it took a write straight from its coordinator.

    The join, and: a plain put supersedes whatever is older than it here. The dots of what it
    supersedes stay covered, so the state that the acknowledgement brings back spreads this.
    """
    merged = sync(mine, theirs)
    version = find(merged, written)
    if version is None or len(merged.versions) == 1:
        return merged
    kept = {old.dot: old for old in merged.versions if not _postdates(version, old)}
    return _assemble(merged.context, kept, merged.votes, ())


def take_over(mine: Record, theirs: Record) -> Record:
    """Return the state of an owner, or of a reader, after a stand-in's hint came in.

    The join, and: a plain put among the hint supersedes whatever is older than it, as it would
    have done here had it come in time. Else a write that only stand-ins took would lose to a value
    that had been acknowledged long before it began.
    """
    merged = sync(mine, theirs)
    if len(merged.versions) < 2:
        return merged
    dots = _dots(theirs)
    hinted = [version for version in merged.versions if version.dot in dots]
    kept = {
        old.dot: old
        for old in merged.versions
        if not any(_postdates(version, old) for version in hinted)
    }
    return _assemble(merged.context, kept, merged.votes, ())


def prune(record: Record, losers: Container[Dot]) -> Record:
    """Return the record without versions that lost a settled conflict. Their dots stay covered, so
    no hint, repair or late frame brings them back."""
    kept = {version.dot: version for version in record.versions if version.dot not in losers}
    assert kept, "settling keeps the winner"
    return _assemble(record.context, kept, record.votes, ())


def with_vote(record: Record, vote: Vote) -> Record:
    """Return the record with one more fact, if the voted version survives."""
    if vote in record.votes or find(record, vote.dot) is None:
        return record
    return record._replace(votes=tuple(sorted((*record.votes, vote))))


def find(record: Record, dot: Dot) -> Version | None:
    """Return the surviving version of that name."""
    for version in record.versions:
        if version.dot == dot:
            return version
    return None


def find_write(record: Record, write_id: bytes) -> Version | None:
    """Return a surviving version of that client's write: an earlier attempt of a retry."""
    for version in record.versions:
        if version.write_id == write_id:
            return version
    return None


def newest_rival(record: Record, written: Version) -> Timestamp:
    """Return the greatest timestamp of a survivor that is no older than `written` and is another
    write, or 0. Not 0: a write acknowledged before this one began may outlive it."""
    return max(
        (
            other.timestamp
            for other in record.versions
            if other.write_id != written.write_id and other.timestamp >= written.timestamp
        ),
        default=Timestamp(0),
    )


def check(record: Record) -> None:
    """Assert every invariant of a record."""
    dots = _dots(record)
    assert list(dots) == sorted(set(dots)), "versions are in order and each dot is held once"
    assert all(covers(record.context, dot) for dot in dots), "a holder has seen what it holds"
    assert all(counter > 0 for counter in record.context.vector.values())
    vector = Context(record.context.vector)
    assert not any(covers(vector, dot) for dot in record.context.dots), "nothing is said twice"
    assert list(record.votes) == sorted(set(record.votes))
    assert all(vote.dot in dots for vote in record.votes), "votes are for survivors only"


def _postdates(version: Version, old: Version) -> bool:
    """A plain put supersedes what is older by HLC; an explicit one only what it covers."""
    return not version.is_explicit and old.timestamp < version.timestamp


def _lives(version: Version, other: Record) -> bool:
    # A dot that the other side covers but no longer holds was superseded there.
    return not covers(other.context, version.dot) or find(other, version.dot) is not None


def _dots(record: Record) -> tuple[Dot, ...]:
    return tuple(version.dot for version in record.versions)


def _assemble(
    context: Context,
    kept: dict[Dot, Version],
    votes: tuple[Vote, ...],
    more_votes: tuple[Vote, ...],
) -> Record:
    versions = tuple(kept[dot] for dot in sorted(kept))
    if not votes and not more_votes:
        return Record(context, versions, ())
    live = {vote for vote in (*votes, *more_votes) if vote.dot in kept}
    return Record(context, versions, tuple(sorted(live)))
