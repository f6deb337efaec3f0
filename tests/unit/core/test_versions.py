"""Versions: what survives a join, a put and an acceptance, and what is covered for good.

The algebraic laws, over any states, are in tests/property/test_version_laws.py; here are the cases
that have a name.
"""

from __future__ import annotations

import pytest

from kvnode.core.versions import (
    EMPTY,
    NOTHING_SEEN,
    Context,
    Dot,
    Record,
    Vote,
    accept,
    check,
    clashes,
    covers,
    covers_all,
    find,
    find_write,
    is_same_state,
    join,
    newest_rival,
    prune,
    put,
    sync,
    take_over,
    with_vote,
)
from tests.unit.core.builders import (
    context,
    dot,
    dots,
    names,
    record,
    stamp,
    tombstone,
    version,
    write_id,
)

# ---- contexts -----------------------------------------------------------------------------------


def test_an_entry_covers_all_counters_up_to_it_and_a_single_dot_only_itself() -> None:
    seen = context("a3", single=("b5",))
    assert [covers(seen, each) for each in dots("a1", "a3", "a4")] == [True, True, False]
    assert [covers(seen, each) for each in dots("b4", "b5", "b6")] == [False, True, False]
    assert not covers(seen, dot("c1"))


@pytest.mark.parametrize(
    ("left", "right", "is_covered"),
    [
        (context(), context(), True),
        (context("a3"), context("a2"), True),
        (context("a3"), context("a4"), False),
        (context("a3"), context("b1"), False),
        (context("a3"), context(single=("a2",)), True),
        (context("a3"), context(single=("a4",)), False),
        (context("a3", single=("a5",)), context(single=("a5",)), True),
        (context("a3", single=("a5",)), context("a5"), False),
        (context("a3", single=("a4", "a5")), context("a5"), False),
        (context(single=("a1",)), context("a1"), False),
    ],
)
def test_a_context_covers_another_when_it_has_seen_all_of_it(
    left: Context, right: Context, is_covered: bool
) -> None:
    assert covers_all(left, right) is is_covered


def test_a_join_takes_the_higher_entry_of_each_actor() -> None:
    assert join(context("a3", "b1"), context("a2", "b4", "c1")) == context("a3", "b4", "c1")


def test_a_join_says_nothing_twice() -> None:
    joined = join(context("a3", single=("b2", "b9")), context("b4", single=("a2", "a7")))
    assert joined == context("a3", "b4", single=("a7", "b9"))


def test_a_join_keeps_an_entry_rather_than_the_dots_that_add_up_to_it() -> None:
    entry, single = context("a2"), context(single=("a1", "a2"))
    assert join(entry, single) == join(single, entry) == entry


def test_a_join_with_what_is_known_is_the_same_object() -> None:
    seen = context("a3")
    assert join(seen, context("a1")) is seen


# ---- sync ---------------------------------------------------------------------------------------


def test_concurrent_versions_survive_beside_each_other_in_order() -> None:
    assert names(sync(record(version("b1")), record(version("a1")))) == ["a1", "b1"]


def test_a_dot_that_the_other_covers_but_no_longer_holds_is_gone() -> None:
    stale = record(version("a1"))
    newer = record(version("b1"), seen=context("a1", "b1"))
    assert names(sync(stale, newer)) == names(sync(newer, stale)) == ["b1"]


def test_a_late_copy_of_what_was_superseded_does_not_bring_it_back() -> None:
    newer = record(version("b1"), seen=context("a4", "b1"))
    assert sync(newer, record(version("a2"))) == newer


def test_a_tombstone_that_covers_a_value_outlives_it() -> None:
    deleted = record(tombstone("b1"), seen=context("a1", "b1"))
    assert sync(record(version("a1")), deleted) == deleted


def test_nothing_joined_with_a_state_is_that_state() -> None:
    state = record(version("a1"), version("b1"), votes=((1, "a1"),))
    assert sync(EMPTY, state) == sync(state, EMPTY) == state


