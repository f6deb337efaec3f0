"""Reaping: tombstones and expired records go once nobody can bring back what they cover.

A record of which nothing but absence is left is dropped when this owner, and every other owner of
its key, proven and in this epoch, has said that its floor covers the record's whole context. Then
each of them knows every dot that the record ever covered as superseded, and refuses it from whoever
brings it: a hint on a cut-off fallback, a former owner, a restored backup, an old client's context.
Never by a timer. Owners drop it each for itself; one that has not yet is told by an exchange.

    walk over GRAVES, a slice at a time -> the slice's records are fetched -> judged, one by one

Laws: what a floor does not cover stays; a report counts for the epoch in which it was heard.
Tests: tests/unit/core/test_reaping.py; as whole clusters: tests/sim/test_anti_entropy.py.
Source: design, section 2.6; DottedDB (SRDS 2017), section 4.4, strips contexts likewise.
Left out: how reports are heard (kvnode.core.sweeps, kvnode.core.answering).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kvnode.core.answering import Heard, Holdings
from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.exchange import Shared
from kvnode.core.floors import BadReport, Lack, Seen
from kvnode.core.keys import Partition, StorageKey, keyspace_of
from kvnode.core.messages import Instant, NodeNumber, Outbox, Scan
from kvnode.core.replica import Replica, Unreadable
from kvnode.core.shelf import due_of
from kvnode.core.versions import Record

REAP_ID = 0b1111 << 60
"""The top four bits of the ids of scans that belong to reaping."""
_SLICE = 64
_GAP_US = 50_000
"""Between two slices."""


class Obstacle(NamedTuple):
    """Why one owner keeps a record from being reaped."""

    node: NodeNumber
    is_heard: bool
    """It has reported its floors in this epoch."""
    is_proven: bool
    lacks: tuple[Lack, ...]
    """What its floors do not cover of the record's context."""


class Reaping:
    """The graves of one node."""

    __slots__ = (
        "_cursor", "_heard", "_holdings", "_interval_us", "_max_skew_ms", "_replica", "_scan",
        "_seen", "_wakes_at", "_walked", "_wall_ms", "graves", "reaped",
    )  # fmt: skip

    def __init__(self, replica: Replica, holdings: Holdings, limits: Limits) -> None:
        self._replica = replica
        self._holdings = holdings
        self._interval_us = 1_000 * limits.exchange_interval_ms
        self._max_skew_ms = limits.max_skew_ms
        self._heard: dict[tuple[NodeNumber, Partition], Heard] = {}
        self._seen: dict[bytes, Seen] = {}
        """Reports of this walk, as they were read."""
        self._cursor = b""
        self._scan = 0
        self._wakes_at = Instant(0)
        self._wall_ms = 0
        self._walked = 0
        self.graves = 0
        """How many the latest walk left: records of which nothing but absence is there."""
        self.reaped = 0

    # ---- what is known of the others -------------------------------------------------------

    def on_heard(self, peer: NodeNumber, view: Shared, heard: Heard) -> None:
        """A peer's floors were said to be these. They only rise, in one life of its store: a report
        that is not proven takes back what was said before."""
        self._heard[peer, view.partition] = heard

    def follow(self) -> None:
        """A new epoch: all must say anew."""
        self._heard.clear()

    def obstacles(self, key: StorageKey, record: Record) -> list[Obstacle]:
        """Return why a record is not reaped, but for versions that are alive: for each owner that
        is in the way, what it lacks."""
        topology = self._replica.topology
        keyspace = topology.keyspace(keyspace_of(key))
        partition = self._holdings.trees.partition_of(key)
        if keyspace is None:
            return []
        found = []
        for node in topology.owner_numbers[partition][: keyspace.n]:
            obstacle = self._obstacle(node, partition, record)
            if obstacle is not None:
                found.append(obstacle)
        return found

    def _obstacle(self, node: NodeNumber, partition: Partition, record: Record) -> Obstacle | None:
        if node == self._replica.number:
            is_proven = self._holdings.proving.is_proven(partition)
            seen = self._seen_by(self._holdings.floors.report(partition))
        else:
            heard = self._heard.get((node, partition))
            if heard is None:
                return Obstacle(node, is_heard=False, is_proven=False, lacks=())
            is_proven, seen = heard.is_proven, self._seen_by(heard.report)
        lacks = tuple(seen.lacks(record.context))
        return Obstacle(node, True, is_proven, lacks) if lacks or not is_proven else None

    def _seen_by(self, report: bytes) -> Seen:
        seen = self._seen.get(report)
        if seen is None:
            try:
                seen = Seen.decode(report)
            except BadReport:
                seen = Seen({}, {})  # covers nothing
            self._seen[report] = seen
        return seen

    # ---- the walk --------------------------------------------------------------------------

    def next_wake(self) -> Instant | None:
        """Return when `on_time` has something to do; None: a slice is awaited."""
        return None if self._scan else self._wakes_at

    def on_time(self, now: Instant, wall_ms: int, out: Outbox) -> None:
        """Ask for the next slice, if it is time."""
        self._wall_ms = wall_ms
        if self._scan or now < self._wakes_at:
            return
        self._scan += 1
        out.scans.append(Scan(REAP_ID | self._scan, Family.GRAVES, self._cursor, None, _SLICE))

    def wanted(self, pairs: Sequence[tuple[bytes, bytes]] | None) -> list[StorageKey]:
        """Return the keys of a slice that the turn which takes it must see."""
        latest = self._wall_ms - self._max_skew_ms
        return [
            StorageKey(key)
            for key, value in pairs or ()
            if not (due := due_of(value)) or due <= latest
        ]

    def on_scanned(self, pairs: Sequence[tuple[bytes, bytes]] | None, now: Instant) -> None:
        """A slice was read, and its records with it: reap what may go."""
        self._scan = 0
        self._seen.clear()
        before, ripe = self.reaped, self.wanted(pairs)
        for key in ripe:
            if self._replica.has_fetched(key):
                self._reap(key)
        self._walked += len(ripe) - (self.reaped - before)
        if pairs is not None and len(pairs) == _SLICE:
            self._cursor = pairs[-1][0] + b"\x00"
            self._wakes_at = Instant(now + _GAP_US)
        else:
            self.graves, self._walked = self._walked, 0
            self._cursor = b""
            self._wakes_at = Instant(now + self._interval_us)

    def _reap(self, key: StorageKey) -> None:
        try:
            record = self._replica.peek(key)
        except Unreadable:
            return  # the scrub's work
        if not record.versions or not self._is_over(record):
            return
        if self._is_owner(key) and not self.obstacles(key, record):
            self._replica.remove(key, record)
            self.reaped += 1

    def _is_over(self, record: Record) -> bool:
        """Say whether every reader has seen nothing but absence for a while."""
        latest = self._wall_ms - self._max_skew_ms
        return all(version.is_absence(latest) for version in record.versions)

    def _is_owner(self, key: StorageKey) -> bool:
        topology = self._replica.topology
        keyspace = topology.keyspace(keyspace_of(key))
        row = topology.owner_numbers[self._holdings.trees.partition_of(key)]
        return keyspace is not None and self._replica.number in row[: keyspace.n]
