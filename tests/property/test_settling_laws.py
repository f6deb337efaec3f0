"""Settling in a model: the comparison of design, section 2.5, with losers that leave.

Random histories of one key at three owners, as in test_vote_rules.py, while settlers (two of them,
who do not know of each other) ask, log and prune in small steps between all else. Their frames come
late, in any order, or never; owners restart, one of them perhaps from an older state of its store.
    lost       an acknowledged value that is neither live nor superseded nor in any log
    changed    a full read that differs from the one before it, with no write since it was asked who
               holds what
    overtaken  such a read where a client has written since: the write may have replaced the winner
               alone, and have been behind the loser
    stale      such a read because an owner pruned another record than it had told of
Three ways are compared: as this store does it; pruning without waiting for the logs; pruning
without the fence on record, life and epoch.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from kvnode.core.resolve import Verdict, settle
from kvnode.core.topology import Resolve
from kvnode.core.versions import (
    NOTHING_SEEN,
    Context,
    Dot,
    Record,
    covers,
    find,
    join,
    prune,
)
from tests.sim.owners import Owners, Sent
from tests.support.scale import scaled

HISTORIES = scaled(1_000, soak=100_000)
OWNERS, W, CLIENTS, SETTLERS = 3, 2, 2, 2


@dataclass(frozen=True)
class Way:
    """How losers leave."""

    logs_first: bool = True
    is_fenced: bool = True


@dataclass(slots=True)
class Attempt:
    """One settler's conversation."""

    told: dict[int, tuple[Record, int]] = field(default_factory=dict)
    """What each owner told, and in which life."""
    verdict: Verdict | None = None
    logged: set[int] = field(default_factory=set)
    has_pruned: bool = False
    writes: int = 0
    """How many writes there had been when it began."""


