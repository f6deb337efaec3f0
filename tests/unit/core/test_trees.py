"""Hash trees: what they tell apart, what they write, and what a restart finds."""

from __future__ import annotations

import itertools

import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.bounds import TREE_RING, TREE_STEP
from kvnode.core.keys import Partition, StorageKey, encode_key, partition_of_key
from kvnode.core.record import encode
from kvnode.core.trees import GROUP_LEAVES, GROUPS, LEAVES, Trees, fingerprint
from kvnode.core.versions import Context, Record
from tests.unit.core.builders import context, record, tombstone, version

BITS = 4
ALIKE = {"default": 3, "other": 3}
MIXED = {"default": 3, "single": 1}


def key_of(name: str, keyspace: str = "default") -> StorageKey:
    return encode_key(keyspace, name.encode())


def state(key: StorageKey, *names: str, seen: Context | None = None) -> bytes:
    return encode(key, record(*(version(name, key=key) for name in names), seen=seen))


def partition(key: StorageKey) -> Partition:
    return partition_of_key(key, BITS)


def holding(*names: str, n_of: dict[str, int] = ALIKE) -> Trees:
    trees = Trees(BITS, n_of)
    for name in names:
        trees.note(key_of(name), None, state(key_of(name), "a1"))
    trees.check()
    return trees


def saved(trees: Trees) -> dict[bytes, bytes | None]:
    batch = WriteBatch()
    trees.save(batch)
    trees.check()
    assert all(family is Family.TREES for family, _, _ in batch.changes)
    return {key: value for _, key, value in batch.changes}


def keep(disk: dict[bytes, bytes], changes: dict[bytes, bytes | None]) -> None:
    for key, value in changes.items():
        if value is None:
            disk.pop(key, None)
        else:
            disk[key] = value


def reloaded(disk: dict[bytes, bytes], n_of: dict[str, int] = ALIKE) -> Trees:
    trees = Trees(BITS, n_of)
    assert trees.load(sorted(disk.items()))
    trees.check()
    return trees


def view(trees: Trees, least_n: int = 1) -> list[tuple[int, list[int]]]:
    """Everything that trees tell of every partition."""
    ids = [Partition(number) for number in range(1 << BITS)]
    return [(trees.root(p, least_n), trees.leaves(p, least_n, 0, LEAVES)) for p in ids]


# ---- what is told apart -------------------------------------------------------------------------


def test_equal_records_make_equal_trees_whatever_the_order() -> None:
    assert view(holding("x", "y", "z")) == view(holding("z", "x", "y"))


def test_a_record_that_comes_and_goes_leaves_nothing() -> None:
    trees = holding("x")
    trees.note(key_of("x"), state(key_of("x"), "a1"), None)
    assert view(trees) == view(holding())


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (record(version("a1")), record(version("a2"))),
        (record(version("a1")), record(version("a1"), seen=context("a1", "b1"))),
        (record(version("a1")), record(version("a1"), seen=context("a1", single=("b2",)))),
        (record(version("a1", b"")), record(tombstone("a1"))),
        (record(version("a1")), record(version("a1", expires_ms=5))),
        (record(version("a1", b"x")), record(version("a1", b"y"))),
        (record(version("a1")), record(version("a1"), version("b1"))),
    ],
    ids=["dot", "context", "single dot", "tombstone", "expiry", "payload", "sibling"],
)
def test_states_that_differ_have_other_fingerprints(left: Record, right: Record) -> None:
    key = key_of("k")
    assert fingerprint(key, encode(key, left)) != fingerprint(key, encode(key, right))


def test_votes_are_not_compared() -> None:
    key = key_of("k")
    with_votes = encode(key, record(version("a1"), votes=((1, "a1"), (2, "a1"))))
    assert fingerprint(key, with_votes) == fingerprint(key, encode(key, record(version("a1"))))


def test_one_state_under_two_keys_has_two_fingerprints() -> None:
    data = state(key_of("x"), "a1")
    assert fingerprint(key_of("x"), data) != fingerprint(key_of("y"), data)


# ---- leaves, groups, roots, views ---------------------------------------------------------------


