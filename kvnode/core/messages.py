"""What a node hears and says: events in (past facts), messages out (for the runtime to carry).

Events come in batches, one batch a turn. Messages are plain tuples: the codec turns a list of
them into the columns of one frame. Nodes are named by their member number. Instants are monotonic
microseconds; `deadline_us` is on the clock of the node that holds the message.

Tuples rather than frozen dataclasses where there is one for each operation: a third of the cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NewType

from kvnode.core.batch import Family
from kvnode.core.codes import ErrorCode as ErrorCode
from kvnode.core.codes import Outcome as Outcome
from kvnode.core.codes import Status as Status
from kvnode.core.codes import WriteKind as WriteKind
from kvnode.core.conversations import Ask, PeerAsks, PeerTells, SettleAsk, SettleTell, Tell
from kvnode.core.keys import StorageKey
from kvnode.core.record import Encoded
from kvnode.core.topology import Keyspace, Topology
from kvnode.core.versions import Context

Instant = NewType("Instant", int)
"""Monotonic microseconds."""
NodeNumber = int
SessionId = NewType("SessionId", int)
"""One client's stream at this node."""


# ---- between nodes --------------------------------------------------------------------------


class ReplicaWrite(NamedTuple):
    """Take this state of a key."""

    id: int
    key: StorageKey
    record: Encoded
    deadline_us: Instant
    kind: WriteKind
    version: int
    """Index of the version that is being written (WRITE only)."""
    stand_in_for: NodeNumber = 0
    """The owner for whom the receiver, which is none, is to keep this; 0: it is meant itself."""


class ReplicaWriteReply(NamedTuple):
    """The state is durable here (DONE), or was refused."""

    id: int
    status: Status
    record: Encoded
    """What is held now, where that is another state than was sent; else empty."""


class ReplicaRead(NamedTuple):
    """Say what you hold of a key."""

    id: int
    key: StorageKey
    deadline_us: Instant
    watermark: bytes
    is_stand_in: bool = False
    """The receiver owns nothing of the key: what does it keep for those who do?"""


class ReplicaReadReply(NamedTuple):
    """What is held: durable, and with sound checksums."""

    id: int
    status: Status
    record: Encoded
    """Empty: absent."""
    covers: bool
    """Everything up to the request's watermark has been here."""


class ClientGet(NamedTuple):
    """A client's read, checked at the edge."""

    id: int
    key: StorageKey
    keyspace: Keyspace
    r: int
    deadline_us: Instant
    seen: Context
    watermark: bytes
    explain: bool


class ClientPut(NamedTuple):
    """A client's write (a delete is a write of nothing), checked at the edge."""

    id: int
    key: StorageKey
    keyspace: Keyspace
    w: int
    deadline_us: Instant
    seen: Context
    is_explicit: bool
    is_delete: bool
    value: bytes
    write_id: bytes
    timestamp: int
    expires_ms: int


# ---- to clients -----------------------------------------------------------------------------


class PutResult(NamedTuple):
    """`ok`: durable at w distinct owners."""

    id: int
    context: bytes
    acked: tuple[NodeNumber, ...]
    newer: int
    """0, or the timestamp of a survivor that this put did not supersede: see docs/write-path.md."""


class SiblingReport(NamedTuple):
    """One survivor, for people and for clients that merge."""

    actor: int
    counter: int
    timestamp: int
    value: bytes
    is_tombstone: bool
    expires_ms: int
    won: bool
    write_id: bytes


class ReplicaReport(NamedTuple):
    """What one replica did for one read."""

    node: NodeNumber
    answer: str
    latency_us: int
    versions: tuple[str, ...]
    vote: str
    is_proven: bool
    is_primary: bool
    checksum: str


class Detail(NamedTuple):
    """What a read has to tell beyond its value."""

    siblings: tuple[SiblingReport, ...]
    votes: tuple[tuple[NodeNumber, int], ...]
    """(owner, index into siblings)."""
    rule: str
    replicas: tuple[ReplicaReport, ...]
    repaired: tuple[NodeNumber, ...]
    repair_failed: bool
    is_explained: bool


class GetResult(NamedTuple):
    """The answer to a read."""

    id: int
    value: bytes | None
    context: bytes
    timestamp: int
    confidence: int
    detail: Detail | None


class ReplyReport(NamedTuple):
    """What one node answered to a failed operation, and when."""

    node: NodeNumber
    answer: str
    after_us: int


