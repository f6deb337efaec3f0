"""One simulated life's links to all peers, judged by the detector that the runtime drives too.

What it decides: when to dial, and that hellos, heartbeats and echoes are carried as other messages
are: late, lost, or into a cut. The detector decides who is up (kvnode.core.liveness); this follows
kvnode.runtime.links in what is told to it. Laws: a broken link breaks at both ends, unless it is
cut; one that is not open is dialled again and again; the same seed gives the same changes.
Its tests are tests/sim/test_liveness.py. Left out: what is under way on a link that breaks still
arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvnode.core.liveness import Change, Detector, Standing
from kvnode.core.messages import (
    ClientPut,
    Instant,
    NodeNumber,
    PeerClock,
    PeerMessage,
    PeerReplies,
    ReplicaRead,
    ReplicaWrite,
)

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster, Host

_REQUESTS = (ReplicaWrite, ReplicaRead, ClientPut)
RESET_US = 500
"""Until the other side notices that a connection broke."""


class Links:
    """Links from one life of a node to all others."""

    def __init__(self, host: Host, world: Cluster, peers: list[NodeNumber]) -> None:
        assert host.life is not None
        self.incarnation = host.life.replica.actor
        self.detector = Detector(world.limits, Instant(world.now_us))
        self._host = host
        self._world = world
        self._is_open = dict.fromkeys(peers, False)
        self._unanswered: dict[NodeNumber, dict[int, int]] = {peer: {} for peer in peers}
        """By id: the instant at which it is too late for an answer."""

    def begin(self) -> None:
        """Dial all peers, and look after them from here on."""
        for peer in self._is_open:
            self.detector.add(peer, self._now)
            self._dial_until_open(peer)
        self._host.later(0, self._look)

    def standing(self, peer: NodeNumber) -> Standing:
        """Return what a peer is good for."""
        return self.detector.standing(peer)

    def dial(self, peer: NodeNumber) -> None:
        """Say hello now, if the link is not open: the peer has just been started."""
        if not self._is_open[peer]:
            self._ask(peer, lambda life: self._open(peer, life))

    def reset(self, peer: NodeNumber) -> None:
        """The connection breaks, and is made anew."""
        self.lose(peer)
        self._dial_until_open(peer)

    def lose(self, peer: NodeNumber) -> None:
        """The connection breaks."""
        if self._is_open[peer]:
            self._is_open[peer] = False
            self._tell(self.detector.on_lost(peer, "connection lost", self._now))

    def on_sent(self, peer: NodeNumber, message: PeerMessage) -> None:
        """A message goes to a peer."""
        if isinstance(message, _REQUESTS) and message.id and peer in self._unanswered:
            too_late = self._now + 1_000 * self._world.limits.timeout_ms
            self._unanswered[peer][message.id] = too_late
            self.detector.on_asked(peer, self._now)

    def on_replies(self, replies: PeerReplies) -> None:
        """Requests were answered."""
        unanswered = self._unanswered.get(replies.sender)
        if unanswered is None:
            return
        for box in (replies.writes, replies.reads, replies.forwards):
            for reply in box:
                unanswered.pop(reply.id, None)
        owes = bool(unanswered)
        self._tell(self.detector.on_answered(replies.sender, self._now, owes=owes))

    @property
    def _now(self) -> Instant:
        return Instant(self._world.now_us)

    def _dial_until_open(self, peer: NodeNumber) -> None:
        if self._is_open[peer]:
            return
        self.dial(peer)
        every_us = 1_000 * self._world.limits.reconnect_ms
        self._host.later(every_us, lambda: self._dial_until_open(peer))

    def _open(self, peer: NodeNumber, life: int) -> None:
        other = self._world.hosts[peer]
        if self._is_open[peer] or other.links is None or other.links.incarnation != life:
            return  # it has died while its hello was under way
        self._is_open[peer] = True
        self._unanswered[peer].clear()
        self._host.hear(PeerClock(peer, other.ahead_ms - self._host.ahead_ms))
        self._tell(self.detector.on_opened(peer, life, self._now))

    def _look(self) -> None:
        for unanswered in self._unanswered.values():
            for number in [n for n, too_late in unanswered.items() if too_late <= self._now]:
                del unanswered[number]
        look = self.detector.look(self._now)
        self._tell(look.changes)
        for peer in look.redials:
            self.reset(peer)
        for peer in look.beats:
            self._beat(peer, self.detector.begin_beat(peer, self._now))
        self._host.later(self.detector.next_look() - self._now, self._look)

    def _beat(self, peer: NodeNumber, number: int) -> None:
        self._ask(peer, lambda _: self._tell(self.detector.on_echo(peer, number, self._now)))

    def _ask(self, peer: NodeNumber, on_answer: Callable[[int], None]) -> None:
        """Carry something to a peer and its answer back; a life that has ended gives none, and
        one that has ended hears none."""
        here, there, network = self._host, self._world.hosts[peer], self._world.network
        asking = self.incarnation

        def answer() -> None:
            if there.links is not None:
                life = there.links.incarnation
                network.carry(peer, here.number, lambda: take(life))

        def take(life: int) -> None:
            if here.links is not None and here.links.incarnation == asking:
                on_answer(life)

        network.carry(here.number, peer, answer)

    def _tell(self, changes: list[Change]) -> None:
        world, here = self._world, self._host.number
        for change in changes:
            world.tell("peer", here, change)
            world.changes.append((world.now_us, here, change))
            self._host.hear(change.event)
