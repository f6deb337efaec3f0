"""Keys that could still be lost: in from their write to the sync of their last write."""

from __future__ import annotations

from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.unsynced import Unsynced

A, B = encode_key("default", b"a"), encode_key("default", b"b")


def having(*writes: tuple[StorageKey, int]) -> Unsynced:
    unsynced = Unsynced()
    for key, turn in writes:
        unsynced.add(key, turn)
    return unsynced


def test_a_key_is_held_until_its_turn_is_durable() -> None:
    unsynced = having((A, 3), (B, 4))
    unsynced.on_synced(2)
    assert [key in unsynced for key in (A, B)] == [True, True]
    unsynced.on_synced(3)
    assert [key in unsynced for key in (A, B)] == [False, True]


def test_a_later_write_keeps_a_key_past_the_sync_of_an_earlier_one() -> None:
    unsynced = having((A, 1), (A, 2))
    unsynced.on_synced(1)
    assert A in unsynced
    unsynced.on_synced(2)
    assert A not in unsynced


def test_a_key_written_twice_in_one_turn_is_forgotten_once() -> None:
    unsynced = having((A, 1), (A, 1), (B, 1))
    assert len(unsynced) == 2
    unsynced.on_synced(9)
    assert len(unsynced) == 0
    unsynced.on_synced(9)
    assert A not in unsynced
