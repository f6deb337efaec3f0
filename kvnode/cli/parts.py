"""How files become keys and values: the format that `load` writes and `verify` reads.

    a file's path                     -> its bytes                   up to PART_BYTES, no mark
    a file's path                     -> MARK "plain" NUL, its bytes  if they begin with MARK
    a file's path                     -> MARK "parts" NUL, manifest   if it is larger
    NUL "kvnode.part" NUL id, index   -> PART_BYTES of it, the last one fewer

    MARK      NUL "kvnode."
    manifest  u8 format 1 | u64 size | u32 part bytes | u32 parts | 32 bytes BLAKE2b of the file
    id        32 bytes: BLAKE2b of (u32 length of the key, key, the file's BLAKE2b)
    index     u32; all numbers big-endian

Laws: `split` of a value inverts `whole`; no part's key is a file's key, since no path holds a NUL;
no file's bytes are taken for a manifest, since what begins with MARK is marked as plain; parts of
two files, and of two contents of one file, never share a key, so that an old manifest keeps its
parts while a new file is loaded, and a manifest written last never points at parts that are not
there. Held by tests/unit/cli/test_parts.py; docs/cli.md tells it to users. Leaves out removing the
parts of a replaced file.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

PART_BYTES = 512 * 1024
"""Half of what a value may be by default: room for marks and for smaller limits."""

MARK = b"\0kvnode."
_PLAIN = MARK + b"plain\0"
_PARTS = MARK + b"parts\0"
_PART_KEY = b"\0kvnode.part\0"
_MANIFEST = struct.Struct(">BQII32s")
_FORMAT = 1
_INDEX = struct.Struct(">I")


class BadManifest(Exception):
    """A value bears the mark of a manifest and is none that this version understands."""


class Digest(Protocol):
    """A running hash."""

    def update(self, data: bytes, /) -> None:
        """Take in more."""

    def digest(self) -> bytes:
        """Return the hash of all so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What stands at the key of a file that is stored in parts."""

    size: int
    part_bytes: int
    digest: bytes
    """BLAKE2b, 32 bytes, of the whole file."""

    @property
    def count(self) -> int:
        """How many parts there are."""
        return -(-self.size // self.part_bytes)

    def keys(self, key: bytes) -> Iterator[bytes]:
        """Yield the keys of the parts in order; `key` is the file's."""
        name = hashlib.blake2b(_INDEX.pack(len(key)) + key + self.digest, digest_size=32).digest()
        for index in range(self.count):
            yield _PART_KEY + name + _INDEX.pack(index)

    def encoded(self) -> bytes:
        """Return the value that stands at the file's key."""
        fields = (_FORMAT, self.size, self.part_bytes, self.count, self.digest)
        return _PARTS + _MANIFEST.pack(*fields)


def digest() -> Digest:
    """Return the running hash that manifests carry."""
    return hashlib.blake2b(digest_size=32)


def whole(data: bytes) -> bytes:
    """Return the value for a file that is stored in one piece."""
    return _PLAIN + data if data.startswith(MARK) else data


def split(value: bytes) -> bytes | Manifest:
    """Return what the value at a file's key means: the file's bytes, or the manifest of its parts.

    Raises: BadManifest.
    """
    if not value.startswith(MARK):
        return value
    if value.startswith(_PLAIN):
        return value[len(_PLAIN) :]
    return _manifest(value)


def _manifest(value: bytes) -> Manifest:
    body = value[len(_PARTS) :]
    if not value.startswith(_PARTS) or len(body) != _MANIFEST.size:
        raise BadManifest("a mark of this program's, but no manifest")
    form, size, part_bytes, count, checksum = _MANIFEST.unpack(body)
    if form != _FORMAT:
        raise BadManifest(f"a manifest of format {form}; this version reads {_FORMAT}")
    if part_bytes < 1:
        raise BadManifest("a manifest with parts of no bytes")
    manifest = Manifest(size=size, part_bytes=part_bytes, digest=checksum)
    if manifest.count != count:
        raise BadManifest(f"a manifest of {count} parts for {size} bytes")
    return manifest