class History:
    """One random history under one way of settling."""

    def __init__(self, seed: int, way: Way, *, restores: bool) -> None:
        self._chance = random.Random(seed)
        self._way = way
        self._restores = restores
        self._owners = Owners(OWNERS)
        self._lives = [0] * OWNERS
        self._logs: list[set[Dot]] = [set() for _ in range(OWNERS)]
        self._late: list[tuple[int, Sent]] = []
        self._frames: list[tuple[str, int, Attempt]] = []
        self._attempts = [Attempt() for _ in range(SETTLERS)]
        self._seen = [NOTHING_SEEN] * CLIENTS
        self._written: list[tuple[Sent, Context, int]] = []
        self._before = self._owners.records[:]
        self._writes = 0
        self.found: Counter[str] = Counter()
        self._cause, self._is_stale = "changed", False

    def play(self) -> None:
        """Let it happen, to the end of all repair and settling."""
        for _ in range(self._chance.randint(3, 8)):
            self._write(self._chance.randrange(CLIENTS))
            if self._chance.random() < 0.3:
                self._before = self._owners.records[:]
            self._quiet(self._chance.randint(0, 40))
        self._quiet(40)
        while self._late or not self._is_equal():
            self._quiet(5)

    def is_lost(self) -> bool:
        """Say whether a value that was acknowledged is gone without a trace."""
        joined = self._owners.joined(self._owners.numbers)
        for sent, _, acked in self._written:
            dot = sent.version.dot
            superseded = any(covers(seen, dot) for _, seen, _ in self._written)
            logged = any(dot in log for log in self._logs)
            if acked >= W and find(joined, dot) is None and not superseded and not logged:
                return True
        return False

    def _quiet(self, steps: int) -> None:
        """Anything but a write; no answer may change by it."""
        acts = (self._mend, self._settle, self._deliver, self._restart)
        told, held = self._answer(), self._owners.records[:]
        self._cause, self._is_stale = "changed", False
        for act in self._chance.choices(acts, (6, 8, 4, 0.3), k=steps):
            act()
            if any(a is not b for a, b in zip(held, self._owners.records, strict=True)):
                now, held = self._answer(), self._owners.records[:]
                if told != now:
                    self.found["stale" if self._is_stale else self._cause] = 1
                told = now

    def _answer(self) -> bytes | None:
        winner = self._owners.answer(self._owners.numbers).winner
        return None if winner is None else winner.value

    def _write(self, client: int) -> None:
        chance, owners = self._chance, self._owners
        if chance.random() < 0.4:
            read = owners.records[chance.randrange(OWNERS)].context
            self._seen[client] = join(self._seen[client], read)
        seen = self._seen[client]
        self._writes += 1
        sent = owners.write(
            chance.randrange(OWNERS),
            value=b"v%d" % self._writes,
            stamp=100 + self._writes + chance.randint(-3, 3),
            write_id=b"%016d" % self._writes,
            seen=seen,
            is_explicit=True,
        )
        acked = 1
        for owner in range(OWNERS):
            if owner != sent.coordinator and chance.random() < 0.6:
                owners.deliver(sent, owner)
                acked += 1
            elif owner != sent.coordinator and chance.random() < 0.7:
                self._late.append((owner, sent))
        self._written.append((sent, seen, acked))
        self._seen[client] = join(seen, Context({}, frozenset((sent.version.dot,))))

    def _mend(self) -> None:
        chance, owners = self._chance, self._owners
        if self._late and chance.random() < 0.5:
            owner, sent = self._late.pop(chance.randrange(len(self._late)))
            owners.merge(owner, sent.record)
        else:
            a, b = chance.sample(range(OWNERS), 2)
            owners.merge(a, owners.records[b])

    def _restart(self) -> None:
        """A new life; now and then on an older state, which all others then complete."""
        owner = self._chance.randrange(OWNERS)
        self._lives[owner] += 1
        if self._restores and self._chance.random() < 0.5:
            self._restores = False
            others = [each for each in range(OWNERS) if each != owner]
            for each in others:  # what it alone held of an unfinished write may go
                self._owners.merge(each, self._owners.records[owner])
            self._owners.records[owner] = self._before[owner]
            self._logs[owner].clear()
            for each in others:
                self._owners.merge(owner, self._owners.records[each])

    # ---- settlers ------------------------------------------------------------------------

    def _settle(self) -> None:
        """Have a settler ask one more owner, or go on with what all have told."""
        at = self._chance.randrange(SETTLERS)
        attempt = self._attempts[at]
        attempt.writes = attempt.writes or self._writes
        missing = [owner for owner in range(OWNERS) if owner not in attempt.told]
        if missing:
            owner = self._chance.choice(missing)
            attempt.told[owner] = (self._owners.records[owner], self._lives[owner])
            return
        if attempt.verdict is None:
            attempt.verdict = self._verdict_of(attempt)
            if attempt.verdict is None:
                self._attempts[at] = Attempt()
                return
            self._frames += [("log", owner, attempt) for owner in range(OWNERS)]
        is_ready = len(attempt.logged) >= W or not self._way.logs_first
        if is_ready and not attempt.has_pruned:
            attempt.has_pruned = True
            self._frames += [("prune", owner, attempt) for owner in range(OWNERS)]
        if attempt.has_pruned or self._chance.random() < 0.02:
            self._attempts[at] = Attempt()

    def _verdict_of(self, attempt: Attempt) -> Verdict | None:
        states = [state for state, _ in attempt.told.values()]
        if any(state != states[0] for state in states):
            return None
        numbers = self._owners.numbers
        return settle(states[0], owners=numbers, now_ms=0, resolve=Resolve.MAJORITY)

    def _deliver(self) -> None:
        """One frame of a settler arrives, or is lost."""
        if not self._frames:
            return
        what, owner, attempt = self._frames.pop(self._chance.randrange(len(self._frames)))
        assert attempt.verdict is not None
        losers = attempt.verdict.losers
        held = self._owners.records[owner]
        is_same = attempt.told[owner] == (held, self._lives[owner])
        if self._chance.random() < 0.2 or (self._way.is_fenced and not is_same):
            return
        if what == "log":
            self._logs[owner].update(losers)
            attempt.logged.add(owner)
        elif find(held, attempt.verdict.winner.dot) or not self._way.is_fenced:
            left = [one for one in held.versions if one.dot not in losers]
            if left and len(left) < len(held.versions):
                self._owners.records[owner] = prune(held, losers)
                self._is_stale |= not is_same
                if attempt.writes != self._writes:
                    self._cause = "overtaken"
                self.found["pruned"] = 1

    def _is_equal(self) -> bool:
        first, *others = self._owners.records
        return all(record == first for record in others)


def outcomes(rng: random.Random, way: Way, *, restores: bool) -> Counter[str]:
    """Return in how many histories values were lost, answers changed and losers pruned."""
    found: Counter[str] = Counter()
    for _ in range(HISTORIES):
        history = History(rng.getrandbits(64), way, restores=restores)
        history.play()
        found["lost"] += history.is_lost()
        found += history.found
    print(way, {what: f"{100 * count / HISTORIES:.2f} %" for what, count in sorted(found.items())})
    return found


def test_settling_loses_no_value_and_changes_no_answer(rng: random.Random) -> None:
    found = outcomes(rng, Way(), restores=False)
    assert (found["lost"], found["changed"], found["stale"]) == (0, 0, 0), found
    assert found["pruned"] > HISTORIES // 10, found


def test_settling_loses_no_value_where_an_owner_comes_back_with_an_older_state(
    rng: random.Random,
) -> None:
    found = outcomes(rng, Way(), restores=True)
    assert found["lost"] == 0, found
    assert found["pruned"] > HISTORIES // 10, found


def test_pruning_without_waiting_for_the_logs_loses_values(rng: random.Random) -> None:
    assert outcomes(rng, Way(logs_first=False), restores=False)["lost"] > 0


def test_pruning_without_the_fence_changes_answers(rng: random.Random) -> None:
    assert outcomes(rng, Way(is_fenced=False), restores=True)["stale"] > 0


def test_pruning_without_either_loses_values(rng: random.Random) -> None:
    found = outcomes(rng, Way(logs_first=False, is_fenced=False), restores=True)
    assert found["lost"] > 0, found
