"""One write: when it is ok, when it is uncertain, and what its writer may say that it has seen."""

from __future__ import annotations

from typing import Any

from kvnode.core.messages import (
    ErrorCode,
    Failure,
    Instant,
    Outcome,
    PutResult,
    ReplicaWrite,
    ReplyReport,
    WriteKind,
)
from kvnode.core.record import encode
from kvnode.core.versions import Context, Record
from kvnode.core.write import WriteOp
from tests.unit.core.builders import KEY, NOW, at, context, put, record, stamp, version, write_id

OWNERS = (1, 2, 3)
MINE = version("a1", ms=5)


def write(w: int = 2, state: Record | None = None, **request: Any) -> WriteOp:
    held = record(MINE) if state is None else state
    return WriteOp(
        put(w=w, **request),
        ReplicaWrite(8, KEY, encode(KEY, held), at(5_000_000), WriteKind.WRITE, 0),
        MINE,
        held,
        origin=0,
        owners=OWNERS,
        started_us=NOW,
    )


def failed(answer: Failure | PutResult | None) -> Failure:
    assert isinstance(answer, Failure)
    return answer


# ---- three outcomes -----------------------------------------------------------------------------


def test_ok_comes_with_the_wth_owner_and_names_those_that_hold_it() -> None:
    op = write(w=2)
    assert op.on_ack(1, None, at(10)) is None
    assert op.on_ack(3, None, at(20)) == PutResult(8, b"", (1, 3), 0)


def test_w_of_one_is_ok_at_the_first_owner() -> None:
    assert write(w=1).on_ack(2, None, at(10)) == PutResult(8, b"", (2,), 0)


def test_an_owner_counts_once() -> None:
    op = write(w=2)
    assert op.on_ack(1, None, at(10)) is None
    assert op.on_ack(1, None, at(20)) is None


def test_a_coordinator_counts_once_it_holds_durably_what_an_owner_brought_back() -> None:
    op = write(w=2)
    op.expect_merge(1)
    assert op.on_ack(2, None, at(10)) is None
    assert op.on_ack(1, None, at(20)) is None
    assert op.on_merged() == PutResult(8, b"", (2, 1), 0)


def test_owners_enough_without_the_coordinator_wait_for_no_merge() -> None:
    op = write(w=2)
    op.expect_merge(1)
    assert op.on_ack(2, None, at(10)) is None
    assert op.on_ack(3, None, at(20)) == PutResult(8, b"", (2, 3), 0)


def test_who_does_not_own_the_key_does_not_count() -> None:
    op = write(w=1)
    assert op.on_ack(9, None, at(10)) is None
    assert op.on_failure(9, "unreached", at(10)) is None
    assert not op.is_awaiting(9)


def test_a_write_is_uncertain_as_soon_as_w_is_out_of_reach() -> None:
    op = write(w=2)
    op.on_ack(1, None, at(10))
    assert op.on_failure(2, "unreached", at(20)) is None
    failure = failed(op.on_failure(3, "refused: abstained", at(30)))
    assert (failure.code, failure.outcome) == (ErrorCode.UNCERTAIN, Outcome.UNCERTAIN)
    assert failure.message == "1 of 2 owners acknowledged: too few owners can still acknowledge"
    assert failure.replies == (
        ReplyReport(1, "acknowledged", 10),
        ReplyReport(2, "unreached", 20),
        ReplyReport(3, "refused: abstained", 30),
    )


def test_a_deadline_leaves_a_write_uncertain_and_says_who_is_pending() -> None:
    op = write(w=2)
    op.on_ack(1, None, at(10))
    failure = op.on_deadline(at(5_000))
    assert failure.outcome is Outcome.UNCERTAIN
    assert failure.message == "1 of 2 owners acknowledged: the deadline passed"
    assert failure.replies[1:] == (
        ReplyReport(2, "pending", 5_000),
        ReplyReport(3, "pending", 5_000),
    )


def test_no_failure_is_ever_called_not_applied() -> None:
    op = write(w=3)
    assert failed(op.on_failure(2, "unreached", at(1))).outcome is Outcome.UNCERTAIN
    assert op.on_deadline(Instant(NOW)).outcome is Outcome.UNCERTAIN


def test_a_failure_counts_once_and_an_acknowledgement_after_it_counts() -> None:
    op = write(w=2)
    assert op.on_failure(2, "unreached", at(1)) is None
    assert op.on_failure(2, "unreached", at(2)) is None
    assert op.on_ack(2, None, at(3)) is None
    assert op.on_failure(3, "unreached", at(4)) is None
    assert op.on_ack(1, None, at(5)) == PutResult(8, b"", (2, 1), 0)


def test_a_failure_after_the_acknowledgement_is_ignored() -> None:
    op = write(w=3)
    op.on_ack(1, None, at(1))
    assert op.on_failure(1, "unreached", at(2)) is None


