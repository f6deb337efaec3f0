"""Run a plan to its checked end, and say what came of it.

What it decides: the phases. *Safety*: all operations and faults. *Liveness*: a core of nodes
is well and the others stay away; what the core can serve must succeed. *Healing*: all is well, and
every invariant is checked in full.
Laws: a run changes nothing but its own world; the same plan gives the same verdict and digest.
Its tests are tests/sim/test_run.py. Left out: what is checked (tests/sim/checks.py).
"""

from __future__ import annotations

import random
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from kvnode.core.batch import Family
from kvnode.core.bounds import Limits
from kvnode.core.keys import encode_key
from tests.sim import faults
from tests.sim.checks import OK, Read, Write
from tests.sim.client import Client
from tests.sim.cluster import Cluster
from tests.sim.plan import Fault, Operation, Plan

_SETTLE_US = 12_000_000
_HANDOFF_US = 60_000_000
_EQUAL_US = 120_000_000
_REAP_US = 25_000_000


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
    running: Running | None = None
    try:
        running = Running(plan, verdict)
        running.go()
    except AssertionError as error:
        name = getattr(error, "invariant", "assertion")
        verdict.violation = Violation(name, str(error) or traceback.format_exc(limit=-3))
    except Exception as error:  # noqa: BLE001 - whatever the core raises where it must not is a finding
        text = traceback.format_exc(limit=-6)
        verdict.violation = Violation(f"raised-{type(error).__name__}", text)
    if running is not None:
        verdict.digest = running.world.digest()
        verdict.simulated_us = running.world.now_us
        running.count()
    verdict.cpu_s = time.process_time() - began
    return verdict


class Running:
    """One run of a plan: its world, and what is under way there."""

    def __init__(self, plan: Plan, verdict: Verdict) -> None:
        self.plan = plan
        self.verdict = verdict
        self.world = Cluster(
            plan.seed,
            nodes=plan.nodes,
            keyspace=plan.keyspaces[0],
            limits=Limits(**plan.limits),  # type: ignore[arg-type]
        )
        self.clients = [
            Client(self.world, number, lag_ms=each.lag_ms)
            for number, each in enumerate(plan.clients)
        ]
        self._ended: list[tuple[str, Write | Read]] = []
        self._last_read: dict[tuple[int, str], Read] = {}
        self._ends: dict[str, Callable[[], None]] = {}

    def go(self) -> None:
        """Go through all phases."""
        for item in self.plan.operations:
            self._at(item.at_us, lambda item=item: self._operate(item))  # type: ignore[misc]
        for fault in self.plan.faults:
            self._at(fault.at_us, lambda fault=fault: self._begin(fault))  # type: ignore[misc]
        self.world.run(self.plan.safety_us)
        self._heal()

    def count(self) -> None:
        """Count what became of operations."""
        for kind, each in self._ended:
            self.verdict.operations[f"{kind} {each.outcome or 'unfinished'}"] += 1

    def _at(self, at_us: int, act: Callable[[], None]) -> None:
        self.world.later(max(0, at_us - self.world.now_us), act)

    def _operate(self, item: Operation) -> None:
        client, key = self.clients[item.client], item.key.encode()
        place = (item.client, item.key)
        match item.kind:
            case "get":
                read = client.get(key, wait=False)
                self._last_read[place] = read
                self._ended.append((item.kind, read))
            case "put":
                self._ended.append((item.kind, client.put(key, item.value, wait=False)))
            case "delete":
                self._ended.append((item.kind, client.put(key, None, wait=False)))
            case "put_over":
                last = self._last_read.get(place)
                if last is not None and last.outcome == OK:
                    write = client.put(key, item.value, context=last, wait=False)
                    self._ended.append((item.kind, write))
            case _:
                raise ValueError(f"no such operation: {item.kind}")

    def _begin(self, fault: Fault) -> None:
        chance = random.Random(f"{self.plan.seed} {fault.id}")
        end = faults.begin(self.world, fault.kind, fault.args, chance)
        self.verdict.faults[fault.kind] += 1
        if end is None or not fault.for_us:
            return
        self._ends[fault.id] = end
        self.world.later(fault.for_us, lambda: self._end(fault.id))

    def _end(self, name: str) -> None:
        end = self._ends.pop(name, None)
        if end is not None:
            end()

    # ---- healing ---------------------------------------------------------------------------

    def _heal(self) -> None:
        world = self.world
        for name in list(self._ends):
            self._end(name)
        world.heal()
        for host in world.hosts.values():
            host.set_clock(0)
            if host.life is None:
                host.start()
        for link in world.network.links.values():
            link.drops = link.duplicates = 0.0
        world.run(_SETTLE_US)
        world.run(_HANDOFF_US, until=lambda: not self._hints())
        assert not self._hints(), "hints that never left"
        world.watch.healed_us = world.now_us
        self._become_equal()
        for key in sorted({item.key for item in self.plan.operations}):
            self._mend(key.encode())
        for read in world.watch.reads:
            world.watch.check_read(read)

    def _become_equal(self) -> None:
        world = self.world
        for _ in range(2):
            world.run(_EQUAL_US, until=world.are_owners_equal)
            assert world.are_owners_equal(), "owners stay different"
            if not self._graves():
                break
            world.run(_REAP_US, until=lambda: not self._graves())
        world.run(_EQUAL_US, until=world.are_owners_equal)
        for host in world.hosts.values():
            host.check_trees()

    def _mend(self, key: bytes) -> None:
        world = self.world
        name = encode_key(world.keyspace.name, key)
        n = world.keyspace.n
        answers = [client.get(key, r=n) for client in (self.clients[0], self.clients[-1])]
        if any(read.outcome != OK for read in answers):
            world.fail(name, "a healed cluster gives no answer")
        if answers[0].value != answers[1].value:
            world.fail(name, "invariant 7: two full reads differ, with no write between")
        world.watch.check_durable(name)

    def _hints(self) -> int:
        lives = (host.life for host in self.world.hosts.values())
        return sum(life.hints.pending for life in lives if life is not None)

    def _graves(self) -> bool:
        hosts = self.world.hosts.values()
        return any(host.engine.scan(Family.GRAVES, b"", None, 1) for host in hosts)
