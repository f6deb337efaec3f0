"""The bytes of a record: they round-trip, they are bound to their key, and damage never passes."""

from __future__ import annotations

import struct

import pytest

from kvnode.core.bounds import CONTEXT_ENTRIES_MAX, RECORD_BYTES_MAX, SIBLINGS_MAX, VOTES_MAX
from kvnode.core.keys import encode_key
from kvnode.core.record import (
    FORMAT,
    DamagedRecord,
    cast_vote,
    core_of,
    decode,
    decode_pairs,
    encode,
    encode_pairs,
    fits,
    read_lone,
    seal,
    verify,
)
from kvnode.core.versions import EMPTY, Context, Dot, Record, Version, Vote, with_vote
from tests.unit.core.builders import KEY, context, dot, record, stamp, tombstone, version

OTHER_KEY = encode_key("default", b"other")

FULL = record(
    version("a1", b"value", ms=3, expires_ms=99, is_explicit=True),
    tombstone("b2"),
    version("c3", b"", type_tag=7, compression=5, extension=b"of a later format"),
    seen=context("a1", "b2", "d9", single=("c3", "e4")),
    votes=((1, "a1"), (2, "a1"), (2, "c3"), (0xFFFF_FFFF, "b2")),
)


@pytest.mark.parametrize("state", [EMPTY, record(seen=context("a1")), record(version("a1")), FULL])
def test_decode_gives_back_what_was_encoded(state: Record) -> None:
    data = encode(KEY, state)
    verify(KEY, data)
    assert decode(KEY, data) == state


def test_encoding_is_canonical_whatever_the_order_of_a_context() -> None:
    forwards = record(seen=Context({1: 1, 2: 2}, frozenset((Dot(3, 3), Dot(4, 4)))))
    backwards = record(seen=Context({2: 2, 1: 1}, frozenset((Dot(4, 4), Dot(3, 3)))))
    assert encode(KEY, forwards) == encode(KEY, backwards)


def test_a_large_context_round_trips() -> None:
    vector = {actor: actor * 3 for actor in range(1, CONTEXT_ENTRIES_MAX + 1)}
    state = record(seen=Context(vector))
    assert decode(KEY, encode(KEY, state)) == state


@pytest.mark.parametrize("state", [record(version("a1")), FULL], ids=["one", "full"])
def test_any_flipped_bit_is_noticed_by_both_readers(state: Record) -> None:
    data = encode(KEY, state)
    for place in range(len(data)):
        for bit in range(8):
            bad = bytearray(data)
            bad[place] ^= 1 << bit
            with pytest.raises(DamagedRecord):
                decode(KEY, bytes(bad))
            with pytest.raises(DamagedRecord):
                verify(KEY, bytes(bad))


def test_a_record_cut_short_anywhere_is_damaged() -> None:
    data = encode(KEY, FULL)
    for end in range(len(data)):
        with pytest.raises(DamagedRecord):
            decode(KEY, data[:end])
        with pytest.raises(DamagedRecord):
            verify(KEY, data[:end])


def test_trailing_bytes_are_damage() -> None:
    with pytest.raises(DamagedRecord, match="ends at"):
        decode(KEY, encode(KEY, FULL) + b"\x00")


def test_a_sound_record_under_another_key_is_damaged() -> None:
    with pytest.raises(DamagedRecord, match="head checksum differs"):
        decode(OTHER_KEY, encode(KEY, FULL))


def test_a_versions_own_checksum_is_bound_to_its_key() -> None:
    moved = encode(OTHER_KEY, record(version("a1", key=KEY)))
    with pytest.raises(DamagedRecord, match="version's checksum"):
        decode(OTHER_KEY, moved)


def test_a_newer_format_is_named_in_the_refusal() -> None:
    data = bytearray(encode(KEY, EMPTY))
    data[0] = FORMAT + 1
    with pytest.raises(DamagedRecord, match=r"format 2 is not known here \(this is 1\)"):
        decode(KEY, bytes(data))


def test_more_entries_than_a_record_may_have_are_refused_however_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = encode(KEY, record(version("a1"), version("b1")))
    monkeypatch.setattr("kvnode.core.record.SIBLINGS_MAX", 1)
    with pytest.raises(DamagedRecord, match="more entries"):
        decode(KEY, data)


def test_a_vote_for_a_version_that_is_not_there_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvnode.core.record._encode_votes", lambda _: struct.pack("<IB", 1, 9))
    data = encode(KEY, record(version("a1"), votes=((1, "a1"),)))
    with pytest.raises(DamagedRecord, match="cut short"):
        decode(KEY, data)


# ---- cores --------------------------------------------------------------------------------------


def test_equal_states_have_equal_cores_whatever_their_votes() -> None:
    one = encode(KEY, record(version("a1"), votes=((1, "a1"),)))
    other = encode(KEY, record(version("a1"), votes=((2, "a1"), (3, "a1"))))
    assert one != other
    assert core_of(one) == core_of(other)


@pytest.mark.parametrize(
    "other",
    [
        record(version("a1", b"other")),
        record(version("a1", ms=1)),
        record(version("a1"), seen=context("a2")),
        record(version("a1"), seen=context("a1", single=("b1",))),
        record(tombstone("a1")),
    ],
)
def test_different_states_have_different_cores(other: Record) -> None:
    assert core_of(encode(KEY, other)) != core_of(encode(KEY, record(version("a1"))))


