"""What one simulated run does, as data: who takes part, what is asked and what breaks, and when.

What it decides: nothing. Items have names that stay ("o17", "f3"): leaving one out changes no
other, since what an item draws while it runs comes from a stream of its own name.
Laws: `Plan.from_json(plan.to_json()) == plan`; a plan holds all that a run needs but the code.
Its tests are tests/sim/test_plans.py. Left out: how plans are drawn (tests/sim/generate.py) and
what becomes of them (tests/sim/run.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kvnode.core.topology import Durability, Keyspace, Resolve

FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientPlan:
    """One session."""

    lag_ms: int = 0
    """How far its idea of the cluster's time is behind, before it hears better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One call of one client, begun at its time whatever became of earlier ones."""

    id: str
    at_us: int
    client: int
    """Its place among the plan's clients, from 0."""
    kind: str
    """See tests/sim/workloads.py."""
    keyspace: str
    key: str
    ttl_ms: int = 0
    """Of a put: 0 for the keyspace's own."""
    at: int = 0
    """The node that is asked first; 0: the client chooses."""
    r: int = 0
    """0: the keyspace's."""
    w: int = 0
    explain: bool = False
    """Of a read."""
    size: int = 0
    """Bytes that a put's value has besides its name."""
    timeout_ms: int = 5_000

    @property
    def value(self) -> bytes:
        """What a put writes: no other item of the plan writes it."""
        return self.id.encode() + b"." * self.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, and for how long."""

    id: str
    at_us: int
    kind: str
    """See tests/sim/faults.py."""
    args: dict[str, Any] = field(default_factory=dict)
    """What the kind needs to know: nodes, shares, times. JSON."""
    for_us: int = 0
    """Until it ends by itself; 0: it has no end, or needs none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run. All instants are us since its beginning."""

    seed: int
    nodes: int
    keyspaces: tuple[Keyspace, ...]
    limits: dict[str, float] = field(default_factory=dict)
    """Fields of `kvnode.core.bounds.Limits` that differ from what is usual."""
    knobs: dict[str, float] = field(default_factory=dict)
    """What else of the nodes or the world differs: see tests/sim/knobs.py."""
    clients: tuple[ClientPlan, ...]
    operations: tuple[Operation, ...]
    faults: tuple[Fault, ...]
    safety_us: int
    """How long faults may act."""
    liveness_us: int
    """How long afterwards only the nodes of `core` are well; 0: this phase is left out."""
    core: tuple[int, ...] = ()
    """Nodes that serve in the liveness phase; all others are down, or cut off."""
    core_is_cut: bool = False
    """Whether those others run, cut off from the core."""
    is_unsafe: bool = False
    """Whether faults may damage every copy of a record at a time: what is lost then is no bug."""
    comment: str = ""
    """Of a kept plan: what it found."""

    def without(self, names: Iterable[str]) -> Plan:
        """Return the plan without the items of these names."""
        gone = frozenset(names)
        return self._filtered(lambda name: name not in gone)

    def only(self, names: Iterable[str]) -> Plan:
        """Return the plan with no items but those of these names."""
        kept = frozenset(names)
        return self._filtered(lambda name: name in kept)

    def items(self) -> list[str]:
        """Return the names of all items, operations first."""
        operations = [item.id for item in self.operations]
        return operations + [fault.id for fault in self.faults]

    def to_json(self) -> str:
        """Return it as text, an item a line."""
        data = {"format": FORMAT, **asdict(self)}
        operations = [_compact(item, Operation) for item in data.pop("operations")]
        faults = [_compact(item, Fault) for item in data.pop("faults")]
        head = json.dumps(data, indent=1)[:-2]
        return f'{head},\n "operations": {_lines(operations)},\n "faults": {_lines(faults)}\n}}\n'

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Return the plan that `to_json` wrote. Raises: ValueError naming what is wrong."""
        data = json.loads(text)
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ValueError(f"not a plan of format {FORMAT}")
        try:
            return cls(
                keyspaces=tuple(_keyspace(each) for each in data.pop("keyspaces")),
                clients=tuple(ClientPlan(**each) for each in data.pop("clients")),
                operations=tuple(Operation(**each) for each in data.pop("operations")),
                faults=tuple(Fault(**each) for each in data.pop("faults")),
                core=tuple(data.pop("core")),
                **data,
            )
        except (KeyError, TypeError) as exc:
            raise ValueError(f"not a plan: {exc}") from exc

    def _filtered(self, keeps: Any) -> Plan:
        return replace(
            self,
            operations=tuple(item for item in self.operations if keeps(item.id)),
            faults=tuple(item for item in self.faults if keeps(item.id)),
        )


def _lines(items: list[dict[str, Any]]) -> str:
    return "[\n  " + ",\n  ".join(map(json.dumps, items)) + "\n ]" if items else "[]"


def _compact(item: dict[str, Any], kind: type) -> dict[str, Any]:
    """Leave out what is as usual."""
    usual = {name: each.default for name, each in kind.__dataclass_fields__.items()}  # type: ignore[attr-defined]
    return {k: v for k, v in item.items() if v != usual[k] and v != {}}


def _keyspace(data: dict[str, Any]) -> Keyspace:
    resolve, durability = Resolve(data.pop("resolve")), Durability(data.pop("durability"))
    return Keyspace(**data, resolve=resolve, durability=durability)
