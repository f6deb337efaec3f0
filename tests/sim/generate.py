"""Draw a plan from a seed.

What it decides: which workloads, faults and settings come together, how often, and when. Each plan
has a few kinds of faults out of all (a run with everything finds less than runs with a little of
this and much of that), and its operations gather around the instants at which faults begin or end.
Laws: the same seed gives the same plan; each item is drawn from a stream of its own name, so that
what one draws disturbs no other.
Its tests are tests/sim/test_plans.py. Left out: what items do (tests/sim/workloads.py, faults.py).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

from kvnode.core.topology import Keyspace, Resolve
from tests.sim import knobs, mishaps
from tests.sim.plan import ClientPlan, Operation, Plan

_SECOND_US = 1_000_000
_FIRST_US = 10_000
_SAFETY_S = (2, 2, 3, 3, 5, 5, 8, 10, 15, 30)
"""Most plans are short: many of them find more than a few long ones, in the same time."""
_MOST = 600
"""Operations while faults act."""
_LATE_RATE = 5
"""Operations a second in the liveness phase."""
_LONG_SHARE = 0.5
"""Of the plans, in which a setting is unusual that would else be longer than a run."""
_QUORUMS = {
    (3, 2, 2): 56, (3, 1, 3): 7, (3, 3, 2): 5, (3, 1, 2): 6, (3, 2, 3): 6, (2, 1, 2): 6,
    (2, 2, 2): 4, (4, 2, 3): 5, (4, 3, 2): 5,
}  # fmt: skip
_MIXES: dict[str, dict[str, int]] = {
    "register": {"put": 2, "edit": 5, "put_over": 2, "get": 6, "delete": 1},
    "blind": {"put": 6, "get": 5},
    "graves": {"put": 4, "delete": 3, "erase": 2, "edit": 1, "get": 5},
    "mixed": {"put": 6, "put_over": 3, "edit": 1, "delete": 1, "get": 7},
    "rivals": {"put_over": 6, "get": 3, "edit": 1},
    "set": {"add": 5, "get": 2},
}

_RESOLVES = {"set": (Resolve.SIBLINGS,), "rivals": (Resolve.MAJORITY, Resolve.NEWEST)}
"""Sets are merged by clients; of rivals it is to be seen that losers go to the log. Else any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Space:
    """What is done in one keyspace."""

    keyspace: Keyspace
    mix: dict[str, int]
    keys: tuple[str, ...]
    hot: float
    """The share of operations that the first key gets."""
    ttl_share: float
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Setting:
    """What all items of a plan have in common."""

    seed: int
    nodes: int
    clients: int
    begin_us: int
    end_us: int
    spaces: tuple[_Space, ...]
    instants: tuple[int, ...]
    """When something happens."""
    gathers: float
    """The share of operations that begin close to one of them."""
    asks_any: float
    """The share of operations that any node may be asked for."""
    hurries: float
    """The share of operations with a short time-out."""
    asks_more: float
    """The share of writes that ask for more owners than their keyspace does."""


