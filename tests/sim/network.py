"""The network between simulated nodes: a link for each direction between two of them.

What it decides: when a frame arrives, twice, late, or never. It knows nothing of what it carries.
A stream keeps the order of what is sent on it; `reorders` is the share of frames that do not wait
for those before them. By default all do so, which is harder on nodes than TCP is: there only frames
of different streams (bulk, or a connection that was made anew) overtake one another.
Laws: chance is one stream for each link, so that a fault on one link disturbs no other; a cut link
loses what is sent and what is under way; a clogged one delivers all of it when it is free again;
what is held stays until it is let go. Its tests are tests/sim/test_world.py.
Left out: bandwidth.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from kvnode.core.messages import NodeNumber, PeerMessage

Arrival = tuple[Callable[..., None], *tuple[object, ...]]
"""What is called when something arrives, and with what."""
Slot = int
"""A machine's number: the member's that lives there, or above all of them."""


class Agenda(Protocol):
    """Virtual time."""

    now_us: int

    def after(self, delay_us: int, act: Callable[..., Any], *args: object) -> None:
        """Have something happen later."""

    def inject(self, source: NodeNumber, target: NodeNumber, message: PeerMessage) -> None:
        """Have a message reach a node, on no stream."""


@dataclass(slots=True)
class Link:
    """One direction between two nodes."""

    chance: random.Random
    delay_us: tuple[int, int] = (200, 2_000)
    drops: float = 0.0
    """The share of frames that is lost."""
    duplicates: float = 0.0
    reorders: float = 1.0
    """The share of frames that may overtake those before them."""
    is_cut: bool = False
    clogged_until_us: int = 0
    """Nothing arrives before then; then everything does. 0: it is free."""
    stuck: list[Arrival] = field(default_factory=list)
    """What would have arrived since it was clogged."""
    holds: Callable[[PeerMessage], bool] | None = None
    """Which messages to keep back until `release`."""
    held: list[PeerMessage] = field(default_factory=list)

    def hold(self, messages: list[PeerMessage]) -> list[PeerMessage]:
        """Keep back what is to be held; return the others."""
        assert self.holds is not None
        left: list[PeerMessage] = []
        for message in messages:
            (self.held if self.holds(message) else left).append(message)
        return left


class Way(NamedTuple):
    """Both directions between two nodes."""

    there: Link
    back: Link

    def round_trip_us(self) -> int:
        """Return how long something takes there and back; 0: not all that is sent either way
        arrives once and in its time."""
        there, back = self
        if (
            there.is_cut or there.drops or there.duplicates or there.clogged_until_us
            or back.is_cut or back.drops or back.duplicates or back.clogged_until_us
        ):  # fmt: skip
            return 0
        (low, high), (back_low, back_high) = there.delay_us, back.delay_us
        spread = int((high - low + back_high - back_low) * there.chance.random())
        return low + back_low + spread


class Network:
    """All links between nodes 1 to `nodes`, and to any other machine that turns up."""

    def __init__(self, world: Agenda, *, nodes: int, seed: int) -> None:
        self._world = world
        self._seed = seed
        self.links: dict[tuple[Slot, Slot], Link] = {}
        for source in range(1, nodes + 1):
            for target in range(1, nodes + 1):
                self.link(source, target)

    def link(self, source: Slot, target: Slot) -> Link:
        """Return the link from one machine to another."""
        found = self.links.get((source, target))
        if found is None:
            chance = random.Random(f"{self._seed} link {source} {target}")
            found = self.links[source, target] = Link(chance)
        return found

    def carry(
        self,
        slots: tuple[Slot, Slot],
        latest_us: list[int],
        lane: int,
        arrival: Arrival,
    ) -> None:
        """Have something arrive, if it is not lost on its way, and perhaps twice.

        Args:
            slots: from where, to where.
            latest_us: when the latest of each lane of its stream arrives.
            lane: whose order it keeps.
            arrival: what is then called, and with what.
        """
        link = self.links[slots]
        chance = link.chance.random
        if link.is_cut or (link.drops and chance() < link.drops):
            return
        now = self._world.now_us
        for _ in range(2 if link.duplicates and chance() < link.duplicates else 1):
            low, high = link.delay_us
            at = now + low + int((high - low) * chance())
            if link.reorders < 1.0 and (not link.reorders or chance() >= link.reorders):
                at = latest_us[lane] = max(at, latest_us[lane])
            self._world.after(at - now, self._arrive, link, arrival)

    def way(self, source: Slot, target: Slot) -> Way:
        """Return the links from one machine to another, and back."""
        return Way(self.link(source, target), self.link(target, source))

    def clog(self, source: Slot, target: Slot, for_us: int) -> None:
        """Have nothing arrive for a while, and everything then."""
        link, until_us = self.link(source, target), self._world.now_us + for_us
        if until_us > link.clogged_until_us:
            link.clogged_until_us = until_us
            self._world.after(for_us, self._free, link)

    def unclog_all(self) -> None:
        """Have nothing be clogged any more; what is stuck arrives now."""
        for link in list(self.links.values()):
            link.clogged_until_us = 0
            self._free(link)

    def _free(self, link: Link) -> None:
        """Let through what is stuck, unless it is clogged for longer by now."""
        if link.clogged_until_us > self._world.now_us:
            return
        link.clogged_until_us = 0
        stuck, link.stuck = link.stuck, []
        for arrival in stuck:
            self._arrive(link, arrival)

    def send(self, source: NodeNumber, target: NodeNumber, message: PeerMessage) -> None:
        """Have a message arrive a while later, on no stream (a test makes it up)."""
        self._world.after(1_000, self._world.inject, source, target, message)

    def release(self, source: NodeNumber, target: NodeNumber) -> None:
        """Let go of what was held on a link, at once and in order, and hold nothing more."""
        link = self.link(source, target)
        held, link.held, link.holds = link.held, [], None
        for message in held:
            self._world.inject(source, target, message)

    def forget(self, source: NodeNumber, target: NodeNumber) -> None:
        """Lose what was held on a link, and hold nothing more."""
        link = self.link(source, target)
        link.held, link.holds = [], None

    def _arrive(self, link: Link, arrival: Arrival) -> None:
        if link.is_cut:
            return
        if link.clogged_until_us:
            link.stuck.append(arrival)
        else:
            arrival[0](*arrival[1:])
