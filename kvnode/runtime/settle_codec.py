"""What owners say to one another in settling: messages of the core to the wire and back.

Each kind of message has rows of its own, which protobuf lists in order.
Law: what is decoded is what was encoded. Tests: tests/unit/runtime/test_settle_codec.py.
Source: design, section 3 (Wire).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import assert_never

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
from kvnode.core.keys import StorageKey, is_storage_key
from kvnode.core.versions import Dot
from kvproto import peer_pb2

_RULE_MAX = 1_000


class BadSettling(Exception):
    """These rows are nothing that a peer may ask or tell."""


def encode_settle_asks(rows: peer_pb2.SettleAsks, asks: Sequence[SettleAsk]) -> None:
    """Put asks into a frame."""
    for ask in asks:
        match ask:
            case AskState(number, key, epoch, digest):
                rows.states.add(id=number, key=key, epoch=epoch, digest=digest)
            case LogLosers():
                rows.logs.add(
                    id=ask.id,
                    key=ask.key,
                    fence=_fence(ask.fence),
                    time_ms=ask.time_ms,
                    winner=_dots((ask.winner,)),
                    losers=_dots(ask.losers),
                    rule=ask.rule,
                )
            case Prune(number, key, fence, losers):
                rows.prunes.add(id=number, key=key, fence=_fence(fence), losers=_dots(losers))
            case _:
                assert_never(ask)


def decode_settle_asks(rows: peer_pb2.SettleAsks) -> list[SettleAsk]:
    """Return the asks of a frame.

    Raises:
        BadSettling: keys, dots or rules that cannot be.
    """
    asks: list[SettleAsk] = [
        AskState(row.id, _key(row.key), row.epoch, row.digest) for row in rows.states
    ]
    asks += [_decode_log(row) for row in rows.logs]
    asks += [
        Prune(row.id, _key(row.key), _decode_fence(row.fence), _decode_dots(row.losers))
        for row in rows.prunes
    ]
    return asks


def encode_settle_tells(rows: peer_pb2.SettleTells, tells: Sequence[SettleTell]) -> None:
    """Put tells into a frame."""
    for tell in tells:
        match tell:
            case TellState():
                rows.states.add(
                    id=tell.id,
                    known=tell.is_known,
                    incarnation=tell.actor,
                    same=tell.is_same,
                    record=tell.record,
                )
            case TellLogged(number, is_done):
                rows.logged.add(id=number, done=is_done)
            case TellPruned(number, is_done):
                rows.pruned.add(id=number, done=is_done)
            case _:
                assert_never(tell)


def decode_settle_tells(rows: peer_pb2.SettleTells) -> list[SettleTell]:
    """Return the tells of a frame."""
    tells: list[SettleTell] = [
        TellState(row.id, row.known, row.incarnation, row.same, row.record) for row in rows.states
    ]
    tells += [TellLogged(row.id, row.done) for row in rows.logged]
    tells += [TellPruned(row.id, row.done) for row in rows.pruned]
    return tells


def payload(message: SettleAsk | SettleTell) -> int:
    """Return about how many bytes a message takes in a frame."""
    match message:
        case AskState():
            return len(message.key)
        case LogLosers() | Prune():
            return len(message.key) + 32 + 16 * len(message.losers)
        case TellState():
            return len(message.record)
        case TellLogged() | TellPruned():
            return 0
        case _:
            assert_never(message)


def _decode_log(row: peer_pb2.LogLosers) -> LogLosers:
    winner = _decode_dots(row.winner)
    if len(winner) != 1 or len(row.rule) > _RULE_MAX:
        raise BadSettling("not one winner, or a rule that is too long")
    return LogLosers(
        row.id,
        _key(row.key),
        _decode_fence(row.fence),
        row.time_ms,
        winner[0],
        _decode_dots(row.losers),
        row.rule,
    )


def _key(data: bytes) -> StorageKey:
    if not is_storage_key(data):
        raise BadSettling("a key that is no storage key")
    return StorageKey(data)


def _fence(fence: Fence) -> peer_pb2.Fence:
    return peer_pb2.Fence(epoch=fence.epoch, incarnation=fence.actor, digest=fence.digest)


def _decode_fence(fence: peer_pb2.Fence) -> Fence:
    return Fence(fence.epoch, fence.incarnation, fence.digest)


def _dots(dots: Iterable[Dot]) -> peer_pb2.Dots:
    pairs = list(dots)
    return peer_pb2.Dots(actor=[dot.actor for dot in pairs], counter=[dot.counter for dot in pairs])


def _decode_dots(dots: peer_pb2.Dots) -> tuple[Dot, ...]:
    if len(dots.actor) != len(dots.counter) or len(dots.actor) > SIBLINGS_MAX:
        raise BadSettling(f"{len(dots.actor)} actors and {len(dots.counter)} counters")
    return tuple(map(Dot, dots.actor, dots.counter))
