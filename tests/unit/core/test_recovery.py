"""A damaged key comes back from its other owners: from all of them, or from enough."""

from __future__ import annotations

import pytest

from kvnode.core.bounds import DAMAGED_KEYS_MAX
from kvnode.core.inquiry import REST_US
from kvnode.core.inquiry import TIMEOUT_US as PATIENCE_US
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.messages import Instant, NodeNumber, Outbox, ReplicaRead, ReplicaReadReply, Status
from kvnode.core.record import Encoded, encode
from kvnode.core.recovery import RECOVERY_ID, Recovery, Rule, is_recovery
from kvnode.core.versions import EMPTY, Record, sync
from tests.unit.core.builders import KEY, NOW, at, names, record, tombstone, version

OLD, NEW = record(version("a1")), record(version("a2"), votes=((2, "a2"),))
BESIDE = record(version("b1"))
MINE = Rule((2, 3), 2)


class Rig:
    """A recovery, and what it did."""

    def __init__(self, rule: Rule | None = MINE) -> None:
        self.rule = rule
        self.put: list[tuple[StorageKey, Record]] = []
        self.recovery = Recovery(
            lambda _: self.rule, lambda key, state: self.put.append((key, state))
        )
        self.now = NOW

    def damage(self, key: StorageKey = KEY) -> bool:
        return self.recovery.on_damage(key, self.now)

    def time(self, later_us: int = 0) -> list[tuple[NodeNumber, ReplicaRead]]:
        """Let time pass; return what is asked of whom."""
        self.now = Instant(self.now + later_us)
        out = Outbox()
        self.recovery.on_time(self.now, out)
        asked = [(node, message) for node, queue in out.peers.items() for message in queue]
        reads = [(node, read) for node, read in asked if isinstance(read, ReplicaRead)]
        assert len(reads) == len(asked)
        return reads

    def answer(
        self, node: NodeNumber, state: Record, status: Status = Status.DONE, number: int = 1
    ) -> None:
        data = Encoded(b"") if state == EMPTY else encode(KEY, state)
        reply = ReplicaReadReply(RECOVERY_ID | number, status, data, covers=False)
        self.recovery.on_read_reply(node, reply, self.now)


def test_all_other_owners_are_asked_once_however_often_the_damage_is_found() -> None:
    rig = Rig()
    assert rig.damage()
    assert not rig.damage()
    assert [(node, read.key) for node, read in rig.time()] == [(2, KEY), (3, KEY)]
    assert not rig.damage()
    assert rig.time() == []
    assert rig.recovery.damaged == 1


def test_the_join_of_what_all_others_hold_replaces_it() -> None:
    rig = Rig()
    rig.damage()
    rig.time()
    rig.answer(2, NEW)
    assert rig.put == [], "the other one may know more"
    rig.answer(3, BESIDE)
    assert rig.put == [(KEY, sync(NEW, BESIDE))]
    assert (rig.recovery.damaged, rig.recovery.recovered) == (0, 1)
    assert rig.recovery.next_wake() is None


@pytest.mark.parametrize("order", [(OLD, NEW), (NEW, OLD)])
def test_an_older_state_never_wins_over_a_newer_one(order: tuple[Record, Record]) -> None:
    rig = Rig()
    rig.damage()
    rig.time()
    rig.answer(2, order[0])
    rig.answer(3, order[1])
    assert [names(state) for _, state in rig.put] == [["a2"]]


def test_a_silent_owner_is_waited_for_once_and_then_enough_proven_ones_will_do() -> None:
    rig = Rig(Rule((2, 3, 4), 3))
    rig.damage()
    rig.time()
    rig.answer(2, NEW)
    rig.answer(3, NEW)
    assert rig.put == []
    assert rig.time(PATIENCE_US) == []
    assert len(rig.time(REST_US)) == 3
    rig.answer(2, NEW, number=2)
    assert rig.put == []
    rig.answer(3, NEW, number=2)
    assert rig.put == [(KEY, NEW)]


