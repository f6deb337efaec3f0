"""Settling on the wire: what is decoded is what was encoded, and what cannot be is refused."""

from __future__ import annotations

import pytest

from kvnode.core.bounds import SIBLINGS_MAX
from kvnode.core.conversations import (
    AskState,
    Fence,
    LogLosers,
    Prune,
    SettleAsk,
    SettleTell,
    TellLogged,
    TellPruned,
    TellState,
)
from kvnode.core.keys import encode_key
from kvnode.core.versions import Dot
from kvnode.runtime.link import payload
from kvnode.runtime.peer_codec import BadFrame
from kvnode.runtime.settle_codec import (
    BadSettling,
    decode_settle_asks,
    decode_settle_tells,
    encode_settle_asks,
    encode_settle_tells,
)
from kvproto import peer_pb2
from tests.unit.runtime.test_peer_codec import codec, sent

TOP = (1 << 64) - 1
KEY = encode_key("default", b"\x00k")
FENCE = Fence(TOP, TOP, b"d" * 16)
ASKS: list[SettleAsk] = [
    AskState(TOP, KEY, 3, b""),
    AskState(1, KEY, 3, b"d" * 16),
    LogLosers(2, KEY, FENCE, TOP, Dot(TOP, 1), (Dot(1, TOP), Dot(2, 1)), "most votes: 2 to 1"),
    Prune(3, KEY, Fence(0, 0, b""), (Dot(1, 1),)),
]
TELLS: list[SettleTell] = [
    TellState(1, is_known=True, actor=TOP, is_same=False, record=b"record"),
    TellState(2, is_known=True, actor=1, is_same=True, record=b""),
    TellState(3, is_known=False, actor=0, is_same=False, record=b""),
    TellLogged(4, is_done=True),
    TellPruned(5, is_done=False),
]


def test_asks_come_back_as_they_were() -> None:
    rows = peer_pb2.SettleAsks()
    encode_settle_asks(rows, ASKS)
    assert decode_settle_asks(peer_pb2.SettleAsks.FromString(rows.SerializeToString())) == ASKS


def test_tells_come_back_as_they_were() -> None:
    rows = peer_pb2.SettleTells()
    encode_settle_tells(rows, TELLS)
    assert decode_settle_tells(peer_pb2.SettleTells.FromString(rows.SerializeToString())) == TELLS


def test_they_travel_in_the_frames_of_peers() -> None:
    asks = codec().asks(2, sent(*ASKS))
    assert asks is not None
    assert asks.asks == ASKS
    tells = codec().tells(2, sent(*TELLS))
    assert tells is not None
    assert tells.tells == TELLS
    assert codec().asks(2, sent(*TELLS)) is None


@pytest.mark.parametrize(
    "broken",
    [
        peer_pb2.SettleAsks(states=[peer_pb2.AskState(key=b"?")]),
        peer_pb2.SettleAsks(prunes=[peer_pb2.Prune(key=b"?")]),
        peer_pb2.SettleAsks(
            prunes=[peer_pb2.Prune(key=KEY, losers=peer_pb2.Dots(actor=[1], counter=[]))]
        ),
        peer_pb2.SettleAsks(
            prunes=[
                peer_pb2.Prune(
                    key=KEY,
                    losers=peer_pb2.Dots(
                        actor=range(SIBLINGS_MAX + 1), counter=range(SIBLINGS_MAX + 1)
                    ),
                )
            ]
        ),
        peer_pb2.SettleAsks(logs=[peer_pb2.LogLosers(key=KEY)]),
        peer_pb2.SettleAsks(
            logs=[
                peer_pb2.LogLosers(
                    key=KEY, winner=peer_pb2.Dots(actor=[1], counter=[1]), rule="x" * 1_001
                )
            ]
        ),
    ],
    ids=["key", "key of a prune", "columns", "too many", "no winner", "rule"],
)
def test_what_cannot_be_is_refused(broken: peer_pb2.SettleAsks) -> None:
    with pytest.raises(BadSettling):
        decode_settle_asks(broken)
    with pytest.raises(BadFrame):
        codec().asks(2, peer_pb2.PeerFrame(settle_asks=broken))


def test_a_large_record_counts_with_its_bytes() -> None:
    large = TELLS[0]._replace(record=b"x" * 100_000)  # type: ignore[call-arg]
    assert payload(large) > 100_000
    assert all(payload(message) < 1_000 for message in (*ASKS, *TELLS))
