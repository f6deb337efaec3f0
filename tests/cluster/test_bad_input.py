"""Whatever a client sends is refused by its proper name, costs no memory and hurts nobody.

Each test sends one kind of nonsense to a node of a real cluster. After each the node is the same
process, in health, at most 32 MiB larger, and has logged no traceback.
"""

from __future__ import annotations

import gzip
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.message import DecodeError
from grpc import StatusCode

import kvclient
from kvnode.core.context import seal_context
from kvnode.core.keys import encode_key
from kvnode.core.versions import Context
from kvproto import kv_pb2
from tests.support import seeds, wire
from tests.support.nodes import Nodes, until
from tests.support.wire import Refusal, Stream, call

_GROWTH_MAX = 32 << 20
_NODE = "n1"


def resident(pid: int) -> int:
    """Return a process's resident memory in bytes; 0 where the system does not tell."""
    if not Path("/proc/self/statm").exists():
        return 0
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


@pytest.fixture(autouse=True)
def unharmed(trio: Nodes) -> Iterator[None]:
    """Check that a test leaves the node alive, small and quiet."""
    with trio.client(_NODE) as client:
        client.put("canary", b"alive")
    pid = trio.pid(_NODE)
    before = resident(pid)
    yield
    assert trio.pid(_NODE) == pid
    with trio.client(_NODE) as client:
        assert client.get("canary") == b"alive"
    assert trio.peers_up(_NODE) == {"n2", "n3"}
    until(lambda: resident(pid) - before < _GROWTH_MAX, within_s=5, what="giving memory back")
    assert "Traceback" not in trio.log(_NODE)


@pytest.fixture
def channel(trio: Nodes) -> Iterator[grpc.Channel]:
    with trio.channel(_NODE) as opened:
        yield opened


def check_refused(answer: object, code: StatusCode, *words: str) -> Refusal:
    """Check the status and that the text names all of `words`, and nothing of Python's."""
    assert isinstance(answer, Refusal), answer
    assert answer.code is code, answer
    for word in words:
        assert word in answer.text, answer
    for leak in ("Traceback", "Error(", "Exception", '.py"'):
        assert leak not in answer.text, answer
    return answer


# ---- bytes that are no message -----------------------------------------------------------------

_UNARY = ("KV/Get", "KV/Put", "KV/Delete", "Cluster/GetStatus", "Cluster/ListConflicts")


@pytest.mark.parametrize("method", _UNARY)
@pytest.mark.parametrize("garbage", [b"\xff" * 9, b"\x0a\x7fshort", b"\x08"])
def test_bytes_that_are_no_message_are_an_invalid_argument(
    channel: grpc.Channel, method: str, garbage: bytes
) -> None:
    check_refused(call(channel, method, garbage), StatusCode.INVALID_ARGUMENT, "not a kvnode.v1.")


@pytest.mark.parametrize("method", ["KV/Get", "KV/Put", "KV/Delete"])
def test_a_message_cut_short_anywhere_is_refused_or_means_less(
    channel: grpc.Channel, method: str
) -> None:
    whole = kv_pb2.PutRequest(key=b"cut", value=b"value", w=9).SerializeToString()
    for end in range(len(whole)):
        answer = call(channel, method, whole[:end])
        if not is_sound(whole[:end]):
            check_refused(answer, StatusCode.INVALID_ARGUMENT, "not a kvnode.v1.")
        elif isinstance(answer, Refusal):
            check_refused(answer, StatusCode.INVALID_ARGUMENT)


def is_sound(data: bytes) -> bool:
    """Tell whether the bytes are a message: a cut between two fields leaves one."""
    try:
        kv_pb2.PutRequest.FromString(data)
    except DecodeError:
        return False
    return True


@pytest.mark.parametrize("garbage", [b"\xff" * 9, b"\x1a\x05ab"])
def test_a_pipeline_ends_at_bytes_that_are_no_frame(channel: grpc.Channel, garbage: bytes) -> None:
    with Stream(channel, "KV/Pipeline") as stream:
        stream.send(garbage)
        check_refused(stream.end(), StatusCode.INVALID_ARGUMENT, "kvnode.v1.PipelineRequest")


def test_a_frame_of_another_format_is_refused(channel: grpc.Channel) -> None:
    with Stream(channel, "KV/Pipeline") as stream:
        stream.send(kv_pb2.PipelineRequest(format=2))
        check_refused(stream.end(), StatusCode.INVALID_ARGUMENT, "format 2")


def test_columns_that_do_not_fit_one_another_are_refused(channel: grpc.Channel) -> None:
    with Stream(channel, "KV/Pipeline") as stream:
        stream.send(wire.gets(b"a", b"b", r=[1]))
        check_refused(stream.end(), StatusCode.INVALID_ARGUMENT, "column r", "1 entries", "2")


