"""Contexts in clients' hands: what was given out opens, anything else is refused with a reason."""

from __future__ import annotations

import struct

import pytest

from kvnode.core.bounds import CONTEXT_ENTRIES_MAX, WATERMARK_ENTRIES_MAX
from kvnode.core.context import (
    MAC_BYTES,
    ForgedContext,
    open_context,
    open_watermark,
    seal_context,
    widen_watermark,
)
from kvnode.core.keys import encode_key
from kvnode.core.versions import NOTHING_SEEN, Context, Dot
from tests.unit.core.builders import CLUSTER_KEY, KEY, context

SEEN = context("a3", "b1", single=("c5", "c9"))
SEALED = seal_context(CLUSTER_KEY, KEY, SEEN)


@pytest.mark.parametrize("seen", [NOTHING_SEEN, context("a1"), context(single=("a1",)), SEEN])
def test_what_was_sealed_opens(seen: Context) -> None:
    assert open_context(CLUSTER_KEY, KEY, seal_context(CLUSTER_KEY, KEY, seen)) == seen


def test_no_bytes_are_an_empty_context() -> None:
    assert open_context(CLUSTER_KEY, KEY, b"") == NOTHING_SEEN


def test_a_context_of_another_key_is_refused() -> None:
    with pytest.raises(ForgedContext, match="for this key"):
        open_context(CLUSTER_KEY, encode_key("default", b"x"), SEALED)


def test_a_context_of_another_cluster_is_refused() -> None:
    with pytest.raises(ForgedContext, match="by this cluster"):
        open_context(b"j" * 32, KEY, SEALED)


def test_any_flipped_bit_is_refused() -> None:
    for place in range(len(SEALED)):
        for bit in range(8):
            bad = bytearray(SEALED)
            bad[place] ^= 1 << bit
            with pytest.raises(ForgedContext):
                open_context(CLUSTER_KEY, KEY, bytes(bad))


def test_any_cut_is_refused() -> None:
    for end in range(1, len(SEALED)):
        with pytest.raises(ForgedContext):
            open_context(CLUSTER_KEY, KEY, SEALED[:end])


def test_counters_never_issued_cannot_be_claimed_without_the_cluster_key() -> None:
    forged = seal_context(b"a guess", KEY, Context({1: (1 << 64) - 1}))
    with pytest.raises(ForgedContext):
        open_context(CLUSTER_KEY, KEY, forged)


def test_a_context_of_ten_thousand_dots_is_refused_before_it_is_hashed() -> None:
    data = b"\x01\x00\x00" + bytes(16 * 10_000) + bytes(MAC_BYTES)
    with pytest.raises(ForgedContext, match=r"at most 512 dots, got 10,000"):
        open_context(CLUSTER_KEY, KEY, data)


def test_the_largest_context_opens() -> None:
    largest = Context(dict.fromkeys(range(1, CONTEXT_ENTRIES_MAX + 1), 1))
    assert open_context(CLUSTER_KEY, KEY, seal_context(CLUSTER_KEY, KEY, largest)) == largest


# ---- watermarks ---------------------------------------------------------------------------------


def test_a_watermark_is_pairs_of_actor_and_counter() -> None:
    assert open_watermark(struct.pack("<4Q", 1, 10, 2, 20)) == {1: 10, 2: 20}
    assert open_watermark(b"") == {}


@pytest.mark.parametrize("size", [1, 15, 17, 16 * (WATERMARK_ENTRIES_MAX + 1)])
def test_a_watermark_that_is_no_whole_pairs_or_too_many_is_refused(size: int) -> None:
    with pytest.raises(ForgedContext, match=f"at most 512 pairs of 16 bytes, got {size:,} bytes"):
        open_watermark(bytes(size))


def test_the_largest_watermark_opens() -> None:
    pairs = range(2 * WATERMARK_ENTRIES_MAX)
    assert len(open_watermark(struct.pack(f"<{len(pairs)}Q", *pairs))) == WATERMARK_ENTRIES_MAX


def test_a_widened_watermark_asks_for_what_both_name() -> None:
    seen = Context({1: 5, 2: 1}, frozenset({Dot(3, 7)}))
    data = widen_watermark(b"", seen)
    assert data is not None
    assert open_watermark(data) == {1: 5, 2: 1, 3: 7}
    again = widen_watermark(data, Context({1: 3, 2: 9}))
    assert again is not None
    assert open_watermark(again) == {1: 5, 2: 9, 3: 7}


def test_a_watermark_without_room_is_none() -> None:
    full = widen_watermark(b"", Context(dict.fromkeys(range(WATERMARK_ENTRIES_MAX), 1)))
    assert full is not None
    assert widen_watermark(full, Context({1: 5})) is not None
    assert widen_watermark(full, Context({1 << 40: 1})) is None