def test_a_join_unites_votes_and_drops_those_for_what_is_gone() -> None:
    left = record(version("a1"), version("c1"), votes=((1, "a1"), (1, "c1")))
    right = record(version("b1"), seen=context("a1", "b1"), votes=((2, "b1"),))
    joined = sync(left, right)
    assert joined.votes == (Vote(1, dot("c1")), Vote(2, dot("b1")))
    check(joined)


def test_one_dot_with_two_payloads_joins_the_same_way_in_either_order() -> None:
    left, right = record(version("a1", b"x")), record(version("a1", b"y"))
    assert clashes(left, right) == (dot("a1"),)
    assert sync(left, right) == sync(right, left)
    assert len(sync(left, right).versions) == 1


def test_equal_payloads_do_not_clash_and_neither_do_different_dots() -> None:
    assert clashes(record(version("a1")), record(version("a1"), version("b1"))) == ()


def test_votes_make_no_difference_to_whether_states_need_repair() -> None:
    one, other = record(version("a1"), votes=((1, "a1"),)), record(version("a1"))
    assert is_same_state(one, other)
    assert not is_same_state(one, record(version("a1"), seen=context("a2")))
    assert not is_same_state(one, record(seen=context("a1")))


# ---- put ----------------------------------------------------------------------------------------


def test_a_put_to_nothing_stands_alone_under_its_own_dot() -> None:
    written = version("a1")
    assert put(EMPTY, written, seen=NOTHING_SEEN) == record(written)


def test_a_plain_put_supersedes_what_is_older_here_without_having_seen_it() -> None:
    state = put(record(version("b1", ms=1)), version("a1", ms=2), seen=NOTHING_SEEN)
    assert state == record(version("a1", ms=2), seen=context("a1", "b1"))


@pytest.mark.parametrize("ms", [2, 3])
def test_a_plain_put_leaves_what_is_no_older(ms: int) -> None:
    state = put(record(version("b1", ms=ms)), version("a1", ms=2), seen=NOTHING_SEEN)
    assert names(state) == ["a1", "b1"]


def test_a_plain_put_supersedes_what_its_session_has_seen_however_new() -> None:
    state = put(record(version("b1", ms=9)), version("a1", ms=2), seen=context("b1"))
    assert names(state) == ["a1"]


def test_an_explicit_put_supersedes_exactly_what_its_context_covers() -> None:
    here = record(version("b1", ms=1), version("c1", ms=1), version("c2", ms=1))
    written = version("a1", ms=9, is_explicit=True)
    state = put(here, written, seen=context(single=("c2",)))
    assert names(state) == ["a1", "b1", "c1"]
    check(state)


def test_what_was_seen_and_is_not_here_yet_stays_out_when_it_comes() -> None:
    state = put(EMPTY, version("a1"), seen=context("b7"))
    assert sync(state, record(version("b7"))) == state


def test_superseding_one_version_of_a_write_supersedes_its_twins() -> None:
    twins = [version(name, b"v", ms=5, write_id=write_id("w")) for name in ("b1", "c1")]
    state = put(record(*twins), version("a1", is_explicit=True), seen=context("b1"))
    assert names(state) == ["a1"]


def test_a_put_keeps_the_votes_for_what_survives_it() -> None:
    here = record(version("b1", ms=1), version("c1", ms=9), votes=((1, "b1"), (2, "c1")))
    assert put(here, version("a1", ms=5), seen=NOTHING_SEEN).votes == (Vote(2, dot("c1")),)


# ---- accept, votes ------------------------------------------------------------------------------


def test_an_owner_that_accepts_a_plain_put_drops_what_is_older_and_keeps_it_covered() -> None:
    mine, theirs = record(version("b1", ms=1)), record(version("a1", ms=2))
    state = accept(mine, theirs, dot("a1"))
    assert state == record(version("a1", ms=2), seen=context("a1", "b1"))


def test_an_owner_that_accepts_an_older_put_keeps_what_is_newer() -> None:
    state = accept(record(version("b1", ms=3)), record(version("a1", ms=2)), dot("a1"))
    assert names(state) == ["a1", "b1"]