def test_a_frame_of_too_many_operations_is_refused(channel: grpc.Channel) -> None:
    with Stream(channel, "KV/Pipeline") as stream:
        stream.send(wire.gets(*[b"k"] * 4_097))
        check_refused(stream.end(), StatusCode.INVALID_ARGUMENT, "4,096", "4,097")


def test_a_thousand_damaged_frames_hurt_nobody(trio: Nodes) -> None:
    chance = random.Random(seeds.derive(seeds.run_seed(), "damaged frames"))
    sound = [
        wire.gets(b"a", b"b", flags=[1, 0], r=[1, 2]).SerializeToString(),
        wire.puts({b"damaged": b"v"}, timestamp=wire.hlc(), w=[1]).SerializeToString(),
    ]
    with trio.channel(_NODE) as channel:
        for _ in range(100):
            with Stream(channel, "KV/Pipeline") as stream:
                for _ in range(10):
                    stream.send(damaged(chance.choice(sound), chance))
                stream.finish()
                while (answer := stream.take()) is not None:
                    if isinstance(answer, Refusal):
                        check_refused(answer, StatusCode.INVALID_ARGUMENT)
                        break


def damaged(frame: bytes, chance: random.Random) -> bytes:
    """Return the frame with one to three bytes changed."""
    changed = bytearray(frame)
    for _ in range(chance.randint(1, 3)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


# ---- too much ----------------------------------------------------------------------------------


def test_a_message_over_the_limit_is_refused_unread(channel: grpc.Channel) -> None:
    request = kv_pb2.PutRequest(key=b"k", value=bytes(49 << 20))
    check_refused(call(channel, "KV/Put", request), StatusCode.RESOURCE_EXHAUSTED, "larger than")


def test_a_compressed_bomb_is_refused_unopened(trio: Nodes) -> None:
    bomb = kv_pb2.PutRequest(key=b"bomb", value=bytes(40 << 20))
    assert len(gzip.compress(bomb.SerializeToString())) < 100_000
    with trio.channel(_NODE, compression=grpc.Compression.Gzip) as squeezing:
        answer = call(squeezing, "KV/Put", bomb)
    check_refused(answer, StatusCode.UNIMPLEMENTED, "'gzip' is disabled")


def test_a_value_over_the_limit_is_refused_with_both_sizes(channel: grpc.Channel) -> None:
    request = kv_pb2.PutRequest(key=b"k", value=bytes((1 << 20) + 1))
    answer = call(channel, "KV/Put", request)
    told = check_refused(answer, StatusCode.INVALID_ARGUMENT, "1,048,576", "1,048,577")
    assert told.failure is not None
    assert told.failure.code == kv_pb2.INVALID_REQUEST
    assert told.failure.outcome == kv_pb2.NOT_APPLIED


def test_the_largest_value_and_the_longest_key_are_stored(channel: grpc.Channel) -> None:
    key, value = b"k" * 4_096, bytes(1 << 20)
    call(channel, "KV/Put", kv_pb2.PutRequest(key=key, value=value))
    assert call(channel, "KV/Get", kv_pb2.GetRequest(key=key)).value == value


def test_streams_beyond_the_bound_are_refused_and_those_within_it_served(
    cluster: Callable[..., Nodes],
) -> None:
    nodes = cluster(1, settings="\n[limits]\nclient_streams = 8\n")
    with nodes.channel("n1") as channel, nodes.channel("n1") as second:
        kept = [Stream(channel, "KV/Pipeline") for _ in range(8)]
        for stream in kept:
            assert stream.ask(wire.gets(b"k")).gets.found == [0]
        with Stream(second, "KV/Pipeline") as one_more:
            check_refused(one_more.end(), StatusCode.RESOURCE_EXHAUSTED, "at most 8 streams")
        kept.pop().__exit__(None, None, None)
        until(lambda: _is_served(second), what="room for another stream")
        for stream in kept:
            stream.__exit__(None, None, None)


def _is_served(channel: grpc.Channel) -> bool:
    with Stream(channel, "KV/Pipeline") as stream:
        return not isinstance(stream.ask(wire.gets(b"k")), Refusal)


# ---- not this protocol -------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["KV/Drop", "Nothing/Get", "Peer/Get"])
def test_an_unknown_method_is_unimplemented(channel: grpc.Channel, method: str) -> None:
    check_refused(call(channel, method, b""), StatusCode.UNIMPLEMENTED)


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", bytes(1_000)]
)
def test_another_protocol_on_the_port_is_dropped(trio: Nodes, said: bytes) -> None:
    node = trio.node(_NODE)
    with socket.create_connection((node.host, node.port), timeout=10) as connection:
        connection.sendall(said)
        try:
            while connection.recv(4_096):
                pass
        except ConnectionResetError:
            return  # dropped all the same


