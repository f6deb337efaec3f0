"""What a read tells: its answer and, about itself, siblings, votes and what each replica did.

Tests: tests/unit/core/test_explain.py. Source: design, section 2.5, `explain`.
"""

from __future__ import annotations

from kvnode.core.messages import (
    Detail,
    GetResult,
    NodeNumber,
    ReplicaReport,
    SiblingReport,
    Status,
)
from kvnode.core.read import UNREADABLE, ReadOp
from kvnode.core.record import DamagedRecord, decode
from kvnode.core.resolve import Decision, counted_votes
from kvnode.core.versions import Dot, Record


def describe(op: ReadOp, decision: Decision, merged: Record) -> Detail:
    """Return the story of a finished read."""
    index = {version.dot: at for at, version in enumerate(merged.versions)}
    explained = op.request.explain
    votes = counted_votes(merged, op.owners)
    return Detail(
        siblings=sibling_reports(merged, decision),
        votes=tuple((vote.owner, index[vote.dot]) for vote in merged.votes),
        rule=decision.rule,
        replicas=tuple(_report(op, node, votes) for node in _told_of(op)) if explained else (),
        repaired=tuple(op.mended),
        repair_failed=op.repair_failed,
        is_explained=explained,
    )


def answer(op: ReadOp, decision: Decision, merged: Record, context: bytes) -> GetResult:
    """Return what the client of a finished read is told; `context` is the sealed one."""
    winner = decision.winner
    has_story = len(merged.versions) > 1 or op.repair_failed or op.request.explain
    return GetResult(
        op.request.id,
        None if winner is None or winner.is_absence(op.judged_ms) else winner.value,
        context,
        0 if winner is None else winner.timestamp,
        decision.confidence,
        describe(op, decision, merged) if has_story else None,
    )


def sibling_reports(merged: Record, decision: Decision | None) -> tuple[SiblingReport, ...]:
    """Return all survivors; the winner is marked if one was decided on."""
    winner = decision.winner if decision is not None else None
    return tuple(
        SiblingReport(
            version.dot.actor, version.dot.counter, version.timestamp, version.value,
            version.is_tombstone, version.expires_ms,
            winner is not None and version.dot == winner.dot, version.write_id,
        )
        for version in merged.versions
    )  # fmt: skip


def name_dot(dot: Dot) -> str:
    """Return a dot as people read it: actor in hex, counter in decimal."""
    return f"{dot.actor:016x}:{dot.counter}"


def _told_of(op: ReadOp) -> list[NodeNumber]:
    """Return the owners, and the stand-ins that were asked."""
    return [*op.owners, *(node for node in op.asked if node not in op.owners)]


def _report(op: ReadOp, node: NodeNumber, votes: dict[int, Dot]) -> ReplicaReport:
    heard, is_owner = op.heard, node in op.owners
    reply = heard.replies.get(node)
    vote = name_dot(votes[node]) if node in votes else ""
    if reply is None:
        answer = heard.failed.get(node, "not asked" if node not in op.asked else "pending")
        checksum = "failed" if answer.startswith(UNREADABLE) else "unknown"
        latency = heard.at.get(node, 0)
        return ReplicaReport(node, answer, latency, (), vote, True, is_owner, checksum)
    kept = "record" if is_owner else "hint"
    answer = kept if reply.record else "absent"
    return ReplicaReport(
        node, answer, heard.at[node], _dots(op, reply.record), vote,
        reply.status is not Status.UNPROVEN, is_owner, "ok",
    )  # fmt: skip


def _dots(op: ReadOp, data: bytes) -> tuple[str, ...]:
    if not data:
        return ()
    try:
        return tuple(name_dot(version.dot) for version in decode(op.request.key, data).versions)
    except DamagedRecord:
        return ()
