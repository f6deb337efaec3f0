"""Recovery: brings back a key whose record here is damaged, from its other owners.

    found --asked all other owners--> all answered, or on a later attempt n - w + 1 proven ones
      ^                                 |
      '---an owner is silent: later-----'--> what is here is replaced by the join of their states

What is damaged here is not merged, nor counted, nor spread; it is replaced. The join of n - w + 1
proven owners holds every acknowledged write of the key, as a write has w of them. What only this
owner held is lost with the damage, so its partition's floors must go before: they would call it
superseded.

Laws: a key is replaced only by what all other owners answered, or enough proven ones; nothing
anywhere replaces it by nothing only if enough proven ones say so; never more than the window at a
time; a key is recovered once, however often it is found.
Tests: tests/unit/core/test_recovery.py. Source: design, sections 2.2 and 2.4.
Left out: who finds damage, and what becomes of the floors (kvnode.core.integrity).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from kvnode.core.bounds import DAMAGED_KEYS_MAX
from kvnode.core.inquiry import Inquiries, Inquiry
from kvnode.core.keys import StorageKey
from kvnode.core.messages import Instant, NodeNumber, Outbox, ReplicaRead, ReplicaReadReply, Status
from kvnode.core.record import DamagedRecord, decode
from kvnode.core.versions import EMPTY, Record, sync

RECOVERY_ID = 0b1101 << 60
"""The top four bits of ids that belong to recovery."""
_WINDOW = 16
"""Keys that are asked about at a time."""


class Rule(NamedTuple):
    """Who else owns a key, and how many owners an acknowledged write of it has."""

    others: tuple[NodeNumber, ...]
    w: int

    @property
    def enough(self) -> int:
        """How many proven owners hold, between them, every acknowledged write."""
        return len(self.others) + 1 - self.w + 1


Overwrite = Callable[[StorageKey, Record], None]
"""Put this in the place of what is damaged; a record without versions and context: nothing."""


def is_recovery(number: int) -> bool:
    """Say whether an id belongs to recovery."""
    return number >> 60 == RECOVERY_ID >> 60


@dataclass(slots=True)
class _Job(Inquiry):
    """One damaged key."""

    rule: Rule
    proven: int = 0
    answered: list[NodeNumber] = field(default_factory=list)
    joined: Record = EMPTY

    def is_decided(self) -> bool:
        """Say whether what was heard will do."""
        is_enough = self.proven >= self.rule.enough
        if len(self.answered) < len(self.rule.others):
            return is_enough and self.attempt > 1
        return is_enough or self.joined != EMPTY


class Recovery:
    """All damaged keys of one node."""

    __slots__ = ("_inquiries", "_overwrite", "_rule_of", "recovered")

    def __init__(self, rule_of: Callable[[StorageKey], Rule | None], overwrite: Overwrite) -> None:
        """`rule_of` a key that this node does not own is None; it is then left alone."""
        self._rule_of = rule_of
        self._overwrite = overwrite
        self._inquiries: Inquiries[_Job] = Inquiries(
            RECOVERY_ID, self._begin, window=_WINDOW, waiting_most=DAMAGED_KEYS_MAX
        )
        self.recovered = 0

    @property
    def damaged(self) -> int:
        """How many keys are known to be damaged, and not replaced yet."""
        return self._inquiries.keys

    def on_damage(self, key: StorageKey, now: Instant) -> bool:
        """A record was found to be damaged. Returns whether that is news."""
        return self._inquiries.add(key, now)

    def key_of(self, number: int) -> StorageKey | None:
        """Return the key that a reply with this id is about: the turn must see its record."""
        job = self._inquiries.get(number)
        return None if job is None else job.key

    def on_time(self, now: Instant, out: Outbox) -> None:
        """Give up on silent owners for now, and begin what the window allows."""
        self._inquiries.on_time(now, out)

    def next_wake(self) -> Instant | None:
        """Return when `on_time` has something to do; None: nothing is damaged."""
        return self._inquiries.next_wake()

    def on_read_reply(self, sender: NodeNumber, reply: ReplicaReadReply, now: Instant) -> None:
        """Another owner says what it holds of a damaged key."""
        job = self._inquiries.get(reply.id)
        if job is None or sender not in job.rule.others or sender in job.answered:
            return
        try:
            theirs = decode(job.key, reply.record) if reply.record else EMPTY
        except DamagedRecord:
            return  # its silence is waited out
        if reply.status not in (Status.DONE, Status.UNPROVEN):
            return
        job.answered.append(sender)
        job.proven += reply.status is Status.DONE
        job.joined = sync(job.joined, theirs)
        if job.is_decided():
            self._inquiries.close(job)
            self.recovered += 1
            self._overwrite(job.key, job.joined)
        elif len(job.answered) == len(job.rule.others):
            self._inquiries.retry(job, now)

    def _begin(self, asked: Inquiry, out: Outbox) -> _Job | None:
        rule = self._rule_of(asked.key)
        if rule is None:
            return None
        for node in rule.others:
            out.send(node, ReplicaRead(asked.id, asked.key, asked.ends_at, b""))
        return _Job(asked.key, asked.id, asked.ends_at, asked.attempt, rule)
