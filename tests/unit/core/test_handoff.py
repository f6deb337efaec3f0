"""Handoff: to whom hints go, how many at a time, when they are deleted, and when it next wakes.

Node 5 keeps hints for node 2; nodes 1 to 3 own every key unless a test says otherwise. Scans are
answered from the store in a turn of their own, as a driver would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.batch import WriteBatch
from kvnode.core.bounds import Limits
from kvnode.core.handoff import Handoff, is_handoff
from kvnode.core.hints import Hints, hint_key
from kvnode.core.keys import encode_key
from kvnode.core.messages import (
    Instant,
    NodeNumber,
    Outbox,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Scan,
    Status,
    WriteKind,
)
from kvnode.core.operations import OPERATION_ID_MAX
from kvnode.core.record import Encoded, encode
from kvnode.core.versions import Record
from tests.unit.core.builders import KEY, NOW, SECOND_US, WALL_MS, context, record, version

ME = 5
AWAY = 2
STATE = record(version("a1"))
NEWER = record(version("a2", ms=1))
TIMEOUT_US = 10 * SECOND_US
SOON_US = 50_000
"""After that long there is a share of the rate to spend."""
HOUR_MS = 3_600_000

Act = Callable[[Handoff, Outbox], object]


def nothing(handoff: Handoff, out: Outbox) -> None:
    """A turn without events."""


class Keeper:
    """A node with hints and a store, whose messages and scans are taken down."""

    def __init__(self, *, up: Sequence[NodeNumber] = (), age_ms: int = 0, **limits: int) -> None:
        self.store: dict[bytes, bytes] = {}
        self.hints = Hints(bytes_max=1 << 20)
        self.owners: Sequence[NodeNumber] = (1, 2, 3)
        self.limits = replace(Limits(), **limits)
        self.handoff = Handoff(self.hints, self.limits, lambda key: self.owners, number=ME)
        self.now = NOW
        self.wall_ms = WALL_MS
        self.is_busy = False
        self.scans: list[Scan] = []
        self.writes: list[tuple[NodeNumber, ReplicaWrite]] = []
        self.reads: list[tuple[NodeNumber, ReplicaRead]] = []
        for node in up:
            self.handoff.on_up(node)
        self.age_ms = age_ms

    def turn(self, act: Act = nothing) -> None:
        """One turn: what happened, then what time allows."""
        batch, out = WriteBatch(), Outbox()
        self.hints.begin(self.store, frozenset(), batch, self.wall_ms)
        act(self.handoff, out)
        self.handoff.on_time(self.now, self.wall_ms, out, is_busy=self.is_busy)
        for _, name, value in batch.changes:
            if value is None:
                self.store.pop(name, None)
            else:
                self.store[name] = value
        self.hints.check()
        self.scans += out.scans
        for node, messages in out.peers.items():
            for message in messages:
                if isinstance(message, ReplicaWrite):
                    self.writes.append((node, message))
                elif isinstance(message, ReplicaRead):
                    self.reads.append((node, message))

    def keep(
        self, count: int = 1, *, owner: NodeNumber = AWAY, state: Record = STATE, w: int = 2
    ) -> None:
        def act(handoff: Handoff, out: Outbox) -> None:
            for number in range(count):
                if count == 1:
                    self.hints.keep(owner, KEY, state, w=w)
                    continue
                key = encode_key("default", b"%05d" % number)
                self.hints.keep(owner, key, record(version("a1", key=key)), w=w)

        self.wall_ms -= self.age_ms
        self.turn(act)
        self.wall_ms += self.age_ms

    def scan(self, pairs: list[tuple[bytes, bytes]] | str | None = "as stored") -> None:
        """Answer the scan that waits longest."""
        scan = self.scans.pop(0)
        if isinstance(pairs, str):
            assert scan.end is not None
            found = sorted(p for p in self.store.items() if scan.start <= p[0] < scan.end)
            pairs = found[: scan.limit]
        self.turn(
            lambda handoff, out: handoff.on_scanned(scan.id, pairs, self.now, self.wall_ms, out)
        )

    def wait(self, us: int = SOON_US) -> None:
        """Let time pass, and answer the scans that come of it."""
        self.now = Instant(self.now + us)
        self.turn()
        for _ in range(1_000):
            if not self.scans:
                return
            self.scan()
        raise AssertionError("one scan after another, and no end")

    def up(self, node: NodeNumber) -> None:
        self.turn(lambda handoff, out: handoff.on_up(node))

    def down(self, node: NodeNumber) -> None:
        self.turn(lambda handoff, out: handoff.on_down(node))

    def hear(self, node: NodeNumber, request: int, status: Status = Status.DONE) -> None:
        reply = ReplicaWriteReply(request, status, Encoded(b""))
        self.turn(lambda handoff, out: handoff.on_write_reply(node, reply))

    def hear_read(
        self,
        node: NodeNumber,
        request: int,
        held: Record | None,
        status: Status = Status.DONE,
        data: bytes = b"",
    ) -> None:
        data = data if held is None else encode(KEY, held)
        reply = ReplicaReadReply(request, status, Encoded(data), False)
        self.turn(lambda handoff, out: handoff.on_read_reply(node, reply))

    def take_writes(self) -> list[tuple[NodeNumber, ReplicaWrite]]:
        taken, self.writes = self.writes, []
        return taken

    def sent(self) -> ReplicaWrite:
        """Return the one delivery that went to the owner since the last look."""
        [(node, write)] = self.take_writes()
        assert node == AWAY
        return write


def delivering(**limits: int) -> tuple[Keeper, ReplicaWrite]:
    """Return a keeper with one hint, and its delivery, which is unanswered."""
    keeper = Keeper(up=(1, 2, 3), **limits)
    keeper.keep()
    keeper.wait()
    return keeper, keeper.sent()


# ---- whom it walks for --------------------------------------------------------------------------


def test_where_nothing_is_kept_there_is_nothing_to_do() -> None:
    keeper = Keeper(up=(1, 2, 3))
    keeper.wait()
    assert (keeper.handoff.next_wake(), keeper.scans, keeper.writes) == (None, [], [])


def test_what_is_kept_for_a_reachable_owner_is_sent_to_it_as_a_handoff() -> None:
    keeper, write = delivering()
    assert (write.key, write.record) == (KEY, encode(KEY, STATE))
    assert (write.kind, write.stand_in_for) == (WriteKind.HANDOFF, 0)
    assert write.deadline_us == keeper.now + TIMEOUT_US
    assert keeper.handoff.under_way == 1


def test_its_ids_are_told_apart_from_those_of_clients_operations() -> None:
    _, write = delivering()
    assert is_handoff(write.id)
    assert write.id > OPERATION_ID_MAX
    assert not is_handoff(OPERATION_ID_MAX)


def test_nothing_is_walked_for_an_owner_that_is_away() -> None:
    keeper = Keeper(up=(1, 3))
    keeper.keep()
    keeper.wait()
    keeper.wait(TIMEOUT_US)
    assert (keeper.scans, keeper.writes) == ([], [])


def test_an_owner_that_comes_back_is_served_without_waiting_out_a_rest() -> None:
    keeper = Keeper()
    keeper.keep()
    keeper.wait()
    wakes_at = keeper.handoff.next_wake()
    keeper.now = Instant(keeper.now + SOON_US)
    assert wakes_at is not None
    assert keeper.now < wakes_at
    keeper.up(AWAY)
    keeper.wait(SOON_US)
    assert keeper.sent().key == KEY


def test_an_owner_that_is_away_holds_up_no_other() -> None:
    keeper = Keeper(up=(3,))
    keeper.keep(owner=AWAY)
    keeper.keep(owner=3)
    keeper.wait()
    assert [node for node, _ in keeper.writes] == [3]


def test_a_walk_visits_only_its_owners_range_and_goes_on_where_it_was() -> None:
    keeper = Keeper(up=(1, 2, 3))
    keeper.keep(40)
    keeper.keep(owner=3)
    keeper.wait()
    names = [hint_key(node, write.key) for node, write in keeper.take_writes()]
    assert sorted(names) == sorted(keeper.store)


# ---- what is sent -------------------------------------------------------------------------------


def test_an_entry_goes_as_it_is_now_not_as_it_was_when_it_was_scanned() -> None:
    keeper = Keeper(up=(1, 2, 3))
    keeper.keep()
    keeper.now = Instant(keeper.now + SOON_US)
    keeper.turn()
    as_scanned = list(keeper.store.items())
    keeper.keep(state=NEWER)
    keeper.scan(as_scanned)
    assert keeper.sent().record == encode(KEY, NEWER)


def test_an_entry_that_left_since_it_was_scanned_is_not_sent() -> None:
    keeper = Keeper(up=(1, 2, 3))
    keeper.keep()
    keeper.now = Instant(keeper.now + SOON_US)
    keeper.turn()
    as_scanned = list(keeper.store.items())
    keeper.store.clear()
    keeper.scan(as_scanned)
    assert keeper.writes == []


def test_an_entry_that_is_under_way_is_not_sent_again_by_the_next_walk() -> None:
    keeper, _ = delivering()
    for _ in range(3):
        keeper.wait(2 * SECOND_US)
    assert keeper.writes == []


def test_a_newer_write_is_sent_though_an_older_state_is_under_way() -> None:
    keeper, write = delivering()
    keeper.keep(state=NEWER)
    keeper.wait(2 * SECOND_US)
    newer = keeper.sent()
    assert newer.record == encode(KEY, NEWER)
    keeper.hear(AWAY, write.id)
    assert keeper.store
    keeper.hear(AWAY, newer.id)
    assert keeper.store == {}


@pytest.mark.parametrize("pairs", [None, []], ids=["unreadable", "empty"])
def test_after_the_end_of_the_range_or_what_cannot_be_read_a_walk_rests_and_begins_anew(
    pairs: list[tuple[bytes, bytes]] | None,
) -> None:
    keeper = Keeper(up=(1, 2, 3))
    keeper.keep()
    keeper.now = Instant(keeper.now + SOON_US)
    keeper.turn()
    keeper.scan(pairs)
    assert keeper.scans == []
    assert keeper.handoff.next_wake() == keeper.now + SECOND_US
    keeper.wait(SECOND_US)
    assert keeper.sent().key == KEY


def test_a_slice_that_nobody_asked_for_is_ignored() -> None:
    keeper = Keeper(up=(1, 2, 3))
    keeper.keep()
    pairs = list(keeper.store.items())
    keeper.turn(lambda handoff, out: handoff.on_scanned(77, pairs, keeper.now, WALL_MS, out))
    assert keeper.writes == []


# ---- when an entry goes -------------------------------------------------------------------------


def test_an_entry_is_deleted_only_once_its_owner_acknowledged_it() -> None:
    keeper, write = delivering()
    assert keeper.store
    keeper.hear(AWAY, write.id)
    assert keeper.store == {}
    assert keeper.hints.ledgers[AWAY].delivered == 1
    assert (keeper.handoff.under_way, keeper.handoff.next_wake()) == (0, None)


@pytest.mark.parametrize("status", [each for each in Status if each is not Status.DONE])
def test_a_refused_entry_is_kept_and_sent_again_after_a_rest(status: Status) -> None:
    keeper, write = delivering()
    keeper.hear(AWAY, write.id, status)
    keeper.wait(SECOND_US // 2)
    assert (len(keeper.store), keeper.writes) == (1, [])
    keeper.wait(SECOND_US // 2)
    assert keeper.sent().record == write.record


def test_an_entry_whose_acknowledgement_is_lost_is_sent_again_under_another_id() -> None:
    keeper, write = delivering()
    assert keeper.handoff.next_wake() is not None
    keeper.wait(TIMEOUT_US - 1)
    assert keeper.writes == []
    keeper.wait(1)
    keeper.wait(SECOND_US)
    again = keeper.sent()
    assert again.id != write.id
    keeper.hear(AWAY, write.id)
    assert keeper.store
    keeper.hear(AWAY, again.id)
    assert keeper.store == {}


def test_an_owner_that_is_lost_again_gets_what_was_under_way_when_it_is_back() -> None:
    keeper, write = delivering()
    keeper.down(AWAY)
    assert keeper.handoff.under_way == 0
    keeper.wait(2 * SECOND_US)
    assert keeper.writes == []
    keeper.up(AWAY)
    keeper.wait()
    assert keeper.sent().record == write.record


def test_an_acknowledgement_from_another_node_says_nothing() -> None:
    keeper, write = delivering()
    keeper.hear(3, write.id)
    keeper.hear(AWAY, write.id + 1)
    assert keeper.store


# ---- owners that changed ------------------------------------------------------------------------


def rerouted() -> tuple[Keeper, dict[NodeNumber, ReplicaWrite]]:
    keeper = Keeper(up=(1, 2, 3, 4))
    keeper.keep()
    keeper.owners = (1, 3, 4)
    keeper.wait()
    return keeper, dict(keeper.take_writes())


def test_what_is_kept_for_a_former_owner_goes_to_all_present_ones() -> None:
    keeper, writes = rerouted()
    assert list(writes) == [1, 3, 4]
    assert {write.id for write in writes.values()} == {writes[1].id}
    for node in (3, 1):
        keeper.hear(node, writes[node].id)
        assert keeper.store
    keeper.hear(4, writes[4].id)
    assert keeper.store == {}


def test_a_change_of_owners_sends_entries_of_one_who_is_away_to_those_who_own_the_key_now() -> None:
    keeper = Keeper(up=(1, 3, 4))
    keeper.keep()
    keeper.wait()
    assert keeper.take_writes() == []
    keeper.owners = (1, 3, 4)
    keeper.turn(lambda handoff, out: handoff.on_topology())
    keeper.wait()
    assert [node for node, _ in keeper.take_writes()] == [1, 3, 4]


def test_a_keeper_that_comes_to_own_the_key_is_an_addressee_itself() -> None:
    keeper = Keeper(up=(1, 3))
    keeper.keep()
    keeper.owners = (1, 3, ME)
    keeper.turn(lambda handoff, out: handoff.on_topology())
    keeper.wait()
    assert [node for node, _ in keeper.take_writes()] == [1, 3, ME]


def test_a_damaged_entry_is_dropped_aloud_and_counted() -> None:
    keeper = Keeper()
    keeper.keep()
    [(name, value)] = keeper.store.items()
    keeper.store[name] = value[:-1] + bytes((value[-1] ^ 1,))
    keeper.up(AWAY)
    keeper.wait()
    assert (keeper.take_writes(), keeper.store) == ([], {})
    assert keeper.hints.ledgers[AWAY].damaged == 1
    assert len(keeper.handoff.alarms) == 1


def test_an_addressee_that_acknowledges_twice_does_not_stand_for_another() -> None:
    keeper, writes = rerouted()
    for node in (1, 3, 3, 1):
        keeper.hear(node, writes[node].id)
    assert keeper.store


def test_one_refusal_of_several_addressees_keeps_the_entry() -> None:
    keeper, writes = rerouted()
    keeper.hear(1, writes[1].id)
    keeper.hear(3, writes[3].id, Status.REFUSED_FULL)
    keeper.hear(4, writes[4].id)
    assert keeper.store
    keeper.wait(SECOND_US)
    assert [node for node, _ in keeper.writes] == [1, 3, 4]


def test_present_owners_are_sent_nothing_before_all_of_them_can_be_reached() -> None:
    keeper = Keeper(up=(1, 2, 3))
    keeper.keep()
    keeper.owners = (1, 3, 4)
    keeper.wait()
    assert keeper.writes == []
    keeper.up(4)
    keeper.wait(2 * SECOND_US)
    assert [node for node, _ in keeper.writes] == [1, 3, 4]


# ---- window, rate, and clients first ------------------------------------------------------------


@pytest.mark.parametrize(("is_busy", "most"), [(False, 64), (True, 16)])
def test_no_more_than_the_window_is_under_way(is_busy: bool, most: int) -> None:
    keeper = Keeper(up=(1, 2, 3), hint_window=64)
    keeper.is_busy = is_busy
    keeper.keep(100)
    for _ in range(20):
        keeper.wait()
    assert len(keeper.writes) == keeper.handoff.under_way == most


def test_the_smallest_window_still_delivers_while_clients_are_served() -> None:
    keeper = Keeper(up=(1, 2, 3), hint_window=1)
    keeper.is_busy = True
    keeper.keep(3)
    for _ in range(10):
        keeper.wait(2 * SECOND_US)
        for node, write in keeper.take_writes():
            keeper.hear(node, write.id)
    assert keeper.store == {}


@pytest.mark.parametrize(("is_busy", "rest_us"), [(True, 3 * 40_000), (False, 0)])
def test_while_clients_are_served_a_slice_is_followed_by_three_times_what_it_took(
    is_busy: bool, rest_us: int
) -> None:
    keeper = Keeper(up=(1, 2, 3), hint_window=16, hint_rate=100_000)
    keeper.is_busy = is_busy
    keeper.keep(100)
    keeper.wait()
    slice_ = keeper.take_writes()
    keeper.now = Instant(keeper.now + 40_000)
    for node, write in slice_:
        keeper.hear(node, write.id)
    if rest_us:
        keeper.wait(rest_us - 1)
        assert keeper.writes == []
    keeper.wait(1 if rest_us else SOON_US)
    assert keeper.writes != []


def test_a_slice_that_took_very_long_is_followed_by_a_second_and_no_more() -> None:
    keeper = Keeper(up=(1, 2, 3), hint_window=16)
    keeper.is_busy = True
    keeper.keep(100)
    keeper.wait()
    slice_ = keeper.take_writes()
    keeper.now = Instant(keeper.now + 9 * SECOND_US)
    for node, write in slice_:
        keeper.hear(node, write.id)
    keeper.wait(SECOND_US)
    assert keeper.writes != []


def test_while_clients_are_served_the_next_slice_waits_for_all_of_the_last() -> None:
    keeper = Keeper(up=(1, 2, 3), hint_window=64)
    keeper.is_busy = True
    keeper.keep(100)
    keeper.wait()
    first, *rest = keeper.take_writes()
    for node, write in rest:
        keeper.hear(node, write.id)
    keeper.wait(SECOND_US)
    assert keeper.writes == []
    keeper.hear(*(first[0], first[1].id))
    keeper.wait(2 * SECOND_US)
    assert keeper.writes != []


@pytest.mark.parametrize(("is_busy", "rate"), [(True, 100), (False, 400)])
def test_no_more_than_the_rate_is_delivered_in_a_second(is_busy: bool, rate: int) -> None:
    keeper = Keeper(up=(1, 2, 3), hint_rate=100)
    keeper.is_busy = is_busy
    keeper.keep(1_000)
    delivered = 0
    for _ in range(100):
        keeper.wait(10_000)
        for node, write in keeper.take_writes():
            keeper.hear(node, write.id)
            delivered += 1
    burst = rate // 20
    assert rate - burst <= delivered <= rate + burst


def test_a_long_idle_time_saves_up_no_more_than_a_twentieth_of_a_second() -> None:
    keeper = Keeper(up=(1, 2, 3), hint_rate=100)
    keeper.keep(1_000)
    keeper.wait(3_600 * SECOND_US)
    assert len(keeper.writes) == 400 // 20


# ---- too old ------------------------------------------------------------------------------------


def aged(*, up: Sequence[NodeNumber] = (1, 3), w: int = 2) -> Keeper:
    """Return a keeper of one hint that is too old, for an owner that is away."""
    keeper = Keeper(up=up, age_ms=4 * HOUR_MS)
    keeper.keep(w=w)
    keeper.wait(SECOND_US)
    return keeper


def test_an_entry_that_is_too_old_is_asked_about_at_the_other_owners() -> None:
    keeper = aged()
    assert [node for node, _ in keeper.reads] == [1, 3]
    assert {(read.key, read.is_stand_in, read.watermark) for _, read in keeper.reads} == {
        (KEY, False, b"")
    }
    assert (len(keeper.store), keeper.writes) == (1, [])


def test_an_entry_that_is_not_quite_too_old_is_asked_about_as_soon_as_it_is() -> None:
    keeper = Keeper(up=(1, 3), hint_age_ms=1_000)
    keeper.wall_ms += 900 - keeper.wall_ms % 1_000
    keeper.keep()
    keeper.wall_ms += 600  # in the next second but one, by the ledger
    keeper.wait(2 * SECOND_US)
    assert keeper.reads == []
    keeper.wall_ms += 1_000
    keeper.wait(2 * SECOND_US)
    assert [node for node, _ in keeper.reads] == [1, 3]


def test_an_entry_is_given_up_once_w_owners_cover_it_and_not_before() -> None:
    keeper = aged()
    request = keeper.reads[0][1].id
    keeper.hear_read(1, request, STATE)
    assert keeper.store
    keeper.hear_read(3, request, record(version("b1", ms=9), seen=context("a1", "b1")))
    assert keeper.store == {}
    assert (keeper.hints.ledgers[AWAY].aged, keeper.hints.ledgers[AWAY].delivered) == (1, 0)


@pytest.mark.parametrize(
    ("held", "status", "data"),
    [
        (record(version("b1")), Status.DONE, b""),
        (None, Status.DONE, b""),
        (None, Status.DONE, b"\x01garbage"),
        (STATE, Status.UNPROVEN, b""),
        (None, Status.ABSTAINED, b""),
    ],
    ids=["other", "absent", "damaged", "unproven", "abstained"],
)
def test_an_entry_is_kept_when_an_owner_does_not_cover_it(
    held: Record | None, status: Status, data: bytes
) -> None:
    keeper = aged()
    request = keeper.reads[0][1].id
    keeper.hear_read(1, request, STATE)
    keeper.hear_read(3, request, held, status, data)
    assert keeper.store
    assert keeper.handoff.under_way == 0


def test_an_owner_that_answers_twice_does_not_stand_for_another() -> None:
    keeper = aged()
    request = keeper.reads[0][1].id
    keeper.hear_read(1, request, STATE)
    keeper.hear_read(1, request, STATE)
    assert keeper.store


def test_too_few_reachable_owners_are_not_asked_and_the_entry_stays() -> None:
    keeper = aged(up=(1,))
    assert (keeper.reads, len(keeper.store)) == ([], 1)
    keeper.up(3)
    keeper.wait(61 * SECOND_US)
    assert [node for node, _ in keeper.reads] == [1, 3]


def test_a_newer_write_keeps_an_entry_that_is_being_asked_about() -> None:
    keeper = aged()
    request = keeper.reads[0][1].id
    keeper.age_ms = 0
    keeper.keep(state=NEWER)
    keeper.hear_read(1, request, STATE)
    keeper.hear_read(3, request, STATE)
    assert keeper.store


def test_an_entry_that_is_too_old_is_delivered_all_the_same_when_its_owner_is_there() -> None:
    keeper = aged(up=(1, 2, 3))
    assert keeper.reads == []
    assert keeper.sent().key == KEY


def test_an_entry_that_is_not_too_old_is_asked_about_by_nobody() -> None:
    keeper = Keeper(up=(1, 3), age_ms=2 * HOUR_MS)
    keeper.keep()
    keeper.wait(2 * SECOND_US)
    assert keeper.reads == []


def test_what_an_owner_says_that_it_holds_is_no_acknowledgement_of_a_delivery() -> None:
    keeper, write = delivering()
    keeper.hear_read(AWAY, write.id, STATE)
    assert keeper.store


# ---- when it wakes ------------------------------------------------------------------------------


@pytest.mark.parametrize("up", [(), (1, 3), (1, 2, 3)], ids=["alone", "others", "owner"])
@pytest.mark.parametrize("age_ms", [0, 4 * HOUR_MS], ids=["young", "old"])
def test_a_minute_in_which_nobody_answers_costs_few_turns(
    up: tuple[NodeNumber, ...], age_ms: int
) -> None:
    keeper = Keeper(up=up, age_ms=age_ms)
    keeper.keep(3)
    turns, ends = 0, NOW + 60 * SECOND_US
    while (wakes_at := keeper.handoff.next_wake()) is not None and wakes_at < ends:
        keeper.wait(wakes_at - keeper.now)
        turns += 1
        assert turns < 90
    assert turns > 0


events = st.lists(
    st.tuples(
        st.sampled_from(["up", "down", "keep", "ack", "refuse", "scan", "wait", "wait", "long"]),
        st.integers(1, 4),
        st.booleans(),
    ),
    max_size=40,
)


@given(events)
def test_it_never_wakes_at_an_instant_that_has_passed(
    history: list[tuple[str, NodeNumber, bool]],
) -> None:
    keeper = Keeper(hint_window=4, hint_age_ms=20_000)
    for what, node, is_busy in history:
        keeper.is_busy = is_busy
        step(keeper, what, node)
        wakes_at = keeper.handoff.next_wake()
        assert wakes_at is None or wakes_at > keeper.now
        if keeper.hints.pending:
            assert wakes_at is not None or keeper.scans
        else:
            assert wakes_at is None


@given(events)
def test_after_any_history_all_is_delivered_once_owners_are_there_and_answer(
    history: list[tuple[str, NodeNumber, bool]],
) -> None:
    keeper = Keeper(hint_window=4, hint_age_ms=20_000)
    for what, node, is_busy in history:
        keeper.is_busy = is_busy
        step(keeper, what, node)
    for node in (1, 2, 3, 4):
        keeper.up(node)
    for _ in range(40):
        while keeper.scans:
            keeper.scan()
        keeper.wait(SECOND_US)
        for node, write in keeper.take_writes():
            keeper.hear(node, write.id)
    assert (keeper.store, keeper.handoff.under_way) == ({}, 0)
    assert keeper.handoff.next_wake() is None


def step(keeper: Keeper, what: str, node: NodeNumber) -> None:
    """Let one thing happen; node 4 is no owner any more."""
    match what:
        case "up":
            keeper.up(node)
        case "down":
            keeper.down(node)
        case "keep":
            keeper.keep(owner=node)
        case "ack" | "refuse" if keeper.writes:
            status = Status.DONE if what == "ack" else Status.REFUSED_LOAD
            sender, write = keeper.writes.pop(0)
            keeper.hear(sender, write.id, status)
        case "scan" if keeper.scans:
            keeper.scan()
        case "wait" | "long":
            keeper.now = Instant(keeper.now + (SOON_US if what == "wait" else TIMEOUT_US))
            keeper.wall_ms += 0 if what == "wait" else 10_000
            keeper.turn()
        case _:
            pass  # nothing of that kind is open


def test_in_a_hurry_a_walk_that_rests_goes_on() -> None:
    keeper = Keeper(up=[AWAY])
    keeper.keep()
    keeper.wait()
    keeper.hear(AWAY, keeper.writes[-1][1].id, Status.REFUSED_LOAD)
    keeper.wait()  # to the end of the range: the walk rests now
    sent = len(keeper.writes)
    keeper.turn()
    assert keeper.scans == []
    keeper.turn(lambda handoff, out: handoff.hurry())
    keeper.scan()
    assert len(keeper.writes) == sent + 1


def test_in_a_hurry_entries_of_an_absent_owner_are_not_asked_about_more_often() -> None:
    keeper = Keeper(age_ms=4 * HOUR_MS)
    keeper.keep()
    keeper.wait()
    keeper.turn(lambda handoff, out: handoff.hurry())
    assert keeper.scans == []


def test_what_is_under_way_to_others_goes_on_when_an_owner_is_lost() -> None:
    keeper = Keeper(up=(1, 2, 3))
    keeper.keep(owner=2)
    keeper.keep(owner=3)
    keeper.wait()
    sent = dict(keeper.take_writes())
    keeper.down(2)
    assert keeper.handoff.under_way == 1
    keeper.hear(3, sent[3].id)
    assert list(keeper.store) == [hint_key(2, KEY)]
