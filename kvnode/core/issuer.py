"""The dots of one life of a node: which one its next write gets.

Laws: counters of a partition are contiguous from 1 in each life: a dot is spent only once its write
is stored; no dot names two writes. Test: tests/unit/core/test_issuer.py. Source: design, 2.2.
"""

from __future__ import annotations

from kvnode.core.hlc import Timestamp
from kvnode.core.keys import Partition
from kvnode.core.messages import ClientPut
from kvnode.core.record import seal
from kvnode.core.versions import Dot, Version


class Issuer:
    """The counters of one actor, by partition."""

    __slots__ = ("_counters", "actor")

    def __init__(self, actor: int) -> None:
        self.actor = actor
        self._counters: dict[Partition, int] = {}

    def seal_next(self, request: ClientPut, partition: Partition, *, memory: bytes) -> Version:
        """Return a client's write under the next dot, which is not spent yet; `memory` says what
        it replaces (kvnode.core.twins)."""
        return seal(
            request.key,
            dot=Dot(self.actor, self._counters.get(partition, 0) + 1),
            timestamp=Timestamp(request.timestamp),
            write_id=request.write_id,
            value=request.value,
            expires_ms=request.expires_ms,
            is_tombstone=request.is_delete,
            is_explicit=request.is_explicit,
            extension=memory,
        )

    def last(self, partition: Partition) -> Dot:
        """Return the last dot that was spent; counter 0: none."""
        return Dot(self.actor, self._counters.get(partition, 0))

    def spend(self, partition: Partition, dot: Dot) -> None:
        """A write with this dot is stored; others' dots are none of ours."""
        if dot.actor == self.actor and dot.counter > self._counters.get(partition, 0):
            self._counters[partition] = dot.counter