def test_accepting_an_explicit_put_drops_nothing_by_time() -> None:
    theirs = record(version("a1", ms=2, is_explicit=True))
    assert names(accept(record(version("b1", ms=1)), theirs, dot("a1"))) == ["a1", "b1"]


def test_only_the_written_version_supersedes_by_time_not_what_travels_with_it() -> None:
    theirs = record(version("a1", ms=2), version("c1", ms=9))
    assert names(accept(record(version("b1", ms=5)), theirs, dot("a1"))) == ["a1", "b1", "c1"]


def test_accepting_what_was_superseded_here_changes_nothing() -> None:
    mine = record(version("b1", ms=1), version("c1", ms=1), seen=context("a1", "b1", "c1"))
    assert accept(mine, record(version("a1", ms=2)), dot("a1")) == mine


def test_a_vote_is_cast_once_and_only_for_what_is_held() -> None:
    state = record(version("a1"))
    voted = with_vote(state, Vote(2, dot("a1")))
    assert voted.votes == (Vote(2, dot("a1")),)
    assert with_vote(voted, Vote(2, dot("a1"))) is voted
    assert with_vote(state, Vote(2, dot("b1"))) is state


def test_votes_are_kept_in_order() -> None:
    state = record(version("a1"), version("b1"), votes=((3, "a1"),))
    assert [vote.owner for vote in with_vote(state, Vote(1, dot("b1"))).votes] == [1, 3]


# ---- look-ups -----------------------------------------------------------------------------------


def test_versions_are_found_by_dot_and_by_write() -> None:
    first, second = version("a1"), version("b1")
    state = record(first, second)
    assert find(state, dot("b1")) is second
    assert find(state, dot("b2")) is None
    assert find_write(state, write_id("a1")) is first
    assert find_write(state, write_id("x")) is None


def test_the_newest_rival_is_another_write_that_is_no_older() -> None:
    mine = version("a1", ms=5)
    twin = version("b1", ms=9, write_id=write_id("a1"))
    assert newest_rival(record(mine, twin, version("c1", ms=4)), mine) == 0
    assert newest_rival(record(mine, version("c1", ms=5)), mine) == stamp(5)
    assert newest_rival(record(mine, version("c1", ms=7), version("d1", ms=6)), mine) == stamp(7)


@pytest.mark.parametrize(
    ("written", "now_offset", "is_absence"),
    [
        (version("a1"), 0, False),
        (version("a1", b""), 0, False),
        (tombstone("a1"), 0, True),
        (version("a1", expires_ms=100), -1, False),
        (version("a1", expires_ms=100), 0, True),
    ],
    ids=["a value", "an empty value is a value", "deleted", "not yet expired", "expired"],
)
def test_a_reader_sees_nothing_of_what_is_deleted_or_expired(
    written: object, now_offset: int, is_absence: bool
) -> None:
    assert written.is_absence(100 + now_offset) is is_absence  # type: ignore[attr-defined]


# ---- a stand-in's hint --------------------------------------------------------------------------


def test_a_plain_put_of_a_hint_supersedes_what_is_older_and_its_dot_stays_covered() -> None:
    mine = record(version("a1", ms=1), version("b1", ms=3))
    taken = take_over(mine, record(version("c1", ms=2)))
    assert names(taken) == ["b1", "c1"]
    assert taken.context == context("a1", "b1", "c1")


def test_an_explicit_put_of_a_hint_supersedes_only_what_it_covers() -> None:
    hint = record(version("c1", ms=9, is_explicit=True), seen=context("b1", "c1"))
    taken = take_over(record(version("a1"), version("b1")), hint)
    assert names(taken) == ["a1", "c1"]


def test_what_is_not_of_the_hint_supersedes_nothing() -> None:
    newer = record(version("a1", ms=9))
    assert names(take_over(newer, record(version("b1", ms=1)))) == ["a1", "b1"]


