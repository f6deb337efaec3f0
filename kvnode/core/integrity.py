"""What becomes of damaged records: found by the scrub or by any read, brought back from others.

The roof over kvnode.core.scrub, recovery and dispute: it gives them their time, takes what a
turn found, and puts what came back in the place of what was damaged. The floors of a damaged
record's partition are dropped as soon as it is found: what only it held is lost, and they would
call that superseded.

Laws: a damaged key is abstained on until it is replaced; what is sound is never replaced.
Tests: tests/unit/core/test_integrity.py, tests/cluster/test_damage.py.
"""

from __future__ import annotations

from kvnode.core.bounds import Limits
from kvnode.core.dispute import Disputes, is_dispute
from kvnode.core.held import Unreadable
from kvnode.core.keys import StorageKey, keyspace_of, partition_of_key
from kvnode.core.messages import Instant, NodeNumber, Outbox, ReplicaReadReply
from kvnode.core.recovery import Recovery, Rule, is_recovery
from kvnode.core.replica import Replica, TooMany
from kvnode.core.scrub import Scrub, is_scrub
from kvnode.core.versions import Record
from kvnode.core.wheel import earliest


def is_integrity(number: int) -> bool:
    """Say whether an id of a request belongs to the care of records."""
    return is_recovery(number) or is_dispute(number)


class Integrity:
    """The care that one node takes of its records."""

    __slots__ = ("_now", "_out", "_replica", "disputes", "recovery", "scrub")

    def __init__(self, replica: Replica, limits: Limits) -> None:
        self._replica = replica
        self._now = Instant(0)
        self._out = Outbox()
        self.disputes = Disputes(self._owners_of)
        self.recovery = Recovery(self._rule_of, self._replace)
        self.scrub = Scrub(self._on_rotten, bytes_per_s=limits.scrub_bytes_per_s)

    def next_wake(self) -> Instant | None:
        """Return when `on_time` has something to do."""
        return earliest(
            self.scrub.next_wake(), self.recovery.next_wake(), self.disputes.next_wake()
        )

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
        if is_recovery(reply.id):
            self.recovery.on_read_reply(sender, reply, self._now)
        elif is_dispute(reply.id):
            self.disputes.on_read_reply(sender, reply, self._now, self._out)

    def begin(self, now: Instant, out: Outbox) -> None:
        """A turn begins."""
        self._now, self._out = now, out

    def end(self) -> None:
        """A turn ends: take up what it found, and do what is due."""
        now, out = self._now, self._out
        for key in self._replica.damaged:
            self._take_up(key)
        for key in self._replica.disputed:
            self.disputes.on_dispute(key, now)
        self.scrub.on_time(now, out)
        self.recovery.on_time(now, out)
        self.disputes.on_time(now, out)

    def _on_rotten(self, key: StorageKey, why: str) -> None:
        self._replica.alarms.append(f"the scrub found a damaged record: {why}")
        self._take_up(key)

    def _take_up(self, key: StorageKey) -> None:
        if self.recovery.on_damage(key, self._now):
            self._replica.note_lost(key)

    def _owners_of(self, key: StorageKey) -> tuple[NodeNumber, ...]:
        """Return all n owners of a key; nobody, if this node is none of them."""
        topology = self._replica.topology
        keyspace = topology.keyspace(keyspace_of(key))
        if keyspace is None:
            return ()
        partition = partition_of_key(key, topology.partition_bits)
        owners = tuple(topology.owner_numbers[partition][: keyspace.n])
        return owners if self._replica.number in owners else ()

    def _rule_of(self, key: StorageKey) -> Rule | None:
        owners, own = self._owners_of(key), self._replica.number
        keyspace = self._replica.topology.keyspace(keyspace_of(key))
        if keyspace is None or not owners:
            return None
        return Rule(tuple(node for node in owners if node != own), keyspace.w)

    def _replace(self, key: StorageKey, state: Record) -> None:
        try:
            self._replica.replace_damaged(key, state)
        except (TooMany, Unreadable) as exc:
            self._replica.alarms.append(f"a damaged record cannot be replaced: {exc}")
