"""Frames between nodes: decoding inverts encoding, and what is no frame is refused as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvnode.core.bounds import FRAME_OPERATIONS_MAX
from kvnode.core.messages import (
    ErrorCode,
    Failure,
    Instant,
    Outcome,
    PeerMessage,
    PutResult,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Status,
    WriteKind,
)
from kvnode.core.record import Encoded
from kvnode.runtime.peer_codec import BadFrame, Header, PeerCodec, new_frame, parse_frame
from kvproto import peer_pb2
from tests.unit.core.builders import KEY, NOW, at, context, put
from tests.unit.runtime.builders import edge

HEADER = Header(b"c" * 16, 3, 99)


def codec(now: Instant = NOW) -> PeerCodec:
    return PeerCodec(edge(now=now), lambda: now)


def sent(*messages: PeerMessage, now: Instant = NOW) -> peer_pb2.PeerFrame:
    return parse_frame(codec(now).encode(new_frame(HEADER), messages))


def write(number: int = 1, **changes: Any) -> ReplicaWrite:
    message = ReplicaWrite(number, KEY, Encoded(b"r%d" % number), at(0), WriteKind.WRITE, 0)
    return message._replace(**changes)


def read(number: int = 1, **changes: Any) -> ReplicaRead:
    return ReplicaRead(number, KEY, at(0), b"")._replace(**changes)


def test_a_frame_says_who_sends_it() -> None:
    frame = sent()
    assert (frame.format, frame.cluster, frame.epoch, frame.hlc) == (1, b"c" * 16, 3, 99)


def test_requests_come_out_as_they_went_in() -> None:
    writes = [write(), write(0, kind=WriteKind.REPAIR), write(7, version=3, deadline_us=at(5_000))]
    reads = [read(4), read(5, watermark=bytes(16))]
    forwards = [put("one"), put("two", seen=context("a2"), is_explicit=True)]
    found, failures = codec().requests(2, sent(*writes, *reads, *forwards))
    assert failures == []
    assert found.sender == 2
    assert (found.writes, found.reads, found.forwards) == (writes, reads, forwards)


def test_replies_come_out_as_they_went_in() -> None:
    writes = [
        ReplicaWriteReply(1, Status.DONE, Encoded(b"")),
        ReplicaWriteReply(2, Status.REFUSED_FULL, Encoded(b"state")),
    ]
    reads = [
        ReplicaReadReply(3, Status.DONE, Encoded(b"r"), False),
        ReplicaReadReply(4, Status.UNPROVEN, Encoded(b""), True),
    ]
    forwards: list[PutResult | Failure] = [
        PutResult(5, b"context", (1, 2), 0),
        PutResult(6, b"", (), 77),
        Failure(7, ErrorCode.UNAVAILABLE, Outcome.NOT_APPLIED, "alone", 0, ()),
    ]
    found = codec().replies(3, sent(*writes, *reads, *forwards))
    assert (found.sender, found.writes, found.reads) == (3, writes, reads)
    assert found.forwards == forwards


def test_whom_a_write_is_kept_for_and_which_reads_are_of_hints_come_out_as_they_went_in() -> None:
    writes = [write(1), write(2, stand_in_for=3), write(3, stand_in_for=1, kind=WriteKind.HANDOFF)]
    reads = [read(4, is_stand_in=True), read(5)]
    found, failures = codec().requests(2, sent(*writes, *reads))
    assert (found.writes, found.reads, failures) == (writes, reads, [])
    assert [one.is_stand_in for one in found.reads] == [True, False]


def test_a_frame_without_stand_ins_spends_no_bytes_on_them() -> None:
    frame = sent(write(), read())
    assert (len(frame.writes.stand_in_for), len(frame.reads.stand_in)) == (0, 0)


@pytest.mark.parametrize(
    "reply",
    [
        ReplicaReadReply(1, Status.DONE, Encoded(b""), False),
        ReplicaWriteReply(1, Status.DONE, Encoded(b"")),
    ],
    ids=["read", "write"],
)
def test_the_commonest_reply_comes_out_as_it_went_in(reply: PeerMessage) -> None:
    found = codec().replies(1, sent(reply))
    assert [*found.reads, *found.writes] == [reply]


def test_an_empty_frame_holds_nothing() -> None:
    requests, failures = codec().requests(1, sent())
    assert (requests.writes, requests.reads, requests.forwards, failures) == ((), (), (), [])
    replies = codec().replies(1, sent())
    assert (replies.writes, replies.reads, replies.forwards) == ((), (), [])


def test_deadlines_travel_as_what_is_left_of_them() -> None:
    frame = sent(write(deadline_us=at(9_000)), read(deadline_us=at(7_000)), now=at(2_000))
    found, _ = codec(Instant(50)).requests(1, frame)
    assert [one.deadline_us for one in found.writes] == [50 + 7_000]
    assert [one.deadline_us for one in found.reads] == [50 + 5_000]


def test_a_deadline_that_has_passed_leaves_nothing_and_is_not_refused() -> None:
    found, _ = codec(Instant(50)).requests(1, sent(write(), read(), now=at(9_000)))
    assert found.writes[0].deadline_us == found.reads[0].deadline_us == 50


def test_a_forwarded_write_that_is_wrong_here_is_refused_alone() -> None:
    frame = sent(put("good", id=1), put("large", b"v" * 100, id=2))
    strict = PeerCodec(edge(value_bytes=10), lambda: NOW)
    found, (failure,) = strict.requests(1, frame)
    assert [one.id for one in found.forwards] == [1]
    assert (failure.id, failure.outcome) == (2, Outcome.NOT_APPLIED)
    assert failure.message == "value must be at most 10 bytes, got 100"


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05ab", b"garbage"])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrame, match="not a peer frame"):
        parse_frame(data)


@pytest.mark.parametrize("data", [b"", peer_pb2.PeerFrame(format=2).SerializeToString()])
def test_another_format_is_refused_by_its_number(data: bytes) -> None:
    with pytest.raises(BadFrame, match=r"peer frame format [02] is not known here \(this is 1\)"):
        parse_frame(data)


def lose_record(frame: peer_pb2.PeerFrame) -> None:
    del frame.writes.record[:]


def add_kind(frame: peer_pb2.PeerFrame) -> None:
    frame.writes.kind.append(9)


def add_version(frame: peer_pb2.PeerFrame) -> None:
    frame.writes.version.extend([0, 0])


def lose_timeout(frame: peer_pb2.PeerFrame) -> None:
    del frame.reads.timeout_ms[:]


def break_key(frame: peer_pb2.PeerFrame) -> None:
    frame.reads.key[0] = b"short"


def break_watermark(frame: peer_pb2.PeerFrame) -> None:
    frame.reads.watermark.append(b"odd")


def overfill(frame: peer_pb2.PeerFrame) -> None:
    frame.writes.id.extend(range(FRAME_OPERATIONS_MAX))


def add_owner(frame: peer_pb2.PeerFrame) -> None:
    frame.writes.stand_in_for.extend([2, 3])


def add_stand_in(frame: peer_pb2.PeerFrame) -> None:
    frame.reads.stand_in.extend([1, 0])


def break_forwards(frame: peer_pb2.PeerFrame) -> None:
    frame.forwards.puts.id.append(8)


@pytest.mark.parametrize(
    "spoil",
    [
        lose_record, add_kind, add_version, lose_timeout, break_key, break_watermark, overfill,
        break_forwards, add_owner, add_stand_in,
    ],
    ids=lambda spoil: spoil.__name__,
)  # fmt: skip
def test_requests_that_make_no_sense_are_a_bad_frame(
    spoil: Callable[[peer_pb2.PeerFrame], None],
) -> None:
    frame = sent(write(), read(), put("one"))
    spoil(frame)
    with pytest.raises(BadFrame):
        codec().requests(1, frame)


def add_status(frame: peer_pb2.PeerFrame) -> None:
    frame.write_replies.status.append(77)


def lose_reply_record(frame: peer_pb2.PeerFrame) -> None:
    del frame.read_replies.record[:]


def lose_acked(frame: peer_pb2.PeerFrame) -> None:
    del frame.forward_results.acked[:]


@pytest.mark.parametrize(
    "spoil", [add_status, lose_reply_record, lose_acked], ids=lambda spoil: spoil.__name__
)
def test_replies_that_make_no_sense_are_a_bad_frame(
    spoil: Callable[[peer_pb2.PeerFrame], None],
) -> None:
    frame = sent(
        ReplicaWriteReply(1, Status.DONE, Encoded(b"")),
        ReplicaReadReply(2, Status.DONE, Encoded(b"r"), False),
        PutResult(3, b"", (1,), 0),
    )
    spoil(frame)
    with pytest.raises(BadFrame):
        codec().replies(1, frame)
