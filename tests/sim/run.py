"""Run a plan to its checked end, and say what came of it.

What it decides: the phases. *Safety*: operations and faults. *Liveness*: a core of nodes is well
and the others stay away; what the core can serve must succeed, and the core becomes equal among
itself. *Healing*: everything is well; hints leave, owners become equal, tombstones go, and every
invariant is checked in full.
Laws: a run changes nothing but its own world; the same plan gives the same verdict and digest.
Its tests are tests/sim/test_run.py. Left out: what is checked (tests/sim/invariants.py).
"""

from __future__ import annotations

import gc
import logging
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from kvnode.core.bounds import Limits
from kvnode.core.keys import encode_key
from tests.sim import knobs
from tests.sim.client import Client
from tests.sim.cluster import Cluster
from tests.sim.faults import Faults
from tests.sim.healing import LATEST_US, end_well, told_differences, wait_until
from tests.sim.history import OK
from tests.sim.invariants import check_bounds, check_core, check_phase
from tests.sim.plan import Fault, Operation, Plan
from tests.sim.story import Broken
from tests.sim.workloads import Workloads

_SECOND_US = 1_000_000
_FRESH = 100
"""Added to the numbers of clients that begin in the liveness phase."""


@dataclass(frozen=True, slots=True)
class Violation:
    """What must not be."""

    invariant: str
    """Its name, as "1-acknowledged-kept"; "raised-KeyError" for an error that nobody caught."""
    message: str
    """With the story of the key, if it is about one."""


@dataclass(slots=True, eq=False)
class Verdict:
    """What came of one run."""

    seed: int
    violation: Violation | None = None
    digest: str = ""
    operations: Counter[str] = field(default_factory=Counter)
    """By kind and outcome: "put ok"."""
    faults: Counter[str] = field(default_factory=Counter)
    """By kind: those that acted."""
    simulated_us: int = 0
    cpu_s: float = 0.0


def run(plan: Plan) -> Verdict:
    """Run a plan."""
    verdict = Verdict(plan.seed)
    began = time.process_time()
    with _quiet(), knobs.tuned(plan.knobs):
        _run(plan, verdict)
    verdict.cpu_s = time.process_time() - began
    return verdict


def _run(plan: Plan, verdict: Verdict) -> None:
    """Have a world of its own come and go."""
    running: Running | None = None
    try:
        running = Running(plan, verdict)
        running.go()
    except AssertionError as error:
        name = getattr(error, "invariant", "assertion")
        text = str(error) if isinstance(error, Broken) else traceback.format_exc(limit=-6)
        verdict.violation = Violation(name, text)
    except Exception as error:  # noqa: BLE001 - whatever is raised in there is a finding
        text = traceback.format_exc(limit=-8)
        verdict.violation = Violation(f"raised-{type(error).__name__}", text)
    if running is not None:
        verdict.digest = running.world.digest()
        verdict.simulated_us = running.world.now_us
        verdict.operations = running.workloads.outcomes()


