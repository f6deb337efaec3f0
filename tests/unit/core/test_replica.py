"""One owner: what it takes, what it refuses, what it votes for, and what it says that it holds."""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass, field
from typing import Any

import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.bounds import SIBLINGS_MAX
from kvnode.core.floors import Floors
from kvnode.core.hlc import Clock
from kvnode.core.keys import StorageKey, encode_key, partition_of_key
from kvnode.core.messages import Instant, ReplicaRead, ReplicaWriteReply, Status, WriteKind
from kvnode.core.record import Encoded, decode, encode
from kvnode.core.replica import Replica, TooMany, Unreadable
from kvnode.core.twins import bury_twins
from kvnode.core.versions import (
    EMPTY,
    Record,
    Version,
    Vote,
    accept,
    is_same_state,
    sync,
    with_vote,
)
from kvnode.core.versions import put as put_
from kvnode.core.write import LocalWrite
from tests.unit.core.builders import (
    KEY,
    NOW,
    SECOND_US,
    WALL_MS,
    at,
    context,
    dot,
    names,
    put,
    record,
    replica_write,
    stamp,
    tombstone,
    topology,
    version,
    write_id,
)

ME = 1
ACTOR_A = 1  # the builders' actor a
LAZY_KEY = encode_key("periodic", b"k")
PARTITION = partition_of_key(KEY, topology().partition_bits)


@dataclass
class Owner:
    """A replica with a store under it, one call a turn."""

    replica: Replica = field(
        default_factory=lambda: Replica(
            ME, ACTOR_A, topology(), Clock(max_skew_ms=60_000), Floors()
        )
    )
    store: dict[StorageKey, bytes] = field(default_factory=dict)
    unreadable: set[StorageKey] = field(default_factory=set)
    batch: WriteBatch = field(default_factory=WriteBatch)

    def holding(self, state: Record, key: StorageKey = KEY) -> Owner:
        self.store[key] = encode(key, state)
        return self

    def held(self, key: StorageKey = KEY) -> Record:
        data = self.store.get(key)
        return EMPTY if data is None else decode(key, data)

    def begin(self) -> None:
        records = {
            key: self.store.get(key) for key in (KEY, LAZY_KEY) if key not in self.unreadable
        }
        self.replica.begin(records, self.unreadable, WALL_MS)

    def end(self) -> None:
        self.batch = self.replica.end()
        for family, key, value in self.batch.changes:
            if family is Family.RECORDS and value is None:
                self.store.pop(StorageKey(key), None)
            elif family is Family.RECORDS and value is not None:
                self.store[StorageKey(key)] = value

    def write(self, state: Record, written: str | None = None, **changes: Any) -> ReplicaWriteReply:
        self.begin()
        now = changes.pop("now", NOW)
        reply = self.replica.on_write(replica_write(state, written, **changes), now)
        self.end()
        return reply

    def coordinate(self, name: str = "put", now: Instant = NOW, **changes: Any) -> LocalWrite:
        self.begin()
        local = self.replica.coordinate(put(name, **changes), now)
        self.end()
        return local

    def read(self, key: StorageKey = KEY, now: Instant = NOW, watermark: bytes = b"") -> Any:
        self.begin()
        reply = self.replica.on_read(ReplicaRead(5, key, at(SECOND_US), watermark), now)
        self.end()
        return reply

    def changed(self, family: Family) -> list[tuple[bytes, bytes | None]]:
        return [(key, value) for each, key, value in self.batch.changes if each is family]


# ---- coordinating -------------------------------------------------------------------------------


def test_a_write_here_gets_the_next_dot_and_this_owners_vote() -> None:
    owner = Owner()
    first = owner.coordinate("one")
    assert first.version.dot == dot("a1")
    assert owner.held().votes == (Vote(ME, dot("a1")),)
    assert owner.coordinate("two", ms=1).version.dot == dot("a2")
    assert names(owner.held()) == ["a2"]


