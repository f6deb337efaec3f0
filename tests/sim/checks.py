"""The watch over a simulated cluster: it is told of everything, and judges it at once.

What it decides: whom to ask. Rules for single changes of stores are in tests/sim/steps.py, for
answers in tests/sim/answers.py, for whole clusters at the end of a phase in
tests/sim/invariants.py. Values are unique, so a value names its write.
Laws: a check never changes what happens; a violation is a `Broken` with the invariant's name, the
seed and the key's story. Its tests are tests/sim/test_checks.py and tests/sim/test_mutants.py:
what is never caught checks nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.conflict_log import DamagedEntry
from kvnode.core.keys import StorageKey
from kvnode.core.messages import (
    ClientGet,
    ClientPut,
    GetResult,
    NodeNumber,
    PeerMessage,
    PutResult,
    ReplicaWrite,
    Result,
)
from kvnode.core.record import core_of
from kvnode.core.topology import Durability
from kvnode.core.twins import Named
from kvnode.core.versions import NOTHING_SEEN, Dot, Vote, covers_all, join
from kvnode.storage.port import Engine, ReadFailure, StorageDamaged
from tests.sim.answers import Answers
from tests.sim.history import FAILED as FAILED
from tests.sim.history import NOT_APPLIED as NOT_APPLIED
from tests.sim.history import OK as OK
from tests.sim.history import UNCERTAIN as UNCERTAIN
from tests.sim.history import KeyHistory
from tests.sim.history import Read as Read
from tests.sim.history import Write as Write
from tests.sim.slots import Slots
from tests.sim.steps import Steps, hint_of, loser_of
from tests.sim.stores import Fates, Held, Stores
from tests.sim.story import Broken, Removed, Stored, brief_key

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

_Asked = tuple[ClientPut | ClientGet, Read | None]


class Watch:
    """Sees every write to a disk and every operation of a client."""

    def __init__(self, cluster: Cluster) -> None:
        self.writes: list[Write] = []
        self.reads: list[Read] = []
        self.healed_us: int | None = None
        """Since when no fault is left and nothing waits for its owner."""
        self.is_unsafe = False
        """Every copy of a record may be damaged at a time: what is lost is no violation."""
        self.lead_ms = cluster.limits.max_skew_ms
        """How far ahead of true time the cluster's clock may have been, at most."""
        self.lag_ms = 0
        """How far behind."""
        self.stores = Stores()
        self.fates = Fates()
        self.writes_by_id: dict[bytes, Write] = {}
        self.slots = Slots()
        self.steps = Steps(cluster, self)
        self.answers = Answers(cluster, self)
        self._cluster = cluster
        self._keys: dict[StorageKey, KeyHistory] = {}
        self._expiry: dict[bytes, int] = {}
        self._asked: dict[tuple[NodeNumber, int, int], _Asked] = {}
        """Requests that a node has not answered, by (node, session, id)."""

    # ---- what nodes and the world tell -----------------------------------------------------

    def on_clock(self, ahead_ms: int) -> None:
        """A physical clock is so far ahead from now on (behind: negative)."""
        self.lead_ms = max(self.lead_ms, ahead_ms + self._cluster.limits.max_skew_ms)
        self.lag_ms = max(self.lag_ms, -ahead_ms)

    def on_start(self, node: NodeNumber) -> None:
        """A life begins: what it has seen, it may have lost with its log."""
        held = self.stores.held
        before = {place[2]: it.record for place, it in held.items() if place[:2] == (node, 0)}
        self.stores.on_start(node, self._cluster.hosts[node].engine)
        for key, seen in self.stores.lost_by(node):
            if not covers_all(self.steps.reaped.get(key, NOTHING_SEEN), seen):
                self.of(key).losses_us.append(self._cluster.now_us)
        self._find_logged(node)
        for name, record in before.items():
            key = StorageKey(name)
            if self._cluster.keyspace_of(key).durability is Durability.PERIODIC:
                now = self.stores.held.get((node, Family.RECORDS, name))
                if now is None or not covers_all(now.record.context, record.context):
                    self.of(key).is_lossy = True

    def _find_logged(self, node: NodeNumber) -> None:
        """What a store has in its log as a life begins is durable."""
        try:
            pairs = self._cluster.hosts[node].engine.scan(Family.CONFLICT_LOG, b"", None, 1 << 20)
            places = [loser_of(*pair) for pair in pairs]
        except (StorageDamaged, DamagedEntry):
            return
        for place in places:
            self.stores.logged.setdefault(place, {})[node] = None

    def on_write(self, node: NodeNumber, engine: Engine, batch: WriteBatch) -> None:
        """Check what a node is about to store."""
        if (life := self._cluster.hosts[node].life) is not None:
            self.steps.issuers[life.replica.actor] = node
        last = {(family, name): data for family, name, data in batch.changes}
        for (family, name), data in last.items():  # before records that go in the same turn
            if family is Family.FLOORS and data is None:
                self.steps.dropped[node, int.from_bytes(name[:4], "big")] = None
        for (family, name), data in last.items():
            match family:
                case Family.RECORDS:
                    self._on_record(node, StorageKey(name), data, engine)
                case Family.HINTS:
                    self._on_hint(node, name, data, engine)
                case Family.CONFLICT_LOG if data is not None:
                    self._on_logged(node, name, data, engine)

    def on_sync(self, node: NodeNumber) -> None:
        """A node's log has been synced."""
        self.stores.on_sync(node, self._cluster.hosts[node].engine.durable)

    def on_message(self, source: NodeNumber, target: NodeNumber, message: PeerMessage) -> None:
        """A node hears another one, or itself."""
        if isinstance(message, ClientPut):
            self.steps.offer(target, message.key, message.write_id)
            self.slots.on_put(target, message)
            return
        if isinstance(message, ReplicaWrite):
            self.slots.on_message(source, target, message)
        self.steps.on_message(source, target, message)

    def on_request(self, node: NodeNumber, session: int, request: ClientPut | ClientGet) -> None:
        """A node takes a client's request."""
        read = None
        if isinstance(request, ClientPut):
            self.steps.offer(node, request.key, request.write_id)
            self.slots.on_put(node, request)
            self._expiry[request.write_id] = request.expires_ms
            if (write := self.writes_by_id.get(request.write_id)) is not None:
                write.seen = join(write.seen, request.seen)
                if request.expires_ms:
                    self.of(write.key).expiring[write] = None
                self.of(write.key).on_attempt(write)
        else:
            read = Read(request.key, self._cluster.now_us, r=request.r)
        self._asked[node, session, request.id] = (request, read)

    def on_answer(self, node: NodeNumber, session: int, result: Result) -> None:
        """A node answers a client."""
        request, read = self._asked.pop((node, session, result.id), (None, None))
        if isinstance(request, ClientPut) and isinstance(result, PutResult):
            write = self.writes_by_id.get(request.write_id)
            if write is not None:
                self.answers.on_put_result(write, request.write_id, request.w, result)
        elif read is not None and isinstance(result, GetResult):
            self.answers.on_get_result(read, result)

    # ---- what clients tell -----------------------------------------------------------------

    def began(self, operation: Write | Read) -> None:
        """A caller begins an operation."""
        if isinstance(operation, Read):
            self.reads.append(operation)
            return
        self.writes.append(operation)
        self.of(operation.key).add(operation)
        self.on_attempt(operation)

    def on_attempt(self, write: Write) -> None:
        """A write has got a write id and a stamp, or another one."""
        for write_id in write.write_ids:
            self.writes_by_id[write_id] = write
        self.of(write.key).on_attempt(write)

    def ended(self, operation: Write | Read) -> None:
        """A caller has been told what came of an operation."""
        if isinstance(operation, Read):
            operation.ended_us = self._cluster.now_us
            self.check_read(operation)
        elif operation.outcome == OK:
            w = self._cluster.keyspace_of(operation.key).w
            is_strong = (operation.w or w) >= w
            self.of(operation.key).on_acknowledged(operation, is_strong=is_strong)
        elif operation.outcome == NOT_APPLIED:
            self.answers.on_not_applied(operation)

    def check_read(self, read: Read) -> None:
        """Say what is wrong about an answer."""
        if read.outcome == OK:
            self.answers.on_read(read)

    # ---- what is known ---------------------------------------------------------------------

    def of(self, key: StorageKey) -> KeyHistory:
        """Return the history of a key."""
        history = self._keys.get(key)
        if history is None:
            history = self._keys[key] = KeyHistory()
        return history

    def all_keys(self) -> list[StorageKey]:
        """Return all keys that were ever written."""
        return list(self._keys)

    def dots_of(self, write: Write) -> list[Dot]:
        """Return the dots of all versions of a write that were seen."""
        return [dot for name in write.write_ids for dot in self.fates.dots.get(name, ())]

    def last_dots_of(self, write: Write) -> list[Dot]:
        """Return those of its last stamp."""
        return list(self.fates.dots.get(write.write_ids[-1], ())) if write.write_ids else []

    def dots_ahead_of(self, write: Write) -> list[Dot]:
        """Return the versions that by their names have replaced a write: these stand for it."""
        return [
            dot
            for name in write.write_ids[-1:]
            for dot in self.fates.ahead_of(write.key, Named(name, write.is_explicit))
        ]

    def expiry_of(self, write: Write) -> int:
        """Return when a write expires, ms since 1970; 0: never."""
        return max((self._expiry.get(name, 0) for name in write.write_ids), default=0)

    def votes(self, key: StorageKey) -> set[Vote]:
        """Return all votes that owners hold for a key."""
        return {
            vote
            for node in self._cluster.owners(key)
            if (held := self.stores.held.get((node, Family.RECORDS, key))) is not None
            for vote in held.record.votes
        }

    def fail(self, name: str, key: StorageKey | None, message: str) -> NoReturn:
        """Report a broken invariant with the seed and the key's story."""
        text = f"seed {self._cluster.seed}: {message}"
        if key is not None:
            text = f"{text}\nstory of {brief_key(key)}:\n{self._cluster.stories.tell(key)}"
        raise Broken(name, text)

    # ---- entries of stores -----------------------------------------------------------------

    def _on_record(
        self, node: NodeNumber, key: StorageKey, data: bytes | None, engine: Engine
    ) -> None:
        self.stores.keys.setdefault(key, self._cluster.owners(key))
        old = self.stores.before(node, Family.RECORDS, key, engine)
        if old is None:
            if isinstance(engine.multi_get(Family.RECORDS, (key,))[0], ReadFailure):
                claim = f"node {node} writes over what it could not read"
                self._cluster.fail(key, claim, name="1-error-is-not-absence")
            self.of(key).losses_us.append(self._cluster.now_us)
        if data is None:
            self.stores.keep(node, Family.RECORDS, key, None)
            if old is None or old.versions:
                self._cluster.tell("remove", node, Removed(key))
            self.steps.on_removed(node, key, old)
            return
        record = self.stores.record(key, data)
        self.stores.keep(node, Family.RECORDS, key, Held(data, record))
        self._cluster.tell("store", node, Stored(key, record))
        self.steps.on_record(node, key, old, record)
        self._when_durable(
            node, key, engine, lambda: self.stores.note_durable(node, key, record.context)
        )

    def _on_hint(self, node: NodeNumber, name: bytes, data: bytes | None, engine: Engine) -> None:
        old = self.stores.before(node, Family.HINTS, name, engine)
        if data is None:
            (was,) = engine.multi_get(Family.HINTS, [name])
            self.stores.keep(node, Family.HINTS, name, None)
            if old is not None and isinstance(was, bytes):
                owner, key, _, w = hint_of(name, was)
                self._cluster.tell("unhint", node, owner, Removed(key))
                self.steps.on_hint_removed(node, owner, key, old, w)
            return
        owner, key, record, _ = hint_of(name, data)
        self.stores.keys.setdefault(key, self._cluster.owners(key))
        self.stores.keep(node, Family.HINTS, name, Held(data, record))
        self._cluster.tell("hint", node, owner, Stored(key, record))
        self.steps.on_hint(node, owner, key, old, record)
        self._when_durable(
            node, key, engine, lambda: self.stores.note_handed(owner, key, record.context)
        )

    def _on_logged(self, node: NodeNumber, name: bytes, data: bytes, engine: Engine) -> None:
        place = key, _ = loser_of(name, data)
        logs = self.stores.logged.setdefault(place, {})
        self._when_durable(node, key, engine, lambda: logs.update({node: None}))

    def _when_durable(
        self, node: NodeNumber, key: StorageKey, engine: Engine, act: Callable[[], None]
    ) -> None:
        if self._cluster.keyspace_of(key).durability is Durability.PERIODIC:
            act()  # nobody waits for the log there
        else:
            self.stores.when_durable(node, engine.written + 1, act)


def cores(cluster: Cluster, key: StorageKey) -> dict[NodeNumber, bytes]:
    """Return what each owner holds, votes and values aside."""
    found = {}
    for node in cluster.owners(key):
        (data,) = cluster.hosts[node].engine.multi_get(Family.RECORDS, [key])
        found[node] = core_of(data) if isinstance(data, bytes) else b""
    return found
