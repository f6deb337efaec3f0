"""Between operations and messages: nothing of protobuf passes this module on the hot path.

Decides how frames are built and read. Laws: a column is empty when every entry is the default, and
otherwise as long as `id`; an answer to an operation that is no longer waited for changes nothing.
Tests: tests/unit/client/test_codec.py.
Source: proto/kvproto/kv.proto.
Left out: what an answer leads to (`engine`).

Cost: about 2 us for each operation, both ways together, since whole columns are handed to protobuf.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import repeat
from struct import Struct
from typing import TypeVar

from kvclient.errors import Reply
from kvclient.operation import GET_EXPLAIN, PUT_DELETE, PUT_EXPLICIT, Operation
from kvclient.results import (
    Confidence,
    Explain,
    Record,
    ReplicaReport,
    Sibling,
    Status,
)
from kvclient.retry import Code, Refusal
from kvclient.routing import KeyspaceSettings, Member, Topology
from kvproto import kv_pb2 as pb

WIRE_FORMAT = 1
_CONFIDENCES = tuple(Confidence)
_NODE = Struct("<H")

assert (GET_EXPLAIN, PUT_DELETE, PUT_EXPLICIT) == (pb.GET_EXPLAIN, pb.PUT_DELETE, pb.PUT_EXPLICIT)
assert {code.name for code in Code} - {"UNSPECIFIED"} == set(pb.ErrorCode.keys()) - {
    "ERROR_UNSPECIFIED"
}
assert [confidence.name for confidence in Confidence] == pb.Confidence.keys()

T = TypeVar("T")


def encode_frame(
    operations: Sequence[Operation],
    *,
    epoch: int,
    now: float,
    pair: bytes = b"",
    is_bulk: bool = False,
) -> bytes:
    """Return one PipelineRequest with all operations.

    Args:
        operations: at most as many as a frame may hold.
        epoch: of the topology that is routed by.
        now: on the deadlines' clock, seconds.
        pair: in the first frame of a stream, the two streams that it is one of.
        is_bulk: in the first frame of a stream, whether it is the one for large values.
    """
    table: dict[str, int] = {}
    for operation in operations:
        table.setdefault(operation.keyspace, len(table))
    gets = [operation for operation in operations if not operation.is_put]
    puts = [operation for operation in operations if operation.is_put]
    request = pb.PipelineRequest(
        format=WIRE_FORMAT,
        epoch=epoch,
        keyspaces=list(table),
        gets=_gets(gets, table, now) if gets else None,
        puts=_puts(puts, table, now) if puts else None,
        pair=pair,
        bulk=is_bulk,
        sent_ms=int(now * 1000),
    )
    return request.SerializeToString()


def _gets(operations: list[Operation], table: dict[str, int], now: float) -> pb.Gets:
    return pb.Gets(
        id=[o.id for o in operations],
        key=[o.key for o in operations],
        keyspace=_places(operations, table),
        context=_sparse([o.context for o in operations]),
        watermark=_sparse([o.watermark for o in operations]),
        r=_sparse([o.quorum for o in operations]),
        timeout_ms=_time_left(operations, now),
        flags=_sparse([o.flags for o in operations]),
    )


def _puts(operations: list[Operation], table: dict[str, int], now: float) -> pb.Puts:
    return pb.Puts(
        id=[o.id for o in operations],
        key=[o.key for o in operations],
        keyspace=_places(operations, table),
        value=_sparse([o.value or b"" for o in operations]),
        context=_sparse([o.context for o in operations]),
        write_id=[o.write_id for o in operations],
        timestamp=[o.timestamp for o in operations],
        expires_ms=_sparse([o.expires_ms for o in operations]),
        w=_sparse([o.quorum for o in operations]),
        timeout_ms=_time_left(operations, now),
        flags=_sparse([o.flags for o in operations]),
    )


def _sparse(column: list[T]) -> list[T]:
    return column if any(column) else []


def _places(operations: list[Operation], table: dict[str, int]) -> list[int]:
    """Indexes into the table of keyspaces; empty with one keyspace, which has index 0."""
    return [table[o.keyspace] for o in operations] if len(table) > 1 else []


def _time_left(operations: list[Operation], now: float) -> list[int]:
    """What is left of each deadline, less a little, so that the node's own verdict is in time."""
    return [time_left_ms(o.deadline - now) for o in operations]


