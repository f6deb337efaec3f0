"""Twins: versions of one write are one write, and what replaced one of them replaced all."""

from __future__ import annotations

import pytest

from kvnode.core.twins import (
    CLIENTS_MAX,
    EXPLICIT_MAX,
    Memory,
    Named,
    bury_twins,
    has_replaced,
    is_behind,
    named,
    read_memory,
    remember,
    remember_one,
)
from kvnode.core.versions import EMPTY, Version, check, covers, sync
from tests.unit.core.builders import context, dot, record, version, write_id

LATE = record(version("c1", write_id=write_id("b1"), ms=1))
"""What a second coordinator made of the write that the first named b1."""


def put_of(client: str, number: int) -> bytes:
    """Return the id of a client's write."""
    return client.encode().ljust(8, b".") + number.to_bytes(8, "big")


def plain(client: str, number: int) -> Named:
    return Named(put_of(client, number), is_explicit=False)


def explicit(client: str, number: int) -> Named:
    return Named(put_of(client, number), is_explicit=True)


def heir(*replaced: Named) -> bytes:
    """Return what a write of another client than any of these remembers."""
    return remember(plain("heir", 1), replaced, ())


OLD = Named(write_id("b1"), is_explicit=False)


def test_a_version_remembers_what_it_replaced_and_what_that_replaced() -> None:
    older = remember(plain("b", 1), [plain("a", 1)], ())
    memory = remember(plain("c", 1), [plain("b", 1)], [older])
    assert read_memory(memory) == Memory((put_of("b", 1), put_of("a", 1)))


def test_of_a_client_its_last_plain_put_stands_for_all_before_it() -> None:
    memory = heir(plain("a", 3), plain("a", 9), plain("a", 5))
    assert read_memory(memory) == Memory((put_of("a", 9),))
    assert remember(plain("b", 1), [plain("a", 2)], [memory]) == memory


def test_a_put_stands_by_its_own_id_for_its_client_and_an_explicit_one_for_nothing_else() -> None:
    assert remember(plain("a", 2), [plain("a", 1)], ()) == b""
    memory = remember(explicit("a", 2), [plain("a", 1)], ())
    assert read_memory(memory) == Memory((put_of("a", 1),))


def test_explicit_puts_are_remembered_one_by_one() -> None:
    memory = heir(explicit("a", 3), plain("a", 2), explicit("a", 1))
    assert read_memory(memory) == Memory((put_of("a", 2),), (put_of("a", 3), put_of("a", 1)))


def test_only_the_newest_few_are_remembered() -> None:
    memory = b""
    for number in range(1, 10):
        replaced = [plain(f"p{number}", 1), explicit(f"e{number}", 1)]
        memory = remember(plain("heir", number), replaced, [memory])
    kept = read_memory(memory)
    assert kept.plain == tuple(put_of(f"p{number}", 1) for number in (9, 8, 7, 6))
    assert kept.explicit == tuple(put_of(f"e{number}", 1) for number in (9, 8, 7, 6))
    assert (len(kept.plain), len(kept.explicit)) == (CLIENTS_MAX, EXPLICIT_MAX)


def test_a_write_that_replaced_nothing_remembers_nothing() -> None:
    assert remember(plain("a", 1), [], ()) == b""
    assert remember_one(plain("a", 1), Named(b"", is_explicit=False), b"") == b""


@pytest.mark.parametrize("new", [plain("a", 2), explicit("a", 2), plain("b", 1)])
@pytest.mark.parametrize("old", [plain("a", 1), explicit("a", 1)])
@pytest.mark.parametrize(
    "memory",
    [
        b"",
        b"\x01of another format",
        heir(plain("c", 7)),
        heir(plain("b", 1), plain("c", 7)),
        heir(*(plain(f"c{number}", 7) for number in range(4))),
        heir(plain("c", 7), explicit("a", 1)),
    ],
)
def test_for_one_that_is_replaced_the_quick_way_comes_to_the_same(
    new: Named, old: Named, memory: bytes
) -> None:
    assert remember_one(new, old, memory) == remember(new, [old], [memory])


