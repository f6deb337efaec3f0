"""One client's connection to a cluster: discovery, one stream for each node, one timer.

Carries out what the engine decides, in one event loop. Laws: `connect` answers within its time-out,
naming what was tried; a newer topology is followed, an older one ignored; `close` leaves nothing
behind.
Tests: tests/unit/client/test_api.py and test_aio.py.
Source: design, sections 2.9 and 6.
Left out: threads (`_thread`) and what users touch (`api`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from random import Random
from typing import Any, TypeAlias, TypeVar

from grpc import aio

from kvclient import _thread, codec
from kvclient.bounds import BOUNDS, Bounds
from kvclient.conflicts import merged_conflicts
from kvclient.engine import Engine
from kvclient.errors import Reply, Unavailable
from kvclient.operation import Lane, LaneState, Operation
from kvclient.results import Conflict, Status
from kvclient.routing import Topology
from kvclient.session import Session
from kvclient.stream import GET_STATUS, NodeStream, open_channel
from kvproto import kv_pb2 as pb

CLUSTER_SERVICE = "/kvnode.v1.Cluster"
GET_TOPOLOGY = f"{CLUSTER_SERVICE}/GetTopology"
LIST_CONFLICTS = f"{CLUSTER_SERVICE}/ListConflicts"
CONFLICTS_A_PAGE = 500
REDISCOVER_S = 0.5

log = logging.getLogger("kvclient")
T = TypeVar("T")

Seat: TypeAlias = "tuple[tuple[pb.Topology, pb.Status], str, aio.Channel]"
"""What a seed answered, its address, and the channel over which it did."""


class Cluster:
    """The engine, its streams and its timer, in the running event loop."""

    def __init__(
        self, seeds: tuple[str, ...], *, session: Session | None, bounds: Bounds = BOUNDS
    ) -> None:
        _thread.use()
        self.seeds = seeds
        self.bounds = bounds
        self._loop = asyncio.get_running_loop()
        self._streams: dict[int, NodeStream] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rediscovery: asyncio.TimerHandle | None = None
        self.is_closed = False
        self.engine = Engine(
            session=session,
            rng=Random(),
            random_bytes=os.urandom,
            alarm=self._set_alarm,
            suspect=self._on_suspected,
            bounds=bounds,
        )

    @property
    def topology(self) -> Topology:
        """The topology that requests are routed by."""
        topology = self.engine.router.topology
        assert topology is not None, "used before it was connected"
        return topology

    @property
    def epoch(self) -> int:
        """The topology's epoch; 0 while there is none."""
        topology = self.engine.router.topology
        return topology.epoch if topology else 0

    # ---- connecting ----

    async def connect(self, timeout_s: float) -> None:
        """Learn the topology and the time from the first seed that answers.

        Raises: Unavailable, saying what was tried; InvalidRequest if the session is another
        cluster's.
        """
        answer, address, channel = await self._ask_seeds(self.seeds, timeout_s)
        topology, status = answer
        self.engine.clock.observe(status.hlc, self._loop.time())
        try:
            self._install(codec.topology_of(topology), {address: channel})
        except BaseException:
            await channel.close()
            raise
        if channel not in (stream.channel for stream in self._streams.values()):
            await channel.close()

    async def _ask_seeds(self, addresses: Iterable[str], timeout_s: float) -> Seat:
        began = self._loop.time()
        replies: list[Reply] = []
        asked = _Race(self._loop)
        waiting = list(addresses)
        try:
            while True:
                left_s = timeout_s - (self._loop.time() - began)
                if waiting and left_s > 0:
                    address = waiting.pop(0)
                    asked.add(address, self._ask_seed(address, left_s))
                elif not asked.tasks or left_s <= 0:
                    raise _nobody(asked, replies, timeout_s)
                pause_s = self.bounds.seed_stagger_ms / 1000 if waiting else left_s
                winner: Seat | None = await asked.first(pause_s, replies, began)
                if winner is not None:
                    return winner
        finally:
            await asked.close()

    async def _ask_seed(self, address: str, timeout_s: float) -> Seat:
        channel = open_channel(address, self.bounds)
        try:
            answers = await asyncio.gather(
                _ask(channel, GET_TOPOLOGY, pb.GetTopologyRequest(), pb.Topology, timeout_s),
                _ask(channel, GET_STATUS, pb.GetStatusRequest(), pb.Status, timeout_s),
            )
        except BaseException:
            await channel.close()
            raise
        return answers, address, channel

    def on_topology(self, message: pb.Topology) -> None:
        """Follow a topology that a node sent, if it is newer and makes sense."""
        if message.epoch <= self.epoch or self.is_closed:
            return
        try:
            topology = codec.topology_of(message)
        except ValueError as error:
            log.warning("topology_refused", extra={"epoch": message.epoch, "reason": str(error)})
            return
        if topology.cluster_id != self.topology.cluster_id:
            log.warning("topology_refused", extra={"reason": "of another cluster"})
            return
        self._install(topology, {})

    def _install(self, topology: Topology, channels: dict[str, aio.Channel]) -> None:
        if (session := self.engine.session) is not None:
            session.bind(topology.cluster_id, topology.partition_bits)
        old, self._streams = self._streams, {}
        for member in topology.members:
            stream = old.get(member.number)
            if stream is not None and stream.lane.address == member.address:
                self._streams[member.number] = old.pop(member.number)
                continue
            self._streams[member.number] = NodeStream(
                self,
                member.id,
                number=member.number,
                address=member.address,
                bounds=self.bounds,
                channel=channels.get(member.address),
            )
        lanes = {number: stream.lane for number, stream in self._streams.items()}
        self.engine.lanes = list(lanes.values())
        self.engine.router.install(topology, lanes)
        for stream in self._streams.values():
            if stream.lane.address in channels:
                stream.dial()
        for stream in old.values():
            self._spawn(self._retire(stream))

    async def _retire(self, stream: NodeStream) -> None:
        """A node that left, or moved: what it owes is asked elsewhere."""
        self.engine.on_broken(stream.lane, "left the cluster", self._loop.time())
        await stream.close()

    # ---- operations ----

    def bind(self, session: Session) -> None:
        """Tie a session to this cluster. Raises: InvalidRequest if it came from another one."""
        session.bind(self.topology.cluster_id, self.topology.partition_bits)

    def submit(self, operation: Operation) -> None:
        """Begin one operation."""
        self.engine.submit(operation, self._loop.time())
        if self._rediscovery is None:
            self._plan_rediscovery()

    def submit_all(self, operations: Iterable[Operation]) -> None:
        """Begin several operations at one instant."""
        now = self._loop.time()
        for operation in operations:
            self.engine.submit(operation, now)
        if self._rediscovery is None:
            self._plan_rediscovery()

    def _plan_rediscovery(self) -> None:
        self._rediscovery = self._loop.call_later(REDISCOVER_S, self._rediscover_if_lost)

    def _rediscover_if_lost(self) -> None:
        """Every known node is down and somebody waits: they may all have moved."""
        self._rediscovery = None
        if not self.engine.pending or self.is_closed:
            return
        if all(lane.state is LaneState.DOWN for lane in self.engine.lanes):
            self._spawn(self._rediscover())
        else:
            self._plan_rediscovery()

    async def _rediscover(self) -> None:
        with suppress(Unavailable):  # the operations' own deadlines speak for themselves
            (topology, _), _, channel = await self._ask_seeds(self.seeds, REDISCOVER_S * 4)
            self.on_topology(topology)
            await channel.close()
        if not self.is_closed and self._rediscovery is None:
            self._plan_rediscovery()

    # ---- questions about the cluster ----

    async def status(self, timeout_s: float) -> dict[str, Status | None]:
        """Return what each node says about itself; None for one that does not answer."""
        asked = pb.GetStatusRequest()
        answers = await self.ask_members("GetStatus", asked, pb.Status, timeout_s)
        return {
            node: None if said is None else codec.status_of(said) for node, said in answers.items()
        }

    async def ask_members(
        self, method: str, request: Any, answer: type[T], timeout_s: float
    ) -> dict[str, T | None]:
        """Ask every member at once; None for one that does not answer."""
        members, name = self.topology.members, f"{CLUSTER_SERVICE}/{method}"
        asked = (self._ask_once(each.address, name, request, answer, timeout_s) for each in members)
        answers = await asyncio.gather(*asked)
        return {member.id: said for member, said in zip(members, answers, strict=True)}

    async def refresh(self, timeout_s: float) -> None:
        """Follow the newest topology that a member knows."""
        asked = pb.GetTopologyRequest()
        answers = await self.ask_members("GetTopology", asked, pb.Topology, timeout_s)
        known = [answer for answer in answers.values() if answer is not None]
        self.on_topology(max(known, key=lambda each: each.epoch, default=pb.Topology()))

    async def conflicts(self, keyspace: str, state: str, timeout_s: float) -> list[Conflict]:
        """Return the conflicts of all nodes that answer: the open ones, then the settled ones.

        Raises: Unavailable if none answers.
        """
        deadline = self._loop.time() + timeout_s
        members = self.topology.members
        asked = pb.ListConflictsRequest(keyspace=keyspace, state=state, limit=CONFLICTS_A_PAGE)
        pages = (self._conflicts_of(member.address, asked, deadline) for member in members)
        answers = await asyncio.gather(*pages)
        if all(answer is None for answer in answers):
            raise Unavailable(f"none of {len(members)} nodes answered in {timeout_s:g} s")
        return merged_conflicts(answer or [] for answer in answers)

    async def _conflicts_of(
        self, address: str, asked: pb.ListConflictsRequest, deadline: float
    ) -> list[pb.Conflict] | None:
        found: list[pb.Conflict] = []
        request = pb.ListConflictsRequest()
        request.CopyFrom(asked)
        while len(found) < self.bounds.conflicts:
            left_s = max(0.001, deadline - self._loop.time())
            page = await self._ask_once(
                address, LIST_CONFLICTS, request, pb.ListConflictsResponse, left_s
            )
            if page is None:
                return found or None
            found += page.conflicts
            if not page.next:
                break
            request.after = page.next
        return found

    async def _ask_once(
        self, address: str, method: str, request: Any, answer: type[T], timeout_s: float
    ) -> T | None:
        """Ask over a connection of its own, so that a stuck stream does not matter."""
        channel = open_channel(address, self.bounds)
        try:
            return await _ask(channel, method, request, answer, timeout_s)
        except aio.AioRpcError:
            return None
        finally:
            await channel.close()

    # ---- time, tasks, the end ----

    async def close(self) -> None:
        """Finish what waits, end all streams. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        self.engine.close()
        for timer in (self._timer, self._rediscovery):
            if timer is not None:
                timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        streams = self._streams.values()
        await asyncio.gather(*(stream.close() for stream in streams), return_exceptions=True)

    def _set_alarm(self, when: float) -> None:
        if self.is_closed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_alarm)

    def _on_alarm(self) -> None:
        self._timer = None
        self.engine.on_alarm(self._loop.time())

    def _on_suspected(self, lane: Lane) -> None:
        stream = self._streams.get(lane.number)
        if stream is not None and stream.lane is lane:
            stream.suspect()

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Race:
    """Seeds that are being asked; the first to answer wins."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.tasks: dict[asyncio.Task[Any], str] = {}
        self._loop = loop

    def add(self, address: str, question: Any) -> None:
        self.tasks[self._loop.create_task(question)] = address

    async def first(self, pause_s: float, replies: list[Reply], began: float) -> Any:
        """Return the winner; None when one failed or the pause is over."""
        done, _ = await asyncio.wait(
            self.tasks, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED
        )
        winners = [task for task in done if task.exception() is None]
        if winners:
            del self.tasks[winners[0]]
            return winners[0].result()
        for task in done:
            after_ms = round((self._loop.time() - began) * 1000, 1)
            answer = f"unreached: {_reason(task.exception())}"
            replies.append(Reply(self.tasks.pop(task), answer, after_ms))
        return None

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        results = await asyncio.gather(*self.tasks, return_exceptions=True)
        for result in results:
            if not isinstance(result, BaseException):
                await result[2].close()


def _nobody(asked: _Race, replies: list[Reply], timeout_s: float) -> Unavailable:
    silent = [Reply(address, "pending", timeout_s * 1000) for address in asked.tasks.values()]
    every = (*replies, *silent)
    tried = "; ".join(f"{reply.node}: {reply.answer}" for reply in every)
    return Unavailable(f"no node of the cluster could be reached: {tried}", replies=every)


def _reason(error: BaseException | None) -> str:
    if isinstance(error, aio.AioRpcError):
        return _without_noise(error.details() or error.code().name)
    return str(error)


def _without_noise(details: str) -> str:
    """GRPC says everything twice, and where in its own code; keep the last part."""
    return details.rpartition("; last error: ")[2].rpartition("UNKNOWN: ")[2]


async def _ask(
    channel: aio.Channel, method: str, request: Any, answer: Callable[..., T], timeout_s: float
) -> T:
    call: Any = channel.unary_unary(
        method,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer.FromString,  # type: ignore[attr-defined]
    )
    result: T = await call(request, timeout=timeout_s)
    return result
