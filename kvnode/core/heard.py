"""What one read has heard: replies, failures, the join of it all, and who is behind that join.

Laws: an owner that abstains, or whose reply is damaged, has not said "absent"; a stand-in that
keeps nothing has said nothing at all; only owners are ever stale.
Tests: tests/unit/core/test_read.py. Source: design, sections 2.4 and 2.7.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvnode.core.context import widen_watermark
from kvnode.core.dispute import prevailing, with_payloads
from kvnode.core.keys import StorageKey
from kvnode.core.messages import ClientGet, NodeNumber, ReplicaReadReply, ReplyReport, Status
from kvnode.core.record import DamagedRecord, Encoded, core_of, decode, encode
from kvnode.core.twins import bury_twins
from kvnode.core.versions import (
    EMPTY,
    NOTHING_SEEN,
    Context,
    Record,
    clashes,
    covers_all,
    sync,
    take_over,
)

KEEPS_NOTHING = "keeps nothing"
UNREACHED = "unreached"


class Heard:
    """Replies to one read."""

    __slots__ = (
        "_is_unanimous",
        "_key",
        "_owners",
        "at",
        "believed",
        "failed",
        "is_disputed",
        "merged",
        "owners_believed",
        "reaped",
        "replies",
    )

    def __init__(self, key: StorageKey, owners: Sequence[NodeNumber]) -> None:
        self._key = key
        self._owners = owners
        self.replies: dict[NodeNumber, ReplicaReadReply] = {}
        self.at: dict[NodeNumber, int] = {}
        """Microseconds after the read began."""
        self.failed: dict[NodeNumber, str] = {}
        self.believed = 0
        """How many count towards r: proven owners, and stand-ins that keep something."""
        self.owners_believed = 0
        self.merged = EMPTY
        self.is_disputed = False
        """One dot names several payloads: those that most owners hold are in the join."""
        self.reaped = NOTHING_SEEN
        """What the session has seen and floors cover, if the read is answered."""
        self._is_unanimous = False

    def add(self, node: NodeNumber, reply: ReplicaReadReply, after_us: int) -> None:
        """Take a reply."""
        self.at[node] = after_us
        if reply.status not in (Status.DONE, Status.UNPROVEN):
            self.failed[node] = reply.status.name.lower()
        elif node not in self._owners and not reply.record:
            self.failed[node] = KEEPS_NOTHING
        else:
            self.replies[node] = reply
            self.failed.pop(node, None)
            self._believe(node, reply, 1)

    def has(self, node: NodeNumber) -> bool:
        """Say whether this node's answer is known: what it holds, or that it does not say."""
        return node in self.replies or node in self.failed

    def merge(self, *, in_full: bool) -> None:
        """Join what was heard; a reply that turns out damaged counts as an abstention.

        Args:
            in_full: check every reply, also where the first says all.
        """
        records = [(node, reply.record) for node, reply in self.replies.items() if reply.record]
        if self.believed > self.owners_believed:
            # What owners hold first: what stand-ins keep supersedes what is older there.
            records.sort(key=lambda pair: pair[0] not in self._owners)
        merged, agreed = EMPTY, False
        self.is_disputed = False
        states = []
        for node, data in records:
            held = self._decoded(node, data)
            self.is_disputed |= merged is not EMPTY and bool(clashes(merged, held))
            states.append(held)
            join = sync if node in self._owners else take_over
            merged = held if merged is EMPTY else join(merged, held)
            # One version needs no votes: where all hold it under one context, one reply says all.
            if len(merged.versions) == 1 and node in self.replies and _are_alike(data, records):
                agreed = True
                if not in_full:
                    break
        merged = bury_twins(merged, *states) if len(merged.versions) > 1 else merged
        self.merged = self._undisputed(merged) if self.is_disputed else merged
        self._is_unanimous = agreed and all(reply.record for reply in self.replies.values())

    def learn(self, data: Encoded) -> bool:
        """Join what an owner that was mended holds beyond that. Says whether it is news."""
        try:
            held = decode(self._key, data)
        except DamagedRecord:
            return False
        before = self.merged
        self.merged = bury_twins(sync(before, held), before, held)
        return before != self.merged

    def stale(self) -> list[NodeNumber]:
        """Return the owners that hold another state than the join."""
        if self._is_unanimous or self.merged is EMPTY:
            return []
        state = core_of(encode(self._key, self.merged))
        return [
            node
            for node, reply in self.replies.items()
            if node in self._owners and _core(reply.record) != state
        ]

    def covers_watermark(self) -> bool:
        """Say whether an owner has seen all of the request's watermark."""
        return any(reply.covers for reply in self.replies.values())

    def covers_session(self, request: ClientGet) -> bool:
        """Say whether the join has all that the request's session has seen."""
        if not covers_all(self.merged.context, request.seen):
            return False
        return not request.watermark or self.covers_watermark()

    def anew(self, seen: Context) -> Heard:
        """Return one that knows but who cannot be reached; floors are to cover `seen`."""
        fresh = Heard(self._key, self._owners)
        fresh.reaped = seen
        fresh.failed = {node: why for node, why in self.failed.items() if why == UNREACHED}
        return fresh

    def reports(self, nodes: Sequence[NodeNumber], waited_us: int) -> tuple[ReplyReport, ...]:
        """Return what each node answered, once each, for whoever is told of a failure."""
        return tuple(self.report(node, waited_us) for node in dict.fromkeys(nodes))

    def report(self, node: NodeNumber, waited_us: int) -> ReplyReport:
        """Return what a node answered and when; `waited_us` is how long that took so far."""
        after = self.at.get(node, waited_us)
        if reply := self.replies.get(node):
            answer = "record" if reply.record else "absent"
            return ReplyReport(node, answer, after)
        return ReplyReport(node, self.failed.get(node, "pending"), after)

    def _undisputed(self, merged: Record) -> Record:
        held = [(node, reply.record) for node, reply in self.replies.items() if reply.record]
        owners = [decode(self._key, data) for node, data in held if node in self._owners]
        return with_payloads(merged, prevailing(owners))

    def _decoded(self, node: NodeNumber, data: Encoded) -> Record:
        try:
            return decode(self._key, data)
        except DamagedRecord as exc:
            self._believe(node, self.replies.pop(node), -1)
            self.failed[node] = f"damaged: {exc}"
            return EMPTY

    def _believe(self, node: NodeNumber, reply: ReplicaReadReply, step: int) -> None:
        if reply.status is Status.DONE:
            self.believed += step
            if node in self._owners:
                self.owners_believed += step


def asking_floors(request: ClientGet) -> ClientGet | None:
    """Return the request as one that asks whether floors cover what its session has seen of the
    key; None: it is one already, or that is too long to be asked."""
    wanted = widen_watermark(request.watermark, request.seen)
    if request.seen == NOTHING_SEEN or wanted is None:
        return None
    return request._replace(watermark=wanted, seen=NOTHING_SEEN)


def _core(data: Encoded) -> bytes:
    return core_of(data) if data else b""


def _are_alike(sound: Encoded, records: Sequence[tuple[NodeNumber, Encoded]]) -> bool:
    """Say whether all begin with the core of a sound one; the others may be cut short."""
    core = core_of(sound)
    return all(data.startswith(core) for _, data in records)
