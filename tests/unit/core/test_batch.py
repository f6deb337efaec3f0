"""The write batch: what a turn changes, in order."""

from __future__ import annotations

from kvnode.core.batch import Family, WriteBatch


def test_a_batch_keeps_its_changes_in_order_and_repeats_included() -> None:
    batch = WriteBatch()
    batch.put(Family.RECORDS, b"k", b"1")
    batch.put(Family.FLOORS, b"k", b"")
    batch.delete(Family.RECORDS, b"k")
    assert batch.changes == [
        (Family.RECORDS, b"k", b"1"),
        (Family.FLOORS, b"k", b""),
        (Family.RECORDS, b"k", None),
    ]


def test_an_empty_batch_is_false_and_one_with_a_deletion_is_true() -> None:
    batch = WriteBatch()
    assert (bool(batch), len(batch)) == (False, 0)
    batch.delete(Family.META, b"absent")
    assert (bool(batch), len(batch)) == (True, 1)


def test_the_numbers_of_the_families_are_part_of_the_format() -> None:
    assert {family.name: int(family) for family in Family} == {
        "RECORDS": 0,
        "FLOORS": 1,
        "META": 2,
        "CONFLICTS": 3,
        "HINTS": 4,
        "GRAVES": 5,
        "TREES": 6,
        "CONFLICT_LOG": 7,
    }
