"""The laws of kvnode.core.trees and kvnode.core.regrowth, against a plain walk over all records."""

from __future__ import annotations

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.batch import WriteBatch
from kvnode.core.keys import Partition, StorageKey, encode_key, partition_of_key
from kvnode.core.record import encode
from kvnode.core.regrowth import Regrowth
from kvnode.core.trees import LEAVES, Trees
from tests.unit.core.builders import record, version

BITS = 1
N_OF = {"default": 3, "single": 1}
KEYS = [encode_key(name, b"%d" % each) for name in N_OF for each in range(8)]
STATES = {
    (key, at): encode(key, record(version(f"a{at}", key=key))) for key in KEYS for at in (1, 2, 3)
}
Records = dict[StorageKey, bytes]

changes = st.tuples(st.sampled_from(KEYS), st.integers(0, 3))  # 0: the record goes
turns = st.lists(st.lists(changes, max_size=5), max_size=60)


def walked(records: Records, least_n: int) -> list[list[int]]:
    """What a fresh walk over all records gives."""
    trees = Trees(BITS, N_OF)
    for key, data in sorted(records.items()):
        trees.note(key, None, data)
    return shown(trees, least_n)


def shown(trees: Trees, least_n: int) -> list[list[int]]:
    trees.check()
    return [trees.leaves(Partition(p), least_n, 0, LEAVES) for p in range(1 << BITS)]


def apply(trees: Trees, records: Records, change: tuple[StorageKey, int]) -> None:
    key, at = change
    new = STATES[key, at] if at else None
    trees.note(key, records.get(key), new)
    if new is None:
        records.pop(key, None)
    else:
        records[key] = new


def save(trees: Trees, disk: dict[bytes, bytes]) -> None:
    batch = WriteBatch()
    trees.save(batch)
    write(disk, batch)


def write(disk: dict[bytes, bytes], batch: WriteBatch) -> None:
    for _, key, value in batch.changes:
        if value is None:
            disk.pop(key, None)
        else:
            disk[key] = value


@given(turns, st.sets(st.integers(0, 60)), st.sampled_from([4, 8, 64]))
def test_trees_are_what_a_walk_over_the_records_gives_also_after_restarts(
    history: list[list[tuple[StorageKey, int]]], restarts: set[int], ring: int
) -> None:
    with patch("kvnode.core.trees.TREE_RING", ring):
        disk: dict[bytes, bytes] = {}
        records: Records = {}
        trees = Trees(BITS, N_OF)
        save(trees, disk)
        for turn, wanted in enumerate(history):
            for change in wanted:
                apply(trees, records, change)
            save(trees, disk)
            if turn in restarts:
                trees = Trees(BITS, N_OF)
                assert trees.load(sorted(disk.items())) or not records
        for least_n in (1, 3):
            assert shown(trees, least_n) == walked(records, least_n)
        assert sum(key[:1] == b"d" for key in disk) <= ring


@given(turns, st.integers(1, 5), st.randoms(use_true_random=False))
def test_what_is_rebuilt_under_writes_is_what_a_walk_gives(
    history: list[list[tuple[StorageKey, int]]], limit: int, chance: object
) -> None:
    records: Records = {}
    trees = Trees(BITS, N_OF)
    for change in history.pop() if history else []:
        apply(trees, records, change)
    trees.doubt(Partition(0))
    regrowth = Regrowth(trees, Partition(0))
    is_last = False
    while not is_last:
        start, end = regrowth.ask()
        for change in history.pop() if history else []:
            apply(trees, records, change)
        # The slice is read at some instant between two changes.
        assert end is not None
        pairs = [(k, v) for k, v in sorted(records.items()) if start <= k < end][:limit]
        for change in history.pop() if history and chance.random() < 0.7 else []:  # type: ignore[attr-defined]
            apply(trees, records, change)
        is_last = len(pairs) < limit
        regrowth.on_slice(pairs, WriteBatch(), is_last=is_last)
        for change in history.pop() if history else []:
            apply(trees, records, change)
    regrowth.finish(WriteBatch())
    for wanted in history:
        for change in wanted:
            apply(trees, records, change)
    assert shown(trees, 1) == walked(records, 1)


def test_both_partitions_and_both_kinds_of_keyspace_are_in_play() -> None:
    places = {(partition_of_key(key, BITS), key[8:9]) for key in KEYS}
    assert len(places) == 4
