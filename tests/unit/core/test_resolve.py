"""Which sibling wins: majority of votes, ties, provisional answers, and the other two rules.

That repair and its order change nothing is in tests/property/test_vote_rules.py.
"""

from __future__ import annotations

import itertools

import pytest

from kvnode.core.resolve import (
    Confidence,
    Decision,
    Verdict,
    counted_votes,
    decide,
    is_conflict,
    settle,
)
from kvnode.core.topology import Resolve
from kvnode.core.versions import EMPTY, Record, Vote
from tests.unit.core.builders import WALL_MS, dot, names, record, tombstone, version

OWNERS = (1, 2, 3)
Votes = tuple[tuple[int, str], ...]


def judge(state: Record, *, unheard: int = 0, resolve: Resolve = Resolve.MAJORITY) -> Decision:
    return decide(state, owners=OWNERS, unheard=unheard, now_ms=WALL_MS, resolve=resolve)


def winner(state: Record, **how: object) -> str:
    decision = judge(state, **how)  # type: ignore[arg-type]
    assert decision.winner is not None
    return names(record(decision.winner))[0]


def rivals(*votes: tuple[int, str]) -> Record:
    """Return a1 (older) beside b1 (newer)."""
    return record(version("a1", ms=1), version("b1", ms=2), votes=votes)


# ---- no conflict --------------------------------------------------------------------------------


def test_nothing_held_is_agreed_absence() -> None:
    assert judge(EMPTY, unheard=2) == Decision(None, Confidence.AGREED, "no version is held")


def test_one_version_is_agreed_on_without_votes() -> None:
    assert judge(record(version("a1")), unheard=1).confidence is Confidence.AGREED


def test_equal_bytes_are_one_value_and_the_newest_stands_for_it() -> None:
    state = record(version("a1", b"same", ms=2), version("b1", b"same", ms=1))
    assert not is_conflict(state, WALL_MS)
    assert judge(state).confidence is Confidence.AGREED
    assert winner(state) == "a1"


def test_tombstones_and_expired_versions_together_are_absence() -> None:
    state = record(tombstone("a1"), version("b1", expires_ms=WALL_MS), tombstone("c1"))
    assert not is_conflict(state, WALL_MS)
    assert judge(state).confidence is Confidence.AGREED


def test_an_empty_value_is_not_absence() -> None:
    assert is_conflict(record(tombstone("a1"), version("b1", b"")), WALL_MS)


def test_a_version_that_has_not_yet_expired_is_a_rival() -> None:
    state = record(tombstone("a1"), version("b1", expires_ms=WALL_MS + 1))
    assert is_conflict(state, WALL_MS)
    assert not is_conflict(state, WALL_MS + 1)


# ---- majority -----------------------------------------------------------------------------------


def test_the_value_that_most_owners_voted_for_wins_over_a_newer_one() -> None:
    decision = judge(rivals((1, "a1"), (2, "a1"), (3, "b1")))
    assert decision.winner == version("a1", ms=1)
    assert decision.confidence is Confidence.VOTED
    assert decision.rule == "most votes: 2 to 1"


def test_each_owner_counts_once_for_the_newest_that_it_voted_for() -> None:
    state = rivals((1, "a1"), (1, "b1"), (2, "a1"), (2, "b1"), (3, "a1"))
    assert counted_votes(state, OWNERS) == {1: dot("b1"), 2: dot("b1"), 3: dot("a1")}
    assert winner(state) == "b1"


def test_a_newer_vote_counts_in_whatever_order_votes_are_listed() -> None:
    state = record(
        version("a1", ms=2), version("b1", ms=1), votes=((1, "a1"), (1, "b1"), (2, "b1"))
    )
    assert counted_votes(state, OWNERS) == {1: dot("a1"), 2: dot("b1")}


def test_at_equal_times_the_greater_dot_is_the_newer() -> None:
    state = record(version("a1"), version("b1"), votes=((1, "a1"), (1, "b1")))
    assert counted_votes(state, OWNERS) == {1: dot("b1")}


