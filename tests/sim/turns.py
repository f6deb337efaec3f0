"""What one turn may cost: as much as what came is worth, never as much as what is stored.

What it decides: the bounds of a turn, by what it was told, what waits at its node, and `Limits`.

    9-turns-are-bounded     keys fetched, entries written, messages sent and slices asked for

Laws: nothing here changes what happens; nothing here grows with the number of records.
Source: design, sections 3 (a turn) and 7. Its tests are tests/sim/test_turns.py.
Left out: time; a node that works on nothing is 9-timers-rest (tests/sim/driver.py).
"""

from __future__ import annotations

from collections.abc import Iterable

from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.conversations import LogLosers, PeerAsks, PeerTells
from kvnode.core.messages import ClientOps, Event, PeerReplies, PeerRequests, Scanned
from kvnode.core.node import Turn
from kvnode.core.topology import Topology
from tests.sim.story import Broken

_SLICE_MAX = 512
"""Entries that one scan may ask for, or one answer may list."""
_SCANS = 6
"""Kinds of scans that may begin in one turn, whatever it was told; and one of hints for a node."""
_ENTRIES = 8
"""Entries of all families that belong to one operation; and of trees, to a partition. Floors are of
a partition and a life: a doubt drops all of them."""


def items_of(events: Iterable[Event]) -> int:
    """Return how many requests, answers, stored entries and other news are in some events; each
    loser that is to be logged is one."""
    count = 0
    for event in events:
        match event:
            case PeerRequests() | PeerReplies():
                count += len(event.writes) + len(event.reads) + len(event.forwards)
            case ClientOps():
                count += len(event.gets) + len(event.puts)
            case PeerAsks():
                count += len(event.asks)
                # One conflict may be of as many versions as a record holds: each becomes an entry.
                count += sum(len(ask.losers) for ask in event.asks if type(ask) is LogLosers)
            case PeerTells():
                count += len(event.tells)
            case Scanned():
                count += 1 + len(event.pairs or ())
            case _:
                count += 1
    return count


def check_turn(
    turn: Turn,
    *,
    items: int,
    waiting: int,
    fetched: int,
    limits: Limits,
    topology: Topology,
    lives: int,
) -> None:
    """Check what a turn did. Raises: Broken.

    Args:
        turn: what it decided.
        items: what it was told (`items_of`).
        waiting: operations that were under way: news of a peer may concern all of them.
        fetched: keys that it asked for.
        limits: of the node.
        topology: that it knows.
        lives: that nodes have begun so far, all together.
    """
    nodes, out = len(topology.members), turn.out
    work = items + waiting + 2
    if out.peers or out.held_peers:
        windows = limits.exchange_window + limits.settle_window + limits.hint_window
        sent = sum(map(len, out.peers.values())) + sum(map(len, out.held_peers.values()))
        _hold("messages sent", sent, 2 * nodes * work + windows)
    if out.clients:
        _hold("answers given", sum(map(len, out.clients.values())), work)
    if turn.batch.changes:
        floors = sum(family is Family.FLOORS for family, _, _ in turn.batch.changes)
        entries = len(turn.batch.changes) - floors
        _hold("entries written", entries, _ENTRIES * (work + topology.partitions))
        _hold("floors written", floors, lives * topology.partitions)
    if fetched:
        _hold("keys fetched", fetched, 2 * items * nodes + _SLICE_MAX)
    if out.scans:
        _hold("slices asked for", len(out.scans), items + _SCANS + nodes)
    for scan in out.scans:
        _hold("entries of a slice", scan.limit, _SLICE_MAX)


def _hold(what: str, count: int, bound: int) -> None:
    if count > bound:
        raise Broken("9-turns-are-bounded", f"{count:,} {what} in one turn, the bound is {bound:,}")
