"""A node's mind: one turn takes a batch of events and says what must be done.

    plan(events)                     -> the keys whose records (and hints) the turn must see
    apply(events, records, now, ...) -> one write batch, messages by destination, and scans

The driver (the runtime, or a simulator) fetches the records with one multi-get, applies the
batch, sends what may leave at once, sends what is `held` once the log is durable, and answers
each scan with an event. Messages to
this node itself come back as events, so the local replica is a replica like any other.

Laws: nothing here acts; the same events, records and instants give the same result; turns are
applied in the order in which they were planned.
Tests: tests/unit/core/test_node.py; as whole clusters: tests/sim/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, assert_never

from kvnode.core.batch import WriteBatch
from kvnode.core.bounds import Limits
from kvnode.core.conflict_log import ConflictLog
from kvnode.core.conversations import PeerAsks, PeerTells
from kvnode.core.coordinator import Coordinator
from kvnode.core.floors import Floors
from kvnode.core.handoff import Handoff, is_handoff
from kvnode.core.hints import Hints, hint_key
from kvnode.core.hlc import LOGICAL_BITS, Clock
from kvnode.core.integrity import Integrity, is_integrity
from kvnode.core.keys import StorageKey
from kvnode.core.messages import (
    ClientOps,
    Event,
    Instant,
    NodeNumber,
    Outbox,
    PeerClock,
    PeerDown,
    PeerHeard,
    PeerReplies,
    PeerRequests,
    PeerSilent,
    PeerUp,
    Scanned,
    Status,
    SyncedUpTo,
    TopologyChanged,
)
from kvnode.core.operations import OPERATION_ID_MAX
from kvnode.core.proving import Proving
from kvnode.core.replica import Replica
from kvnode.core.scrub import is_scrub
from kvnode.core.skew import Skews
from kvnode.core.standin import StandIn
from kvnode.core.topology import Topology
from kvnode.core.trees import Trees
from kvnode.core.upkeep import Upkeep
from kvnode.core.wheel import earliest

SERVED_US = 1_000_000
"""After a client's last request a node counts as idle: what runs in the background may hurry."""


class Needs(NamedTuple):
    """The keys that a turn must see, each once."""

    records: list[StorageKey]
    hints: list[bytes]
    """Keys of Family.HINTS."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn decided."""

    number: int
    batch: WriteBatch
    out: Outbox


