"""Reaping: what may go, what is in the way, and what nobody asks for."""

from __future__ import annotations

from kvnode.core.answering import Heard
from kvnode.core.batch import Family, WriteBatch
from kvnode.core.bounds import Limits
from kvnode.core.exchange import shared
from kvnode.core.floors import Floors, Lack
from kvnode.core.hlc import Clock
from kvnode.core.messages import Instant, Outbox
from kvnode.core.reaping import REAP_ID, Obstacle
from kvnode.core.record import encode
from kvnode.core.replica import Replica
from kvnode.core.shelf import note_grave
from kvnode.core.upkeep import Upkeep
from kvnode.core.versions import Record
from tests.unit.core.builders import (
    KEY,
    NOW,
    WALL_MS,
    context,
    dot,
    record,
    tombstone,
    topology,
    version,
)

ME, B, C = 1, 2, 3
TOPOLOGY = topology()
LIMITS = Limits()
DEAD = record(tombstone("a2"), seen=context("a2", "b1"))


class Grave:
    """Node 1 holding one record, with what it has heard of others' floors."""

    def __init__(self, held: Record = DEAD) -> None:
        self.floors = Floors()
        self.replica = Replica(ME, 9, TOPOLOGY, Clock(max_skew_ms=60_000), self.floors)
        self.upkeep = Upkeep(self.replica, LIMITS, lambda node: True)
        self.reaping = self.upkeep.reaping
        self.partition = self.replica.trees.partition_of(KEY)
        self.data: bytes | None = encode(KEY, held)
        self.wall_ms = WALL_MS
        self.now = NOW

    def sees(self, *names: str) -> Grave:
        for name in names:
            self.floors.add(self.partition, dot(name))
        return self

    def hears(self, node: int, *names: str, is_proven: bool = True) -> Grave:
        told = Floors()
        for name in names:
            told.add(self.partition, dot(name))
        view = shared(TOPOLOGY, ME, node, self.partition)
        assert view is not None
        self.reaping.on_heard(node, view, Heard(told.report(self.partition), is_proven))
        return self

    def walk_again(self) -> bool:
        """Have them walked once more, when it is time."""
        self.now = Instant(self.now + 1_000 * LIMITS.exchange_interval_ms)
        return self.walk()

    def walk(self) -> bool:
        """Have the graves walked; returns whether the record is still there."""
        self.replica.begin({KEY: self.data}, frozenset(), self.wall_ms)
        out = Outbox()
        self.reaping.on_time(self.now, self.wall_ms, out)
        index = WriteBatch()
        assert self.data is not None
        note_grave(KEY, self.data, index)
        pairs = [(key, value) for _, key, value in index.changes if value is not None]
        self.reaping.on_scanned(pairs, self.now)
        for family, key, value in self.replica.end().changes:
            if family is Family.RECORDS and key == KEY:
                self.data = value
        return self.data is not None


ALL = ("a1", "a2", "b1")


def ripe(held: Record = DEAD) -> Grave:
    return Grave(held).sees(*ALL).hears(B, *ALL).hears(C, *ALL)


def test_a_tombstone_goes_once_every_owner_s_floor_covers_it() -> None:
    grave = ripe()
    assert not grave.walk()
    assert grave.reaping.reaped == 1


def test_a_record_with_a_live_version_stays() -> None:
    assert ripe(record(version("a2"), seen=context("a2", "b1"))).walk()
    assert ripe(record(tombstone("a2"), version("b1"), seen=context("a2", "b1"))).walk()


def test_an_owner_that_has_said_nothing_is_in_the_way() -> None:
    grave = Grave().sees(*ALL).hears(B, *ALL)
    assert grave.walk()
    assert grave.reaping.obstacles(KEY, DEAD) == [Obstacle(C, False, False, ())]


def test_a_floor_that_does_not_cover_the_dot_or_the_context_is_in_the_way() -> None:
    for names, lack in ((("a1", "b1"), Lack(1, 2, 1)), (("a1", "a2"), Lack(2, 1, 0))):
        grave = Grave().sees(*ALL).hears(B, *ALL).hears(C, *names)
        assert grave.walk()
        assert grave.reaping.obstacles(KEY, DEAD) == [Obstacle(C, True, True, (lack,))]


