"""Who is asked first: the cluster's topology and the choice of a coordinator.

Decides the node for each attempt. What begins together goes to as few owners as possible: frames
cost more than operations, from here to the nodes and between them. Which owner that is, the first
of the operations says: over time all of them.
A node that cannot reach enough owners of a partition is avoided for that partition for a while:
who is cut off with few owners of one key may be with most owners of another. Whom it did reach is
probably on its side of a cut: the operation that it refused goes to the others first.
Laws: an owner that is ready and not avoided comes before any other node; a node that refused this
attempt, or still owes it an answer, is not asked again before the others were; with all avoided,
none is.
Tests: tests/unit/client/test_routing.py.
Source: DeCandia et al., "Dynamo" (2007), section 4.5 (partition-aware clients); design, 2.1 and
2.9.
Left out: computing ownership; the topology names each partition's nodes in order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from kvclient.bounds import BOUNDS, Bounds
from kvclient.errors import InvalidRequest
from kvclient.operation import Lane, LaneState, Operation
from kvproto.token import TOKEN_BITS, token

_READY = LaneState.READY  # looked up once: an enum's members are slow to reach


@dataclass(frozen=True, slots=True)
class Member:
    """A node as the topology knows it."""

    id: str
    number: int
    address: str
    rack: str = ""
    weight: float = 1.0
    state: str = ""


@dataclass(frozen=True, slots=True)
class KeyspaceSettings:
    """A keyspace and what its requests default to."""

    name: str
    n: int
    r: int
    w: int
    is_sloppy: bool = True
    resolve: str = "majority"
    ttl_ms: int = 0
    durability: str = "fsync"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Who the members are and in which order they are asked for each partition.

    Attributes:
        partitions: a power of two.
        walks: node numbers for each partition, in order of preference.
    """

    cluster_id: bytes
    name: str
    epoch: int
    partitions: int
    members: tuple[Member, ...]
    keyspaces: Mapping[str, KeyspaceSettings] = field(default_factory=dict)
    walks: tuple[tuple[int, ...], ...] = ()

    @property
    def partition_bits(self) -> int:
        """log2 of the number of partitions."""
        return self.partitions.bit_length() - 1


