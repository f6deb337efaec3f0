"""The core's small numbers are those of the wire, by name."""

from __future__ import annotations

import enum

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from kvnode.core.codes import Status, WriteKind
from kvnode.core.conversations import Verdict
from kvproto import peer_pb2


@pytest.mark.parametrize(
    ("codes", "wire"),
    [
        (WriteKind, peer_pb2.WriteKind),
        (Status, peer_pb2.ReplyStatus),
        (Verdict, peer_pb2.Verdict),
    ],
    ids=["kinds of writes", "statuses", "verdicts"],
)
def test_numbers_are_those_of_the_wire(codes: type[enum.IntEnum], wire: EnumTypeWrapper) -> None:
    assert {code.name: code.value for code in codes} == dict(wire.items())