def test_a_write_here_carries_what_the_client_asked_for() -> None:
    local = Owner().coordinate(value=b"x", ms=4, expires_ms=77, is_explicit=True, is_delete=True)
    written = local.version
    assert (written.timestamp, written.expires_ms) == (stamp(4), 77)
    assert (written.value, written.is_tombstone, written.is_explicit) == (b"x", True, True)
    assert written.write_id == write_id("put")


def test_a_local_write_says_where_its_version_stands_in_the_record() -> None:
    owner = Owner().holding(record(version("b1", ms=9)))
    local = owner.coordinate()
    assert names(local.record) == ["a1", "b1"]
    assert local.record.versions[local.at] == local.version
    assert decode(KEY, local.encoded) == local.record


def test_counters_are_per_partition() -> None:
    owner = Owner()
    owner.coordinate("one")
    other = owner.coordinate("two", key=LAZY_KEY)
    bits = topology().partition_bits
    assert partition_of_key(LAZY_KEY, bits) != PARTITION
    assert other.version.dot == dot("a1")


def test_a_retry_finds_its_earlier_attempt_and_makes_no_second_version() -> None:
    owner = Owner().holding(record(version("b1", write_id=write_id("put"))))
    local = owner.coordinate("put")
    assert local.version.dot == dot("b1")
    assert names(owner.held()) == ["b1"]
    assert owner.held().votes == (Vote(ME, dot("b1")),)


def test_no_vote_is_cast_at_or_after_the_deadline() -> None:
    owner = Owner()
    owner.coordinate(now=at(10), deadline_us=at(10))
    assert owner.held().votes == ()


def test_a_write_on_what_cannot_be_read_changes_nothing() -> None:
    owner = Owner()
    owner.unreadable.add(KEY)
    owner.begin()
    with pytest.raises(Unreadable):
        owner.replica.coordinate(put(), NOW)
    assert not owner.replica.end()


def test_a_damaged_record_is_not_written_through_and_raises_an_alarm() -> None:
    owner = Owner()
    owner.store[KEY] = b"\x01garbage"
    owner.begin()
    with pytest.raises(Unreadable):
        owner.replica.coordinate(put(), NOW)
    assert not owner.replica.end()
    assert owner.replica.alarms == ["a record here is damaged: record of 8 bytes is cut short"]


def crowd(count: int = SIBLINGS_MAX) -> Record:
    return record(*(version(f"b{n}", ms=100, is_explicit=True) for n in range(1, count + 1)))


def test_one_sibling_too_many_is_refused_and_its_dot_is_not_spent() -> None:
    owner = Owner().holding(crowd())
    owner.begin()
    with pytest.raises(TooMany, match="129 siblings, 2 context entries"):
        owner.replica.coordinate(put(is_explicit=True), NOW)
    assert not owner.replica.end()
    assert owner.coordinate("later", ms=101, seen=context(f"b{SIBLINGS_MAX}")).version.dot == (
        dot("a1")
    )


# ---- what others send ---------------------------------------------------------------------------


def test_a_write_from_its_coordinator_is_stored_voted_for_and_answered_without_bytes() -> None:
    owner = Owner()
    reply = owner.write(record(version("b1"), votes=((2, "b1"),)), "b1")
    assert reply == ReplicaWriteReply(3, Status.DONE, Encoded(b""))
    assert owner.held().votes == (Vote(ME, dot("b1")), Vote(2, dot("b1")))


def test_a_write_supersedes_what_is_older_here_and_the_answer_brings_that_back() -> None:
    owner = Owner().holding(record(version("c1", ms=1)))
    reply = owner.write(record(version("b1", ms=2)), "b1")
    assert names(owner.held()) == ["b1"]
    assert decode(KEY, reply.record).context == context("b1", "c1")


def test_a_sibling_here_comes_back_with_the_answer() -> None:
    owner = Owner().holding(record(version("c1", ms=9)))
    reply = owner.write(record(version("b1", ms=2)), "b1")
    assert names(decode(KEY, reply.record)) == ["b1", "c1"]


