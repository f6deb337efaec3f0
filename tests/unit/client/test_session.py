"""The laws of kvclient.session."""

from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvclient.bounds import Bounds
from kvclient.errors import InvalidRequest
from kvclient.session import Session, pack_pairs, pairs_of
from tests.unit.client.fakes import context_of

CLUSTER = b"c" * 16


def session_of(**bounds: int) -> Session:
    session = Session(bounds=Bounds(**bounds))
    session.bind(CLUSTER, 4)
    return session


def remember(session: Session, key: bytes, context: bytes, *, partition: int = 0) -> None:
    sent, _ = session.recall("default", key, partition)
    session.remember("default", key, partition, context=context, sent=sent)


def test_what_was_returned_last_is_sent_next() -> None:
    session = session_of()
    remember(session, b"k", context_of((1, 1)))
    remember(session, b"k", context_of((1, 2)))
    assert session.recall("default", b"k", 0) == (context_of((1, 2)), b"")
    assert session.recall("other", b"k", 0) == (b"", b"")


def test_an_absent_answer_forgets_nothing() -> None:
    session = session_of()
    remember(session, b"k", context_of((1, 1)))
    remember(session, b"k", b"")
    assert session.recall("default", b"k", 0)[0] == context_of((1, 1))


def test_an_older_answer_that_comes_late_changes_nothing() -> None:
    session = session_of()
    remember(session, b"k", context_of((1, 5), (2, 2)))
    session.remember("default", b"k", 0, context=context_of((1, 3)), sent=b"")
    assert session.recall("default", b"k", 0) == (context_of((1, 5), (2, 2)), b"")


def test_concurrent_answers_are_both_covered_by_what_is_sent() -> None:
    session = session_of()
    remember(session, b"k", context_of((1, 5)))
    session.remember("default", b"k", 0, context=context_of((2, 7)), sent=b"")
    context, beside = session.recall("default", b"k", 0)
    assert context == context_of((2, 7))
    assert beside == pack_pairs([(1, 5)])


def test_a_single_dot_of_a_later_answer_does_not_stand_for_all_below_it() -> None:
    # A put with an old explicit context: its answer covers that context and the put, no more.
    session = session_of()
    remember(session, b"k", context_of((1, 7)))
    session.remember(
        "default", b"k", 0, context=context_of((1, 1), (1, 10), dots=1), sent=context_of((1, 1))
    )
    context, beside = session.recall("default", b"k", 0)
    assert context == context_of((1, 1), (1, 10), dots=1)
    assert beside == pack_pairs([(1, 7)])


def test_a_single_dot_that_both_answers_have_is_not_asked_for_again() -> None:
    session = session_of()
    remember(session, b"k", context_of((1, 1), (2, 9), dots=1))
    session.remember("default", b"k", 0, context=context_of((1, 2), (2, 9), dots=1), sent=b"")
    assert session.recall("default", b"k", 0) == (context_of((1, 2), (2, 9), dots=1), b"")


def test_of_answers_that_crossed_the_one_with_single_dots_leads() -> None:
    # Beside the other they would stand for all below them, which may never have been anywhere.
    session = session_of()
    remember(session, b"k", context_of((1, 1), (1, 10), dots=1))
    session.remember("default", b"k", 0, context=context_of((1, 1), (2, 5)), sent=b"")
    context, beside = session.recall("default", b"k", 0)
    assert context == context_of((1, 1), (1, 10), dots=1)
    assert beside == pack_pairs([(2, 5)])


def test_what_finds_no_room_beside_a_context_is_counted_as_forgotten() -> None:
    session = session_of(session_partition_pairs=1)
    remember(session, b"k", context_of((1, 5), (2, 5)))
    session.remember("default", b"k", 0, context=context_of((3, 7)), sent=b"")
    assert session.forgotten == 1


def test_an_answer_that_covers_what_stood_beside_clears_it() -> None:
    session = session_of()
    remember(session, b"k", context_of((1, 5)))
    session.remember("default", b"k", 0, context=context_of((2, 7)), sent=b"")
    remember(session, b"k", context_of((1, 5), (2, 8)))
    assert session.recall("default", b"k", 0) == (context_of((1, 5), (2, 8)), b"")


def test_an_evicted_context_lives_on_in_the_watermark_of_its_partition() -> None:
    session = session_of(session_keys=1)
    remember(session, b"a", context_of((1, 5)), partition=3)
    remember(session, b"b", context_of((1, 9)), partition=3)
    assert session.recall("default", b"a", 3) == (b"", pack_pairs([(1, 5)]))
    assert session.recall("default", b"x", 4) == (b"", b"")
    assert session.recall("default", b"b", 3) == (context_of((1, 9)), b"")


