"""What becomes of damaged records: found by the scrub or by any read, brought back from others.

The roof over kvnode.core.scrub and kvnode.core.recovery: it gives both their time, takes what a
turn found, and puts what came back in the place of what was damaged. The floors of a damaged
record's partition are dropped as soon as it is found: what only it held is lost, and they would
call that superseded.

Laws: a damaged key is abstained on until it is replaced; what is sound is never replaced.
Tests: tests/unit/core/test_integrity.py, tests/cluster/test_damage.py.
"""

from __future__ import annotations

from kvnode.core.bounds import Limits
from kvnode.core.held import Unreadable
from kvnode.core.keys import StorageKey, keyspace_of, partition_of_key
from kvnode.core.messages import Instant, NodeNumber, Outbox, ReplicaReadReply
from kvnode.core.recovery import Recovery, Rule, is_recovery
from kvnode.core.replica import Replica, TooMany
from kvnode.core.scrub import Scrub, is_scrub
from kvnode.core.versions import Record


class Integrity:
    """The care that one node takes of its records."""

    __slots__ = ("_now", "_replica", "recovery", "scrub")

    def __init__(self, replica: Replica, limits: Limits) -> None:
        self._replica = replica
        self._now = Instant(0)
        self.recovery = Recovery(self._rule_of, self._replace)
        self.scrub = Scrub(self._on_rotten, bytes_per_s=limits.scrub_bytes_per_s)

    def next_wake(self) -> Instant | None:
        """Return when `on_time` has something to do."""
        due = [each for each in (self.scrub.next_wake(), self.recovery.next_wake()) if each]
        return min(due, default=None)

    @property
    def is_recovering(self) -> bool:
        """Whether replies may come that `key_of` knows."""
        return self.recovery.damaged > 0

    def key_of(self, number: int) -> StorageKey | None:
        """Return the key whose record the turn must see to take in the reply with this id."""
        return self.recovery.key_of(number) if is_recovery(number) else None

    def on_scanned(self, number: int, pairs: list[tuple[bytes, bytes]] | None) -> None:
        """A slice was read; others' are left alone."""
        if is_scrub(number):
            self.scrub.on_scanned(number, pairs, self._now)

    def on_read_reply(self, sender: NodeNumber, reply: ReplicaReadReply) -> None:
        """Another owner says what it holds."""
        self.recovery.on_read_reply(sender, reply, self._now)

    def begin(self, now: Instant) -> None:
        """A turn begins."""
        self._now = now

    def end(self, out: Outbox) -> None:
        """A turn ends: take up what it found, and do what is due."""
        for key in self._replica.damaged:
            self._take_up(key)
        self.scrub.on_time(self._now, out)
        self.recovery.on_time(self._now, out)

    def _on_rotten(self, key: StorageKey, why: str) -> None:
        self._replica.alarms.append(f"the scrub found a damaged record: {why}")
        self._take_up(key)

    def _take_up(self, key: StorageKey) -> None:
        if self.recovery.on_damage(key, self._now):
            self._replica.note_lost(key)

    def _rule_of(self, key: StorageKey) -> Rule | None:
        topology, own = self._replica.topology, self._replica.number
        keyspace = topology.keyspace(keyspace_of(key))
        if keyspace is None:
            return None
        partition = partition_of_key(key, topology.partition_bits)
        owners = topology.owner_numbers[partition][: keyspace.n]
        if own not in owners:
            return None
        return Rule(tuple(node for node in owners if node != own), keyspace.w)

    def _replace(self, key: StorageKey, state: Record) -> None:
        try:
            self._replica.replace_damaged(key, state)
        except (TooMany, Unreadable) as exc:
            self._replica.alarms.append(f"a damaged record cannot be replaced: {exc}")
