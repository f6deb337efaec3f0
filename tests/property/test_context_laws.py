"""The laws of kvnode.core.context: a context that was not given out masks nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.bounds import CONTEXT_ENTRIES_MAX
from kvnode.core.context import ForgedContext, open_context, seal_context
from kvnode.core.keys import encode_key
from kvnode.core.versions import NOTHING_SEEN, Context, Dot

CLUSTER_KEY = b"the key that the cluster got at birth"[:32]
KEY, OTHER_KEY = encode_key("default", b"k"), encode_key("default", b"l")
_ACTORS = st.integers(1, (1 << 64) - 1)
contexts = st.builds(
    lambda vector, dots: Context(vector, frozenset(d for d in dots if d.actor not in vector)),
    st.dictionaries(_ACTORS, st.integers(1, 1 << 60), max_size=5),
    st.lists(st.builds(Dot, _ACTORS, st.integers(1, 1 << 60)), max_size=5),
)


@given(contexts)
def test_open_inverts_seal(context: Context) -> None:
    assert open_context(CLUSTER_KEY, KEY, seal_context(CLUSTER_KEY, KEY, context)) == context


@given(contexts, st.data())
def test_any_flipped_or_missing_byte_is_refused(context: Context, data: st.DataObject) -> None:
    sealed = seal_context(CLUSTER_KEY, KEY, context)
    place = data.draw(st.integers(0, len(sealed) - 1))
    flip = data.draw(st.integers(1, 255))
    _assert_refused(sealed[:place] + bytes([sealed[place] ^ flip]) + sealed[place + 1 :])
    _assert_refused(sealed[: data.draw(st.integers(1, len(sealed) - 1))])
    _assert_refused(sealed + b"\x00")


@given(contexts)
def test_a_context_says_nothing_about_another_key_or_in_another_cluster(context: Context) -> None:
    _assert_refused(seal_context(CLUSTER_KEY, OTHER_KEY, context))
    _assert_refused(seal_context(bytes(32), KEY, context))


@given(st.binary(min_size=1, max_size=100))
def test_noise_is_refused(noise: bytes) -> None:
    _assert_refused(noise)


def test_no_bytes_are_an_empty_context() -> None:
    assert open_context(CLUSTER_KEY, KEY, b"") == NOTHING_SEEN


def test_a_context_of_ten_thousand_dots_is_refused_by_its_length() -> None:
    with pytest.raises(ForgedContext, match=f"at most {CONTEXT_ENTRIES_MAX} dots, got 10,000"):
        open_context(CLUSTER_KEY, KEY, b"\x01\x00\x00" + bytes(16 * 10_000) + bytes(16))


def _assert_refused(data: bytes) -> None:
    with pytest.raises(ForgedContext):
        open_context(CLUSTER_KEY, KEY, data)
