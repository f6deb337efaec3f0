"""The simulated disk keeps the laws of an engine, and loses only what a disk may lose."""

from __future__ import annotations

import random

import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.storage.port import ReadFailure, StorageDamaged, StorageFenced
from kvnode.storage.rebuild import Salvage, copy_what_reads
from tests.sim.disk import Disk


def put(disk: Disk, number: int, *, size: int = 10) -> None:
    batch = WriteBatch()
    batch.put(Family.META, b"%04d" % number, b"v" * size)
    batch.put(Family.META, b"last", b"%d" % number)
    disk.write(batch)


def found(disk: Disk) -> list[int]:
    pairs = disk.scan(Family.META, b"", b"l", 10_000)
    return [int(key) for key, _ in pairs]


def last(disk: Disk) -> int:
    (value,) = disk.multi_get(Family.META, [b"last"])
    assert isinstance(value, bytes)
    return int(value)


def test_a_crash_keeps_a_prefix_and_all_that_was_synced(rng: random.Random) -> None:
    kept = set()
    for _ in range(200):
        disk = Disk()
        synced, more = rng.randrange(20), rng.randrange(1, 20)
        for number in range(synced):
            put(disk, number, size=rng.choice((10, 700)))
        disk.flush()
        for number in range(synced, synced + more):
            put(disk, number, size=rng.choice((10, 700)))
        left = disk.crash(rng)
        disk.open()
        assert found(disk) == list(range(synced + left))
        assert not synced + left or last(disk) == synced + left - 1
        kept.add("none" if not left else "all" if left == more else "some")
    assert kept == {"none", "some", "all"}


def test_a_gap_in_what_was_not_synced_is_told_as_damage(rng: random.Random) -> None:
    told = 0
    for _ in range(100):
        disk = Disk()
        for number in range(20):
            put(disk, number, size=700)
        left = disk.crash(rng)
        told += bool(disk.damage)
        assert not disk.damage or left < 20
    assert told > 10


def test_a_flush_covers_what_was_written_before_it_began(rng: random.Random) -> None:
    disk = Disk()
    put(disk, 0)
    mark = disk.written
    put(disk, 1)
    assert disk.sync(mark) == mark
    disk.crash(rng, keeps=False)
    assert found(disk) == [0]


def test_a_flip_in_the_log_is_found_at_the_next_opening_and_told(rng: random.Random) -> None:
    disk = Disk()
    for number in range(50):
        put(disk, number)
    disk.flush()
    while disk.flip(rng) is not None:
        disk = Disk()
        for number in range(50):
            put(disk, number)
        disk.flush()
    assert disk.has_flipped_log
    assert found(disk) == list(range(50))
    disk.open()
    assert disk.damage
    assert found(disk) == list(range(len(found(disk))))
    assert len(found(disk)) < 50


def test_a_flip_in_the_tables_is_a_failure_and_never_an_absence(rng: random.Random) -> None:
    for _ in range(50):
        disk = Disk()
        for number in range(50):
            put(disk, number)
        disk.flush()
        disk.open()
        spot = disk.flip(rng)
        assert spot is not None
        assert isinstance(disk.multi_get(*(spot[0], [spot[1]]))[0], ReadFailure)
        with pytest.raises(StorageDamaged):
            disk.scan(Family.META, b"", None, 1_000)


def test_what_is_written_again_can_be_read_again() -> None:
    disk = Disk()
    put(disk, 1)
    disk.unreadable(Family.META, b"0001")
    assert isinstance(disk.multi_get(Family.META, [b"0001"])[0], ReadFailure)
    put(disk, 1)
    assert disk.multi_get(Family.META, [b"0001"]) == [b"v" * 10]


def test_after_a_failed_sync_nothing_is_taken_until_it_is_opened_anew() -> None:
    disk = Disk()
    put(disk, 1)
    disk.fails_next_sync = True
    for act in (disk.flush, disk.flush, lambda: put(disk, 2)):
        with pytest.raises(StorageFenced):
            act()
    disk.open()
    put(disk, 2)
    disk.flush()


def test_an_image_is_what_was_there_then(rng: random.Random) -> None:
    disk = Disk()
    put(disk, 1)
    image = disk.image()
    put(disk, 2)
    disk.crash(rng)
    disk.restore(image)
    disk.open()
    assert found(disk) == [1]


def test_a_rebuild_keeps_what_reads_and_says_so() -> None:
    disk = Disk()
    for number in range(10):
        put(disk, number)
    disk.unreadable(Family.META, b"0004")
    disk.rebuild("a block was bad", lambda old, new: copy_what_reads(old, new.take, Salvage()))
    assert found(disk) == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert disk.damage
    assert not disk.damaged_keys
