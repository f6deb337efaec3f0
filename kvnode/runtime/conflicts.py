"""Listing conflicts: those of this node's records that are open, then those in its conflict log.

    page token   empty: from the start | 'o' and a storage key: open ones behind it
                 's' and an entry's name: settled ones behind it, in the order of their times

Laws: a page looks at a bounded number of records and ends after `explain_bytes` of values; an entry
whose version still lives is listed as open alone (a crash came between the log and the prune).
Tests: tests/unit/runtime/test_conflicts.py. Source: design, section 2.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc

from kvnode.core.batch import Family
from kvnode.core.conflict_log import DamagedEntry, Entry, decode_entry
from kvnode.core.explain import sibling_reports
from kvnode.core.keys import StorageKey, decode_key, keyspace_of, partition_of_key
from kvnode.core.messages import SiblingReport
from kvnode.core.node import Node
from kvnode.core.record import DamagedRecord, decode
from kvnode.core.resolve import decide, is_conflict
from kvnode.core.versions import EMPTY, Record, find
from kvnode.runtime.care import Figure
from kvnode.runtime.client_codec import encode_sibling
from kvnode.runtime.clock import wall_ms
from kvnode.runtime.edge import Edge, name_node
from kvnode.runtime.wire import parsed
from kvnode.storage.port import Engine
from kvproto import kv_pb2

Context = Any  # grpc.aio.ServicerContext; its stubs know no raw bytes

_PAGE = 100
_PAGE_MAX = 1_000
_ENTRIES_MAX = 64
"""Of the log, looked at for one page: each may hold a value."""
_OPEN, _SETTLED = b"o", b"s"
_STATES = ("", "open", "settled")


class Conflicts:
    """What a node tells of conflicts."""

    def __init__(self, node: Node, edge: Edge, engine: Engine) -> None:
        self._node = node
        self._edge = edge
        self._engine = engine

    async def answer(self, data: bytes, context: Context) -> bytes:
        """Serve ListConflicts."""
        request = await parsed(kv_pb2.ListConflictsRequest, data, context)
        if request.state not in _STATES or request.after[:1] not in (b"", _OPEN, _SETTLED):
            text = 'state must be "open", "settled" or empty, after the `next` of a page'
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, text)
        return self.page(request).SerializeToString()

    def page(self, request: kv_pb2.ListConflictsRequest) -> kv_pb2.ListConflictsResponse:
        """Return one page."""
        kind, after = request.after[:1], request.after[1:]
        start = after + b"\x00" if after else b""
        if kind == _SETTLED or request.state == "settled":
            return self._settled(request, start)
        response = self._open(request, start)
        if not response.next and not request.state and self._node.replica.conflicts.entries:
            response.next = _SETTLED
        return response

    def figures(self) -> Iterable[Figure]:
        """Yield the metrics of conflicts; called by another thread than the node's."""
        log, settling = self._node.replica.conflicts, self._node.upkeep.settling
        yield "gauge", "conflicts_open", "Keys here with open conflicts.", float(log.open)
        yield "gauge", "conflict_log_entries", "Versions in the conflict log.", float(log.entries)
        yield "gauge", "conflict_log_bytes", "Their bytes.", float(log.bytes)
        yield "counter", "conflicts_settled", "Settled by this node.", float(settling.settled)
        yield "counter", "conflict_walks", "Looks through open conflicts.", float(settling.walks)

    # ---- open ----------------------------------------------------------------------------

    def _open(
        self, request: kv_pb2.ListConflictsRequest, start: bytes
    ) -> kv_pb2.ListConflictsResponse:
        limit = min(request.limit or _PAGE, _PAGE_MAX)
        page = self._engine.scan(Family.CONFLICTS, start, None, limit)
        keys = [StorageKey(key) for key, _ in page]
        response = kv_pb2.ListConflictsResponse()
        for key, record in zip(keys, self._records(keys), strict=True):
            if request.keyspace in ("", keyspace_of(key)) and is_conflict(record, wall_ms()):
                self._add_open(response, key, record)
        if len(page) == limit:
            response.next = _OPEN + keys[-1]
        return response

    def _add_open(
        self, response: kv_pb2.ListConflictsResponse, key: StorageKey, record: Record
    ) -> None:
        topology = self._node.topology
        keyspace = topology.keyspace(keyspace_of(key))
        if keyspace is None:
            return
        partition = partition_of_key(key, topology.partition_bits)
        # As far as this node knows: a read asks all owners for their votes.
        decision = decide(
            record,
            owners=topology.owner_numbers[partition][: keyspace.n],
            unheard=0,
            now_ms=wall_ms(),
            resolve=keyspace.resolve,
        )
        conflict = self._conflict(key, record)
        conflict.siblings.extend(map(encode_sibling, sibling_reports(record, decision)))
        response.conflicts.append(conflict)

    # ---- settled -------------------------------------------------------------------------

    def _settled(
        self, request: kv_pb2.ListConflictsRequest, start: bytes
    ) -> kv_pb2.ListConflictsResponse:
        limit = min(request.limit or _PAGE, _ENTRIES_MAX)
        page = self._engine.scan(Family.CONFLICT_LOG, start, None, limit)
        entries = [entry for pair in page if (entry := _entry(*pair)) is not None]
        response, size, last = kv_pb2.ListConflictsResponse(), 0, b""
        held = self._records([entry.key for entry in entries])
        records = {entry.key: record for entry, record in zip(entries, held, strict=True)}
        for name, value in page:
            last, size = name, size + len(value)
            entry = _entry(name, value)
            if entry is not None and request.keyspace in ("", keyspace_of(entry.key)):
                self._add_settled(response, entry, records[entry.key])
            if size > self._node.limits.explain_bytes:
                break
        if page and (last != page[-1][0] or len(page) == limit):
            response.next = _SETTLED + last
        return response

    def _add_settled(
        self, response: kv_pb2.ListConflictsResponse, entry: Entry, record: Record
    ) -> None:
        (loser,) = entry.loser.versions
        if find(record, loser.dot) is not None:
            return
        conflict = self._conflict(entry.key, entry.loser)
        conflict.settled_ms, conflict.rule = entry.time_ms, entry.rule
        report = SiblingReport(
            *loser.dot,
            loser.timestamp,
            loser.value,
            loser.is_tombstone,
            loser.expires_ms,
            won=False,
            write_id=loser.write_id,
        )
        conflict.siblings.append(encode_sibling(report))
        winner = conflict.winner
        winner.actor, winner.counter = entry.winner
        winner.timestamp, winner.won = entry.winner_timestamp, True
        kept = find(record, entry.winner)
        if kept is not None:
            winner.value, winner.tombstone = kept.value, kept.is_tombstone
        conflict.winner_held = kept is not None
        response.conflicts.append(conflict)

    # ---- both ----------------------------------------------------------------------------

    def _conflict(self, key: StorageKey, record: Record) -> kv_pb2.Conflict:
        """Return a conflict with the votes of a record, and no siblings yet."""
        name = decode_key(key)
        index = {version.dot: at for at, version in enumerate(record.versions)}
        return kv_pb2.Conflict(
            keyspace=name.keyspace,
            key=name.partition_part + name.sort_part,
            votes=[
                kv_pb2.Vote(node=name_node(self._edge, vote.owner), sibling=index[vote.dot])
                for vote in record.votes
            ],
        )

    def _records(self, keys: list[StorageKey]) -> list[Record]:
        """Return what is held; nothing in the place of damage: reads of that raise the alarm."""
        found = self._engine.multi_get(Family.RECORDS, keys) if keys else []
        return [
            _record(key, data if isinstance(data, bytes) else None)
            for key, data in zip(keys, found, strict=True)
        ]


def _record(key: StorageKey, data: bytes | None) -> Record:
    try:
        return decode(key, data) if data else EMPTY
    except DamagedRecord:
        return EMPTY


def _entry(name: bytes, value: bytes) -> Entry | None:
    try:
        return decode_entry(name, value)
    except DamagedEntry:
        return None  # the scrub tells of it
