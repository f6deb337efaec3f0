"""What owners say to one another in exchanges: messages of the core to columns and back.

Each kind of message has rows of its own, which protobuf lists in order; columns stand within a row.
Columns that do not fit one another, and what exceeds what one may ask, are no message of a peer.
Tests: tests/unit/runtime/test_exchange_codec.py. Source: design, section 3 (Wire).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, assert_never

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
from kvnode.core.keys import Partition, StorageKey, is_storage_key
from kvproto import peer_pb2

ItemT = TypeVar("ItemT")
_VERDICTS = tuple(Verdict)
_LIST_MAX = 65_536
"""Entries of one list in one frame."""


class BadExchange(Exception):
    """These columns are no asks or tells of a peer."""


def encode_asks(columns: peer_pb2.ExchangeAsks, asks: Sequence[Ask]) -> None:
    """Put asks into a frame."""
    for ask in asks:
        match ask:
            case AskRoots(number, lines):
                columns.roots.add(
                    id=number,
                    partition=[line.partition for line in lines],
                    root=[line.root for line in lines],
                    floors=[line.digest for line in lines],
                    proven=[line.is_proven for line in lines],
                )
            case AskHashes(number, partition, groups):
                columns.hashes.add(id=number, partition=partition, group=groups)
            case AskKeys(number, partition, start, end, limit):
                columns.keys.add(id=number, partition=partition, start=start, end=end, limit=limit)
            case TakeOver(number, partition, report, is_proven):
                columns.take_over.add(
                    id=number, partition=partition, report=report, proven=is_proven
                )
            case _:
                assert_never(ask)


def decode_asks(columns: peer_pb2.ExchangeAsks) -> list[Ask]:
    """Return the asks of a frame.

    Raises:
        BadExchange: columns that do not fit one another.
    """
    asks: list[Ask] = []
    for roots in columns.roots:
        rows = _rows(roots.partition, roots.root, roots.floors, roots.proven)
        lines = tuple(RootLine(Partition(p), root, floors, ok) for p, root, floors, ok in rows)
        asks.append(AskRoots(roots.id, lines))
    asks += [AskHashes(h.id, Partition(h.partition), _bounded(h.group)) for h in columns.hashes]
    asks += [AskKeys(k.id, Partition(k.partition), k.start, k.end, k.limit) for k in columns.keys]
    asks += [TakeOver(o.id, Partition(o.partition), o.report, o.proven) for o in columns.take_over]
    return asks


def encode_tells(columns: peer_pb2.ExchangeTells, tells: Sequence[Tell]) -> None:
    """Put tells into a frame."""
    for tell in tells:
        match tell:
            case TellRoots(number, answers):
                columns.roots.add(
                    id=number,
                    partition=[answer.partition for answer in answers],
                    verdict=[answer.verdict for answer in answers],
                    proven=[answer.is_proven for answer in answers],
                    report=[answer.report for answer in answers],
                )
            case TellHashes(number, is_known, hashes):
                columns.hashes.add(id=number, known=is_known, hash=hashes)
            case TellKeys():
                columns.keys.add(
                    id=tell.id,
                    known=tell.is_known,
                    key=tell.keys,
                    hash=tell.hashes,
                    last=tell.is_last,
                    covered=tell.covered,
                )
            case _:
                assert_never(tell)


def decode_tells(columns: peer_pb2.ExchangeTells) -> list[Tell]:
    """Return the tells of a frame.

    Raises:
        BadExchange: columns that do not fit one another, or say what there is not.
    """
    tells: list[Tell] = []
    for roots in columns.roots:
        rows = _rows(roots.partition, roots.verdict, roots.proven, roots.report)
        answers = tuple(
            RootAnswer(Partition(p), _verdict(verdict), ok, report)
            for p, verdict, ok, report in rows
        )
        tells.append(TellRoots(roots.id, answers))
    tells += [TellHashes(each.id, each.known, _bounded(each.hash)) for each in columns.hashes]
    for keys in columns.keys:
        pairs = _rows(keys.key, keys.hash)
        if not all(is_storage_key(key) for key, _ in pairs):
            raise BadExchange("a key that is no storage key")
        listed = tuple(StorageKey(key) for key, _ in pairs)
        hashes_of = tuple(number for _, number in pairs)
        tells.append(TellKeys(keys.id, keys.known, listed, hashes_of, keys.last, keys.covered))
    return tells


def payload(message: Ask | Tell) -> int:
    """Return about how many bytes a message takes in a frame."""
    match message:
        case AskRoots(_, lines):
            return 24 * len(lines)
        case TellRoots(_, answers):
            return sum(16 + len(answer.report) for answer in answers)
        case TakeOver():
            return len(message.report)
        case TellHashes():
            return 8 * len(message.hashes)
        case TellKeys():
            return sum(map(len, message.keys)) + 8 * len(message.hashes)
        case AskHashes() | AskKeys():
            return 64
        case _:
            assert_never(message)


def _rows(*columns: Sequence[Any]) -> list[tuple[Any, ...]]:
    try:
        rows = list(zip(*columns, strict=True))
    except ValueError as exc:
        raise BadExchange("columns of different lengths") from exc
    if len(rows) > _LIST_MAX:
        raise BadExchange(f"more than {_LIST_MAX:,} entries")
    return rows


def _bounded(column: Sequence[ItemT]) -> tuple[ItemT, ...]:
    if len(column) > _LIST_MAX:
        raise BadExchange(f"more than {_LIST_MAX:,} entries")
    return tuple(column)


def _verdict(number: int) -> Verdict:
    if not 0 <= number < len(_VERDICTS):
        raise BadExchange(f"{number} is none of {', '.join(one.name for one in _VERDICTS)}")
    return _VERDICTS[number]
