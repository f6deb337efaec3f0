"""The nemesis: carries out a schedule of faults on a cluster, and undoes them.

Laws: each fault is undone when its time is over, and all are when the nemesis ends, whatever ended
it; what takes longer than planned (a node's start) puts off all that follows, so that faults never
meet which were not meant to; faults on one thing that overlap are undone together with the last; a
fault that finds its node in no state to suffer it (a dead one to be paused) is passed over and
told. A node that does not come back is an error, and ends the run.
Tests: tests/unit/client/test_testing_nemesis.py.
Left out: choosing (kvclient/testing/schedule.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from kvclient.testing.files import KitError
from kvclient.testing.schedule import PARTITIONS, Fault
from kvclient.testing.shapes import Flow, flows_between, flows_cut, groups_of

What: TypeAlias = Literal["begun", "ended", "passed over"]


class Sufferer(Protocol):
    """A cluster, as far as it is made to suffer."""

    @property
    def ids(self) -> tuple[str, ...]:
        """All nodes."""

    @property
    def running(self) -> tuple[str, ...]:
        """Those whose processes live."""

    def kill(self, *names: str) -> None:
        """Kill nodes."""

    def start(self, *names: str) -> None:
        """Start nodes; return when they are ready."""

    def pause(self, *names: str) -> None:
        """Halt nodes."""

    def resume(self, *names: str) -> None:
        """Let nodes go on."""

    def wipe(self, *names: str) -> None:
        """Kill nodes and remove their data."""

    def cut_flows(self, flows: Sequence[Flow]) -> None:
        """Cut exactly these."""

    def slow(self, where: str, delay_ms: float) -> None:
        """Delay what goes to and from a node."""

    def slow_disk(self, name: str, delay_ms: float) -> None:
        """Delay a node's syncs."""

    def skew(self, name: str, offset_ms: float) -> None:
        """Set a node's clock off."""


@dataclass(frozen=True, slots=True)
class Event:
    """What has happened to a fault."""

    what: What
    fault: Fault


class Nemesis:
    """Carries out one schedule. Its calls block; `run` makes them on a thread."""

    def __init__(
        self, cluster: Sufferer, faults: Sequence[Fault], on_event: Callable[[Event], None]
    ) -> None:
        """Do nothing yet. `on_event` is called in the event loop of `run`."""
        self._cluster = cluster
        self._faults = sorted(faults, key=lambda fault: fault.at_s)
        self._on_event = on_event
        self._active: list[Fault] = []

    @property
    def active(self) -> tuple[Fault, ...]:
        """What is being suffered now."""
        return tuple(self._active)

    async def run(self) -> None:
        """Carry out the schedule from now on; at the end nothing is suffered any more."""
        loop = asyncio.get_running_loop()
        origin = loop.time()
        try:
            for at_s, is_end, fault in self._moments():
                if is_end and fault not in self._active:
                    continue  # it was passed over, and that was told
                await asyncio.sleep(max(0.0, origin + at_s - loop.time()))
                origin = max(origin, loop.time() - at_s)
                await self._do(self.end if is_end else self.begin, fault)
        finally:
            await asyncio.shield(asyncio.ensure_future(self._undo_all()))

    def begin(self, fault: Fault) -> What:
        """Make the cluster suffer a fault, if it can."""
        (name,) = fault.nodes if len(fault.nodes) == 1 else ("",)
        if fault.kind in ("kill", "pause") and not self._is_up(name):
            return "passed over"
        self._active.append(fault)
        match fault.kind:
            case "kill":
                self._cluster.kill(name)
            case "wipe":
                self._cluster.wipe(name)
            case "pause":
                self._cluster.pause(name)
            case _:
                self._show(fault, fault.amount_ms)
        return "begun"

    def end(self, fault: Fault) -> What:
        """Undo a fault, if it was begun; the last of several on one thing undoes them."""
        if fault not in self._active:
            return "passed over"
        self._active.remove(fault)
        (name,) = fault.nodes if len(fault.nodes) == 1 else ("",)
        same = [each for each in self._active if each.nodes == fault.nodes and is_like(each, fault)]
        match fault.kind:
            case "kill" | "wipe":
                if not same:
                    self._cluster.start(name)
            case "pause":
                if not same and name in self._cluster.running:
                    self._cluster.resume(name)
            case _:
                self._show(fault, same[-1].amount_ms if same else 0.0)
        return "ended"

    async def _undo_all(self) -> None:
        """Undo what is left, all of it, and only then tell what could not be undone."""
        errors: list[KitError] = []
        while self._active:
            try:
                await self._do(self.end, self._active[-1])
            except KitError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _show(self, fault: Fault, amount_ms: float) -> None:
        """Bring about what is now active, of a kind that is a state and not a process."""
        match fault.kind:
            case "slow":
                self._cluster.slow(fault.nodes[0], amount_ms)
            case "slow-disk":
                self._cluster.slow_disk(fault.nodes[0], amount_ms)
            case "skew":
                self._cluster.skew(fault.nodes[0], amount_ms)
            case _:
                ids = self._cluster.ids
                cut = [flow for each in self._active for flow in flows_of(each, ids)]
                self._cluster.cut_flows(list(dict.fromkeys(cut)))

    def _is_up(self, name: str) -> bool:
        halted = any(each.kind == "pause" and each.nodes == (name,) for each in self._active)
        return name in self._cluster.running and not halted

    def _moments(self) -> Iterator[tuple[float, bool, Fault]]:
        begins = [(fault.at_s, False, fault) for fault in self._faults]
        ends = [(fault.end_s, True, fault) for fault in self._faults]
        yield from sorted([*begins, *ends], key=lambda moment: (moment[0], not moment[1]))

    async def _do(self, act: Callable[[Fault], What], fault: Fault) -> None:
        acting = asyncio.ensure_future(asyncio.to_thread(act, fault))
        try:
            await asyncio.shield(acting)
        finally:
            # Also when we are cancelled: nothing may go on behind whoever comes next.
            self._on_event(Event(await acting, fault))


def is_like(one: Fault, other: Fault) -> bool:
    """Tell whether two faults are undone by the same thing."""
    return one.kind == other.kind or {one.kind, other.kind} <= {"kill", "wipe"}


def flows_of(fault: Fault, ids: Sequence[str]) -> list[Flow]:
    """Return what a fault cuts."""
    if fault.kind == "cut":
        source, sink = fault.nodes
        return [(source, sink)]
    if fault.kind == "isolate":
        return [flow for flow in flows_between(ids) if fault.nodes[0] in flow]
    return flows_cut(ids, groups_of(fault.kind, ids)) if fault.kind in PARTITIONS else []
