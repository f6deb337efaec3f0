"""Which peers are there, judged by round trips: the failure detector of one node.

    DOWN --linked, and heard for long enough--> UP --owes answers, silent 200 ms--> SILENT
    SILENT --heard for long enough--> UP;   UP or SILENT --link lost, or silent 1 s--> DOWN

A peer counts as heard when it answers: a heartbeat carries a number and its answer echoes it, and
answers to requests count too. What merely comes from a peer proves one direction, so a link that
is cut one way would be down on one side and up on the other.

How long a silence may be is learnt (phi accrual): from the last 256 waits for an echo, as their
mean and ten standard deviations. Settings bound it from both sides: a clean link is judged by
`failover_ms` and `silence_ms`, one that loses every fifth frame is given longer, and nobody more
than twice the one and 1.75 times the other. Heartbeats come four or eight times as fast while an
answer would decide something: who is accused has missed many. Echoes are owed like answers, once
somebody waits. Time in which this node itself did not run counts for nobody (Lifeguard's lesson).

Accrual over links and not SWIM's gossip: every node talks to every other anyway, and what counts
is whether *this* node gets answers from that one. A rumour cannot say that, and none is told on.

Laws: a lost link takes a peer down at once; a pause of this node accuses nobody; what returns
on the same link, or on a new one after less than 3 s, must be heard longer each time, 0.25 s
doubling up to 30 s, and each false alarm doubles `failover_ms`, until a quiet minute forgets both;
a new life, or a new link after a longer time, is believed at once: that is no flapping; a peer
that says that it is stopping is SILENT until it is linked anew. A return needs round trips, so a
link that is cut one way stays down.
Tests: tests/unit/core/test_liveness.py, tests/property/test_liveness_laws.py.
Source: Hayashibara et al., "The phi accrual failure detector" (2004); Dadgar et al., "Lifeguard"
(2018). Left out: a link that is really lost and really back is reported each time.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, auto
from typing import NamedTuple

from kvnode.core.accrual import WINDOW, Waits
from kvnode.core.bounds import Limits
from kvnode.core.messages import Instant, NodeNumber, PeerDown, PeerHeard, PeerSilent, PeerUp

_LONGEST = 1.75
"""Times `silence_ms` that any peer is given: silence is noticed within 2 s by default."""
_REDIAL = 3
"""A link that is silent for so many times `silence_ms` is dialled anew."""
_FIRST_HEARING_US = 250_000
_LONGEST_HEARING_US = 30_000_000
_RETURNS = 16
"""Counted up to here."""
_QUIET_US = 60_000_000
_BRIEF_US = 3_000_000
_LATE_US = 50_000
"""A look that comes so much later than was asked for is a busy node's, and no absence."""
_UNASKED = -1
_UNHEARD = -1


class Standing(Enum):
    """What a peer is good for."""

    DOWN = auto()
    SILENT = auto()
    """Linked, but not to be waited for."""
    UP = auto()


_COUNTED = {Standing.UP: WINDOW, Standing.SILENT: 1, Standing.DOWN: 0}
"""How many of the waits that one echo ends say something about the link: an outage says nothing,
and a short one no more than once."""


class Change(NamedTuple):
    """A peer's standing has changed."""

    event: PeerUp | PeerDown | PeerSilent | PeerHeard
    why: str


class Look(NamedTuple):
    """What is to be done now."""

    changes: list[Change]
    beats: list[NodeNumber]
    """Peers that are to be sent a heartbeat."""
    redials: list[NodeNumber]
    """Peers whose link is to be given up and dialled anew."""


