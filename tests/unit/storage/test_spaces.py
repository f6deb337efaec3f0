"""Spaces of keys in memory: what can be read, what cannot, and taking changes back."""

from __future__ import annotations

import pytest

from kvnode.core.batch import Change, Family
from kvnode.storage.memory import MemoryEngine
from kvnode.storage.port import ReadFailure, StorageDamaged
from kvnode.storage.spaces import Spaces

RECORDS, META = Family.RECORDS, Family.META
BAD = "Corruption: injected"


def spaces() -> Spaces:
    found = Spaces()
    found.apply([(RECORDS, key, key * 2) for key in (b"a", b"b", b"c")])
    return found


def contents(of: Spaces) -> list[dict[bytes, bytes]]:
    return [dict(family) for family in of.families]


def test_an_unreadable_key_is_a_failure_alone_and_ends_a_scan() -> None:
    found = spaces()
    found.unreadable[RECORDS, b"b"] = BAD
    assert found.multi_get(RECORDS, [b"a", b"b", b"d"]) == [b"aa", ReadFailure(BAD), None]
    assert found.multi_get(META, [b"b"]) == [None]
    pairs, error = found.scan(RECORDS, b"", None, 9)
    assert (pairs, str(error)) == ([(b"a", b"aa")], BAD)
    assert found.scan(RECORDS, b"b\x00", None, 9) == ([(b"c", b"cc")], None)


def test_an_engine_that_meets_an_unreadable_key_returns_nothing_of_a_scan() -> None:
    engine = MemoryEngine()
    engine.spaces = spaces()
    engine.spaces.unreadable[RECORDS, b"b"] = BAD
    with pytest.raises(StorageDamaged, match=BAD):
        engine.scan(RECORDS, b"", None, 9)


def test_a_scan_ends_before_its_end_and_at_its_limit() -> None:
    assert [key for key, _ in spaces().scan(RECORDS, b"a", b"c", 9)[0]] == [b"a", b"b"]
    assert [key for key, _ in spaces().scan(RECORDS, b"a", b"c", 1)[0]] == [b"a"]


@pytest.mark.parametrize("value", [b"new", None])
def test_writing_an_unreadable_key_makes_it_readable(value: bytes | None) -> None:
    found = spaces()
    found.unreadable[RECORDS, b"b"] = BAD
    found.apply([(RECORDS, b"b", value)])
    assert found.multi_get(RECORDS, [b"b"]) == [value]


def test_changes_are_taken_back_to_what_was_there_also_of_one_key_changed_twice() -> None:
    found = spaces()
    was = contents(found)
    changes: list[Change] = [
        (RECORDS, b"a", b"1"),
        (RECORDS, b"d", b"1"),
        (RECORDS, b"a", None),
        (RECORDS, b"d", b"2"),
        (META, b"a", b"1"),
        (RECORDS, b"c", None),
        (RECORDS, b"e", None),
    ]
    before = found.apply(changes)
    assert contents(found)[RECORDS] == {b"b": b"bb", b"d": b"2"}
    found.take_back(before)
    assert contents(found) == was


def test_the_count_is_of_records_and_the_size_of_all() -> None:
    found = spaces()
    found.apply([(META, b"name", b"value")])
    assert found.count() == 3
    assert found.size_bytes() == 3 * (1 + 2) + 4 + 5
