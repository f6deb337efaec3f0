"""A life begins on an open store: what it says is loaded, and who this is becomes durable.

On any engine, with no folder, clock or loop of its own: so a simulated node opens as a real one.
Laws: what cannot be read is damage and never an absence: no floor, no start number and no topology
is taken for unknown because its block is bad. Floors of a store that has lost records are not used.
Nothing is issued before the start number is durable, nothing served before the doubts are.
Tests: tests/unit/runtime/test_opening.py; with power cuts and damage: tests/sim/test_world.py.
Source: design, sections 2.2 and 2.4.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.bounds import Limits
from kvnode.core.conflict_log import ConflictLog
from kvnode.core.floors import Floors
from kvnode.core.hints import Hints
from kvnode.core.keys import Partition
from kvnode.core.node import Node
from kvnode.core.topology import NodeId, Topology
from kvnode.core.trees import trees_of
from kvnode.runtime.clock import wall_ms as this_wall_ms
from kvnode.runtime.identity import TOPOLOGY, Identity, Later, on_loop
from kvnode.runtime.proof import Marker, judge, scan_all
from kvnode.runtime.topology_codec import decode_topology
from kvnode.storage.port import Engine, ReadFailure, StorageDamaged
from kvproto import kv_pb2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Who begins, and where."""

    node_id: str
    """A member's."""
    incarnation: int
    """Fresh, 64 bits at most, not 0."""
    limits: Limits
    cluster_key: bytes
    """Seals contexts."""
    boot: bytes
    """As kvnode.runtime.proof says."""
    place: str
    """As kvnode.runtime.claims says."""
    is_restored: bool = False
    """Its operator vouches that the life known at another place is over."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A life that has begun."""

    node: Node
    identity: Identity


def begin_life(
    engine: Engine,
    marker: Marker,
    start: Start,
    *,
    born: Topology,
    wall_ms: Callable[[], int] = this_wall_ms,
    later: Later = on_loop,
) -> Begun:
    """Begin a life on a store that was just opened.

    Args:
        engine: the store.
        marker: of its last clean stop.
        start: who begins.
        born: the topology at birth; the store may know a newer one.
        wall_ms: the physical clock.
        later: does something after so many seconds.

    Raises:
        StorageDamaged: something that must be known cannot be read.
    """
    topology = _known_topology(engine, born)
    node, are_trees_whole = _known_node(engine, topology, start)
    identity = Identity(
        node,
        NodeId(start.node_id),
        engine,
        start.incarnation,
        place=start.place,
        is_restored=start.is_restored,
        wall_ms=wall_ms,
        later=later,
    )
    identity.begin_life()
    mark = judge(engine, marker, topology, boot=start.boot)
    _admit_doubts(node, engine, mark, are_trees_whole=are_trees_whole)
    return Begun(node, identity)


def _known_node(engine: Engine, topology: Topology, start: Start) -> tuple[Node, bool]:
    """Return the node that the store tells of, and whether its trees do for all that it holds."""
    member = topology.member(start.node_id)
    assert member is not None, "the command checked that the node is a member"
    trees, limits = trees_of(topology), start.limits
    are_whole = trees.load(scan_all(engine, Family.TREES)) and not engine.damage
    node = Node(
        number=member.number,
        actor=start.incarnation,
        topology=topology,
        limits=limits,
        cluster_key=start.cluster_key,
        floors=_known_floors(engine),
        hints=_known_hints(engine, limits.hint_bytes),
        trees=trees,
        conflicts=_known_conflicts(engine, limits.conflict_log_bytes),
    )
    return node, are_whole


def _admit_doubts(node: Node, engine: Engine, mark: bytes | None, *, are_trees_whole: bool) -> None:
    """Have the node know what it must not rely on, and have that durable before it serves."""
    replica = node.replica
    if mark == b"":
        replica.doubt(Partition(each) for each in range(node.topology.partitions))
    else:
        replica.proving.load(mark)
    # Trees may outlive the records that they speak of: damage takes what it likes.
    if not are_trees_whole and (_has(engine, Family.RECORDS) or _has(engine, Family.TREES)):
        for each in range(node.topology.partitions):
            replica.trees.doubt(Partition(each))
    if not replica.is_proven:
        log.warning("partitions_in_doubt count=%d", len(replica.proving.unproven))
    batch = WriteBatch()
    replica.save(batch)
    engine.write(batch)
    engine.flush()


def _has(engine: Engine, family: Family) -> bool:
    return bool(engine.scan(family, b"", None, 1))


def _known_floors(engine: Engine) -> Floors:
    floors = Floors()
    floors.load(scan_all(engine, Family.FLOORS))
    return floors


def _known_hints(engine: Engine, bytes_max: int) -> Hints:
    hints = Hints(bytes_max=bytes_max)
    hints.load(scan_all(engine, Family.HINTS))
    return hints


def _known_conflicts(engine: Engine, bytes_max: int) -> ConflictLog:
    log = ConflictLog(bytes_max=bytes_max)
    open_now = sum(1 for _ in scan_all(engine, Family.CONFLICTS))
    log.load(open_now, scan_all(engine, Family.CONFLICT_LOG))
    return log


def _known_topology(engine: Engine, born: Topology) -> Topology:
    """Return the newest topology that this node has followed; at birth, the file's."""
    found = engine.multi_get(Family.META, [TOPOLOGY])[0]
    if isinstance(found, ReadFailure):
        raise StorageDamaged(f"the topology cannot be read: {found.reason}")
    return born if found is None else decode_topology(kv_pb2.Topology.FromString(found))
