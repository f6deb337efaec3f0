"""Frames between nodes: messages of the core to columns and back.

Protobuf objects stop here. Deadlines travel as what is left of them, so that no two clocks are
compared. Law: what is decoded is what was encoded, but for the time that passed.
Tests: tests/unit/runtime/test_peer_codec.py. Source: design, sections 3 (Wire) and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from kvnode.core.bounds import FRAME_OPERATIONS_MAX
from kvnode.core.context import ForgedContext, open_watermark
from kvnode.core.conversations import (
    ASKS,
    SETTLE_ASKS,
    SETTLE_TELLS,
    TELLS,
    PeerAsks,
    PeerTells,
)
from kvnode.core.keys import is_storage_key
from kvnode.core.messages import (
    ClientPut,
    Failure,
    Instant,
    PeerMessage,
    PeerReplies,
    PeerRequests,
    PutResult,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Status,
    WriteKind,
)
from kvnode.runtime.client_codec import fill_put_results
from kvnode.runtime.edge import Edge, Refused, decode_failure, encode_failure, unpack_nodes
from kvnode.runtime.exchange_codec import (
    BadExchange,
    decode_asks,
    decode_tells,
    encode_asks,
    encode_tells,
)
from kvnode.runtime.settle_codec import (
    BadSettling,
    decode_settle_asks,
    decode_settle_tells,
    encode_settle_asks,
    encode_settle_tells,
)
from kvproto import kv_pb2, peer_pb2

FORMAT = 1
_STATUSES = tuple(Status)
_KINDS = tuple(WriteKind)


class BadFrame(Exception):
    """These bytes are no frame of a peer."""


class Header(NamedTuple):
    """What every frame says of its sender."""

    cluster: bytes
    epoch: int
    hlc: int


class PeerCodec:
    """Encodes and decodes for one node."""

    def __init__(self, edge: Edge, now_us: Callable[[], Instant]) -> None:
        self._edge = edge
        self._now_us = now_us

    def encode(self, frame: peer_pb2.PeerFrame, messages: Iterable[PeerMessage]) -> bytes:
        """Return the bytes of a frame, begun by `new_frame`, with all the messages."""
        by_type: dict[type, list[Any]] = {}
        for message in messages:
            by_type.setdefault(type(message), []).append(message)
        for kind, group in by_type.items():
            self._fill(frame, kind, group)
        return frame.SerializeToString()

    def requests(
        self, sender: int, frame: peer_pb2.PeerFrame
    ) -> tuple[PeerRequests, list[Failure]]:
        """Return the frame's requests, and a failure for each forwarded write that is refused
        here: this node's limits may be others than the sender's.

        Raises:
            BadFrame: columns that do not fit one another, or too many operations.
        """
        now = self._now_us()
        forwards, failures = self._decode_forwards(frame)
        return (
            PeerRequests(
                sender,
                _decode_writes(frame.writes, now) if frame.HasField("writes") else (),
                _decode_reads(frame.reads, now) if frame.HasField("reads") else (),
                forwards,
            ),
            failures,
        )

    def replies(self, sender: int, frame: peer_pb2.PeerFrame) -> PeerReplies:
        """Return the frame's replies.

        Raises:
            BadFrame: columns that do not fit one another.
        """
        forwards: list[PutResult | Failure] = []
        if frame.HasField("forward_results"):
            forwards += _decode_results(frame.forward_results)
        forwards += [decode_failure(failure, self._edge) for failure in frame.forward_failures]
        return PeerReplies(
            sender,
            _decode_write_replies(frame.write_replies) if frame.HasField("write_replies") else (),
            _decode_read_replies(frame.read_replies) if frame.HasField("read_replies") else (),
            forwards,
        )

    def asks(self, sender: int, frame: peer_pb2.PeerFrame) -> PeerAsks | None:
        """Return what the frame asks in the background, if anything. Raises: BadFrame."""
        if not (frame.HasField("exchange_asks") or frame.HasField("settle_asks")):
            return None
        try:
            settling = decode_settle_asks(frame.settle_asks)
            return PeerAsks(sender, [*decode_asks(frame.exchange_asks), *settling])
        except (BadExchange, BadSettling) as exc:
            raise BadFrame(f"asks: {exc}") from exc

    def tells(self, sender: int, frame: peer_pb2.PeerFrame) -> PeerTells | None:
        """Return the frame's answers to these, if it has any. Raises: BadFrame."""
        if not (frame.HasField("exchange_tells") or frame.HasField("settle_tells")):
            return None
        try:
            settling = decode_settle_tells(frame.settle_tells)
            return PeerTells(sender, [*decode_tells(frame.exchange_tells), *settling])
        except (BadExchange, BadSettling) as exc:
            raise BadFrame(f"tells: {exc}") from exc

    def _fill(self, frame: peer_pb2.PeerFrame, kind: type, group: list[Any]) -> None:
        if kind is ReplicaWrite:
            _encode_writes(frame.writes, group, self._now_us())
        elif kind is ReplicaWriteReply:
            _encode_write_replies(frame.write_replies, group)
        elif kind is ReplicaRead:
            _encode_reads(frame.reads, group, self._now_us())
        elif kind is ReplicaReadReply:
            _encode_read_replies(frame.read_replies, group)
        elif kind is ClientPut:
            self._edge.encode_puts(frame.forwards, group)
        elif kind is PutResult:
            fill_put_results(frame.forward_results, group)
        elif kind in ASKS:
            encode_asks(frame.exchange_asks, group)
        elif kind in TELLS:
            encode_tells(frame.exchange_tells, group)
        elif kind in SETTLE_ASKS:
            encode_settle_asks(frame.settle_asks, group)
        elif kind in SETTLE_TELLS:
            encode_settle_tells(frame.settle_tells, group)
        else:
            assert kind is Failure, kind
            frame.forward_failures.extend(encode_failure(one, self._edge) for one in group)

    def _decode_forwards(
        self, frame: peer_pb2.PeerFrame
    ) -> tuple[Sequence[ClientPut], list[Failure]]:
        if not frame.HasField("forwards"):
            return (), []
        forwards = frame.forwards
        try:
            return self._edge.decode_puts(forwards.puts, list(forwards.keyspaces))
        except Refused as exc:
            raise BadFrame(f"forwards: {exc}") from exc


