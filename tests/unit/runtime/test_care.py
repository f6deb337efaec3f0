"""What a node tells operators of its upkeep: hints, how far it is from its peers, repairs."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from kvnode.core.batch import WriteBatch
from kvnode.core.hints import hint_key
from kvnode.core.node import Node
from kvnode.runtime.care import Care
from kvproto import kv_pb2
from tests.unit.core.builders import KEY, WALL_MS, record, version
from tests.unit.runtime.builders import edge, node

STATE = record(version("a1"))


class Aborted(Exception):
    """The call was ended by the handler."""


class Ended:
    """A context of gRPC that keeps how the call was ended."""

    async def abort(self, code: grpc.StatusCode, text: str) -> None:
        raise Aborted(code, text)


def care(served: Node) -> Care:
    return Care(served, edge(served.topology), node_id="n1")


def ask(asked: Care, method: str, request: Any, answer: Any) -> Any:
    return answer.FromString(
        asyncio.run(_call(asked, method, request.SerializeToString()))  # as gRPC would
    )


async def _call(asked: Care, method: str, data: bytes) -> bytes:
    ended: Any = Ended()
    return await asked.unary()[method](data, ended)


def keep(served: Node, owner: int, *, at_ms: int = WALL_MS) -> None:
    """Keep one entry for an owner."""
    hints = served.hints
    hints.begin({hint_key(owner, KEY): None}, frozenset(), WriteBatch(), at_ms)
    hints.keep(owner, KEY, STATE, w=2)


def test_the_ledger_of_each_owner_is_told() -> None:
    served = node()
    keep(served, 3, at_ms=WALL_MS + 5_000)
    keep(served, 2)
    hints = ask(care(served), "GetHints", kv_pb2.GetHintsRequest(), kv_pb2.Hints)
    assert (hints.node, hints.bytes_max) == ("n1", served.limits.hint_bytes)
    two, three = hints.ledgers
    assert (two.owner, two.pending, two.oldest_ms) == ("n2", 1, WALL_MS)
    assert (three.owner, three.pending, three.oldest_ms) == ("n3", 1, WALL_MS + 5_000)
    assert two.bytes == three.bytes > 0


def test_what_became_of_hints_is_told_with_the_reason() -> None:
    served = node()
    for request, end in ((1, "on_delivered"), (2, "give_up")):
        keep(served, 2)
        served.hints.note_sent(hint_key(2, KEY), request)
        getattr(served.hints, end)(hint_key(2, KEY), request)
    (ledger,) = care(served).hints().ledgers
    assert (ledger.pending, ledger.bytes, ledger.oldest_ms, ledger.delivered) == (0, 0, 0, 1)
    assert [(each.why, each.count) for each in ledger.dropped] == [("aged", 1)]


def test_figures_add_up_over_owners() -> None:
    served = node()
    keep(served, 2)
    keep(served, 3)
    shown = {name: value for _, name, _, value in care(served).figures()}
    assert shown["hints_pending"] == 2
    assert shown["hints_bytes"] == 2 * served.hints.ledgers[2].bytes
    assert shown["hints_delivered"] == shown["hints_dropped"] == shown["hints_refused"] == 0


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(Aborted) as ended:
        asyncio.run(_call(care(node()), "GetHints", b"\xff"))
    code, text = ended.value.args
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "kvnode.v1.GetHintsRequest" in text