def test_a_vote_of_who_does_not_own_the_key_does_not_count() -> None:
    state = rivals((1, "a1"), (8, "b1"), (9, "b1"))
    assert counted_votes(state, OWNERS) == {1: dot("a1")}
    assert winner(state) == "a1"


def test_votes_for_equal_bytes_are_votes_for_one_value() -> None:
    state = record(
        version("a1", b"same", ms=1),
        version("b1", b"same", ms=2),
        version("c1", b"other", ms=3),
        votes=((1, "a1"), (2, "b1"), (3, "c1")),
    )
    assert winner(state) == "b1"


def test_votes_for_tombstones_and_expired_versions_are_votes_for_absence() -> None:
    state = record(
        tombstone("a1", ms=1),
        version("b1", ms=2, expires_ms=1),
        version("c1", ms=3),
        votes=((1, "a1"), (2, "b1"), (3, "c1")),
    )
    decision = judge(state)
    assert decision.winner is not None
    assert decision.winner.is_absence(WALL_MS)


def test_the_newest_version_of_the_winning_value_stands_for_it_even_unvoted() -> None:
    state = record(
        version("a1", b"same", ms=1),
        version("b1", b"other", ms=2),
        version("c1", b"same", ms=3),
        votes=((1, "a1"), (2, "a1"), (3, "b1")),
    )
    assert winner(state) == "c1"


def test_a_tie_goes_to_the_newest_that_got_a_vote() -> None:
    state = record(
        version("a1", ms=1), version("b1", ms=2), version("c1", ms=3), votes=((1, "a1"), (2, "b1"))
    )
    assert winner(state) == "b1"
    assert judge(state).rule == "a tie of 1 to 1 votes: the newest that got one"


def test_without_any_vote_the_newest_wins() -> None:
    decision = judge(rivals())
    assert decision.winner == version("b1", ms=2)
    assert (decision.confidence, decision.rule) == (
        Confidence.VOTED,
        "no votes: the newest by HLC",
    )


@pytest.mark.parametrize("votes", [(), ((1, "a1"),), ((1, "a1"), (2, "b1"), (3, "a1"))])
def test_the_order_in_which_votes_were_learnt_changes_nothing(votes: Votes) -> None:
    facts = tuple(Vote(owner, dot(name)) for owner, name in votes)
    outcomes = {
        judge(rivals()._replace(votes=order)).winner for order in itertools.permutations(facts)
    }
    assert len(outcomes) == 1


# ---- provisional --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("votes", "unheard", "is_provisional"),
    [
        ((), 0, False),
        ((), 1, True),
        (((1, "a1"),), 1, True),
        (((1, "a1"), (2, "a1")), 1, False),
        (((1, "a1"), (2, "a1")), 2, True),
        (((1, "a1"), (2, "b1")), 0, False),
        (((1, "a1"), (2, "b1")), 1, True),
        (((1, "a1"), (2, "a1"), (3, "b1")), 1, True),
        (((1, "a1"), (2, "a1"), (3, "a1")), 2, False),
    ],
)
def test_an_answer_is_provisional_when_the_unheard_could_overturn_it(
    votes: Votes, unheard: int, is_provisional: bool
) -> None:
    decision = judge(rivals(*votes), unheard=unheard)
    expected = Confidence.PROVISIONAL if is_provisional else Confidence.VOTED
    assert decision.confidence is expected
    assert decision.rule.endswith(f"provisional: {unheard} of 3 owners unheard") is is_provisional


# ---- the other rules ----------------------------------------------------------------------------


def test_newest_decides_by_time_whatever_the_votes() -> None:
    state = rivals((1, "a1"), (2, "a1"), (3, "a1"))
    decision = judge(state, resolve=Resolve.NEWEST, unheard=1)
    assert decision.confidence is Confidence.NEWEST
    assert decision.winner == version("b1", ms=2)


