"""Settling among three owners: what is settled, what is left alone, and that nothing is lost."""

from __future__ import annotations

import pytest

from kvnode.core.batch import Family
from kvnode.core.bounds import SETTLING_KEYS_MAX, Limits
from kvnode.core.conversations import (
    AskState,
    LogLosers,
    Prune,
    TellLogged,
    TellPruned,
    TellState,
)
from kvnode.core.keys import StorageKey, encode_key, partition_of_key
from kvnode.core.messages import Outbox, ReplicaWrite
from kvnode.core.versions import Record, sync
from tests.support.settlers import A_WALK_US, Frame, Settlers
from tests.unit.core.builders import SECOND_US, dot, record, tombstone, version

A1, B1 = version("a1", b"won", ms=1), version("b1", b"lost", ms=2)
FIRST, SECOND, THIRD = Settlers().numbers
BOTH = record(A1, B1, votes=((FIRST, "a1"), (SECOND, "a1"), (THIRD, "b1")))
A_WHILE_US = 4 * SECOND_US


def asked(settlers: Settlers, kind: type) -> list[Frame]:
    return [frame for frame in settlers.seen if isinstance(frame[2], kind)]


def settled(settlers: Settlers) -> bool:
    return settlers.values() == [[b"won"]] * 3


def logs(settlers: Settlers) -> list[int]:
    return [len(owner.log()) for owner in settlers.owners.values()]


# ---- what is settled ----------------------------------------------------------------------------


def test_a_conflict_that_all_report_alike_is_logged_by_all_and_then_pruned() -> None:
    settlers = Settlers()
    settlers.hold(BOTH)
    settlers.run(A_WHILE_US)
    assert settled(settlers)
    assert logs(settlers) == [1, 1, 1]
    for owner in settlers.owners.values():
        (entry,) = owner.log()
        assert (entry.winner, entry.loser.versions) == (dot("a1"), (B1,))
        assert entry.rule == "most votes: 2 to 1"
        assert owner.held().context == BOTH.context
        assert owner.family(Family.CONFLICTS) == []
        assert (owner.replica.conflicts.open, owner.replica.conflicts.entries) == (0, 1)
    assert settlers.settler.settling.settled == 1


def test_all_owners_name_an_entry_alike() -> None:
    settlers = Settlers()
    settlers.hold(BOTH)
    settlers.run(A_WHILE_US)
    assert len({owner.log()[0].time_ms for owner in settlers.owners.values()}) == 1


def test_the_first_owner_alone_settles() -> None:
    settlers = Settlers()
    settlers.hold(BOTH)
    settlers.run(A_WHILE_US)
    assert {source for source, _, _ in asked(settlers, AskState)} == {FIRST}


