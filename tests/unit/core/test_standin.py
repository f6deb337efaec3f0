"""The stand-in's part: what it keeps, answers and applies for owners of keys that it does not own.

Node 1 of five stands in, for a key of which it owns nothing; its actor is `a`.
"""

from __future__ import annotations

from typing import Any

import pytest

from kvnode.core import standin
from kvnode.core.batch import Family
from kvnode.core.bounds import SIBLINGS_MAX
from kvnode.core.floors import Floors
from kvnode.core.hints import Hints, HintsFull, decode_hint, hint_key, split_hint_key
from kvnode.core.hlc import Clock
from kvnode.core.keys import encode_key, partition_of_key
from kvnode.core.messages import (
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWriteReply,
    Status,
)
from kvnode.core.record import Encoded, decode, encode
from kvnode.core.replica import Replica, TooMany, Unreadable
from kvnode.core.standin import StandIn
from kvnode.core.versions import EMPTY, Context, Record, covers
from kvnode.core.write import LocalWrite
from tests.unit.core.builders import (
    NOW,
    SECOND_US,
    WALL_MS,
    at,
    context,
    dot,
    names,
    owned_by,
    put,
    record,
    replica_write,
    stamp,
    tombstone,
    topology,
    version,
)

ME = 1
CLUSTER = topology(5)
THEIRS = owned_by(CLUSTER, ME, is_owner=False)
MINE = owned_by(CLUSTER, ME, is_owner=True)
ROOMY = 1 << 20


def a(name: str, value: bytes | None = None, ms: int = 0, **more: Any) -> Any:
    """Return a version of the key that others own."""
    return version(name, value, ms, key=THEIRS, **more)


class Fallback:
    """A stand-in with a store under it, one call a turn."""

    def __init__(self, *, bytes_max: int = ROOMY) -> None:
        clock = Clock(max_skew_ms=60_000)
        self.replica = Replica(ME, 1, CLUSTER, clock, Floors())
        self.hints = Hints(bytes_max=bytes_max)
        self.stand_in = StandIn(self.replica, self.hints)
        self.store: dict[bytes, bytes] = {}
        self.unreadable: set[bytes] = set()
        self.changes: list[tuple[Family, bytes, bytes | None]] = []
        self.owners = tuple(self.stand_in.owners_of(THEIRS))

    def begin(self) -> None:
        names_of = self.stand_in.names_of(THEIRS)
        found = {name: self.store.get(name) for name in names_of if name not in self.unreadable}
        self.replica.begin({}, frozenset(), WALL_MS)
        self.hints.begin(found, self.unreadable, self.replica.batch, WALL_MS)

    def end(self) -> None:
        self.changes = list(self.replica.end().changes)
        for family, name, value in self.changes:
            if family is Family.HINTS and value is not None:
                self.store[name] = value

    def write(
        self, state: Record, written: str | None = None, *, slot: int = 0, **changes: Any
    ) -> ReplicaWriteReply:
        now = changes.pop("now", NOW)
        fields = {"key": THEIRS, "stand_in_for": self.owners[slot]} | changes
        request = replica_write(state, written, **({"record": encode(THEIRS, state)} | fields))
        self.begin()
        reply = self.stand_in.on_write(request, now)
        self.end()
        return reply

    def coordinate(self, name: str, ms: int = 0, *, slot: int = 0, **changes: Any) -> LocalWrite:
        self.begin()
        request = put(name, ms=ms, key=THEIRS, **changes)
        local = self.stand_in.coordinate(request, self.owners[slot])
        self.end()
        return local

    def read(self, now: Any = NOW) -> ReplicaReadReply:
        self.begin()
        reply = self.stand_in.on_read(ReplicaRead(5, THEIRS, at(SECOND_US), b"", True), now)
        self.end()
        return reply

    def kept(self, slot: int = 0) -> Record:
        data = self.store.get(hint_key(self.owners[slot], THEIRS))
        return decode(THEIRS, decode_hint(data).record) if data else EMPTY

    def hand_over(self, slot: int = 0) -> Record:
        """The owner has taken what is kept for it."""
        state, name = self.kept(slot), hint_key(self.owners[slot], THEIRS)
        self.begin()
        self.hints.note_sent(name, 9)
        self.hints.on_delivered(name, 9)
        self.end()
        del self.store[name]
        return state


