"""What the client gives back: plain frozen values.

Decides how an answer looks to a user; nothing here acts.
Tests: tests/unit/client/test_codec.py (made from messages there).
Source: design, sections 2.4, 2.5 and 6.
Left out: failures, which are in `errors`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from kvclient.clock import ms_of_hlc


class Confidence(StrEnum):
    """Why a read returned what it did."""

    AGREED = "agreed"
    """r replicas agreed, or one version descends from the others."""
    VOTED = "voted"
    """Concurrent versions, decided by the votes of all owners."""
    PROVISIONAL = "provisional"
    """Concurrent versions, and too many owners unheard to be sure."""
    NEWEST = "newest"
    """Concurrent versions in a keyspace that resolves by time."""
    SIBLINGS = "siblings"
    """Concurrent versions, left to the caller to merge."""
    STAND_INS = "stand_ins"
    """All that answered agreed, but fewer than r of them own the key: nodes that stand in for
    absent owners made up the number."""


@dataclass(frozen=True, slots=True)
class Sibling:
    """One version that nothing has superseded."""

    dot: str
    value: bytes
    timestamp: int
    is_tombstone: bool
    expires_ms: int
    has_won: bool


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What one replica did for one read."""

    node: str
    answer: str
    latency_ms: float
    versions: tuple[str, ...]
    vote: str
    is_proven: bool
    is_primary: bool
    checksum: str


@dataclass(frozen=True, slots=True)
class Explain:
    """Which rule decided a read, on what, and what was mended."""

    rule: str
    replicas: tuple[ReplicaReport, ...]
    repaired: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A key's value with what is known about it.

    Attributes:
        value: the winner's bytes; None when absent (only with `explain`).
        context: what the read has seen. Put with it, and exactly that is replaced.
        timestamp: the winner's hybrid logical clock.
        siblings: all concurrent versions, when there are several or when asked to explain.
        votes: owner to the dot that its vote counts for: the newest that it voted for.
        repair_failed: a stale replica could not be mended in time.
    """

    value: bytes | None
    context: bytes
    timestamp: int
    siblings: tuple[Sibling, ...] = ()
    votes: dict[str, str] = field(default_factory=dict)
    confidence: Confidence = Confidence.AGREED
    explain: Explain | None = None
    repair_failed: bool = False

    @property
    def written_ms(self) -> int:
        """Milliseconds since 1970 at which the winner was written."""
        return ms_of_hlc(self.timestamp)


@dataclass(frozen=True, slots=True)
class WriteResult:
    """An acknowledged write.

    Attributes:
        context: covers this write and all that it replaced.
        acked_by: ids of the nodes that hold it durably.
        timestamp: the write's hybrid logical clock.
    """

    context: bytes
    acked_by: tuple[str, ...]
    timestamp: int


@dataclass(frozen=True, slots=True)
class Status:
    """What one node says about itself."""

    node: str
    cluster: str
    address: str
    epoch: int
    state: str
    incarnation: int
    pid: int
    version: str
    records: int
    bytes: int
    open_conflicts: int
    peers: dict[str, str]
    hlc: int
    wall_ms: int
    pending_hints: int
    """Writes that it keeps for other nodes."""
    unproven_partitions: int
    """Partitions of which its answers do not count towards r yet."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A key with concurrent versions: open, or settled and kept for a while.

    Attributes:
        siblings: open: all versions. Settled: those that lost, with their values.
        votes: owner to the dot that its vote counts for: the newest that it voted for.
        settled_ms: when it was settled, milliseconds since 1970; 0: it is open.
        rule: of a settled one, which rule decided.
        winner: of a settled one, what won. Its value is empty unless `has_value`.
        has_value: the winner is still held, so its value could be told.
    """

    keyspace: str
    key: bytes
    siblings: tuple[Sibling, ...]
    votes: dict[str, str]
    settled_ms: int = 0
    rule: str = ""
    winner: Sibling | None = None
    has_value: bool = False

    @property
    def is_open(self) -> bool:
        """Whether all its versions are still held."""
        return not self.settled_ms


@dataclass(slots=True)
class Metrics:
    """Counters of one client since it began."""

    operations: int = 0
    attempts: int = 0
    retries: int = 0
    """Attempts after a refusal."""
    reroutes: int = 0
    """Attempts after a broken stream or a silent node."""
    hedges: int = 0
    """Operations asked of a second node because the first was slower than usual."""
    restamps: int = 0
    """Puts done anew because an owner held something newer."""
    waiting: int = 0
    """Operations that wait for their turn at busy nodes, as those last said."""
    overloaded: int = 0
    """Operations refused here, at a bound."""
    uncertain: int = 0
    """Writes that ended uncertain."""
    frames_sent: int = 0
    frames_received: int = 0
    suspicions: int = 0
    """How often a node owed answers and was silent."""
