"""What must hold of each answer that a client gets, judged at once by what was known before.

What it decides: which answer is a violation.

    1-ok-is-durable         w distinct owners (sloppy: or stand-ins for them) hold it synced
    1-a-slot-counts-once    those named by an `ok` fill w slots (tests/sim/slots.py)
    2-deleted-stays-deleted no read shows what an acknowledged delete had seen, or came after
    5-read-was-written      what is read was written under that key
    5-read-is-current       the read returns a write acknowledged before, or its heir or rival
    5-read-covers           its context covers all that was acknowledged before
    5-read-is-durable       what is shown is synced somewhere
    5-session-reads-its-own a session is not given what its own later plain put replaced
    5-expired-is-gone       nothing is read long after it has expired
    6-not-applied-unseen    what was called not applied is never read

Where quorums do not meet (sloppy keyspaces until all is healed, r + w <= n, plain puts with
2w <= n) only what holds all the same is asked. A plain put does not meet what an owner that
acknowledges it has lost with its disk, and may then lose to what was acknowledged before it. With
sloppy quorums a put by a clock that lags may turn out older than one acknowledged before it began,
of which stand-ins could not tell it; and one that an explicit put superseded at its stand-ins never
meets what its owners hold.

Laws: a judgement never changes later, since it needs nothing that comes later.
Source: design, section 7. Its tests are tests/sim/test_checks.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvnode.core.keys import StorageKey
from kvnode.core.messages import GetResult, NodeNumber, PutResult
from kvnode.core.topology import Durability, Keyspace
from kvnode.core.twins import Named
from kvnode.core.versions import NOTHING_SEEN, Dot, covers
from tests.sim.history import NOT_APPLIED, KeyHistory, Read, Write
from tests.sim.stores import Fates, Stores, one_dot
from tests.sim.story import brief_context, brief_dot, brief_value, brief_values

if TYPE_CHECKING:
    from tests.sim.checks import Watch
    from tests.sim.cluster import Cluster


class Answers:
    """The rules for what clients are told."""

    def __init__(self, cluster: Cluster, watch: Watch) -> None:
        self._cluster = cluster
        self._watch = watch
        self._stores: Stores = watch.stores
        self._fates: Fates = watch.fates

    # ---- as a node answers -----------------------------------------------------------------

    def on_put_result(self, write: Write, write_id: bytes, w: int, result: PutResult) -> None:
        """A node says ok."""
        key = write.key
        keyspace = self._cluster.keyspace_of(key)
        dots = list(self._fates.dots.get(write_id, ()))
        context = self._stores.context(key, result.context)
        acked = [dot for dot in dots if covers(context, dot)]
        write.acked_dot = acked[0] if len(acked) == 1 else None
        filled = self._watch.slots.filled(key, write_id, self._cluster.owners(key), result.acked)
        if filled < w:
            told = f"{brief_value(write.value)} is acknowledged with w={w} by {result.acked}"
            self._watch.fail("1-a-slot-counts-once", key, f"{told}, who fill {filled} slots")
        history = self._watch.of(key)
        if history.is_lossy or keyspace.durability is not Durability.FSYNC:
            return
        if not dots and history.has_successor(write, dots):
            return  # another write of the turn has superseded it before anybody saw it
        dots += self._fates.ahead_of(key, Named(write_id, write.is_explicit))
        slots = [owner for owner in self._cluster.owners(key) if self._has_slot(owner, key, dots)]
        if len(slots) < w:
            told = f"{brief_value(write.value)} is acknowledged with w={w}, and is durable for"
            self._watch.fail("1-ok-is-durable", key, f"{told} {slots or 'nobody'} alone")

    def on_get_result(self, read: Read, result: GetResult) -> None:
        """A node answers a read, which began when it took the request."""
        siblings = result.detail.siblings if result.detail is not None else ()
        read.value = result.value
        read.context = self._stores.context(read.key, result.context)
        told = {None if each.is_tombstone else each.value for each in siblings}
        read.values = frozenset(told) | {result.value}
        self.on_read(read)
        if result.value is not None:
            self._check_shown(read.key, result.value)

    def _check_shown(self, key: StorageKey, value: bytes) -> None:
        if self._cluster.keyspace_of(key).durability is not Durability.FSYNC:
            return
        writes = self._watch.of(key).of_value.get(value, ())
        dots = [dot for write in writes for dot in self._watch.dots_of(write)]
        owners = self._cluster.owners(key)
        if not any(self._has_slot(owner, key, dots, is_sloppy=True) for owner in owners):
            told = f"{brief_value(value)} is shown before it is durable anywhere"
            self._watch.fail("5-read-is-durable", key, told)

    def _has_slot(
        self, owner: NodeNumber, key: StorageKey, dots: list[Dot], *, is_sloppy: bool | None = None
    ) -> bool:
        for node in self._cluster.hosts:
            self._watch.on_sync(node)  # what else a node makes durable syncs all of its log
        if self._stores.has_durable(owner, key, dots):
            return True
        if is_sloppy is None:
            is_sloppy = self._cluster.keyspace_of(key).sloppy
        if is_sloppy and self._stores.has_handed(owner, key, dots):
            return True
        # What had left before it came there again, as a late attempt does, is stored no more.
        reaped = self._watch.steps.reaped.get(key, NOTHING_SEEN)
        return any(
            covers(reaped, dot) and self._watch.steps.has_floor_seen(owner, key, one_dot(dot))
            for dot in dots
        )

    # ---- as a client hears it ----------------------------------------------------------------

    def on_not_applied(self, write: Write) -> None:
        """A client hears that a write is nowhere."""
        for dot in self._watch.dots_of(write):
            told = f"{brief_value(write.value)} is called not applied, and was made as"
            self._watch.fail("6-not-applied-unseen", write.key, f"{told} {brief_dot(dot)}")

    def on_read(self, read: Read) -> None:
        """A client has an answer."""
        history = self._watch.of(read.key)
        keyspace = self._cluster.keyspace_of(read.key)
        count = history.count_before(read.began_us)
        is_strong = self._is_strong(keyspace, history, read)
        is_bound = is_strong or self._is_healed(history, read)
        if read.value is None and not (is_bound and count):
            return
        candidates = self._candidates(history, read)
        if not candidates and read.value is not None:
            told = f"{brief_value(read.value)} is read, which nobody wrote"
            self._watch.fail("5-read-was-written", read.key, told)
        if candidates and all(write.outcome == NOT_APPLIED for write in candidates):
            told = f"{brief_value(read.value)} is read, and was called not applied"
            self._watch.fail("6-not-applied-unseen", read.key, told)
        self._check_own(history, read, candidates)
        self._check_expiry(read, candidates)
        if not is_bound:
            return
        out = [self._is_out(history, write, count, is_strong=is_strong) for write in candidates]
        if all(out):
            self._fail_current(history, read, candidates, count)
        if is_strong:
            self._check_covers(history, read, count)
            if read.values:
                self._check_told(history, read, count)

    def _check_own(self, history: KeyHistory, read: Read, candidates: list[Write]) -> None:
        """A session is not given what it has replaced itself, by whichever attempt."""
        if read.client is None or read.value is None:
            return
        if history.is_lossy or self._watch.is_unsafe:
            return
        heirs = [
            next((each for each in history.writes if w.is_replaced_by(each, read.began_us)), None)
            for w in candidates
            if w.client == read.client
        ]
        if len(heirs) == len(candidates) and all(heirs):
            names = brief_values([each.value for each in heirs if each is not None])
            told = f"{brief_value(read.value)} is read by who had replaced it by {names}"
            self._watch.fail("5-session-reads-its-own", read.key, told)

    def _is_strong(self, keyspace: Keyspace, history: KeyHistory, read: Read) -> bool:
        """Whether every acknowledged write must be known to this read."""
        if keyspace.sloppy or history.is_lossy or self._watch.is_unsafe:
            return False
        return (read.r or keyspace.r) + keyspace.w > keyspace.n

    def _is_healed(self, history: KeyHistory, read: Read) -> bool:
        """Whether stand-ins have handed over all that they took before this read."""
        healed_us = self._watch.healed_us
        if history.is_lossy or self._watch.is_unsafe or healed_us is None:
            return False
        return read.began_us >= healed_us and self._cluster.keyspace_of(read.key).sloppy

    def _candidates(self, history: KeyHistory, read: Read) -> list[Write]:
        """Return the writes whose value this may be, the newest first."""
        found = list(history.of_value.get(read.value, ()))
        if read.value is None:
            found += [write for write in history.expiring if self._may_be_expired(write)]
        found.sort(key=lambda write: write.began_us, reverse=True)
        return found

    def _may_be_expired(self, write: Write) -> bool:
        expires_ms = self._watch.expiry_of(write)
        return 0 < expires_ms <= self._cluster.wall_ms + self._watch.lead_ms

    def _check_expiry(self, read: Read, candidates: list[Write]) -> None:
        if read.value is None or not candidates:
            return
        expires_ms = self._watch.expiry_of(candidates[0])
        began_ms = self._cluster.wall_ms - (self._cluster.now_us - read.began_us) // 1_000
        if 0 < expires_ms < began_ms - self._watch.lag_ms:
            told = f"{brief_value(read.value)} expired {began_ms - expires_ms} ms before the read"
            self._watch.fail("5-expired-is-gone", read.key, told)

    def _is_out(self, history: KeyHistory, write: Write, count: int, *, is_strong: bool) -> bool:
        """Say whether no reader may be given this write any more."""
        if write.outcome == NOT_APPLIED:
            return True
        if history.is_seen_before(self._watch.dots_of(write), count):
            return True
        keyspace = self._cluster.keyspace_of(write.key)
        if 2 * keyspace.w <= keyspace.n or not history.is_followed_before(write, count):
            return False
        if is_strong:
            return True
        dots = self._watch.dots_of(write)
        return any(
            min(later.stamps) > max(write.stamps)
            for later in history.successors(write, dots, count)
            if not later.is_explicit
            and (write.ended_us or 0) < later.began_us
            and not history.is_seen(self._watch.last_dots_of(later))
        )

    def _fail_current(
        self, history: KeyHistory, read: Read, candidates: list[Write], count: int
    ) -> None:
        name = "5-read-is-current"
        told = [brief_value(write.value) for write in history.acknowledged[:count][-5:]]
        for write in candidates[:1]:
            later = list(history.successors(write, self._watch.dots_of(write), count))
            told = [brief_value(each.value) for each in later[-5:]]
            if write.value is not None and any(each.value is None for each in later):
                name = "2-deleted-stays-deleted"
        text = f"{brief_value(read.value)} is read, begun at {read.began_us / 1e6:.6f} s after "
        self._watch.fail(name, read.key, f"{text}{', '.join(told)} had been acknowledged")

    def _check_covers(self, history: KeyHistory, read: Read, count: int) -> None:
        reaped = self._watch.steps.reaped.get(read.key, NOTHING_SEEN)
        for actor, counter in history.tops_before(count).items():
            dot = Dot(actor, counter)
            if not covers(read.context, dot) and not covers(reaped, dot):
                told = f"the context of a read, {brief_context(read.context)}, lacks"
                acked = f"{brief_dot(dot)}, acknowledged before it began"
                self._watch.fail("5-read-covers", read.key, f"{told} {acked}")

    def _check_told(self, history: KeyHistory, read: Read, count: int) -> None:
        """What has no successor is returned, or told of as a rival; or it has been settled."""
        late = frozenset(history.acknowledged[count:])
        reaped = self._watch.steps.reaped.get(read.key, NOTHING_SEEN)
        still = []
        for write in history.unsettled:
            dots = self._watch.last_dots_of(write)
            if history.has_successor(write, dots) or any(covers(reaped, dot) for dot in dots):
                continue
            still.append(write)
            if write in late or write.value in read.values or self._may_be_expired(write):
                continue
            if not any((write.key, name) in self._stores.logged for name in write.write_ids):
                told = f"{brief_value(write.value)} was acknowledged, and nothing supersedes it;"
                text = f"{told} a read tells of {brief_values(sorted(read.values, key=repr))}"
                self._watch.fail("5-read-is-current", read.key, text)
        history.unsettled = still
