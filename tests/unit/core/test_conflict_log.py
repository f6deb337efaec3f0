"""The conflict log: entries show what was lost to what; counts are kept as they change."""

from __future__ import annotations

import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.bounds import LOGGED_NAMES_MAX
from kvnode.core.conflict_log import (
    ConflictLog,
    DamagedEntry,
    Entry,
    decode_entry,
    encode_entry,
    end_before,
    entry_of,
)
from kvnode.core.keys import encode_key
from kvnode.core.record import encode
from kvnode.core.versions import Record, check
from tests.unit.core.builders import KEY, WALL_MS, dot, record, stamp, tombstone, version

LOST = version("a1", b"lost", ms=1, expires_ms=WALL_MS + 9)
STATE = record(LOST, version("b1", ms=2), votes=((1, "a1"), (2, "b1"), (3, "b1")))


def entry(state: Record = STATE, loser: str = "a1", winner: str = "b1", ms: int = 0) -> Entry:
    return entry_of(
        state,
        KEY,
        time_ms=WALL_MS + ms,
        winner=dot(winner),
        loser=dot(loser),
        rule="most votes: 2 to 1",
    )


def sizes(pairs: list[tuple[bytes, bytes]]) -> int:
    return sum(len(name) + len(value) for name, value in pairs)


def test_an_entry_holds_the_loser_whole_with_its_votes_and_what_it_lost_to() -> None:
    kept = entry()
    check(kept.loser)
    assert kept.loser.versions == (LOST,)
    assert [vote.owner for vote in kept.loser.votes] == [1]
    assert (kept.winner, kept.winner_timestamp) == (dot("b1"), stamp(2))


@pytest.mark.parametrize("loser", [LOST, tombstone("a1"), version("a1", b"")])
def test_decoding_inverts_encoding(loser: object) -> None:
    state = record(loser, version("b1", ms=2))  # type: ignore[arg-type]
    assert decode_entry(*encode_entry(entry(state))) == entry(state)


def test_entries_are_in_the_order_of_their_times() -> None:
    older, newer = encode_entry(entry(ms=-1))[0], encode_entry(entry(ms=0))[0]
    assert older < end_before(WALL_MS) <= newer


def test_two_losers_of_one_conflict_have_two_names() -> None:
    state = record(LOST, version("b1", ms=2), version("c1", ms=1))
    assert encode_entry(entry(state, "a1"))[0] != encode_entry(entry(state, "c1"))[0]


def test_every_flipped_byte_of_the_loser_every_cut_and_every_other_format_is_refused() -> None:
    name, value = encode_entry(entry())
    start = value.index(b"1") + 1  # the end of the rule, which is for people alone
    for at in [0, *range(start, len(value))]:
        broken = value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
        with pytest.raises(DamagedEntry):
            decode_entry(name, broken)
    for length in range(len(value)):
        with pytest.raises(DamagedEntry):
            decode_entry(name, value[:length])
    for length in range(len(name)):
        with pytest.raises(DamagedEntry):
            decode_entry(name[:length], value)


def test_an_entry_under_another_key_is_refused() -> None:
    name, value = encode_entry(entry())
    other = encode_key("default", b"q")
    with pytest.raises(DamagedEntry):
        decode_entry(name.replace(KEY, other), value)


def test_the_counts_are_those_of_a_fresh_count() -> None:
    log, batch = ConflictLog(bytes_max=1 << 20), WriteBatch()
    assert log.add(batch, [entry(), entry(ms=1)])
    log.note_open(1)
    pairs = [(name, value or b"") for family, name, value in batch.changes]
    assert {family for family, _, _ in batch.changes} == {Family.CONFLICT_LOG}
    fresh = ConflictLog(bytes_max=1 << 20)
    fresh.load(1, pairs)
    assert (log.open, log.entries, log.bytes) == (fresh.open, fresh.entries, fresh.bytes)
    assert (log.open, log.entries, log.bytes) == (1, 2, sizes(pairs))


def test_an_entry_that_is_logged_again_is_no_second_one() -> None:
    log, batch = ConflictLog(bytes_max=1 << 20), WriteBatch()
    assert log.add(batch, [entry()])
    assert log.add(batch, [entry()])
    assert log.entries == len(batch) == 1


def test_an_entry_that_a_later_life_logs_again_is_no_second_one() -> None:
    log, batch = ConflictLog(bytes_max=1 << 20), WriteBatch()
    log.load(0, [encode_entry(entry())])
    assert log.add(batch, [entry()])
    assert (log.entries, len(batch)) == (1, 0)


def test_of_logged_entries_a_bounded_number_is_remembered() -> None:
    log = ConflictLog(bytes_max=1 << 30)
    for ms in range(LOGGED_NAMES_MAX + 5):
        log.add(WriteBatch(), [entry(ms=ms)])
    assert len(log._recent) == LOGGED_NAMES_MAX


def test_a_full_log_takes_all_losers_of_a_conflict_or_none() -> None:
    size = sizes([encode_entry(entry())])
    log, batch = ConflictLog(bytes_max=2 * size - 1), WriteBatch()
    assert not log.add(batch, [entry(), entry(ms=1)])
    assert (log.entries, log.bytes, len(batch)) == (0, 0, 0)
    assert log.add(batch, [entry()])
    assert not log.add(batch, [entry(ms=1)])


def test_what_is_purged_makes_room() -> None:
    log, batch = ConflictLog(bytes_max=sizes([encode_entry(entry())])), WriteBatch()
    assert log.add(batch, [entry()])
    assert log.purge(batch, [encode_entry(entry())]) == 1
    assert batch.changes[-1] == (Family.CONFLICT_LOG, encode_entry(entry())[0], None)
    assert (log.entries, log.bytes) == (0, 0)
    assert log.add(batch, [entry(ms=1)])


@pytest.mark.parametrize("count", [0, 2])
def test_an_entry_of_no_version_or_of_several_is_refused(count: int) -> None:
    name, value = encode_entry(entry())
    head = value.removesuffix(encode(KEY, entry().loser))
    assert decode_entry(name, value) == entry()
    losers = record(*(version(f"{actor}1") for actor in "ab"[:count]))
    with pytest.raises(DamagedEntry, match=f"{count} versions"):
        decode_entry(name, head + encode(KEY, losers))