# ---- for whom -----------------------------------------------------------------------------------


def test_it_stands_in_for_the_keys_owners_under_a_name_for_each() -> None:
    fallback = Fallback()
    assert ME not in fallback.owners
    names_of = fallback.stand_in.names_of(THEIRS)
    assert [split_hint_key(name) for name in names_of] == [(o, THEIRS) for o in fallback.owners]


def test_a_keyspace_that_is_unknown_here_has_no_owners() -> None:
    assert Fallback().stand_in.owners_of(encode_key("unheard-of", b"k")) == ()


# ---- writes of coordinators ---------------------------------------------------------------------


def test_a_write_is_kept_for_its_owner_as_it_came_and_casts_no_vote_of_its_own() -> None:
    fallback = Fallback()
    state = record(a("b1"), votes=((2, "b1"),))
    assert fallback.write(state, "b1") == ReplicaWriteReply(3, Status.DONE, Encoded(b""))
    assert fallback.kept() == state
    assert fallback.kept(1) == EMPTY


def test_what_it_keeps_changes_no_record_and_no_floor() -> None:
    fallback = Fallback()
    fallback.write(record(a("b1")), "b1")
    fallback.coordinate("mine", ms=5)
    assert {family for family, _, _ in fallback.changes} == {Family.HINTS}
    partition = partition_of_key(THEIRS, CLUSTER.partition_bits)
    seen = [fallback.replica.floors.has_seen(partition, dot(name)) for name in ("a1", "b1")]
    assert seen == [False, False]


def test_it_keeps_w_of_the_keyspace_for_the_day_when_the_hint_is_too_old() -> None:
    fallback = Fallback()
    fallback.write(record(a("b1")), "b1")
    assert decode_hint(fallback.store[hint_key(fallback.owners[0], THEIRS)]).w == 2


def test_a_plain_put_supersedes_what_is_older_here_and_the_answer_says_so() -> None:
    fallback = Fallback()
    fallback.write(record(a("b1", ms=1)), "b1")
    reply = fallback.write(record(a("c1", ms=2)), "c1")
    assert names(fallback.kept()) == ["c1"]
    assert decode(THEIRS, reply.record) == record(a("c1", ms=2), seen=context("b1", "c1"))


def test_an_older_put_stands_beside_a_newer_one() -> None:
    fallback = Fallback()
    fallback.write(record(a("b1", ms=9)), "b1")
    fallback.write(record(a("c1", ms=2)), "c1")
    assert names(fallback.kept()) == ["b1", "c1"]


def test_a_repair_supersedes_nothing_by_its_stamp() -> None:
    fallback = Fallback()
    fallback.write(record(a("b1", ms=1)), "b1")
    fallback.write(record(a("c1", ms=2)))
    assert names(fallback.kept()) == ["b1", "c1"]


def test_what_is_kept_for_one_owner_does_not_touch_what_is_kept_for_another() -> None:
    fallback = Fallback()
    fallback.write(record(a("b1", ms=1)), "b1", slot=0)
    fallback.write(record(a("c1", ms=2)), "c1", slot=1)
    assert (names(fallback.kept(0)), names(fallback.kept(1))) == (["b1"], ["c1"])


def test_what_it_keeps_moves_its_clock() -> None:
    fallback = Fallback()
    fallback.write(record(a("b1", ms=40)), "b1")
    assert fallback.replica.clock.read(WALL_MS) >= stamp(40)


# ---- refusals -----------------------------------------------------------------------------------


def refused(fallback: Fallback, reply: ReplicaWriteReply) -> Status:
    assert (reply.record, fallback.store) == (b"", {})
    return reply.status


