"""Hints: what is kept for whom, that the ledger adds up, and when an entry may go.

A test drives one `Hints` over a dict that takes each turn's batch, as a store would.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.hints import (
    Hint,
    Hints,
    HintsFull,
    Ledger,
    UnreadableHint,
    decode_hint,
    encode_hint,
    hint_key,
    owner_bounds,
    split_hint_key,
)
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.messages import NodeNumber
from kvnode.core.record import encode
from kvnode.core.versions import EMPTY, Record, sync
from tests.unit.core.builders import KEY, WALL_MS, record, version

OWNER, OTHER = 2, 3
NAME = hint_key(OWNER, KEY)
STATE = record(version("a1"))
NEWER = record(version("a2", b"longer than it was", ms=1))
ROOMY = 1 << 20


class Shelf:
    """Hints over a store of their own; a turn sees the whole of it."""

    def __init__(self, *, bytes_max: int = ROOMY, store: dict[bytes, bytes] | None = None) -> None:
        self.store = {} if store is None else store
        self.hints = Hints(bytes_max=bytes_max)
        self.hints.load(self.store.items())
        self.unreadable: set[bytes] = set()
        self.absent: list[bytes] = [NAME]

    def turn(self, what: Callable[[Hints], object] = lambda hints: None, ms: int = 0) -> WriteBatch:
        batch = WriteBatch()
        found = dict.fromkeys(self.absent) | self.store
        self.hints.begin(found, self.unreadable, batch, WALL_MS + ms)
        what(self.hints)
        for family, name, value in batch.changes:
            assert family is Family.HINTS
            if value is None:
                self.store.pop(name, None)
            else:
                self.store[name] = value
        self.hints.check()
        return batch

    def keep(
        self,
        owner: NodeNumber = OWNER,
        state: Record = STATE,
        key: StorageKey = KEY,
        *,
        w: int = 2,
        ms: int = 0,
    ) -> None:
        self.turn(lambda hints: hints.keep(owner, key, state, w=w), ms)

    def sends(self, request: int) -> None:
        self.turn(lambda hints: hints.note_sent(NAME, request))

    def ledger(self, owner: NodeNumber = OWNER) -> Ledger:
        return self.hints.ledgers[owner]


# ---- entries ------------------------------------------------------------------------------------


def test_an_entry_comes_out_as_it_went_in() -> None:
    hint = Hint(WALL_MS, 2, encode(KEY, STATE))
    assert decode_hint(encode_hint(hint)) == hint
    assert split_hint_key(NAME) == (OWNER, KEY)


@pytest.mark.parametrize(
    "data", [b"", b"\x01short", b"\x02" + encode_hint(Hint(1, 1, encode(KEY, STATE)))[1:]]
)
def test_another_format_or_a_torn_head_is_no_entry(data: bytes) -> None:
    with pytest.raises(UnreadableHint):
        decode_hint(data)


def test_an_owners_entries_are_one_range_and_no_one_elses() -> None:
    first, end = owner_bounds(255)
    keys = [StorageKey(b""), KEY, StorageKey(b"\xff" * 40)]
    assert all(first <= hint_key(255, key) < end for key in keys)
    assert not any(first <= hint_key(owner, key) < end for owner in (254, 256) for key in keys)


# ---- keeping ------------------------------------------------------------------------------------


def test_what_is_kept_is_in_the_turns_batch_and_seen_by_the_rest_of_the_turn() -> None:
    shelf = Shelf()
    seen: list[Record] = []

    def keep_and_look(hints: Hints) -> None:
        hints.keep(OWNER, KEY, STATE, w=2)
        seen.append(hints.held(KEY, (OWNER,)))

    batch = shelf.turn(keep_and_look)
    assert [change[:2] for change in batch.changes] == [(Family.HINTS, NAME)]
    assert seen == [STATE]
    assert decode_hint(shelf.store[NAME]) == Hint(WALL_MS, 2, encode(KEY, STATE))


def test_a_newer_state_keeps_the_entrys_age_and_the_greater_w() -> None:
    shelf = Shelf()
    shelf.keep(w=3)
    shelf.keep(state=NEWER, w=1, ms=5_000)
    assert decode_hint(shelf.store[NAME]) == Hint(WALL_MS, 3, encode(KEY, NEWER))
    assert (shelf.ledger().pending, shelf.ledger().bytes) == (1, len(shelf.store[NAME]))


def test_what_is_held_of_a_key_is_all_that_is_kept_for_any_of_its_owners() -> None:
    shelf = Shelf()
    shelf.keep(OWNER, STATE)
    shelf.keep(OTHER, record(version("b1")))
    held: list[Record] = []
    shelf.turn(lambda hints: held.append(hints.held(KEY, (OWNER, OTHER))))
    shelf.turn(lambda hints: held.append(hints.held(KEY, (OTHER,))))
    shelf.turn(lambda hints: held.append(hints.held(KEY, (9,))))
    assert held == [sync(STATE, record(version("b1"))), record(version("b1")), EMPTY]


def test_a_turn_knows_which_entries_it_sees() -> None:
    shelf = Shelf()
    shelf.unreadable.add(hint_key(OTHER, KEY))
    shelf.turn()
    assert [shelf.hints.has_fetched(owner, KEY) for owner in (OWNER, OTHER, 9)] == [
        True,
        True,
        False,
    ]


# ---- what cannot be read ------------------------------------------------------------------------

SOUND = encode_hint(Hint(WALL_MS, 2, encode(KEY, STATE)))


@pytest.mark.parametrize(
    "data", [b"\x09" + SOUND[1:], SOUND[:5], SOUND[:-1] + b"#"], ids=["format", "torn", "record"]
)
def test_a_damaged_entry_is_never_taken_for_nothing(data: bytes) -> None:
    shelf = Shelf(store={NAME: data})
    with pytest.raises(UnreadableHint):
        shelf.turn(lambda hints: hints.held(KEY, (OTHER, OWNER)))


def test_an_entry_whose_read_failed_is_never_taken_for_nothing() -> None:
    shelf = Shelf()
    shelf.unreadable.add(NAME)
    shelf.absent.clear()
    with pytest.raises(UnreadableHint):
        shelf.turn(lambda hints: hints.held(KEY, (OWNER,)))


def test_an_entry_without_a_sound_head_is_not_counted_and_not_current() -> None:
    shelf = Shelf(store={NAME: SOUND[:5]})
    current: list[Hint | None] = []
    shelf.turn(lambda hints: current.append(hints.current(NAME)))
    assert (shelf.hints.pending, current) == (0, [None])


# ---- full ---------------------------------------------------------------------------------------


def test_a_write_that_does_not_fit_is_refused_and_changes_nothing() -> None:
    shelf = Shelf(bytes_max=len(SOUND))
    shelf.keep()
    before = dict(shelf.store)
    with pytest.raises(HintsFull):
        shelf.keep(OTHER)
    with pytest.raises(HintsFull):
        shelf.keep(state=NEWER)
    assert shelf.store == before
    assert (shelf.ledger(OTHER).refused, shelf.ledger().refused) == (1, 1)
    assert (shelf.ledger().pending, shelf.ledger().bytes) == (1, len(SOUND))


def test_the_last_byte_may_be_used() -> None:
    Shelf(bytes_max=len(SOUND)).keep()
    with pytest.raises(HintsFull):
        Shelf(bytes_max=len(SOUND) - 1).keep()


def test_a_smaller_state_replaces_a_greater_one_though_the_bound_was_lowered_below_both() -> None:
    shelf = Shelf()
    shelf.keep(state=NEWER)
    lowered = Hints(bytes_max=1)
    lowered.load(shelf.store.items())
    lowered.begin(shelf.store, frozenset(), WriteBatch(), WALL_MS)
    lowered.keep(OWNER, KEY, record(version("a3", b"", ms=2)), w=2)
    assert lowered.ledgers[OWNER].bytes == len(SOUND) - len(b"a1")


def test_without_room_for_hints_every_one_is_refused() -> None:
    with pytest.raises(HintsFull):
        Shelf(bytes_max=0).keep()


# ---- leaving ------------------------------------------------------------------------------------


def test_an_entry_leaves_once_its_delivery_is_acknowledged() -> None:
    shelf = Shelf()
    shelf.keep()
    shelf.sends(7)
    assert shelf.hints.is_sent(NAME)
    batch = shelf.turn(lambda hints: hints.on_delivered(NAME, 7))
    assert batch.changes == [(Family.HINTS, NAME, None)]
    assert shelf.ledger() == Ledger(delivered=1)
    assert not shelf.hints.is_sent(NAME)


def test_an_entry_that_is_given_up_is_counted_apart() -> None:
    shelf = Shelf()
    shelf.keep()
    shelf.sends(7)
    shelf.turn(lambda hints: hints.give_up(NAME, 7))
    assert (shelf.store, shelf.ledger()) == ({}, Ledger(aged=1))


@pytest.mark.parametrize("leave", [Hints.on_delivered, Hints.give_up])
def test_a_newer_write_for_an_entry_under_delivery_keeps_it(
    leave: Callable[[Hints, bytes, int], None],
) -> None:
    shelf = Shelf()
    shelf.keep()
    shelf.sends(7)
    shelf.keep(state=NEWER)
    assert not shelf.hints.is_sent(NAME)
    shelf.turn(lambda hints: leave(hints, NAME, 7))
    assert decode_hint(shelf.store[NAME]).record == encode(KEY, NEWER)
    assert (shelf.ledger().pending, shelf.ledger().delivered, shelf.ledger().aged) == (1, 0, 0)


def test_an_entry_stays_when_its_request_comes_to_nothing_and_may_be_sent_again() -> None:
    shelf = Shelf()
    shelf.keep()
    shelf.sends(7)
    shelf.turn(lambda hints: hints.forget_sent(NAME, 7))
    assert not shelf.hints.is_sent(NAME)
    shelf.turn(lambda hints: hints.on_delivered(NAME, 7))
    assert NAME in shelf.store


def test_the_end_of_an_earlier_request_says_nothing_of_a_later_one() -> None:
    shelf = Shelf()
    shelf.keep()
    shelf.sends(7)
    shelf.keep(state=NEWER)
    shelf.sends(8)
    shelf.turn(lambda hints: hints.forget_sent(NAME, 7))
    shelf.turn(lambda hints: hints.on_delivered(NAME, 7))
    assert shelf.hints.is_sent(NAME)
    shelf.turn(lambda hints: hints.on_delivered(NAME, 8))
    assert shelf.store == {}


def test_what_comes_after_an_entry_left_in_the_same_turn_is_a_new_entry() -> None:
    shelf = Shelf()
    shelf.keep()
    shelf.sends(7)

    def leave_and_keep(hints: Hints) -> None:
        hints.on_delivered(NAME, 7)
        hints.keep(OWNER, KEY, NEWER, w=2)

    shelf.turn(leave_and_keep, ms=3_000)
    assert decode_hint(shelf.store[NAME]).created_ms == WALL_MS + 3_000
    assert (shelf.ledger().pending, shelf.ledger().delivered) == (1, 1)


# ---- the ledger ---------------------------------------------------------------------------------


def test_the_oldest_is_told_to_the_second_and_goes_with_its_entry() -> None:
    shelf = Shelf()
    shelf.keep(ms=-9_500)
    shelf.keep(key=encode_key("default", b"other"), ms=-2_000)
    assert shelf.ledger().oldest_ms == WALL_MS - 10_000
    shelf.sends(7)
    shelf.turn(lambda hints: hints.on_delivered(NAME, 7))
    assert shelf.ledger().oldest_ms == WALL_MS - 2_000
    assert Ledger().oldest_ms == 0


def test_a_new_life_counts_what_earlier_ones_left() -> None:
    shelf = Shelf()
    shelf.keep(ms=-4_000)
    shelf.keep(OTHER)
    again = Shelf(store=shelf.store)
    assert again.hints.ledgers == shelf.hints.ledgers
    assert again.hints.pending == 2


KEYS = [encode_key("default", b"%d" % number) for number in range(2)]
NARROW = 400
"""Bytes: three small entries, and seldom a fourth."""

moves = st.lists(
    st.tuples(
        st.sampled_from(["keep", "keep", "send", "deliver", "give up", "forget", "restart"]),
        st.integers(1, 2),
        st.sampled_from(KEYS),
        st.integers(0, 2),
    ),
    max_size=40,
)


def play(shelf: Shelf, what: str, name: bytes, number: int) -> Shelf:
    """Do one thing to an entry; `number` is its size or the request that is answered."""
    hints = shelf.hints
    match what:
        case "keep":
            owner, key = split_hint_key(name)
            state = record(version("a1", b"v" * 60 * number))
            with contextlib.suppress(HintsFull):
                shelf.keep(owner, state, key, ms=700 * number)
        case "send" if name in shelf.store:
            shelf.turn(lambda _: hints.note_sent(name, number))
        case "deliver":
            shelf.turn(lambda _: hints.on_delivered(name, number))
        case "give up":
            shelf.turn(lambda _: hints.give_up(name, number))
        case "forget":
            shelf.turn(lambda _: hints.forget_sent(name, number))
        case "restart":
            return Shelf(bytes_max=NARROW, store=shelf.store)
        case _:
            pass  # sent, but nothing is kept under that name
    return shelf


@given(moves)
def test_the_ledger_is_that_of_a_fresh_count_after_any_history(
    history: list[tuple[str, int, StorageKey, int]],
) -> None:
    shelf = Shelf(bytes_max=NARROW)
    shelf.absent = [hint_key(owner, key) for owner in (1, 2) for key in KEYS]
    for what, owner, key, number in history:
        shelf = play(shelf, what, hint_key(owner, key), number)
        counted = Shelf(bytes_max=NARROW, store=shelf.store).hints.ledgers
        # What became of the rest is this life's alone: a fresh count cannot know it.
        kept = {
            owner: replace(ledger, delivered=0, aged=0, refused=0)
            for owner, ledger in shelf.hints.ledgers.items()
            if ledger.pending
        }
        assert kept == counted
        assert sum(map(len, shelf.store.values())) <= NARROW


@given(moves)
def test_every_entry_that_was_ever_kept_is_pending_or_accounted_for(
    history: list[tuple[str, int, StorageKey, int]],
) -> None:
    shelf, begun = Shelf(bytes_max=NARROW), 0
    shelf.absent = [hint_key(owner, key) for owner in (1, 2) for key in KEYS]
    for what, owner, key, number in history:
        if what == "restart":
            continue
        before = hint_key(owner, key) in shelf.store
        shelf = play(shelf, what, hint_key(owner, key), number)
        begun += not before and hint_key(owner, key) in shelf.store
    ledgers = shelf.hints.ledgers.values()
    assert begun == sum(each.pending + each.delivered + each.aged for each in ledgers)