@contextmanager
def _quiet() -> Iterator[None]:
    """Have nothing logged, and garbage collected once a run: worlds are full of cycles."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.collect()  # the world: nobody holds it any more
        gc.enable()
        logging.disable(before)


class Running:
    """One run of a plan: its world, and what is under way there."""

    def __init__(self, plan: Plan, verdict: Verdict) -> None:
        self.plan = plan
        self.verdict = verdict
        self.world = Cluster(
            plan.seed,
            nodes=plan.nodes,
            keyspaces=plan.keyspaces,
            limits=Limits(**plan.limits),  # type: ignore[arg-type]
        )
        self.world.watch.is_unsafe = plan.is_unsafe
        self.world.turn_us = int(plan.knobs.get("world turn_us", 0))
        self._bounds = knobs.client_bounds(plan.knobs)
        self._set_up_links()
        self.clients = [
            Client(self.world, number, lag_ms=each.lag_ms, bounds=self._bounds)
            for number, each in enumerate(plan.clients)
        ]
        self.workloads = Workloads(self.world, self.clients)
        self.faults = Faults(self.world, self.clients, seed=plan.seed, is_unsafe=plan.is_unsafe)
        self.faults.set_usual_sync(int(plan.knobs.get("world sync_us", 3_000)))
        self._must_serve: list[Operation] = []

    def go(self) -> None:
        """Go through all phases."""
        for item in self.plan.operations:
            self._at(item.at_us, lambda item=item: self._operate(item))  # type: ignore[misc]
        for fault in self.plan.faults:
            self._at(fault.at_us, lambda fault=fault: self._begin(fault))  # type: ignore[misc]
        self._look()
        self.world.run(self.plan.safety_us)
        check_phase(self.world)
        if self.plan.liveness_us:
            self._be_alive()
        self._heal()

    def _look(self) -> None:
        """Check, now and then, what no single step can break."""
        check_bounds(self.world)
        self.world.later(_SECOND_US, self._look)

    def _set_up_links(self) -> None:
        wanted = self.plan.knobs
        for link in self.world.network.links.values():
            link.reorders = wanted.get("world reorders", link.reorders)
            if "world delay_us" in wanted:
                link.delay_us = (100, int(wanted["world delay_us"]))

    def _at(self, at_us: int, act: Callable[[], None]) -> None:
        self.world.later(max(0, at_us - self.world.now_us), act)

    def _operate(self, item: Operation) -> None:
        self.faults.atlas.look()
        if item.at_us >= self._served_from_us and self._can_serve(item):
            self._must_serve.append(item)
        self.workloads.begin(item)

    def _begin(self, fault: Fault) -> None:
        if self.world.now_us < self.plan.safety_us and self.faults.begin(fault):
            self.verdict.faults[fault.kind] += 1

    # ---- liveness --------------------------------------------------------------------------

    @property
    def _served_from_us(self) -> int:
        """From when on the core must serve: its nodes know by then who is up."""
        silence_us = 1_000 * self.world.limits.silence_ms
        return self.plan.safety_us + 3 * _SECOND_US + 3 * silence_us

    def _be_alive(self) -> None:
        plan, world = self.plan, self.world
        # Sessions that have seen what the core lacks may be refused: others take their places.
        self.clients[:] = [
            Client(world, _FRESH + number, bounds=self._bounds)
            for number in range(len(self.clients))
        ]
        self.faults.leave_only(plan.core, is_cut=plan.core_is_cut)
        world.run(plan.liveness_us)
        world.run(LATEST_US)
        for item, call in self.workloads.calls:
            if item in self._must_serve and call.outcome != OK:
                self._fail(item)
        if self.faults.atlas.is_whole:  # else it may take all owners to mend what is damaged
            wait_until(world, lambda: told_differences(world, plan.core), "8-core-is-equal")
            check_core(world, plan.core)

    def _can_serve(self, item: Operation) -> bool:
        """Say whether the core can serve an operation that begins now."""
        world, plan = self.world, self.plan
        name = encode_key(item.keyspace, item.key.encode())
        keyspace = world.keyspace_of(name)
        partition = world.partition_of(name)
        lives = [world.hosts[node].life for node in world.owners(name) if node in plan.core]
        proven = sum(
            life is not None and life.replica.proving.is_proven(partition) for life in lives
        )
        if {"operations_running", "operations_waiting"} & plan.limits.keys():
            return False  # it may be too much
        if item.kind != "get" and self._is_time_ahead():
            return False  # other nodes refuse stamps of that time until it has come
        if self.faults.atlas.damaged is not None or self._asks_beside(item, partition):
            return False
        return proven >= (item.r or keyspace.r) and len(lives) >= (item.w or keyspace.w)

    def _asks_beside(self, item: Operation, partition: int) -> bool:
        """Say whether a session asks for more than it has seen: for single dots, all below them."""
        session = self.clients[item.client].engine.session
        assert session is not None
        return bool(session.recall(item.keyspace, item.key.encode(), partition)[1])

    def _is_time_ahead(self) -> bool:
        """Say whether a node was so far ahead that hybrid clocks may be ahead of what is allowed.

        Each node allows stamps to be ahead of its own clock: two such nodes add up.
        """
        aheads = [fault.args.get("ahead_ms", 0) for fault in self.plan.faults]
        return max(aheads, default=0) > self.world.limits.max_skew_ms // 4

    def _fail(self, item: Operation) -> None:
        world = self.world
        name = encode_key(item.keyspace, item.key.encode())
        outcomes = [call.outcome for each, call in self.workloads.calls if each is item]
        told = f"{item} ended {outcomes}; core {self.plan.core}, owners {world.owners(name)}"
        world.fail(name, f"what the core could serve failed: {told}", name="liveness-core-serves")

    # ---- healing ---------------------------------------------------------------------------

    def _heal(self) -> None:
        self.faults.heal_core()
        keys = {(item.keyspace, item.key) for item in self.plan.operations}
        reader = end_well(self.world, [(space, key.encode()) for space, key in sorted(keys)])
        self.workloads.check_sets(reader)