class _Peer:
    """What is known of one peer. Instants are attended time."""

    __slots__ = (
        "alarms",
        "asked_at",
        "beat_at",
        "beats",
        "changed_at",
        "echoed",
        "heard_at",
        "hearing_since",
        "is_fresh",
        "is_leaving",
        "is_open",
        "is_spared",
        "life",
        "returns",
        "said",
        "standing",
        "waits",
        "was_brief",
    )

    def __init__(self, at: int) -> None:
        self.standing = Standing.DOWN
        self.is_open = False
        self.is_fresh = False
        """Its link was opened since it was last up."""
        self.is_leaving = False
        self.is_spared = False
        """Was given another chance since it was last heard, because we were away."""
        self.life = 0
        self.returns = -1
        """Since the last quiet minute; the coming of a new life is none."""
        self.alarms = 0
        """False ones since the last quiet minute: it was silent, and back without going down."""
        self.heard_at = at
        self.hearing_since = _UNHEARD
        self.changed_at = at
        self.asked_at = _UNASKED
        """Since when it has owed answers."""
        self.beat_at = at
        self.said = 0
        self.echoed = 0
        self.beats: deque[tuple[int, int]] = deque(maxlen=WINDOW)
        """Number and instant of heartbeats that were not echoed yet."""
        self.waits = Waits()
        self.was_brief = False
        """It was up for less than `_BRIEF_US` the last time."""

    @property
    def is_mended(self) -> bool:
        """Whether what was wrong is over, by all signs: a new link, and no habit of losing it."""
        return self.returns < 0 or (self.is_fresh and not self.was_brief)

    def hearing_needed_us(self) -> int:
        """Return how long it must be heard before it is believed to be back. A first false alarm is
        taken back at once: where all are starved, all would else be gone around for long."""
        if self.is_mended or (self.standing is Standing.SILENT and not self.alarms):
            return 0
        return min(_FIRST_HEARING_US << self.returns, _LONGEST_HEARING_US)

    def forget(self) -> None:
        """A minute was quiet: bear no grudge."""
        self.returns = min(self.returns, 0)
        self.alarms = 0

    def check(self) -> None:
        """Assert what always holds."""
        assert self.is_open or self.standing is Standing.DOWN
        assert self.echoed <= self.said
        assert self.returns >= 0 or self.standing is not Standing.UP


