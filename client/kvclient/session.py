"""What a client has seen, so that its reads never go back and its writes replace what it read.

Decides which context and which watermark travel with an operation. Laws: a context is forgotten
only into a watermark that covers it, or is counted in `forgotten`; what is remembered of a key
never shrinks; an export and its resumption send the same bytes.
Tests: tests/unit/client/test_session.py.
Source: Terry et al., "Session Guarantees for Weakly Consistent Replicated Data" (1994); design,
2.10.
Left out: checking a context's MAC (nodes do), and judging whether an answer covers what was sent
(nodes keep asking until it does).

A context is opaque but for its shape: a format byte (1), how many of the pairs are single dots (2
bytes), pairs of actor and counter (16 bytes, little endian, single dots last), a MAC of 16 bytes.
What was seen counts a single dot like a pair, and what a context covers counts none: a watermark
may ask for more than was seen, never for less.
"""

from __future__ import annotations

import base64
import binascii
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import NamedTuple

from kvclient.bounds import BOUNDS, Bounds
from kvclient.errors import InvalidRequest
from kvclient.operation import WriteIds
from kvproto.token import partition_of, token

CONTEXT_FORMAT = 1
CONTEXT_HEAD_BYTES = 3
MAC_BYTES = 16
TOKEN_FORMAT = 1
_PAIR = Struct("<QQ")
_DOTS = Struct("<H")
_HEAD = Struct("<B16sBII")  # format, cluster, partition bits, entries, watermarks
_ENTRY = Struct("<HHII")  # lengths: keyspace, key, context, pairs beside it
_MARK = Struct("<II")  # partition, length

Pairs = dict[int, int]


class _Entry(NamedTuple):
    context: bytes
    partition: int
    beside: bytes  # pairs seen that the context does not cover: concurrent answers


def pairs_of(context: bytes) -> Pairs | None:
    """Return actor to highest counter of a context, or None if its format is unknown."""
    body = len(context) - CONTEXT_HEAD_BYTES - MAC_BYTES
    if body < 0 or body % _PAIR.size or context[0] != CONTEXT_FORMAT:
        return None
    highest: Pairs = {}
    for actor, counter in _PAIR.iter_unpack(context[CONTEXT_HEAD_BYTES:-MAC_BYTES]):
        highest[actor] = max(counter, highest.get(actor, 0))
    return highest


def seen_in(context: bytes) -> tuple[Pairs, frozenset[tuple[int, int]]]:
    """Return actor to the counter up to which a context covers all, and its single dots."""
    if pairs_of(context) is None:
        return {}, frozenset()
    (dots,) = _DOTS.unpack_from(context, 1)
    pairs = list(_PAIR.iter_unpack(context[CONTEXT_HEAD_BYTES:-MAC_BYTES]))
    end = max(0, len(pairs) - dots)
    return dict(pairs[:end]), frozenset(pairs[end:])


def lacking(context: bytes, other: bytes) -> Pairs:
    """Return the pairs that are to be asked for where only `other` is known to be covered."""
    upto, dots = seen_in(context)
    other_upto, other_dots = seen_in(other)
    missing = _beyond(upto.items(), other_upto)
    for actor, counter in sorted(dots - other_dots):
        if other_upto.get(actor, 0) < counter:
            missing[actor] = max(counter, missing.get(actor, 0))
    return missing


def _overreach(context: bytes, other: bytes) -> int:
    """Return how many writes `lacking` asks for that are not in `context`."""
    upto, dots = seen_in(context)
    other_upto, other_dots = seen_in(other)
    known = dots | other_dots
    return sum(
        counter - highest - sum(1 for dot in known if dot[0] == actor and highest < dot[1])
        for actor, counter in lacking(context, other).items()
        for highest in (max(upto.get(actor, 0), other_upto.get(actor, 0)),)
        if counter > highest
    )


def pack_pairs(pairs: Iterable[tuple[int, int]]) -> bytes:
    """Return pairs as they travel: 16 bytes each."""
    return b"".join(_PAIR.pack(actor, counter) for actor, counter in pairs)


def _beyond(pairs: Iterable[tuple[int, ...]], cover: Pairs) -> Pairs:
    return {actor: counter for actor, counter in pairs if cover.get(actor, 0) < counter}