def test_a_repair_merges_and_casts_no_vote() -> None:
    owner = Owner().holding(record(version("c1", ms=1)))
    reply = owner.write(record(version("b1", ms=2), votes=((2, "b1"),)))
    assert names(owner.held()) == ["b1", "c1"]
    assert owner.held().votes == (Vote(2, dot("b1")),)
    assert decode(KEY, reply.record) == owner.held()


def test_a_repair_held_back_never_buries_what_came_later() -> None:
    newer = record(version("b2", ms=5), seen=context("b2"))
    owner = Owner().holding(newer)
    assert owner.write(record(version("b1", ms=1))).status is Status.DONE
    assert owner.held() == newer


def test_a_write_that_was_superseded_here_is_acknowledged_and_not_voted_for() -> None:
    owner = Owner().holding(record(version("c1"), seen=context("b3", "c1")))
    reply = owner.write(record(version("b2", ms=9)), "b2")
    assert reply.status is Status.DONE
    assert owner.held().votes == ()
    assert names(owner.held()) == ["c1"]


def test_the_same_write_again_changes_nothing() -> None:
    owner = Owner()
    owner.write(record(version("b1")), "b1")
    before = owner.held()
    assert owner.write(record(version("b1")), "b1").status is Status.DONE
    assert owner.held() == before


@pytest.mark.parametrize("written", ["b1", None], ids=["write", "repair"])
def test_a_late_frame_is_refused_unread(written: str | None) -> None:
    owner = Owner()
    reply = owner.write(record(version("b1")), written, now=at(SECOND_US + 1))
    assert reply == ReplicaWriteReply(3, Status.REFUSED_LATE, Encoded(b""))
    assert not owner.batch


def test_a_write_on_what_cannot_be_read_is_an_abstention() -> None:
    owner = Owner()
    owner.unreadable.add(KEY)
    assert owner.write(record(version("b1")), "b1").status is Status.ABSTAINED
    assert not owner.batch


@pytest.mark.parametrize("written", ["b1", None], ids=["write", "repair"])
def test_what_comes_for_a_damaged_record_never_replaces_it(written: str | None) -> None:
    owner = Owner()
    owner.store[KEY] = encode(KEY, record(version("c1")))[:-1] + b"#"
    assert owner.write(record(version("b1")), written).status is Status.ABSTAINED
    assert not owner.batch
    assert owner.replica.alarms[0].startswith("a record here is damaged: ")


def test_a_damaged_record_of_another_node_is_refused_with_an_alarm() -> None:
    owner = Owner()
    reply = owner.write(record(version("b1")), "b1", record=Encoded(b"\x01\x02"))
    assert reply.status is Status.REFUSED_INVALID
    assert not owner.batch
    assert owner.replica.alarms == [
        "refused a record of another node: record of 2 bytes is cut short"
    ]


def test_a_record_of_another_key_is_refused() -> None:
    foreign = encode(LAZY_KEY, record(version("b1", key=LAZY_KEY)))
    assert Owner().write(record(version("b1")), record=foreign).status is Status.REFUSED_INVALID


def test_a_write_that_names_no_version_is_refused() -> None:
    owner = Owner()
    assert owner.write(record(version("b1")), "b1", version=1).status is Status.REFUSED_INVALID
    assert not owner.batch


def test_a_write_among_siblings_that_names_none_of_them_is_refused() -> None:
    owner = Owner()
    siblings = record(version("b1"), version("c1"))
    assert owner.write(siblings, "c1", version=2).status is Status.REFUSED_INVALID
    assert not owner.batch


def test_one_dot_with_two_payloads_is_refused_with_an_alarm() -> None:
    owner = Owner().holding(record(version("b1", b"x")))
    assert owner.write(record(version("b1", b"y")), "b1").status is Status.REFUSED_INVALID
    assert owner.held() == record(version("b1", b"x"))
    assert owner.replica.alarms == ["one dot, two payloads: Dot(actor=2, counter=1)"]


def test_an_owner_that_is_overruled_takes_the_bytes_keeps_its_votes_and_raises_an_alarm() -> None:
    owner = Owner().holding(record(version("b1", b"x"), votes=((1, "b1"),)))
    overruling = record(version("b1", b"y"))
    assert owner.write(overruling, None, kind=WriteKind.OVERRULE).status is Status.DONE
    assert owner.held() == record(version("b1", b"y"), votes=((1, "b1"),))
    assert owner.replica.alarms == ["one dot, two payloads: Dot(actor=2, counter=1)"]