def test_this_node_s_own_floor_must_cover_it_too() -> None:
    grave = Grave().sees("a1", "a2").hears(B, *ALL).hears(C, *ALL)
    assert grave.walk()
    assert grave.reaping.obstacles(KEY, DEAD) == [Obstacle(ME, True, True, (Lack(2, 1, 0),))]


def test_an_owner_that_is_not_proven_is_in_the_way_whatever_it_says() -> None:
    assert Grave().sees(*ALL).hears(B, *ALL).hears(C, *ALL, is_proven=False).walk()
    grave = ripe()
    grave.replica.proving.doubt([grave.partition])
    assert grave.walk()


def test_the_last_word_of_an_owner_counts() -> None:
    assert ripe().hears(C, "a1").walk()


def test_a_new_epoch_takes_back_what_was_said() -> None:
    grave = ripe()
    grave.reaping.follow()
    assert grave.walk()


def test_what_expired_goes_only_after_the_greatest_skew() -> None:
    grave = ripe(record(version("a2", expires_ms=WALL_MS), seen=context("a2", "b1")))
    assert grave.walk()
    grave.wall_ms = WALL_MS + LIMITS.max_skew_ms - 1
    assert grave.walk()
    grave.wall_ms = WALL_MS + LIMITS.max_skew_ms
    assert not grave.walk()


def test_a_record_that_was_written_anew_since_the_slice_was_read_stays() -> None:
    grave = ripe()
    dead, grave.data = grave.data, encode(KEY, record(version("a3"), seen=context("a3", "b1")))
    grave.replica.begin({KEY: grave.data}, frozenset(), WALL_MS)
    grave.reaping.on_time(NOW, WALL_MS, Outbox())
    index = WriteBatch()
    assert dead is not None
    note_grave(KEY, dead, index)
    grave.reaping.on_scanned([(KEY, value) for _, _, value in index.changes if value], NOW)
    assert Family.RECORDS not in {family for family, _, _ in grave.replica.end().changes}


def test_a_record_that_cannot_be_read_stays() -> None:
    grave = ripe()
    grave.data = b"\x01\x01damaged"
    grave.replica.begin({KEY: grave.data}, frozenset(), WALL_MS)
    grave.reaping.on_time(NOW, WALL_MS, Outbox())
    grave.reaping.on_scanned([(KEY, bytes(8))], NOW)
    assert Family.RECORDS not in {family for family, _, _ in grave.replica.end().changes}


def test_the_graves_are_walked_slice_by_slice_and_then_it_rests() -> None:
    grave = Grave()
    out = Outbox()
    grave.reaping.on_time(NOW, WALL_MS, out)
    (scan,) = out.scans
    assert (scan.id >> 60, scan.family, scan.start) == (REAP_ID >> 60, Family.GRAVES, b"")
    assert grave.reaping.next_wake() is None
    grave.reaping.on_time(NOW, WALL_MS, out)
    assert len(out.scans) == 1  # one slice at a time
    full = [(b"%03d" % number, bytes(8)) for number in range(scan.limit)]
    grave.reaping.on_scanned(full, NOW)
    soon = grave.reaping.next_wake()
    assert soon is not None
    grave.reaping.on_time(soon, WALL_MS, out)
    assert out.scans[-1].start == full[-1][0] + b"\x00"
    grave.reaping.on_scanned([], soon)
    rests_until = grave.reaping.next_wake()
    assert rests_until == Instant(soon + 1_000 * LIMITS.exchange_interval_ms)


def test_graves_that_a_walk_left_are_counted() -> None:
    grave = Grave().sees(*ALL).hears(B, *ALL)
    assert grave.walk()
    assert grave.reaping.graves == 1
    grave.hears(C, *ALL)
    assert not grave.walk_again()
    assert grave.reaping.graves == 0