@pytest.mark.parametrize("strange", [b"\x01" + bytes(8), b"\x02\x01short", b"\x03"])
def test_an_extension_of_another_format_says_nothing(strange: bytes) -> None:
    assert read_memory(strange) == Memory()


def test_a_late_twin_finds_that_it_is_replaced() -> None:
    new = record(version("d1", ms=5, is_explicit=True, extension=heir(OLD)))
    merged = bury_twins(sync(new, LATE), new, LATE)
    check(merged)
    assert [each.dot for each in merged.versions] == [dot("d1")]
    assert covers(merged.context, dot("c1"))


def made(name: str, write: Named, *, ms: int, extension: bytes = b"") -> Version:
    """Return a client's write as some coordinator made it."""
    return version(
        name, write_id=write.write_id, is_explicit=write.is_explicit, ms=ms, extension=extension
    )


def survivors(*versions: Version) -> list[str]:
    """Return what is left where versions meet of which no dot covers another."""
    records = [record(each) for each in versions]
    merged = records[0]
    for each in records[1:]:
        merged = bury_twins(sync(merged, each), merged, each)
    check(merged)
    return [each.value.decode() for each in merged.versions]


def test_of_one_clients_plain_puts_the_last_survives_wherever_they_meet() -> None:
    # However many others came between; and whatever the clock said: it may have been set back.
    stuck, last = made("b1", plain("a", 1), ms=9), made("c1", plain("a", 99), ms=5)
    assert survivors(stuck, last) == survivors(last, stuck) == ["c1"]


def test_who_replaced_a_clients_put_replaced_all_before_it() -> None:
    stuck = made("b1", plain("a", 1), ms=1)
    heirs = made("c1", plain("b", 1), ms=5, extension=heir(plain("a", 7)))
    assert survivors(stuck, heirs) == survivors(heirs, stuck) == ["c1"]
    later = made("d1", plain("a", 8), ms=1)
    assert survivors(later, heirs) == ["c1", "d1"]


def test_explicit_puts_of_one_client_stay_beside_each_other_and_beside_its_plain_ones() -> None:
    first, second = made("b1", explicit("a", 1), ms=1), made("c1", explicit("a", 2), ms=2)
    assert survivors(first, second) == ["b1", "c1"]
    assert survivors(made("b1", plain("a", 1), ms=1), second) == ["b1", "c1"]
    assert survivors(first, made("d1", plain("a", 2), ms=2)) == ["b1", "d1"]


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
    new = record(version("d1", ms=5, is_explicit=True, extension=heir(OLD)))
    once = bury_twins(sync(new, LATE), new, LATE)
    assert bury_twins(sync(once, LATE), once, LATE) == once
    assert bury_twins(sync(LATE, new), LATE, new) == once


def test_a_write_of_another_client_is_never_buried() -> None:
    new = record(version("d1", ms=5, is_explicit=True, extension=heir(OLD)))
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
    new = record(version("d1", extension=heir(OLD, explicit("e", 5))))
    assert has_replaced(new, OLD)
    assert has_replaced(new, explicit("e", 5))
    assert not has_replaced(new, plain("e", 5))
    assert not has_replaced(new, explicit("e", 4))
    assert not has_replaced(new, named(new.versions[0]))


def test_a_put_is_behind_a_later_one_of_its_client_and_no_explicit_one_is() -> None:
    held = plain("a", 5)
    assert is_behind(plain("a", 4), held, b"")
    assert not is_behind(held, held, b"")
    assert not is_behind(plain("a", 6), held, b"")
    assert not is_behind(explicit("a", 4), held, b"")
    assert not is_behind(plain("a", 4), explicit("a", 5), b"")
    memory = heir(plain("a", 5))
    assert is_behind(plain("a", 4), plain("b", 1), memory)
    assert is_behind(plain("a", 5), plain("b", 1), memory)
    assert not is_behind(plain("a", 6), plain("b", 1), memory)