def test_fewer_than_enough_never_replace_it() -> None:
    """With w = 2 of 3, one other owner may lack an acknowledged write."""
    rig = Rig()
    rig.damage()
    for number in range(1, 6):
        assert len(rig.time(REST_US)) == 2
        rig.answer(2, NEW, number=number)
        rig.time(PATIENCE_US)
    assert rig.put == []
    assert rig.recovery.damaged == 1


def test_unproven_owners_count_only_when_all_have_answered() -> None:
    rig = Rig()
    rig.damage()
    rig.time()
    rig.answer(2, OLD, Status.UNPROVEN)
    rig.answer(3, NEW)
    assert rig.put == [(KEY, sync(OLD, NEW))]


@pytest.mark.parametrize(
    "status", [Status.ABSTAINED, Status.REFUSED_LATE, Status.REFUSED_EPOCH, Status.REFUSED_LOAD]
)
def test_who_cannot_say_is_asked_again(status: Status) -> None:
    rig = Rig()
    rig.damage()
    rig.time()
    rig.answer(2, NEW)
    rig.answer(3, EMPTY, status)
    rig.time(PATIENCE_US)
    assert rig.put == []
    assert len(rig.time(REST_US)) == 2


def test_nothing_anywhere_replaces_it_only_if_enough_proven_owners_say_so() -> None:
    rig = Rig()
    rig.damage()
    rig.time()
    rig.answer(2, EMPTY)
    rig.answer(3, EMPTY, Status.UNPROVEN)
    assert rig.put == [], "the one copy may be the damaged one"
    rig.time()
    rig.time(REST_US)
    rig.answer(2, EMPTY, number=2)
    rig.answer(3, EMPTY, number=2)
    assert rig.put == [(KEY, EMPTY)]


def test_with_w_of_one_absence_elsewhere_proves_nothing() -> None:
    rig = Rig(Rule((2, 3), 1))
    rig.damage()
    rig.time()
    rig.answer(2, EMPTY)
    rig.answer(3, EMPTY)
    assert rig.put == []
    assert rig.recovery.damaged == 1


def test_a_deletion_elsewhere_is_an_answer() -> None:
    rig = Rig()
    rig.damage()
    rig.time()
    dead = record(tombstone("a2"))
    rig.answer(2, dead)
    rig.answer(3, EMPTY)
    assert rig.put == [(KEY, dead)]


def test_a_damaged_or_foreign_or_doubled_answer_counts_for_nothing() -> None:
    rig = Rig()
    rig.damage()
    rig.time()
    spoilt = Encoded(encode(KEY, NEW)[:-1] + b"?")
    rig.recovery.on_read_reply(
        3, ReplicaReadReply(RECOVERY_ID | 1, Status.DONE, spoilt, covers=False), rig.now
    )
    rig.answer(2, NEW)
    rig.answer(2, NEW)
    rig.answer(9, NEW)
    rig.answer(3, NEW, number=7)
    assert rig.put == []


def test_a_key_that_is_owned_no_more_is_left_alone() -> None:
    rig = Rig(None)
    rig.damage()
    assert rig.time() == []
    assert rig.recovery.damaged == 0


def test_the_window_and_the_memory_of_damage_are_bounded() -> None:
    rig = Rig()
    keys = [encode_key("default", b"%d" % number) for number in range(DAMAGED_KEYS_MAX + 5)]
    assert [rig.damage(key) for key in keys] == [True] * DAMAGED_KEYS_MAX + [False] * 5
    asked = rig.time()
    assert len(asked) == 2 * 16
    assert rig.recovery.damaged == DAMAGED_KEYS_MAX
    assert rig.recovery.next_wake() == at(PATIENCE_US)
    assert len(rig.time(PATIENCE_US)) == 2 * 16
    assert rig.recovery.damaged == DAMAGED_KEYS_MAX


def test_a_turn_is_told_which_record_a_reply_is_about() -> None:
    rig = Rig()
    rig.damage()
    ((_, read), _) = rig.time()
    assert is_recovery(read.id)
    assert rig.recovery.key_of(read.id) == KEY
    assert rig.recovery.key_of(read.id + 1) is None
