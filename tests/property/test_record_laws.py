"""The laws of kvnode.core.record: what is decoded is what was encoded, or it is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.hlc import Timestamp
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.record import DamagedRecord, Encoded, core_of, decode, encode, seal, verify
from kvnode.core.versions import Context, Dot, Record, Version, Vote, join

_U64 = st.integers(0, (1 << 64) - 1)
_ACTORS = st.integers(1, (1 << 64) - 1)
keys = st.builds(encode_key, st.sampled_from(["default", "carts"]), st.binary(min_size=1))


@st.composite
def records(draw: st.DrawFn, key: StorageKey) -> Record:
    """Return a record that `check` accepts, with every field in use."""
    dots = draw(st.lists(st.builds(Dot, _ACTORS, st.integers(1, 9)), max_size=4, unique=True))
    versions = tuple(_version(draw, key, dot) for dot in sorted(dots))
    held = Context({}, frozenset(dots))
    vector = draw(st.dictionaries(_ACTORS, st.integers(1, 1 << 40), max_size=4))
    votes = {
        Vote(draw(st.integers(1, 9)), dot) for dot in dots for _ in range(draw(st.integers(0, 2)))
    }
    return Record(join(Context(vector), held), versions, tuple(sorted(votes)))


def _version(draw: st.DrawFn, key: StorageKey, dot: Dot) -> Version:
    return seal(
        key,
        dot=dot,
        timestamp=Timestamp(draw(_U64)),
        write_id=draw(st.binary(min_size=16, max_size=16)),
        value=draw(st.binary(max_size=40)),
        expires_ms=draw(_U64),
        is_tombstone=draw(st.booleans()),
        is_explicit=draw(st.booleans()),
        type_tag=draw(st.integers(0, 255)),
        compression=draw(st.integers(0, 15)),
        extension=draw(st.binary(max_size=5)),
    )


keyed = keys.flatmap(lambda key: st.tuples(st.just(key), records(key)))


@given(keyed)
def test_decode_inverts_encode(pair: tuple[StorageKey, Record]) -> None:
    key, record = pair
    data = encode(key, record)
    verify(key, data)
    assert decode(key, data) == record
    assert encode(key, decode(key, data)) == data


@given(keyed, st.data())
def test_any_flipped_byte_is_refused(pair: tuple[StorageKey, Record], data: st.DataObject) -> None:
    key, record = pair
    sound = encode(key, record)
    place = data.draw(st.integers(0, len(sound) - 1))
    flip = data.draw(st.integers(1, 255))
    _assert_refused(key, sound[:place] + bytes([sound[place] ^ flip]) + sound[place + 1 :])


@given(keyed, st.data())
def test_any_cut_is_refused(pair: tuple[StorageKey, Record], data: st.DataObject) -> None:
    key, record = pair
    sound = encode(key, record)
    _assert_refused(key, sound[: data.draw(st.integers(0, len(sound) - 1))])
    _assert_refused(key, sound + b"\x00")


@given(keyed, keys)
def test_a_record_under_a_foreign_key_is_refused(
    pair: tuple[StorageKey, Record], other: StorageKey
) -> None:
    key, record = pair
    if other != key:
        _assert_refused(other, encode(key, record))


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    _assert_refused(encode_key("default", b"k"), noise)


@given(keyed)
def test_votes_are_no_part_of_the_core(pair: tuple[StorageKey, Record]) -> None:
    key, record = pair
    bare = encode(key, record._replace(votes=()))
    assert core_of(encode(key, record)) == core_of(bare)


def _assert_refused(key: StorageKey, data: bytes) -> None:
    for attempt in (verify, decode):
        with pytest.raises(DamagedRecord):
            attempt(key, Encoded(data))
