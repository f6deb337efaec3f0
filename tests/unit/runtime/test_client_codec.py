"""Results in the columns of a client's frame: what is left out, and what a story holds."""

from __future__ import annotations

from typing import Any

from kvnode.core.messages import (
    Detail,
    ErrorCode,
    Failure,
    GetResult,
    Outcome,
    PutResult,
    ReplicaReport,
    Result,
    SiblingReport,
)
from kvnode.runtime.client_codec import FORMAT, encode_detail, encode_results, encode_sibling
from kvproto import kv_pb2
from tests.unit.runtime.builders import edge


def encode(*results: Result, explain_bytes: int = 1_000) -> kv_pb2.PipelineResponse:
    frame = encode_results(edge(), results, hlc=5, explain_bytes=explain_bytes)
    return kv_pb2.PipelineResponse.FromString(frame.SerializeToString())


def get(op_id: int, value: bytes | None = b"v", **changes: Any) -> GetResult:
    return GetResult(op_id, value, b"c%d" % op_id, 70 + op_id, 0, None)._replace(**changes)


def sibling(value: bytes = b"v", **changes: Any) -> SiblingReport:
    fields: dict[str, Any] = {
        "actor": 1, "counter": 2, "timestamp": 3, "value": value, "is_tombstone": False,
        "expires_ms": 0, "won": False, "write_id": b"w" * 16,
    }  # fmt: skip
    return SiblingReport(**(fields | changes))


def detail(*siblings: SiblingReport, **changes: Any) -> Detail:
    return Detail(siblings, (), "", (), (), False, False)._replace(**changes)


def test_a_frame_says_its_format_epoch_and_clock() -> None:
    frame = encode()
    assert (frame.format, frame.epoch, frame.hlc) == (FORMAT, 1, 5)
    assert not frame.HasField("gets")
    assert not frame.HasField("puts")


def test_the_usual_answers_need_no_columns_for_what_is_usual() -> None:
    frame = encode(get(1), get(2, b""))
    assert list(frame.gets.id) == [1, 2]
    assert list(frame.gets.value) == [b"v", b""]
    assert list(frame.gets.context) == [b"c1", b"c2"]
    assert list(frame.gets.timestamp) == [71, 72]
    assert (list(frame.gets.found), list(frame.gets.confidence)) == ([], [])
    assert list(frame.gets.details) == []


def test_an_absence_is_told_apart_from_an_empty_value() -> None:
    frame = encode(get(1, None), get(2, b""))
    assert list(frame.gets.value) == [b"", b""]
    assert list(frame.gets.found) == [0, 1]


def test_a_decision_that_was_voted_is_told_so() -> None:
    frame = encode(get(1), get(2, confidence=kv_pb2.PROVISIONAL))
    assert list(frame.gets.confidence) == [0, kv_pb2.PROVISIONAL]


def test_acknowledgements_name_nodes_in_two_bytes_each() -> None:
    frame = encode(PutResult(4, b"c", (1, 3), 0))
    assert list(frame.puts.acked) == [b"\x01\x00\x03\x00"]
    assert list(frame.puts.newer) == []


def test_a_newer_survivor_is_told_of() -> None:
    frame = encode(PutResult(4, b"c", (1,), 0), PutResult(5, b"c", (1,), 99))
    assert list(frame.puts.newer) == [0, 99]


def test_failures_stand_beside_what_went_well() -> None:
    failed = Failure(9, ErrorCode.UNAVAILABLE, Outcome.NOT_APPLIED, "1 of 2", 0, ())
    frame = encode(get(1), failed, PutResult(4, b"c", (1,), 0))
    assert ([*frame.gets.id], [*frame.puts.id]) == ([1], [4])
    assert [(one.id, one.message) for one in frame.failures] == [(9, "1 of 2")]


def test_only_reads_with_a_story_have_one() -> None:
    frame = encode(get(1), get(2, detail=detail(sibling())), get(3))
    assert [story.id for story in frame.gets.details] == [2]


def test_siblings_beyond_the_bound_are_listed_without_their_values() -> None:
    story = detail(sibling(b"x" * 60, won=True), sibling(b"y" * 40), sibling(b"z"))
    found = encode_detail(1, story, edge(), explain_bytes=100)
    assert [len(one.value) for one in found.siblings] == [60, 40, 0]
    assert [one.won for one in found.siblings] == [True, False, False]


def test_votes_and_reports_name_nodes_by_their_ids() -> None:
    report = ReplicaReport(2, "record", 1_500, ("a:1",), "a:1", True, True, "ok")
    story = detail(
        sibling(),
        votes=((1, 0), (9, 0)),
        rule="one version",
        replicas=(report,),
        repaired=(3,),
        is_explained=True,
    )
    found = encode_detail(1, story, edge(), 1_000)
    assert [(vote.node, vote.sibling) for vote in found.votes] == [("n1", 0), ("#9", 0)]
    (replica,) = found.explain.replicas
    assert (replica.node, replica.latency_ms, list(replica.versions)) == ("n2", 1.5, ["a:1"])
    assert (found.explain.rule, list(found.explain.repaired)) == ("one version", ["n3"])


def test_a_story_that_was_not_asked_for_explains_nothing() -> None:
    assert not encode_detail(1, detail(sibling()), edge(), 1_000).HasField("explain")


def test_a_tombstone_is_told_with_all_that_it_has() -> None:
    found = encode_sibling(sibling(b"", is_tombstone=True, expires_ms=8))
    assert (found.tombstone, found.expires_ms, found.write_id) == (True, 8, b"w" * 16)
    assert (found.actor, found.counter, found.timestamp) == (1, 2, 3)
