"""Two nodes that judge each other: two detectors, a network between them, and virtual time.

What it decides: which frames arrive, and when. Each node has a stream of its own to the other, on
which its heartbeats and requests go out and their answers come back; frames are lost by themselves
(harsher than TCP, which delays them). Laws: the same seed and the same calls give the same changes.
Its test file is tests/unit/core/test_liveness.py. Left out: what the changes are good for.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

from kvnode.core.bounds import Limits
from kvnode.core.liveness import Change, Detector
from kvnode.core.messages import Instant

MINUTE_US = 60_000_000


class Wire:
    """One direction."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.loss = 0.0
        self.delay_us = (200, 2_000)

    def delay(self) -> int | None:
        """Return how long the next frame takes; None: it is lost."""
        delay = self._chance.randint(*self.delay_us)
        return None if self._chance.random() < self.loss else delay


class Pair:
    """Nodes 1 and 2."""

    def __init__(self, seed: int, limits: Limits | None = None) -> None:
        self.now_us = 1_000_000
        self.limits = limits or Limits()
        self.wires = {one: Wire(random.Random(f"{seed} from {one}")) for one in (1, 2)}
        self.detectors = {one: Detector(self.limits, Instant(self.now_us)) for one in (1, 2)}
        self.changes: dict[int, list[tuple[int, Change]]] = {1: [], 2: []}
        self.asks_every_us: int | None = None
        """Each node sends the other a request so often; None: never."""
        self.stopped: set[int] = set()
        """Nodes that do not run: SIGSTOP."""
        self._unread: dict[int, list[Callable[[], None]]] = {1: [], 2: []}
        self._unanswered = {1: 0, 2: 0}
        self._is_open = {1: False, 2: False}
        self._order = itertools.count()
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        for one in (1, 2):
            self.detectors[one].add(3 - one, self._now)
            self.open(one)
            self._later(0, lambda one=one: self._look(one))  # type: ignore[misc]

    @property
    def _now(self) -> Instant:
        return Instant(self.now_us)

    def open(self, one: int, *, life: int = 1) -> None:
        """Link a node with the other."""
        if not self._is_open[one]:
            self._is_open[one] = True
            self._note(one, self.detectors[one].on_opened(3 - one, life, self._now))
        self._unanswered[one] = 0

    def lose(self, one: int) -> None:
        """Break a node's link to the other."""
        self._is_open[one] = False
        self._note(one, self.detectors[one].on_lost(3 - one, "connection lost", self._now))

    def begin_asking(self, every_us: int) -> None:
        """Have both send requests from here on."""
        self.asks_every_us = every_us
        for one in (1, 2):
            self._ask(one)

    def run(self, for_us: int) -> None:
        """Let time pass."""
        end = self.now_us + for_us
        while self._agenda and self._agenda[0][0] <= end:
            self.now_us, _, act = heapq.heappop(self._agenda)
            act()
        self.now_us = end

    def resume(self, one: int) -> None:
        """SIGCONT: the node's timers come first, then it reads what has come meanwhile."""
        self.stopped.discard(one)
        self._later(0, lambda: self._look(one))
        unread, self._unread[one] = self._unread[one], []
        for act in unread:
            self._later(100, act)

    def told(self, one: int, *, since_us: int = 0) -> list[str]:
        """Return the names of a node's changes."""
        return [type(change.event).__name__ for at, change in self.changes[one] if at >= since_us]

    def most_in_a_minute(self, one: int, *, since_us: int = 0) -> int:
        """Return the most changes that a node saw within any minute."""
        instants = [at for at, _ in self.changes[one] if at >= since_us]
        return max(
            (sum(at <= it < at + MINUTE_US for it in instants) for at in instants), default=0
        )

    def _later(self, delay_us: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now_us + delay_us, next(self._order), act))

    def _send(self, one: int, act: Callable[[], None]) -> None:
        """Carry a frame from a node to the other, which does `act` when it reads it."""
        delay = self.wires[one].delay()
        if delay is not None:
            self._later(delay, lambda: self._arrive(3 - one, act))

    def _arrive(self, one: int, act: Callable[[], None]) -> None:
        if one in self.stopped:
            self._unread[one].append(act)
        else:
            act()

    def _note(self, one: int, changes: list[Change]) -> None:
        self.changes[one] += [(self.now_us, change) for change in changes]
        self.detectors[one].check()

    def _look(self, one: int) -> None:
        if one in self.stopped:
            return
        detector = self.detectors[one]
        look = detector.look(self._now)
        self._note(one, look.changes)
        for _ in look.redials:
            self.lose(one)
            self._dial(one)
        for _ in look.beats:
            self._beat(one)
        self._later(detector.next_look() - self.now_us, lambda: self._look(one))

    def _beat(self, one: int) -> None:
        number = self.detectors[one].begin_beat(3 - one, self._now)
        self._send(one, lambda: self._send(3 - one, lambda: self._echo(one, number)))

    def _dial(self, one: int) -> None:
        """Try to link a node with the other until hellos get through."""
        self._send(one, lambda: self._send(3 - one, lambda: self.open(one)))
        self._later(200_000, lambda: None if self._is_open[one] else self._dial(one))

    def _echo(self, one: int, number: int) -> None:
        self._note(one, self.detectors[one].on_echo(3 - one, number, self._now))

    def _ask(self, one: int) -> None:
        if self.asks_every_us is None:
            return
        self._later(self.asks_every_us, lambda: self._ask(one))
        if one not in self.stopped:
            self._unanswered[one] += 1
            self.detectors[one].on_asked(3 - one, self._now)
            self._send(one, lambda: self._send(3 - one, lambda: self._answer(one)))

    def _answer(self, one: int) -> None:
        self._unanswered[one] -= 1
        owes = self._unanswered[one] > 0
        self._note(one, self.detectors[one].on_answered(3 - one, self._now, owes=owes))
