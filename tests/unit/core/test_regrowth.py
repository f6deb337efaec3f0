"""Rebuilding trees from records, while records change."""

from __future__ import annotations

from kvnode.core.batch import WriteBatch
from kvnode.core.keys import Partition, StorageKey
from kvnode.core.regrowth import Regrowth
from kvnode.core.trees import LEAVES, Trees
from tests.unit.core.test_trees import ALIKE, BITS, key_of, partition, state

PLACE = partition(key_of("0"))
NAMES = [str(n) for n in range(200) if partition(key_of(str(n))) == PLACE]
KEYS = sorted(key_of(name) for name in NAMES)


def grown(regrowth: Regrowth, trees: Trees) -> list[int]:
    regrowth.finish(WriteBatch())
    trees.check()
    assert trees.observer is None
    return trees.leaves(PLACE, 1, 0, LEAVES)


def fresh(records: dict[StorageKey, bytes]) -> list[int]:
    trees = Trees(BITS, ALIKE)
    for key, data in records.items():
        trees.note(key, None, data)
    return trees.leaves(PLACE, 1, 0, LEAVES)


def begin() -> tuple[Trees, Regrowth]:
    trees = Trees(BITS, ALIKE)
    trees.doubt(PLACE)
    return trees, Regrowth(trees, PLACE)


def slice_of(
    records: dict[StorageKey, bytes], asked: tuple[bytes, bytes | None], limit: int
) -> list[tuple[bytes, bytes]]:
    start, end = asked
    found: list[tuple[bytes, bytes]] = [
        (key, data)
        for key, data in sorted(records.items())
        if start <= key and (end is None or key < end)
    ]
    return found[:limit]


def test_slices_of_a_still_partition_give_the_trees_of_its_records() -> None:
    records = {key: state(key, "a1") for key in KEYS}
    trees, regrowth = begin()
    while True:
        pairs = slice_of(records, regrowth.ask(), 3)
        regrowth.on_slice(pairs, WriteBatch(), is_last=len(pairs) < 3)
        if len(pairs) < 3:
            break
    assert grown(regrowth, trees) == fresh(records)


def test_an_empty_partition_is_known_after_its_one_empty_slice() -> None:
    trees, regrowth = begin()
    regrowth.ask()
    regrowth.on_slice([], WriteBatch(), is_last=True)
    assert grown(regrowth, trees) == [0] * LEAVES
    assert trees.is_known(PLACE)


def test_what_changed_behind_before_and_under_the_slice_is_counted_once() -> None:
    records = {key: state(key, "a1") for key in KEYS}
    trees, regrowth = begin()

    def change(at: int, name: str) -> None:
        key = KEYS[at]
        trees.note(key, records[key], state(key, name))
        records[key] = state(key, name)

    pairs = slice_of(records, regrowth.ask(), 3)
    change(1, "b1")  # read before this: the slice shows the older one
    regrowth.on_slice(pairs, WriteBatch(), is_last=False)
    change(0, "b2")  # covered
    asked = regrowth.ask()
    change(4, "b3")  # read after this: the slice shows it already
    change(1, "b4")
    regrowth.on_slice(slice_of(records, asked, 3), WriteBatch(), is_last=False)
    change(len(KEYS) - 1, "b5")  # not covered yet, before it is asked for
    regrowth.on_slice(slice_of(records, regrowth.ask(), len(KEYS)), WriteBatch(), is_last=True)
    assert grown(regrowth, trees) == fresh(records)


def test_records_that_went_and_came_while_the_slice_was_under_way_are_counted() -> None:
    records = {key: state(key, "a1") for key in KEYS}
    trees, regrowth = begin()
    pairs = slice_of(records, regrowth.ask(), len(KEYS) + 1)
    trees.note(KEYS[0], records.pop(KEYS[0]), None)
    name = next(str(n) for n in range(200, 900) if partition(key_of(str(n))) == PLACE)
    records[key_of(name)] = state(key_of(name), "c1")
    trees.note(key_of(name), None, records[key_of(name)])
    regrowth.on_slice(pairs, WriteBatch(), is_last=True)
    assert grown(regrowth, trees) == fresh(records)


def test_other_partitions_that_are_not_known_do_not_disturb() -> None:
    trees, regrowth = begin()
    other = next(key_of(str(n)) for n in range(99) if partition(key_of(str(n))) != PLACE)
    trees.doubt(partition(other))
    regrowth.ask()
    trees.note(other, None, state(other, "a1"))
    regrowth.on_slice([], WriteBatch(), is_last=True)
    assert grown(regrowth, trees) == [0] * LEAVES
    assert trees.unknown == (Partition(partition(other)),)


def test_a_damaged_record_makes_a_tree_that_no_sound_one_equals() -> None:
    trees, regrowth = begin()
    regrowth.ask()
    regrowth.on_slice([(KEYS[0], b"\x01")], WriteBatch(), is_last=True)
    damaged = grown(regrowth, trees)
    assert damaged not in (fresh({KEYS[0]: state(KEYS[0], "a1")}), fresh({}))
