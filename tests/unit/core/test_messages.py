"""Messages: the numbers of the wire, and the outbox that sorts what may leave at once."""

from __future__ import annotations

from enum import IntEnum

from kvnode.core.messages import (
    ErrorCode,
    Failure,
    Outbox,
    Outcome,
    PutResult,
    ReplicaWriteReply,
    SessionId,
    Status,
    WriteKind,
)
from kvnode.core.record import Encoded
from kvnode.core.resolve import Confidence
from kvproto import kv_pb2, peer_pb2

REPLY = ReplicaWriteReply(1, Status.DONE, Encoded(b""))
OTHER = REPLY._replace(id=2)


def numbers_of(enum: type[IntEnum]) -> dict[str, int]:
    return {member.name: int(member) for member in enum}


def test_peer_messages_have_the_numbers_of_the_wire() -> None:
    assert numbers_of(WriteKind) == dict(peer_pb2.WriteKind.items())
    assert numbers_of(Status) == dict(peer_pb2.ReplyStatus.items())


def test_answers_to_clients_have_the_numbers_of_the_wire() -> None:
    codes = {name: code for name, code in kv_pb2.ErrorCode.items() if code}
    assert numbers_of(ErrorCode) == codes
    assert numbers_of(Confidence) == dict(kv_pb2.Confidence.items())
    assert [int(each) for each in Outcome] == list(kv_pb2.Outcome.values())


def test_an_outbox_keeps_the_order_of_messages_to_one_node() -> None:
    out = Outbox()
    out.send(2, REPLY)
    out.send(3, REPLY)
    out.send(2, OTHER)
    assert out.peers == {2: [REPLY, OTHER], 3: [REPLY]}
    assert out.held_peers == {}


def test_what_waits_for_the_log_is_kept_apart() -> None:
    out = Outbox()
    out.send(2, REPLY, durable=True)
    out.send(2, OTHER, durable=False)
    assert out.held_peers == {2: [REPLY]}
    assert out.peers == {2: [OTHER]}


def test_answers_of_one_session_keep_their_order() -> None:
    out = Outbox()
    done = PutResult(1, b"", (1, 2), 0)
    failed = Failure(2, ErrorCode.TIMEOUT, Outcome.NONE, "late", 0, ())
    out.answer(SessionId(0), done)
    out.answer(SessionId(4), done)
    out.answer(SessionId(0), failed)
    assert out.clients == {0: [done, failed], 4: [done]}


def test_outboxes_share_nothing() -> None:
    Outbox().send(1, REPLY)
    assert Outbox() == Outbox(peers={}, clients={}, held_peers={})
