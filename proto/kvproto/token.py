"""Where a key lies on the ring: the one function that nodes and clients of every language share.

Laws: a token depends on the keyspace's name and the key's partition part alone; the vectors in
token_vectors.json never change (a cluster's data lies where they say).
Tests: tests/unit/test_token.py.
Source: MurmurHash3_x64_128 (Appleby), by mmh3; Dynamo (SOSP 2007), section 6.2, strategy 3.
Left out: who owns a partition (kvnode.core.ownership).

The hash is taken, with seed `SEED`, over

    length of the keyspace's name in UTF-8 (2 bytes, big-endian) | the name | the partition part

MurmurHash3 yields two 64-bit words h1, h2, written little-endian, h1 first: 16 bytes, the same on
every machine. The token is the first 8 of these bytes read as a big-endian number (so it is h1 with
its bytes reversed). A partition is the token's top bits.
"""

from __future__ import annotations

from functools import lru_cache
from struct import Struct
from typing import Final

import mmh3

SEED: Final = 0x6B76_6E64
"""Fixed for ever ("kvnd" in ASCII), so that tokens differ from those of an unseeded MurmurHash3."""
TOKEN_BITS: Final = 64

_first_word = Struct(">Q").unpack_from
_digest = mmh3.mmh3_x64_128_digest


@lru_cache(maxsize=1024)
def _prefix(keyspace: str) -> bytes:
    name = keyspace.encode()
    return len(name).to_bytes(2, "big") + name


def token(keyspace: str, partition_part: bytes) -> int:
    """Return the token of a key, 0 to 2**64 - 1.

    Raises: OverflowError if the keyspace's name is longer than 65,535 bytes.
    Cost: about 0.4 us for a short key; it is computed once for every operation.
    """
    word: int = _first_word(_digest(_prefix(keyspace) + partition_part, SEED))[0]
    return word


def partition_of(token: int, partition_bits: int) -> int:
    """Return the partition of a token: its top `partition_bits` (0 to 64) bits."""
    return token >> (TOKEN_BITS - partition_bits)
