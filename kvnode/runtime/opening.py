"""A life begins: the store is opened, what it says is loaded, and who this is becomes durable.

Laws: what cannot be read is damage and never an absence: no floor, no start number and no topology
is taken for unknown because its block is bad. Floors of a store that has lost records are not used.
A damaged store is rebuilt beside (kvnode.storage.rebuild) before anything is served from it, and
the new one is not proven; a store that is not as its clean stop left it is not proven either.
Tests: tests/unit/runtime/test_opening.py, tests/unit/runtime/test_server.py.
Source: design, sections 2.2 and 2.4.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.conflict_log import ConflictLog
from kvnode.core.floors import Floors
from kvnode.core.hints import Hints
from kvnode.core.keys import Partition
from kvnode.core.node import Node
from kvnode.core.topology import NodeId, Topology
from kvnode.core.trees import trees_of
from kvnode.runtime.birth import Birth
from kvnode.runtime.claims import place_of
from kvnode.runtime.config import ClusterConfig, topology_at_birth
from kvnode.runtime.identity import TOPOLOGY, Identity
from kvnode.runtime.proof import judge, scan_all
from kvnode.runtime.topology_codec import decode_topology
from kvnode.storage.engine import RocksEngine, known_damage, note_damage, open_engine
from kvnode.storage.folder import DataFolder
from kvnode.storage.port import Engine, ReadFailure, StorageDamaged
from kvnode.storage.rebuild import finish_rebuild, forget_old, old_store, rebuild
from kvnode.storage.rocks import Tuning
from kvnode.storage.tail import torn_end
from kvproto import kv_pb2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Opened:
    """A life that has begun."""

    node: Node
    identity: Identity
    engine: RocksEngine


def open_node(
    *,
    node_id: str,
    config: ClusterConfig,
    birth: Birth,
    folder: DataFolder,
    incarnation: int,
    sync_journal: Path | None,
    is_restored: bool,
) -> Opened:
    """Open the store, rebuilt if it is damaged, and begin a life.

    Raises:
        StorageDamaged: it was rebuilt and cannot be read all the same.
        StorageFull: there is no room to rebuild it.
        StorageError: it cannot be opened now.
    """
    tuning = Tuning(block_cache=config.limits.block_cache_bytes)
    prepare_store(folder, tuning)

    def begin() -> Opened:
        engine = open_engine(folder.store_path, tuning=tuning, sync_journal=sync_journal)
        try:
            return _begin_life(
                engine, folder, config, birth, node_id, incarnation, is_restored=is_restored
            )
        except BaseException:
            engine.close(clean=False)
            raise

    try:
        return begin()
    except StorageDamaged as exc:
        rebuild_store(folder, tuning, str(exc))
        return begin()


def prepare_store(folder: DataFolder, tuning: Tuning) -> None:
    """Have the store in a state in which it may be opened."""
    store = folder.store_path
    finish_rebuild(store)
    if (torn := torn_end(store)) is not None:
        # Nothing in it was acknowledged: no reason for doubt.
        log.warning("log_torn file=%s dropped_bytes=%d", torn.log, torn.dropped)
    if wrong := folder.break_seal():
        log.error("alarm store_changed what=%s", wrong)
        store.mkdir(exist_ok=True)
        note_damage(store, (*known_damage(store), wrong))
    if why := folder.rebuild_asked():
        rebuild_store(folder, tuning, why)


def rebuild_store(folder: DataFolder, tuning: Tuning, why: str) -> None:
    """Rebuild the store beside; what follows is a new life that is not proven."""
    log.error("alarm store_rebuilds why=%s", " ".join(why.split()))
    salvage = rebuild(folder.store_path, why, tuning=tuning)
    folder.rebuild_done()
    log.warning("store_rebuilt what=%s old=%s", salvage, old_store(folder.store_path))


def _begin_life(
    engine: RocksEngine,
    folder: DataFolder,
    config: ClusterConfig,
    birth: Birth,
    node_id: str,
    incarnation: int,
    *,
    is_restored: bool,
) -> Opened:
    topology = _known_topology(engine, topology_at_birth(config, birth.cluster_id))
    member = topology.member(node_id)
    assert member is not None, "the command checked that the node is a member"
    trees = trees_of(topology)
    are_whole = trees.load(scan_all(engine, Family.TREES)) and not engine.damage
    node = Node(
        number=member.number,
        actor=incarnation,
        topology=topology,
        limits=config.limits,
        cluster_key=birth.key,
        floors=_known_floors(engine),
        hints=_known_hints(engine, config.limits.hint_bytes),
        trees=trees,
        conflicts=_known_conflicts(engine, config.limits.conflict_log_bytes),
    )
    place = place_of(folder.path)
    identity = Identity(
        node, NodeId(node_id), engine, incarnation, place=place, is_restored=is_restored
    )
    identity.begin_life()
    _admit_doubts(node, engine, judge(engine, folder, topology), are_trees_whole=are_whole)
    if node.replica.is_proven:
        forget_old(folder.store_path)
    return Opened(node, identity, engine)


def _admit_doubts(
    node: Node, engine: RocksEngine, mark: bytes | None, *, are_trees_whole: bool
) -> None:
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


def _has(engine: RocksEngine, family: Family) -> bool:
    return bool(engine.scan(family, b"", None, 1))


def _known_floors(engine: RocksEngine) -> Floors:
    floors = Floors()
    floors.load(scan_all(engine, Family.FLOORS))
    return floors


def _known_hints(engine: RocksEngine, bytes_max: int) -> Hints:
    hints = Hints(bytes_max=bytes_max)
    hints.load(scan_all(engine, Family.HINTS))
    return hints


def _known_conflicts(engine: RocksEngine, bytes_max: int) -> ConflictLog:
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