def test_siblings_leaves_it_to_the_client_and_shows_the_newest() -> None:
    decision = judge(rivals((1, "a1")), resolve=Resolve.SIBLINGS)
    assert decision.confidence is Confidence.SIBLINGS
    assert decision.winner == version("b1", ms=2)


@pytest.mark.parametrize("resolve", list(Resolve))
def test_one_value_is_agreed_under_every_rule(resolve: Resolve) -> None:
    assert judge(record(version("a1")), resolve=resolve).confidence is Confidence.AGREED


# ---- settling -----------------------------------------------------------------------------------


def verdict(state: Record, ms: int = 0, resolve: Resolve = Resolve.MAJORITY) -> Verdict | None:
    return settle(state, owners=OWNERS, now_ms=WALL_MS + ms, resolve=resolve)


def losers(state: Record, ms: int = 0, resolve: Resolve = Resolve.MAJORITY) -> list[str]:
    found = verdict(state, ms, resolve)
    kept = [] if found is None else [v for v in state.versions if v.dot in found.losers]
    return names(record(*kept))


def test_the_losers_are_the_versions_of_other_values_than_the_answers() -> None:
    state = record(
        version("a1", b"x", ms=3),
        version("b1", b"y", ms=1),
        version("c1", b"y", ms=2),
        votes=((1, "a1"), (2, "b1"), (3, "c1")),
    )
    found = verdict(state)
    assert found is not None
    assert (found.winner, found.losers) == (judge(state).winner, (dot("a1"),))
    assert found.rule == judge(state).rule


def test_of_one_value_or_of_nothing_no_version_may_leave() -> None:
    assert verdict(EMPTY) is None
    assert verdict(record(version("a1", b"x"), version("b1", b"x"))) is None
    assert verdict(record(tombstone("a1"), tombstone("b1"))) is None


def test_what_is_left_to_clients_never_settles() -> None:
    assert verdict(rivals((1, "a1"), (2, "a1")), resolve=Resolve.SIBLINGS) is None


def test_newest_settles_by_the_clock_whatever_was_voted() -> None:
    assert losers(rivals((1, "a1"), (2, "a1")), resolve=Resolve.NEWEST) == ["a1"]


def test_versions_that_expire_settle_where_their_expiry_cuts_nothing_else() -> None:
    both = record(
        version("a1", ms=1, expires_ms=WALL_MS + 5), version("b1", expires_ms=WALL_MS + 9)
    )
    assert losers(both) == ["b1"]
    assert losers(both, ms=5) == ["b1"]
    assert verdict(both, ms=9) is None


def test_a_conflict_that_expiry_would_decide_otherwise_waits_for_it() -> None:
    # The value leads by age now; with its rival expired, absence will have two votes.
    state = record(
        version("a1", ms=3),
        version("b1", ms=1, expires_ms=WALL_MS + 5),
        tombstone("c1", ms=2),
        votes=((1, "a1"), (2, "b1"), (3, "c1")),
    )
    assert winner(state) == "a1"
    assert verdict(state) is None
    assert losers(state, ms=5) == ["a1"]


@pytest.mark.parametrize("resolve", [Resolve.MAJORITY, Resolve.NEWEST])
def test_of_two_verdicts_whenever_given_one_cuts_no_more_than_the_other(resolve: Resolve) -> None:
    instants = (0, 5, 9)
    values = (b"x", b"y")
    for expiry in itertools.product((0, WALL_MS + 5, WALL_MS + 9), repeat=3):
        for chosen in itertools.product(values, repeat=3):
            versions = [
                version(f"{name}1", chosen[at], ms=at, expires_ms=expiry[at])
                for at, name in enumerate("abc")
            ]
            for voted in itertools.product("abc", repeat=3):
                votes = tuple((owner, f"{name}1") for owner, name in enumerate(voted, start=1))
                state = record(*versions, tombstone("d1", ms=1), votes=votes)
                cuts = [set(losers(state, ms, resolve)) for ms in instants]
                assert all(a <= b or b <= a for a, b in itertools.combinations(cuts, 2)), state
