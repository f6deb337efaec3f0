"""Disputes: one dot that names different bytes at different owners, all with sound checksums.

Nothing but damage before a version was sealed, or a node with a bug, can bring this about:
invariant 3 says that it never happens. If it does, the bytes that most owners hold win, and of
equally many the greater ones: the end is the same, whoever asks, and in any order.

    noticed, by an owner that refused such a state --all asked--> all n answered --> overruled
       ^                                               |                             are those
       '--------------one is silent: later-------------'                             who differ

Laws: nobody is overruled before all n owners were heard; whoever is overruled raises an alarm, and
keeps its votes; who is silent is asked again after a rest, for as long as the dispute is open.
Tests: tests/unit/core/test_dispute.py; as whole clusters: tests/sim/test_cluster.py.
Left out: reads, which decide alike among the owners they heard (kvnode.core.heard).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from kvnode.core.bounds import DISPUTED_KEYS_MAX
from kvnode.core.inquiry import TIMEOUT_US, Inquiries, Inquiry
from kvnode.core.keys import StorageKey
from kvnode.core.messages import (
    Instant,
    NodeNumber,
    Outbox,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    Status,
    WriteKind,
)
from kvnode.core.record import DamagedRecord, core_of, decode, encode, fits
from kvnode.core.versions import EMPTY, Dot, Record, Version, sync

DISPUTE_ID = 0b1111 << 60
"""The top four bits of ids that belong to disputes."""
_WINDOW = 8
"""Keys that are asked about at a time."""


def is_dispute(number: int) -> bool:
    """Say whether an id belongs to a dispute."""
    return number >> 60 == DISPUTE_ID >> 60


def prevailing(records: Sequence[Record]) -> dict[Dot, Version]:
    """Return, for each dot with several payloads, the one that most records hold."""
    counts: dict[Dot, dict[Version, int]] = {}
    for record in records:
        for version in record.versions:
            payloads = counts.setdefault(version.dot, {})
            payloads[version] = payloads.get(version, 0) + 1
    return {
        dot: max(payloads, key=lambda version: (payloads[version], version))
        for dot, payloads in counts.items()
        if len(payloads) > 1
    }


def with_payloads(record: Record, chosen: Mapping[Dot, Version]) -> Record:
    """Return the record with these bytes under their dots, where it holds those dots."""
    versions = tuple(chosen.get(version.dot, version) for version in record.versions)
    return record._replace(versions=versions)


@dataclass(slots=True)
class _Job(Inquiry):
    """One disputed key."""

    owners: tuple[NodeNumber, ...]
    held: dict[NodeNumber, Record] = field(default_factory=dict)


class Disputes:
    """All disputed keys that one node has noticed."""

    __slots__ = ("_inquiries", "_owners_of", "settled")

    def __init__(self, owners_of: Callable[[StorageKey], tuple[NodeNumber, ...]]) -> None:
        """`owners_of` a key: all n, this node among them; nobody: it is not this node's."""
        self._owners_of = owners_of
        self._inquiries: Inquiries[_Job] = Inquiries(
            DISPUTE_ID, self._begin, window=_WINDOW, waiting_most=DISPUTED_KEYS_MAX
        )
        self.settled = 0

    @property
    def open(self) -> int:
        """How many keys are disputed, as far as this node has noticed."""
        return self._inquiries.keys

    def on_dispute(self, key: StorageKey, now: Instant) -> None:
        """A state was refused, since it has other bytes under a dot that is held here."""
        self._inquiries.add(key, now)

    def on_time(self, now: Instant, out: Outbox) -> None:
        """Give up on silent owners for now, and begin what the window allows."""
        self._inquiries.on_time(now, out)

    def next_wake(self) -> Instant | None:
        """Return when `on_time` has something to do; None: nothing is disputed."""
        return self._inquiries.next_wake()

    def on_read_reply(
        self, sender: NodeNumber, reply: ReplicaReadReply, now: Instant, out: Outbox
    ) -> None:
        """An owner says what it holds of a disputed key."""
        job = self._inquiries.get(reply.id)
        if job is None or sender not in job.owners:
            return
        if reply.status not in (Status.DONE, Status.UNPROVEN):
            return  # its silence is waited out
        try:
            job.held[sender] = decode(job.key, reply.record) if reply.record else EMPTY
        except DamagedRecord:
            return
        if len(job.held) == len(job.owners):
            self._inquiries.close(job)
            self._settle(job, now, out)

    def _settle(self, job: _Job, now: Instant, out: Outbox) -> None:
        chosen = prevailing([job.held[node] for node in job.owners])
        if not chosen:
            return  # somebody else has settled it
        joined = EMPTY
        for node in job.owners:
            joined = sync(joined, with_payloads(job.held[node], chosen))
        if not fits(joined):
            return  # no owner could store it: a client must merge the siblings first
        self.settled += 1
        state, deadline = encode(job.key, joined), Instant(now + TIMEOUT_US)
        for node in job.owners:
            mine = job.held[node]
            if mine == EMPTY or core_of(encode(job.key, mine)) != core_of(state):
                write = ReplicaWrite(job.id, job.key, state, deadline, WriteKind.OVERRULE, 0)
                out.send(node, write)

    def _begin(self, asked: Inquiry, out: Outbox) -> _Job | None:
        owners = self._owners_of(asked.key)
        if not owners:
            return None
        for node in owners:
            out.send(node, ReplicaRead(asked.id, asked.key, asked.ends_at, b""))
        return _Job(asked.key, asked.id, asked.ends_at, asked.attempt, owners)