def test_a_late_write_is_refused() -> None:
    fallback = Fallback()
    reply = fallback.write(record(a("b1")), "b1", now=at(SECOND_US + 1))
    assert refused(fallback, reply) is Status.REFUSED_LATE


def test_a_write_that_does_not_fit_is_refused() -> None:
    fallback = Fallback(bytes_max=10)
    assert refused(fallback, fallback.write(record(a("b1")), "b1")) is Status.REFUSED_FULL


def test_a_node_without_space_takes_no_hints_but_deletes() -> None:
    fallback = Fallback()
    fallback.replica.refuses = Status.REFUSED_FULL
    assert refused(fallback, fallback.write(record(a("b1")), "b1")) is Status.REFUSED_FULL
    gone = record(tombstone("b2", key=THEIRS))
    assert fallback.write(gone, "b2").status is Status.DONE


def test_a_write_stamped_too_far_ahead_is_refused() -> None:
    fallback = Fallback()
    reply = fallback.write(record(a("b1", ms=60_001)), "b1")
    assert refused(fallback, reply) is Status.REFUSED_SKEW


@pytest.mark.parametrize(
    "changes",
    [{"stand_in_for": 99}, {"stand_in_for": ME}, {"record": b"\x01\x02"}, {"version": 4}],
    ids=["stranger", "itself", "damaged", "index"],
)
def test_a_write_that_makes_no_sense_is_refused_and_told(changes: dict[str, Any]) -> None:
    fallback = Fallback()
    reply = fallback.write(record(a("b1")), "b1", **changes)
    assert refused(fallback, reply) is Status.REFUSED_INVALID
    assert fallback.replica.alarms[0].startswith("refused a hint of another node: ")


def test_one_dot_with_two_payloads_is_refused_and_told() -> None:
    fallback = Fallback()
    fallback.write(record(a("b1")), "b1")
    reply = fallback.write(record(a("b1", b"other")), "b1")
    assert reply.status is Status.REFUSED_INVALID
    assert fallback.replica.alarms[0].endswith("one dot, two payloads: Dot(actor=2, counter=1)")
    assert fallback.kept() == record(a("b1"))


def test_one_sibling_too_many_is_refused() -> None:
    fallback = Fallback()
    fallback.write(record(*(a(f"b{n}", ms=9) for n in range(1, SIBLINGS_MAX + 1))))
    before = dict(fallback.store)
    assert fallback.write(record(a("c1")), "c1").status is Status.REFUSED_INVALID
    with pytest.raises(TooMany):
        fallback.coordinate("mine")
    assert fallback.store == before


@pytest.mark.parametrize("how", ["read failed", "damaged"])
def test_what_cannot_be_read_is_an_abstention(how: str) -> None:
    fallback = Fallback()
    name = hint_key(fallback.owners[0], THEIRS)
    if how == "damaged":
        fallback.store[name] = b"\x01garbage"
    else:
        fallback.unreadable.add(name)
    before = dict(fallback.store)
    assert fallback.write(record(a("b1")), "b1").status is Status.ABSTAINED
    assert fallback.read() == ReplicaReadReply(5, Status.ABSTAINED, Encoded(b""), False)
    with pytest.raises(Unreadable):
        fallback.coordinate("mine")
    assert fallback.store == before


# ---- reads --------------------------------------------------------------------------------------


def test_a_read_is_answered_with_all_that_is_kept_for_any_owner() -> None:
    fallback = Fallback()
    fallback.write(record(a("b1", ms=2)), "b1", slot=0)
    fallback.write(record(a("c1", ms=2)), "c1", slot=2)
    reply = fallback.read()
    assert (reply.status, reply.covers) == (Status.DONE, False)
    assert names(decode(THEIRS, reply.record)) == ["b1", "c1"]


def test_that_nothing_is_kept_is_an_empty_answer() -> None:
    assert Fallback().read() == ReplicaReadReply(5, Status.DONE, Encoded(b""), False)


def test_a_late_read_is_refused() -> None:
    assert Fallback().read(at(SECOND_US + 1)).status is Status.REFUSED_LATE


