"""Mending one key at two sides: by asking and merging, within window and rate."""

from __future__ import annotations

import pytest

from kvnode.core.mending import MEND_ID, Mender
from kvnode.core.messages import (
    Instant,
    Outbox,
    PeerMessage,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Status,
    WriteKind,
)
from kvnode.core.record import Encoded
from tests.unit.core.builders import KEY, NOW, at

ME, PEER = 1, 2
OURS, THEIRS, BOTH = Encoded(b"ours"), Encoded(b"theirs"), Encoded(b"both")
NOTHING = Encoded(b"")


class Told:
    """What a mender said, and was told to say."""

    def __init__(self, *, window: int = 4, per_s: int = 1_000) -> None:
        self.mender = Mender(ME, window=window, per_s=per_s)
        self.done: list[bool] = []
        self.now = NOW
        self.mender.on_time(NOW, Outbox())

    def mend(self, *, is_held: bool = True) -> None:
        self.mender.mend(KEY, PEER, self._on_done, is_held=is_held)

    def time(self, offset_us: int) -> list[tuple[int, PeerMessage]]:
        out = Outbox()
        self.now = at(offset_us)
        self.mender.on_time(self.now, out)
        return sent(out)

    def read(
        self, sender: int, record: Encoded, status: Status = Status.DONE, number: int = 1
    ) -> list[tuple[int, PeerMessage]]:
        out = Outbox()
        reply = ReplicaReadReply(MEND_ID | number, status, record, covers=False)
        self.mender.on_read_reply(sender, reply, self.now, out)
        return sent(out)

    def merged(
        self, sender: int, record: Encoded = NOTHING, status: Status = Status.DONE
    ) -> list[tuple[int, PeerMessage]]:
        out = Outbox()
        reply = ReplicaWriteReply(MEND_ID | 1, status, record)
        self.mender.on_write_reply(sender, reply, self.now, out)
        return sent(out)

    def _on_done(self, is_mended: bool, _now: Instant, _out: Outbox) -> None:
        self.done.append(is_mended)


def sent(out: Outbox) -> list[tuple[int, PeerMessage]]:
    assert not out.held_peers
    return [(node, message) for node, queue in out.peers.items() for message in queue]


def is_repair(message: PeerMessage, record: Encoded) -> bool:
    return (
        isinstance(message, ReplicaWrite)
        and message.kind is WriteKind.REPAIR
        and (message.key, message.record) == (KEY, record)
    )


def test_our_state_goes_to_the_peer_and_what_it_makes_of_it_comes_back() -> None:
    told = Told()
    told.mend()
    ((node, read),) = told.time(0)
    assert (node, type(read)) == (ME, ReplicaRead)
    ((node, write),) = told.read(ME, OURS)
    assert node == PEER
    assert is_repair(write, OURS)
    ((node, write),) = told.merged(PEER, BOTH)
    assert node == ME
    assert is_repair(write, BOTH)
    assert told.merged(ME) == []
    assert told.done == [True]
    assert told.mender.under_way == 0


def test_what_only_the_peer_holds_is_asked_of_it_and_merged_here() -> None:
    told = Told()
    told.mend(is_held=False)
    ((node, read),) = told.time(0)
    assert (node, type(read)) == (PEER, ReplicaRead)
    ((node, write),) = told.read(PEER, THEIRS, Status.UNPROVEN)
    assert node == ME
    assert is_repair(write, THEIRS)
    told.merged(ME)
    assert told.done == [True]


def test_what_the_first_merge_showed_to_be_superseded_is_told_to_its_holder() -> None:
    told = Told()
    told.mend(is_held=False)
    told.time(0)
    told.read(PEER, THEIRS)
    ((node, write),) = told.merged(ME, BOTH)
    assert node == PEER
    assert is_repair(write, BOTH)


def test_a_key_that_is_gone_meanwhile_needs_no_mending() -> None:
    told = Told()
    told.mend()
    told.time(0)
    assert told.read(ME, NOTHING) == []
    assert told.done == [True]


@pytest.mark.parametrize("status", [Status.ABSTAINED, Status.REFUSED_LATE])
def test_a_side_that_cannot_read_its_record_leaves_the_key_as_it_is(status: Status) -> None:
    told = Told()
    told.mend()
    told.time(0)
    assert told.read(ME, NOTHING, status) == []
    assert told.done == [False]


def test_a_refused_merge_is_no_mending() -> None:
    told = Told()
    told.mend()
    told.time(0)
    told.read(ME, OURS)
    assert told.merged(PEER, status=Status.REFUSED_FULL) == []
    assert told.done == [False]


def test_two_sides_that_never_agree_are_given_up() -> None:
    told = Told()
    told.mend()
    told.time(0)
    told.read(ME, OURS)
    for _ in range(5):
        told.merged(PEER, BOTH)
        told.merged(ME, OURS)
    assert told.done == [False]


def test_an_answer_of_someone_else_is_not_taken_for_the_awaited_one() -> None:
    told = Told()
    told.mend()
    told.time(0)
    assert told.read(PEER, THEIRS) == []
    assert told.done == []
    assert told.read(ME, OURS) != []
    assert told.merged(ME) == []
    assert told.done == []


def test_a_late_answer_does_nothing() -> None:
    told = Told()
    told.mend()
    told.time(0)
    told.time(6_000_000)
    assert told.done == [False]
    assert told.read(ME, OURS) == []
    assert told.merged(PEER) == []


def test_no_more_than_the_window_is_under_way() -> None:
    told = Told(window=4)
    for _ in range(10):
        told.mend()
    assert len(told.time(0)) == 4
    assert told.time(1_000_000) == []
    told.read(ME, NOTHING)
    assert len(told.time(1_000_001)) == 1


def test_no_more_than_the_rate_is_begun() -> None:
    told = Told(window=4, per_s=2)
    for _ in range(8):
        told.mend()
    begun = len(told.time(0))
    for number in range(1, 5):
        told.read(ME, NOTHING, number=number)
    assert begun == 4  # what had been earned, at most a window
    assert told.time(100_000) == []
    wake = told.mender.next_wake(told.now)
    assert wake is not None
    assert at(100_000) < wake <= at(500_001)
    assert len(told.time(500_001)) == 1
    assert len(told.time(2_000_002)) == 3


def test_a_lost_peer_ends_what_is_under_way_and_what_waits() -> None:
    told = Told(window=1)
    for _ in range(3):
        told.mend()
    told.time(0)
    told.mender.on_down(9, told.now, Outbox())
    assert told.done == []
    told.mender.on_down(PEER, told.now, Outbox())
    assert told.done == [False, False, False]
    assert told.mender.under_way == 0


def test_nothing_to_do_needs_no_wake() -> None:
    assert Told().mender.next_wake(NOW) is None
