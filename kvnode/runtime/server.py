"""A node put together: store, core, pump, links, services, and how they start and stop.

Tests: tests/unit/runtime/test_server.py, tests/cluster/test_serve.py. Source: design, section 3.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from kvnode.core.bounds import Limits
from kvnode.core.conversations import ASKS, SETTLE_ASKS
from kvnode.core.keys import Partition
from kvnode.core.messages import (
    ClientPut,
    NodeNumber,
    PeerMessage,
    ReplicaRead,
    ReplicaWrite,
    Result,
    SessionId,
)
from kvnode.core.node import Node
from kvnode.runtime.accept import PeerService
from kvnode.runtime.admin import ClusterService
from kvnode.runtime.birth import Birth
from kvnode.runtime.clients import ClientService
from kvnode.runtime.config import ClusterConfig
from kvnode.runtime.edge import Edge
from kvnode.runtime.http import HttpServer
from kvnode.runtime.identity import Identity
from kvnode.runtime.links import Links
from kvnode.runtime.opening import open_node
from kvnode.runtime.peer_codec import PeerCodec
from kvnode.runtime.pulse import Pulse
from kvnode.runtime.pump import Pump, now_us
from kvnode.runtime.settings import HTTP_PORT_OFFSET, ServeError
from kvnode.runtime.wire import server_options
from kvnode.storage.committer import Committer, Flushes
from kvnode.storage.engine import RocksEngine
from kvnode.storage.folder import DataFolder
from kvnode.storage.port import Position
from kvproto import kv_pb2, peer_pb2  # noqa: F401 (peer_pb2: its descriptors, for reflection)

log = logging.getLogger(__name__)

_SERVICES = ("kvnode.v1.KV", "kvnode.v1.Cluster", "kvnode.v1.Peer")
_LINK_WAIT_S = 1.5
"""A starting node is ready once it is linked with all peers, or after this long."""
_DRAIN_POLL_S = 0.01
_GRACE_S = 1.0
"""For unary calls that came just before the node stopped."""
_LAST_WORDS_S = 0.1
"""For what is in the outboxes of streams."""
_REQUESTS = (ReplicaWrite, ReplicaRead, ClientPut, *ASKS, *SETTLE_ASKS)


class Server:
    """One node of a cluster, from its open store to its last sync."""

    def __init__(
        self,
        node: Node,
        identity: Identity,
        engine: RocksEngine,
        folder: DataFolder,
        *,
        limits: Limits,
        birth: Birth,
        listen: str,
        overrides: Mapping[str, str],
    ) -> None:
        self.node = node
        self.identity = identity
        self._engine = engine
        self.disk: Flushes = engine
        """What is asked to sync; a test may make it slow before `run`."""
        self._folder = folder
        self._limits = limits
        self._listen = listen
        self._overrides = overrides
        self._state = "starting"
        self._pulse = Pulse(self._on_away, away_s=limits.silence_ms / 1_000)
        self._alarms = 0
        self._edge = Edge(lambda: node.topology, limits, cluster_key=birth.key, now_us=now_us)

    @classmethod
    def open(
        cls,
        *,
        node_id: str,
        config: ClusterConfig,
        birth: Birth,
        folder: DataFolder,
        listen: str,
        overrides: Mapping[str, str],
        incarnation: int,
        sync_journal: Path | None,
        is_restored: bool = False,
    ) -> Server:
        """Open the store and begin a life. Raises: StorageError."""
        opened = open_node(
            node_id=node_id,
            config=config,
            birth=birth,
            folder=folder,
            incarnation=incarnation,
            sync_journal=sync_journal,
            is_restored=is_restored,
        )
        return cls(
            opened.node,
            opened.identity,
            opened.engine,
            folder,
            limits=config.limits,
            birth=birth,
            listen=listen,
            overrides=overrides,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then drain, sync and leave."""
        loop = asyncio.get_running_loop()
        codec = PeerCodec(self._edge, now_us)
        self._pump = Pump(
            self.node,
            self._engine,
            self,
            request_sync=self._sync_soon,
            request_later=self._sync_later,
            on_alarm=self._on_alarm,
        )
        pump = self._pump

        def on_failure(exc: BaseException) -> None:
            loop.call_soon_threadsafe(self._fence, exc)

        def notify(position: Position) -> None:
            loop.call_soon_threadsafe(pump.on_synced, position)

        self._committer = Committer(
            self.disk, notify, on_failure, periodic_s=self._limits.periodic_sync_ms / 1_000
        )
        self._clients = ClientService(self.node, self._edge, pump, self._limits)
        self._peers = PeerService(
            self.identity, codec, pump, self._limits, overrides=self._overrides
        )
        self.identity.pump = pump
        self.node.upkeep.sweeps.on_proven = self._on_proven
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_watch(pump))
            self._links = Links(
                self.identity,
                codec,
                pump,
                self._limits,
                overrides=self._overrides,
                tasks=tasks,
            )
            self._pulse.start()
            try:
                await self._serve(stop)
            finally:
                self._pulse.stop()
            watch.cancel()

    # ---- the pump's post -----------------------------------------------------------------

    def to_peer(self, node: NodeNumber, messages: list[PeerMessage]) -> None:
        """Send requests on our own stream, replies on the peer's."""
        requests: list[PeerMessage] = [one for one in messages if isinstance(one, _REQUESTS)]
        if len(requests) == len(messages):
            self._links.send(node, messages)
        elif requests:
            self._links.send(node, requests)
            self._peers.reply(node, [one for one in messages if not isinstance(one, _REQUESTS)])
        else:
            self._peers.reply(node, messages)

    def to_client(self, session: SessionId, results: list[Result]) -> None:
        """Answer a client."""
        self._clients.answer(session, results)

    # ---- life ----------------------------------------------------------------------------

    async def _serve(self, stop: asyncio.Event) -> None:
        server = grpc.aio.server(options=server_options(streams=self._limits.client_streams))
        cluster = self._cluster = ClusterService(
            self.node,
            self.identity,
            self._engine,
            self._edge,
            lambda: self.state,
            self._pump.wake,
        )
        server.add_generic_rpc_handlers(
            (self._clients.handler(), self._peers.handler(), cluster.handler())
        )
        servicer = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        reflection.enable_server_reflection((*_SERVICES, HEALTH, reflection.SERVICE_NAME), server)
        await _tell_health(servicer, health_pb2.HealthCheckResponse.NOT_SERVING)
        http = self._open_doors(server)
        await server.start()
        self.identity.follow = lambda: self._links.follow(self.node.topology)
        self.identity.follow()
        log.info(
            "serving node=%s address=%s incarnation=%016x start=%d",
            self.identity.id, self._listen, self.identity.incarnation, self.identity.start_number,
        )  # fmt: skip
        await self._become_ready(servicer, stop)
        await stop.wait()
        await self._drain(servicer)
        await self._hang_up(server)
        http.close()
        self._leave()
        log.info("stopped clean=yes")

    def _open_doors(self, server: grpc.aio.Server) -> HttpServer:
        """Listen on both ports. Raises: ServeError, with the store left clean."""
        http = None
        try:
            http = self._open_http()
            _bind(server, self._listen)
        except ServeError:
            if http is not None:
                http.close()
            self._leave()
            raise
        return http

    async def _hang_up(self, server: grpc.aio.Server) -> None:
        """Take no more calls; end the streams, which would not end by themselves."""
        stopping = asyncio.create_task(server.stop(_GRACE_S))
        await asyncio.sleep(_LAST_WORDS_S)
        self._clients.end_streams()
        self._peers.end_streams()
        self._links.stop()
        await stopping

    def _leave(self) -> None:
        """Make all that was written durable, and say so."""
        self._pump.close()
        self._committer.close()
        self._engine.close()
        self._folder.mark_clean_stop()

    @property
    def state(self) -> str:
        """One of starting, up, unproven, stopping."""
        if self._state == "up" and not self.node.replica.is_proven:
            return "unproven"
        return self._state

    async def _become_ready(self, servicer: health.HealthServicer, stop: asyncio.Event) -> None:
        deadline = time.monotonic() + _LINK_WAIT_S
        while not stop.is_set() and time.monotonic() < deadline:
            if all(peer.is_up for peer in self._links.peers.values()):
                break
            await asyncio.sleep(_DRAIN_POLL_S)
        self._state = "up"
        await _tell_health(servicer, health_pb2.HealthCheckResponse.SERVING)
        log.info("ready peers_up=%d", sum(peer.is_up for peer in self._links.peers.values()))

    async def _drain(self, servicer: health.HealthServicer) -> None:
        """Refuse what is new, finish what is in flight, for at most `drain_ms`."""
        self._state = "stopping"
        log.info("stopping in_flight=%d", self.node.coordinator.in_flight)
        await servicer.enter_graceful_shutdown()
        self._clients.drain()
        self._peers.drain()
        deadline = time.monotonic() + self._limits.drain_ms / 1_000
        while time.monotonic() < deadline:
            coordinator = self.node.coordinator
            if not coordinator.in_flight and self._pump.is_idle and self._clients.is_idle:
                break
            await asyncio.sleep(_DRAIN_POLL_S)

    def _on_away(self, seconds: float) -> None:
        """What waits in the streams is of unknown age: have it said again."""
        log.warning("was_away ms=%d", 1_000 * seconds)
        self._clients.end_streams()
        self._peers.end_streams()

    def _open_http(self) -> HttpServer:
        host, _, text = self._listen.rpartition(":")
        port = int(text) + HTTP_PORT_OFFSET
        try:
            return HttpServer(
                host.strip("[]"),
                port,
                figures=self._figures,
                is_live=lambda: self._pulse.is_alive,
                is_ready=lambda: self._state == "up" and self._pulse.is_alive,
            )
        except OSError as exc:
            what = f"{host}:{port} (metrics and health) cannot be listened on"
            raise ServeError(f"{what}: {exc.strerror}") from exc

    def _figures(self) -> Iterable[tuple[str, str, str, float]]:
        node, pump = self.node, self._pump
        yield "gauge", "up", "1 while the node takes requests.", float(self._state == "up")
        yield "gauge", "proven", "1 if this node's reads count.", float(node.replica.is_proven)
        yield "gauge", "epoch", "Epoch of the topology in force.", node.topology.epoch
        yield "gauge", "peers_up", "Peers that are linked.", len(node.coordinator.reachable)
        silent = len(node.coordinator.suspects)
        yield "gauge", "peers_silent", "Linked peers that are gone around.", silent
        yield "gauge", "operations_in_flight", "Coordinated here.", node.coordinator.in_flight
        yield "counter", "operations", "Clients' operations taken.", self._clients.operations
        gate = self._clients.gate
        yield "gauge", "operations_waiting", "Clients' operations that wait.", gate.waiting
        yield "counter", "operations_refused", "Clients' operations refused by load.", gate.refused
        yield "counter", "hedges", "Extra requests for late owners.", node.coordinator.hedges
        yield "counter", "turns", "Turns of the core.", pump.turns
        yield "counter", "events", "Events that turns took.", pump.events
        yield "counter", "writes", "Write batches given to the store.", self._engine.written
        yield "counter", "alarms", "Lines of the log that someone should read.", self._alarms
        yield "gauge", "records", "Records held (an estimate).", self._engine.approximate_count()
        yield "gauge", "store_bytes", "Bytes on disk.", self._engine.size_bytes()
        yield from self._cluster.figures()

    # The committer needs the pump and the pump the committer: these two close the circle.

    def _sync_soon(self, position: Position) -> None:
        self._committer.request(position)

    def _sync_later(self, position: Position) -> None:
        self._committer.request_later(position)

    def _on_alarm(self, text: str) -> None:
        self._alarms += 1
        log.error("alarm %s", text)

    def _on_proven(self, _: Partition) -> None:
        if self.node.replica.is_proven:
            log.info("partitions_proven")

    def _fence(self, exc: BaseException) -> None:
        self._pump.fail(exc)


async def _watch(pump: Pump) -> None:
    """A crash of the pump or of the storage thread ends the node."""
    await pump.failed


async def _tell_health(servicer: health.HealthServicer, status: Any) -> None:
    for name in ("", *_SERVICES):
        await servicer.set(name, status)


def _bind(server: grpc.aio.Server, address: str) -> None:
    try:
        bound = server.add_insecure_port(address)
    except RuntimeError as exc:
        raise ServeError(f"{address} cannot be listened on: is the port in use?") from exc
    if bound == 0:
        raise ServeError(f"{address} cannot be listened on: is the port in use?")
