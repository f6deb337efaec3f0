"""Handoff: brings hints to their owners once these can be reached, and gives up what is too old.

    ASLEEP --owner up--> WALKING --slice scanned--> sent --acknowledged durably--> entry deleted
       ^                   |  ^------window and rate allow------------------------------|
       '----end of range---'

An owner's range is walked in slices no longer than what may be sent at once, so nothing waits in
memory. An entry for a node that no longer owns the key goes to all who own it now. While clients
are served, one small slice at a time is under way to an owner, fewer go in a second, and after each
slice comes a rest of several times as long as it took to arrive: whatever is busy, this node, its
disk, the owner or the machine that they share, makes that longer.

Laws: an entry is deleted only after every addressee acknowledged it durably; a lost acknowledgement
costs a second delivery and nothing else; never more than the window under way to one owner.
Tests: tests/unit/core/test_handoff.py; as whole clusters: tests/sim/test_hints.py.
Source: Dynamo (SOSP 2007), section 4.6; design, section 2.7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.hints import Hint, Hints, owner_bounds, split_hint_key
from kvnode.core.keys import StorageKey
from kvnode.core.messages import (
    Instant,
    NodeNumber,
    Outbox,
    ReplicaRead,
    ReplicaReadReply,
    ReplicaWrite,
    ReplicaWriteReply,
    Scan,
    Status,
    WriteKind,
)
from kvnode.core.record import DamagedRecord, decode, verify
from kvnode.core.versions import Record, covers

HANDOFF_ID = 0b1000 << 60
"""The top four bits of ids that belong to handoff: of requests and of scans."""
_SLICE = 32
_REST_US = 1_000_000
"""Between two walks over the entries of one owner, of which some would not go."""
_LONG_REST_US = 60_000_000
"""Between two looks for entries of an absent owner that are too old."""
_TIMEOUT_US = 10_000_000
_IDLE_FACTOR = 4
_BUSY_SHARE = 4
_BUSY_REST = 3
"""Times as long as a slice took: a quarter of the time at most is spent on handoff."""

_SOON_US = 10_000
_NEVER_YET = Instant(0)

OwnersOf = Callable[[StorageKey], Sequence[NodeNumber]]


def is_handoff(number: int) -> bool:
    """Say whether an id belongs to handoff."""
    return number >> 60 == HANDOFF_ID >> 60


@dataclass(slots=True)
class _Walk:
    """Where the walk over one owner's entries stands."""

    reroutes: bool = False
    """Owners have changed: look at each entry, though its owner may be away."""
    cursor: bytes = b""
    """Empty: at the beginning."""
    rests_until: Instant = _NEVER_YET
    scan: int = 0
    """The scan that is awaited; 0: none."""
    under_way: int = 0
    began: Instant = _NEVER_YET
    """When the first of those under way was sent; never: none is."""


@dataclass(slots=True)
class _Request:
    """An entry that was sent, or (too old) that is being asked about."""

    name: bytes
    walk: _Walk
    gives_up_at: Instant
    waits_for: list[NodeNumber]
    record: Record | None = None
    """Of an entry that is too old: what w owners must cover."""
    w: int = 0
    covered_by: list[NodeNumber] = field(default_factory=list)


