"""One key at its n owners, without nodes, network or disks: a model for laws of meaning.

What it decides: nothing of its own. It calls `put`, `accept`, `sync` and `with_vote` where a node
would, so that a hundred thousand histories take seconds. What a whole node does besides (deadlines,
logs, contexts that are sealed) is the in-memory cluster's to try (tests/sim/cluster.py).
Laws: those of kvnode.core.versions; whoever calls says what is lost, late or repaired.
Used by tests/property/test_vote_rules.py, test_restamping.py and test_stuck_attempt.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kvnode.core.hlc import Timestamp
from kvnode.core.keys import encode_key
from kvnode.core.record import seal
from kvnode.core.resolve import Decision, decide
from kvnode.core.topology import Resolve
from kvnode.core.versions import (
    EMPTY,
    NOTHING_SEEN,
    Context,
    Dot,
    Record,
    Version,
    Vote,
    accept,
    check,
    find_write,
    put,
    sync,
    with_vote,
)

KEY = encode_key("default", b"k")


@dataclass(frozen=True, slots=True)
class Sent:
    """What a coordinator sends for one write."""

    coordinator: int
    version: Version
    record: Record


class Owners:
    """The records of one key at owners 0 to n - 1, and at stand-ins after them."""

    def __init__(self, n: int, *, stand_ins: int = 0) -> None:
        self.records: list[Record] = [EMPTY] * (n + stand_ins)
        self.numbers = tuple(range(n))
        self.newest_accepted: dict[int, Version] = {}
        """For rules that this store does not use: the newest that an owner ever took."""
        self._counters = [0] * (n + stand_ins)

    def write(
        self,
        coordinator: int,
        *,
        value: bytes,
        stamp: int,
        write_id: bytes,
        seen: Context = NOTHING_SEEN,
        is_explicit: bool = False,
    ) -> Sent:
        """Apply a client's write at its coordinator, as kvnode.core.replica does."""
        mine = self.records[coordinator]
        version = find_write(mine, write_id)
        if version is None:
            self._counters[coordinator] += 1
            version = seal(
                KEY,
                dot=Dot(coordinator + 1, self._counters[coordinator]),
                timestamp=Timestamp(stamp),
                write_id=write_id,
                value=value,
                is_explicit=is_explicit,
            )
            mine = put(mine, version, seen=seen)
        self._hold(coordinator, with_vote(mine, Vote(coordinator, version.dot)))
        self.note(coordinator, version)
        return Sent(coordinator, version, self.records[coordinator])

    def deliver(self, sent: Sent, owner: int) -> Record:
        """Have an owner accept a write in time; return what it holds then."""
        state = accept(self.records[owner], sent.record, sent.version.dot)
        self._hold(owner, with_vote(state, Vote(owner, sent.version.dot)))
        self.note(owner, sent.version)
        return self.records[owner]

    def merge(self, owner: int, state: Record) -> None:
        """Have an owner merge a state, as repair, handoff and an acknowledgement do."""
        self._hold(owner, sync(self.records[owner], state))

    def joined(self, owners: Iterable[int]) -> Record:
        """Return what a reader of these owners would merge."""
        merged = EMPTY
        for owner in owners:
            merged = sync(merged, self.records[owner])
        return merged

    def answer(self, owners: tuple[int, ...], resolve: Resolve = Resolve.MAJORITY) -> Decision:
        """Return what a reader of these owners would get."""
        unheard = len(self.numbers) - len(owners)
        merged = self.joined(owners)
        return decide(merged, owners=self.numbers, unheard=unheard, now_ms=0, resolve=resolve)

    def _hold(self, owner: int, record: Record) -> None:
        check(record)
        self.records[owner] = record

    def note(self, owner: int, version: Version) -> None:
        """Remember the newest that an owner was sent as a write."""
        newest = self.newest_accepted.get(owner)
        if newest is None or (newest.timestamp, newest.dot) < (version.timestamp, version.dot):
            self.newest_accepted[owner] = version