def test_a_record_that_would_grow_too_large_is_refused_with_an_alarm() -> None:
    owner = Owner().holding(crowd())
    reply = owner.write(record(version("c1", ms=200, is_explicit=True)), "c1")
    assert reply.status is Status.REFUSED_INVALID
    assert owner.replica.alarms[0].startswith("refused a record of another node: 129 siblings")


def test_what_was_refused_does_not_count_as_seen() -> None:
    owner = Owner().holding(crowd())
    refused = record(version("c1", ms=200, is_explicit=True))
    owner.write(refused, "c1")
    assert not owner.replica.floors.has_seen(PARTITION, dot("c1"))
    owner.holding(record(seen=crowd().context))
    assert owner.write(refused).status is Status.DONE
    assert names(owner.held()) == ["c1"]


# ---- the common cases take a short way to the same state ----------------------------------------

STATES = [
    EMPTY,
    record(seen=context("b1")),
    record(seen=context("b3")),
    record(version("b1", ms=5)),
    record(version("e1", ms=5, is_explicit=True), votes=((3, "e1"),)),
    record(version("c2", ms=3), seen=context("b1", "c2"), votes=((2, "c2"), (3, "c2"))),
    record(version("b2", ms=7), seen=context("b2", single=("c9",))),
    record(version("c9", ms=4, write_id=write_id("b1")), seen=context("b2", "c9")),
    record(tombstone("d1", ms=6), seen=context("b1", "c2", "d1"), votes=((1, "d1"),)),
    record(version("b1", ms=5), version("c1", ms=6), votes=((2, "b1"), (3, "c1"))),
]


@pytest.mark.parametrize("theirs", [state for state in STATES if state.versions], ids=names)
def test_taking_a_write_is_accepting_it_and_voting_whatever_is_held(theirs: Record) -> None:
    for mine, written in itertools.product(STATES, names(theirs)):
        owner = Owner().holding(mine) if mine != EMPTY else Owner()
        reply = owner.write(theirs, written)
        accepted = bury_twins(accept(mine, theirs, dot(written)), mine, theirs)
        expected = with_vote(accepted, Vote(ME, dot(written)))
        held = expected if expected.versions else EMPTY
        assert (reply.status, owner.held()) == (Status.DONE, held), mine
        assert owner.store.get(KEY) == (encode(KEY, expected) if expected.versions else None)
        brought_back = decode(KEY, reply.record) if reply.record else None
        assert brought_back == (None if is_same_state(expected, theirs) else expected)
        assert all(owner.replica.floors.has_seen(PARTITION, v.dot) for v in theirs.versions)


@pytest.mark.parametrize("mine", STATES, ids=names)
def test_a_write_here_is_a_put_with_a_vote_whatever_is_held(mine: Record) -> None:
    wishes = itertools.product((0, 5, 9), (context(), context("b1"), context("c9")), (True, False))
    for ms, seen, is_explicit in wishes:
        owner = Owner().holding(mine) if mine != EMPTY else Owner()
        local = owner.coordinate(ms=ms, seen=seen, is_explicit=is_explicit)
        version_ = local.version
        expected = with_vote(put_(mine, version_, seen=seen), Vote(ME, version_.dot))
        assert version_.dot == dot("a1")
        assert (owner.held(), local.record) == (expected, expected)
        assert local.encoded == owner.store[KEY] == encode(KEY, expected)


# ---- clocks and space ---------------------------------------------------------------------------


@pytest.mark.parametrize("beside", [(), (version("c1"),)], ids=["alone", "among siblings"])
def test_a_clients_write_stamped_too_far_ahead_is_refused_by_every_owner(
    beside: tuple[Version, ...],
) -> None:
    owner = Owner()
    reply = owner.write(record(version("b1", ms=60_001), *beside), "b1")
    assert reply.status is Status.REFUSED_SKEW
    assert not owner.batch


