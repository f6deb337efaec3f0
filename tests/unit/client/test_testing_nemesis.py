"""The laws of kvclient.testing.nemesis: on a cluster that only notes what it suffers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from kvclient.testing.files import KitError
from kvclient.testing.nemesis import Event, Nemesis
from kvclient.testing.schedule import Fault
from kvclient.testing.shapes import Flow


class Sufferer:
    """Three nodes that are not there."""

    ids = ("n1", "n2", "n3")

    def __init__(self, *, is_broken: bool = False) -> None:
        self.down: set[str] = set()
        self.halted: set[str] = set()
        self.flows: list[Flow] = []
        self.amounts: dict[tuple[str, str], float] = {}
        self.wiped: list[str] = []
        self.is_broken = is_broken

    @property
    def running(self) -> tuple[str, ...]:
        return tuple(name for name in self.ids if name not in self.down)

    def is_well(self) -> bool:
        return not (self.down or self.halted or self.flows or any(self.amounts.values()))

    def kill(self, *names: str) -> None:
        self.down |= {*names}

    def start(self, *names: str) -> None:
        assert {*names} <= self.down
        if self.is_broken:
            raise KitError("it does not come back")
        self.down -= {*names}
        self.halted -= {*names}

    def pause(self, *names: str) -> None:
        self.halted |= {*names}

    def resume(self, *names: str) -> None:
        self.halted -= {*names}

    def wipe(self, *names: str) -> None:
        self.wiped += names
        self.down |= {*names}

    def cut_flows(self, flows: Sequence[Flow]) -> None:
        self.flows = list(flows)

    def slow(self, where: str, delay_ms: float) -> None:
        self.amounts["slow", where] = delay_ms

    def slow_disk(self, name: str, delay_ms: float) -> None:
        self.amounts["slow-disk", name] = delay_ms

    def skew(self, name: str, offset_ms: float) -> None:
        self.amounts["skew", name] = offset_ms


def fault(kind: str, *nodes: str, at: float = 0.0, lasts: float = 5.0) -> Fault:
    return Fault(at_s=at, kind=kind, nodes=nodes, for_s=lasts, amount_ms=70)


ALL = [
    fault("kill", "n1"),
    fault("wipe", "n1"),
    fault("pause", "n2"),
    fault("isolate", "n3"),
    fault("cut", "n1", "n3"),
    fault("halves"),
    fault("slow", "n2"),
    fault("slow-disk", "n2"),
    fault("skew", "n2"),
]


def nemesis(cluster: Sufferer, *faults: Fault) -> Nemesis:
    return Nemesis(cluster, faults, lambda event: None)


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.kind)
def test_a_fault_is_suffered_and_undone(each: Fault) -> None:
    cluster = Sufferer()
    acting = nemesis(cluster, each)
    assert acting.begin(each) == "begun"
    assert not cluster.is_well()
    assert acting.active == (each,)
    assert acting.end(each) == "ended"
    assert cluster.is_well()
    assert acting.end(each) == "passed over"


def test_cuts_that_overlap_are_all_cut_and_one_end_leaves_the_others() -> None:
    cluster = Sufferer()
    one, other = fault("cut", "n1", "n2"), fault("isolate", "n2")
    acting = nemesis(cluster, one, other)
    acting.begin(one)
    acting.begin(other)
    assert len(cluster.flows) == len({*cluster.flows}) == 4
    acting.end(other)
    assert cluster.flows == [("n1", "n2")]


def test_a_node_that_is_dead_twice_comes_back_once_both_are_over() -> None:
    cluster = Sufferer()
    kill, wipe = fault("kill", "n1"), fault("wipe", "n1", lasts=6)
    acting = nemesis(cluster, kill, wipe)
    acting.begin(kill)
    acting.begin(wipe)
    acting.end(kill)
    assert cluster.down == {"n1"}
    acting.end(wipe)
    assert cluster.is_well()


def test_the_last_of_two_amounts_is_suffered_until_both_are_over() -> None:
    cluster = Sufferer()
    one, other = fault("slow", "n1"), fault("slow", "n1", lasts=6)
    acting = nemesis(cluster, one, other)
    acting.begin(one)
    acting.begin(other)
    acting.end(one)
    assert cluster.amounts["slow", "n1"] == 70
    acting.end(other)
    assert cluster.is_well()


@pytest.mark.parametrize("kind", ["kill", "pause"])
@pytest.mark.parametrize("before", ["kill", "pause"])
def test_what_cannot_be_suffered_is_passed_over(kind: str, before: str) -> None:
    cluster = Sufferer()
    first, second = fault(before, "n1"), fault(kind, "n1", lasts=6)
    acting = nemesis(cluster, first, second)
    acting.begin(first)
    assert acting.begin(second) == "passed over"
    assert acting.end(second) == "passed over"
    acting.end(first)
    assert cluster.is_well()


def test_a_schedule_is_carried_out_in_order() -> None:
    told: list[str] = []

    def note(event: Event) -> None:
        told.append(f"{event.what} {event.fault}")

    cluster = Sufferer()
    faults = [fault("kill", "n1", at=0.02, lasts=0.01), fault("halves", at=0.0, lasts=0.01)]
    asyncio.run(Nemesis(cluster, faults, note).run())
    assert told == ["begun halves", "ended halves", "begun kill n1", "ended kill n1"]
    assert cluster.is_well()


def test_what_is_passed_over_is_told_once() -> None:
    told: list[str] = []
    faults = [fault("kill", "n1", lasts=0.03), fault("pause", "n1", at=0.01, lasts=0.01)]
    acting = Nemesis(Sufferer(), faults, lambda event: told.append(event.what))
    asyncio.run(acting.run())
    assert told == ["begun", "passed over", "ended"]


def test_what_takes_long_puts_off_what_follows() -> None:
    class Slow(Sufferer):
        def start(self, *names: str) -> None:
            threading.Event().wait(0.05)
            super().start(*names)

    together: list[int] = []
    faults = [fault("kill", name, at=at, lasts=0.01) for name, at in (("n1", 0.0), ("n2", 0.02))]
    acting = Nemesis(Slow(), faults, lambda event: together.append(len(acting.active)))
    asyncio.run(acting.run())
    assert together == [1, 0, 1, 0]


def test_a_run_that_is_cut_short_undoes_what_it_has_done() -> None:
    async def cut_short(cluster: Sufferer) -> None:
        begun = asyncio.Event()
        faults = [fault("kill", "n1", lasts=600), fault("skew", "n2", lasts=600)]

        def note(event: Event) -> None:
            if len(acting.active) == 2:
                begun.set()

        acting = Nemesis(cluster, faults, note)
        running = asyncio.create_task(acting.run())
        await begun.wait()
        assert not cluster.is_well()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    cluster = Sufferer()
    asyncio.run(cut_short(cluster))
    assert cluster.is_well()


def test_what_is_under_way_when_a_run_is_cut_short_is_done_before_it_ends() -> None:
    class Slow(Sufferer):
        def start(self, *names: str) -> None:
            starting.set()
            gate.wait(10)
            super().start(*names)

    starting, gate, cluster = threading.Event(), threading.Event(), Slow()

    async def cut_short() -> None:
        acting = nemesis(cluster, fault("kill", "n1", lasts=0.01))
        running = asyncio.create_task(acting.run())
        await asyncio.to_thread(starting.wait, 10)
        running.cancel()
        await asyncio.sleep(0)
        assert not running.done()
        gate.set()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert cluster.is_well()

    asyncio.run(cut_short())


def test_a_node_that_does_not_come_back_is_an_error_and_the_rest_is_undone() -> None:
    cluster = Sufferer(is_broken=True)
    faults = [fault("skew", "n2", lasts=600), fault("kill", "n1", lasts=0.01)]
    with pytest.raises(KitError, match="come back"):
        asyncio.run(nemesis(cluster, *faults).run())
    assert cluster.amounts == {("skew", "n2"): 0.0}