class Router:
    """For each partition all lanes, in the order in which they should be asked.

    Cost: one tuple of all nodes for each partition, made anew at each topology.
    """

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.topology: Topology | None = None
        self._company = bounds.company_operations
        self._avoid_s = bounds.avoid_ms / 1000
        self._avoided: dict[int, dict[Lane, float]] = {}
        """By partition: who is avoided, until when. No more than there are of both."""
        self._n_of: dict[str, int] = {}
        self._orders: list[tuple[Lane, ...]] = []
        self._shift = TOKEN_BITS

    def install(self, topology: Topology, lanes: Mapping[int, Lane]) -> None:
        """Route by a topology; `lanes` has one for each member's number."""
        self.topology = topology
        self._shift = TOKEN_BITS - topology.partition_bits
        self._avoided.clear()
        self._n_of = {name: settings.n for name, settings in topology.keyspaces.items()}
        walks = topology.walks or ((),) * topology.partitions
        self._orders = [
            _order(walk, lanes, start=partition) for partition, walk in enumerate(walks)
        ]

    def partition(self, keyspace: str, key: bytes) -> int:
        """Return the partition of a key."""
        return token(keyspace, key) >> self._shift

    def avoid(self, partition: int, lane: Lane, now: float) -> None:
        """A node cannot reach enough owners of a partition: rather ask others, for a while."""
        self._avoided.setdefault(partition, {})[lane] = now + self._avoid_s

    def go_across(self, operation: Operation, reached: Collection[str]) -> None:
        """One that cannot reach enough has reached these: rather ask the others."""
        order = self._orders[operation.partition]
        operation.beside = tuple(lane for lane in order if lane.node in reached)

    def choose(self, operation: Operation, now: float) -> Lane | None:
        """Return the lane for the next attempt, dialling owners on the way; None if all are out."""
        order = self._orders[operation.partition]
        if operation.partition in self._avoided:
            order = self._avoided_last(operation.partition, order, now)
        elif order and order[0].state is _READY and not operation.attempts:
            return self._in_company(order, operation)  # nearly always
        if operation.beside:
            order = tuple(sorted(order, key=operation.beside.__contains__))
        lane = _first_ready(order, operation) or _least_bad(order, operation)
        if lane is None and operation.refused:
            operation.refused = operation.beside = ()  # all were asked: begin again
            lane = _first_ready(order, operation) or _least_bad(order, operation)
        return lane

    def _avoided_last(
        self, partition: int, order: tuple[Lane, ...], now: float
    ) -> tuple[Lane, ...]:
        avoided = self._avoided[partition]
        for lane in [lane for lane, until in avoided.items() if until <= now]:
            del avoided[lane]
        if not avoided:
            del self._avoided[partition]
            return order
        return tuple(sorted(order, key=avoided.__contains__))

    def _in_company(self, order: tuple[Lane, ...], operation: Operation) -> Lane:
        """Return the first owner's lane, or one of another owner that a frame is about to leave by.

        All lanes count as owners' up to the keyspace's n, also those in trouble: as nodes count.
        """
        if not order[0].outbox:
            for lane in order[1 : self._n_of.get(operation.keyspace, 1)]:
                if lane.state is _READY and 0 < len(lane.outbox) < self._company:
                    return lane
        return order[0]

    def has_another(self, operation: Operation) -> bool:
        """Say whether an owner of the key, or one of as many others (who may stand in, or reach
        them), has not refused this operation yet."""
        order = self._orders[operation.partition]
        first = order[: 2 * self._n_of.get(operation.keyspace, 1)]
        return any(lane not in operation.refused for lane in first)

    def order(self, partition: int) -> tuple[Lane, ...]:
        """Return all lanes in the order for a partition."""
        return self._orders[partition]


def _order(walk: Iterable[int], lanes: Mapping[int, Lane], *, start: int) -> tuple[Lane, ...]:
    """The partition's own nodes, then the others, turned so that none is everyone's second."""
    own = [lanes[number] for number in walk if number in lanes]
    rest = [lane for lane in lanes.values() if lane not in own]
    turn = start % len(rest) if rest else 0
    return (*own, *rest[turn:], *rest[:turn])


def _first_ready(order: tuple[Lane, ...], operation: Operation) -> Lane | None:
    for lane in order:
        if lane.state is _READY:
            if lane not in operation.others and lane not in operation.refused:
                return lane
        elif lane.state is LaneState.IDLE:
            lane.dial()
    return None


def _least_bad(order: tuple[Lane, ...], operation: Operation) -> Lane | None:
    """Nobody is known to be well: rather a node that is being dialled than one that is silent."""
    candidates = [
        lane
        for lane in order
        if lane.state is not LaneState.DOWN
        and lane not in operation.others
        and lane not in operation.refused
    ]
    return min(candidates, key=_badness, default=None)


def _badness(lane: Lane) -> int:
    return lane.state


def parse_seeds(seeds: str | Iterable[str]) -> tuple[str, ...]:
    """Return addresses from one "host:port", a comma list of them, or an iterable.

    Raises: InvalidRequest naming the part that is no address.
    """
    parts = seeds.split(",") if isinstance(seeds, str) else list(seeds)
    addresses = tuple(dict.fromkeys(_address(part) for part in parts if part.strip()))
    if not addresses:
        raise InvalidRequest("no seed given: say where one node is, as host:port")
    return addresses


def _address(text: str) -> str:
    text = text.strip()
    host, colon, port = text.rpartition(":")
    if colon and ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise InvalidRequest(f"seed {text!r}: write IPv6 as [address]:port")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidRequest(f"seed {text!r} is not host:port")
    return text