class Handoff:
    """All deliveries of one node."""

    __slots__ = (
        "_hints",
        "_limits",
        "_next",
        "_owners_of",
        "_requests",
        "_tokens",
        "_tokens_at",
        "_up",
        "_wakes_at",
        "_walks",
        "alarms",
    )

    def __init__(
        self, hints: Hints, limits: Limits, owners_of: OwnersOf, *, number: NodeNumber
    ) -> None:
        self._hints = hints
        self._limits = limits
        self._owners_of = owners_of
        self._next = 0
        self._walks: dict[NodeNumber, _Walk] = {}
        self._requests: dict[int, _Request] = {}
        self._up: dict[NodeNumber, None] = {number: None}
        """Who can be reached; this node can reach itself, should it come to own a key."""
        self._tokens = 0.0
        self._tokens_at = Instant(0)
        self._wakes_at: Instant | None = None
        self.alarms: list[str] = []
        """For people: collected in a turn, taken by the node."""

    @property
    def under_way(self) -> int:
        """How many requests are unanswered."""
        return len(self._requests)

    def on_up(self, node: NodeNumber) -> None:
        """A node can be reached: what is kept for it may go."""
        self._up[node] = None
        if walk := self._walks.get(node):
            walk.rests_until = Instant(0)
            walk.cursor = b""

    def on_topology(self) -> None:
        """Owners may have changed: entries of former ones go to those who own the keys now."""
        for owner in self._hints.ledgers:
            walk = self._walks.setdefault(owner, _Walk())
            walk.reroutes, walk.cursor, walk.rests_until = True, b"", _NEVER_YET

    def on_down(self, node: NodeNumber) -> None:
        """A node cannot be reached: what was under way to it stays here."""
        self._up.pop(node, None)
        for request_id, request in list(self._requests.items()):
            if node in request.waits_for:
                self._end(request_id, request)

    def hurry(self) -> None:
        """Walk on now, wherever a walk to a reachable owner rests. Window and rate hold on."""
        for owner, walk in self._walks.items():
            if owner in self._up:
                walk.rests_until = Instant(0)

    def next_wake(self) -> Instant | None:
        """Return when there is something to do without an event; None: never."""
        return self._wakes_at

    def on_time(self, now: Instant, wall_ms: int, out: Outbox, *, is_busy: bool) -> None:
        """Walk on wherever window and rate allow. Costs next to nothing where nothing is kept."""
        if not self._requests and not self._hints.ledgers:
            self._wakes_at = None
            return
        self._expire(now)
        walking = [owner for owner, ledger in self._hints.ledgers.items() if ledger.pending]
        if walking:
            self._earn(now, is_busy=is_busy)
        for owner in walking:
            walk = self._walks.setdefault(owner, _Walk())
            if walk.began and not walk.under_way:
                self._rest(walk, now, is_busy=is_busy)
            if not walk.scan and now >= walk.rests_until:
                self._walk_on(owner, walk, now, wall_ms, out, is_busy=is_busy)
        self._wakes_at = self._earliest(walking)

    def on_scanned(
        self, scan: int, pairs: list[tuple[bytes, bytes]] | None, now: Instant, wall_ms: int,
        out: Outbox,
    ) -> None:  # fmt: skip
        """A slice is here; each entry is sent as it is in this turn."""
        found = [(n, walk) for n, walk in self._walks.items() if walk.scan == scan]
        if not found:
            return
        ((owner, walk),) = found
        walk.scan = 0
        if not pairs:
            walk.cursor = b""
            walk.reroutes = False
            walk.rests_until = Instant(now + (_REST_US if owner in self._up else _LONG_REST_US))
            return
        walk.cursor = pairs[-1][0] + b"\x00"
        for name, _ in pairs:
            hint = self._hints.current(name)
            if hint is not None and not self._hints.is_sent(name):
                self._send(name, hint, walk, now, wall_ms, out)
        if walk.under_way and not walk.began:
            walk.began = now

    def on_write_reply(self, sender: NodeNumber, reply: ReplicaWriteReply) -> None:
        """An addressee has an entry durably, or refused it."""
        request = self._requests.get(reply.id)
        if request is None or sender not in request.waits_for:
            return
        if reply.status is not Status.DONE:
            self._end(reply.id, request)
            return
        request.waits_for.remove(sender)
        if not request.waits_for:
            self._hints.on_delivered(request.name, reply.id)
            self._end(reply.id, request)

    def on_read_reply(self, sender: NodeNumber, reply: ReplicaReadReply) -> None:
        """An owner says what it holds of an entry that is too old."""
        request = self._requests.get(reply.id)
        if request is None or request.record is None or sender not in request.waits_for:
            return
        request.waits_for.remove(sender)
        _, key = split_hint_key(request.name)
        if reply.status is Status.DONE and _covers(key, reply, request.record):
            request.covered_by.append(sender)
        if len(request.covered_by) >= request.w:
            self._hints.give_up(request.name, reply.id)
            self._end(reply.id, request)
        elif not request.waits_for:
            self._end(reply.id, request)

    # ---- within --------------------------------------------------------------------------

    def _expire(self, now: Instant) -> None:
        # All wait equally long, so the oldest is due first.
        while self._requests:
            number, request = next(iter(self._requests.items()))
            if now < request.gives_up_at:
                return
            self._end(number, request)

    def _earliest(self, walking: Sequence[NodeNumber]) -> Instant | None:
        instants = [self._walks[n].rests_until for n in walking if not self._walks[n].scan]
        if self._requests:
            instants.append(next(iter(self._requests.values())).gives_up_at)
        return min(instants, default=None)

    def _earn(self, now: Instant, *, is_busy: bool) -> None:
        rate = self._limits.hint_rate * (1 if is_busy else _IDLE_FACTOR)
        earned = (now - self._tokens_at) * rate / 1e6 if self._tokens_at else 0.0
        self._tokens = min(self._tokens + earned, max(1.0, rate / 20))
        self._tokens_at = now

    def _rest(self, walk: _Walk, now: Instant, *, is_busy: bool) -> None:
        """All that was under way has ended."""
        if is_busy:
            rest_us = min(_BUSY_REST * (now - walk.began), _REST_US)
            walk.rests_until = max(walk.rests_until, Instant(now + rest_us))
        walk.began = _NEVER_YET

    def _walk_on(
        self,
        owner: NodeNumber,
        walk: _Walk,
        now: Instant,
        wall_ms: int,
        out: Outbox,
        *,
        is_busy: bool,
    ) -> None:
        if not walk.reroutes and not self._may_walk(owner, wall_ms):
            walk.rests_until = Instant(now + _REST_US)
            return
        window = self._limits.hint_window
        if is_busy:
            window = 0 if walk.under_way else max(1, window // _BUSY_SHARE)
        count = min(_SLICE, window - walk.under_way, int(self._tokens))
        if count < 1:
            walk.rests_until = Instant(now + _SOON_US)
            return
        self._tokens -= count
        first, end = owner_bounds(owner)
        walk.scan = self._take_id()
        out.scans.append(Scan(walk.scan, Family.HINTS, walk.cursor or first, end, count))

    def _may_walk(self, owner: NodeNumber, wall_ms: int) -> bool:
        """Reachable, or with entries that are too old."""
        # The ledger knows the second alone; by its end all entries of that second are too old.
        oldest_ms = self._hints.ledgers[owner].oldest_ms + 999
        return owner in self._up or self._is_aged(oldest_ms, wall_ms)

    def _is_aged(self, created_ms: int, wall_ms: int) -> bool:
        return wall_ms - created_ms > self._limits.hint_age_ms

    def _send(
        self, name: bytes, hint: Hint, walk: _Walk, now: Instant, wall_ms: int, out: Outbox
    ) -> None:
        owner, key = split_hint_key(name)
        try:
            verify(key, hint.record)
        except DamagedRecord as exc:
            self._hints.drop_damaged(name)
            self.alarms.append(f"a hint for node {owner} is damaged and was dropped: {exc}")
            return
        owners = self._owners_of(key)
        targets = [owner] if owner in owners else list(owners)
        deadline = Instant(now + _TIMEOUT_US)
        if all(target in self._up for target in targets):
            request = _Request(name, walk, deadline, targets)
            number = self._begin(request)
            write = ReplicaWrite(number, key, hint.record, deadline, WriteKind.HANDOFF, 0)
            for target in targets:
                out.send(target, write)
        elif self._is_aged(hint.created_ms, wall_ms):
            self._ask_about(name, hint, walk, deadline, out)

    def _ask_about(
        self, name: bytes, hint: Hint, walk: _Walk, deadline: Instant, out: Outbox
    ) -> None:
        owner, key = split_hint_key(name)
        others = [node for node in self._owners_of(key) if node in self._up and node != owner]
        if len(others) < hint.w:
            return
        record = decode(key, hint.record)
        number = self._begin(_Request(name, walk, deadline, others[:], record, hint.w))
        for node in others:
            out.send(node, ReplicaRead(number, key, deadline, b""))

    def _begin(self, request: _Request) -> int:
        number = self._take_id()
        self._requests[number] = request
        request.walk.under_way += 1
        self._hints.note_sent(request.name, number)
        return number

    def _end(self, number: int, request: _Request) -> None:
        del self._requests[number]
        request.walk.under_way -= 1
        self._hints.forget_sent(request.name, number)

    def _take_id(self) -> int:
        self._next += 1
        return HANDOFF_ID | self._next


def _covers(key: StorageKey, reply: ReplicaReadReply, record: Record) -> bool:
    """Say whether an owner has seen every version of the entry."""
    if not reply.record:
        return False
    try:
        context = decode(key, reply.record).context
    except DamagedRecord:
        return False
    return all(covers(context, version.dot) for version in record.versions)