def test_what_others_hold_is_merged_whatever_its_stamp_and_drags_no_clock_along() -> None:
    owner = Owner()
    assert owner.write(record(version("b1", ms=10_000_000))).status is Status.DONE
    assert owner.replica.clock.last == stamp(60_000)


def test_the_clock_follows_what_is_written() -> None:
    owner = Owner()
    owner.write(record(version("b1", ms=50)), "b1")
    assert owner.replica.clock.last == stamp(50)
    owner.coordinate(ms=70)
    assert owner.replica.clock.last == stamp(70)


@pytest.mark.parametrize("written", ["b1", None], ids=["write", "repair"])
def test_writes_are_refused_for_want_of_space(written: str | None) -> None:
    owner = Owner()
    owner.replica.refuses = Status.REFUSED_FULL
    assert owner.write(record(version("b1")), written).status is Status.REFUSED_FULL
    assert not owner.batch


def test_deletes_pass_a_full_disk() -> None:
    owner = Owner().holding(record(version("b1", ms=1)))
    owner.replica.refuses = Status.REFUSED_FULL
    assert owner.write(record(tombstone("c1", ms=2)), "c1").status is Status.DONE
    assert names(owner.held()) == ["c1"]


def test_deletes_pass_no_other_refusal() -> None:
    owner = Owner()
    owner.replica.refuses = Status.REFUSED_LOAD
    assert owner.write(record(tombstone("c1")), "c1").status is Status.REFUSED_LOAD


# ---- floors -------------------------------------------------------------------------------------


def test_every_dot_that_is_stored_is_seen_and_saved_in_the_same_batch() -> None:
    owner = Owner()
    owner.write(record(version("b1"), version("c4", ms=9)), "b1")
    floors = owner.replica.floors
    assert floors.has_seen(PARTITION, dot("b1"))
    assert floors.has_seen(PARTITION, dot("c4"))
    assert len(owner.changed(Family.FLOORS)) == 2
    assert len(owner.changed(Family.RECORDS)) == 1


@pytest.mark.parametrize("written", ["b1", None], ids=["write", "repair"])
def test_a_dot_that_was_here_and_is_here_no_more_was_superseded(written: str | None) -> None:
    owner = Owner()
    owner.replica.floors.add(PARTITION, dot("b1"))
    reply = owner.write(record(version("b1")), written)
    assert reply.status is Status.DONE
    assert decode(KEY, reply.record) == Record(context("b1"), (), ())
    assert owner.held() == EMPTY


def test_an_own_dot_that_comes_home_is_never_issued_again() -> None:
    owner = Owner()
    owner.write(record(version("a7")))
    assert owner.coordinate("put", ms=1).version.dot == dot("a8")


# ---- reading ------------------------------------------------------------------------------------


def test_a_read_gives_the_bytes_as_they_are_stored() -> None:
    owner = Owner().holding(record(version("b1")))
    reply = owner.read()
    assert (reply.id, reply.status, reply.record) == (5, Status.DONE, owner.store[KEY])


def test_absence_is_an_answer_without_bytes() -> None:
    assert Owner().read() == (5, Status.DONE, b"", False)


def test_a_read_sees_what_the_turn_has_written() -> None:
    owner = Owner()
    owner.begin()
    local = owner.replica.coordinate(put(), NOW)
    reply = owner.replica.on_read(ReplicaRead(5, KEY, at(1), b""), NOW)
    assert reply.record == local.encoded


@pytest.mark.parametrize("damage", ["unreadable", "flipped", "cut"])
def test_a_read_of_what_cannot_be_read_is_an_abstention_not_an_absence(damage: str) -> None:
    owner = Owner().holding(record(version("b1")))
    if damage == "unreadable":
        owner.unreadable.add(KEY)
    else:
        owner.store[KEY] = owner.store[KEY][:-1] + (b"#" if damage == "flipped" else b"")
    assert owner.read() == (5, Status.ABSTAINED, b"", False)
    assert len(owner.replica.alarms) == (damage != "unreadable")