# ---- keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["KV/Get", "KV/Put", "KV/Delete"])
@pytest.mark.parametrize(("key", "length"), [(b"", "0"), (b"k" * 4_097, "4,097")])
def test_a_key_out_of_range_is_refused_with_the_range(
    channel: grpc.Channel, method: str, key: bytes, length: str
) -> None:
    answer = call(channel, method, kv_pb2.GetRequest(key=key))
    check_refused(answer, StatusCode.INVALID_ARGUMENT, "key", "1 to 4,096", f"got {length}")


def test_a_bad_key_in_a_pipeline_fails_alone(channel: grpc.Channel) -> None:
    with Stream(channel, "KV/Pipeline") as stream:
        first, second = stream.ask(wire.gets(b"", b"nowhere")), stream.take()
    [failure] = list(first.failures) + list(second.failures)
    assert (failure.id, failure.code, failure.outcome) == (1, kv_pb2.INVALID_REQUEST, 0)
    assert [*first.gets.id, *second.gets.id] == [2]


@pytest.mark.parametrize(
    "key",
    [b"../../etc/passwd", b"/etc/passwd", b"nul\0in\0it", b"\0", b"line\nbreak", b"\xff\xfe", b"."],
)
def test_any_bytes_are_a_key_and_never_a_path(trio: Nodes, key: bytes) -> None:
    before = files_below(trio.local.directory)
    with trio.client(_NODE) as client:
        client.put(key, b"as it is")
        assert client.get(key) == b"as it is"
        client.put(key + b"x", b"another")
        assert client.get(key) == b"as it is"
    assert files_below(trio.local.directory) == before


def files_below(folder: Path) -> set[Path]:
    """Return what there is, but for the engine's own numbered files."""
    found = (path.relative_to(folder) for path in folder.rglob("*"))
    return {path for path in found if "store" not in path.parts}


# ---- numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [4, 2**31, 2**32 - 1])
def test_a_quorum_out_of_range_is_refused_with_the_range(channel: grpc.Channel, asked: int) -> None:
    read = call(channel, "KV/Get", kv_pb2.GetRequest(key=b"k", r=asked))
    check_refused(read, StatusCode.INVALID_ARGUMENT, "r must be 1 to 3", f"got {asked}")
    for request in (kv_pb2.PutRequest(key=b"k", w=asked), kv_pb2.DeleteRequest(key=b"k", w=asked)):
        method = "KV/Put" if isinstance(request, kv_pb2.PutRequest) else "KV/Delete"
        told = call(channel, method, request)
        check_refused(told, StatusCode.INVALID_ARGUMENT, "w must be 1 to 3", f"got {asked}")


def test_a_quorum_of_zero_means_the_keyspaces(channel: grpc.Channel) -> None:
    written = call(channel, "KV/Put", kv_pb2.PutRequest(key=b"zero", value=b"v", w=0))
    assert len(written.acked_by) >= 2
    assert call(channel, "KV/Get", kv_pb2.GetRequest(key=b"zero", r=0)).value == b"v"


@pytest.mark.parametrize("asked", [-1, 4, 2**31])
def test_the_client_refuses_such_a_quorum_too(trio: Nodes, asked: int) -> None:
    with trio.client(_NODE) as client:
        with pytest.raises(kvclient.InvalidRequest, match="r must be 1 to"):
            client.get("k", r=asked)
        with pytest.raises(kvclient.InvalidRequest, match="w must be 1 to"):
            client.put("k", b"v", w=asked)


@pytest.mark.parametrize("flags", [8, 2**31])
def test_unknown_flags_are_refused(channel: grpc.Channel, flags: int) -> None:
    with Stream(channel, "KV/Pipeline") as stream:
        (failure,) = stream.ask(wire.gets(b"k", flags=[flags])).failures
    assert failure.code == kv_pb2.INVALID_REQUEST
    assert f"flags {flags}" in failure.message


def test_an_unknown_keyspace_is_not_found(channel: grpc.Channel) -> None:
    answer = call(channel, "KV/Get", kv_pb2.GetRequest(key=b"k", keyspace="carts"))
    check_refused(answer, StatusCode.NOT_FOUND, "'carts' does not exist")


def test_a_keyspace_outside_the_frames_table_is_refused(channel: grpc.Channel) -> None:
    with Stream(channel, "KV/Pipeline") as stream:
        (failure,) = stream.ask(wire.gets(b"k", keyspace=[7])).failures
    assert failure.code == kv_pb2.INVALID_REQUEST
    assert "index 7" in failure.message


