"""Twins: versions of one write are one write, and what replaced one of them replaced all."""

from __future__ import annotations

from kvnode.core.twins import REPLACED_MAX, bury_twins, has_replaced, remember, replaced_by
from kvnode.core.versions import EMPTY, check, covers, sync
from tests.unit.core.builders import context, dot, record, version, write_id

LATE = record(version("c1", write_id=write_id("b1"), ms=1))
"""What a second coordinator made of the write that the first named b1."""


def heir(*ids: bytes, name: str = "d1") -> bytes:
    return remember(ids, b"")


def test_a_version_remembers_what_it_replaced_and_what_that_replaced() -> None:
    older = remember([write_id("a1")], b"")
    both = version("d1", extension=remember([write_id("b1")], older))
    assert replaced_by(both) == [write_id("b1")[:8], write_id("a1")[:8]]


def test_only_the_newest_few_are_remembered() -> None:
    memory = b""
    for number in range(1, 10):
        memory = remember([b"%08d" % number + bytes(8)], memory)
    kept = replaced_by(version("d1", extension=memory))
    assert kept == [b"%08d" % number for number in (9, 8, 7, 6)]
    assert len(kept) == REPLACED_MAX


def test_a_write_that_replaced_nothing_remembers_nothing() -> None:
    assert remember([], b"") == b""
    assert replaced_by(version("d1")) == []


def test_a_late_twin_finds_that_it_is_replaced() -> None:
    new = record(version("d1", ms=5, is_explicit=True, extension=heir(write_id("b1"))))
    merged = bury_twins(sync(new, LATE), new, LATE)
    check(merged)
    assert [each.dot for each in merged.versions] == [dot("d1")]
    assert covers(merged.context, dot("c1"))


def test_where_one_twin_is_superseded_the_others_go_with_it() -> None:
    first = record(version("b1"))
    beside = record(
        version("d1", ms=5, is_explicit=True),
        *LATE.versions,
        seen=context("b1", "c1", "d1"),
    )
    merged = bury_twins(sync(beside, first), beside, first)
    check(merged)
    assert [each.dot for each in merged.versions] == [dot("d1")]


def test_burying_twice_changes_nothing_and_another_order_comes_to_the_same() -> None:
    new = record(version("d1", ms=5, is_explicit=True, extension=heir(write_id("b1"))))
    once = bury_twins(sync(new, LATE), new, LATE)
    assert bury_twins(sync(once, LATE), once, LATE) == once
    assert bury_twins(sync(LATE, new), LATE, new) == once


def test_a_write_of_another_client_is_never_buried() -> None:
    new = record(version("d1", ms=5, is_explicit=True, extension=heir(write_id("b1"))))
    other = record(version("e1", ms=1))
    merged = sync(new, other)
    assert bury_twins(merged, new, other) == merged


def test_a_twin_is_kept_where_nothing_else_would_be_left() -> None:
    first, second = record(version("b1")), record(*LATE.versions, seen=context("b1", "c1"))
    merged = sync(first, second)
    assert bury_twins(merged, first, second) == merged


def test_nothing_is_buried_in_nothing() -> None:
    assert bury_twins(EMPTY, EMPTY, EMPTY) == EMPTY


def test_a_retry_of_a_replaced_write_is_known_for_one() -> None:
    new = record(version("d1", extension=heir(write_id("b1"))))
    assert has_replaced(new, write_id("b1"))
    assert not has_replaced(new, write_id("d1"))