def test_a_late_read_is_refused() -> None:
    assert Owner().read(now=at(SECOND_US + 1)).status is Status.REFUSED_LATE


def test_an_unproven_owner_says_so_and_shows_what_it_holds() -> None:
    owner = Owner().holding(record(version("b1")))
    owner.replica.doubt(owner.replica.proving.owned())
    reply = owner.read()
    assert (reply.status, reply.record) == (Status.UNPROVEN, owner.store[KEY])


@pytest.mark.parametrize(("counter", "covers"), [(1, True), (2, False)])
def test_an_owner_covers_a_watermark_that_its_floors_have_passed(
    counter: int, covers: bool
) -> None:
    owner = Owner()
    owner.write(record(version("b1")), "b1")
    assert owner.read(watermark=struct.pack("<QQ", 2, counter)).covers is covers


def test_writes_that_were_superseded_before_they_came_raise_the_floor_too() -> None:
    # Else, once every floor that knew them was dropped, none would ever pass them.
    owner = Owner()
    owner.write(record(version("b1")), "b1")
    seen = context("b1", single=("b2", "b3"))
    owner.write(Record(seen, (version("b4"),), ()))
    assert owner.read(watermark=struct.pack("<QQ", 2, 4)).covers


def test_no_watermark_is_covered_by_nobody() -> None:
    assert Owner().read().covers is False


# ---- durability ---------------------------------------------------------------------------------


def test_what_is_written_is_dirty_until_its_turn_is_synced() -> None:
    owner = Owner()
    owner.coordinate("one")
    assert owner.replica.is_dirty(KEY)
    owner.replica.on_synced(0)
    assert owner.replica.is_dirty(KEY)
    owner.replica.on_synced(1)
    assert not owner.replica.is_dirty(KEY)


def test_a_later_write_keeps_a_key_dirty_past_an_earlier_sync() -> None:
    owner = Owner()
    owner.coordinate("one")
    owner.coordinate("two", ms=1)
    owner.replica.on_synced(1)
    assert owner.replica.is_dirty(KEY)
    owner.replica.on_synced(2)
    assert not owner.replica.is_dirty(KEY)


def test_nothing_of_a_periodic_keyspace_waits_for_the_log() -> None:
    owner = Owner()
    owner.coordinate(key=LAZY_KEY)
    assert not owner.replica.is_dirty(LAZY_KEY)


def test_a_keyspace_that_is_not_known_here_is_taken_to_want_durability() -> None:
    owner, strange = Owner(), encode_key("unheard-of", b"k")
    owner.replica.begin({strange: None}, set(), WALL_MS)
    state = encode(strange, record(version("b1", key=strange)))
    owner.replica.on_write(replica_write(EMPTY, key=strange, record=state), NOW)
    assert owner.replica.is_dirty(strange)


# ---- the index of open conflicts ----------------------------------------------------------------


def test_a_key_enters_and_leaves_the_index_of_conflicts_with_its_siblings() -> None:
    owner = Owner()
    owner.write(record(version("b1", ms=1)), "b1")
    assert owner.changed(Family.CONFLICTS) == []
    owner.write(record(version("c1", ms=1)), "c1")
    assert owner.changed(Family.CONFLICTS) == [(KEY, b"")]
    owner.coordinate(ms=2)
    assert owner.changed(Family.CONFLICTS) == [(KEY, None)]
    owner.coordinate("again", ms=3)
    assert owner.changed(Family.CONFLICTS) == []


def test_a_turn_says_what_it_has_fetched() -> None:
    owner = Owner()
    owner.unreadable.add(LAZY_KEY)
    owner.begin()
    fetched = owner.replica.has_fetched
    assert [fetched(key) for key in (KEY, LAZY_KEY, encode_key("default", b"x"))] == [
        True, True, False,
    ]  # fmt: skip


def test_a_join_at_the_owner_is_the_join_of_the_states() -> None:
    mine, theirs = record(version("b1"), votes=((2, "b1"),)), record(version("c1"))
    owner = Owner().holding(mine)
    owner.write(theirs)
    assert owner.held() == sync(mine, theirs)