class Session:
    """The contexts last returned, by key, and a watermark of those that no longer fit.

    Safe to use from threads. Past its bounds the oldest pairs of the watermark are dropped and
    `forgotten` counts them: for keys they came from, reads may then go back.
    """

    def __init__(self, token: str | None = None, *, bounds: Bounds = BOUNDS) -> None:
        self.forgotten = 0
        self.cluster_id = b""
        self.is_bound = False
        """Whether it is known to be this cluster's."""
        self.write_ids: WriteIds | None = None
        """Names for its writes; the engine gives them, with its first one."""
        self._bounds = bounds
        self._lock = threading.Lock()
        self._partition_bits = 0
        self._entries: OrderedDict[tuple[str, bytes], _Entry] = OrderedDict()
        self._marks: dict[int, Pairs] = {}
        self._packed: dict[int, bytes] = {}
        self._pair_count = 0
        if token is not None:
            self._resume(token)

    def bind(self, cluster_id: bytes, partition_bits: int) -> None:
        """Tie the session to its cluster. Raises: InvalidRequest if it came from another one."""
        with self._lock:
            if self.cluster_id not in (b"", cluster_id):
                raise InvalidRequest("the session token belongs to another cluster")
            self.cluster_id, self._partition_bits = cluster_id, partition_bits
            self.is_bound = True

    def recall(self, keyspace: str, key: bytes, partition: int) -> tuple[bytes, bytes]:
        """Return the context and the watermark to send with an operation on a key."""
        with self._lock:
            entry = self._entries.get((keyspace, key))
            if entry is not None:
                return entry.context, entry.beside
            if partition not in self._marks:
                return b"", b""
            return b"", self._packed_mark(partition)

    def remember(
        self,
        keyspace: str,
        key: bytes,
        partition: int,
        *,
        context: bytes,
        sent: bytes,
        watermark: bytes = b"",
    ) -> None:
        """Take in the context of an answer that covers `sent` and, if a read's, `watermark`."""
        if not context:
            return
        name = (keyspace, key)
        with self._lock:
            old = self._entries.get(name)
            if old is None:
                beside = self._beside(partition, context, watermark)
                self._entries[name] = _Entry(context, partition, beside)
            elif old.context == sent and old.beside == watermark:
                self._entries[name] = _Entry(context, partition, b"")
            else:
                self._entries[name] = self._merged(old, context)
            self._entries.move_to_end(name)
            if len(self._entries) > self._bounds.session_keys:
                self._evict()

    def export(self) -> str:
        """Return the session as an opaque token, for `Client(..., session=token)`."""
        with self._lock:
            packed = zlib.compress(self._dump(), 6)
        return base64.urlsafe_b64encode(packed).decode()

    def _beside(self, partition: int, context: bytes, covered: bytes) -> bytes:
        """What a key that comes back from the watermark must go on to carry of it."""
        if partition not in self._marks or self._packed_mark(partition) == covered:
            return b""
        return pack_pairs(_beyond(self._marks[partition].items(), seen_in(context)[0]).items())

    def _merged(self, old: _Entry, context: bytes) -> _Entry:
        """Answers that crossed: the later one leads, pairs that it lacks stand beside it.

        Or the earlier one, if less is asked for then that was not seen.
        """
        if pairs_of(context) is None or pairs_of(old.context) is None:
            return _Entry(context, old.partition, old.beside)
        if not lacking(context, old.context):
            return _Entry(old.context, old.partition, old.beside)
        lead, other = context, old.context
        if _overreach(other, lead) > _overreach(lead, other):
            lead, other = other, lead
        beside = _beyond(_PAIR.iter_unpack(old.beside), seen_in(lead)[0])
        for actor, counter in lacking(other, lead).items():
            beside[actor] = max(counter, beside.get(actor, 0))
        rest = list(beside.items())
        self.forgotten += max(0, len(rest) - self._partition_bound)
        return _Entry(lead, old.partition, pack_pairs(rest[: self._partition_bound]))

    @property
    def _partition_bound(self) -> int:
        return self._bounds.session_partition_pairs

    def _evict(self) -> None:
        _, entry = self._entries.popitem(last=False)
        pairs = pairs_of(entry.context)
        if pairs is None:
            self.forgotten += 1
            return
        self._raise_mark(entry.partition, _PAIR.iter_unpack(entry.beside))
        self._raise_mark(entry.partition, pairs.items())

    def _raise_mark(self, partition: int, pairs: Iterable[tuple[int, ...]]) -> None:
        mark = self._marks.setdefault(partition, {})
        before = len(mark)
        for actor, counter in pairs:
            if mark.get(actor, 0) < counter:
                # Taken out first, so that the order of the dict is from the stalest actor.
                mark.pop(actor, None)
                mark[actor] = counter
        self._pair_count += len(mark) - before
        self._packed.pop(partition, None)
        while len(mark) > self._partition_bound:
            self._drop_pair(partition)
        while self._pair_count > self._bounds.session_pairs:
            self._drop_pair(next(iter(self._marks)))

    def _drop_pair(self, partition: int) -> None:
        mark = self._marks[partition]
        del mark[next(iter(mark))]
        self._packed.pop(partition, None)
        self._pair_count -= 1
        self.forgotten += 1
        if not mark:
            del self._marks[partition]

    def _packed_mark(self, partition: int) -> bytes:
        packed = self._packed.get(partition)
        if packed is None:
            packed = self._packed[partition] = pack_pairs(self._marks[partition].items())
        return packed

    def _dump(self) -> bytes:
        parts = [
            _HEAD.pack(
                TOKEN_FORMAT,
                self.cluster_id.ljust(16, b"\0"),
                self._partition_bits,
                len(self._entries),
                len(self._marks),
            )
        ]
        for (keyspace, key), entry in self._entries.items():
            fields = (keyspace.encode(), key, entry.context, entry.beside)
            parts += (_ENTRY.pack(*map(len, fields)), *fields)
        for partition in self._marks:
            packed = self._packed_mark(partition)
            parts += (_MARK.pack(partition, len(packed)), packed)
        return b"".join(parts)

    def _resume(self, exported: str) -> None:
        try:
            data = _unpacked(exported, self._bounds.session_token_bytes)
            self._load(data)
        except (ValueError, struct.error, UnicodeError, zlib.error, binascii.Error) as exc:
            raise InvalidRequest("the session token is damaged or of another version") from exc

    def _load(self, data: bytes) -> None:
        version, cluster, bits, entries, marks = _HEAD.unpack_from(data)
        if version != TOKEN_FORMAT or bits > 32:
            raise ValueError(version, bits)
        self.cluster_id, self._partition_bits = (b"" if cluster == bytes(16) else cluster), bits
        fields = _Fields(data, _HEAD.size)
        for _ in range(entries):
            raw_keyspace, key, context, beside = fields.take(_ENTRY)
            keyspace = raw_keyspace.decode()
            partition = partition_of(token(keyspace, key), bits)
            _PAIR.iter_unpack(beside)
            self._entries[keyspace, key] = _Entry(context, partition, beside)
            if len(self._entries) > self._bounds.session_keys:
                self._evict()
        for _ in range(marks):
            partition, packed = fields.take_mark()
            self._raise_mark(partition, _PAIR.iter_unpack(packed))
        fields.end()


class _Fields:
    """A cursor over exported bytes. Raises ValueError where they are cut short."""

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self._at = start

    def take(self, lengths: Struct) -> Iterator[bytes]:
        sizes = lengths.unpack_from(self._data, self._at)
        self._at += lengths.size
        return iter([self._bytes(size) for size in sizes])

    def take_mark(self) -> tuple[int, bytes]:
        partition, size = _MARK.unpack_from(self._data, self._at)
        self._at += _MARK.size
        return partition, self._bytes(size)

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError("bytes left over")

    def _bytes(self, size: int) -> bytes:
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise ValueError("cut short")
        return self._data[start : self._at]


def _unpacked(exported: str, most: int) -> bytes:
    inflate = zlib.decompressobj()
    data = inflate.decompress(base64.urlsafe_b64decode(exported.encode("ascii")), most)
    if not inflate.eof:
        raise ValueError("cut short, or longer than a session may be")
    return data
