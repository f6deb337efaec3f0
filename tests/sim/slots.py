"""Whose slot each node fills that holds a write, attempt by attempt.

What it decides: whether those whom an `ok` names fill as many slots as were asked for: an owner and
all who stand in for it are one. An attempt is one operation of one coordinator; each has stand-ins
of its own, and a retry elsewhere has others.

    1-a-slot-counts-once    the nodes that an `ok` names fill w slots, whatever came of it on disks

Laws: what is not known counts for the store: whose slot a coordinator fills that owns nothing of
the key, and which attempt, of all that may have been, an answer is of.
Source: design, section 2.3. Its tests are tests/sim/test_checks.py.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kvnode.core.keys import StorageKey
from kvnode.core.messages import ClientPut, NodeNumber, ReplicaWrite, WriteKind

Attempt = tuple[NodeNumber, int]
"""The coordinator, and its number for the operation."""
_UNKNOWN = NodeNumber(0)


class Slots:
    """Who was asked to hold what, and for whom."""

    def __init__(self) -> None:
        self._took: dict[bytes, dict[NodeNumber, None]] = {}
        """By write id: those who were asked to coordinate."""
        self._asked: dict[StorageKey, dict[Attempt, dict[NodeNumber, NodeNumber]]] = {}
        """Of each attempt: those who were asked to hold it, and whose slot each fills."""

    def on_put(self, node: NodeNumber, put: ClientPut) -> None:
        """A node is asked to coordinate a write, by a client or by another node."""
        self._took.setdefault(put.write_id, {})[node] = None

    def on_message(self, source: NodeNumber, target: NodeNumber, message: ReplicaWrite) -> None:
        """A node is asked to hold something."""
        if message.kind is WriteKind.HANDOFF:
            return
        attempts = self._asked.setdefault(message.key, {})
        asked = attempts.setdefault((source, message.id), {})
        slot = message.stand_in_for or target
        # Numbers of operations begin anew with each life.
        asked[target] = slot if asked.get(target, slot) == slot else _UNKNOWN

    def filled(
        self,
        key: StorageKey,
        write_id: bytes,
        owners: Sequence[NodeNumber],
        acked: Collection[NodeNumber],
    ) -> int:
        """Return how many slots those fill who acknowledged a write, at most."""
        if all(node in owners for node in acked):
            return len(acked)
        took = self._took.get(write_id, {})
        found = [
            _count(coordinator, owners, acked, asked)
            for (coordinator, _), asked in self._asked.get(key, {}).items()
            if coordinator in took
            and all(node in asked or node in owners or node == coordinator for node in acked)
        ]
        return max(found, default=len(acked))


def _count(
    coordinator: NodeNumber,
    owners: Sequence[NodeNumber],
    acked: Collection[NodeNumber],
    asked: dict[NodeNumber, NodeNumber],
) -> int:
    """Return how many slots they fill if this attempt is the one."""
    known = {node: node for node in owners} | asked
    if coordinator not in owners:
        known[coordinator] = _UNKNOWN
    slots = [known[node] for node in acked]
    return len({slot for slot in slots if slot != _UNKNOWN}) + slots.count(_UNKNOWN)
