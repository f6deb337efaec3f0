"""A damaged record, from the turn that finds it to the one that puts another in its place."""

from __future__ import annotations

from typing import Any

import pytest

from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.floors import Floors
from kvnode.core.hlc import Clock
from kvnode.core.integrity import Integrity
from kvnode.core.keys import StorageKey
from kvnode.core.messages import (
    Instant,
    Outbox,
    PeerMessage,
    ReplicaRead,
    ReplicaReadReply,
    Scan,
    Status,
)
from kvnode.core.record import Encoded, decode, encode
from kvnode.core.replica import Replica
from kvnode.core.scrub import FIRST_US, SCRUB_ID
from kvnode.core.versions import EMPTY, Record
from tests.unit.core.builders import (
    KEY,
    NOW,
    SECOND_US,
    WALL_MS,
    at,
    dot,
    owned_by,
    record,
    topology,
    version,
)

SOUND = encode(KEY, record(version("a1")))
SPOILT = Encoded(SOUND[:-1] + b"?")
OTHERS = record(version("b2"), votes=((2, "b2"),))


class Rig:
    """One owner of three, its disk, and the care of it."""

    def __init__(self, data: bytes | None = SPOILT, **limits: Any) -> None:
        self.disk: dict[StorageKey, bytes | None] = {KEY: data}
        self.replica = Replica(1, 77, topology(3), Clock(max_skew_ms=60_000), Floors())
        self.integrity = Integrity(self.replica, Limits(**limits))
        self.now = NOW
        self.scans: list[Scan] = []
        self.batch: list[tuple[Family, bytes, bytes | None]] = []

    def turn(self, *events: Any, later_us: int = 0) -> list[tuple[int, PeerMessage]]:
        """Run a turn in which a test does as it likes; return what is sent."""
        self.now = Instant(self.now + later_us)
        self.replica.begin(self.disk, frozenset(), WALL_MS)
        out = Outbox()
        self.integrity.begin(self.now, out)
        for event in events:
            event()
        self.integrity.end()
        self.scans += out.scans
        self.batch = self.replica.end().changes
        for family, key, value in self.batch:
            if family is Family.RECORDS:
                self.disk[StorageKey(key)] = value
        return [(node, each) for node, queue in out.peers.items() for each in queue]

    def read(self) -> Status:
        asked = ReplicaRead(5, KEY, at(3_600 * SECOND_US), b"")
        return self.replica.on_read(asked, self.now).status

    def scanned(self, *pairs: tuple[bytes, bytes]) -> None:
        self.integrity.on_scanned(self.scans[-1].id, list(pairs))

    def reply(self, node: int, number: int, state: Record) -> None:
        data = Encoded(b"") if state == EMPTY else encode(KEY, state)
        self.integrity.on_read_reply(node, ReplicaReadReply(number, Status.DONE, data, False))

    def recover(self, state: Record = OTHERS, held: bytes | None = None) -> None:
        """Find the damage by a read, and have both other owners answer."""
        sent = self.turn(lambda: self.read())
        assert [(node, type(each)) for node, each in sent] == [(2, ReplicaRead), (3, ReplicaRead)]
        assert {each.key for _, each in sent if isinstance(each, ReplicaRead)} == {KEY}
        ids = [each.id for _, each in sent if isinstance(each, ReplicaRead)]
        assert self.integrity.key_of(ids[0]) == KEY
        if held is not None:
            self.disk[KEY] = held
        self.turn(lambda: self.reply(2, ids[0], state))
        self.turn(lambda: self.reply(3, ids[1], state))


def test_a_read_that_meets_damage_abstains_and_the_others_state_replaces_it() -> None:
    rig = Rig()
    rig.recover()
    data = rig.disk[KEY]
    assert data is not None
    assert decode(KEY, data) == OTHERS
    statuses: list[Status] = []
    rig.turn(lambda: statuses.append(rig.read()))
    assert statuses == [Status.DONE]
    assert rig.integrity.recovery.damaged == 0


def test_the_floors_of_the_partition_go_as_soon_as_damage_is_found() -> None:
    rig = Rig()
    partition = rig.replica._partition(KEY)
    rig.turn(lambda: rig.replica.floors.add(partition, dot("a1")))
    assert rig.replica.floors.has_seen(partition, dot("a1"))
    rig.turn(lambda: rig.read())
    assert not rig.replica.floors.has_seen(partition, dot("a1"))
    assert [(family, value) for family, _, value in rig.batch] == [(Family.FLOORS, None)]


def test_floors_that_came_back_meanwhile_do_not_bury_what_is_put_in_place() -> None:
    rig = Rig()
    partition = rig.replica._partition(KEY)
    sent = rig.turn(lambda: rig.read())
    ids = [each.id for _, each in sent if isinstance(each, ReplicaRead)]
    rig.turn(lambda: rig.replica.floors.add(partition, dot("b1")))
    rig.turn(lambda: rig.reply(2, ids[0], OTHERS))
    rig.turn(lambda: rig.reply(3, ids[1], OTHERS))
    data = rig.disk[KEY]
    assert data is not None
    assert decode(KEY, data) == OTHERS
    assert not rig.replica.floors.has_seen(partition, dot("b1"))


def test_what_is_sound_by_then_is_not_replaced() -> None:
    rig = Rig()
    rig.recover(held=SOUND)
    assert rig.disk[KEY] == SOUND


def test_what_no_other_owner_holds_is_removed_with_its_places_in_the_indexes() -> None:
    rig = Rig()
    rig.recover(EMPTY)
    assert rig.disk[KEY] is None
    removed = [family for family, _, value in rig.batch if value is None]
    assert {Family.RECORDS, Family.CONFLICTS, Family.GRAVES} <= set(removed)


def test_siblings_come_back_with_their_place_among_the_conflicts() -> None:
    rig = Rig()
    rig.recover(record(version("a1"), version("b1")))
    assert (Family.CONFLICTS, KEY, b"") in rig.batch


def test_the_scrub_finds_what_nobody_reads_once() -> None:
    rig = Rig()
    rig.turn()
    rig.turn(later_us=FIRST_US)
    assert [scan.family for scan in rig.scans] == [Family.RECORDS]
    sent = rig.turn(lambda: rig.scanned((KEY, SPOILT)))
    assert [node for node, _ in sent] == [2, 3]
    assert rig.replica.alarms == ["the scrub found a damaged record: a version's checksum differs"]
    assert rig.turn(lambda: rig.read()) == [], "it is known already"


def test_scans_of_others_are_left_alone() -> None:
    rig = Rig()
    rig.turn()
    rig.turn(later_us=FIRST_US)
    rig.turn(lambda: rig.integrity.on_scanned(SCRUB_ID >> 1, [(KEY, SPOILT)]))
    assert rig.integrity.scrub.verified == 0
    assert rig.integrity.key_of(SCRUB_ID | 1) is None


def test_a_damaged_record_of_a_key_that_is_not_owned_is_left_alone() -> None:
    rig = Rig()
    rig.replica.follow(topology(5))
    other = owned_by(rig.replica.topology, 1, is_owner=False)
    rig.disk = {other: SPOILT}
    asked = ReplicaRead(5, other, at(SECOND_US), b"")
    assert rig.turn(lambda: rig.replica.on_read(asked, rig.now)) == []


@pytest.mark.parametrize("rate", [0, 1 << 20])
def test_it_wakes_for_the_scrub_only_if_there_is_one(rate: int) -> None:
    rig = Rig(SOUND, scrub_bytes_per_s=rate)
    rig.turn()
    assert rig.integrity.next_wake() == (at(FIRST_US) if rate else None)
