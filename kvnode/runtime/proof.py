"""Whether a store that is opened is known to hold all that it ever acknowledged.

After a clean stop it does. After a crash it does if every acknowledgement waited for the log, or
if the machine has not gone down since, for then the page cache kept the rest. A doubt is durable:
no later clean stop takes it away, only exchanges with the other owners do (kvnode.core.proving).
Damage becomes a doubt, and its floors go, in one batch; then it is told no more.
Tests: tests/unit/runtime/test_proof.py. Source: design, section 2.4.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.proving import UNPROVEN
from kvnode.core.topology import Durability, Topology
from kvnode.storage.port import Engine, ReadFailure

log = logging.getLogger(__name__)

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BOOT = b"boot"
_SCAN = 4_096
_ALL = b""


class Marker(Protocol):
    """Where a store says that its last stop was clean (kvnode.storage.folder)."""

    def take_clean_stop(self) -> bool:
        """Return whether it was, and forget it, durably."""
        ...


def this_boot(boot_id: Path = BOOT_ID) -> bytes:
    """Return what names the time since this machine was started; empty if nothing does."""
    return boot_id.read_bytes() if boot_id.exists() else b""


def judge(engine: Engine, marker: Marker, topology: Topology, *, boot: bytes) -> bytes | None:
    """Judge a store that has just been opened, durably. Takes the marker of its clean stop.

    Args:
        engine: the store.
        marker: of the same store.
        topology: in force, for what its keyspaces promise.
        boot: `this_boot`.

    Returns:
        What `Proving.load` takes: none if nothing is in doubt, b"" if all partitions are.
    """
    was_clean = marker.take_clean_stop()
    before, doubt = engine.multi_get(Family.META, [_BOOT, UNPROVEN])
    fsync = all(keyspace.durability is Durability.FSYNC for keyspace in topology.keyspaces)
    # Nothing noted before: a first start.
    is_whole = was_clean or before is None or fsync or (boot != b"" and before == boot)
    batch = WriteBatch()
    batch.put(Family.META, _BOOT, boot)
    mark = doubt if isinstance(doubt, bytes) else None
    if not is_whole or engine.damage or isinstance(doubt, ReadFailure):
        mark = _ALL
        note_doubt(batch)
    if engine.damage:
        for place, _ in scan_all(engine, Family.FLOORS):
            batch.delete(Family.FLOORS, place)
    engine.write(batch)
    engine.flush()
    if engine.damage:
        log.error("store_damaged what=%s", "; ".join(engine.damage))
        engine.forget_damage()
    return mark


def scan_all(engine: Engine, family: Family) -> Iterator[tuple[bytes, bytes]]:
    """Walk a family in slices."""
    start = b""
    while True:
        page = engine.scan(family, start, None, _SCAN)
        yield from page
        if len(page) < _SCAN:
            return
        start = page[-1][0] + b"\x00"


def note_doubt(batch: WriteBatch) -> None:
    """Have the batch say that nothing in this store is known to be complete."""
    batch.put(Family.META, UNPROVEN, _ALL)
