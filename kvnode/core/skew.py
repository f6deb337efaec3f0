"""Whose clock is wrong: what is news of a peer's clock, and what all of them say of this node's.

`ClockNews` stands beside each link: every heartbeat's answer brings a time, and few are worth a
turn. `Skews` is the node's: a clock that differs by more than `max_skew_ms` from most of the peers
that are up is taken to be wrong, and such a node coordinates nothing.

Laws: what was told and what is so never differ by more than `NEWS_MS`; a peer that is not up has no
say; half of the peers are not most of them; without peers that tell, the clock is trusted.
Tests: tests/unit/core/test_skew.py. Source: design, section 2.2.
"""

from __future__ import annotations

from kvnode.core.messages import NodeNumber, PeerClock

NEWS_MS = 50
"""A peer's clock is told of again when it differs by more than this from what was told last."""


class ClockNews:
    """What was told last of one peer's clock."""

    __slots__ = ("_node", "_told_ms")

    def __init__(self, node: NodeNumber) -> None:
        self._node = node
        self._told_ms: int | None = None

    def on_clock(self, theirs_ms: int, ours_ms: int) -> PeerClock | None:
        """A peer said what time it has: return it if that is news. Both in ms since 1970."""
        ahead_ms, told_ms = theirs_ms - ours_ms, self._told_ms
        if told_ms is not None and abs(ahead_ms - told_ms) <= NEWS_MS:
            return None
        self._told_ms = ahead_ms
        return PeerClock(self._node, ahead_ms)

    def forget(self) -> None:
        """The peer is down, and the node knows nothing of its clock now: the next time is news."""
        self._told_ms = None


class Skews:
    """How far ahead the clocks of peers are, as seen by one node."""

    __slots__ = ("_ahead_ms", "_max_skew_ms", "_up", "is_off")

    def __init__(self, *, max_skew_ms: int) -> None:
        self._max_skew_ms = max_skew_ms
        self._ahead_ms: dict[NodeNumber, int] = {}
        self._up: set[NodeNumber] = set()
        self.is_off = False
        """Whether this node's clock is taken to be wrong."""

    def on_clock(self, node: NodeNumber, ahead_ms: int) -> None:
        """A peer's clock is so far ahead; a peer may tell before it is up."""
        self._ahead_ms[node] = ahead_ms
        self._judge()

    def on_up(self, node: NodeNumber) -> None:
        """A peer has a say."""
        self._up.add(node)
        self._judge()

    def on_down(self, node: NodeNumber) -> None:
        """A peer has none any more."""
        self._up.discard(node)
        self._ahead_ms.pop(node, None)
        self._judge()

    def _judge(self) -> None:
        told = [ahead for node, ahead in self._ahead_ms.items() if node in self._up]
        off = sum(abs(ahead) > self._max_skew_ms for ahead in told)
        self.is_off = 2 * off > len(told)
