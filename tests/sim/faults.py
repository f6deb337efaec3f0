"""What can go wrong in a simulated cluster: each kind of fault, how it begins and how it ends.

What it decides: what a fault of a plan does to the world, and (the atlas) whether it may do it now.
Laws: no fault may take away the last sound copy of a record, unless the plan says so; one that ends
takes back what it did and no more; what a fault draws comes from a stream of its own name.
Its tests are tests/sim/test_plans.py. Left out: when faults come (tests/sim/generate.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from kvnode.core.messages import NodeNumber
from tests.sim.cluster import Cluster

End = Callable[[], None]
Begin = Callable[[Cluster, dict[str, Any], random.Random], End | None]


def begin(world: Cluster, kind: str, args: dict[str, Any], chance: random.Random) -> End | None:
    """Begin a fault; return what ends it."""
    return KINDS[kind](world, args, chance)


def _shake(world: Cluster, args: dict[str, Any], chance: random.Random) -> End:
    """Links lose and double messages: all, or those from or to some nodes."""
    links = [link for pair, link in world.network.links.items() if _concerns(pair, args)]
    before = [(link.drops, link.duplicates, link.delay_us) for link in links]
    for link in links:
        link.drops = args.get("drops", link.drops)
        link.duplicates = args.get("duplicates", link.duplicates)
        link.delay_us = tuple(args.get("delay_us", link.delay_us))

    def end() -> None:
        for link, (drops, duplicates, delay_us) in zip(links, before, strict=True):
            link.drops, link.duplicates, link.delay_us = drops, duplicates, delay_us

    return end


def _concerns(pair: tuple[int, int], args: dict[str, Any]) -> bool:
    nodes = args.get("nodes")
    return nodes is None or pair[0] in nodes or pair[1] in nodes


def _cut(world: Cluster, args: dict[str, Any], chance: random.Random) -> End:
    """Links are cut: `pairs` of nodes, both ways or from the first to the second."""
    pairs = [tuple(pair) for pair in args["pairs"]]
    for a, b in pairs:
        world.cut(a, b, one_way=args.get("one_way", False))

    def end() -> None:
        for a, b in pairs:
            world.mend(a, b)

    return end


def _crash(world: Cluster, args: dict[str, Any], chance: random.Random) -> End:
    """Nodes lose power, together."""
    nodes: list[NodeNumber] = args["nodes"]
    for node in nodes:
        if world.hosts[node].life is not None:
            world.hosts[node].kill()
    return lambda: _start(world, nodes)


def _start(world: Cluster, nodes: list[NodeNumber]) -> None:
    for node in nodes:
        if world.hosts[node].life is None:
            world.hosts[node].start()


def _wipe(world: Cluster, args: dict[str, Any], chance: random.Random) -> None:
    """A node loses its disk and begins anew."""
    host = world.hosts[args["node"]]
    if not may_damage(world):
        return
    if host.life is not None:
        host.kill()
    host.wipe()
    host.start()


def _clock(world: Cluster, args: dict[str, Any], chance: random.Random) -> End:
    """A node's clock is wrong."""
    host = world.hosts[args["node"]]
    host.set_clock(args["ahead_ms"])
    return lambda: host.set_clock(0)


def may_damage(world: Cluster) -> bool:
    """The atlas: a copy may go only while every other one is there, proven and equal."""
    lives = [host.life for host in world.hosts.values()]
    hints = sum(life.hints.pending for life in lives if life is not None)
    return world.are_owners_equal() and not hints


KINDS: dict[str, Begin] = {
    "shake": _shake,
    "cut": _cut,
    "crash": _crash,
    "wipe": _wipe,
    "clock": _clock,
}
