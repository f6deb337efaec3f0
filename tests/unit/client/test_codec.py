"""The laws of kvclient.codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvclient import codec
from kvclient.operation import GET_EXPLAIN, PUT_DELETE, Operation
from kvclient.results import Confidence
from kvclient.retry import Code
from kvproto import kv_pb2 as pb


def put(number: int, *, keyspace: str = "default", flags: int = 0) -> Operation:
    operation = Operation(keyspace, b"k%d" % number, is_put=True, value=b"v", flags=flags)
    operation.id, operation.deadline = number, 5.0
    operation.write_id, operation.timestamp = b"w" * 16, 77
    return operation


def get(number: int, *, flags: int = 0) -> Operation:
    operation = Operation("default", b"k%d" % number, is_put=False, flags=flags)
    operation.id, operation.deadline = number, 5.0
    return operation


def frame_of(*operations: Operation) -> pb.PipelineRequest:
    return pb.PipelineRequest.FromString(codec.encode_frame(operations, epoch=3, now=1.0))


def test_a_column_of_defaults_stays_empty() -> None:
    request = frame_of(put(1), put(2), get(3))
    assert (request.format, request.epoch, list(request.keyspaces)) == (1, 3, ["default"])
    for column in ("keyspace", "context", "expires_ms", "w", "flags"):
        assert not getattr(request.puts, column)
    for column in ("keyspace", "context", "watermark", "r", "flags"):
        assert not getattr(request.gets, column)


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from(["a", "b"]), st.sampled_from([0, PUT_DELETE])),
        min_size=1,
        max_size=20,
    )
)
def test_a_column_is_empty_or_as_long_as_id(rows: list[tuple[bool, str, int]]) -> None:
    operations = [
        put(number, keyspace=keyspace, flags=flags) if is_put else get(number)
        for number, (is_put, keyspace, flags) in enumerate(rows)
    ]
    request = frame_of(*operations)
    for columns in (request.gets, request.puts):
        for field in columns.DESCRIPTOR.fields:
            assert len(getattr(columns, field.name)) in (0, len(columns.id))
    names = list(request.keyspaces)
    for at, operation in enumerate(o for o in operations if o.is_put):
        place = request.puts.keyspace[at] if request.puts.keyspace else 0
        assert names[place] == operation.keyspace


@pytest.mark.parametrize(
    ("left_s", "expected_ms"), [(5.0, 4980), (0.1, 90), (0.0005, 1), (-1.0, 1)]
)
def test_a_node_gets_a_little_less_time_than_is_left(left_s: float, expected_ms: int) -> None:
    assert codec.time_left_ms(left_s) == expected_ms


def test_empty_columns_of_an_answer_stand_for_defaults() -> None:
    waiting = {1: get(1), 2: get(2)}
    answered = codec.read_gets(pb.GetResults(id=[1, 2], value=[b"a", b""]), waiting)
    assert [operation.value for operation in answered] == [b"a", b""]
    assert not waiting


def test_an_absent_key_is_not_an_empty_value() -> None:
    results = pb.GetResults(id=[1, 2], value=[b"", b""], found=[1, 0])
    first, second = codec.read_gets(results, {1: get(1), 2: get(2)})
    assert (first.value, second.value) == (b"", None)


def test_an_answer_that_nobody_waits_for_is_left_alone() -> None:
    assert codec.read_gets(pb.GetResults(id=[9], value=[b"x"]), {}) == []
    assert codec.read_puts(pb.PutResults(id=[9]), {}) == []


def test_an_answer_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(codec.DECODE_ERRORS):
        codec.read_gets(pb.GetResults(id=[1, 2], value=[b"x"]), {1: get(1), 2: get(2)})


def test_a_record_tells_siblings_votes_and_confidence() -> None:
    operation = get(1, flags=GET_EXPLAIN)
    results = pb.GetResults(id=[1], value=[b"a"], confidence=[pb.VOTED])
    detail = results.details.add(id=1, repair_failed=True)
    detail.siblings.add(actor=1, counter=2, value=b"a", won=True)
    detail.siblings.add(actor=255, counter=3, value=b"b")
    detail.votes.add(node="n1", sibling=0)
    detail.votes.add(node="n2", sibling=9)
    detail.explain.replicas.add(node="n1", answer="record", latency_ms=1.5, proven=True)
    codec.read_gets(results, {1: operation})
    record = codec.record_of(operation)
    assert record is not None
    assert record.confidence is Confidence.VOTED
    assert [sibling.dot for sibling in record.siblings] == [
        "0000000000000001:2",
        "00000000000000ff:3",
    ]
    assert record.votes == {"n1": "0000000000000001:2"}
    assert record.repair_failed
    assert record.explain is not None
    assert record.explain.replicas[0].latency_ms == 1.5


def test_an_owner_that_accepted_one_version_after_another_counts_for_the_newer() -> None:
    versions = [(3, 9, 5), (1, 10, 5), (1, 9, 5), (2, 1, 4)]
    siblings = [
        codec.sibling_of(pb.Sibling(actor=actor, counter=counter, timestamp=stamp))
        for actor, counter, stamp in versions
    ]
    cast = {"n1": (3, 0), "n2": (0, 3), "n3": (2, 1), "n4": (1, 2)}
    votes = [pb.Vote(node=node, sibling=at) for node, places in cast.items() for at in places]
    actor = "000000000000000"
    newest = {"n1": "3:9", "n2": "3:9", "n3": "1:10", "n4": "1:10"}
    assert codec.votes_of(votes, siblings) == {n: actor + dot for n, dot in newest.items()}


def test_acknowledging_nodes_are_numbers_of_two_bytes() -> None:
    assert codec.acked_numbers(b"\x01\x00\x00\x01") == (1, 256)


def test_a_failure_of_an_unknown_code_counts_as_internal() -> None:
    refusal = codec.refusal_of(pb.Failure(code=99, outcome=pb.UNCERTAIN_OUTCOME))  # type: ignore[arg-type]
    assert refusal.code is Code.INTERNAL
    assert refusal.is_uncertain


@pytest.mark.parametrize(
    "message",
    [
        pb.Topology(partitions=3, walk_length=0),
        pb.Topology(partitions=0),
        pb.Topology(partitions=2, walk_length=2, walk=[1, 2, 3]),
    ],
    ids=["not-a-power-of-two", "none", "short-walk"],
)
def test_a_topology_that_contradicts_itself_is_refused(message: pb.Topology) -> None:
    with pytest.raises(ValueError, match="partitions"):
        codec.topology_of(message)


def test_a_topology_names_each_partitions_nodes_in_order() -> None:
    message = pb.Topology(partitions=2, walk_length=2, walk=[1, 2, 2, 1], epoch=4)
    topology = codec.topology_of(message)
    assert topology.walks == ((1, 2), (2, 1))
    assert topology.partition_bits == 1
