"""Whatever comes over a peer's stream is refused by its proper name, and the node lives on.

The tests speak as the member n3, which no process is, or as a stranger. What they corrupt is only
what a broken or hostile peer could send: frames, records, contexts, topologies.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import grpc
import pytest
from grpc import StatusCode

from kvnode.core.bounds import CONTEXT_ENTRIES_MAX
from kvnode.core.hlc import Timestamp
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.record import encode, seal
from kvnode.core.versions import Context, Dot, Record
from kvproto import kv_pb2, peer_pb2
from tests.support import seeds
from tests.support.nodes import Nodes
from tests.support.wire import Refusal, Stream, call

_NODE, _ME = "n1", "n3"
_FAR_OFF = 60_000


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Give n1 and n2 of a cluster of three: the tests are n3."""
    nodes = Nodes(tmp_path_factory.mktemp("pair") / "cluster", 3)
    try:
        nodes.start("n1", "n2")
        yield nodes
    finally:
        nodes.close()


@pytest.fixture(autouse=True)
def unharmed(pair: Nodes) -> Iterator[None]:
    """Check that a test leaves the node alive and quiet, and its peer linked."""
    pid = pair.pid(_NODE)
    yield
    assert pair.pid(_NODE) == pid
    with pair.client(_NODE) as client:
        client.put("canary", b"alive")
        assert client.get("canary") == b"alive"
    assert "n2" in pair.peers_up(_NODE)
    assert "Traceback" not in pair.log(_NODE)


@pytest.fixture
def channel(pair: Nodes) -> Iterator[grpc.Channel]:
    with pair.channel(_NODE) as opened:
        yield opened


@pytest.fixture
def topology(channel: grpc.Channel) -> kv_pb2.Topology:
    found = call(channel, "Cluster/GetTopology", kv_pb2.GetTopologyRequest())
    assert isinstance(found, kv_pb2.Topology)
    return found


def frame(known: kv_pb2.Topology, **fields: object) -> peer_pb2.PeerFrame:
    """Return a frame with the head that a good peer would give it."""
    head: dict[str, object] = {"format": 1, "cluster": known.cluster_id, "epoch": known.epoch}
    return peer_pb2.PeerFrame(**(head | fields))  # type: ignore[arg-type]


def hello(
    topology: kv_pb2.Topology, *, incarnation: int = 7, **fields: object
) -> peer_pb2.PeerFrame:
    """Return the first frame of n3."""
    said = peer_pb2.Hello(node=_ME, incarnation=incarnation, start_number=1)
    return frame(topology, hello=said, **fields)


@pytest.fixture
def link(channel: grpc.Channel, topology: kv_pb2.Topology) -> Iterator[Stream]:
    """Give an accepted stream: hellos have been exchanged."""
    with Stream(channel, "Peer/Link") as stream:
        answer = stream.ask(hello(topology))
        assert isinstance(answer, peer_pb2.PeerFrame), answer
        assert answer.hello.node == _NODE
        yield stream


def check_refused(found: Refusal, code: StatusCode, *words: str) -> None:
    assert found.code is code, found
    for word in words:
        assert word in found.text, found
    for leak in ("Traceback", "Error(", "Exception"):
        assert leak not in found.text


# ---- who is there ------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", [b"", bytes(16), b"x" * 99])
def test_a_foreign_cluster_is_denied(
    channel: grpc.Channel, topology: kv_pb2.Topology, cluster: bytes
) -> None:
    with Stream(channel, "Peer/Link") as stream:
        stream.send(hello(topology, cluster=cluster))
        check_refused(stream.end(), StatusCode.PERMISSION_DENIED, "another cluster")


def test_who_is_no_member_is_denied(channel: grpc.Channel, topology: kv_pb2.Topology) -> None:
    with Stream(channel, "Peer/Link") as stream:
        stream.send(frame(topology, hello=peer_pb2.Hello(node="n4", incarnation=1)))
        check_refused(stream.end(), StatusCode.PERMISSION_DENIED, "'n4' is no member")


def test_a_second_life_beside_a_living_one_is_refused_and_told_who_lives(
    link: Stream, channel: grpc.Channel, topology: kv_pb2.Topology
) -> None:
    with Stream(channel, "Peer/Link") as second:
        answer = second.ask(hello(topology, incarnation=8))
        assert answer.hello.refused
        check_refused(second.end(), StatusCode.ALREADY_EXISTS, "n3 is alive", f"{7:016x}")
    beat = link.ask(frame(topology, heartbeat=peer_pb2.Heartbeat(wall_ms=1)))
    assert beat.heartbeat.reply


@pytest.mark.parametrize("method", ["Peer/Link", "Peer/Bulk"])
@pytest.mark.parametrize("garbage", [b"\xff" * 9, b"", b"\x12\x05ab"])
def test_a_stream_that_begins_with_garbage_is_refused(
    channel: grpc.Channel, method: str, garbage: bytes
) -> None:
    with Stream(channel, method) as stream:
        stream.send(garbage)
        check_refused(stream.end(), StatusCode.INVALID_ARGUMENT, "peer frame")


