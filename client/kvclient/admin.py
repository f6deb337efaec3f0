"""What operators ask of a whole cluster: hints kept, and whether it has come to rest.

Decides how often it asks, and when it gives up. Laws: every member is asked, over a connection of
its own; waiting ends by its time-out, and says what was outstanding then; pauses between questions
grow, and nodes are told to hurry once a second at most.
Tests: tests/unit/client/test_admin.py.
Source: design, sections 2.7 and 2.8.
Left out: what the answers amount to (`convergence`).
"""

# ruff: noqa: ASYNC109 -- a time-out on every call is part of the interface (design, section 6)
from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from kvclient import request
from kvclient.convergence import Convergence, HintLedger, ledger_of, outstanding
from kvclient.errors import Reply, Timeout
from kvproto import kv_pb2 as pb

if TYPE_CHECKING:
    from kvclient.aio import AsyncPort
    from kvclient.api import Port
    from kvclient.cluster import Cluster

CONVERGE_TIMEOUT_S = 60.0
ANSWER_S = 2.0
"""How long one node is waited for; it is asked again with the next round."""
LAST_S = 0.1
"""With less than this left nobody is asked any more: nodes would only seem silent."""

Ledgers = dict[str, tuple[HintLedger, ...] | None]
"""For each node what it keeps, by owner; None for one that does not answer."""
Watch = Callable[[Convergence], object]


class Upkeep:
    """The calls of Client that look after a cluster."""

    _port: Port

    def hints(self, *, timeout: float = ANSWER_S) -> Ledgers:
        """Return what each node keeps for others; None for one that does not answer."""
        port = self._port
        port.require_open()
        timeout_s = request.timeout_seconds(timeout, ANSWER_S)
        return port.thread.call(_hints(port.cluster, timeout_s))

    def convergence(self, *, timeout: float = ANSWER_S) -> Convergence:
        """Return what keeps the cluster from rest right now, and have nodes hurry."""
        port = self._port
        port.require_open()
        timeout_s = request.timeout_seconds(timeout, ANSWER_S)
        return port.thread.call(_convergence(port.cluster, timeout_s, is_urgent=True))

    def wait_converged(
        self, timeout: float = CONVERGE_TIMEOUT_S, *, watch: Watch | None = None
    ) -> None:
        """Return once no hint is pending, nothing is unproven and all owners hold the same.

        While clients write, there may be no such moment. `watch` is told what is outstanding, time
        and again, by the client's own thread; it must not call the client.

        Raises: Timeout, saying what was outstanding.
        """
        port = self._port
        port.require_open()
        timeout_s = request.timeout_seconds(timeout, CONVERGE_TIMEOUT_S)
        port.thread.call(_wait(port.cluster, timeout_s, watch))


class AsyncUpkeep:
    """The calls of AsyncClient that look after a cluster."""

    _port: AsyncPort

    async def hints(self, *, timeout: float = ANSWER_S) -> Ledgers:
        """Return what each node keeps for others; None for one that does not answer."""
        timeout_s = request.timeout_seconds(timeout, ANSWER_S)
        return await _hints(await self._port.connected(timeout_s), timeout_s)

    async def convergence(self, *, timeout: float = ANSWER_S) -> Convergence:
        """Return what keeps the cluster from rest right now, and have nodes hurry."""
        timeout_s = request.timeout_seconds(timeout, ANSWER_S)
        cluster = await self._port.connected(timeout_s)
        return await _convergence(cluster, timeout_s, is_urgent=True)

    async def wait_converged(
        self, timeout: float = CONVERGE_TIMEOUT_S, *, watch: Watch | None = None
    ) -> None:
        """Return once no hint is pending, nothing is unproven and all owners hold the same.

        While clients write, there may be no such moment. `watch` is told what is outstanding, time
        and again.

        Raises: Timeout, saying what was outstanding.
        """
        timeout_s = request.timeout_seconds(timeout, CONVERGE_TIMEOUT_S)
        cluster = await self._port.connected(timeout_s)
        await _wait(cluster, timeout_s, watch)


async def _hints(cluster: Cluster, timeout_s: float) -> Ledgers:
    answers = await cluster.ask_members("GetHints", pb.GetHintsRequest(), pb.Hints, timeout_s)
    return {
        node: None if answer is None else tuple(map(ledger_of, answer.ledgers))
        for node, answer in answers.items()
    }


async def _convergence(cluster: Cluster, timeout_s: float, *, is_urgent: bool) -> Convergence:
    asked = pb.GetConvergenceRequest(kick=is_urgent)
    answers = await cluster.ask_members("GetConvergence", asked, pb.Convergence, timeout_s)
    if any(answer is not None and answer.epoch > cluster.epoch for answer in answers.values()):
        await cluster.refresh(timeout_s)
    return outstanding(cluster.topology, answers)


async def _wait(cluster: Cluster, timeout_s: float, watch: Watch | None) -> None:
    bounds, loop = cluster.bounds, asyncio.get_running_loop()
    began = loop.time()
    deadline = began + timeout_s
    pause_s = bounds.converge_first_ms / 1000
    urged_at = float("-inf")
    while True:
        now = loop.time()
        is_urgent = now - urged_at >= bounds.converge_most_ms / 1000
        urged_at = now if is_urgent else urged_at
        answer_s = max(0.001, min(ANSWER_S, deadline - now))
        found = await _convergence(cluster, answer_s, is_urgent=is_urgent)
        if found.is_reached:
            return
        if watch is not None:
            watch(found)
        left_s = deadline - loop.time()
        if left_s < LAST_S:
            raise _too_late(found, timeout_s)
        await asyncio.sleep(min(pause_s, left_s / 2))
        pause_s = min(2 * pause_s, bounds.converge_most_ms / 1000)


def _too_late(found: Convergence, timeout_s: float) -> Timeout:
    silent = tuple(Reply(node, "unreached", timeout_s * 1000) for node in found.silent)
    return Timeout(f"not converged within {timeout_s:g} s: {found}", replies=silent)