@pytest.mark.parametrize("ttl_ms", [2**63, 2**64 - 1])
def test_a_time_to_live_beyond_all_time_never_ends(channel: grpc.Channel, ttl_ms: int) -> None:
    key = b"ttl%d" % ttl_ms
    call(channel, "KV/Put", kv_pb2.PutRequest(key=key, value=b"v", ttl_ms=ttl_ms))
    answer = call(channel, "KV/Get", kv_pb2.GetRequest(key=key))
    assert isinstance(answer, kv_pb2.GetResponse), answer
    assert answer.value == b"v"


def test_a_write_stamped_far_ahead_is_refused(channel: grpc.Channel) -> None:
    ahead = wire.hlc() + (61_000 << 16)
    request = kv_pb2.PutRequest(key=b"ahead", value=b"v", write_id=bytes(16), timestamp=ahead)
    check_refused(call(channel, "KV/Put", request), StatusCode.UNAVAILABLE, "ahead")
    answer = call(channel, "KV/Get", kv_pb2.GetRequest(key=b"ahead"))
    assert not answer.found


@pytest.mark.parametrize("length", [1, 15, 17, 1_000])
def test_a_write_id_of_another_length_is_refused(channel: grpc.Channel, length: int) -> None:
    request = kv_pb2.PutRequest(key=b"k", value=b"v", write_id=bytes(length), timestamp=wire.hlc())
    answer = call(channel, "KV/Put", request)
    check_refused(answer, StatusCode.INVALID_ARGUMENT, "write id of 16 bytes", f"got {length}")


# ---- contexts ----------------------------------------------------------------------------------


def sealed(trio: Nodes, key: bytes, pairs: int, *, secret: bytes | None = None) -> bytes:
    """Return a context of `key` that names so many actors."""
    vector = dict.fromkeys(range(1, pairs + 1), 1)
    return seal_context(secret or trio.birth.key, encode_key("default", key), Context(vector))


@pytest.mark.parametrize("method", ["KV/Get", "KV/Put", "KV/Delete"])
@pytest.mark.parametrize("forged", [b"x", bytes(35), b"\x01\0\0" + bytes(32), b"\x01" * 99])
def test_a_forged_context_is_refused(channel: grpc.Channel, method: str, forged: bytes) -> None:
    kinds = {"KV/Get": kv_pb2.GetRequest, "KV/Put": kv_pb2.PutRequest}
    request = kinds.get(method, kv_pb2.DeleteRequest)(key=b"k", context=forged)
    check_refused(call(channel, method, request), StatusCode.INVALID_ARGUMENT, "context")


def test_a_context_under_another_key_of_the_cluster_is_refused(
    trio: Nodes, channel: grpc.Channel
) -> None:
    context = sealed(trio, b"k", 1, secret=bytes(32))
    answer = call(channel, "KV/Put", kv_pb2.PutRequest(key=b"k", value=b"v", context=context))
    check_refused(answer, StatusCode.INVALID_ARGUMENT, "not given out by this cluster")


def test_a_context_of_another_key_is_refused(channel: grpc.Channel) -> None:
    other = call(channel, "KV/Put", kv_pb2.PutRequest(key=b"mine", value=b"v")).context
    answer = call(channel, "KV/Put", kv_pb2.PutRequest(key=b"theirs", value=b"v", context=other))
    check_refused(answer, StatusCode.INVALID_ARGUMENT, "for this key")


def test_a_context_of_ten_thousand_dots_is_refused(channel: grpc.Channel) -> None:
    long = b"\x01\0\0" + bytes(16 * 10_000) + bytes(16)
    answer = call(channel, "KV/Put", kv_pb2.PutRequest(key=b"k", value=b"v", context=long))
    check_refused(answer, StatusCode.INVALID_ARGUMENT, "at most 512", "10,000")


# ---- deadlines ---------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_a_deadline_that_has_passed_is_exceeded_and_nothing_is_done(
    channel: grpc.Channel, timeout_s: float
) -> None:
    request = kv_pb2.PutRequest(key=b"too late", value=b"v")
    answer = call(channel, "KV/Put", request, timeout=timeout_s)
    check_refused(answer, StatusCode.DEADLINE_EXCEEDED)
    assert not call(channel, "KV/Get", kv_pb2.GetRequest(key=b"too late")).found


def test_a_deadline_in_ten_years_is_capped_and_served(channel: grpc.Channel) -> None:
    request = kv_pb2.PutRequest(key=b"patient", value=b"v")
    assert call(channel, "KV/Put", request, timeout=10 * 365 * 86_400).acked_by


def test_a_pipelined_deadline_of_centuries_is_capped_and_served(channel: grpc.Channel) -> None:
    with Stream(channel, "KV/Pipeline") as stream:
        frame = wire.gets(b"nowhere")
        frame.gets.timeout_ms[0] = 2**32 - 1
        answer = stream.ask(frame)
    assert list(answer.gets.found) == [0]
