"""Draw a plan from a seed.

What it decides: which workloads, faults and settings come together, and how often.
Laws: the same seed gives the same plan; each item is drawn from a stream of its own name, so that
what one draws disturbs no other.
Its tests are tests/sim/test_plans.py. Left out: what items do (tests/sim/run.py, faults.py).
"""

from __future__ import annotations

import random

from kvnode.core.topology import Keyspace, Resolve
from tests.sim.plan import ClientPlan, Fault, Operation, Plan

_OPERATIONS = {"put": 6, "put_over": 3, "delete": 1, "get": 7}
_FAULTS = {"shake": 2, "cut": 6, "crash": 4, "wipe": 1, "clock": 1}
_SECOND_US = 1_000_000


def generate(seed: int, *, nodes: int = 5, is_unsafe: bool = False) -> Plan:
    """Return the plan of a seed."""
    chance = random.Random(f"{seed} plan")
    safety_us = chance.choice((10, 20, 40)) * _SECOND_US
    clients = tuple(ClientPlan(lag_ms=chance.choice((0, 0, 2_000, 20_000))) for _ in range(4))
    resolve = chance.choice(list(Resolve))
    keyspace = Keyspace(name="default", sloppy=chance.random() < 0.5, resolve=resolve)
    return Plan(
        seed=seed,
        nodes=nodes,
        keyspaces=(keyspace,),
        clients=clients,
        operations=tuple(_operation(seed, number, safety_us) for number in range(200)),
        faults=tuple(
            _fault(seed, number, safety_us, nodes) for number in range(chance.randint(3, 15))
        ),
        safety_us=safety_us,
        liveness_us=0,
        is_unsafe=is_unsafe,
    )


def _operation(seed: int, number: int, safety_us: int) -> Operation:
    chance = random.Random(f"{seed} operation {number}")
    return Operation(
        id=f"o{number}",
        at_us=10_000 + chance.randrange(safety_us),
        client=chance.randrange(4),
        kind=chance.choices(list(_OPERATIONS), list(_OPERATIONS.values()))[0],
        keyspace="default",
        key=chance.choice("abcd"),
    )


def _fault(seed: int, number: int, safety_us: int, nodes: int) -> Fault:
    chance = random.Random(f"{seed} fault {number}")
    kind = chance.choices(list(_FAULTS), list(_FAULTS.values()))[0]
    args: dict[str, object] = {}
    a, b = chance.sample(range(1, nodes + 1), 2)
    match kind:
        case "shake":
            args = {"drops": chance.choice((0.0, 0.02, 0.1)), "duplicates": 0.05}
        case "cut":
            args = {"pairs": [[a, b]], "one_way": chance.random() < 0.3}
        case "crash":
            args = {"nodes": [a]}
        case "wipe":
            args = {"node": a}
        case _:
            args = {"node": a, "ahead_ms": chance.choice((-30_000, 500, 30_000))}
    for_us = chance.choice((100_000, 1_000_000, 5_000_000))
    return Fault(
        id=f"f{number}", at_us=chance.randrange(safety_us), kind=kind, args=args, for_us=for_us
    )
