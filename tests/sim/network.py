"""The network between simulated nodes: a queue for each directed link.

What it decides: when a message arrives, twice, late, or never. It knows nothing of what it carries.
A connection keeps the order of what is sent on it; how the world around connections reorders (two
streams of one pair, a connection that was made anew) is a share of messages that do not wait for
those before them (`reorders`): by default all do so, which is harder on nodes than TCP is.
Laws: chance is one stream for each link, so that a fault on one link disturbs no other; a cut link
loses what is sent and what is under way; a clogged one delivers all of it when it is free again;
what is held stays until it is let go. Its tests are tests/sim/test_world.py.
Left out: bandwidth.
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
    reorders: float = 1.0
    """The share of messages that may overtake those before them."""
    is_cut: bool = False
    clogged_until_us: int = 0
    """Nothing arrives before then; then everything does."""
    latest_us: int = 0
    """When the latest arrives of those that keep their order."""
    holds: Callable[[PeerMessage], bool] | None = None
    """Which messages to keep back until `release`."""
    held: list[PeerMessage] = field(default_factory=list)


class Network:
    """All links between nodes 1 to `nodes`."""

    def __init__(
        self,
        *,
        nodes: int,
        seed: int,
        now: Callable[[], int],
        schedule: Schedule,
        deliver: Deliver,
    ) -> None:
        self._now = now
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
        now = self._now()
        at = max(now + link.chance.randint(*link.delay_us), link.clogged_until_us)
        if lost or link.is_cut:
            return
        if link.reorders < 1.0 and link.chance.random() >= link.reorders:
            at = link.latest_us = max(at, link.latest_us)
        self._schedule(at - now, lambda: self._arrive(link, arrive))

    def clog(self, source: NodeNumber, target: NodeNumber, for_us: int) -> None:
        """Have nothing arrive for a while, and everything then."""
        link = self.links[source, target]
        link.clogged_until_us = max(link.clogged_until_us, self._now() + for_us)

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

    def _arrive(self, link: Link, arrive: Callable[[], None]) -> None:
        if link.is_cut:
            return
        if (wait_us := link.clogged_until_us - self._now()) > 0:
            self._schedule(wait_us, lambda: self._arrive(link, arrive))
        else:
            arrive()
