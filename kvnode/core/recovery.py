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

from kvnode.core.keys import StorageKey
from kvnode.core.messages import Instant, NodeNumber, Outbox, ReplicaRead, ReplicaReadReply, Status
from kvnode.core.record import DamagedRecord, decode
from kvnode.core.versions import EMPTY, Record, sync

RECOVERY_ID = 0b1101 << 60
"""The top four bits of ids that belong to recovery."""
KEYS_MAX = 4_096
"""Damaged keys that are remembered; the next scrub finds what is forgotten."""
_WINDOW = 16
_TIMEOUT_US = 2_000_000
_REST_US = 5_000_000
"""Between two attempts at one key."""


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
class _Job:
    """One damaged key."""

    key: StorageKey
    rule: Rule
    id: int
    ends_at: Instant
    attempt: int
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

    __slots__ = ("_jobs", "_next", "_overwrite", "_rule_of", "_waiting", "recovered")

    def __init__(self, rule_of: Callable[[StorageKey], Rule | None], overwrite: Overwrite) -> None:
        """`rule_of` a key that this node does not own is None; it is then left alone."""
        self._rule_of = rule_of
        self._overwrite = overwrite
        self._next = 0
        self._jobs: dict[int, _Job] = {}
        self._waiting: dict[StorageKey, tuple[Instant, int]] = {}
        """key -> (not before, attempts so far)."""
        self.recovered = 0

    @property
    def damaged(self) -> int:
        """How many keys are known to be damaged, and not replaced yet."""
        return len(self._waiting) + len(self._jobs)

    def on_damage(self, key: StorageKey, now: Instant) -> bool:
        """A record was found to be damaged. Returns whether that is news."""
        known = key in self._waiting or any(job.key == key for job in self._jobs.values())
        if known or len(self._waiting) >= KEYS_MAX:
            return False
        self._waiting[key] = (now, 0)
        return True

    def key_of(self, number: int) -> StorageKey | None:
        """Return the key that a reply with this id is about: the turn must see its record."""
        job = self._jobs.get(number)
        return None if job is None else job.key

    def on_time(self, now: Instant, out: Outbox) -> None:
        """Give up on silent owners for now, and begin what the window allows."""
        if not self._jobs and not self._waiting:
            return
        for job in [*self._jobs.values()]:
            if now < job.ends_at:
                break  # in order: all have the same patience
            self._rest(job, now)
        for key, (not_before, attempts) in [*self._waiting.items()]:
            if len(self._jobs) >= _WINDOW:
                return
            if now >= not_before:
                del self._waiting[key]
                self._begin(key, attempts + 1, now, out)

    def next_wake(self) -> Instant | None:
        """Return when `on_time` has something to do; None: nothing is damaged."""
        if not self._jobs and not self._waiting:
            return None
        first = next(iter(self._jobs.values()), None)
        due = [] if first is None else [first.ends_at]
        if self._waiting and len(self._jobs) < _WINDOW:
            due.append(min(not_before for not_before, _ in self._waiting.values()))
        return min(due, default=None)

    def on_read_reply(self, sender: NodeNumber, reply: ReplicaReadReply, now: Instant) -> None:
        """Another owner says what it holds of a damaged key."""
        job = self._jobs.get(reply.id)
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
            del self._jobs[job.id]
            self.recovered += 1
            self._overwrite(job.key, job.joined)
        elif len(job.answered) == len(job.rule.others):
            self._rest(job, now)

    def _begin(self, key: StorageKey, attempt: int, now: Instant, out: Outbox) -> None:
        rule = self._rule_of(key)
        if rule is None:
            return
        self._next += 1
        ends_at = Instant(now + _TIMEOUT_US)
        job = _Job(key, rule, RECOVERY_ID | self._next, ends_at, attempt)
        self._jobs[job.id] = job
        for node in rule.others:
            out.send(node, ReplicaRead(job.id, key, ends_at, b""))

    def _rest(self, job: _Job, now: Instant) -> None:
        del self._jobs[job.id]
        self._waiting[job.key] = (Instant(now + _REST_US), job.attempt)
