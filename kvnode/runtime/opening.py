"""A node's store is opened, and a life begins on it (kvnode.runtime.beginning).

Laws: a damaged store is rebuilt beside (kvnode.storage.rebuild) before anything is served from it,
and the new one is not proven; a store that is not as its clean stop left it is not proven either.
Tests: tests/unit/runtime/test_opening.py, tests/unit/runtime/test_server.py.
Source: design, sections 2.2 and 2.4.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from kvnode.core.node import Node
from kvnode.runtime.beginning import Start, begin_life
from kvnode.runtime.birth import Birth
from kvnode.runtime.claims import place_of
from kvnode.runtime.config import ClusterConfig, topology_at_birth
from kvnode.runtime.identity import Identity
from kvnode.runtime.proof import this_boot
from kvnode.storage.engine import RocksEngine, known_damage, note_damage, open_engine
from kvnode.storage.folder import DataFolder
from kvnode.storage.port import StorageDamaged
from kvnode.storage.rebuild import finish_rebuild, forget_old, old_store, rebuild
from kvnode.storage.rocks import Tuning
from kvnode.storage.tail import torn_end

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
    start = Start(
        node_id=node_id,
        incarnation=incarnation,
        limits=config.limits,
        cluster_key=birth.key,
        boot=this_boot(),
        place=place_of(folder.path),
        is_restored=is_restored,
    )
    born = topology_at_birth(config, birth.cluster_id)
    begun = begin_life(engine, folder, start, born=born)
    if begun.node.replica.is_proven:
        forget_old(folder.store_path)
    return Opened(begun.node, begun.identity, engine)
