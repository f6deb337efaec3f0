"""Whether a write-ahead log ends amid a record: what a crash leaves of a write that nobody synced.

RocksDB drops such an end without a word, and rightly: nothing in it was acknowledged. It decides
only what is to be said about it. A log is made of blocks of 32 KiB; no fragment of a record crosses
from one block to the next, so the last block tells.

Law (tests/unit/storage/test_tail.py): an end is torn if and only if its last record is not whole.
Source: RocksDB's wiki, "Write Ahead Log File Format".
Left out: checksums. A last record of full length with a wrong byte is damage, which RocksDB tells.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

_BLOCK_BYTES = 32_768
_HEADER_BYTES = 7  # checksum 4, length 2, type 1
_RECYCLABLE_HEADER_BYTES = 11  # and the number of the log
_PADDING = 0
_UNFINISHED = frozenset((2, 3, 6, 7))
"""Types of fragments that others must follow: first and middle ones, also of recycled logs."""
_RECYCLABLE = frozenset((5, 6, 7, 8))


class Torn(NamedTuple):
    """A log whose last record is not whole."""

    log: str
    dropped: int
    """Bytes at its end, at least: fragments in earlier blocks go too."""


def torn_end(store: Path) -> Torn | None:
    """Look at the newest log of a store that nobody has open. Cost: one block is read."""
    logs = sorted(store.glob("*.log"))
    if not logs:
        return None
    dropped = _torn_bytes(_last_block(logs[-1]))
    return Torn(logs[-1].name, dropped) if dropped else None


def _last_block(log: Path) -> bytes:
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1) // _BLOCK_BYTES * _BLOCK_BYTES)
        return file.read(_BLOCK_BYTES)


def _torn_bytes(block: bytes) -> int:
    at = begun = 0  # `begun`: where, in this block, the record begins that is not finished
    is_unfinished = False
    while len(block) - at >= _HEADER_BYTES:
        length, kind = int.from_bytes(block[at + 4 : at + 6], "little"), block[at + 6]
        if kind == _PADDING and not any(block[at:]):
            break  # room that was set aside for what never came
        header = _RECYCLABLE_HEADER_BYTES if kind in _RECYCLABLE else _HEADER_BYTES
        if at + header + length > len(block):
            return len(block) - (begun if is_unfinished else at)
        if not is_unfinished:
            begun = at
        is_unfinished = kind in _UNFINISHED
        at += header + length
    if is_unfinished:
        return len(block) - begun
    # At the end of a full block fewer bytes than a header has are filled up with nothing.
    return len(block) - at if len(block) < _BLOCK_BYTES and any(block[at:]) else 0
