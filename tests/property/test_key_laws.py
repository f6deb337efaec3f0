"""The laws of kvnode.core.keys."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.keys import (
    Partition,
    decode_key,
    encode_key,
    keyspace_of,
    partition_bounds,
    partition_of_key,
)

_AWKWARD = st.lists(st.sampled_from([b"\x00", b"\x01", b"\xff", b"a"]), max_size=6).map(b"".join)
parts = st.one_of(_AWKWARD, st.binary(max_size=20))
names = st.sampled_from(["default", "carts", "z"])


@given(names, parts, parts)
def test_decode_inverts_encode(keyspace: str, part: bytes, sort: bytes) -> None:
    key = encode_key(keyspace, part, sort)
    assert decode_key(key) == (keyspace, part, sort)
    assert keyspace_of(key) == keyspace


@given(st.tuples(names, parts, parts), st.tuples(names, parts, parts))
def test_distinct_names_have_distinct_keys(
    left: tuple[str, bytes, bytes], right: tuple[str, bytes, bytes]
) -> None:
    assert (encode_key(*left) == encode_key(*right)) == (left == right)


@given(names, parts, parts, parts)
def test_within_one_partition_part_keys_are_in_the_order_of_their_sort_parts(
    keyspace: str, part: bytes, one: bytes, other: bytes
) -> None:
    left, right = encode_key(keyspace, part, one), encode_key(keyspace, part, other)
    assert (left < right) == (one < other)


@given(names, parts, parts, parts, parts)
def test_keys_of_one_partition_part_are_adjacent(
    keyspace: str, part: bytes, other: bytes, low: bytes, high: bytes
) -> None:
    low, high = sorted((low, high))
    ends = encode_key(keyspace, part, low), encode_key(keyspace, part, high)
    between = encode_key(keyspace, other, b"x")
    assert other == part or not ends[0] < between < ends[1]


@given(names, parts, st.integers(0, 12))
def test_a_key_lies_within_the_bounds_of_its_partition(
    keyspace: str, part: bytes, bits: int
) -> None:
    key = encode_key(keyspace, part)
    first, end = partition_bounds(partition_of_key(key, bits), bits)
    assert first <= key
    assert end is None or key < end


@given(st.integers(1, 12))
def test_partitions_follow_one_another_without_gap(bits: int) -> None:
    bounds = [partition_bounds(Partition(p), bits) for p in range(1 << bits)]
    assert bounds[0][0] == bytes(8)
    assert bounds[-1][1] is None
    assert all(left[1] == right[0] for left, right in itertools.pairwise(bounds))