def test_no_core_begins_with_another() -> None:
    states = [EMPTY, record(version("a1")), FULL, record(seen=context("a1"))]
    cores = [core_of(encode(KEY, state)) for state in states]
    assert not any(a.startswith(b) for a in cores for b in cores if a is not b)


# ---- the short way through a record of one version ----------------------------------------------

LONE = [
    record(version("a1")),
    record(version("a1", b"", extension=b"ext", expires_ms=5), seen=context("a4", "b2")),
    record(tombstone("c3", ms=8), votes=((1, "c3"), (4, "c3"))),
]


@pytest.mark.parametrize("state", LONE)
def test_a_lone_version_is_read_as_decode_would(state: Record) -> None:
    [held] = state.versions
    lone = read_lone(KEY, encode(KEY, state))
    assert lone is not None
    assert (lone.context, lone.dot) == (state.context.vector, held.dot)
    assert (lone.timestamp, lone.write_id) == (held.timestamp, held.write_id)
    assert lone.is_tombstone is held.is_tombstone


@pytest.mark.parametrize(
    "state", [EMPTY, FULL, record(version("a1"), seen=context("a1", single=("b1",)))]
)
def test_any_other_record_is_not_taken_for_a_lone_version(state: Record) -> None:
    assert read_lone(KEY, encode(KEY, state)) is None


@pytest.mark.parametrize("state", [*LONE, FULL])
def test_the_short_way_notices_any_flipped_bit_and_any_cut(state: Record) -> None:
    data = encode(KEY, state)
    flipped = [
        data[:place] + bytes((data[place] ^ 1 << bit,)) + data[place + 1 :]
        for place in range(len(data))
        for bit in range(8)
    ]
    for bad in [*flipped, *(data[:end] for end in range(len(data))), data + b"#"]:
        with pytest.raises(DamagedRecord):
            read_lone(KEY, bad)


@pytest.mark.parametrize("state", LONE)
@pytest.mark.parametrize("owner", [0, 1, 2, 9, 0xFFFF_FFFF])
def test_a_vote_cast_on_the_bytes_is_a_vote_cast_on_the_record(state: Record, owner: int) -> None:
    voted = with_vote(state, Vote(owner, state.versions[0].dot))
    assert cast_vote(KEY, encode(KEY, state), owner) == encode(KEY, voted)


@pytest.mark.parametrize("owner", [3, 5, 7, 300])
def test_a_vote_cast_beside_one_other_keeps_their_order(owner: int) -> None:
    state = with_vote(LONE[0]._replace(votes=()), Vote(5, LONE[0].versions[0].dot))
    voted = with_vote(state, Vote(owner, state.versions[0].dot))
    assert cast_vote(KEY, encode(KEY, state), owner) == encode(KEY, voted)


# ---- seals --------------------------------------------------------------------------------------


def sealed(**changes: object) -> Version:
    fields: dict[str, object] = {
        "dot": dot("a1"), "timestamp": stamp(), "write_id": b"w" * 16, "value": b"v"
    }  # fmt: skip
    return seal(KEY, **(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"dot": dot("a2")}, {"timestamp": stamp(1)}, {"write_id": b"x" * 16}, {"value": b"w"},
        {"expires_ms": 1}, {"is_tombstone": True}, {"is_explicit": True}, {"type_tag": 1},
        {"compression": 1}, {"extension": b"e"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_the_seal_is_over_every_field(change: dict[str, object]) -> None:
    assert sealed(**change).checksum != sealed().checksum


def test_bytes_moved_from_the_extension_to_the_value_break_the_seal() -> None:
    one, other = sealed(extension=b"ab", value=b"c"), sealed(extension=b"a", value=b"bc")
    assert one.checksum != other.checksum


# ---- bounds -------------------------------------------------------------------------------------


def siblings(count: int) -> Record:
    return record(*(version(f"a{number}") for number in range(1, count + 1)))


def votes(count: int) -> Record:
    return record(version("a1"))._replace(
        votes=tuple(Vote(owner, dot("a1")) for owner in range(count))
    )


def entries(count: int) -> Record:
    return record(seen=Context(dict.fromkeys(range(1, count), 1), frozenset((Dot(999, 9),))))


@pytest.mark.parametrize(
    ("make", "most"),
    [(siblings, SIBLINGS_MAX), (votes, VOTES_MAX), (entries, CONTEXT_ENTRIES_MAX)],
)
def test_a_record_fits_up_to_each_bound_and_not_beyond(make: object, most: int) -> None:
    within, beyond = make(most), make(most + 1)  # type: ignore[operator]
    assert fits(within)
    assert decode(KEY, encode(KEY, within)) == within
    assert not fits(beyond)
    with pytest.raises(AssertionError):
        encode(KEY, beyond)


def test_siblings_fit_up_to_what_one_message_can_carry() -> None:
    half = RECORD_BYTES_MAX // 2
    within = record(version("a1", bytes(half)), version("b1", bytes(half)))
    beyond = record(version("a1", bytes(half)), version("b1", bytes(half + 1)))
    assert (fits(within), fits(beyond)) == (True, False)


@pytest.mark.parametrize("seen", [context(), context("a1"), context("b2", "a1", single=("c3",))])
def test_pairs_round_trip_from_any_place(seen: Context) -> None:
    data = b"###" + encode_pairs(seen)
    assert decode_pairs(data, 3, len(seen.vector), len(seen.dots)) == seen