class Detector:
    """Judges all peers of one node. Told what happens on links; asked at `next_look`.

    Peers that are not known (any more) are ignored.
    """

    def __init__(self, limits: Limits, now: Instant) -> None:
        self._silence_us = 1_000 * limits.silence_ms
        self._failover_us = 1_000 * limits.failover_ms
        self._beat_us = 1_000 * limits.heartbeat_ms
        self._patience_us = min(self._failover_us, self._silence_us)
        """Nobody who was heard since is accused."""
        self._probe_us = min(self._failover_us // 4, self._beat_us)
        self._calm_us = min(self._beat_us + self._probe_us, self._patience_us)
        """Whoever is up, owes nothing and was heard since is left alone but for heartbeats."""
        self._idle_us = max(1_000, self._beat_us // 4)
        self._busy_us = max(1_000, min(self._idle_us, self._failover_us // 8))
        self._peers: dict[NodeNumber, _Peer] = {}
        self._due_us: int = now
        self._away_us = 0
        """How long this node was away in all."""

    # ---- what happens on links -----------------------------------------------------------

    def add(self, node: NodeNumber, now: Instant) -> None:
        """Begin to judge a peer; it is down."""
        self._peers[node] = _Peer(self._attended(now))

    def drop(self, node: NodeNumber, why: str, now: Instant) -> list[Change]:
        """Judge a peer no more."""
        changes = self.on_lost(node, why, now)
        self._peers.pop(node, None)
        return changes

    def on_opened(self, node: NodeNumber, life: int, now: Instant) -> list[Change]:
        """Both sides have said hello: a first round trip. `life`: the peer's incarnation."""
        at, peer = self._attended(now), self._peers.get(node)
        if peer is None:
            return []
        changes = self.on_lost(node, "linked anew", now) if peer.is_open else []
        if life != peer.life:  # it was started: that is news, and no flapping
            peer.life, peer.returns, peer.waits = life, -1, Waits()
        peer.is_open, peer.is_fresh, peer.is_leaving = True, True, False
        peer.beats.clear()
        peer.echoed = peer.said
        peer.asked_at = _UNASKED
        peer.hearing_since = _UNHEARD
        return changes + self._hear(node, peer, at)

    def on_lost(self, node: NodeNumber, why: str, now: Instant) -> list[Change]:
        """The link is gone."""
        at, peer = self._attended(now), self._peers.get(node)
        if peer is None:
            return []
        peer.is_open = False
        return self._set(node, peer, Standing.DOWN, why, at)

    def on_asked(self, node: NodeNumber, now: Instant) -> None:
        """Requests were sent to a peer."""
        peer = self._peers.get(node)
        if peer is not None and peer.asked_at == _UNASKED:
            peer.asked_at = self._attended(now)

    def on_answered(self, node: NodeNumber, now: Instant, *, owes: bool) -> list[Change]:
        """A peer answered requests. `owes`: there are others that it has not answered."""
        at, peer = self._attended(now), self._peers.get(node)
        if peer is None:
            return []
        peer.asked_at = at if owes else _UNASKED
        return self._hear(node, peer, at)

    def begin_beat(self, node: NodeNumber, now: Instant) -> int:
        """Return the number of the heartbeat that leaves now; 0 if nobody waits for its echo."""
        at, peer = self._attended(now), self._peers.get(node)
        if peer is None:
            return 0
        peer.said += 1
        peer.beats.append((peer.said, at))
        return peer.said

    def on_echo(self, node: NodeNumber, number: int, now: Instant) -> list[Change]:
        """A heartbeat's answer came. A number that was not said, or was echoed, proves nothing."""
        at, peer = self._attended(now), self._peers.get(node)
        if peer is None or not peer.echoed < number <= peer.said:
            return []
        peer.echoed = number
        counted = _COUNTED[peer.standing]
        while peer.beats and peer.beats[0][0] <= number:
            wait_us = at - peer.beats.popleft()[1]
            if counted > 0:
                counted -= 1
                peer.waits.add(min(wait_us, 2 * self._failover_us))
        return self._hear(node, peer, at)

    def on_leaving(self, node: NodeNumber, now: Instant) -> list[Change]:
        """A peer says that it is about to stop."""
        at, peer = self._attended(now), self._peers.get(node)
        if peer is None or not peer.is_open:
            return []
        peer.is_leaving = True
        silent = peer.standing is Standing.UP
        return self._set(node, peer, Standing.SILENT, "stopping", at) if silent else []

    # ---- looking -------------------------------------------------------------------------

    def standing(self, node: NodeNumber) -> Standing:
        """Return a peer's standing; of one that is not known, DOWN."""
        peer = self._peers.get(node)
        return Standing.DOWN if peer is None else peer.standing

    def next_look(self) -> Instant:
        """Return when `look` is to be called next."""
        return Instant(self._due_us)

    def look(self, now: Instant) -> Look:
        """Judge all peers. Costs a microsecond or two for each."""
        at, found = self._attended(now), Look([], [], [])
        is_busy = False
        for node, peer in self._peers.items():
            if not peer.is_open:
                continue
            if (
                at - peer.heard_at < self._calm_us
                and peer.asked_at == _UNASKED
                and peer.standing is Standing.UP
            ):  # nearly always
                if at - peer.beat_at >= self._beat_us:
                    peer.beat_at = at
                    found.beats.append(node)
                continue
            if at - peer.heard_at >= self._patience_us:
                found.changes.extend(self._judge(node, peer, at))
            pace_us = self._pace_us(peer, at)
            if at - peer.heard_at >= _REDIAL * self._silence_us:
                peer.is_open = False
                found.redials.append(node)
            elif at - peer.beat_at >= pace_us:
                peer.beat_at = at
                found.beats.append(node)
            is_busy |= pace_us < self._beat_us or peer.asked_at != _UNASKED
        self._due_us = now + (self._busy_us if is_busy else self._idle_us)
        return found

    def check(self) -> None:
        """Assert what always holds."""
        for peer in self._peers.values():
            peer.check()

    # ---- within --------------------------------------------------------------------------

    def _attended(self, now: Instant) -> int:
        """Return the time that this node has been there for, µs: what is late was not."""
        late_us = now - self._due_us - _LATE_US
        if late_us > 0:
            self._away_us += late_us
            self._due_us = now
            if 2 * late_us >= self._failover_us:
                self._spare(now - self._away_us)
        return now - self._away_us

    def _spare(self, at: int) -> None:
        """We were away: what came meanwhile is not read yet. But only once for each silence, or
        a node that is often away would never notice one."""
        for peer in self._peers.values():
            if peer.standing is not Standing.DOWN and not peer.is_spared:
                peer.is_spared = True
                peer.heard_at = at

    def _judge(self, node: NodeNumber, peer: _Peer, at: int) -> list[Change]:
        if peer.standing is Standing.DOWN:
            return []
        silent_us = at - peer.heard_at
        longest_us = peer.waits.longest_us()
        allowed_us = max(self._silence_us, 2 * self._beat_us + longest_us)
        if silent_us >= min(allowed_us, _LONGEST * self._silence_us):
            return self._set(node, peer, Standing.DOWN, "silent", at)
        if peer.standing is Standing.UP and peer.asked_at != _UNASKED:
            owed_at = min(peer.asked_at, peer.beats[0][1] if peer.beats else at)
            owing_us = at - max(peer.heard_at, owed_at)
            learnt_us = min(2 * self._probe_us + longest_us, 2 * self._failover_us)
            doubled_us = min(self._failover_us << peer.alarms, self._silence_us)
            is_early = at - peer.asked_at < self._probe_us
            if not is_early and owing_us >= max(self._failover_us, learnt_us, doubled_us):
                return self._set(node, peer, Standing.SILENT, "owes answers", at)
        return []

    def _pace_us(self, peer: _Peer, at: int) -> int:
        """Return the time between heartbeats: less while an answer would decide something."""
        silent_us = at - peer.heard_at
        if silent_us >= 2 * self._silence_us:
            return self._beat_us
        calm_us = self._beat_us if peer.asked_at == _UNASKED else 0
        if peer.standing is Standing.UP and silent_us < calm_us + self._probe_us:
            return self._beat_us
        # Who was accused in vain may say so twice as often.
        return self._probe_us // 2 if peer.alarms else self._probe_us

    def _hear(self, node: NodeNumber, peer: _Peer, at: int) -> list[Change]:
        silent_us, peer.heard_at = at - peer.heard_at, at
        peer.is_spared = False
        if peer.standing is Standing.UP or not peer.is_open or peer.is_leaving:
            return []
        if silent_us >= _QUIET_US:
            peer.forget()
        if peer.hearing_since == _UNHEARD or silent_us > self._failover_us:
            peer.hearing_since = at
        if at - peer.hearing_since < peer.hearing_needed_us():
            return []
        peer.returns = max(0, peer.returns if peer.is_mended else min(peer.returns + 1, _RETURNS))
        peer.is_fresh = False
        peer.alarms = min(peer.alarms + (peer.standing is Standing.SILENT), _RETURNS)
        return self._set(node, peer, Standing.UP, "heard", at)

    def _set(
        self, node: NodeNumber, peer: _Peer, standing: Standing, why: str, at: int
    ) -> list[Change]:
        was = peer.standing
        if was is standing:
            return []
        if was is Standing.UP:
            peer.was_brief = at - peer.changed_at < _BRIEF_US
            if at - peer.changed_at >= _QUIET_US:
                peer.forget()
        peer.standing, peer.changed_at = standing, at
        peer.hearing_since = _UNHEARD
        return [Change(_event(node, was, standing), why)]


def _event(
    node: NodeNumber, was: Standing, standing: Standing
) -> PeerUp | PeerDown | PeerSilent | PeerHeard:
    if standing is Standing.DOWN:
        return PeerDown(node)
    if standing is Standing.SILENT:
        return PeerSilent(node)
    return PeerUp(node) if was is Standing.DOWN else PeerHeard(node)
