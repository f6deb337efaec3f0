"""Draw the faults of a plan.

What it decides: which kinds of faults a plan has, to whom they happen and for how long. Some plans
have one kind often, some have many kinds, some none.
Laws: each fault is drawn from a stream of its own name. Its tests are tests/sim/test_plans.py.
Left out: what a fault does, and whether it may act when its time comes (tests/sim/faults.py).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from tests.sim.plan import Fault

_SECOND_US = 1_000_000
_WEIGHTS = {
    "shake": 3, "clog": 2, "cut": 6, "split": 4, "ring": 1, "swizzle": 2, "flap": 1,
    "client_cut": 3, "crash": 6, "kill": 3, "stop": 2, "pause": 3, "wipe": 4, "restore": 3,
    "slow_disk": 2, "noisy_disks": 2, "full": 1, "stall": 1, "fail_sync": 2, "flip": 3,
    "garble": 4, "unreadable": 4, "clock": 2, "strobe": 1, "twin": 2, "epoch": 2,
}  # fmt: skip
_AHEADS_MS = (-300_000, -50_000, -2_000, -100, 100, 2_000, 50_000, 300_000)
_PERIODS_US = (50_000, 300_000, 1_500_000)

Draw = Callable[[random.Random, int], dict[str, Any]]


def draw(seed: int, *, nodes: int, safety_us: int) -> tuple[Fault, ...]:
    """Return the faults of a plan."""
    chance = random.Random(f"{seed} faults")
    kinds = _kinds(chance)
    gap_us = chance.choice((500_000, 1_000_000, 2_000_000, 5_000_000))
    count = 0 if chance.random() < 0.03 else max(1, safety_us // gap_us)
    longest_us = chance.choice((_SECOND_US, 5 * _SECOND_US, 20 * _SECOND_US))
    return tuple(
        _fault(seed, number, kinds, nodes=nodes, safety_us=safety_us, longest_us=longest_us)
        for number in range(count)
    )


def _kinds(chance: random.Random) -> dict[str, int]:
    """Return the kinds that a plan has, and how often: a few, or all."""
    count = chance.choice((1, 2, 3, 4, 6, len(_WEIGHTS)))
    kinds: dict[str, int] = {}
    while len(kinds) < count:
        (kind,) = chance.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
        kinds[kind] = _WEIGHTS[kind] * chance.choice((1, 1, 5))
        if count == len(_WEIGHTS):
            return dict(_WEIGHTS)
    return kinds


def _fault(
    seed: int, number: int, kinds: dict[str, int], *, nodes: int, safety_us: int, longest_us: int
) -> Fault:
    chance = random.Random(f"{seed} fault {number}")
    (kind,) = chance.choices(list(kinds), list(kinds.values()))
    for_us = int(50_000 * (longest_us / 50_000) ** chance.random())
    return Fault(
        id=f"f{number}",
        at_us=chance.randrange(safety_us),
        kind=kind,
        args=_ARGS[kind](chance, nodes),
        for_us=for_us,
    )


def _some(chance: random.Random, nodes: int, *, most: int | None = None) -> list[int]:
    """Return some nodes: mostly one, sometimes several, sometimes all."""
    size = chance.choice((1, 1, 1, 1, 2, 2, 3, nodes))
    return sorted(chance.sample(range(1, nodes + 1), min(size, most or nodes, nodes)))


def _node(chance: random.Random, nodes: int) -> int:
    return chance.randint(1, nodes)


def _pairs(chance: random.Random, nodes: int) -> list[list[int]]:
    return [chance.sample(range(1, nodes + 1), 2) for _ in range(chance.choice((1, 1, 2, 4)))]


def _shake(chance: random.Random, nodes: int) -> dict[str, Any]:
    args: dict[str, Any] = {
        "drops": chance.choice((0.0, 0.01, 0.05, 0.3)),
        "duplicates": chance.choice((0.0, 0.05, 0.5)),
        "reorders": chance.choice((0.0, 0.1, 1.0)),
    }
    if chance.random() < 0.5:
        args["delay_us"] = [100, chance.choice((5_000, 50_000, 400_000))]
    if chance.random() < 0.5:
        args["nodes"] = _some(chance, nodes)
    return args


def _cut(chance: random.Random, nodes: int) -> dict[str, Any]:
    return {"pairs": _pairs(chance, nodes), "one_way": chance.random() < 0.4}


def _split(chance: random.Random, nodes: int) -> dict[str, Any]:
    """One alone, halves, or halves with a bridge."""
    order = chance.sample(range(1, nodes + 1), nodes)
    size = chance.choice((1, nodes // 2))
    args: dict[str, Any] = {"groups": [sorted(order[:size]), sorted(order[size:])]}
    if size > 1 and chance.random() < 0.4:
        args["bridge"] = order[0]
    return args


def _ring(chance: random.Random, nodes: int) -> dict[str, Any]:
    return {"order": chance.sample(range(1, nodes + 1), nodes)}


def _swizzle(chance: random.Random, nodes: int) -> dict[str, Any]:
    node = _node(chance, nodes)
    others = [each for each in range(1, nodes + 1) if each != node]
    return {
        "node": node,
        "order": chance.sample(others, len(others)),
        "mend_order": chance.sample(others, len(others)),
        "gap_us": chance.choice((20_000, 200_000, 1_000_000)),
    }


def _flap(chance: random.Random, nodes: int) -> dict[str, Any]:
    return {**_cut(chance, nodes), "period_us": chance.choice(_PERIODS_US)}


def _client_cut(chance: random.Random, nodes: int) -> dict[str, Any]:
    clients = [number for number in range(6) if chance.random() < 0.5]
    return {"clients": clients, "nodes": _some(chance, nodes, most=nodes - 1)}


def _crash(chance: random.Random, nodes: int) -> dict[str, Any]:
    return {"nodes": _some(chance, nodes), "keeps": chance.random() < 0.8}


def _nodes(chance: random.Random, nodes: int) -> dict[str, Any]:
    return {"nodes": _some(chance, nodes)}


def _one(chance: random.Random, nodes: int) -> dict[str, Any]:
    return {"node": _node(chance, nodes)}


def _twin(chance: random.Random, nodes: int) -> dict[str, Any]:
    return {**_one(chance, nodes), "stays": chance.random() < 0.5}


def _slow_disk(chance: random.Random, nodes: int) -> dict[str, Any]:
    return {**_one(chance, nodes), "sync_us": chance.choice((30_000, 300_000, 2_000_000))}


def _noisy_disks(chance: random.Random, nodes: int) -> dict[str, Any]:
    size = chance.choice((2, nodes // 2 + 1, nodes))
    several = sorted(chance.sample(range(1, nodes + 1), size))
    return {"nodes": several, "noise_us": chance.choice((30_000, 300_000, 2_000_000))}


def _full(chance: random.Random, nodes: int) -> dict[str, Any]:
    return {**_one(chance, nodes), "is_exhausted": chance.random() < 0.3}


def _flip(chance: random.Random, nodes: int) -> dict[str, Any]:
    restarts = chance.random() < 0.6
    return {**_one(chance, nodes), "count": chance.choice((1, 1, 4)), "restarts": restarts}


def _unreadable(chance: random.Random, nodes: int) -> dict[str, Any]:
    return {**_one(chance, nodes), "count": chance.choice((1, 3))}


def _clock(chance: random.Random, nodes: int) -> dict[str, Any]:
    return {**_one(chance, nodes), "ahead_ms": chance.choice(_AHEADS_MS)}


def _strobe(chance: random.Random, nodes: int) -> dict[str, Any]:
    return {**_clock(chance, nodes), "period_us": chance.choice(_PERIODS_US)}


_ARGS: dict[str, Draw] = {
    "shake": _shake,
    "clog": lambda chance, nodes: {"pairs": _pairs(chance, nodes)},
    "cut": _cut,
    "split": _split,
    "ring": _ring,
    "swizzle": _swizzle,
    "flap": _flap,
    "client_cut": _client_cut,
    "crash": _crash,
    "kill": _nodes,
    "stop": _nodes,
    "pause": _nodes,
    "wipe": _one,
    "restore": _one,
    "twin": _twin,
    "epoch": _one,
    "slow_disk": _slow_disk,
    "noisy_disks": _noisy_disks,
    "full": _full,
    "stall": _one,
    "fail_sync": _one,
    "flip": _flip,
    "garble": _one,
    "unreadable": _unreadable,
    "clock": _clock,
    "strobe": _strobe,
}
