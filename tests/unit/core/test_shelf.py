"""What a turn sees and changes, and what goes along with each change."""

from __future__ import annotations

import pytest

from kvnode.core.batch import Family
from kvnode.core.conflict_log import ConflictLog
from kvnode.core.floors import Floors
from kvnode.core.held import Unreadable
from kvnode.core.proving import Proving
from kvnode.core.record import Encoded, encode
from kvnode.core.shelf import Shelf, due_of, is_open
from kvnode.core.trees import fingerprint, trees_of
from kvnode.core.versions import EMPTY, Record
from tests.unit.core.builders import KEY, WALL_MS, context, record, tombstone, topology, version

TOPOLOGY = topology()
ALIVE = record(version("a1"))
GRAVE = record(tombstone("a1"))


def shelf() -> Shelf:
    conflicts = ConflictLog(bytes_max=0)
    return Shelf(TOPOLOGY, Floors(), trees_of(TOPOLOGY), Proving(1, TOPOLOGY), conflicts)


def turn(
    each: Shelf, before: Record | None, *after: Record
) -> dict[tuple[Family, bytes], bytes | None]:
    """Store records of KEY one after another in one turn; returns what reaches the store."""
    data = encode(KEY, before) if before else None
    each.begin({KEY: data}, frozenset(), WALL_MS)
    for state in after:
        each._store(KEY, state, was_open=is_open(each._load(KEY)))
    return {(family, key): value for family, key, value in each.end().changes}


def test_a_record_that_is_stored_is_seen_by_the_rest_of_the_turn() -> None:
    each = shelf()
    each.begin({KEY: None}, frozenset(), WALL_MS)
    each._store(KEY, ALIVE, was_open=False)
    assert each._load(KEY) == ALIVE
    assert each.is_dirty(KEY)


def test_a_record_without_versions_is_removed_and_its_bytes_are_told() -> None:
    each = shelf()
    gone = Record(context("a1"), (), ())
    each.begin({KEY: encode(KEY, ALIVE)}, frozenset(), WALL_MS)
    assert each._store(KEY, gone, was_open=False) == encode(KEY, gone)
    assert each._load(KEY) == EMPTY
    assert each.is_dirty(KEY)
    assert (Family.RECORDS, KEY, None) in each.end().changes


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, (ALIVE,)),
        (ALIVE, (record(version("a2")),)),
        (ALIVE, (EMPTY,)),
        (None, (ALIVE, EMPTY)),
    ],
    ids=["new", "changed", "removed", "come and gone"],
)
def test_trees_follow_records_once_a_turn(before: Record | None, after: tuple[Record, ...]) -> None:
    each = shelf()
    if before is not None:
        turn(each, None, before)
    turn(each, before, *after)
    last = after[-1]
    expected = fingerprint(KEY, encode(KEY, last)) if last.versions else 0
    assert each.trees.root(each.trees.partition_of(KEY), 1) == expected


def test_what_is_nothing_but_tombstones_is_a_grave_and_no_more_once_it_lives() -> None:
    each = shelf()
    changes = turn(each, None, GRAVE)
    value = changes[Family.GRAVES, KEY]
    assert value is not None
    assert due_of(value) == 0
    changes = turn(each, GRAVE, record(version("a2")))
    assert changes[Family.GRAVES, KEY] is None


def test_what_expires_is_a_grave_from_its_last_expiry_on() -> None:
    state = record(version("a1", expires_ms=500), version("b1", expires_ms=700))
    value = turn(shelf(), None, state)[Family.GRAVES, KEY]
    assert value is not None
    assert due_of(value) == 700


@pytest.mark.parametrize(
    "state",
    [
        ALIVE,
        record(tombstone("a1"), version("b1")),
        record(version("a1", expires_ms=5), version("b1")),
    ],
    ids=["alive", "beside a tombstone", "beside one that expires"],
)
def test_what_lives_is_no_grave(state: Record) -> None:
    assert (Family.GRAVES, KEY) not in turn(shelf(), None, state)


def test_a_grave_that_is_removed_leaves_the_index() -> None:
    assert turn(shelf(), GRAVE, Record(context("a1"), (), ()))[Family.GRAVES, KEY] is None


def test_a_record_that_cannot_be_read_is_never_taken_for_an_absent_one() -> None:
    each = shelf()
    each.begin({KEY: None}, frozenset((KEY,)), WALL_MS)
    for read in (each._read_raw, each._load, each._read, each._lone):
        with pytest.raises(Unreadable):
            read(KEY)
    assert each.has_fetched(KEY)


def test_damage_is_an_alarm_and_unreadable() -> None:
    each = shelf()
    each.begin({KEY: Encoded(b"\x01\x02")}, frozenset(), WALL_MS)
    for read in (each._load, each._read, each._lone):
        with pytest.raises(Unreadable):
            read(KEY)
    assert len(each.alarms) == 3


def test_floors_trees_and_doubts_are_in_the_batch_of_the_records() -> None:
    each = shelf()
    each.begin({KEY: None}, frozenset(), WALL_MS)
    each._store(KEY, ALIVE, was_open=False)
    each.floors.add(each.trees.partition_of(KEY), ALIVE.versions[0].dot)
    each.proving.doubt([each.trees.partition_of(KEY)])
    families = {family for family, _, _ in each.end().changes}
    assert families == {Family.RECORDS, Family.FLOORS, Family.TREES, Family.META}


# ---- open conflicts -----------------------------------------------------------------------------


OPEN = record(version("a1"), version("b1"))


def test_a_conflict_enters_and_leaves_the_index_and_is_counted_once() -> None:
    each = shelf()
    assert turn(each, ALIVE, OPEN, OPEN)[Family.CONFLICTS, KEY] == b""
    assert each.conflicts.open == 1
    assert turn(each, OPEN, ALIVE)[Family.CONFLICTS, KEY] is None
    assert each.conflicts.open == 0


def test_what_expires_is_in_the_index_whenever_it_is_written() -> None:
    past = record(version("a1", expires_ms=1), version("b1", expires_ms=2))
    each = shelf()
    assert turn(each, None, past)[Family.CONFLICTS, KEY] == b""
    assert each.conflicts.open == 1


def test_what_is_pruned_leaves_index_and_count() -> None:
    each = shelf()
    turn(each, None, OPEN)
    each.begin({KEY: encode(KEY, OPEN)}, frozenset(), WALL_MS)
    each.prune(KEY, (OPEN.versions[0].dot,))
    changes = {(family, key): value for family, key, value in each.end().changes}
    assert changes[Family.CONFLICTS, KEY] is None
    assert each.conflicts.open == 0
    assert each.peek(KEY).versions == OPEN.versions[1:]
