"""One dot, several payloads: what most owners hold prevails, once all of them were heard."""

from __future__ import annotations

import pytest

from kvnode.core.bounds import DISPUTED_KEYS_MAX
from kvnode.core.dispute import DISPUTE_ID, Disputes, is_dispute, prevailing, with_payloads
from kvnode.core.inquiry import REST_US
from kvnode.core.inquiry import TIMEOUT_US as PATIENCE_US
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.messages import (
    Instant,
    NodeNumber,
    Outbox,
    PeerMessage,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    Status,
    WriteKind,
)
from kvnode.core.record import Encoded, decode, encode
from kvnode.core.versions import EMPTY, Record
from tests.unit.core.builders import KEY, NOW, context, dot, record, version

RIGHT, WRONG, THIRD = version("a1", b"right"), version("a1", b"wrong"), version("a1", b"third")
GREATER = max(RIGHT, WRONG)


class Rig:
    """The disputes of node 1, of keys owned by 1, 2 and 3."""

    def __init__(self, owners: tuple[NodeNumber, ...] = (1, 2, 3)) -> None:
        self.disputes = Disputes(lambda _: owners)
        self.now = NOW

    def notice(self, key: StorageKey = KEY) -> None:
        self.disputes.on_dispute(key, self.now)

    def time(self, later_us: int = 0) -> list[tuple[NodeNumber, PeerMessage]]:
        self.now = Instant(self.now + later_us)
        out = Outbox()
        self.disputes.on_time(self.now, out)
        return _sent(out)

    def answer(
        self,
        node: NodeNumber,
        state: Record,
        *,
        status: Status = Status.DONE,
        number: int = 1,
    ) -> dict[NodeNumber, Record]:
        """Have an owner answer; return who is overruled, with what."""
        data = Encoded(b"") if state == EMPTY else encode(KEY, state)
        out = Outbox()
        reply = ReplicaReadReply(DISPUTE_ID | number, status, data, False)
        self.disputes.on_read_reply(node, reply, self.now, out)
        overruled = {}
        for node, message in _sent(out):
            assert isinstance(message, ReplicaWrite)
            assert message.kind is WriteKind.OVERRULE
            overruled[node] = decode(message.key, message.record)
        return overruled


def _sent(out: Outbox) -> list[tuple[NodeNumber, PeerMessage]]:
    return [(node, message) for node, queue in out.peers.items() for message in queue]


# --- which bytes prevail --------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(RIGHT, RIGHT, WRONG), (WRONG, RIGHT, RIGHT)])
def test_what_most_hold_prevails_in_any_order(order: tuple[object, ...]) -> None:
    states = [record(each) for each in order]  # type: ignore[arg-type]
    assert prevailing(states) == {dot("a1"): RIGHT}


def test_of_equally_many_the_greater_prevails() -> None:
    for states in ([RIGHT, WRONG], [WRONG, RIGHT]):
        assert prevailing([record(each) for each in states]) == {dot("a1"): GREATER}


def test_what_is_not_disputed_is_left_alone() -> None:
    assert prevailing([record(RIGHT), record(RIGHT), EMPTY, record(version("b1"))]) == {}
    state = record(WRONG, version("b1"), votes=((3, "a1"),))
    assert with_payloads(state, {dot("a1"): RIGHT, dot("c9"): THIRD}) == record(
        RIGHT, version("b1"), votes=((3, "a1"),)
    )


# --- who is overruled -----------------------------------------------------------------------------


def test_all_owners_are_asked_also_the_one_that_asks_and_once() -> None:
    rig = Rig()
    rig.notice()
    rig.notice()
    sent = rig.time()
    assert [node for node, _ in sent] == [1, 2, 3]
    assert all(isinstance(each, ReplicaRead) and is_dispute(each.id) for _, each in sent)
    rig.notice()
    assert rig.time() == []


def test_whoever_holds_other_bytes_is_overruled_once_all_were_heard() -> None:
    rig = Rig()
    rig.notice()
    rig.time()
    assert rig.answer(1, record(WRONG)) == {}
    assert rig.answer(2, record(RIGHT)) == {}
    assert rig.answer(3, record(RIGHT)) == {1: record(RIGHT)}
    assert (rig.disputes.open, rig.disputes.settled) == (0, 1)
    assert rig.disputes.next_wake() is None


def test_what_else_differs_is_joined_in_the_same_write() -> None:
    rig = Rig()
    rig.notice()
    rig.time()
    beside = version("b1")
    rig.answer(1, record(RIGHT))
    rig.answer(2, record(RIGHT, beside))
    overruled = rig.answer(3, record(WRONG))
    assert overruled == dict.fromkeys((1, 3), record(RIGHT, beside))


def test_what_another_has_superseded_meanwhile_stays_superseded() -> None:
    rig = Rig()
    rig.notice()
    rig.time()
    newer = record(version("b1"), seen=context("a1", "b1"))
    rig.answer(1, record(WRONG))
    rig.answer(2, record(RIGHT))
    assert rig.answer(3, newer) == {1: newer, 2: newer}


def test_a_silent_owner_is_waited_for_and_asked_again() -> None:
    rig = Rig()
    rig.notice()
    rig.time()
    rig.answer(1, record(WRONG))
    rig.answer(2, record(RIGHT))
    assert rig.answer(3, EMPTY, status=Status.ABSTAINED) == {}
    assert rig.time(PATIENCE_US) == []
    assert len(rig.time(REST_US)) == 3
    for node in (1, 2):
        assert rig.answer(node, record(WRONG), number=2) == {}
    assert rig.answer(3, record(RIGHT), number=2) == {3: record(WRONG)}


def test_unproven_owners_have_a_say() -> None:
    rig = Rig()
    rig.notice()
    rig.time()
    rig.answer(1, record(WRONG), status=Status.UNPROVEN)
    rig.answer(2, record(WRONG), status=Status.UNPROVEN)
    assert rig.answer(3, record(RIGHT)) == {3: record(WRONG)}


def test_a_dispute_that_is_over_by_then_overrules_nobody() -> None:
    rig = Rig()
    rig.notice()
    rig.time()
    for node in (1, 2, 3):
        assert rig.answer(node, record(RIGHT)) == {}
    assert (rig.disputes.open, rig.disputes.settled) == (0, 0)


def test_strangers_and_keys_of_others_are_left_alone() -> None:
    rig = Rig()
    rig.notice()
    rig.time()
    assert rig.answer(9, record(WRONG)) == {}
    foreign = Rig(())
    foreign.notice()
    assert foreign.time() == []
    assert foreign.disputes.open == 0


def test_the_window_and_the_memory_of_disputes_are_bounded() -> None:
    rig = Rig()
    for number in range(DISPUTED_KEYS_MAX + 5):
        rig.notice(encode_key("default", b"%d" % number))
    assert rig.disputes.open == DISPUTED_KEYS_MAX
    assert len(rig.time()) == 3 * 8