class Failure(NamedTuple):
    """The operation failed; `outcome` says what a writer may conclude."""

    id: int
    code: ErrorCode
    outcome: Outcome
    message: str
    retry_after_ms: int
    replies: tuple[ReplyReport, ...]


Result = PutResult | GetResult | Failure
PeerMessage = (
    ReplicaWrite
    | ReplicaWriteReply
    | ReplicaRead
    | ReplicaReadReply
    | ClientPut
    | PutResult
    | Failure
    | Ask
    | Tell
    | SettleAsk
    | SettleTell
)
"""Between nodes. A ClientPut is one that is forwarded; PutResult and Failure answer it."""


# ---- to the local store ---------------------------------------------------------------------


class Scan(NamedTuple):
    """Read a slice of a range of the local store; `Scanned` answers it in a later turn.

    What comes back is of the instant of the scan: turns may have changed it since.
    """

    id: int
    family: Family
    start: bytes
    end: bytes | None
    limit: int


# ---- events ---------------------------------------------------------------------------------


@dataclass(slots=True)
class ClientOps:
    """One frame of a client's operations."""

    session: SessionId
    gets: Sequence[ClientGet]
    puts: Sequence[ClientPut]


@dataclass(slots=True)
class PeerRequests:
    """Requests from another node (or, `sender` being this one, from itself)."""

    sender: NodeNumber
    writes: Sequence[ReplicaWrite] = ()
    reads: Sequence[ReplicaRead] = ()
    forwards: Sequence[ClientPut] = ()


@dataclass(slots=True)
class PeerReplies:
    """Answers from another node (or from itself, once its log is durable)."""

    sender: NodeNumber
    writes: Sequence[ReplicaWriteReply] = ()
    reads: Sequence[ReplicaReadReply] = ()
    forwards: Sequence[PutResult | Failure] = ()


@dataclass(slots=True)
class PeerUp:
    """The link to a peer is open in both directions."""

    node: NodeNumber


@dataclass(slots=True)
class PeerDown:
    """The link to a peer is gone; what was unanswered on it will stay so."""

    node: NodeNumber


@dataclass(slots=True)
class PeerSilent:
    """A peer owes answers and says nothing, or is about to stop: do not wait for it. What it owes
    it may still answer."""

    node: NodeNumber


@dataclass(slots=True)
class PeerHeard:
    """A peer that was silent is there after all."""

    node: NodeNumber


@dataclass(slots=True)
class PeerClock:
    """A peer's physical clock was seen to be this far ahead of ours (ms; negative: behind)."""

    node: NodeNumber
    ahead_ms: int


@dataclass(slots=True)
class SyncedUpTo:
    """The log is durable up to and with this turn."""

    turn: int


@dataclass(slots=True)
class Scanned:
    """A slice that was asked for: fewer pairs than its limit mean that the range ends there.
    None: something in it cannot be read."""

    id: int
    pairs: list[tuple[bytes, bytes]] | None


@dataclass(slots=True)
class TopologyChanged:
    """A newer topology is in force."""

    topology: Topology


Event = (
    ClientOps
    | PeerRequests
    | PeerReplies
    | PeerUp
    | PeerDown
    | PeerSilent
    | PeerHeard
    | PeerClock
    | SyncedUpTo
    | PeerAsks
    | PeerTells
    | Scanned
    | TopologyChanged
)


@dataclass(slots=True)
class Outbox:
    """What one turn sends. `held` leaves once everything written so far is durable."""

    peers: dict[NodeNumber, list[PeerMessage]] = field(default_factory=dict)
    clients: dict[SessionId, list[Result]] = field(default_factory=dict)
    held_peers: dict[NodeNumber, list[PeerMessage]] = field(default_factory=dict)
    scans: list[Scan] = field(default_factory=list)

    def send(self, node: NodeNumber, message: PeerMessage, *, durable: bool = False) -> None:
        """Queue a message; `durable`: it may leave only after the log is synced up to here."""
        box = self.held_peers if durable else self.peers
        queue = box.get(node)
        if queue is None:
            box[node] = [message]
        else:
            queue.append(message)

    def answer(self, session: SessionId, result: Result) -> None:
        """Queue a client's answer."""
        queue = self.clients.get(session)
        if queue is None:
            self.clients[session] = [result]
        else:
            queue.append(result)
