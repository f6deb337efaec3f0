"""What a client may say, and the words with which the rest is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvnode.core.bounds import CLIENT_TIMEOUT_MS_MAX, EXPIRES_MS_MAX, FRAME_OPERATIONS_MAX
from kvnode.core.context import seal_context
from kvnode.core.keys import encode_key
from kvnode.core.messages import ErrorCode, Failure, Instant, Outcome, ReplyReport
from kvnode.core.topology import Keyspace
from kvnode.core.versions import Context
from kvnode.runtime.edge import (
    Refused,
    decode_failure,
    encode_failure,
    name_node,
    pack_nodes,
    unpack_nodes,
)
from kvproto import kv_pb2, peer_pb2
from tests.unit.core.builders import CLUSTER_KEY, KEY, NOW, at, context, put, topology
from tests.unit.runtime.builders import edge

MORTAL = Keyspace(name="mortal", ttl_s=60)
WIDE = topology(keyspaces=[Keyspace(name="default"), MORTAL])
STAMP = 1_700_000_000_000 << 16


def gets(count: int = 1, **columns: Any) -> kv_pb2.Gets:
    fields: dict[str, Any] = {"key": [b"k"] * count, "timeout_ms": [1_000] * count} | columns
    return kv_pb2.Gets(id=range(1, count + 1), **fields)


def puts(count: int = 1, **columns: Any) -> kv_pb2.Puts:
    fields: dict[str, Any] = {
        "key": [b"k"] * count,
        "value": [b"v"] * count,
        "write_id": [bytes(16)] * count,
        "timestamp": [STAMP] * count,
        "timeout_ms": [1_000] * count,
    } | columns
    return kv_pb2.Puts(id=range(1, count + 1), **fields)


def test_a_read_comes_through_with_its_defaults() -> None:
    (get,), failures = edge().decode_gets(gets(), [])
    assert failures == []
    assert (get.id, get.key, get.keyspace.name, get.r) == (1, KEY, "default", 2)
    assert (get.seen, get.watermark, get.explain) == (Context({}), b"", False)
    assert get.deadline_us == NOW + 1_000_000


def test_a_write_comes_through_with_what_it_says() -> None:
    seen = context("a3")
    columns = puts(
        keyspace=[1],
        context=[seal_context(CLUSTER_KEY, encode_key("mortal", b"k"), seen)],
        w=[3],
        expires_ms=[9],
        flags=[kv_pb2.PUT_EXPLICIT],
    )
    (found,), failures = edge(WIDE).decode_puts(columns, ["default", "mortal"])
    assert failures == []
    assert (found.keyspace, found.w, found.seen) == (MORTAL, 3, seen)
    assert (found.value, found.write_id, found.timestamp) == (b"v", bytes(16), STAMP)
    assert (found.is_explicit, found.is_delete, found.expires_ms) == (True, False, 9)


def test_a_keyspaces_time_to_live_counts_from_the_writes_stamp() -> None:
    (found,), _ = edge(WIDE).decode_puts(puts(keyspace=[0]), ["mortal"])
    assert found.expires_ms == (STAMP >> 16) + 60_000


def test_a_delete_has_no_value_and_never_expires() -> None:
    columns = puts(keyspace=[0], flags=[kv_pb2.PUT_DELETE])
    (found,), _ = edge(WIDE).decode_puts(columns, ["mortal"])
    assert (found.is_delete, found.value, found.expires_ms) == (True, b"", 0)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"key": [b""]}, "key must be 1 to 4,096 bytes, got 0"),
        ({"key": [b"x" * 4_097]}, "key must be 1 to 4,096 bytes, got 4,097"),
        ({"r": [4]}, "r must be 1 to 3, got 4"),
        ({"r": [1 << 31]}, "r must be 1 to 3, got 2147483648"),
        ({"flags": [64]}, "flags 64 are not known here"),
        ({"context": [b"junk"]}, "context is not one that this cluster gave out"),
        ({"watermark": [b"odd"]}, "watermark must be at most 512 pairs of 16 bytes, got 3 bytes"),
        ({"keyspace": [2]}, "keyspace index 2 is outside the frame's table of 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_a_wrong_read_is_refused_alone(columns: dict[str, Any], text: str) -> None:
    both = {name: [*values, *values] for name, values in columns.items()}
    default = {"key": b"k", "r": 0, "flags": 0, "context": b"", "watermark": b"", "keyspace": 0}
    for name in both:
        both[name][1] = default[name]
    found, failures = edge().decode_gets(gets(2, **both), ["default"])
    assert [one.id for one in found] == [2]
    assert failures == [Failure(1, ErrorCode.INVALID_REQUEST, Outcome.NONE, text, 0, ())]


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"value": [b"v" * 11]}, "value must be at most 10 bytes, got 11"),
        ({"w": [9]}, "w must be 1 to 3, got 9"),
        (
            {"write_id": [b"short"]},
            "a write needs a write id of 16 bytes (got 5)",
        ),
        ({"timestamp": [0]}, "a write needs a write id of 16 bytes (got 16) and the timestamp"),
        ({"context": [b"\x01" * 40]}, "context is not one that this cluster gave out"),
        ({"flags": [8]}, "flags 8 are not known here"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_a_wrong_write_is_not_applied_and_told_why(columns: dict[str, Any], text: str) -> None:
    found, (failure,) = edge(value_bytes=10).decode_puts(puts(**columns), [])
    assert found == []
    assert failure.outcome is Outcome.NOT_APPLIED
    assert failure.message.startswith(text)


def test_an_unknown_keyspace_has_a_code_of_its_own() -> None:
    _, (failure,) = edge().decode_puts(puts(), ["nowhere"])
    assert failure.code is ErrorCode.UNKNOWN_KEYSPACE
    assert failure.message == "keyspace 'nowhere' does not exist"


def test_a_context_of_another_key_or_cluster_is_refused() -> None:
    foreign = seal_context(b"x" * 32, KEY, context("a3"))
    other = seal_context(CLUSTER_KEY, encode_key("default", b"other"), context("a3"))
    for sealed in (foreign, other):
        _, (failure,) = edge().decode_gets(gets(context=[sealed]), [])
        assert failure.message == "context was not given out by this cluster for this key"


@pytest.mark.parametrize(
    ("timeout_ms", "used_ms"),
    [(0, 5_000), (1, 1), (2**32 - 1, CLIENT_TIMEOUT_MS_MAX)],
)
def test_a_deadline_is_defaulted_and_capped(timeout_ms: int, used_ms: int) -> None:
    (get,), _ = edge().decode_gets(gets(timeout_ms=[timeout_ms]), [])
    assert get.deadline_us == NOW + 1_000 * used_ms


@pytest.mark.parametrize("decode", ["gets", "puts"])
def test_a_frame_whose_columns_do_not_fit_is_refused_as_a_whole(decode: str) -> None:
    known = edge()
    broken: Callable[[], Any] = (
        (lambda: known.decode_gets(gets(2, r=[1]), []))
        if decode == "gets"
        else (lambda: known.decode_puts(puts(2, w=[1]), []))
    )
    with pytest.raises(Refused, match=r"column [rw] has 1 entries for 2 operations"):
        broken()


def test_a_frame_without_keys_is_refused_as_a_whole() -> None:
    with pytest.raises(Refused, match="column key has 0 entries for 2 operations"):
        edge().decode_gets(kv_pb2.Gets(id=[1, 2]), [])


def test_a_frame_of_too_many_operations_is_refused_as_a_whole() -> None:
    with pytest.raises(Refused, match="at most 4,096 operations, got 4,097"):
        edge().decode_gets(gets(FRAME_OPERATIONS_MAX + 1), [])


def test_a_frame_of_nothing_is_nothing() -> None:
    assert edge().decode_gets(kv_pb2.Gets(), []) == ([], [])
    assert edge().decode_puts(kv_pb2.Puts(), []) == ([], [])


def test_a_unary_put_expires_by_its_stamp_and_never_beyond_what_can_be_said() -> None:
    known = edge()
    write = {"write_id": bytes(16), "timestamp": STAMP}
    soon = kv_pb2.PutRequest(key=b"k", ttl_ms=5)
    late = kv_pb2.PutRequest(key=b"k", ttl_ms=2**64 - 1)
    assert known.put(1, soon, 9, **write).expires_ms == (STAMP >> 16) + 5  # type: ignore[arg-type]
    assert known.put(1, late, 9, **write).expires_ms == EXPIRES_MS_MAX  # type: ignore[arg-type]


def test_a_unary_delete_is_one_and_a_context_makes_it_explicit() -> None:
    sealed = seal_context(CLUSTER_KEY, KEY, context("a1"))
    request = kv_pb2.DeleteRequest(key=b"k", context=sealed)
    found = edge().put(1, request, 9, write_id=bytes(16), timestamp=STAMP)
    assert (found.is_delete, found.is_explicit, found.seen) == (True, True, context("a1"))


def test_a_unary_get_asks_the_default_keyspace_unless_told() -> None:
    request = kv_pb2.GetRequest(key=b"k", explain=True, r=3)
    found = edge().get(4, request, 100)
    assert (found.id, found.keyspace.name, found.r, found.explain) == (4, "default", 3, True)
    with pytest.raises(Refused, match="keyspace 'x' does not exist"):
        edge().get(4, kv_pb2.GetRequest(key=b"k", keyspace="x"), 100)


def test_writes_that_are_sent_on_come_out_as_they_went_in() -> None:
    sent = [
        put("one", deadline_us=at(2_000_000)),
        put("two", keyspace=MORTAL, key=encode_key("mortal", b"k"), expires_ms=7, w=3),
        put("three", seen=context("a3", single=("b7",)), is_explicit=True),
        put("four", b"", is_delete=True),
    ]
    message = peer_pb2.Forwards()
    known = edge(WIDE)
    known.encode_puts(message, sent)
    found, failures = known.decode_puts(message.puts, list(message.keyspaces))
    assert failures == []
    assert [one.keyspace for one in found] == [one.keyspace for one in sent]
    assert found == sent


def test_a_write_that_is_sent_on_late_keeps_what_is_left_of_its_deadline() -> None:
    message = peer_pb2.Forwards()
    edge(now=at(-1_500_000)).encode_puts(message, [put(deadline_us=at(0))])
    (found,), _ = edge(now=Instant(5)).decode_puts(message.puts, list(message.keyspaces))
    assert found.deadline_us == 5 + 1_500_000


def test_a_write_that_is_too_late_already_has_the_least_deadline_and_not_the_default() -> None:
    message = peer_pb2.Forwards()
    edge(now=at(9_000_000)).encode_puts(message, [put(deadline_us=at(0))])
    assert list(message.puts.timeout_ms) == [1]


def test_a_failure_comes_out_as_it_went_in() -> None:
    known = edge()
    replies = (ReplyReport(2, "refused: late", 1_500), ReplyReport(3, "pending", 0))
    failure = Failure(7, ErrorCode.UNCERTAIN, Outcome.UNCERTAIN, "one of 2", 20, replies)
    message = encode_failure(failure, known)
    assert [reply.node for reply in message.replies] == ["n2", "n3"]
    assert decode_failure(message, known) == failure


def test_nothing_is_concluded_from_a_failure_of_a_newer_kind() -> None:
    message = kv_pb2.Failure(id=1, outcome=kv_pb2.NOT_APPLIED)
    message.code = 99  # type: ignore[assignment]
    found = decode_failure(message, edge())
    assert (found.code, found.outcome) == (ErrorCode.UNCERTAIN, Outcome.UNCERTAIN)


def test_a_node_that_left_is_named_by_its_number() -> None:
    assert name_node(edge(), 2) == "n2"
    assert name_node(edge(), 99) == "#99"


def test_node_numbers_are_two_bytes_each_and_an_odd_one_is_ignored() -> None:
    assert pack_nodes([1, 258]) == b"\x01\x00\x02\x01"
    assert unpack_nodes(b"\x01\x00\x02\x01\xff") == (1, 258)
    assert unpack_nodes(pack_nodes([])) == ()