def time_left_ms(left_s: float) -> int:
    """Return the time-out for a node: a tenth less, at most 20 ms less; at least 1 ms."""
    left = left_s * 1000
    return max(1, int(left - 20 if left > 200 else left * 0.9))


def read_gets(results: pb.GetResults, unanswered: dict[int, Operation]) -> list[Operation]:
    """Fill in what was answered, take it out of `unanswered`, and return it."""
    ids = list(results.id)
    rows = zip(
        ids,
        _column(results.value, b"", len(ids)),
        _column(results.found, 1, len(ids)),
        _column(results.context, b"", len(ids)),
        _column(results.timestamp, 0, len(ids)),
        _column(results.confidence, 0, len(ids)),
        strict=True,
    )
    answered = []
    for number, value, found, context, timestamp, confidence in rows:
        operation = unanswered.pop(number, None)
        if operation is None or operation.is_put:
            continue
        operation.value = value if found else None
        operation.seen = context
        operation.timestamp = timestamp
        operation.confidence = confidence
        answered.append(operation)
    if results.details:
        _attach(results.details, answered)
    return answered


def _attach(details: Iterable[pb.Detail], answered: list[Operation]) -> None:
    by_id = {operation.id: operation for operation in answered}
    for detail in details:
        if (operation := by_id.get(detail.id)) is not None:
            operation.detail = detail


def read_puts(results: pb.PutResults, unanswered: dict[int, Operation]) -> list[Operation]:
    """The same for puts. `newer` stays 0 unless an owner holds something that is."""
    ids = list(results.id)
    rows = zip(
        ids,
        _column(results.context, b"", len(ids)),
        _column(results.acked, b"", len(ids)),
        _column(results.newer, 0, len(ids)),
        strict=True,
    )
    answered = []
    for number, context, acked, newer in rows:
        operation = unanswered.pop(number, None)
        if operation is None or not operation.is_put:
            continue
        operation.seen = context
        operation.detail = acked
        operation.newer = newer
        answered.append(operation)
    return answered


def _column(repeated: Sequence[T], default: T, length: int) -> Iterable[T]:
    return list(repeated) if repeated else repeat(default, length)


def acked_numbers(acked: bytes) -> tuple[int, ...]:
    """Return the node numbers in an acknowledgement."""
    return tuple(number for (number,) in _NODE.iter_unpack(acked))


def refusal_of(failure: pb.Failure) -> Refusal:
    """Return a failure as the engine judges it. An unknown code counts as internal."""
    try:
        code = Code(failure.code)
    except ValueError:
        code = Code.INTERNAL
    return Refusal(
        code,
        failure.message or code.name.lower().replace("_", " "),
        is_uncertain=failure.outcome == pb.UNCERTAIN_OUTCOME,
        retry_after_ms=failure.retry_after_ms,
        replies=tuple(Reply(reply.node, reply.answer, reply.after_ms) for reply in failure.replies),
    )


def record_of(operation: Operation) -> Record | None:
    """Return a finished get as a record; None if absent, unless it was to be explained."""
    detail: pb.Detail | None = operation.detail
    explained = bool(operation.flags & GET_EXPLAIN)
    confidence = _confidence(operation.confidence)
    has_siblings = confidence is Confidence.SIBLINGS and detail is not None
    if operation.value is None and not explained and not has_siblings:
        return None
    if detail is None:
        return Record(operation.value, operation.seen, operation.timestamp, confidence=confidence)
    siblings = tuple(map(sibling_of, detail.siblings))
    return Record(
        operation.value,
        operation.seen,
        operation.timestamp,
        siblings=siblings,
        votes=votes_of(detail.votes, siblings),
        confidence=confidence,
        explain=_explain(detail.explain) if detail.HasField("explain") else None,
        repair_failed=detail.repair_failed,
    )