def test_the_key_that_was_not_used_for_longest_is_evicted() -> None:
    session = session_of(session_keys=2)
    for key in (b"a", b"b", b"a", b"c"):
        remember(session, key, context_of((1, 1)))
    assert session.recall("default", b"a", 0)[0]
    assert not session.recall("default", b"b", 0)[0]


def test_past_its_bound_a_watermark_drops_the_stalest_actor_and_counts_it() -> None:
    session = session_of(session_keys=1, session_partition_pairs=2)
    for actor, counter in ((1, 1), (2, 1), (1, 2), (3, 1)):
        remember(session, b"k%d" % actor, context_of((actor, counter)))
    remember(session, b"last", context_of((9, 1)))
    assert session.recall("default", b"new", 0)[1] == pack_pairs([(1, 2), (3, 1)])
    assert session.forgotten == 1


def test_the_watermarks_of_all_partitions_are_bounded_together() -> None:
    session = session_of(session_keys=1, session_pairs=3)
    for partition in range(10):
        remember(session, b"k%d" % partition, context_of((1, 1)), partition=partition)
    marks = [p for p in range(10) if session.recall("default", b"new", p)[1]]
    assert len(marks) == 3
    assert session.forgotten == 6


def test_a_context_of_an_unknown_format_is_sent_back_as_it_is() -> None:
    session = session_of(session_keys=1)
    remember(session, b"a", b"\x02odd")
    remember(session, b"a", b"\x02odder")
    assert session.recall("default", b"a", 0)[0] == b"\x02odder"
    remember(session, b"b", context_of((1, 1)))
    assert session.forgotten == 1


def test_an_export_resumed_sends_the_same() -> None:
    session = session_of(session_keys=2)
    for number in range(5):
        key = b"k%d" % number
        remember(session, key, context_of((number, 3)))
    session.remember("default", b"k4", 0, context=context_of((77, 1)), sent=b"")
    resumed = Session(session.export(), bounds=Bounds(session_keys=2))
    resumed.bind(CLUSTER, 4)
    for number in range(6):
        key = b"k%d" % number
        assert resumed.recall("default", key, 0) == session.recall("default", key, 0)
    assert resumed.export() == session.export()


def test_a_token_of_another_cluster_is_refused() -> None:
    token = session_of().export()
    resumed = Session(token)
    with pytest.raises(InvalidRequest, match="another cluster"):
        resumed.bind(b"d" * 16, 4)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        "é",
        base64.urlsafe_b64encode(b"not compressed").decode(),
        base64.urlsafe_b64encode(zlib.compress(b"\x09" + b"\0" * 40)).decode(),
        base64.urlsafe_b64encode(zlib.compress(b"")).decode(),
    ],
)
def test_a_damaged_token_is_an_invalid_request(token: str) -> None:
    with pytest.raises(InvalidRequest, match="session token is damaged"):
        Session(token)


def test_a_token_that_unpacks_to_too_much_is_refused() -> None:
    bomb = base64.urlsafe_b64encode(zlib.compress(b"\0" * 10**7)).decode()
    with pytest.raises(InvalidRequest):
        Session(bomb, bounds=Bounds(session_token_bytes=1000))


@given(st.integers(0, 400), st.integers(1, 255))
def test_a_token_damaged_anywhere_resumes_or_is_refused(at: int, change: int) -> None:
    session = session_of()
    for number in range(9):
        remember(session, b"k%d" % number, context_of((number, number + 1)))
    raw = bytearray(zlib.decompress(base64.urlsafe_b64decode(session.export())))
    raw[at % len(raw)] ^= change
    token = base64.urlsafe_b64encode(zlib.compress(bytes(raw))).decode()
    try:
        Session(token).export()
    except InvalidRequest as error:
        assert "session token" in str(error)  # noqa: PT017 -- either end is right


PAIRS = st.dictionaries(st.integers(1, 4), st.integers(1, 9), min_size=1)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c"]), PAIRS), max_size=30))
def test_what_is_sent_covers_all_that_was_returned(
    answers: list[tuple[bytes, dict[int, int]]],
) -> None:
    session = session_of(session_keys=2)
    seen: dict[bytes, dict[int, int]] = {}
    for key, pairs in answers:
        session.remember("default", key, 0, context=context_of(*pairs.items()), sent=b"")
        for actor, counter in pairs.items():
            mine = seen.setdefault(key, {})
            mine[actor] = max(counter, mine.get(actor, 0))
    for key, expected in seen.items():
        context, extra = session.recall("default", key, 0)
        sent = pairs_of(context) or {} if context else {}
        beside = pairs_of(b"\x01\x00\x00" + extra + b"M" * 16) or {}
        covered = {actor: max(sent.get(actor, 0), beside.get(actor, 0)) for actor in expected}
        assert all(covered[actor] >= counter for actor, counter in expected.items())
