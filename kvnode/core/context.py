"""Contexts that clients hold: opaque to them, and sealed, so that a forged one masks nothing.

    u8 format | u16 single dots | entries and single dots (16 bytes each) | 16 MAC

The MAC is a keyed BLAKE2b under the cluster's key, over the storage key and the rest: a context
says nothing about another key. A watermark (what a session remembers of keys that it no longer
tracks) is bare pairs without a MAC: it can only make a read ask for more.

Tests: tests/unit/core/test_context.py. Source: design, section 2.6; RFC 7693 for the keyed hash.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from hashlib import blake2b
from hmac import compare_digest

from kvnode.core.bounds import CONTEXT_ENTRIES_MAX, WATERMARK_ENTRIES_MAX
from kvnode.core.keys import StorageKey
from kvnode.core.record import decode_pairs, encode_pairs
from kvnode.core.versions import NOTHING_SEEN, Context

FORMAT = 1
MAC_BYTES = 16
_HEAD = struct.Struct("<BH")
_PAIR = struct.Struct("<QQ")


class ForgedContext(Exception):
    """This cluster has not given out these bytes as a context of this key."""


def seal_context(cluster_key: bytes, key: StorageKey, context: Context) -> bytes:
    """Return the opaque form of a context of `key`. Costs about 2 microseconds."""
    body = _HEAD.pack(FORMAT, len(context.dots)) + encode_pairs(context)
    return body + _mac(cluster_key, key, body)


def open_context(cluster_key: bytes, key: StorageKey, data: bytes) -> Context:
    """Return the context that `seal_context` was given; empty bytes are an empty context.

    Raises:
        ForgedContext: with a reason that may be shown.
    """
    if not data:
        return NOTHING_SEEN
    pairs, rest = divmod(len(data) - _HEAD.size - MAC_BYTES, _PAIR.size)
    if pairs < 0 or rest or data[0] != FORMAT:
        raise ForgedContext("context is not one that this cluster gave out")
    if pairs > CONTEXT_ENTRIES_MAX:
        raise ForgedContext(f"context must have at most {CONTEXT_ENTRIES_MAX} dots, got {pairs:,}")
    body = data[:-MAC_BYTES]
    if not compare_digest(_mac(cluster_key, key, body), data[-MAC_BYTES:]):
        raise ForgedContext("context was not given out by this cluster for this key")
    dots = _HEAD.unpack_from(data)[1]
    return decode_pairs(data, _HEAD.size, pairs - dots, dots)


def open_watermark(data: bytes) -> Mapping[int, int]:
    """Return actor -> counter.

    Raises:
        ForgedContext: not whole pairs, or too many.
    """
    if len(data) % _PAIR.size or len(data) > WATERMARK_ENTRIES_MAX * _PAIR.size:
        raise ForgedContext(
            f"watermark must be at most {WATERMARK_ENTRIES_MAX} pairs of 16 bytes, "
            f"got {len(data):,} bytes"
        )
    return dict(_PAIR.iter_unpack(data))


def widen_watermark(data: bytes, seen: Context) -> bytes | None:
    """Return a watermark for all of `seen` beside what this one is for; None: it has no room.

    For single dots it asks for all below them too: more than was seen, never less.
    """
    pairs = dict(open_watermark(data))
    for actor, counter in (*sorted(seen.vector.items()), *sorted(seen.dots)):
        pairs[actor] = max(counter, pairs.get(actor, 0))
    if len(pairs) > WATERMARK_ENTRIES_MAX:
        return None
    return b"".join(_PAIR.pack(*pair) for pair in sorted(pairs.items()))


def _mac(cluster_key: bytes, key: StorageKey, body: bytes) -> bytes:
    # The key's length first: no two (key, body) give the same input.
    head = len(key).to_bytes(4, "little")
    return blake2b(head + key + body, key=cluster_key, digest_size=MAC_BYTES).digest()