def test_a_change_shows_in_one_leaf_in_its_group_and_in_the_root() -> None:
    key = key_of("x")
    trees, place = holding("x"), partition(key)
    leaf = trees.leaf_of(key)
    full = [at for at, value in enumerate(trees.leaves(place, 1, 0, LEAVES)) if value]
    groups = [at for at, value in enumerate(trees.groups(place, 1)) if value]
    assert (full, groups) == ([leaf], [leaf // GROUP_LEAVES])
    assert len(trees.groups(place, 1)) == GROUPS
    expected = fingerprint(key, state(key, "a1"))
    assert trees.root(place, 1) == trees.leaves(place, 1, leaf, 1)[0] == expected


def test_a_leaf_holds_the_keys_between_its_bounds_and_no_others() -> None:
    trees = holding()
    for count in range(500):
        key = key_of(str(count))
        leaf, place = trees.leaf_of(key), partition(key)
        assert trees.partition_of(key) == place
        start, end = trees.leaf_bounds(place, leaf, leaf)
        assert start <= key and (end is None or key < end)
        for other in (leaf - 1, leaf + 1):
            if 0 <= other < LEAVES:
                start, end = trees.leaf_bounds(place, other, other)
                assert not (start <= key and (end is None or key < end))


def test_the_last_leaf_of_the_last_partition_has_no_end() -> None:
    trees = holding()
    assert trees.leaf_bounds(Partition(15), LEAVES - 1, LEAVES - 1)[1] is None
    assert trees.leaf_bounds(Partition(15), 0, LEAVES - 1)[0] == bytes.fromhex("f000000000000000")


def test_a_view_shows_only_keyspaces_that_both_own() -> None:
    trees = Trees(BITS, MIXED)
    lone, shared = key_of("x", "single"), key_of("x")
    trees.note(lone, None, state(lone, "a1"))
    assert trees.root(partition(lone), 3) == 0
    assert trees.root(partition(lone), 1) != 0
    trees.note(shared, None, state(shared, "a1"))
    assert trees.root(partition(shared), 3) == fingerprint(shared, state(shared, "a1"))


# ---- on disk ------------------------------------------------------------------------------------


def test_a_turn_puts_one_entry_whatever_it_changed() -> None:
    trees = holding("x")
    saved(trees)
    for name in "pqrstu":
        trees.note(key_of(name), None, state(key_of(name), "a1"))
    assert len(saved(trees)) == 1


def test_a_turn_that_changed_no_tree_puts_nothing() -> None:
    trees = holding("x")
    saved(trees)
    key = key_of("x")
    voted = encode(key, record(version("a1", key=key), votes=((1, "a1"),)))
    trees.note(key, state(key, "a1"), voted)
    assert saved(trees) == {}


def test_a_restart_finds_the_same_trees() -> None:
    disk: dict[bytes, bytes] = {}
    trees = Trees(BITS, MIXED)
    for name in "abcdefgh":
        for keyspace in MIXED:
            key = key_of(name, keyspace)
            trees.note(key, None, state(key, "a1"))
        keep(disk, saved(trees))
    assert view(reloaded(disk, MIXED)) == view(trees)
    assert view(reloaded(disk, MIXED), 3) == view(trees, 3)


def test_a_store_older_than_the_trees_is_told_from_a_new_one() -> None:
    assert not Trees(BITS, ALIKE).load([])
    disk: dict[bytes, bytes] = {}
    keep(disk, saved(holding("x")))
    assert Trees(BITS, ALIKE).load(sorted(disk.items()))


def rounds(trees: Trees, disk: dict[bytes, bytes], turns: int) -> int:
    """Have turns change one of 40 keys each; return the most snapshots that one turn wrote."""
    most = 0
    for turn in range(turns):
        key = key_of(str(turn % 40))
        old, new = state(key, f"a{1 + turn // 40}"), state(key, f"a{2 + turn // 40}")
        trees.note(key, old if turn >= 40 else None, new)
        changes = saved(trees)
        most = max(most, sum(name[:1] == b"s" for name in changes))
        keep(disk, changes)
    return most


def test_the_ring_goes_round_and_a_restart_still_finds_the_same_trees(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kvnode.core.trees.TREE_RING", 64)
    disk: dict[bytes, bytes] = {}
    trees = Trees(BITS, ALIKE)
    for _ in range(6):
        most = rounds(trees, disk, 50)
        assert view(reloaded(disk)) == view(trees)
    assert sum(name[:1] == b"d" for name in disk) <= 64
    assert 0 < most <= 4


def test_a_restarted_ring_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvnode.core.trees.TREE_RING", 64)
    disk: dict[bytes, bytes] = {}
    trees = Trees(BITS, ALIKE)
    rounds(trees, disk, 30)
    for count in range(300):
        trees = reloaded(disk)
        key = key_of(f"new {count}")
        trees.note(key, None, state(key, "a1"))
        keep(disk, saved(trees))
    assert view(reloaded(disk)) == view(trees)


def test_a_turn_with_many_changes_takes_more_of_the_ring() -> None:
    trees, disk = holding(), dict[bytes, bytes]()
    keep(disk, saved(trees))
    for count in range(TREE_RING // 64):
        for each in range(3 * TREE_STEP):
            key = key_of(f"{count} {each}")
            trees.note(key, None, state(key, "a1"))
        keep(disk, saved(trees))
    entries = sum(len(value) for name, value in disk.items() if name[:1] == b"d")
    assert entries <= TREE_RING * (16 * TREE_STEP + 9)
    numbers = sorted(int.from_bytes(name[1:], "big") for name in disk if name[:1] == b"d")
    assert all(after - before >= 3 for before, after in itertools.pairwise(numbers))
    assert view(reloaded(disk)) == view(trees)


def test_a_snapshot_is_small_while_few_leaves_are_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvnode.core.trees.TREE_RING", 16)
    disk: dict[bytes, bytes] = {}
    rounds(Trees(BITS, ALIKE), disk, 60)
    sizes = [len(value) for name, value in disk.items() if name[:1] == b"s"]
    assert sizes
    assert max(sizes) < 200


# ---- doubt --------------------------------------------------------------------------------------


def test_a_doubt_outlives_a_restart_and_takes_no_changes() -> None:
    disk: dict[bytes, bytes] = {}
    trees = holding("x")
    place = partition(key_of("x"))
    trees.doubt(place)
    keep(disk, saved(trees))
    again = reloaded(disk)
    assert not again.is_known(place)
    assert again.unknown == (place,)
    again.note(key_of("x"), None, state(key_of("x"), "b1"))
    assert saved(again) == {}
    assert again.root(place, 1) == 0


def test_what_was_rebuilt_is_known_also_after_a_restart() -> None:
    disk: dict[bytes, bytes] = {}
    trees = holding("x")
    key = key_of("x")
    place, leaf = partition(key), trees.leaf_of(key)
    trees.doubt(place)
    keep(disk, saved(trees))
    batch = WriteBatch()
    trees.know(place, {3: [5 if at == leaf else 0 for at in range(LEAVES)]}, batch)
    trees.check()
    keep(disk, {name: value for _, name, value in batch.changes})
    again = reloaded(disk)
    assert again.is_known(place)
    assert again.root(place, 1) == trees.root(place, 1) == 5


def test_a_broken_invariant_is_noticed() -> None:
    trees = holding("x")
    trees._roots[next(iter(trees._roots))] ^= 1
    with pytest.raises(AssertionError):
        trees.check()


@pytest.mark.parametrize("count", [0, 1, LEAVES // 2 - 1, LEAVES // 2, LEAVES])
def test_trees_come_back_as_they_were_however_many_leaves_are_in_use(count: int) -> None:
    disk: dict[bytes, bytes] = {}
    trees, batch, place = holding("x"), WriteBatch(), partition(key_of("x"))
    keep(disk, saved(trees))
    trees.doubt(place)
    trees.know(place, {3: [at + 1 if at < count else 0 for at in range(LEAVES)]}, batch)
    keep(disk, {name: value for _, name, value in batch.changes})
    assert view(reloaded(disk)) == view(trees)
    assert trees.leaves(place, 3, 0, LEAVES).count(0) == LEAVES - count
