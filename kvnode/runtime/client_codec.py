"""Results of the core to the columns of a client's frame.

Tests: tests/unit/runtime/test_client_codec.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kvnode.core.messages import Detail, GetResult, PutResult, Result, SiblingReport
from kvnode.runtime.edge import Edge, encode_failure, name_node, pack_nodes
from kvproto import kv_pb2

FORMAT = 1


def encode_results(
    edge: Edge, results: Iterable[Result], *, hlc: int, explain_bytes: int
) -> kv_pb2.PipelineResponse:
    """Return one frame with all the results."""
    frame = kv_pb2.PipelineResponse(format=FORMAT, epoch=edge.topology.epoch, hlc=hlc)
    gets: list[GetResult] = []
    puts: list[PutResult] = []
    for result in results:
        if isinstance(result, GetResult):
            gets.append(result)
        elif isinstance(result, PutResult):
            puts.append(result)
        else:
            frame.failures.append(encode_failure(result, edge))
    if gets:
        _fill_gets(frame.gets, gets, edge, explain_bytes)
    if puts:
        fill_put_results(frame.puts, puts)
    return frame


def fill_put_results(columns: kv_pb2.PutResults, puts: Sequence[PutResult]) -> None:
    """Put results into their columns."""
    ids, contexts, acked, newer = zip(*puts, strict=True)
    columns.id.extend(ids)
    columns.context.extend(contexts)
    columns.acked.extend(map(pack_nodes, acked))
    if any(newer):
        columns.newer.extend(newer)


def encode_detail(op_id: int, detail: Detail, edge: Edge, explain_bytes: int) -> kv_pb2.Detail:
    """Return the story of a read; values beyond `explain_bytes` are left out."""
    message = kv_pb2.Detail(id=op_id, repair_failed=detail.repair_failed)
    left = explain_bytes
    for sibling in detail.siblings:
        left -= len(sibling.value)
        message.siblings.append(encode_sibling(sibling, with_value=left >= 0))
    message.votes.extend(
        kv_pb2.Vote(node=name_node(edge, owner), sibling=index) for owner, index in detail.votes
    )
    if detail.is_explained:
        message.explain.CopyFrom(_encode_explain(detail, edge))
    return message


def encode_sibling(sibling: SiblingReport, *, with_value: bool = True) -> kv_pb2.Sibling:
    """Return one survivor."""
    return kv_pb2.Sibling(
        actor=sibling.actor,
        counter=sibling.counter,
        timestamp=sibling.timestamp,
        value=sibling.value if with_value else b"",
        tombstone=sibling.is_tombstone,
        expires_ms=sibling.expires_ms,
        won=sibling.won,
        write_id=sibling.write_id,
    )


def _fill_gets(
    columns: kv_pb2.GetResults, gets: Sequence[GetResult], edge: Edge, explain_bytes: int
) -> None:
    ids, values, contexts, timestamps, confidences, details = zip(*gets, strict=True)
    columns.id.extend(ids)
    if None in values:
        columns.found.extend([int(value is not None) for value in values])
        values = tuple(value or b"" for value in values)
    columns.value.extend(values)
    columns.context.extend(contexts)
    columns.timestamp.extend(timestamps)
    if any(confidences):
        columns.confidence.extend(confidences)
    columns.details.extend(_encode_details(ids, details, edge, explain_bytes))


def _encode_details(
    ids: Sequence[int], details: Sequence[Any], edge: Edge, explain_bytes: int
) -> Iterable[kv_pb2.Detail]:
    pairs = zip(ids, details, strict=True)
    return [
        encode_detail(op_id, detail, edge, explain_bytes)
        for op_id, detail in pairs
        if detail is not None
    ]


def _encode_explain(detail: Detail, edge: Edge) -> kv_pb2.Explain:
    return kv_pb2.Explain(
        rule=detail.rule,
        replicas=[
            kv_pb2.ReplicaReport(
                node=name_node(edge, report.node),
                answer=report.answer,
                latency_ms=report.latency_us / 1_000,
                versions=report.versions,
                vote=report.vote,
                proven=report.is_proven,
                primary=report.is_primary,
                checksum=report.checksum,
            )
            for report in detail.replicas
        ],
        repaired=[name_node(edge, node) for node in detail.repaired],
    )