def live_values(operation: Operation) -> tuple[bytes, ...]:
    """Return the values left to the caller to merge, newest first; empty unless several."""
    if _confidence(operation.confidence) is not Confidence.SIBLINGS or operation.detail is None:
        return ()
    live = [sibling for sibling in operation.detail.siblings if not sibling.tombstone]
    live.sort(key=lambda sibling: sibling.timestamp, reverse=True)
    return tuple(sibling.value for sibling in live) if len(live) > 1 else ()


def _confidence(number: int) -> Confidence:
    return _CONFIDENCES[number] if number < len(_CONFIDENCES) else Confidence.PROVISIONAL


def sibling_of(sibling: pb.Sibling) -> Sibling:
    """Return a version as a value."""
    return Sibling(
        f"{sibling.actor:016x}:{sibling.counter}",
        sibling.value,
        sibling.timestamp,
        sibling.tombstone,
        sibling.expires_ms,
        sibling.won,
    )


def votes_of(votes: Iterable[pb.Vote], siblings: Sequence[Sibling]) -> dict[str, str]:
    """Return for each owner the dot that its vote counts for."""
    return newest_votes(
        (vote.node, siblings[vote.sibling]) for vote in votes if vote.sibling < len(siblings)
    )


def newest_votes(votes: Iterable[tuple[str, Sibling]]) -> dict[str, str]:
    """Return for each owner, of the versions that it voted for, the newest one's dot.

    An owner that accepted one version after another has voted for both, and counts once, for the
    newest by hybrid clock, then dot: so do nodes when they decide.
    """
    counted: dict[str, Sibling] = {}
    for node, sibling in votes:
        if node not in counted or _age(sibling) > _age(counted[node]):
            counted[node] = sibling
    return {node: sibling.dot for node, sibling in counted.items()}


def _age(sibling: Sibling) -> tuple[int, int, int]:
    actor, _, counter = sibling.dot.partition(":")
    return sibling.timestamp, int(actor, 16), int(counter)


def _explain(explain: pb.Explain) -> Explain:
    return Explain(
        explain.rule, tuple(map(_report, explain.replicas)), repaired=tuple(explain.repaired)
    )


def _report(report: pb.ReplicaReport) -> ReplicaReport:
    return ReplicaReport(
        report.node,
        report.answer,
        report.latency_ms,
        tuple(report.versions),
        report.vote,
        report.proven,
        report.primary,
        report.checksum,
    )


def topology_of(message: pb.Topology) -> Topology:
    """Return the routing view of a topology. Raises: ValueError if it contradicts itself."""
    partitions, length = message.partitions, message.walk_length
    if partitions < 1 or partitions & (partitions - 1):
        raise ValueError(f"{partitions} partitions are not a power of two")
    walk = list(message.walk)
    if len(walk) != partitions * length:
        raise ValueError(f"{len(walk)} places in walks of {length} for {partitions} partitions")
    return Topology(
        cluster_id=message.cluster_id,
        name=message.name,
        epoch=message.epoch,
        partitions=partitions,
        members=tuple(
            Member(m.id, m.number, m.address, m.rack, m.weight, m.state) for m in message.members
        ),
        keyspaces={keyspace.name: _settings(keyspace) for keyspace in message.keyspaces},
        walks=tuple(tuple(walk[start : start + length]) for start in range(0, len(walk), length))
        if length
        else (),
    )


def _settings(keyspace: pb.Keyspace) -> KeyspaceSettings:
    return KeyspaceSettings(
        keyspace.name,
        keyspace.n,
        keyspace.r,
        keyspace.w,
        is_sloppy=keyspace.sloppy,
        resolve=keyspace.resolve,
        ttl_ms=keyspace.ttl_ms,
        durability=keyspace.durability,
    )


def status_of(status: pb.Status) -> Status:
    """Return a node's status as a value."""
    return Status(
        status.node,
        status.cluster,
        status.address,
        status.epoch,
        status.state,
        status.incarnation,
        status.pid,
        status.version,
        status.records,
        status.bytes,
        status.open_conflicts,
        {peer.node: peer.state for peer in status.peers},
        status.hlc,
        status.wall_ms,
        status.pending_hints,
        status.unproven_partitions,
    )


DECODE_ERRORS = (struct.error, ValueError)
"""What a frame that contradicts itself raises here."""
