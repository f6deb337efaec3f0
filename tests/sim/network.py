"""The network between simulated nodes: a queue for each directed link.

What it decides: when a message arrives, twice, late, or never. It knows nothing of what it carries.
Laws: chance is one stream for each link, so that a fault on one link disturbs no other; a cut link
loses what is sent and what is under way; what is held stays until it is let go.
Its tests are tests/sim/test_cluster.py. Left out: bandwidth, clogging (the full simulator's).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from kvnode.core.messages import NodeNumber, PeerMessage

Deliver = Callable[[NodeNumber, NodeNumber, PeerMessage], None]
Schedule = Callable[[int, Callable[[], None]], None]


@dataclass(slots=True)
class Link:
    """One direction between two nodes."""

    chance: random.Random
    delay_us: tuple[int, int] = (200, 2_000)
    drops: float = 0.0
    """The share of messages that is lost."""
    duplicates: float = 0.0
    is_cut: bool = False
    holds: Callable[[PeerMessage], bool] | None = None
    """Which messages to keep back until `release`."""
    held: list[PeerMessage] = field(default_factory=list)


class Network:
    """All links between nodes 1 to `nodes`."""

    def __init__(self, *, nodes: int, seed: int, schedule: Schedule, deliver: Deliver) -> None:
        self._schedule = schedule
        self._deliver = deliver
        numbers = range(1, nodes + 1)
        self.links = {
            (a, b): Link(random.Random(f"{seed} link {a} {b}")) for a in numbers for b in numbers
        }

    def send(self, source: NodeNumber, target: NodeNumber, message: PeerMessage) -> None:
        """Put a message on its way; one to the sender itself is never lost and never waits."""
        if source == target:
            self._deliver(source, target, message)
            return
        link = self.links[source, target]
        if link.holds is not None and link.holds(message):
            link.held.append(message)
            return
        copies = 2 if link.chance.random() < link.duplicates else 1
        for _ in range(copies):
            self.carry(source, target, lambda: self._deliver(source, target, message))

    def carry(self, source: NodeNumber, target: NodeNumber, arrive: Callable[[], None]) -> None:
        """Have something happen at the target if it is not lost on its way there."""
        link = self.links[source, target]
        lost = link.chance.random() < link.drops
        delay = link.chance.randint(*link.delay_us)
        if not lost and not link.is_cut:
            self._schedule(delay, lambda: None if link.is_cut else arrive())

    def release(self, source: NodeNumber, target: NodeNumber) -> None:
        """Let go of what was held on a link, at once and in order, and hold nothing more."""
        link = self.links[source, target]
        held, link.held, link.holds = link.held, [], None
        for message in held:
            self._deliver(source, target, message)

    def forget(self, source: NodeNumber, target: NodeNumber) -> None:
        """Lose what was held on a link, and hold nothing more."""
        link = self.links[source, target]
        link.held, link.holds = [], None
