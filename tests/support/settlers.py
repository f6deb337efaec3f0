"""Three owners of one key who settle its conflicts: real replicas, no network, no clocks.

What it decides: nothing that a test claims. A frame goes where it is sent when `run` says so; what
`holds` picks waits until `release`. Every batch is durable at once.
Used by tests/unit/core/test_settling.py, test_settlement.py and test_pruning.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.conflict_log import ConflictLog, Entry, decode_entry
from kvnode.core.conversations import SETTLE_ASKS, SETTLE_TELLS
from kvnode.core.floors import Floors
from kvnode.core.hlc import Clock
from kvnode.core.keys import StorageKey, partition_of_key
from kvnode.core.messages import (
    Instant,
    NodeNumber,
    Outbox,
    ReplicaWrite,
    ReplicaWriteReply,
    Scan,
)
from kvnode.core.pruning import Pruner
from kvnode.core.record import decode, encode
from kvnode.core.replica import Replica
from kvnode.core.settling import Settling
from kvnode.core.topology import Topology
from kvnode.core.versions import EMPTY, Record
from tests.unit.core.builders import KEY, NOW, WALL_MS, topology

LIMITS = Limits(settle_after_ms=1_000)
A_WALK_US = 500_000
Frame = tuple[NodeNumber, NodeNumber, Any]


class Owner:
    """One node: a store, and one life at a time."""

    def __init__(self, number: NodeNumber, members: Topology, limits: Limits) -> None:
        self.number = number
        self.limits = limits
        self.members = members
        self.store: dict[tuple[Family, bytes], bytes] = {}
        self.absent: set[NodeNumber] = set()
        self.lives = 0
        self.begin()

    def begin(self) -> None:
        """Begin a new life on what is stored."""
        self.lives += 1
        log = ConflictLog(bytes_max=self.limits.conflict_log_bytes)
        log.load(len(self.family(Family.CONFLICTS)), self.family(Family.CONFLICT_LOG))
        actor = 100 * self.number + self.lives
        clock = Clock(max_skew_ms=self.limits.max_skew_ms)
        self.replica = Replica(self.number, actor, self.members, clock, Floors(), conflicts=log)
        self.pruner = Pruner(self.replica, self.limits)
        self.settling = Settling(self.replica, self.limits, lambda node: node not in self.absent)

    def family(self, family: Family) -> list[tuple[bytes, bytes]]:
        return sorted((key, value) for (kind, key), value in self.store.items() if kind is family)

    def held(self, key: StorageKey = KEY) -> Record:
        data = self.store.get((Family.RECORDS, key))
        return decode(key, data) if data else EMPTY

    def log(self) -> list[Entry]:
        return [decode_entry(*pair) for pair in self.family(Family.CONFLICT_LOG)]

    def turn(self, act: Callable[[Outbox], None], wall_ms: int, *keys: StorageKey) -> Outbox:
        out = Outbox()
        self.replica.begin({k: self.store.get((Family.RECORDS, k)) for k in keys}, set(), wall_ms)
        act(out)
        for family, name, value in self.replica.end().changes:
            if value is None:
                self.store.pop((family, name), None)
            else:
                self.store[family, name] = value
        return out


class Settlers:
    """All owners of KEY, and the frames between them."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.members = topology()
        partition = partition_of_key(KEY, self.members.partition_bits)
        self.numbers = self.members.owner_numbers[partition]
        self.owners = {number: Owner(number, self.members, limits) for number in self.numbers}
        self.settler = self.owners[self.numbers[0]]
        self.now = NOW
        self.wall_ms = WALL_MS
        self.frames: list[Frame] = []
        self.held: list[Frame] = []
        self.holds: Callable[[Frame], bool] = lambda frame: False
        self.seen: list[Frame] = []
        """All settling frames that were delivered."""

    def hold(self, record: Record, *numbers: NodeNumber, key: StorageKey = KEY) -> None:
        """Have owners merge a state; all if none is named."""
        write = ReplicaWrite(0, key, encode(key, record), Instant(1 << 62), 1, 0)  # type: ignore[arg-type]
        for number in numbers or self.numbers:
            owner = self.owners[number]
            owner.turn(lambda _, it=owner: it.replica.on_write(write, self.now), self.wall_ms, key)  # type: ignore[misc]

    def run(self, for_us: int) -> None:
        """Let time pass in small steps; every frame that is sent is delivered at once."""
        end = self.now + for_us
        while self.now < end:
            self.now = Instant(min(end, self.now + 20_000))
            self.wall_ms += 20
            for owner in self.owners.values():
                self.tick(owner)
            self.deliver()

    def tick(self, owner: Owner, *, is_allowed: bool = True, is_busy: bool = False) -> None:
        """Give one node a turn without events."""

        def act(out: Outbox) -> None:
            owner.settling.on_time(
                self.now, self.wall_ms, out, is_busy=is_busy, is_allowed=is_allowed
            )

        self._send(owner, owner.turn(act, self.wall_ms))

    def deliver(self) -> None:
        """Deliver what is on its way, and what comes of it."""
        while self.frames:
            self.deliver_one(self.frames.pop(0))

    def deliver_one(self, frame: Frame) -> None:
        source, target, message = frame
        owner = self.owners[target]
        if isinstance(message, (*SETTLE_ASKS, *SETTLE_TELLS)):
            self.seen.append(frame)

        def act(out: Outbox) -> None:
            settling = owner.settling
            if isinstance(message, SETTLE_ASKS):
                owner.pruner.on_ask(source, message, self.wall_ms, out)
            elif isinstance(message, SETTLE_TELLS):
                settling.on_tell(source, message, self.now, self.wall_ms, out)
            elif isinstance(message, ReplicaWriteReply):
                settling.on_write_reply(source, message, self.now, out)
            else:
                reply = owner.replica.on_write(message, self.now)
                if message.id:
                    out.send(source, reply)

        keys = (message.key,) if hasattr(message, "key") else ()
        self._send(owner, owner.turn(act, self.wall_ms, *keys))

    def release(self) -> None:
        """Let go of what was held, and hold nothing more."""
        self.holds = lambda frame: False
        self.frames += self.held
        self.held = []
        self.deliver()

    def values(self) -> list[list[bytes]]:
        """Return what each owner holds of KEY."""
        return [[v.value for v in owner.held().versions] for owner in self.owners.values()]

    def advance_epoch(self, *numbers: NodeNumber) -> None:
        """Have some owners learn of a newer topology with the same owners."""
        newer = dataclasses.replace(self.members, epoch=self.members.epoch + 1)
        for number in numbers:
            owner = self.owners[number]
            owner.replica.follow(newer)
            owner.settling.follow()

    def _send(self, owner: Owner, out: Outbox) -> None:
        for boxes in (out.peers, out.held_peers):
            for target, messages in boxes.items():
                for message in messages:
                    frame = (owner.number, target, message)
                    (self.held if self.holds(frame) else self.frames).append(frame)
        for scan in out.scans:
            owner.turn(lambda _, it=scan: self._scanned(owner, it), self.wall_ms)  # type: ignore[misc]

    def _scanned(self, owner: Owner, scan: Scan) -> None:
        pairs = [
            (key, value)
            for key, value in owner.family(scan.family)
            if scan.start <= key and (scan.end is None or key < scan.end)
        ]
        owner.settling.on_scanned(scan.id, pairs[: scan.limit], self.now)
