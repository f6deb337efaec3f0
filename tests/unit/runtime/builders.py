"""Short ways to what the runtime's tests need: an edge, a node on a store in memory, a fake post.

Instants are those of tests.unit.core.builders: offsets from NOW. What it leaves out: behaviour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from kvnode.core.bounds import Limits
from kvnode.core.floors import Floors
from kvnode.core.hints import Hints
from kvnode.core.messages import Instant, NodeNumber, PeerMessage, Result, SessionId
from kvnode.core.node import Node
from kvnode.core.topology import NodeId, Topology
from kvnode.runtime.accept import PeerService
from kvnode.runtime.clients import ClientService
from kvnode.runtime.edge import Edge
from kvnode.runtime.identity import Identity
from kvnode.runtime.peer_codec import PeerCodec
from kvnode.runtime.pump import Pump, now_us
from kvnode.runtime.wire import server_options
from kvnode.storage.memory import MemoryEngine
from kvnode.storage.port import Position
from tests.support.nodes import free_base
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
        hints=Hints(bytes_max=1 << 20),
    )


class FakePost:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.to_peers: list[tuple[NodeNumber, PeerMessage]] = []
        self.to_clients: list[tuple[SessionId, Result]] = []
        self.answered = asyncio.Event()
        self.services: tuple[ClientService, PeerService] | None = None
        """Where to pass on what is sent; None: nowhere."""

    def to_peer(self, node: NodeNumber, messages: list[PeerMessage]) -> None:
        self.to_peers += [(node, message) for message in messages]
        if self.services is not None:
            self.services[1].reply(node, messages)

    def to_client(self, session: SessionId, results: list[Result]) -> None:
        self.to_clients += [(session, result) for result in results]
        self.answered.set()
        if self.services is not None:
            self.services[0].answer(session, results)


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


class Site(Driven):
    """A driven node with a gRPC server before it; `async with` starts and stops that."""

    def __init__(self, cluster: Topology | None = None, **limits: Any) -> None:
        super().__init__(cluster, **limits)
        self.limits = Limits(**limits)
        self.edge = edge(self.node.topology, now=now_us(), **limits)
        self.edge._now_us = now_us
        self.identity = Identity(self.node, NodeId("n1"), self.engine, ACTOR)
        self.identity.begin_life()
        self.identity.pump = self.pump
        self.codec = PeerCodec(self.edge, now_us)
        self.clients = ClientService(self.node, self.edge, self.pump, self.limits)
        self.peers = PeerService(self.identity, self.codec, self.pump, self.limits)
        self.post.services = (self.clients, self.peers)
        self.port = free_base(1)
        self.server = grpc.aio.server(options=server_options(streams=64))
        self.server.add_generic_rpc_handlers((self.clients.handler(), self.peers.handler()))
        self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.channels: list[grpc.aio.Channel] = []

    async def __aenter__(self) -> Self:
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for channel in self.channels:
            await channel.close()
        await self.server.stop(None)
        self.pump.close()

    def channel(self) -> grpc.aio.Channel:
        """Return a new channel to the node, over a connection of its own."""
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{self.port}", options=options))
        return self.channels[-1]

    def open(self, method: str) -> Talk:
        """Open a stream over a new connection."""
        opened: Any = self.channel().stream_stream(f"/kvnode.v1.{method}")
        return Talk(opened())


class Talk:
    """One stream, as a client or a peer sees it: bare frames."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def say(self, frame: Message | bytes) -> None:
        await self.call.write(frame if isinstance(frame, bytes) else frame.SerializeToString())

    async def hear(self) -> bytes:
        data = await self.call.read()
        assert isinstance(data, bytes), await self.call.code()
        return data

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """Read until the node ends the stream; return how."""
        return await self.call.code(), await self.call.details() or ""