class Node:
    """The deciding part of one life of a node."""

    def __init__(
        self,
        *,
        number: NodeNumber,
        actor: int,
        topology: Topology,
        limits: Limits,
        cluster_key: bytes,
        floors: Floors,
        hints: Hints,
        trees: Trees | None = None,
        proving: Proving | None = None,
        conflicts: ConflictLog | None = None,
    ) -> None:
        self.limits = limits
        self.clock = Clock(max_skew_ms=limits.max_skew_ms)
        self.replica = Replica(
            number,
            actor,
            topology,
            self.clock,
            floors,
            trees=trees,
            proving=proving,
            conflicts=conflicts,
        )
        self.hints = hints
        self.stand_in = StandIn(self.replica, hints)
        self.handoff = Handoff(hints, limits, self.stand_in.owners_of, number=number)
        self.integrity = Integrity(self.replica, limits)
        self.coordinator = Coordinator(
            self.replica,
            self.stand_in,
            limits,
            cluster_key=cluster_key,
            first_id=actor & 0xFFFF_FFFF,
        )
        self.upkeep = Upkeep(self.replica, limits, self.coordinator.is_healthy)
        self.upkeep.sweeps.hints_for = hints.pending_for
        self._skews = Skews(max_skew_ms=limits.max_skew_ms)
        self._now = Instant(0)
        self._served_at = Instant(-SERVED_US)
        """When a client last asked for something, here or through another node."""

    @property
    def number(self) -> NodeNumber:
        """This node's number in the topology."""
        return self.replica.number

    def take_alarms(self) -> list[str]:
        """Return what people should hear of the turns so far, once."""
        replica, handoff, answers = self.replica, self.handoff, self.upkeep.answers
        if not (replica.alarms or handoff.alarms or answers.alarms):
            return []  # nearly always
        alarms = [*replica.alarms, *handoff.alarms, *answers.alarms]
        replica.alarms, handoff.alarms, answers.alarms = [], [], []
        return alarms

    @property
    def topology(self) -> Topology:
        """The topology in force."""
        return self.replica.topology

    def is_serving(self, now: Instant) -> bool:
        """Say whether it serves clients, its own or another node's: the background yields then."""
        return self.coordinator.in_flight > 0 or now < self._served_at + SERVED_US

    def next_wake(self) -> Instant | None:
        """Return the earliest instant at which a turn without events has something to do."""
        return earliest(
            self.coordinator.next_wake(),
            self.handoff.next_wake(),
            self.integrity.next_wake(),
            self.upkeep.next_wake(self._now),
        )

    def plan(self, events: Sequence[Event]) -> Needs:
        """Return the keys that the turn must see."""
        keys: dict[StorageKey, None] = {}
        hints: dict[bytes, None] = {}
        owns = self.coordinator.owns
        for event in events:
            if isinstance(event, PeerRequests):
                self._plan_requests(event, keys, hints)
            elif isinstance(event, ClientOps):
                keys.update((get.key, None) for get in event.gets if owns(get.key, get.keyspace.n))
                for put in event.puts:
                    if owns(put.key, put.keyspace.n):
                        keys[put.key] = None
                    elif self.coordinator.may_stand_in(put.key, put.keyspace.n):
                        hints.update(dict.fromkeys(self.stand_in.names_of(put.key)))
            elif isinstance(event, PeerReplies) and self.integrity.is_recovering:
                found = (self.integrity.key_of(read.id) for read in event.reads)
                keys.update((key, None) for key in found if key is not None)
            elif isinstance(event, PeerAsks):
                keys.update(dict.fromkeys(self.upkeep.asked_for(event)))
            elif isinstance(event, Scanned) and event.pairs:
                if is_handoff(event.id):
                    hints.update((name, None) for name, _ in event.pairs)
                else:
                    keys.update(dict.fromkeys(self.upkeep.wanted(event)))
        return Needs(list(keys), list(hints))

    def _plan_requests(
        self,
        event: PeerRequests,
        keys: dict[StorageKey, None],
        hints: dict[bytes, None],
    ) -> None:
        for write in event.writes:
            if write.stand_in_for:
                hints[hint_key(write.stand_in_for, write.key)] = None
            else:
                keys[write.key] = None
        for read in event.reads:
            if read.is_stand_in:
                hints.update(dict.fromkeys(self.stand_in.names_of(read.key)))
            else:
                keys[read.key] = None
        for put in event.forwards:
            if self.coordinator.owns(put.key, put.keyspace.n):
                keys[put.key] = None
            else:
                hints.update(dict.fromkeys(self.stand_in.names_of(put.key)))

    def apply(
        self,
        events: Sequence[Event],
        records: Mapping[StorageKey, bytes | None],
        *,
        hints: Mapping[bytes, bytes | None],
        unreadable: Set[bytes],
        now: Instant,
        wall_ms: int,
    ) -> Turn:
        """Decide.

        Args:
            events: what happened, in order.
            records: what is stored under each planned key.
            hints: what Family.HINTS holds under each planned key.
            unreadable: planned keys whose read failed: never taken for absent.
            now: monotonic microseconds.
            wall_ms: physical time, ms since 1970.
        """
        out = Outbox()
        self._now = now
        self.replica.begin(records, unreadable, wall_ms)
        self.hints.begin(hints, unreadable, self.replica.batch, wall_ms)
        self.coordinator.begin(out, now, wall_ms)
        self.integrity.begin(now, out)
        for event in events:
            self._on_event(event, out, now, wall_ms)
        self.coordinator.end()
        is_busy = self.is_serving(now)
        self.handoff.on_time(now, wall_ms, out, is_busy=is_busy)
        self.integrity.end()
        is_off = self.coordinator.clock_is_off
        self.upkeep.on_time(now, wall_ms, out, is_busy=is_busy, is_clock_off=is_off)
        return Turn(self.replica.turn, self.replica.end(), out)

    def _on_event(self, event: Event, out: Outbox, now: Instant, wall_ms: int) -> None:
        match event:
            case ClientOps():
                self._on_client_ops(event)
            case PeerRequests():
                self._on_requests(event, out, now)
            case PeerReplies():
                self._on_replies(event, out, now)
            case SyncedUpTo(turn):
                self.replica.on_synced(turn)
                self.stand_in.on_synced(turn)
            case PeerUp() | PeerDown() | PeerSilent() | PeerHeard():
                self._on_peer(event, out, now)
            case PeerClock(node, ahead_ms):
                self._skews.on_clock(node, ahead_ms)
                self.coordinator.clock_is_off = self._skews.is_off
            case PeerAsks(sender, asks):
                self.upkeep.on_asks(sender, asks, wall_ms, out)
            case PeerTells(sender, tells):
                self.upkeep.on_tells(sender, tells, now, wall_ms, out)
            case Scanned(number, pairs) if is_handoff(number):
                self.handoff.on_scanned(number, pairs, now, wall_ms, out)
            case Scanned(number, pairs) if is_scrub(number):
                self.integrity.on_scanned(number, pairs)
            case Scanned():
                self.upkeep.on_scanned(event, now, out)
            case TopologyChanged(topology):
                self.replica.follow(topology)
                self.handoff.on_topology()
                self.upkeep.follow(now)
            case _:
                assert_never(event)

    def _on_peer(
        self, event: PeerUp | PeerDown | PeerSilent | PeerHeard, out: Outbox, now: Instant
    ) -> None:
        match event:
            case PeerUp(node):
                self._skews.on_up(node)
                self.coordinator.on_peer_up(node)
                self.handoff.on_up(node)
                self.upkeep.on_up(node, now)
            case PeerDown(node):
                self._skews.on_down(node)
                self.coordinator.on_peer_down(node)
                self.handoff.on_down(node)
                self.upkeep.on_down(node, now, out)
            case PeerSilent(node):
                self.coordinator.on_peer_silent(node)
            case PeerHeard(node):
                self.coordinator.on_peer_heard(node)
            case _:
                assert_never(event)
        self.coordinator.clock_is_off = self._skews.is_off

    def _on_client_ops(self, event: ClientOps) -> None:
        coordinator = self.coordinator
        self._served_at = self._now
        for put in event.puts:
            coordinator.on_put(event.session, put)
        for get in event.gets:
            coordinator.on_get(event.session, get)

    def _on_requests(self, event: PeerRequests, out: Outbox, now: Instant) -> None:
        replica, sender = self.replica, event.sender
        if event.forwards or any(
            one.id <= OPERATION_ID_MAX for box in (event.writes, event.reads) for one in box
        ):
            self._served_at = now
        for write in event.writes:
            if write.stand_in_for:
                reply = self.stand_in.on_write(write, now)
                durable = reply.status is Status.DONE
            else:
                reply = replica.on_write(write, now)
                durable = reply.status is Status.DONE and replica.is_dirty(write.key)
            if write.id:
                out.send(sender, reply, durable=durable)
        for read in event.reads:
            if read.is_stand_in:
                kept = self.stand_in.on_read(read, now)
                out.send(sender, kept, durable=self.stand_in.is_dirty(read.key))
            else:
                out.send(sender, replica.on_read(read, now), durable=replica.is_dirty(read.key))
        for put in event.forwards:
            self.coordinator.on_put(-sender, put)

    def _on_replies(self, event: PeerReplies, out: Outbox, now: Instant) -> None:
        coordinator, handoff, sender = self.coordinator, self.handoff, event.sender
        for write in event.writes:
            if write.id <= OPERATION_ID_MAX:
                coordinator.on_write_reply(sender, write)
            elif is_handoff(write.id):
                handoff.on_write_reply(sender, write)
            elif not is_integrity(write.id):
                self.upkeep.on_write_reply(sender, write, now, out)
        for read in event.reads:
            if read.id <= OPERATION_ID_MAX:
                coordinator.on_read_reply(sender, read)
            elif is_handoff(read.id):
                handoff.on_read_reply(sender, read)
            elif is_integrity(read.id):
                self.integrity.on_read_reply(sender, read)
            else:
                self.upkeep.on_read_reply(sender, read, now, out)
        for forward in event.forwards:
            coordinator.on_forward_reply(sender, forward)

    def time_for_clients(self, wall_ms: int) -> int:
        """Return the hybrid time that a client may go by; 0 while this node's clock seems wrong.

        Other nodes would refuse the writes of a client whose clock was dragged ahead. So they
        would if this clock was wrong before, and what it noted then is not over yet.
        """
        if self.coordinator.clock_is_off:
            return 0
        return min(self.clock.read(wall_ms), wall_ms + self.limits.max_skew_ms << LOGICAL_BITS)
