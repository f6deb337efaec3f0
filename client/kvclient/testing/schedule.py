"""Schedules: which faults happen to which nodes, and when.

A schedule is made by chance from a seed, or read from a file: JSON lines, or TOML with [[fault]]:

    [[fault]]
    at_s = 10          # after the load began
    kind = "kill"
    nodes = ["n2"]     # a one-way cut: ["n1", "n2"], what n1 sends to n2
    for_s = 5          # then it is undone
    amount_ms = 200    # of slow, slow-disk and skew

Decides which schedules the quorums survive: at any moment the faults concern no more nodes than a
key can miss owners, and a partition of the whole cluster comes alone. What makes a node slow or
its clock wrong does not count: it still answers. Laws: the same seed makes the same schedule; a
schedule of chance survives, unless it is to be hard, and ends before the load does.
Tests: tests/unit/client/test_testing_schedule.py. Left out: carrying it out
(kvclient/testing/nemesis.py).
"""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvclient.testing.files import KitError
from kvclient.testing.shapes import SHAPES, groups_of

PARTITIONS = tuple(shape for shape in SHAPES if shape != "isolated")
ON_A_NODE = ("kill", "pause", "isolate", "wipe", "slow", "slow-disk", "skew")
ON_A_LINK = ("cut",)
KINDS = (*ON_A_NODE, *ON_A_LINK, *PARTITIONS)
HARMLESS = ("slow", "slow-disk", "skew")
"""The node still answers, if late or with another time."""
AMOUNTS_MS: Mapping[str, tuple[float, float]] = {
    "slow": (20.0, 300.0),
    "slow-disk": (50.0, 500.0),
    "skew": (-50_000.0, 50_000.0),
}
"""From which to which, where chance decides. Skew stays below max_skew (60 s)."""
REST_OF_A_WIPE = 2
"""A wiped node must be filled again: so many usual intervals until the next fault."""
FAULTS_MAX = 10_000
_LATEST_S = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that happens, and is undone.

    Attributes:
        at_s: after the load began.
        kind: one of KINDS.
        nodes: concerned; for a cut the sender, then the receiver; none for a partition.
        for_s: how long; what was killed or wiped is started then.
        amount_ms: of slow, slow-disk and skew.
    """

    at_s: float
    kind: str
    nodes: tuple[str, ...] = ()
    for_s: float = 5.0
    amount_ms: float = 0.0

    @property
    def end_s(self) -> float:
        """When it is undone."""
        return self.at_s + self.for_s

    @property
    def concerns(self) -> tuple[str, ...]:
        """The nodes that a key may have to do without meanwhile."""
        return () if self.kind in HARMLESS else self.nodes[:1]

    def __str__(self) -> str:
        amount = f" by {self.amount_ms:g} ms" if self.kind in HARMLESS else ""
        return " ".join([self.kind, " to ".join(self.nodes)]).strip() + amount


def by_chance(
    seed: int,
    ids: Sequence[str],
    *,
    kinds: Sequence[str],
    seconds: float,
    every_s: float,
    for_s: float,
    is_hard: bool = False,
) -> list[Fault]:
    """Return a schedule for a load of so many seconds.

    Args:
        seed: of all that is left to chance.
        ids: of the nodes.
        kinds: of faults, those that may happen.
        seconds: how long the load is.
        every_s: from one fault to the next; a hard schedule has three in this time.
        for_s: how long each lasts; unless it is hard, shorter than `every_s`.
        is_hard: faults may come together, also more than the quorums survive.

    Raises: KitError for an unknown kind, or faults that would run into each other.
    """
    _refuse_unknown(kinds, KINDS, "kind of fault")
    _refuse_too_few(kinds, ids)
    if not is_hard and for_s >= every_s:
        raise KitError(f"a fault of {for_s:g} s every {every_s:g} s: one would meet the next")
    chance = random.Random(seed)
    faults: list[Fault] = []
    at_s = every_s / 5
    wiped = chance.choice(ids)  # never another: two empty owners may be all that a key had
    while kinds and at_s + for_s <= seconds and len(faults) < FAULTS_MAX:
        kind = chance.choice(kinds)
        fault = _one(chance, ids, kind, at_s=at_s, for_s=for_s)
        if kind == "wipe" and not is_hard:
            fault = Fault(at_s=at_s, kind=kind, nodes=(wiped,), for_s=for_s)
        faults.append(fault)
        rest = REST_OF_A_WIPE if kind == "wipe" else 1
        at_s += chance.uniform(0, 2 * every_s / 3) if is_hard else rest * every_s
    return faults


def _one(
    chance: random.Random, ids: Sequence[str], kind: str, *, at_s: float, for_s: float
) -> Fault:
    count = 0 if kind in PARTITIONS else 2 if kind in ON_A_LINK else 1
    low, high = AMOUNTS_MS.get(kind, (0.0, 0.0))
    return Fault(
        at_s=at_s,
        kind=kind,
        nodes=tuple(chance.sample(ids, count)),
        for_s=for_s,
        amount_ms=round(chance.uniform(low, high)),
    )


def excess(faults: Iterable[Fault], missing: int) -> str | None:
    """Return which fault is too much where a key can miss `missing` owners, or None."""
    running: list[Fault] = []
    for fault in sorted(faults, key=lambda fault: fault.at_s):
        running = [each for each in running if each.end_s > fault.at_s]
        running.append(fault)
        concerned = {name for each in running for name in each.concerns}
        shapes = sum(each.kind in PARTITIONS for each in running)
        if len(concerned) > missing or (shapes and (concerned or shapes > 1 or not missing)):
            return f"{fault} at {fault.at_s:g} s is more than quorums survive; --hard allows that"
    return None


def parse(text: str, ids: Sequence[str]) -> list[Fault]:
    """Return the schedule that a file's text holds, in order of time. Raises: KitError."""
    try:
        if text.lstrip().startswith("{"):
            tables = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            tables = tomllib.loads(text).get("fault", [])
        faults = [_read(table, ids) for table in tables]
    except (ValueError, TypeError, AttributeError) as error:
        raise KitError(f"not a schedule: {error}") from error
    if not 1 <= len(faults) <= FAULTS_MAX:
        raise KitError(f"a schedule has 1 to {FAULTS_MAX:,} faults, not {len(faults):,}")
    return sorted(faults, key=lambda fault: fault.at_s)


