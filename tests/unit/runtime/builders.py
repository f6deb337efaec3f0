"""Short ways to what the runtime's tests need: an edge, a node on a store in memory, a fake post.

Instants are those of tests.unit.core.builders: offsets from NOW. What it leaves out: behaviour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from kvnode.core.bounds import Limits
from kvnode.core.floors import Floors
from kvnode.core.messages import Instant, NodeNumber, PeerMessage, Result, SessionId
from kvnode.core.node import Node
from kvnode.core.topology import Topology
from kvnode.runtime.edge import Edge
from kvnode.runtime.pump import Pump
from kvnode.storage.memory import MemoryEngine
from kvnode.storage.port import Position
from tests.unit.core.builders import CLUSTER_KEY, NOW, topology

ACTOR = 77


def edge(cluster: Topology | None = None, *, now: Instant = NOW, **limits: Any) -> Edge:
    known = cluster or topology()
    return Edge(lambda: known, Limits(**limits), cluster_key=CLUSTER_KEY, now_us=lambda: now)


def node(cluster: Topology | None = None, *, number: int = 1, **limits: Any) -> Node:
    return Node(
        number=number,
        actor=ACTOR,
        topology=cluster or topology(),
        limits=Limits(**limits),
        cluster_key=CLUSTER_KEY,
        floors=Floors(),
    )


class FakePost:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.to_peers: list[tuple[NodeNumber, PeerMessage]] = []
        self.to_clients: list[tuple[SessionId, Result]] = []
        self.answered = asyncio.Event()

    def to_peer(self, node: NodeNumber, messages: Sequence[PeerMessage]) -> None:
        self.to_peers += [(node, message) for message in messages]

    def to_client(self, session: SessionId, results: Sequence[Result]) -> None:
        self.to_clients += [(session, result) for result in results]
        self.answered.set()


class Driven:
    """A node, its store in memory, and a pump that works for it; make it within a loop."""

    def __init__(self, cluster: Topology | None = None, **limits: Any) -> None:
        self.node = node(cluster, **limits)
        self.engine = MemoryEngine()
        self.post = FakePost()
        self.syncs: list[Position] = []
        self.later: list[Position] = []
        self.alarms: list[str] = []
        self.pump = Pump(
            self.node,
            self.engine,
            self.post,
            request_sync=self.syncs.append,
            request_later=self.later.append,
            on_alarm=self.alarms.append,
        )

    def sync(self) -> None:
        """Make everything durable, as the storage thread would."""
        self.pump.on_synced(self.engine.flush())


async def turns() -> None:
    """Let everything run that is due without time passing."""
    for _ in range(20):
        await asyncio.sleep(0)


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test on a loop of its own, for so long and no longer."""

    async def limited() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(limited())
