"""The token function against its published vectors and against MurmurHash3 written out here."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvproto
from kvproto.token import SEED, partition_of, token

VECTORS = json.loads((files(kvproto) / "token_vectors.json").read_text(encoding="utf-8"))
MASK = (1 << 64) - 1
C1, C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F


def rotate(x: int, by: int) -> int:
    return ((x << by) | (x >> (64 - by))) & MASK


def mix1(word: int) -> int:
    return rotate(word * C1 & MASK, 31) * C2 & MASK


def mix2(word: int) -> int:
    return rotate(word * C2 & MASK, 33) * C1 & MASK


def finish(h: int) -> int:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        h = ((h ^ (h >> 33)) * factor) & MASK
    return h ^ (h >> 33)


def murmur3(data: bytes, seed: int) -> tuple[int, int]:
    """MurmurHash3_x64_128 as its author describes it: the second opinion."""
    h1 = h2 = seed
    whole = len(data) // 16 * 16
    for at in range(0, whole, 16):
        h1 ^= mix1(int.from_bytes(data[at : at + 8], "little"))
        h1 = ((rotate(h1, 27) + h2) * 5 + 0x52DCE729) & MASK
        h2 ^= mix2(int.from_bytes(data[at + 8 : at + 16], "little"))
        h2 = ((rotate(h2, 31) + h1) * 5 + 0x38495AB5) & MASK
    h1 ^= mix1(int.from_bytes(data[whole : whole + 8], "little"))
    h2 ^= mix2(int.from_bytes(data[whole + 8 :], "little"))
    h1, h2 = h1 ^ len(data), h2 ^ len(data)
    h1 = (h1 + h2) & MASK
    h2 = (h2 + h1) & MASK
    h1, h2 = finish(h1), finish(h2)
    h1 = (h1 + h2) & MASK
    return h1, (h2 + h1) & MASK


def by_hand(keyspace: str, part: bytes) -> int:
    name = keyspace.encode("utf-8")
    h1, _ = murmur3(len(name).to_bytes(2, "big") + name + part, SEED)
    return int.from_bytes(h1.to_bytes(8, "little"), "big")


def part_of(vector: dict[str, Any]) -> bytes:
    return bytes.fromhex(vector["partition_part_hex"]) * int(vector["repeated"])


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda vector: vector["claim"])
def test_a_published_vector_never_changes(vector: dict[str, Any]) -> None:
    found = token(vector["keyspace"], part_of(vector))
    assert f"{found:016x}" == vector["token_hex"]
    assert partition_of(found, 8) == vector["partition_of_256"]


def test_the_published_seed_is_the_one_in_use() -> None:
    assert VECTORS["seed"] == SEED == 0x6B766E64


def test_the_vectors_cover_the_edges_of_a_key() -> None:
    parts = [part_of(vector) for vector in VECTORS["vectors"]]
    assert {0, 1, 4096} <= {len(part) for part in parts}
    assert any(b"\0" in part for part in parts)
    assert any(not vector["keyspace"].isascii() for vector in VECTORS["vectors"])


@given(st.text(max_size=20), st.binary(max_size=100))
def test_a_token_is_murmur3_over_the_length_prefixed_keyspace_and_the_key(
    keyspace: str, part: bytes
) -> None:
    assert token(keyspace, part) == by_hand(keyspace, part)


def test_where_the_keyspace_ends_is_part_of_the_token() -> None:
    assert token("ab", b"c") != token("a", b"bc")


def test_a_keyspace_name_beyond_two_length_bytes_is_refused() -> None:
    with pytest.raises(OverflowError):
        token("x" * 65_536, b"k")


@pytest.mark.parametrize(("bits", "partition"), [(0, 0), (1, 1), (8, 0xF0), (64, 0xF0 << 56)])
def test_a_partition_is_the_top_bits_of_the_token(bits: int, partition: int) -> None:
    assert partition_of(0xF0 << 56, bits) == partition


def test_keys_spread_evenly_over_partitions() -> None:
    counts = [0] * 16
    for number in range(16_000):
        counts[partition_of(token("default", b"user:%d" % number), 4)] += 1
    assert 880 < min(counts) <= max(counts) < 1120  # 1,000 each; four standard deviations