def test_versions_of_one_stamp_stand_beside_each_other() -> None:
    assert names(take_over(record(version("a1")), record(version("b1")))) == ["a1", "b1"]


def test_a_hint_that_is_superseded_here_brings_nothing_back() -> None:
    mine = record(version("b1", ms=1), seen=context("a1", "b1"))
    assert take_over(mine, record(version("a1", ms=9))) == mine


def test_a_votes_fate_is_that_of_its_version_when_a_hint_comes_in() -> None:
    mine = record(version("a1", ms=1), version("b1", ms=9), votes=((1, "a1"), (1, "b1")))
    taken = take_over(mine, record(version("c1", ms=5), votes=((3, "c1"),)))
    assert taken.votes == (Vote(1, dot("b1")), Vote(3, dot("c1")))


# ---- puts of a stand-in -------------------------------------------------------------------------


def test_a_put_that_may_not_know_all_of_its_actor_covers_its_own_dot_alone() -> None:
    taken = put(EMPTY, version("a3"), seen=NOTHING_SEEN, holds_all=False)
    assert taken.context == context(single=("a3",))
    assert put(EMPTY, version("a3"), seen=NOTHING_SEEN).context == context("a3")


def test_a_put_that_may_not_know_all_of_its_actor_does_not_bury_what_was_handed_over() -> None:
    handed = record(version("a1", ms=9, is_explicit=True))
    later = put(EMPTY, version("a2", is_explicit=True), seen=NOTHING_SEEN, holds_all=False)
    assert names(sync(handed, later)) == ["a1", "a2"]


def test_a_put_that_may_not_know_all_of_its_actor_supersedes_the_same_of_what_is_held() -> None:
    held = record(version("a1", ms=1), version("b1", ms=2), version("c1", ms=9))
    written, seen = version("a2", ms=5), context("c1")
    narrow = put(held, written, seen=seen, holds_all=False)
    assert narrow.versions == put(held, written, seen=seen).versions == (written,)
    assert covers_all(narrow.context, held.context)


# ---- invariants ---------------------------------------------------------------------------------

A1, B1 = version("a1"), version("b1")


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(Record(context("a1", "b1"), (B1, A1), ()), id="versions out of order"),
        pytest.param(Record(context("a1"), (A1, A1), ()), id="a dot twice"),
        pytest.param(Record(context("a1"), (A1, B1), ()), id="held but not seen"),
        pytest.param(Record(Context({1: 0}), (), ()), id="an entry of nothing"),
        pytest.param(Record(context("a3", single=("a2",)), (), ()), id="a dot said twice"),
        pytest.param(
            Record(context("a1"), (A1,), (Vote(2, Dot(1, 1)), Vote(1, Dot(1, 1)))),
            id="votes out of order",
        ),
        pytest.param(Record(context("b1"), (), (Vote(1, dot("b1")),)), id="a vote for the dead"),
    ],
)
def test_a_broken_record_is_noticed(broken: Record) -> None:
    with pytest.raises(AssertionError):
        check(broken)


def test_a_sound_record_passes() -> None:
    check(EMPTY)
    check(record(A1, B1, seen=context("a1", single=("b1",)), votes=((1, "a1"), (1, "b1"))))


# ---- settling -----------------------------------------------------------------------------------


def test_what_is_pruned_stays_covered_and_takes_its_votes_along() -> None:
    state = record(A1, B1, votes=((1, "a1"), (2, "b1")))
    left = prune(state, (dot("a1"),))
    check(left)
    assert left == Record(state.context, (B1,), (Vote(2, dot("b1")),))


def test_nothing_brings_back_what_was_pruned() -> None:
    state = record(A1, B1, votes=((1, "a1"), (2, "b1")))
    left = prune(state, (dot("a1"),))
    assert sync(left, state) == sync(state, left) == left
    assert accept(left, record(A1), dot("a1")) == left
    assert take_over(left, record(A1)) == left


def test_not_everything_can_be_pruned() -> None:
    with pytest.raises(AssertionError):
        prune(record(A1, B1), dots("a1", "b1"))
