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
from kvnode.core.coordinator import Coordinator
from kvnode.core.floors import Floors
from kvnode.core.hlc import Clock
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
from kvnode.core.replica import Replica
from kvnode.core.topology import Topology


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
    ) -> None:
        self.limits = limits
        self.clock = Clock(max_skew_ms=limits.max_skew_ms)
        self.replica = Replica(number, actor, topology, self.clock, floors)
        self.coordinator = Coordinator(
            self.replica, limits, cluster_key=cluster_key, first_id=actor & 0xFFFF_FFFF
        )
        self._ahead_ms: dict[NodeNumber, int] = {}

    @property
    def number(self) -> NodeNumber:
        """This node's number in the topology."""
        return self.replica.number

    def take_alarms(self) -> list[str]:
        """Return what people should hear of the turns so far, once."""
        alarms, self.replica.alarms = self.replica.alarms, []
        return alarms

    @property
    def topology(self) -> Topology:
        """The topology in force."""
        return self.replica.topology

    def next_wake(self) -> Instant | None:
        """Return the earliest instant at which a turn without events has something to do."""
        return self.coordinator.next_wake()

    def plan(self, events: Sequence[Event]) -> Needs:
        """Return the keys that the turn must see."""
        keys: dict[StorageKey, None] = {}
        owns = self.coordinator.owns
        for event in events:
            if isinstance(event, PeerRequests):
                keys.update((write.key, None) for write in event.writes)
                keys.update((read.key, None) for read in event.reads)
                keys.update((put.key, None) for put in event.forwards)
            elif isinstance(event, ClientOps):
                keys.update((get.key, None) for get in event.gets if owns(get.key, get.keyspace.n))
                keys.update((put.key, None) for put in event.puts if owns(put.key, put.keyspace.n))
        return Needs(list(keys), [])

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
        self.replica.begin(records, unreadable, wall_ms)
        self.coordinator.begin(out, now, wall_ms)
        for event in events:
            self._on_event(event, out, now)
        self.coordinator.end()
        return Turn(self.replica.turn, self.replica.end(), out)

    def _on_event(self, event: Event, out: Outbox, now: Instant) -> None:
        match event:
            case ClientOps():
                self._on_client_ops(event)
            case PeerRequests():
                self._on_requests(event, out, now)
            case PeerReplies():
                self._on_replies(event)
            case SyncedUpTo(turn):
                self.replica.on_synced(turn)
            case PeerUp(node):
                self.coordinator.reachable.add(node)
            case PeerDown(node):
                self._ahead_ms.pop(node, None)
                self._judge_clock()
                self.coordinator.on_peer_down(node)
            case PeerSilent() | PeerHeard():
                pass  # nobody stands in yet: what a silent peer owes is waited for
            case PeerClock(node, ahead_ms):
                self._ahead_ms[node] = ahead_ms
                self._judge_clock()
            case Scanned():
                pass  # nothing asks for a scan yet
            case TopologyChanged(topology):
                self.replica.follow(topology)
            case _:
                assert_never(event)

    def _on_client_ops(self, event: ClientOps) -> None:
        coordinator = self.coordinator
        for put in event.puts:
            coordinator.on_put(event.session, put)
        for get in event.gets:
            coordinator.on_get(event.session, get)

    def _on_requests(self, event: PeerRequests, out: Outbox, now: Instant) -> None:
        replica, sender = self.replica, event.sender
        for write in event.writes:
            reply = replica.on_write(write, now)
            if write.id:
                durable = reply.status is Status.DONE and replica.is_dirty(write.key)
                out.send(sender, reply, durable=durable)
        for read in event.reads:
            out.send(sender, replica.on_read(read, now), durable=replica.is_dirty(read.key))
        for put in event.forwards:
            self.coordinator.on_put(-sender, put)

    def _on_replies(self, event: PeerReplies) -> None:
        coordinator, sender = self.coordinator, event.sender
        for write in event.writes:
            coordinator.on_write_reply(sender, write)
        for read in event.reads:
            coordinator.on_read_reply(sender, read)
        for forward in event.forwards:
            coordinator.on_forward_reply(forward)

    def _judge_clock(self) -> None:
        """A clock that differs too far from most of the reachable peers' is taken to be wrong."""
        limit = self.limits.max_skew_ms
        off = sum(abs(ahead) > limit for ahead in self._ahead_ms.values())
        self.coordinator.clock_is_off = 2 * off > len(self._ahead_ms) > 0