def new_frame(header: Header) -> peer_pb2.PeerFrame:
    """Return a frame with nothing in it yet."""
    return peer_pb2.PeerFrame(
        format=FORMAT, cluster=header.cluster, epoch=header.epoch, hlc=header.hlc
    )


def parse_frame(data: bytes) -> peer_pb2.PeerFrame:
    """Return the frame of these bytes.

    Raises:
        BadFrame: they are none, or of an unknown format.
    """
    try:
        frame = peer_pb2.PeerFrame.FromString(data)
    except DecodeError as exc:
        raise BadFrame("not a peer frame") from exc
    if frame.format != FORMAT:
        raise BadFrame(f"peer frame format {frame.format} is not known here (this is {FORMAT})")
    return frame


def _encode_writes(columns: peer_pb2.ReplicaWrites, group: list[Any], now: Instant) -> None:
    ids, keys, records, deadlines, kinds, versions, owners = zip(*group, strict=True)
    columns.id.extend(ids)
    columns.key.extend(keys)
    columns.record.extend(records)
    columns.timeout_ms.extend([max(0, (at - now) // 1_000) for at in deadlines])
    if any(kinds):
        columns.kind.extend(kinds)
    if any(versions):
        columns.version.extend(versions)
    if any(owners):
        columns.stand_in_for.extend(owners)


def _decode_writes(columns: peer_pb2.ReplicaWrites, now: Instant) -> list[ReplicaWrite]:
    count = _count(columns.id)
    return list(
        map(
            ReplicaWrite,
            columns.id,
            _keys(columns.key, count),
            _full(columns.record, count),
            [now + 1_000 * left for left in _full(columns.timeout_ms, count)],
            [_one_of(_KINDS, kind) for kind in _column(columns.kind, count, 0)],
            _column(columns.version, count, 0),
            _column(columns.stand_in_for, count, 0),
        )
    )


def _encode_write_replies(columns: peer_pb2.ReplicaWriteReplies, group: list[Any]) -> None:
    ids, statuses, records = zip(*group, strict=True)
    columns.id.extend(ids)
    if any(statuses):
        columns.status.extend(statuses)
    if any(records):
        columns.record.extend(records)


def _decode_write_replies(columns: peer_pb2.ReplicaWriteReplies) -> list[ReplicaWriteReply]:
    count = _count(columns.id)
    return list(
        map(
            ReplicaWriteReply,
            columns.id,
            _statuses(columns.status, count),
            _column(columns.record, count, b""),
        )
    )


def _encode_reads(columns: peer_pb2.ReplicaReads, group: list[Any], now: Instant) -> None:
    ids, keys, deadlines, watermarks, are_stand_ins = zip(*group, strict=True)
    columns.id.extend(ids)
    columns.key.extend(keys)
    columns.timeout_ms.extend([max(0, (at - now) // 1_000) for at in deadlines])
    if any(watermarks):
        columns.watermark.extend(watermarks)
    if any(are_stand_ins):
        columns.stand_in.extend(map(int, are_stand_ins))


def _decode_reads(columns: peer_pb2.ReplicaReads, now: Instant) -> list[ReplicaRead]:
    count = _count(columns.id)
    return list(
        map(
            ReplicaRead,
            columns.id,
            _keys(columns.key, count),
            [now + 1_000 * left for left in _full(columns.timeout_ms, count)],
            _watermarks(columns.watermark, count),
            map(bool, _column(columns.stand_in, count, 0)),
        )
    )


def _encode_read_replies(columns: peer_pb2.ReplicaReadReplies, group: list[Any]) -> None:
    ids, statuses, records, covers = zip(*group, strict=True)
    columns.id.extend(ids)
    columns.record.extend(records)
    if any(statuses):
        columns.status.extend(statuses)
    if any(covers):
        columns.covers.extend(map(int, covers))


def _decode_read_replies(columns: peer_pb2.ReplicaReadReplies) -> list[ReplicaReadReply]:
    count = _count(columns.id)
    return list(
        map(
            ReplicaReadReply,
            columns.id,
            _statuses(columns.status, count),
            _full(columns.record, count),
            map(bool, _column(columns.covers, count, 0)),
        )
    )


def _decode_results(columns: kv_pb2.PutResults) -> list[PutResult]:
    count = _count(columns.id)
    acked = map(unpack_nodes, _full(columns.acked, count))
    newer = _column(columns.newer, count, 0)
    return list(map(PutResult, columns.id, _full(columns.context, count), acked, newer))


def _count(ids: Sequence[int]) -> int:
    count = len(ids)
    if count > FRAME_OPERATIONS_MAX:
        raise BadFrame(f"a frame must have at most {FRAME_OPERATIONS_MAX:,} operations")
    return count


def _full(column: Sequence[Any], count: int) -> Sequence[Any]:
    if len(column) != count:
        raise BadFrame(f"a column of {len(column)} in a frame of {count} operations")
    return column


def _column(column: Sequence[Any], count: int, default: Any) -> Sequence[Any]:
    return _full(column, count) if column else [default] * count


def _keys(column: Sequence[Any], count: int) -> Sequence[Any]:
    if not all(map(is_storage_key, column)):
        raise BadFrame("a key that is no storage key")
    return _full(column, count)


def _watermarks(column: Sequence[bytes], count: int) -> Sequence[bytes]:
    try:
        for watermark in column:
            open_watermark(watermark)
    except ForgedContext as exc:
        raise BadFrame(str(exc)) from exc
    return _column(column, count, b"")


def _statuses(column: Sequence[int], count: int) -> Sequence[Status]:
    return [_one_of(_STATUSES, status) for status in _column(column, count, 0)]


def _one_of(known: Sequence[Any], number: int) -> Any:
    if not 0 <= number < len(known):
        raise BadFrame(f"{number} is none of {', '.join(one.name for one in known)}")
    return known[number]
