"""Reading with care: sound, absent, damaged and unreadable are four things."""

from __future__ import annotations

import pytest

from kvnode.core.held import Held, Unreadable
from kvnode.core.record import NOT_HELD, encode
from kvnode.core.versions import EMPTY
from tests.unit.core.builders import KEY, record, version

SOUND = encode(KEY, record(version("a1")))
SPOILT = SOUND[:-1] + b"?"


def held(data: bytes | None, *, is_readable: bool = True) -> Held:
    one = Held()
    one.begin_records({KEY: data}, frozenset() if is_readable else frozenset((KEY,)))
    return one


def test_what_is_sound_is_read_and_what_is_absent_is_empty() -> None:
    one = held(SOUND)
    assert one._load(KEY) == record(version("a1"))
    assert one._read(KEY) == SOUND
    lone = one._lone(KEY)
    assert lone is not None
    assert lone.dot == version("a1").dot
    nothing = held(None)
    assert (nothing._load(KEY), nothing._read(KEY), nothing._lone(KEY)) == (EMPTY, None, NOT_HELD)
    assert (one.damaged, nothing.damaged) == ({}, {})


@pytest.mark.parametrize("read", [Held._load, Held._read, Held._lone])
def test_a_damaged_record_raises_and_is_noted_once(read: object) -> None:
    one = held(SPOILT)
    for _ in range(2):
        with pytest.raises(Unreadable):
            read(one, KEY)  # type: ignore[operator]
    assert list(one.damaged) == [KEY]
    assert one.alarms[0].startswith("a record here is damaged")
    assert one.is_damaged(KEY)


@pytest.mark.parametrize("read", [Held._load, Held._read, Held._lone])
def test_what_cannot_be_read_raises_and_is_no_damaged_record(read: object) -> None:
    one = held(None, is_readable=False)
    with pytest.raises(Unreadable):
        read(one, KEY)  # type: ignore[operator]
    assert one.damaged == {}
    assert not one.is_damaged(KEY)
    assert one.has_fetched(KEY)


def test_a_new_turn_has_found_no_damage_yet() -> None:
    one = held(SPOILT)
    with pytest.raises(Unreadable):
        one._read(KEY)
    one.begin_records({KEY: SOUND}, frozenset())
    assert one.damaged == {}
    assert not one.is_damaged(KEY)