def generate(
    seed: int,
    *,
    nodes: int | None = None,
    rate: int | None = None,
    is_usual: bool = False,
    is_unsafe: bool = False,
) -> Plan:
    """Return the plan of a seed.

    Args:
        seed: decides all that is drawn.
        nodes: how many; drawn if None.
        rate: operations a second while faults act; drawn if None.
        is_usual: no setting is unusual.
        is_unsafe: faults may damage every copy of a record.
    """
    chance = random.Random(f"{seed} plan")
    nodes_drawn = chance.choice((3, 4, 4, 5, 5, 5, 5, 6, 7))
    nodes = nodes or nodes_drawn
    safety_us = chance.choice(_SAFETY_S) * _SECOND_US
    liveness_us = chance.choice((0, 8, 12)) * _SECOND_US
    limits, others = ({}, {}) if is_usual else _knobs(seed)
    faults = mishaps.draw(seed, nodes=nodes, safety_us=safety_us)
    clients = _clients(seed)
    setting = _Setting(
        seed=seed,
        nodes=nodes,
        clients=len(clients),
        begin_us=_FIRST_US,
        end_us=safety_us,
        spaces=_spaces(seed, nodes),
        instants=tuple(at for fault in faults for at in (fault.at_us, fault.at_us + fault.for_us)),
        gathers=chance.choice((0.0, 0.2, 0.6)),
        asks_any=chance.choice((0.0, 0.3, 0.9)),
        hurries=chance.choice((0.0, 0.1, 0.5)),
        asks_more=chance.choice((0.1, 0.1, 0.5)),
    )
    rate_drawn = chance.choice((5, 20, 20, 20, 50))
    count = min(_MOST, (rate or rate_drawn) * safety_us // _SECOND_US)
    end_us = safety_us + liveness_us
    later = replace(setting, begin_us=safety_us, end_us=end_us, instants=(), hurries=0.0)
    late_count = _LATE_RATE * liveness_us // _SECOND_US
    core, is_cut = _core(seed, nodes)
    return Plan(
        seed=seed,
        nodes=nodes,
        keyspaces=tuple(space.keyspace for space in setting.spaces),
        limits=limits,
        knobs=others,
        clients=clients,
        operations=(
            *(_operation(setting, number) for number in range(count)),
            *(_operation(later, number) for number in range(count, count + late_count)),
        ),
        faults=faults,
        safety_us=safety_us,
        liveness_us=liveness_us,
        core=core,
        core_is_cut=is_cut,
        is_unsafe=is_unsafe,
    )


def _knobs(seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Draw which settings are unusual, each from a stream of its own."""
    share = random.Random(f"{seed} knobs").choice((0.0, 0.1, 0.2, 0.4))
    limits = _some(seed, knobs.LIMITS, share)
    if limits.get("silence_ms", 1_000) < 3 * limits.get("heartbeat_ms", 200):
        limits.pop("silence_ms", None)
        limits.pop("heartbeat_ms", None)
    return limits, _some(seed, knobs.OTHERS, share)


def _some(seed: int, choices: dict[str, tuple[float, ...]], share: float) -> dict[str, float]:
    found = {}
    for name, values in choices.items():
        chance = random.Random(f"{seed} knob {name}")
        if chance.random() < max(share, _LONG_SHARE if name in knobs.LONG else 0.0):
            found[name] = chance.choice(values)
    return found


def _clients(seed: int) -> tuple[ClientPlan, ...]:
    chance = random.Random(f"{seed} clients")
    lags_ms = chance.choice(((0,), (0, 0, 2_000), (0, 300, 2_000, 20_000)))
    return tuple(ClientPlan(lag_ms=chance.choice(lags_ms)) for _ in range(chance.randint(2, 6)))


def _core(seed: int, nodes: int) -> tuple[tuple[int, ...], bool]:
    """Draw who is well in the liveness phase: at least a majority."""
    chance = random.Random(f"{seed} core")
    size = chance.randint(nodes // 2 + 1, max(nodes // 2 + 1, nodes - 1))
    core = sorted(chance.sample(range(1, nodes + 1), size))
    return tuple(core), chance.random() < 0.4


def _spaces(seed: int, nodes: int) -> tuple[_Space, ...]:
    chance = random.Random(f"{seed} keyspaces")
    count = chance.choice((1, 1, 1, 2, 3))
    return tuple(_space(random.Random(f"{seed} keyspace {n}"), n, nodes) for n in range(count))


def _space(chance: random.Random, number: int, nodes: int) -> _Space:
    allowed = {sizes: weight for sizes, weight in _QUORUMS.items() if sizes[0] <= nodes}
    n, r, w = chance.choices(list(allowed), list(allowed.values()))[0]
    kind = chance.choice(list(_MIXES))
    resolve = chance.choice(_RESOLVES.get(kind, tuple(Resolve)))
    count = chance.choice((1, 2, 4, 8, 16))
    ttl_share = 0.0 if kind == "set" else chance.choice((0.0, 0.0, 0.0, 0.3))
    ttl_s = None if kind == "set" else chance.choice((None,) * 9 + (3,))
    name = "default" if not number else f"space{number}"
    keyspace = Keyspace(
        name=name, n=n, r=r, w=w, sloppy=chance.random() < 0.5, resolve=resolve, ttl_s=ttl_s
    )
    return _Space(
        keyspace=keyspace,
        mix=_MIXES[kind],
        keys=tuple(f"{kind[0]}{key}" for key in range(count)),
        hot=chance.choice((0.0, 0.0, 0.7)),
        ttl_share=ttl_share,
        weight=chance.choice((1, 1, 4)),
    )


def _operation(setting: _Setting, number: int) -> Operation:
    chance = random.Random(f"{setting.seed} operation {number}")
    at_us = setting.begin_us + chance.randrange(setting.end_us - setting.begin_us)
    if setting.instants and chance.random() < setting.gathers:
        near = chance.choice(setting.instants) + int(chance.gauss(0, 1) * 30_000)
        at_us = min(max(near, setting.begin_us), setting.end_us - 1)
    (space,) = chance.choices(setting.spaces, [each.weight for each in setting.spaces])
    (kind,) = chance.choices(list(space.mix), list(space.mix.values()))
    key = space.keys[0] if chance.random() < space.hot else chance.choice(space.keys)
    more: dict[str, Any] = {}
    if kind in ("put", "edit") and chance.random() < space.ttl_share:
        more["ttl_ms"] = chance.choice((100, 1_000, 5_000, 60_000))
    if kind in ("put", "edit") and chance.random() < 0.03:
        more["size"] = chance.choice((100, 5_000, 100_000))
    if chance.random() < setting.asks_any:
        more["at"] = chance.randint(1, setting.nodes)
    if chance.random() < setting.hurries:
        more["timeout_ms"] = chance.choice((50, 300, 1_000))
    if kind == "get" and chance.random() < 0.1:
        more["r"] = chance.randint(1, space.keyspace.n)
    if kind == "get" and chance.random() < 0.1:
        more["explain"] = True
    client = chance.randrange(setting.clients)
    quorum = random.Random(f"{setting.seed} quorum {number}")
    if kind != "get" and quorum.random() < setting.asks_more:
        more["w"] = quorum.choice(
            (space.keyspace.n, quorum.randint(space.keyspace.w, space.keyspace.n))
        )
    return Operation(
        id=f"o{number}",
        at_us=at_us,
        client=client,
        kind=kind,
        keyspace=space.keyspace.name,
        key=key,
        **more,
    )
