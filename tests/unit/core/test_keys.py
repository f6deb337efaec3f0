"""Storage keys: partition order, sort order for any bytes, one key for one name."""

from __future__ import annotations

import itertools

import pytest

from kvnode.core.keys import (
    KeyName,
    Partition,
    StorageKey,
    decode_key,
    encode_key,
    is_storage_key,
    keyspace_of,
    partition_bounds,
    partition_of_key,
)
from kvproto.token import token

AWKWARD = [b"", b"\x00", b"\x00\x00", b"\x00\x01", b"\x00\xff", b"\x01", b"\xff", b"a\x00", b"a"]


def test_a_storage_key_is_token_keyspace_partition_part_and_sort_part() -> None:
    head = token("default", b"k\x00").to_bytes(8, "big")
    assert encode_key("default", b"k\x00", b"s") == head + b"default\x00\x01k\x00\xff\x00\x01s"


@pytest.mark.parametrize("sort_part", AWKWARD, ids=repr)
@pytest.mark.parametrize("partition_part", AWKWARD, ids=repr)
def test_decode_gives_back_the_name(partition_part: bytes, sort_part: bytes) -> None:
    key = encode_key("logs", partition_part, sort_part)
    assert decode_key(key) == KeyName("logs", partition_part, sort_part)


@pytest.mark.parametrize("name", [b"a", b"\x00", b"\xff\x00\x01"])
def test_a_storage_key_is_told_by_its_form(name: bytes) -> None:
    assert is_storage_key(encode_key("läden", name))
    assert not is_storage_key(encode_key("logs", name).replace(b"logs", b"lo\x00\xff"))
    assert not is_storage_key(encode_key("logs", name).replace(b"logs", b"\xff\xfe"))


def test_distinct_names_have_distinct_storage_keys() -> None:
    named = list(itertools.product(("a", "ab"), AWKWARD, AWKWARD))
    assert len({encode_key(*name) for name in named}) == len(named)


def test_within_one_partition_part_keys_sort_by_their_sort_part() -> None:
    keys = [encode_key("default", b"a\x00b", sort_part) for sort_part in AWKWARD]
    assert sorted(keys) == [encode_key("default", b"a\x00b", part) for part in sorted(AWKWARD)]


def test_a_keyspace_is_read_without_decoding() -> None:
    assert keyspace_of(encode_key("überall", b"\x00x")) == "überall"


def test_a_path_is_a_key_like_any_other() -> None:
    assert decode_key(encode_key("d", b"../../etc/passwd\n")).partition_part == (
        b"../../etc/passwd\n"
    )


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 8, b"12345678name", b"12345678name\x00\x01part", b"12345678\x00\xff"]
)
def test_what_is_no_storage_key_is_refused(data: bytes) -> None:
    assert not is_storage_key(data)
    with pytest.raises(ValueError, match="terminator is missing"):
        decode_key(StorageKey(data))


def test_a_partition_is_the_top_bits_of_the_token() -> None:
    key = StorageKey(bytes([0b1010_0000]) + bytes(7) + b"d\x00\x01k\x00\x01")
    assert partition_of_key(key, 3) == 0b101
    assert partition_of_key(key, 0) == 0


def test_every_key_lies_within_the_bounds_of_its_partition_and_of_no_other() -> None:
    for number in range(200):
        key = encode_key("default", b"%d" % number)
        holding = [
            partition
            for partition in map(Partition, range(16))
            for first, end in [partition_bounds(partition, 4)]
            if first <= key and (end is None or key < end)
        ]
        assert holding == [partition_of_key(key, 4)]


def test_partitions_follow_one_another_without_a_gap_and_the_last_is_open() -> None:
    ranges = [partition_bounds(Partition(number), 4) for number in range(16)]
    assert [first for first, _ in ranges[1:]] == [end for _, end in ranges[:-1]]
    assert ranges[0][0] == bytes(8)
    assert ranges[-1][1] is None


def test_a_single_partition_is_everything() -> None:
    assert partition_bounds(Partition(0), 0) == (bytes(8), None)
