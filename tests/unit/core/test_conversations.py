"""What owners ask each other: every ask that may be refused has an answer that says so."""

from __future__ import annotations

import pytest

from kvnode.core.conversations import (
    Ask,
    AskHashes,
    AskKeys,
    AskRoots,
    AskState,
    Fence,
    LogLosers,
    Prune,
    SettleAsk,
    TakeOver,
    TellHashes,
    TellKeys,
    TellLogged,
    TellPruned,
    TellRoots,
    TellState,
    refuse,
)
from kvnode.core.keys import Partition
from tests.unit.core.builders import KEY, WALL_MS, dot, dots

P = Partition(3)
FENCE = Fence(1, 2, b"")
REFUSED: list[tuple[Ask | SettleAsk, object]] = [
    (AskRoots(7, ()), TellRoots(7, ())),
    (AskHashes(7, P, (1,)), TellHashes(7, False, ())),
    (AskKeys(7, P, b"a", b"b", 9), TellKeys(7, False, (), (), False, b"")),
    (AskState(7, KEY, 1, b""), TellState(7, False, 0, False, b"")),
    (LogLosers(7, KEY, FENCE, WALL_MS, dot("a1"), dots("b1"), "rule"), TellLogged(7, False)),
    (Prune(7, KEY, FENCE, dots("b1")), TellPruned(7, False)),
]


@pytest.mark.parametrize(("ask", "tell"), REFUSED, ids=lambda each: type(each).__name__)
def test_a_refusal_answers_under_the_id_of_the_ask_and_tells_nothing(
    ask: Ask | SettleAsk, tell: object
) -> None:
    told = refuse(ask)
    assert type(told) is type(tell)  # a named tuple equals another with the same fields
    assert told == tell


def test_what_asks_for_no_answer_is_refused_in_silence() -> None:
    assert refuse(TakeOver(7, P, b"", is_proven=True)) is None
