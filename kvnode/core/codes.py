"""Small numbers that nodes and clients say to one another. They are those of the wire.

Test: tests/unit/core/test_codes.py. Left out: what carries them (kvnode.core.messages).
"""

from __future__ import annotations

from enum import IntEnum


class WriteKind(IntEnum):
    """Numbers of the wire."""

    WRITE = 0
    """Straight from its coordinator: casts a vote."""
    REPAIR = 1
    """Merges; casts none."""
    HANDOFF = 2
    """From a stand-in: a plain put supersedes what is older; casts none."""
    OVERRULE = 3
    """What most owners hold, where one dot names several payloads; merges, casts none."""


class Status(IntEnum):
    """A replica's answer. Numbers of the wire."""

    DONE = 0
    ABSTAINED = 1
    REFUSED_FULL = 2
    REFUSED_LOAD = 3
    REFUSED_LATE = 4
    REFUSED_SKEW = 5
    REFUSED_INVALID = 6
    UNPROVEN = 7
    REFUSED_EPOCH = 8


class ErrorCode(IntEnum):
    """Why a client's operation failed. Numbers of the wire."""

    INVALID_REQUEST = 1
    UNKNOWN_KEYSPACE = 2
    UNAVAILABLE = 3
    UNCERTAIN = 4
    TIMEOUT = 5
    OVERLOADED = 6
    STORAGE_FULL = 7
    CORRUPT_DATA = 8
    UNAUTHENTICATED = 9
    PERMISSION_DENIED = 10
    STALE_EPOCH = 11
    INTERNAL = 12


class Outcome(IntEnum):
    """What became of a failed write. Numbers of the wire."""

    NONE = 0
    NOT_APPLIED = 1
    UNCERTAIN = 2
