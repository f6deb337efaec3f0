"""Make a plan that breaks an invariant shorter, as long as it breaks the same one.

What it decides: what is left out next. First all that comes after the violation, then items by
delta debugging (halves, quarters, ... single ones; faults before operations), then nodes,
keyspaces, knobs, phases and durations, each only if the same invariant is still broken; and again
from the front until nothing can be left out any more, or the time is up.
Laws: what comes out breaks the invariant that the given plan breaks; with time enough no single
item can be left out of it. Source: Zeller and Hildebrandt, "Simplifying and Isolating
Failure-Inducing Input" (2002), ddmin. Its tests are tests/sim/test_shrink.py.
Left out: values and arguments of items.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from tests.sim.plan import Plan
from tests.sim.run import Verdict, run

T = TypeVar("T")
_GAP_US = 50_000
"""Kept between items whose times are moved together."""


class TimeIsUp(Exception):
    """What was found by then is what there is."""


class Shrinking:
    """One search for a shorter plan."""

    def __init__(
        self,
        plan: Plan,
        *,
        within_s: float,
        runs: Callable[[Plan], Verdict] = run,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        """The shortest so far."""
        self.invariant = ""
        """What is broken; empty: nothing is."""
        self.tried = 0
        """How many plans were run."""
        self._runs = runs
        self._now = now
        self._ends_at = now() + within_s
        self._broke_us = 0

    def go(self) -> Plan:
        """Search; returns the shortest plan found."""
        verdict = self._runs(self.plan)
        if verdict.violation is None:
            return self.plan
        self.invariant, self._broke_us = verdict.violation.invariant, verdict.simulated_us
        try:
            while True:
                before = self.plan
                self._round()
                if self.plan == before:
                    return self.plan
        except TimeIsUp:
            return self.plan

    def _round(self) -> None:
        self._cut_what_follows()
        for part in (self._faults, self._operations):
            minimal(part(), lambda kept, gone: self._is_still(self.plan.without(gone)))
        for shorter in self._simpler():
            self._is_still(shorter)

    def _faults(self) -> list[str]:
        return [fault.id for fault in self.plan.faults]

    def _operations(self) -> list[str]:
        return [operation.id for operation in self.plan.operations]

    def _cut_what_follows(self) -> None:
        """Leave out what had not begun when the invariant broke."""
        plan = self.plan
        late = [item.id for item in plan.operations if item.at_us >= self._broke_us]
        late += [fault.id for fault in plan.faults if fault.at_us >= self._broke_us]
        if late:
            self._is_still(plan.without(late))

    def _simpler(self) -> Iterator[Plan]:
        """Yield plans that differ from the shortest so far in one respect each."""
        if self.plan.liveness_us:
            yield replace(self.plan, liveness_us=0)
        for name in list(self.plan.knobs):
            yield replace(self.plan, knobs=_without(self.plan.knobs, name))
        for name in list(self.plan.limits):
            yield replace(self.plan, limits=_without(self.plan.limits, name))
        yield from self._with_less_around()
        yield from self._sooner()

    def _with_less_around(self) -> Iterator[Plan]:
        for client, each in enumerate(self.plan.clients):
            if each.lag_ms:
                clients = [*self.plan.clients]
                clients[client] = replace(each, lag_ms=0)
                yield replace(self.plan, clients=tuple(clients))
        used = {operation.keyspace for operation in self.plan.operations}
        for keyspace in self.plan.keyspaces:
            kept = tuple(each for each in self.plan.keyspaces if each is not keyspace)
            if kept and keyspace.name not in used:
                yield replace(self.plan, keyspaces=kept)
        least = max(keyspace.n for keyspace in self.plan.keyspaces)
        named = max(_nodes_named(self.plan), default=0)
        for nodes in range(max(least, named), self.plan.nodes):
            yield replace(
                self.plan, nodes=nodes, core=tuple(n for n in self.plan.core if n <= nodes)
            )

    def _sooner(self) -> Iterator[Plan]:
        """Yield plans whose items last or wait less long."""
        for fault in self.plan.faults:
            if fault.for_us > _GAP_US:
                shorter = replace(fault, for_us=fault.for_us // 2)
                faults = [shorter if each is fault else each for each in self.plan.faults]
                yield replace(self.plan, faults=tuple(faults))
        starts = [operation.at_us for operation in self.plan.operations]
        instants = sorted({*starts, *(fault.at_us for fault in self.plan.faults)})
        for before, after in zip([0, *instants], instants, strict=False):
            if after - before > 2 * _GAP_US:
                yield _moved(self.plan, after, (after - before) // 2)
        ends = [*instants, *(fault.at_us + fault.for_us for fault in self.plan.faults)]
        last = max(ends, default=0) + _GAP_US
        if last < self.plan.safety_us:
            yield replace(self.plan, safety_us=last)

    def _is_still(self, plan: Plan) -> bool:
        """Say whether a plan breaks the same invariant; it is the shortest so far, then."""
        if self._now() >= self._ends_at:
            raise TimeIsUp
        self.tried += 1
        verdict = self._runs(plan)
        if verdict.violation is None or verdict.violation.invariant != self.invariant:
            return False
        self.plan, self._broke_us = plan, verdict.simulated_us
        return True


def shrink(plan: Plan, *, within_s: float, runs: Callable[[Plan], Verdict] = run) -> Plan:
    """Return the shortest plan found within so many seconds that breaks what this one breaks."""
    return Shrinking(plan, within_s=within_s, runs=runs).go()


def minimal(items: Sequence[T], is_enough: Callable[[list[T], list[T]], bool]) -> list[T]:
    """Return a part of `items` of which no single one can be left out.

    `is_enough` is given what is kept and what is left out of all that was kept before; if it says
    yes, that is taken. Cost: at most about len(items) ** 2 questions, mostly far fewer.
    """
    kept, parts = list(items), 2
    while kept:
        size = -(-len(kept) // parts)
        for at in range(0, len(kept), size):
            rest, gone = kept[:at] + kept[at + size :], kept[at : at + size]
            if is_enough(rest, gone):
                kept, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                break
            parts = min(2 * parts, len(kept))
    return kept


def _without(settings: dict[str, float], name: str) -> dict[str, float]:
    return {each: value for each, value in settings.items() if each != name}


def _nodes_named(plan: Plan) -> Iterator[int]:
    """Yield the nodes that items speak of; which arguments are nodes they alone know, so any small
    number counts."""
    for operation in plan.operations:
        yield operation.at
    for fault in plan.faults:
        for value in fault.args.values():
            numbers = value if isinstance(value, list | tuple) else [value]
            yield from (n for n in _flat(numbers) if 0 < n <= plan.nodes)


def _flat(values: Sequence[object]) -> Iterator[int]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield value


def _moved(plan: Plan, from_us: int, by_us: int) -> Plan:
    """Return the plan with everything from an instant on so much earlier."""

    def moved(at_us: int) -> int:
        return at_us - by_us if at_us >= from_us else at_us

    return replace(
        plan,
        operations=tuple(replace(op, at_us=moved(op.at_us)) for op in plan.operations),
        faults=tuple(replace(fault, at_us=moved(fault.at_us)) for fault in plan.faults),
        safety_us=plan.safety_us - by_us,
    )