def test_a_conflict_must_last_before_it_is_settled() -> None:
    settlers = Settlers()
    settlers.hold(BOTH)
    settlers.run(SECOND_US * 9 // 10)
    assert len(asked(settlers, AskState)) == 3
    assert not asked(settlers, LogLosers)


def test_two_looks_at_one_conflict_at_a_time_do_not_make_it_last() -> None:
    settlers = Settlers()
    settlers.holds = lambda frame: isinstance(frame[2], TellState) and frame[0] != FIRST
    settlers.hold(BOTH)
    settlers.run(SECOND_US * 6 // 10)
    assert settlers.settler.settling.under_way == 2
    settlers.release()
    assert not asked(settlers, LogLosers)
    assert settlers.settler.settling.under_way == 0


def test_a_vote_that_comes_late_begins_the_wait_anew() -> None:
    settlers = Settlers()
    settlers.hold(record(A1, B1, votes=((FIRST, "a1"),)))
    settlers.run(SECOND_US * 9 // 10)
    settlers.hold(BOTH)
    settlers.run(SECOND_US * 9 // 10)
    assert not asked(settlers, LogLosers)
    settlers.run(A_WHILE_US)
    assert settled(settlers)


def test_owners_that_differ_in_versions_or_in_votes_alone_are_mended_first() -> None:
    settlers = Settlers()
    settlers.hold(record(A1, B1, votes=((FIRST, "a1"),)), FIRST)
    settlers.hold(record(A1, B1, votes=((SECOND, "a1"),)), SECOND)
    settlers.hold(record(B1, votes=((THIRD, "b1"),)), THIRD)
    settlers.run(SECOND_US * 9 // 10)
    assert [owner.held() for owner in settlers.owners.values()] == [BOTH] * 3
    settlers.run(A_WHILE_US)
    assert settled(settlers)


def test_what_one_owner_knows_to_be_superseded_ends_the_conflict_unlogged() -> None:
    settlers = Settlers()
    settlers.hold(BOTH, FIRST, SECOND)
    settlers.hold(record(A1, seen=BOTH.context, votes=((FIRST, "a1"),)), THIRD)
    settlers.run(A_WHILE_US)
    assert settled(settlers)
    assert logs(settlers) == [0, 0, 0]


def test_a_tombstone_may_win_and_may_lose() -> None:
    for kept, lost in ((tombstone("a1", ms=1), B1), (A1, tombstone("b1", ms=2))):
        settlers = Settlers()
        settlers.hold(record(kept, lost, votes=((FIRST, "a1"), (SECOND, "a1"))))
        settlers.run(A_WHILE_US)
        assert [o.held().versions for o in settlers.owners.values()] == [(kept,)] * 3
        assert [o.log()[0].loser.versions for o in settlers.owners.values()] == [(lost,)] * 3


def test_many_conflicts_are_settled_within_the_window_and_the_rate() -> None:
    settlers = Settlers(Limits(settle_after_ms=1_000, settle_window=4, settle_keys_per_s=100))
    mine = keys_of_the_settler(settlers)[:80]
    for count, key in enumerate(mine, start=1):
        settlers.hold(conflict_of(key, count), key=key)
    settlers.run(SECOND_US)
    assert len({f[2].key for f in asked(settlers, AskState)}) <= 110
    assert settlers.settler.settling.under_way <= 4
    settlers.run(8 * SECOND_US)
    assert settlers.settler.replica.conflicts.open == 0
    assert settlers.settler.replica.conflicts.entries == len(mine)


def test_what_the_rate_does_not_allow_yet_is_not_looked_at_again_and_again() -> None:
    settlers = Settlers(Limits(settle_after_ms=100, settle_keys_per_s=1))
    for count, key in enumerate(keys_of_the_settler(settlers)[:20], start=1):
        settlers.hold(conflict_of(key, count), key=key)
    settlers.run(3 * SECOND_US)
    settling, wakes = settlers.settler.settling, 0
    end_us = settlers.now + 2 * SECOND_US
    while (at := settling.next_wake()) < end_us:
        settlers.now = at
        settlers.tick(settlers.settler)
        settlers.deliver()
        wakes += 1
    assert 1 <= wakes <= 20


def conflict_of(key: StorageKey, count: int) -> Record:
    """Return a conflict whose dots no other key has."""
    one, other = version(f"a{count}", b"x", 1, key=key), version(f"b{count}", b"y", 2, key=key)
    return record(one, other)


def keys_of_the_settler(settlers: Settlers) -> list[StorageKey]:
    bits, rows = settlers.members.partition_bits, settlers.members.owner_numbers
    keys = [encode_key("default", b"%d" % number) for number in range(400)]
    return [key for key in keys if rows[partition_of_key(key, bits)][0] == FIRST]


# ---- what is left alone -------------------------------------------------------------------------


def test_a_keyspace_of_siblings_is_never_settled_nor_looked_at() -> None:
    settlers = Settlers()
    key = encode_key("siblings", b"k")
    settlers.hold(record(version("a1", key=key), version("b1", key=key)), key=key)
    settlers.run(A_WHILE_US)
    assert settlers.seen == []
    assert settlers.settler.replica.conflicts.open == 1


def test_equal_values_are_no_conflict() -> None:
    settlers = Settlers()
    settlers.hold(record(version("a1", b"x", 1), version("b1", b"x", 2)))
    settlers.run(A_WHILE_US)
    assert settlers.seen == []


def test_with_an_owner_away_nothing_is_asked() -> None:
    settlers = Settlers()
    settlers.settler.absent.add(THIRD)
    settlers.hold(BOTH)
    settlers.run(A_WHILE_US)
    assert settlers.seen == []


def test_with_an_owner_in_doubt_a_conflict_stays_open() -> None:
    for doubtful in (FIRST, SECOND, THIRD):
        settlers = Settlers()
        settlers.hold(BOTH)
        replica = settlers.owners[doubtful].replica
        replica.doubt(replica.proving.owned())
        settlers.run(A_WHILE_US)
        assert not asked(settlers, LogLosers)
        assert settlers.settler.settling.under_way == 0


def test_a_node_whose_clock_is_off_settles_and_purges_nothing() -> None:
    settlers = Settlers()
    settlers.hold(BOTH)
    for _ in range(10):
        settlers.now = type(settlers.now)(settlers.now + A_WALK_US)
        settlers.tick(settlers.settler, is_allowed=False)
        settlers.deliver()
    assert settlers.seen == []


def test_a_node_whose_clock_is_off_is_not_woken_again_and_again() -> None:
    settlers = Settlers()
    settlers.hold(BOTH)
    settlers.run(A_WHILE_US)
    assert settlers.settler.replica.conflicts.entries == 1
    settlers.now = type(settlers.now)(settlers.now + 120 * SECOND_US)  # a purge is due
    settlers.tick(settlers.settler, is_allowed=False)
    assert settlers.settler.settling.next_wake() >= settlers.now + SECOND_US // 2


def test_without_conflicts_they_are_counted_once_a_minute_and_no_more() -> None:
    settlers = Settlers()
    settlers.run(SECOND_US // 2)
    assert settlers.settler.settling.next_wake() >= settlers.now + 59 * SECOND_US
    settlers.settler.replica.conflicts.open = 3  # as damage may leave it
    settlers.settler.replica.conflicts.changes += 1
    settlers.run(61 * SECOND_US)
    assert settlers.settler.replica.conflicts.open == 0


def test_a_conflict_that_was_not_counted_is_found_within_a_minute() -> None:
    settlers = Settlers()
    settlers.hold(BOTH)
    for owner in settlers.owners.values():
        owner.replica.conflicts.open = 0
    settlers.run(70 * SECOND_US)
    assert settled(settlers)
    assert [o.replica.conflicts.open for o in settlers.owners.values()] == [0, 0, 0]


# ---- what goes wrong ----------------------------------------------------------------------------


def test_nothing_is_pruned_before_w_owners_have_logged() -> None:
    settlers = Settlers()
    settlers.holds = lambda frame: isinstance(frame[2], TellLogged) and frame[0] != FIRST
    settlers.hold(BOTH)
    settlers.run(A_WHILE_US)
    assert asked(settlers, LogLosers)
    assert not asked(settlers, Prune)
    assert all(owner.held() == BOTH for owner in settlers.owners.values())
    settlers.deliver_one(settlers.held[0])
    settlers.deliver()
    assert settled(settlers)


@pytest.mark.parametrize("kind", [AskState, TellState, LogLosers, TellLogged, Prune, TellPruned])
def test_any_frame_that_is_lost_is_made_up_for_by_a_later_walk(kind: type) -> None:
    settlers = Settlers()
    lost: list[Frame] = []

    def loses(frame: Frame) -> bool:
        if isinstance(frame[2], kind) and len(lost) < 3:
            lost.append(frame)
            return True
        return False

    settlers.holds = loses
    settlers.hold(BOTH)
    settlers.run(25 * SECOND_US)
    joined = [owner.held() for owner in settlers.owners.values()]
    assert sync(sync(*joined[:2]), joined[2]).versions == (A1,)
    assert sum(count > 0 for count in logs(settlers)) >= 2
    assert len(lost) == 3


def test_an_attempt_that_is_repeated_logs_nothing_twice() -> None:
    settlers = Settlers()
    settlers.holds = lambda frame: isinstance(frame[2], TellLogged)
    settlers.hold(BOTH)
    settlers.run(40 * SECOND_US)
    assert len(asked(settlers, LogLosers)) > 3
    assert logs(settlers) == [1, 1, 1]
    assert [o.replica.conflicts.entries for o in settlers.owners.values()] == [1, 1, 1]


def test_a_full_log_leaves_the_conflict_open() -> None:
    settlers = Settlers(Limits(settle_after_ms=1_000, conflict_log_bytes=10))
    settlers.hold(BOTH)
    settlers.run(A_WHILE_US)
    assert asked(settlers, LogLosers)
    assert all(owner.held() == BOTH for owner in settlers.owners.values())


def test_what_changed_before_the_prune_came_is_not_pruned() -> None:
    settlers = Settlers()
    settlers.holds = lambda frame: isinstance(frame[2], Prune) and frame[1] != FIRST
    settlers.hold(BOTH)
    settlers.run(2 * SECOND_US)
    newer = record(B1, version("c1", b"new", 3), votes=((SECOND, "c1"),))
    over_a = newer._replace(context=record(A1, B1, version("c1")).context)
    settlers.hold(over_a, SECOND)
    settlers.release()
    assert [v.value for v in settlers.owners[SECOND].held().versions] == [b"lost", b"new"]


def test_a_new_life_or_a_new_epoch_refuses_what_was_meant_for_the_old_one() -> None:
    def restart(settlers: Settlers) -> None:
        settlers.owners[THIRD].begin()

    def learn(settlers: Settlers) -> None:
        settlers.advance_epoch(THIRD)

    for happens in (restart, learn):
        for kind in (LogLosers, Prune):
            settlers = Settlers()
            settlers.holds = lambda f, kind=kind: isinstance(f[2], kind) and f[1] == THIRD  # type: ignore[misc]
            settlers.hold(BOTH)
            settlers.run(2 * SECOND_US)
            happens(settlers)
            before = settlers.owners[THIRD].store.copy()
            settlers.release()
            assert settlers.owners[THIRD].store == before


def test_a_topology_that_changes_begins_all_anew() -> None:
    settlers = Settlers()
    settlers.holds = lambda frame: isinstance(frame[2], TellLogged)
    settlers.hold(BOTH)
    settlers.run(2 * SECOND_US)
    assert settlers.settler.settling.under_way == 1
    settlers.advance_epoch(*settlers.numbers)
    assert settlers.settler.settling.under_way == 0
    settlers.release()
    assert not asked(settlers, Prune)
    settlers.run(A_WHILE_US)
    assert settled(settlers)


def test_an_owner_that_is_lost_ends_what_was_under_way_with_it() -> None:
    settlers = Settlers()
    settlers.holds = lambda frame: isinstance(frame[2], TellLogged)
    settlers.hold(BOTH)
    settlers.run(2 * SECOND_US)
    settlers.settler.settling.on_down(SECOND)
    settlers.release()
    assert not asked(settlers, Prune)


def test_frames_from_strangers_and_of_other_conflicts_change_nothing() -> None:
    settlers = Settlers()
    settlers.holds = lambda frame: isinstance(frame[2], TellLogged)
    settlers.hold(BOTH)
    settlers.run(2 * SECOND_US)
    settling, number = settlers.settler.settling, settlers.held[0][2].id
    for sender, tell in ((9, TellLogged(number, True)), (SECOND, TellLogged(number + 1, True))):
        for _ in range(3):
            settling.on_tell(sender, tell, settlers.now, settlers.wall_ms, Outbox())
    out = Outbox()
    for _ in range(3):  # one owner, three times
        settling.on_tell(SECOND, TellLogged(number, True), settlers.now, settlers.wall_ms, out)
    assert out.peers == {}


def test_one_dot_with_two_payloads_is_left_to_others() -> None:
    settlers = Settlers()
    settlers.hold(BOTH, FIRST, SECOND)
    settlers.hold(record(A1, version("b1", b"other", 2)), THIRD)
    repairs: list[Frame] = []

    def holds(frame: Frame) -> bool:
        if isinstance(frame[2], ReplicaWrite):
            repairs.append(frame)
        return False

    settlers.holds = holds
    settlers.run(A_WHILE_US)
    assert repairs == []
    assert not asked(settlers, LogLosers)


def test_of_keys_that_wait_a_bounded_number_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SETTLING_KEYS_MAX > 2
    monkeypatch.setattr("kvnode.core.settling.SETTLING_KEYS_MAX", 2)
    settlers = Settlers()
    for count, key in enumerate(keys_of_the_settler(settlers)[:5], start=1):
        settlers.hold(conflict_of(key, count), key=key)
    settlers.run(SECOND_US // 2)
    assert len(settlers.settler.settling._agreed) == 2
    settlers.run(20 * SECOND_US)
    assert settlers.settler.replica.conflicts.open == 0
    assert settlers.settler.replica.conflicts.entries == 5


# ---- purging ------------------------------------------------------------------------------------


def test_entries_are_kept_for_their_time_and_then_purged_slice_by_slice() -> None:
    settlers = Settlers(Limits(settle_after_ms=1_000, conflict_log_ms=60_000))
    settlers.hold(BOTH)
    settlers.run(50 * SECOND_US)
    assert logs(settlers) == [1, 1, 1]
    settlers.run(140 * SECOND_US)
    assert logs(settlers) == [0, 0, 0]
    assert [o.replica.conflicts.entries for o in settlers.owners.values()] == [0, 0, 0]
