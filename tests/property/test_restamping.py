"""A plain put never loses to a write that was acknowledged before it began (2w > n): is it so?

Random histories of plain puts by three clients whose clocks lag by up to 30 s, with lost and late
messages, abandoned attempts and repair. After every step every set of r or more owners is read. A
*loss* is an answer that was acknowledged before another acknowledged put even began.
What is tried: the rule of accepting owners alone; with a new stamp after a newer rival
(docs/decisions/0004-newer-rival-restamping.md); and with what an acknowledgement brought back
spread to the owners that count towards w before the put is called ok.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field

from kvnode.core.versions import NOTHING_SEEN, Context, Record, join, newest_rival
from tests.sim.owners import Owners, Sent
from tests.support.scale import scaled

STEPS = 50
PUTS_MAX = 5
LAG_MAX = 30


@dataclass(slots=True, eq=False)
class Plain:
    """One plain put of a client."""

    number: int
    stamp: int
    write_id: bytes
    began: int
    sent: Sent | None = None
    """Its latest attempt."""
    states: dict[int, Record] = field(default_factory=dict)
    """What its coordinator and the owners that acknowledged hold."""
    seen: Context = NOTHING_SEEN
    acked: int | None = None

    @property
    def value(self) -> bytes:
        return b"v%d" % self.number


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """A write on its way to an owner, or (with a state) its acknowledgement on its way back."""

    put: Plain
    sent: Sent
    owner: int
    state: Record | None = None


class Lagging:
    """One history."""

    def __init__(self, seed: int, *, n: int, restamps: bool, spreads: bool) -> None:
        self._chance = random.Random(seed)
        self._n, self._w = n, n // 2 + 1
        self._restamps, self._spreads = restamps, spreads
        self._owners = Owners(n)
        self._lags = [self._chance.randrange(LAG_MAX) for _ in range(3)]
        self._puts: list[Plain] = []
        self._under_way: list[Message] = []
        self._ids = itertools.count()
        self._now = 0

    def first_loss(self, *, heard_least: int) -> str | None:
        """Play; return the first answer that should not have been, if readers ask so many."""
        for self._now in range(1, STEPS):
            self._step()
            if told := self._loss(heard_least):
                return told
        return None

    def _step(self) -> None:
        chance = self._chance.random()
        if chance < 0.15 and len(self._puts) < PUTS_MAX:
            stamp = 100 + self._now - self._chance.choice(self._lags)
            put = Plain(len(self._puts), stamp, self._new_id(), self._now)
            self._puts.append(put)
            self._attempt(put)
        elif chance < 0.25:
            at, source = self._chance.sample(range(self._n), 2)
            self._owners.merge(at, self._owners.records[source])
        elif self._under_way:
            message = self._under_way.pop(self._chance.randrange(len(self._under_way)))
            if self._chance.random() < 0.75:
                self._arrive(message)

    def _attempt(self, put: Plain) -> None:
        at = self._chance.randrange(self._n)
        put.sent = self._owners.write(
            at, value=put.value, stamp=put.stamp, write_id=put.write_id, seen=put.seen
        )
        put.states = {at: put.sent.record}
        others = (owner for owner in range(self._n) if owner != at)
        self._under_way += [Message(put, put.sent, owner) for owner in others]

    def _arrive(self, message: Message) -> None:
        put, sent = message.put, message.sent
        if message.state is None:
            state = self._owners.deliver(sent, message.owner)
            self._under_way.append(Message(put, sent, message.owner, state))
            return
        self._owners.merge(sent.coordinator, message.state)
        if put.acked is None and sent is put.sent:
            put.states[message.owner] = message.state
            if len(put.states) >= self._w:
                self._on_quorum(put, sent)

    def _on_quorum(self, put: Plain, sent: Sent) -> None:
        newer = max(newest_rival(state, sent.version) for state in put.states.values())
        if newer and self._restamps:
            put.seen = join(put.seen, Context({}, frozenset((sent.version.dot,))))
            put.stamp, put.write_id = newer + 1, self._new_id()
            self._attempt(put)
            return
        if self._spreads:
            for owner in put.states:
                self._owners.merge(owner, self._owners.records[sent.coordinator])
        put.acked = self._now

    def _loss(self, heard_least: int) -> str | None:
        acked = [put for put in self._puts if put.acked is not None]
        lost = {q.value: p for q in acked for p in acked if q.acked < p.began}  # type: ignore[operator]
        if not lost:
            return None
        for count in range(heard_least, self._n + 1):
            for heard in itertools.combinations(range(self._n), count):
                winner = self._owners.answer(heard).winner
                if winner is not None and winner.value in lost:
                    return f"{lost[winner.value].value!r} lost to {winner.value!r} at {heard}"
        return None

    def _new_id(self) -> bytes:
        return b"%016d" % next(self._ids)


def losses(
    rng: random.Random, *, n: int, restamps: bool, heard_least: int, spreads: bool, count: int
) -> dict[int, str]:
    """Return the seeds of histories with a loss, and what was lost."""
    seeds = [rng.getrandbits(64) for _ in range(count)]
    told = {
        seed: Lagging(seed, n=n, restamps=restamps, spreads=spreads).first_loss(
            heard_least=heard_least
        )
        for seed in seeds
    }
    return {seed: loss for seed, loss in told.items() if loss is not None}


def test_without_a_new_stamp_a_put_by_a_lagging_clock_is_lost(rng: random.Random) -> None:
    lost = losses(rng, n=3, restamps=False, heard_least=2, spreads=False, count=100)
    assert len(lost) > 5


def test_with_a_new_stamp_no_put_loses_to_what_was_acknowledged_before_it_began(
    rng: random.Random,
) -> None:
    assert (
        losses(
            rng, n=3, restamps=True, heard_least=2, spreads=False, count=scaled(700, soak=20_000)
        )
        == {}
    )


def test_with_five_owners_it_holds_for_whoever_reads_them_all(rng: random.Random) -> None:
    assert (
        losses(
            rng, n=5, restamps=True, heard_least=5, spreads=False, count=scaled(300, soak=10_000)
        )
        == {}
    )


def test_with_five_owners_it_holds_for_any_three_only_if_contexts_spread_before_the_ok(
    rng: random.Random,
) -> None:
    assert (
        losses(rng, n=5, restamps=True, heard_least=3, spreads=True, count=scaled(200, soak=10_000))
        == {}
    )


def test_a_reader_of_three_in_five_may_miss_what_only_the_coordinator_learned() -> None:
    owners = Owners(5)
    old = owners.write(0, value=b"old", stamp=88, write_id=b"o" * 16)
    owners.deliver(old, 2)
    owners.deliver(old, 3)
    new = owners.write(1, value=b"new", stamp=103, write_id=b"n" * 16)
    owners.deliver(new, 4)
    owners.merge(1, owners.deliver(new, 0))
    partial, full = owners.answer((2, 3, 4)), owners.answer((0, 1, 2, 3, 4))
    assert (partial.winner, partial.confidence.name) == (old.version, "PROVISIONAL")
    assert full.winner == new.version
