"""The laws of kvnode.core.versions, on states that owners really reach.

States come from histories, not from thin air: the laws hold for what `put`, `accept` and `sync` can
make, and a dot names one payload there.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.hlc import Timestamp
from kvnode.core.versions import (
    EMPTY,
    NOTHING_SEEN,
    Context,
    Dot,
    Record,
    Version,
    Vote,
    check,
    clashes,
    covers,
    covers_all,
    find,
    is_same_state,
    join,
    newest_rival,
    put,
    sync,
    take_over,
    with_vote,
)
from tests.sim.owners import Owners, Sent

OWNERS = 3

Move = tuple[str, int, int, int, bool]
moves = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "deliver", "deliver", "merge", "retry"]),
        st.integers(0, OWNERS - 1),
        st.integers(0, 5),
        st.integers(1, 9),
        st.booleans(),
    ),
    max_size=14,
)


def play(history: list[Move]) -> Owners:
    """Return the owners after a history of writes, deliveries, merges and retries."""
    owners = Owners(OWNERS)
    sent: list[Sent] = []
    for what, at, pick, stamp, is_explicit in history:
        if what == "write":
            seen = owners.records[pick % OWNERS].context if pick < OWNERS else NOTHING_SEEN
            sent.append(
                owners.write(
                    at,
                    value=b"v%d" % len(sent),
                    stamp=stamp,
                    write_id=b"%016d" % len(sent),
                    seen=seen,
                    is_explicit=is_explicit,
                )
            )
        elif what == "merge":
            owners.merge(at, owners.records[pick % OWNERS])
        elif sent and what == "deliver":
            owners.deliver(sent[pick % len(sent)], at)
        elif sent:
            old = sent[pick % len(sent)].version
            sent.append(
                owners.write(at, value=old.value, stamp=old.timestamp, write_id=old.write_id)
            )
    return owners


histories = moves.map(play)
contexts = st.builds(
    lambda entries, dots: join(Context(entries), Context({}, frozenset(dots))),
    st.dictionaries(st.integers(1, 4), st.integers(1, 5)),
    st.lists(st.builds(Dot, st.integers(1, 4), st.integers(1, 7))),
)


@given(histories)
def test_every_state_that_is_reached_is_in_order(owners: Owners) -> None:
    for record in (*owners.records, owners.joined(range(OWNERS))):
        check(record)


@given(histories)
def test_sync_is_commutative_associative_and_idempotent(owners: Owners) -> None:
    a, b, c = owners.records
    assert sync(a, b) == sync(b, a)
    assert sync(sync(a, b), c) == sync(a, sync(b, c))
    assert sync(a, a) == a
    assert sync(sync(a, b), b) == sync(a, b)
    assert sync(a, EMPTY) == a


@given(histories)
def test_sync_never_shrinks_what_is_covered_and_invents_nothing(owners: Owners) -> None:
    a, b, _ = owners.records
    merged = sync(a, b)
    assert covers_all(merged.context, a.context)
    assert covers_all(merged.context, b.context)
    assert join(a.context, b.context) == merged.context
    assert set(merged.versions) <= {*a.versions, *b.versions}
    assert set(merged.votes) <= {*a.votes, *b.votes}


@given(histories)
def test_sync_brings_back_nothing_that_either_side_has_superseded(owners: Owners) -> None:
    a, b, _ = owners.records
    merged = sync(a, b)
    for gone in (v for v in a.versions if find(merged, v.dot) is None):
        assert covers(b.context, gone.dot)
        assert find(b, gone.dot) is None
    for kept in merged.versions:
        assert find(a, kept.dot) or not covers(a.context, kept.dot)
        assert find(b, kept.dot) or not covers(b.context, kept.dot)


@given(histories)
def test_no_dot_names_two_payloads_in_any_history(owners: Owners) -> None:
    for left in owners.records:
        for right in owners.records:
            assert clashes(left, right) == ()


@given(histories, st.integers(0, OWNERS - 1), st.integers(0, 10), st.booleans())
def test_a_put_leaves_what_it_neither_saw_nor_postdates(
    owners: Owners, at: int, stamp: int, is_explicit: bool
) -> None:
    before = owners.records[at]
    seen = owners.records[(at + 1) % OWNERS].context
    sent = owners.write(
        at, value=b"new", stamp=stamp, write_id=b"a" * 16, seen=seen, is_explicit=is_explicit
    )
    gone = {
        old.write_id
        for old in before.versions
        if covers(seen, old.dot) or (not is_explicit and old.timestamp < stamp)
    }
    left = {old.dot for old in before.versions if old.write_id not in gone}
    assert {v.dot for v in owners.records[at].versions} == left | {sent.version.dot}
    assert covers_all(owners.records[at].context, join(before.context, seen))


@given(histories, st.integers(0, OWNERS - 1), st.integers(0, 10), st.booleans())
def test_an_owner_that_accepts_keeps_no_older_version_beside_a_plain_put(
    owners: Owners, at: int, stamp: int, is_explicit: bool
) -> None:
    sent = owners.write(at, value=b"new", stamp=stamp, write_id=b"a" * 16, is_explicit=is_explicit)
    to = (at + 1) % OWNERS
    merged = sync(owners.records[to], sent.record)
    held = owners.deliver(sent, to)
    assert held.context == merged.context
    kept = [v for v in merged.versions if is_explicit or v.timestamp >= stamp]
    assert [v.dot for v in held.versions] == [v.dot for v in kept]
    assert newest_rival(held, sent.version) == max(
        (v.timestamp for v in kept if v.dot != sent.version.dot and v.timestamp >= stamp), default=0
    )


@given(histories, st.integers(0, OWNERS - 1))
def test_accepting_twice_is_accepting_once(owners: Owners, to: int) -> None:
    sent = owners.write(0, value=b"new", stamp=5, write_id=b"a" * 16)
    once = owners.deliver(sent, to)
    assert owners.deliver(sent, to) == once


@given(histories)
def test_superseding_one_attempt_supersedes_all_that_are_held(owners: Owners) -> None:
    for record in owners.records:
        for version in record.versions:
            new = version._replace(
                dot=Dot(99, 1), write_id=b"a" * 16, timestamp=Timestamp(0), is_explicit=True
            )
            seen = Context({}, frozenset((version.dot,)))
            left = put(record, new, seen=seen)
            assert all(v.write_id != version.write_id for v in left.versions)


@given(histories, st.integers(0, OWNERS - 1))
def test_a_vote_is_for_a_survivor_and_counts_once(owners: Owners, owner: int) -> None:
    record: Record = owners.records[owner]
    for version in record.versions:
        voted = with_vote(record, Vote(9, version.dot))
        check(voted)
        assert with_vote(voted, Vote(9, version.dot)) == voted
        assert is_same_state(voted, record)
    assert with_vote(record, Vote(9, Dot(77, 1))) == record


@given(contexts, contexts, contexts)
def test_join_is_the_least_context_that_covers_both(a: Context, b: Context, c: Context) -> None:
    joined = join(a, b)
    assert joined == join(b, a)
    assert covers_all(joined, a)
    assert covers_all(joined, b)
    assert join(joined, c) == join(a, join(b, c))
    for actor in range(1, 5):
        for counter in range(1, 8):
            dot = Dot(actor, counter)
            assert covers(joined, dot) == (covers(a, dot) or covers(b, dot))


@given(contexts, contexts)
def test_covers_all_means_that_every_dot_is_covered(a: Context, b: Context) -> None:
    dots = [Dot(actor, counter) for actor in range(1, 5) for counter in range(1, 8)]
    is_covered = all(covers(a, dot) for dot in dots if covers(b, dot))
    # Single dots that add up to an entry do not stand for it: they are the weaker form.
    is_filled = any(covers(a, dot) and not covers(Context(a.vector), dot) for dot in dots)
    assert covers_all(a, b) == is_covered or (is_covered and is_filled)


# ---- hints --------------------------------------------------------------------------------------


@given(histories)
def test_a_hint_removes_only_what_is_older_than_a_plain_put_of_its_own(owners: Owners) -> None:
    mine, hint, _ = owners.records
    merged, taken = sync(mine, hint), take_over(mine, hint)
    check(taken)
    assert taken.context == merged.context
    plain = [v for v in merged.versions if find(hint, v.dot) and not v.is_explicit]
    for version in merged.versions:
        is_older = any(version.timestamp < other.timestamp for other in plain)
        assert (find(taken, version.dot) is None) == is_older


@given(histories)
def test_votes_go_through_a_hint_with_their_versions_and_none_is_made(owners: Owners) -> None:
    mine, hint, _ = owners.records
    merged, taken = sync(mine, hint), take_over(mine, hint)
    assert taken.votes == tuple(v for v in merged.votes if find(taken, v.dot))
    for version in taken.versions:
        voted = with_vote(mine, Vote(9, version.dot))
        expected = with_vote(taken, Vote(9, version.dot)) if voted != mine else taken
        assert take_over(voted, hint) == expected


@given(histories)
def test_a_hint_that_comes_twice_is_one_hint(owners: Owners) -> None:
    mine, hint, _ = owners.records
    once = take_over(mine, hint)
    assert take_over(once, hint) == once


stamps = st.lists(st.integers(1, 9), min_size=2, max_size=5, unique=True)


@given(stamps, st.data())
def test_whatever_the_order_of_hints_the_newest_plain_put_survives_and_all_are_covered(
    offsets: list[int], data: st.DataObject
) -> None:
    hints = [
        put(EMPTY, named(actor, stamp), seen=NOTHING_SEEN)
        for actor, stamp in enumerate(offsets, start=1)
    ]
    first, *others = data.draw(st.permutations(hints))
    held = first
    for hint in others:
        held = take_over(held, hint)
    assert max(v.timestamp for v in held.versions) == max(offsets)
    assert held.context == Context(dict.fromkeys(range(1, len(offsets) + 1), 1))
    # Beside it stand only those that came after everything newer than they are.
    order = [hint.versions[0] for hint in (first, *others)]
    left = {
        v.dot for i, v in enumerate(order) if all(o.timestamp < v.timestamp for o in order[i + 1 :])
    }
    assert {v.dot for v in held.versions} == left


def named(actor: int, stamp: int) -> Version:
    """Return a plain put; what it says does not matter."""
    return Version(
        Dot(actor, 1), Timestamp(stamp), b"%016d" % actor, 0, False, False, 0, 0, b"", actor, b"v"
    )
