"""Exchanges on the wire: what comes out is what went in, and what does not fit is refused."""

from __future__ import annotations

import pytest

from kvnode.core.conversations import (
    Ask,
    AskHashes,
    AskKeys,
    AskRoots,
    RootAnswer,
    RootLine,
    TakeOver,
    Tell,
    TellHashes,
    TellKeys,
    TellRoots,
    Verdict,
)
from kvnode.core.keys import Partition, encode_key
from kvnode.runtime.exchange_codec import (
    BadExchange,
    decode_asks,
    decode_tells,
    encode_asks,
    encode_tells,
    payload,
)
from kvnode.runtime.peer_codec import BadFrame
from kvproto import peer_pb2
from tests.unit.runtime.test_peer_codec import codec, sent

P, Q, TOP = Partition(3), Partition(65_535), (1 << 64) - 1
KEYS = tuple(sorted(encode_key("default", name) for name in (b"a", b"\x00", b"c")))

ASKS: list[Ask] = [
    AskRoots(TOP, (RootLine(P, TOP, 1, is_proven=True), RootLine(Q, 0, TOP, is_proven=False))),
    AskRoots(7, ()),
    AskHashes(1, P, ()),
    AskHashes(2, Q, (0, 31, 5)),
    AskKeys(3, P, b"", b"", 128),
    AskKeys(4, P, KEYS[0], KEYS[1], 1),
    TakeOver(0, P, b"report", is_proven=False),
]
TELLS: list[Tell] = [
    TellRoots(
        9,
        (
            RootAnswer(P, Verdict.SAME, is_proven=True, report=b""),
            RootAnswer(Q, Verdict.DIFFER, is_proven=False, report=b"report"),
        ),
    ),
    TellHashes(1, is_known=True, hashes=(0, TOP, 5)),
    TellHashes(2, is_known=False, hashes=()),
    TellKeys(3, True, KEYS, (1, TOP, 0), is_last=False, covered=KEYS[-1]),
    TellKeys(4, False, (), (), is_last=False, covered=b""),
]


def asks_of(*asks: Ask) -> peer_pb2.ExchangeAsks:
    columns = peer_pb2.ExchangeAsks()
    encode_asks(columns, asks)
    return peer_pb2.ExchangeAsks.FromString(columns.SerializeToString())


def tells_of(*tells: Tell) -> peer_pb2.ExchangeTells:
    columns = peer_pb2.ExchangeTells()
    encode_tells(columns, tells)
    return peer_pb2.ExchangeTells.FromString(columns.SerializeToString())


@pytest.mark.parametrize("ask", ASKS, ids=repr)
def test_an_ask_comes_out_as_it_went_in(ask: Ask) -> None:
    assert decode_asks(asks_of(ask)) == [ask]


@pytest.mark.parametrize("tell", TELLS, ids=repr)
def test_a_tell_comes_out_as_it_went_in(tell: Tell) -> None:
    assert decode_tells(tells_of(tell)) == [tell]


def test_a_frame_carries_all_of_them_from_one_node_to_another() -> None:
    frame = sent(*ASKS, *TELLS)
    asks, tells = codec().asks(2, frame), codec().tells(2, frame)
    assert asks is not None
    assert tells is not None
    assert (asks.sender, tells.sender) == (2, 2)
    assert sorted(asks.asks, key=repr) == sorted(ASKS, key=repr)
    assert sorted(tells.tells, key=repr) == sorted(TELLS, key=repr)


def test_a_frame_without_exchanges_has_none() -> None:
    assert codec().asks(2, sent()) is None
    assert codec().tells(2, sent()) is None


def test_columns_of_different_lengths_are_refused() -> None:
    asks = asks_of(ASKS[0])
    asks.roots[0].floors.append(3)
    with pytest.raises(BadExchange):
        decode_asks(asks)
    tells = tells_of(TELLS[0])
    del tells.roots[0].report[-1]
    with pytest.raises(BadExchange):
        decode_tells(tells)
    tells = tells_of(TELLS[3])
    tells.keys[0].hash.append(3)
    with pytest.raises(BadExchange):
        decode_tells(tells)


def test_a_key_that_is_no_storage_key_is_refused() -> None:
    tells = tells_of(TELLS[3])
    tells.keys[0].key[0] = b"short"
    with pytest.raises(BadExchange):
        decode_tells(tells)


def test_a_verdict_that_there_is_not_is_refused() -> None:
    tells = tells_of(TELLS[0])
    tells.roots[0].verdict[0] = 9
    with pytest.raises(BadExchange):
        decode_tells(tells)


def test_more_than_a_list_may_have_is_refused() -> None:
    columns = peer_pb2.ExchangeTells()
    columns.hashes.add(id=1, known=True, hash=[0] * 65_537)
    with pytest.raises(BadExchange):
        decode_tells(columns)


@pytest.mark.parametrize("message", [*ASKS, *TELLS], ids=repr)
def test_the_payload_is_about_what_it_takes(message: Ask | Tell) -> None:
    frame = sent(message)
    empty = len(sent().SerializeToString())
    assert len(frame.SerializeToString()) - empty <= payload(message) + 64


def test_more_rows_than_a_list_may_have_are_refused() -> None:
    columns = peer_pb2.ExchangeTells()
    columns.keys.add(id=1, known=True, key=[KEYS[0]] * 65_537, hash=[0] * 65_537)
    with pytest.raises(BadExchange):
        decode_tells(columns)


def test_a_frame_whose_exchanges_are_spoilt_is_a_bad_frame() -> None:
    frame = sent(*ASKS, *TELLS)
    frame.exchange_asks.roots[0].floors.append(3)
    frame.exchange_tells.roots[0].verdict[0] = 9
    with pytest.raises(BadFrame, match="asks: "):
        codec().asks(2, frame)
    with pytest.raises(BadFrame, match="tells: "):
        codec().tells(2, frame)