def test_a_stream_that_ends_before_its_hello_is_refused(channel: grpc.Channel) -> None:
    with Stream(channel, "Peer/Link") as stream:
        stream.finish()
        check_refused(stream.end(), StatusCode.INVALID_ARGUMENT, "hello")


# ---- frames ------------------------------------------------------------------------------------


def test_a_frame_that_is_none_ends_the_stream_only(link: Stream) -> None:
    link.send(b"\xff" * 9)
    check_refused(link.end(), StatusCode.INVALID_ARGUMENT, "not a peer frame")


def test_columns_that_do_not_fit_end_the_stream_only(
    link: Stream, topology: kv_pb2.Topology
) -> None:
    link.send(frame(topology, writes=peer_pb2.ReplicaWrites(id=[1, 2], key=[key_of(b"k")])))
    check_refused(link.end(), StatusCode.INVALID_ARGUMENT, "a column of 1", "2 operations")


def test_an_unknown_kind_of_write_ends_the_stream_only(
    link: Stream, topology: kv_pb2.Topology
) -> None:
    writes = write_of(key_of(b"k"), record_of(b"k", b"v"))
    writes.kind.append(9)
    link.send(frame(topology, writes=writes))
    check_refused(link.end(), StatusCode.INVALID_ARGUMENT, "9 is none of WRITE, REPAIR")


