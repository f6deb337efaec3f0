"""One conflict, step by step: what each answer leads to, and what leads to nothing."""

from __future__ import annotations

from typing import Any

from kvnode.core.conversations import (
    AskState,
    Fence,
    LogLosers,
    Prune,
    SettleTell,
    TellLogged,
    TellPruned,
    TellState,
)
from kvnode.core.messages import Outbox, ReplicaWrite, ReplicaWriteReply, Status, WriteKind
from kvnode.core.pruning import digest
from kvnode.core.record import decode, encode
from kvnode.core.resolve import Verdict
from kvnode.core.settlement import Settlement, Stage
from kvnode.core.versions import Record
from tests.unit.core.builders import KEY, WALL_MS, at, dots, record, version

A1, B1 = version("a1", ms=1), version("b1", ms=2)
BOTH = record(A1, B1, votes=((1, "a1"),))
VERDICT = Verdict(A1, dots("b1"), "a rule")
OWNERS = (1, 2, 3)


class Talk:
    """A settlement at node 1, and what it has sent since it was last asked."""

    def __init__(self, state: Record = BOTH) -> None:
        self.one = Settlement(7, KEY, OWNERS, here=1, epoch=4, gives_up_at=at(0))
        self.state = state
        out = Outbox()
        self.one.start(out)
        assert out.peers == {1: [AskState(7, KEY, 4, b"")]}

    def tell(self, sender: int, tell: SettleTell, *, w: int = 2) -> list[tuple[int, Any]]:
        out = Outbox()
        self.one.on_tell(sender, tell, w=w, now_ms=WALL_MS, out=out)
        return sent(out)

    @property
    def stage(self) -> Stage:
        return self.one.stage

    def own(self) -> list[tuple[int, Any]]:
        return self.tell(1, TellState(7, True, 11, False, encode(KEY, self.state)))

    def same(self, sender: int) -> list[tuple[int, Any]]:
        return self.tell(sender, TellState(7, True, 10 + sender, True, b""))

    def other(self, sender: int, state: Record) -> list[tuple[int, Any]]:
        return self.tell(sender, TellState(7, True, 10 + sender, False, encode(KEY, state)))

    def agree(self) -> None:
        self.own()
        self.same(2)
        self.same(3)
        assert self.one.stage is Stage.AGREED

    def log(self) -> list[tuple[int, Any]]:
        self.agree()
        out = Outbox()
        self.one.log(VERDICT, WALL_MS, out)
        return sent(out)


def sent(out: Outbox) -> list[tuple[int, Any]]:
    assert not out.held_peers
    return [(node, message) for node, queue in out.peers.items() for message in queue]


def repaired(messages: list[tuple[int, Any]]) -> dict[int, Record]:
    assert all(isinstance(m, ReplicaWrite) and m.kind is WriteKind.REPAIR for _, m in messages)
    return {node: decode(KEY, message.record) for node, message in messages}


def test_the_others_are_asked_once_the_own_state_is_known_to_be_a_conflict() -> None:
    talk = Talk()
    mine = digest(encode(KEY, BOTH))
    assert talk.own() == [(node, AskState(7, KEY, 4, mine)) for node in (2, 3)]


def test_no_conflict_or_an_owner_in_doubt_ends_it() -> None:
    talk = Talk(record(A1))
    assert talk.own() == []
    assert talk.one.stage is Stage.OVER
    for sender in OWNERS:
        talk = Talk()
        talk.own()
        talk.tell(sender, TellState(7, False, 0, False, b""))
        assert talk.one.stage is Stage.OVER


def test_each_owner_is_fenced_by_what_it_told_itself() -> None:
    fences = {node: ask.fence for node, ask in Talk().log() if isinstance(ask, LogLosers)}
    mine = digest(encode(KEY, BOTH))
    assert fences == {node: Fence(4, 10 + node, mine) for node in OWNERS}


def test_it_prunes_everywhere_once_w_distinct_owners_have_logged() -> None:
    talk = Talk()
    talk.log()
    assert talk.tell(2, TellLogged(7, True)) == []
    assert talk.tell(2, TellLogged(7, True)) == []
    assert talk.tell(3, TellLogged(7, False)) == []
    prunes = talk.tell(1, TellLogged(7, True))
    assert [node for node, _ in prunes] == list(OWNERS)
    assert all(isinstance(m, Prune) and m.losers == VERDICT.losers for _, m in prunes)


def test_with_fewer_than_w_logs_it_ends_unpruned() -> None:
    talk = Talk()
    talk.log()
    for node, is_done in zip(OWNERS, (True, False, False), strict=True):
        assert talk.tell(node, TellLogged(7, is_done)) == []
    assert talk.one.stage is Stage.OVER
    assert not talk.one.has_pruned


def test_it_is_over_when_all_have_answered_the_prune() -> None:
    talk = Talk()
    talk.log()
    talk.tell(1, TellLogged(7, True))
    talk.tell(2, TellLogged(7, True))
    talk.tell(3, TellLogged(7, True))  # of the stage before
    talk.tell(1, TellPruned(7, False))
    talk.tell(2, TellPruned(7, True))
    assert (talk.one.stage, talk.one.has_pruned) == (Stage.PRUNING, True)
    talk.tell(3, TellPruned(7, True))
    assert talk.one.stage is Stage.OVER


def test_answers_of_other_stages_change_nothing() -> None:
    talk = Talk()
    talk.tell(1, TellLogged(7, True))
    talk.tell(2, TellPruned(7, True))
    assert talk.same(2) == []  # before the own state: it answers nothing that was asked
    assert not talk.one.digest
    talk.log()
    for node in OWNERS:
        talk.tell(node, TellPruned(7, True))
    talk.other(2, record(B1))
    assert talk.stage == Stage.LOGGING


def test_states_that_differ_are_joined_and_sent_to_whoever_holds_less() -> None:
    talk = Talk()
    talk.own()
    talk.same(2)
    theirs = record(B1, votes=((3, "b1"),))
    joined = record(A1, B1, votes=((1, "a1"), (3, "b1")))
    assert repaired(talk.other(3, theirs)) == dict.fromkeys(OWNERS, joined)
    assert talk.one.stage is Stage.MENDING


def test_who_holds_the_join_already_is_left_alone() -> None:
    talk = Talk()
    talk.own()
    talk.same(2)
    joined = record(A1, B1, votes=((1, "a1"), (3, "b1")))
    assert set(repaired(talk.other(3, joined))) == {1, 2}


def test_what_an_owner_makes_of_the_join_comes_home() -> None:
    talk = Talk()
    talk.own()
    talk.same(2)
    talk.tell(3, TellState(7, True, 13, False, b""))
    out = Outbox()
    known = encode(KEY, record(A1, seen=BOTH.context))
    talk.one.on_write_reply(3, ReplicaWriteReply(7, Status.DONE, known), out)
    assert repaired(sent(out)) == {1: record(A1, seen=BOTH.context)}
    assert talk.one.stage is Stage.OVER


def test_one_dot_with_two_payloads_and_damage_are_not_spread() -> None:
    for broken in (encode(KEY, record(A1, version("b1", b"?", 2))), b"damaged"):
        talk = Talk()
        talk.own()
        talk.same(2)
        assert talk.tell(3, TellState(7, True, 13, False, broken)) == []
        assert talk.one.stage is Stage.OVER