def test_an_owner_is_awaited_until_it_answered_or_failed() -> None:
    op = write()
    op.on_ack(1, None, at(1))
    op.on_failure(2, "unreached", at(1))
    assert [op.is_awaiting(node) for node in OWNERS] == [False, False, True]


# ---- what the writer has seen -------------------------------------------------------------------


def test_a_writer_has_seen_what_its_write_superseded_at_its_coordinator() -> None:
    op = write(state=record(MINE, seen=context("a1", "b4")))
    assert op.result_context() == context("a1", "b4")


def test_a_writer_has_seen_what_its_write_superseded_at_other_owners() -> None:
    op = write(state=record(MINE, seen=context("a1", "b4")))
    op.on_ack(2, record(MINE, seen=context("a1", "b2", "c7")), at(1))
    assert op.result_context() == context("a1", "b4", "c7")


def test_a_writer_has_not_seen_a_sibling_that_survives_beside_its_write() -> None:
    op = write(state=record(MINE, version("b4", ms=9)), seen=context("c2"))
    assert op.result_context() == Context({3: 2}, context(single=("a1",)).dots)


def test_a_writer_has_seen_every_attempt_of_its_own_that_is_held() -> None:
    earlier = version("b4", ms=5, write_id=MINE.write_id)
    op = write(w=2)
    op.on_ack(2, record(MINE, earlier), at(10))
    assert op.result_context() == context(single=("a1", "b4"))


def test_a_sibling_at_another_owner_is_not_seen_either() -> None:
    op = write()
    op.on_ack(2, record(MINE, version("b4", ms=9)), at(1))
    assert op.result_context() == context(single=("a1",))


def test_a_write_that_was_superseded_elsewhere_does_not_claim_what_superseded_it() -> None:
    op = write()
    op.on_ack(2, record(version("b4", ms=9), seen=context("a1", "b4")), at(1))
    assert op.result_context() == context(single=("a1",))


# ---- rivals -------------------------------------------------------------------------------------


def test_a_newer_rival_at_the_coordinator_comes_back_with_the_result() -> None:
    op = write(w=1, state=record(MINE, version("b4", ms=9)))
    assert op.on_ack(1, None, at(1)) == PutResult(8, b"", (1,), stamp(9))


def test_the_newest_rival_of_all_owners_comes_back() -> None:
    op = write(w=2, state=record(MINE, version("b4", ms=6)))
    op.on_ack(1, None, at(1))
    result = op.on_ack(2, record(MINE, version("c1", ms=8)), at(2))
    assert result == PutResult(8, b"", (1, 2), stamp(8))


def test_an_older_sibling_and_a_twin_are_no_rivals() -> None:
    twin = version("b1", ms=5, write_id=write_id("a1"))
    op = write(w=1, state=record(MINE, twin, version("c1", ms=4)))
    assert op.on_ack(1, None, at(1)) == PutResult(8, b"", (1,), 0)


def test_an_explicit_write_has_no_rivals_since_it_asked_to_stand_beside_them() -> None:
    mine = version("a1", ms=5, is_explicit=True)
    state = record(mine, version("b4", ms=9))
    op = WriteOp(
        put(w=1, is_explicit=True),
        ReplicaWrite(8, KEY, encode(KEY, state), at(5_000_000), WriteKind.WRITE, 0),
        mine,
        state,
        origin=0,
        owners=OWNERS,
        started_us=NOW,
    )
    assert op.on_ack(1, None, at(1)) == PutResult(8, b"", (1,), 0)


# ---- what owners bring back ---------------------------------------------------------------------


def test_all_that_was_brought_back_must_be_merged() -> None:
    op = write(w=3)
    for node in (1, 2, 3):
        op.expect_merge(1)
        assert op.on_ack(node, None, at(node)) is None
    assert op.on_merged() is None
    assert op.on_merged() is None
    assert op.on_merged() == PutResult(8, b"", (1, 2, 3), 0)


def replaced(**request: Any) -> WriteOp:
    """Return a retry of a write that was superseded before it came: the coordinator spreads what
    replaced it."""
    newer = record(version("b4", ms=9), seen=context("a1", "b4"))
    return WriteOp(
        put(w=2, **request),
        ReplicaWrite(8, KEY, encode(KEY, newer), at(5_000_000), WriteKind.REPAIR, 0),
        newer.versions[0],
        newer,
        origin=0,
        owners=OWNERS,
        started_us=NOW,
    )


def test_a_retry_of_what_was_superseded_has_seen_no_more_than_it_came_with() -> None:
    op = replaced(seen=context("c2"))
    op.on_ack(1, None, at(1))
    op.on_ack(2, record(version("c7", ms=12), seen=context("b4", "c7")), at(2))
    assert op.result_context() == context("c2")


def test_a_retry_of_what_was_superseded_has_no_rivals() -> None:
    op = replaced()
    assert op.on_ack(1, None, at(1)) is None
    result = op.on_ack(2, record(version("c7", ms=12), seen=context("b4", "c7")), at(2))
    assert result == PutResult(8, b"", (1, 2), 0)