@pytest.mark.parametrize(
    "change",
    [
        {"walk": [1, 2]},
        {"walk_length": 0},
        {"partitions": 3},
        {"members": []},
        {"keyspaces": []},
        {"cluster_id": b"x" * 16},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_newer_topology_that_is_none_is_not_followed(
    pair: Nodes, link: Stream, topology: kv_pb2.Topology, change: dict[str, object]
) -> None:
    bad = kv_pb2.Topology()
    bad.CopyFrom(topology)
    bad.epoch = topology.epoch + 1
    for field, value in change.items():
        bad.ClearField(field)  # type: ignore[arg-type]
        bad.MergeFrom(kv_pb2.Topology(**{field: value}))  # type: ignore[arg-type]
    link.send(frame(topology, topology=bad))
    check_refused(link.end(), StatusCode.INVALID_ARGUMENT, "topology")
    assert pair.status(_NODE).epoch == topology.epoch


def test_an_older_epoch_is_refused_with_the_topology_attached(
    link: Stream, topology: kv_pb2.Topology
) -> None:
    write = write_of(key_of(b"old"), record_of(b"old", b"v"), op_id=5)
    read = peer_pb2.ReplicaReads(id=[6], key=[key_of(b"old")], timeout_ms=[_FAR_OFF])
    answer = link.ask(frame(topology, epoch=topology.epoch - 1, writes=write, reads=read))
    assert answer.topology.epoch == topology.epoch
    assert answer.topology.members == topology.members
    assert list(answer.write_replies.id) == [5]
    assert list(answer.write_replies.status) == [peer_pb2.REFUSED_EPOCH]
    assert list(answer.read_replies.id) == [6]
    assert list(answer.read_replies.status) == [peer_pb2.REFUSED_EPOCH]


# ---- records -----------------------------------------------------------------------------------


def key_of(name: bytes) -> StorageKey:
    return encode_key("default", name)


def record_of(name: bytes, value: bytes, *, counter: int = 1, key: bytes = b"") -> bytes:
    """Return a sound record of n3's n-th write."""
    place = StorageKey(key) or key_of(name)
    dot = Dot(7, counter)
    version = seal(place, dot=dot, timestamp=Timestamp(1 << 40), write_id=bytes(16), value=value)
    return encode(place, Record(Context({dot.actor: counter}), (version,), ()))


def write_of(key: bytes, record: bytes, *, op_id: int = 1) -> peer_pb2.ReplicaWrites:
    """Return the column of one write."""
    return peer_pb2.ReplicaWrites(
        id=[op_id], key=[key], record=[record], timeout_ms=[_FAR_OFF], version=[0]
    )


def status_of(answer: object) -> int:
    """Return the status of the only write of a reply; an empty column means all is done."""
    assert isinstance(answer, peer_pb2.PeerFrame), answer
    assert len(answer.write_replies.id) == 1
    return next(iter(answer.write_replies.status), peer_pb2.DONE)


def test_a_sound_record_of_a_peer_is_taken(link: Stream, topology: kv_pb2.Topology) -> None:
    """The control: what the tests below spoil is good."""
    write = write_of(key_of(b"sound"), record_of(b"sound", b"v"))
    assert status_of(link.ask(frame(topology, writes=write))) == peer_pb2.DONE


def test_one_dot_with_two_payloads_is_refused_and_raises_the_alarm(
    pair: Nodes, link: Stream, topology: kv_pb2.Topology
) -> None:
    alarms = pair.metric(_NODE, "alarms")
    key = key_of(b"twice")
    first, second = record_of(b"twice", b"one"), record_of(b"twice", b"two")
    assert status_of(link.ask(frame(topology, writes=write_of(key, first)))) == peer_pb2.DONE
    answer = link.ask(frame(topology, writes=write_of(key, second)))
    assert status_of(answer) == peer_pb2.REFUSED_INVALID
    assert pair.metric(_NODE, "alarms") == alarms + 1
    assert "one dot, two payloads" in pair.log(_NODE)
    read = peer_pb2.ReplicaReads(id=[2], key=[key], timeout_ms=[_FAR_OFF])
    assert b"one" in link.ask(frame(topology, reads=read)).read_replies.record[0]


def test_a_record_with_a_wrong_byte_anywhere_is_refused(
    link: Stream, topology: kv_pb2.Topology
) -> None:
    chance = random.Random(seeds.derive(seeds.run_seed(), "records"))
    sound = record_of(b"wrong", b"value")
    for at in range(len(sound)):
        spoilt = bytearray(sound)
        spoilt[at] ^= 1 << chance.randrange(8)
        answer = link.ask(frame(topology, writes=write_of(key_of(b"wrong"), bytes(spoilt))))
        assert status_of(answer) == peer_pb2.REFUSED_INVALID, at


@pytest.mark.parametrize("key", [b"", b"short", b"no end at all", bytes(8) + b"default\0\1"])
def test_a_key_that_is_none_ends_the_stream_only(
    link: Stream, topology: kv_pb2.Topology, key: bytes
) -> None:
    link.send(frame(topology, writes=write_of(key, record_of(b"", b"v", key=key or b"?"))))
    check_refused(link.end(), StatusCode.INVALID_ARGUMENT, "key")


def test_a_watermark_that_is_none_ends_the_stream_only(
    link: Stream, topology: kv_pb2.Topology
) -> None:
    reads = peer_pb2.ReplicaReads(
        id=[1], key=[key_of(b"k")], timeout_ms=[_FAR_OFF], watermark=[b"seventeen bytes.."]
    )
    link.send(frame(topology, reads=reads))
    check_refused(link.end(), StatusCode.INVALID_ARGUMENT, "watermark")


def test_a_forwarded_write_that_is_not_valid_is_refused_and_the_stream_lives_on(
    link: Stream, topology: kv_pb2.Topology
) -> None:
    puts = kv_pb2.Puts(
        id=[1], key=[b""], value=[b"v"], write_id=[bytes(16)], timestamp=[1], timeout_ms=[9]
    )
    answer = link.ask(frame(topology, forwards=peer_pb2.Forwards(puts=puts)))
    assert [one.id for one in answer.forward_failures] == [1]
    assert "key must be 1 to 4,096" in answer.forward_failures[0].message
    assert link.ask(frame(topology, heartbeat=peer_pb2.Heartbeat())).heartbeat.reply


def test_a_context_of_too_many_dots_is_refused(link: Stream, topology: kv_pb2.Topology) -> None:
    key = key_of(b"full")
    for half in range(2):
        vector = dict.fromkeys(range(100 + half, 100 + 2 * CONTEXT_ENTRIES_MAX, 2), 1)
        version = seal(
            key,
            dot=Dot(100 + half, 1),
            timestamp=Timestamp(1),
            write_id=bytes((half,)) * 16,
            value=b"v",
        )
        record = encode(key, Record(Context(vector), (version,), ()))
        write = write_of(key, record)
        write.kind.append(peer_pb2.REPAIR)
        status = status_of(link.ask(frame(topology, writes=write)))
        assert status == (peer_pb2.REFUSED_INVALID if half else peer_pb2.DONE)


def test_a_thousand_damaged_frames_hurt_nobody(pair: Nodes, topology: kv_pb2.Topology) -> None:
    chance = random.Random(seeds.derive(seeds.run_seed(), "damaged peer frames"))
    sound = frame(
        topology,
        writes=write_of(key_of(b"damaged"), record_of(b"damaged", b"v")),
        reads=peer_pb2.ReplicaReads(id=[6], key=[key_of(b"damaged")], timeout_ms=[9]),
    ).SerializeToString()
    # The head names the cluster: whatever is wrong there is refused at once.
    head = len(frame(topology).SerializeToString())
    with pair.channel(_NODE) as channel:
        for _ in range(100):
            with Stream(channel, "Peer/Link") as stream:
                assert isinstance(stream.ask(hello(topology)), peer_pb2.PeerFrame)
                for _ in range(10):
                    spoilt = bytearray(sound)
                    for _ in range(chance.randint(1, 3)):
                        spoilt[chance.randrange(head, len(spoilt))] = chance.randrange(256)
                    stream.send(bytes(spoilt))
                stream.finish()
                while (answer := stream.take()) is not None:
                    if isinstance(answer, Refusal):
                        check_refused(answer, StatusCode.INVALID_ARGUMENT)
                        break