def test_what_is_kept_is_dirty_until_the_log_is_durable() -> None:
    fallback = Fallback()
    fallback.write(record(a("b1")), "b1")
    written = fallback.replica.turn
    fallback.stand_in.on_synced(written - 1)
    assert fallback.stand_in.is_dirty(THEIRS)
    fallback.stand_in.on_synced(written)
    assert not fallback.stand_in.is_dirty(THEIRS)


# ---- writes of its own --------------------------------------------------------------------------


def test_a_clients_write_is_applied_under_a_dot_of_its_own_without_a_vote() -> None:
    fallback = Fallback()
    local = fallback.coordinate("one", value=b"v", ms=3)
    assert (local.version.dot, local.version.value) == (dot("a1"), b"v")
    assert local.record.votes == ()
    assert decode(THEIRS, local.encoded) == local.record == fallback.kept()
    assert local.record.versions[local.at] == local.version


def test_its_dots_rise_and_none_is_spent_on_a_write_that_does_not_fit() -> None:
    fallback = Fallback()
    assert fallback.coordinate("one").version.dot == dot("a1")
    with pytest.raises(HintsFull):
        fallback.coordinate("large", ms=1, value=b"v" * ROOMY)
    assert fallback.coordinate("two", ms=2).version.dot == dot("a2")


def test_a_retry_of_what_is_kept_keeps_its_dot() -> None:
    fallback = Fallback()
    first = fallback.coordinate("one")
    fallback.write(record(a("b1", ms=-1)), "b1")
    fallback.coordinate("two", ms=-2)
    again = fallback.coordinate("one")
    assert again.version == first.version
    assert again.record.versions[again.at] == first.version
    assert fallback.coordinate("three", ms=1).version.dot == dot("a3")


def test_a_turn_that_did_not_fetch_the_entry_cannot_coordinate() -> None:
    fallback = Fallback()
    fallback.begin()
    assert fallback.stand_in.can_coordinate(fallback.owners[0], THEIRS)
    assert not fallback.stand_in.can_coordinate(fallback.owners[0], MINE)


def test_an_explicit_put_after_a_handover_does_not_bury_what_was_handed_over() -> None:
    fallback = Fallback()
    fallback.coordinate("one")
    handed = fallback.hand_over()
    local = fallback.coordinate("two", ms=9, is_explicit=True)
    assert local.record.context == Context({}, frozenset((dot("a2"),)))
    assert not covers(local.record.context, handed.versions[0].dot)


def test_an_older_put_after_a_handover_does_not_bury_what_was_handed_over() -> None:
    fallback = Fallback()
    fallback.coordinate("one", ms=5)
    fallback.hand_over()
    for ms in (4, 5):
        local = fallback.coordinate(f"older{ms}", ms=ms)
        assert not covers(local.record.context, dot("a1"))


def test_a_newer_plain_put_after_a_handover_supersedes_what_was_handed_over() -> None:
    fallback = Fallback()
    fallback.coordinate("one", ms=5)
    fallback.hand_over()
    assert fallback.coordinate("two", ms=6).record.context == context("a2")


def test_what_was_handed_over_long_ago_and_was_the_newest_is_not_buried_either() -> None:
    fallback = Fallback()
    fallback.coordinate("newest", ms=9)
    fallback.hand_over()
    fallback.coordinate("older", ms=1)
    fallback.hand_over()
    assert not covers(fallback.coordinate("between", ms=5).record.context, dot("a1"))


def test_an_explicit_put_supersedes_what_its_context_covers() -> None:
    fallback = Fallback()
    fallback.coordinate("one")
    local = fallback.coordinate("two", is_explicit=True, seen=context("a1"))
    assert names(local.record) == ["a2"]
    assert covers(local.record.context, dot("a1"))


def test_past_its_bound_it_remembers_the_latest_and_buries_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(standin, "OWN_WRITES_MAX", 0)
    fallback = Fallback()
    fallback.coordinate("one", ms=1)
    fallback.hand_over()
    assert fallback.coordinate("two", ms=9).record.context == context(single=("a2",))