def render(faults: Iterable[Fault]) -> Iterator[str]:
    """Yield a schedule as JSON lines, which `parse` reads back."""
    for fault in faults:
        line = {"at_s": fault.at_s, "kind": fault.kind, "nodes": fault.nodes}
        yield json.dumps({**line, "for_s": fault.for_s, "amount_ms": fault.amount_ms})


_NUMBERS = ("at_s", "for_s", "amount_ms")


def _read(table: dict[str, Any], ids: Sequence[str]) -> Fault:
    known = ("kind", "nodes", *_NUMBERS)
    _refuse_unknown(table, known, "key")
    if missing := [key for key in ("at_s", "kind") if key not in table]:
        raise KitError(f"a fault lacks {missing[0]}: {table}")
    kind, nodes = str(table["kind"]), tuple(table.get("nodes", ()))
    _refuse_unknown([kind], KINDS, "kind of fault")
    _refuse_unknown(nodes, ids, "node")
    _refuse_too_few([kind], ids)
    count = 0 if kind in PARTITIONS else 2 if kind in ON_A_LINK else 1
    if len(set(nodes)) != count or len(nodes) != count:
        raise KitError(f"{kind} concerns {count} nodes, not {len(nodes)}: {table}")
    numbers = {key: float(table[key]) for key in _NUMBERS if key in table}
    if not (0 <= numbers["at_s"] < _LATEST_S and 0 < numbers.get("for_s", 1) < _LATEST_S):
        raise KitError(f"at_s is in seconds from 0, for_s above 0: {table}")
    return Fault(kind=kind, nodes=nodes, **numbers)


def _refuse_too_few(kinds: Iterable[str], ids: Sequence[str]) -> None:
    for kind in kinds:
        if kind in PARTITIONS:
            try:
                groups_of(kind, ids)
            except ValueError as error:
                raise KitError(str(error)) from error


def _refuse_unknown(words: Iterable[str], known: Sequence[str], what: str) -> None:
    for word in words:
        if word not in known:
            raise KitError(f"no {what} {word!r}; there are {', '.join(known)}")
