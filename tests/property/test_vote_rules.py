"""Which rule for conflicts keeps its answer: the comparison of design, section 2.5.

Random histories of one key at three owners: three clients, lost and late frames, partitions, hints
on stand-ins, and then repair in a random order. A *change* is a full read (all owners) that differs
from the one before it although no write took place between: only repair, handoff, late frames.
Three rules look at the same histories:
    copies      the value that most owners hold as their newest
    newest      each owner votes for the newest that it was ever sent as a write, hints and late
                frames included
    facts       this store's: each owner counts for the newest survivor that it voted for
Nothing settles here (test_settling_laws.py does). Where stand-ins coordinate, a handoff may be the
first that any owner hears of a write: then the answer may change under every rule, and rightly so.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.resolve import Confidence, Decision, decide
from kvnode.core.topology import Resolve
from kvnode.core.versions import (
    NOTHING_SEEN,
    Context,
    Dot,
    Record,
    Version,
    Vote,
    find,
    join,
    sync,
    with_vote,
)
from tests.property.test_version_laws import OWNERS, histories
from tests.sim.owners import Owners, Sent
from tests.support.scale import scaled

HISTORIES = scaled(1_500, soak=100_000)
CLIENTS = 3
STAND_IN = OWNERS
UNHEARD = 9
Rule = Callable[[Owners], bytes | None]


def by_copies(owners: Owners) -> bytes | None:
    merged = owners.joined(owners.numbers)
    held = [max(r.versions, key=_age) for r in owners.records[:OWNERS] if r.versions]
    return _most([v for v in held if find(merged, v.dot)], merged)


def by_newest(owners: Owners) -> bytes | None:
    merged = owners.joined(owners.numbers)
    voted = [v for owner, v in owners.newest_accepted.items() if owner < OWNERS]
    return _most([v for v in voted if find(merged, v.dot)], merged)


def by_facts(owners: Owners) -> bytes | None:
    winner = owners.answer(owners.numbers).winner
    return None if winner is None else winner.value


RULES: dict[str, Rule] = {"copies": by_copies, "newest": by_newest, "facts": by_facts}


class History:
    """One random history, and how often each rule changed its mind with no new write."""

    def __init__(self, seed: int, *, stand_in_share: float) -> None:
        self._chance = random.Random(seed)
        self._stand_in_share = stand_in_share
        self._owners = Owners(OWNERS, stand_ins=1)
        self._late: list[tuple[int, Sent]] = []
        self._seen = [NOTHING_SEEN] * CLIENTS
        self._writes = 0

    def play(self) -> set[str]:
        """Return the rules that changed their mind."""
        for _ in range(self._chance.randint(3, 6)):
            self._write(self._chance.randrange(CLIENTS))
            if self._chance.random() < 0.3:
                self._mend_a_bit()
        told = [self._answers()]
        while self._late or not self._is_equal():
            self._mend_a_bit()
            told.append(self._answers())
        return {rule for rule in RULES if len({answers[rule] for answers in told}) > 1}

    def _write(self, client: int) -> None:
        """Read at one owner, or not; write at an owner, or at a stand-in for one."""
        chance, owners = self._chance, self._owners
        if chance.random() < 0.3:
            read = owners.records[chance.randrange(OWNERS)].context
            self._seen[client] = join(self._seen[client], read)
        self._writes += 1
        sent = owners.write(
            STAND_IN if chance.random() < self._stand_in_share else chance.randrange(OWNERS),
            value=b"v%d" % self._writes,
            stamp=100 + self._writes + chance.randint(-3, 3),
            write_id=b"%016d" % self._writes,
            seen=self._seen[client],
            is_explicit=True,
        )
        own = Context({}, frozenset((sent.version.dot,)))
        self._seen[client] = join(self._seen[client], own)
        for owner in range(OWNERS):
            if owner != sent.coordinator:
                self._send(sent, owner)

    def _send(self, sent: Sent, owner: int) -> None:
        """In time; or as a hint or late, which casts no vote; or never."""
        fate = self._chance.random()
        if fate < 0.5:
            self._owners.deliver(sent, owner)
        elif fate < 0.8 or sent.coordinator == STAND_IN:
            self._late.append((owner, sent))

    def _mend_a_bit(self) -> None:
        chance = self._chance
        if self._late and chance.random() < 0.5:
            owner, sent = self._late.pop(chance.randrange(len(self._late)))
            self._owners.merge(owner, sent.record)
            self._owners.note(owner, sent.version)
        else:
            a, b = chance.sample(range(OWNERS), 2)
            self._owners.merge(a, self._owners.records[b])

    def _is_equal(self) -> bool:
        first, *others = self._owners.records[:OWNERS]
        return all(record == first for record in others)

    def _answers(self) -> dict[str, bytes | None]:
        return {name: rule(self._owners) for name, rule in RULES.items()}


def shares(rng: random.Random, *, stand_in_share: float) -> dict[str, float]:
    """Return in which share of histories each rule changed its mind, and print it."""
    changed = Counter(
        rule
        for _ in range(HISTORIES)
        for rule in History(rng.getrandbits(64), stand_in_share=stand_in_share).play()
    )
    share = {rule: changed[rule] / HISTORIES for rule in RULES}
    print({rule: f"{100 * part:.2f} %" for rule, part in share.items()})
    return share


def test_without_a_new_write_no_full_read_changes_its_answer_under_this_rule_alone(
    rng: random.Random,
) -> None:
    share = shares(rng, stand_in_share=0)
    assert share["facts"] == 0, share
    assert share["copies"] > 0.03, share
    assert share["newest"] > 0.02, share


def test_writes_through_stand_ins_alone_change_it_least_under_this_rule(
    rng: random.Random,
) -> None:
    share = shares(rng, stand_in_share=0.1)
    assert share["facts"] < 0.03, share
    assert share["copies"] > 2 * share["facts"], share
    assert share["newest"] > 2 * share["facts"], share


@given(histories, st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=12))
def test_no_order_of_repair_changes_survivors_votes_or_the_decision(
    owners: Owners, repairs: list[tuple[int, int]]
) -> None:
    before, decided = owners.joined(owners.numbers), owners.answer(owners.numbers)
    for at, source in repairs:
        owners.merge(at, owners.records[source])
        assert owners.joined(owners.numbers) == before
        assert owners.answer(owners.numbers) == decided


@given(histories)
def test_every_owner_decides_alike_once_all_are_mended(owners: Owners) -> None:
    merged = owners.joined(owners.numbers)
    for owner in owners.numbers:
        owners.merge(owner, merged)
    answers = {repr(owners.answer((owner,)).winner) for owner in owners.numbers}
    assert answers == {repr(_decided(merged).winner)}


@given(histories)
def test_the_winner_is_a_survivor_and_no_owner_counts_twice(owners: Owners) -> None:
    merged = owners.joined(owners.numbers)
    winner = _decided(merged).winner
    assert (winner is None) == (not merged.versions)
    assert winner is None or winner in merged.versions
    doubled = merged._replace(votes=tuple(sorted({*merged.votes, *merged.votes})))
    assert _decided(doubled) == _decided(merged)


@given(histories)
def test_no_unheard_owner_could_overturn_what_is_not_provisional(owners: Owners) -> None:
    merged = owners.joined(owners.numbers)
    decision = _decided(merged, unheard=1)
    if decision.confidence is not Confidence.PROVISIONAL:
        for version in merged.versions:
            heard = with_vote(merged, Vote(UNHEARD, version.dot))
            assert _decided(heard).winner == decision.winner


def _decided(record: Record, *, unheard: int = 0) -> Decision:
    owners = (*range(OWNERS), UNHEARD)
    return decide(record, owners=owners, unheard=unheard, now_ms=0, resolve=Resolve.MAJORITY)


def _most(votes: list[Version], merged: Record) -> bytes | None:
    if not merged.versions:
        return None
    if not votes:
        return max(merged.versions, key=_age).value
    tally = Counter(version.dot for version in votes)
    return max(votes, key=lambda version: (tally[version.dot], _age(version))).value


def _age(version: Version) -> tuple[int, Dot]:
    return version.timestamp, version.dot


def test_joining_in_any_order_gives_the_same_votes(rng: random.Random) -> None:
    for _ in range(200):
        owners = Owners(OWNERS)
        for number in range(4):
            sent = owners.write(
                rng.randrange(OWNERS),
                value=b"%d" % number,
                stamp=number,
                write_id=b"%016d" % number,
            )
            owners.deliver(sent, rng.randrange(OWNERS))
        a, b, c = owners.records
        assert sync(sync(c, a), b) == sync(sync(a, b), c)
