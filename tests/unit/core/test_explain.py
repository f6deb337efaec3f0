"""What a read tells about itself."""

from __future__ import annotations

import pytest

from kvnode.core.bounds import Limits
from kvnode.core.explain import describe, name_dot, sibling_reports
from kvnode.core.messages import Detail, ReplicaReadReply, ReplicaReport, Status
from kvnode.core.read import ReadOp
from kvnode.core.record import Encoded, encode
from kvnode.core.resolve import Confidence, Decision
from kvnode.core.versions import Dot, Record
from tests.unit.core.builders import KEY, NOW, get, record, stamp, tombstone, version, write_id

A1 = "0000000000000001:1"
B1 = "0000000000000002:1"
MERGED = record(
    version("a1", ms=1), tombstone("b1", ms=2), votes=((1, "a1"), (2, "a1"), (2, "b1"), (3, "a1"))
)
DECISION = Decision(MERGED.versions[0], Confidence.VOTED, "most votes: 2 to 1")


def reply(state: Record | None, status: Status = Status.DONE) -> ReplicaReadReply:
    data = Encoded(b"") if state is None else encode(KEY, state)
    return ReplicaReadReply(1, status, data, False)


def read(*, explain: bool = True) -> ReadOp:
    """Return a read of three owners, as its machine would leave it, with nothing heard yet."""
    return ReadOp(
        1,
        get(explain=explain),
        origin=0,
        owners=(1, 2, 3),
        reachable=(1, 2, 3),
        started_us=NOW,
        patience=Limits(),
    )


def report_of(op: ReadOp, node: int) -> ReplicaReport:
    [found] = [each for each in describe(op, DECISION, MERGED).replicas if each.node == node]
    return found


def heard(op: ReadOp, node: int, answer: ReplicaReadReply, after_us: int = 250) -> ReadOp:
    op.asked.append(node)
    op.heard.add(node, answer, after_us)
    return op


def test_dots_are_named_in_hex_and_decimal() -> None:
    assert name_dot(Dot(0xAB, 12)) == "00000000000000ab:12"


def test_siblings_are_told_in_full_and_the_winner_is_marked() -> None:
    first, second = sibling_reports(MERGED, DECISION)
    assert (first.actor, first.counter, first.timestamp) == (1, 1, stamp(1))
    assert (first.value, first.is_tombstone, first.won) == (b"a1", False, True)
    assert first.write_id == write_id("a1")
    assert (second.value, second.is_tombstone, second.won) == (b"", True, False)


@pytest.mark.parametrize("decision", [None, Decision(None, Confidence.AGREED, "nothing")])
def test_without_a_winner_no_sibling_is_marked(decision: Decision | None) -> None:
    assert [each.won for each in sibling_reports(MERGED, decision)] == [False, False]


def test_votes_point_into_the_siblings() -> None:
    assert describe(read(), DECISION, MERGED).votes == ((1, 0), (2, 0), (2, 1), (3, 0))


def test_a_story_that_nobody_asked_for_leaves_out_the_replicas() -> None:
    op = heard(read(explain=False), 1, reply(MERGED))
    op.mended.append(2)
    op.repair_failed = True
    assert describe(op, DECISION, MERGED) == Detail(
        siblings=sibling_reports(MERGED, DECISION),
        votes=((1, 0), (2, 0), (2, 1), (3, 0)),
        rule="most votes: 2 to 1",
        replicas=(),
        repaired=(2,),
        repair_failed=True,
        is_explained=False,
    )


def test_an_owner_that_answered_is_told_with_its_versions_and_the_vote_that_counted() -> None:
    op = heard(read(), 2, reply(MERGED))
    assert report_of(op, 2) == ReplicaReport(
        2, "record", 250, (A1, B1), B1, is_proven=True, is_primary=True, checksum="ok"
    )


def test_an_owner_that_holds_nothing_says_absent() -> None:
    report = report_of(heard(read(), 1, reply(None)), 1)
    assert (report.answer, report.versions, report.vote) == ("absent", (), A1)


def test_an_unproven_owner_is_shown_as_such() -> None:
    assert report_of(heard(read(), 1, reply(MERGED, Status.UNPROVEN)), 1).is_proven is False


def test_owners_that_were_not_asked_and_that_are_silent_are_told_apart() -> None:
    op = read()
    op.asked.append(1)
    assert [report_of(op, node).answer for node in (1, 2)] == ["pending", "not asked"]
    assert report_of(op, 1).checksum == "unknown"


@pytest.mark.parametrize(
    ("answer", "checksum"),
    [
        ("abstained", "failed"),
        ("damaged: head checksum differs", "failed"),
        ("unreached", "unknown"),
        ("refused_late", "unknown"),
    ],
)
def test_only_damage_is_a_failed_checksum(answer: str, checksum: str) -> None:
    op = read()
    op.heard.failed[3] = answer
    report = report_of(op, 3)
    assert (report.answer, report.checksum, report.versions) == (answer, checksum, ())


def test_a_reply_that_came_too_late_to_be_checked_and_is_damaged_shows_no_versions() -> None:
    op = heard(read(), 3, ReplicaReadReply(1, Status.DONE, Encoded(b"\x01\x02"), False))
    assert report_of(op, 3).versions == ()


def test_every_owner_is_told_of_in_order() -> None:
    told = describe(heard(read(), 2, reply(MERGED)), DECISION, MERGED).replicas
    assert [each.node for each in told] == [1, 2, 3]
