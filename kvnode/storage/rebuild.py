"""Rebuilding a damaged store beside the old one: what can be read of it, checked record by record.

    store      the damaged one              store.old  the damaged one, kept aside until proven
    store.new  being filled: discarded      store      what could be read of it
               if anything interrupts this  store.rebuilds  why, a line for each, until proven

It decides what of a damaged store is worth keeping: every pair that reads; of the records, those
that their checksums vouch for. Not the floors, which would call lost records superseded, and not
the trees, which would hide that they are lost. The indexes of open conflicts and of tombstones are
made anew from the records. A store that cannot be opened at all is set aside whole, and an empty
one begins.

Laws (tests/unit/storage/test_rebuild.py):
  1. What comes out is what was written at some time, never a wrong byte, and it says that it is
     damaged (`RocksEngine.damage`) until somebody has noted the doubt.
  2. A crash at any instant leaves the old store in its place, or the finished new one.
  3. At most one old store is kept, the latest; no more than `REBUILDS_MAX` rebuilds follow one
     another without a proof in between: a disk that fails again and again is no place for data.

Cost: some 20 us a record, and as much room on the disk as is kept. Nothing is served meanwhile:
this runs before the node listens.
Left out: tables of a level that is unreadable as a whole (RocksDB reads all of a range or nothing);
what was in them comes from peers.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.keys import StorageKey
from kvnode.core.record import DamagedRecord, decode
from kvnode.core.resolve import is_conflict
from kvnode.core.shelf import note_grave
from kvnode.storage.durable import remove_file, sync_folder, write_file
from kvnode.storage.engine import known_damage, note_damage
from kvnode.storage.port import StorageDamaged, StorageError, StorageStalled
from kvnode.storage.rocks import RocksStore, Tuning

log = logging.getLogger(__name__)

REBUILDS_MAX = 5
_MARK = "rebuilt: "
_SLICE = 64
"""Pairs in memory at a time: each may hold the largest value."""
_BATCH_BYTES = 4 << 20
_STALL_S = 0.01
_TELL_EVERY_S = 10.0
_GAPS_MAX = 10_000
"""Unreadable stretches of one family after which the rest of it counts as unreadable."""
_REACH_BYTES = 16
"""Of a key, that is: how finely the end of an unreadable stretch is looked for."""
_REACH = 1 << 8 * _REACH_BYTES
_COPIED = (Family.META, Family.RECORDS, Family.HINTS, Family.CONFLICT_LOG)


@dataclass(slots=True)
class Salvage:
    """What became of a damaged store."""

    kept: int = 0
    """Pairs."""
    damaged: int = 0
    """Records that could be read and whose checksums are wrong."""
    gaps: int = 0
    """Stretches of keys that could not be read."""
    is_empty: bool = False
    """Nothing at all could be read."""

    def __str__(self) -> str:
        if self.is_empty:
            return "nothing in it could be read"
        return (
            f"{self.kept} entries kept, {self.damaged} damaged records dropped, "
            f"{self.gaps} unreadable stretches"
        )


class Source(Protocol):
    """A store some of which may not read."""

    def scan_what_reads(
        self, family: Family, start: bytes, end: bytes | None, limit: int
    ) -> tuple[list[tuple[bytes, bytes]], StorageError | None]:
        """Return the pairs up to the first that cannot be read, and why it cannot."""
        ...


def old_store(store: Path) -> Path:
    """Return where the damaged store is kept aside."""
    return store.with_name(f"{store.name}.old")


def _rebuilds(store: Path) -> Path:
    return store.with_name(f"{store.name}.rebuilds")


def _new_store(store: Path) -> Path:
    return store.with_name(f"{store.name}.new")


def finish_rebuild(store: Path) -> None:
    """Finish what a crash interrupted: call this before the store is opened."""
    new = _new_store(store)
    if not new.exists():
        return
    if store.exists() or not known_damage(new):
        shutil.rmtree(new)  # it is not finished, or was not put in place: the old one is there
    else:
        new.rename(store)
    sync_folder(store.parent)


def forget_old(store: Path) -> None:
    """Remove the damaged store that was kept aside: the new one has been proven."""
    shutil.rmtree(old_store(store), ignore_errors=True)
    remove_file(_rebuilds(store))


def rebuild(store: Path, why: str, *, tuning: Tuning) -> Salvage:
    """Put what can be read of the store at `store` in its place, closed and durable.

    Args:
        store: a store's folder that nobody has open.
        why: what is wrong with it, for people; told by every opening until the store is proven.
        tuning: of both stores.

    Raises:
        StorageDamaged: it has been rebuilt too often, and never proven in between.
        StorageFull: there is no room for both; the old store is as it was.
    """
    rebuilds = _rebuilds(store)
    before = rebuilds.read_text(encoding="utf-8") if rebuilds.exists() else ""
    if before.count("\n") >= REBUILDS_MAX:
        raise StorageDamaged(
            f"{store} has been rebuilt {REBUILDS_MAX} times and is damaged again ({why}): use "
            "another disk, or remove the folder to begin empty"
        )
    new = _new_store(store)
    shutil.rmtree(new, ignore_errors=True)
    try:
        salvage = _fill(store, new, tuning)
        told = " ".join(f"{_MARK}{why}; {salvage}".split())
        write_file(rebuilds, f"{before}{told}\n")
        # Last: a store without it is not finished.
        note_damage(new, (*known_damage(store), told))
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    _swap(store, new)
    return salvage


def _swap(store: Path, new: Path) -> None:
    sync_folder(new)
    shutil.rmtree(old_store(store), ignore_errors=True)
    if store.exists():
        store.rename(old_store(store))
    new.rename(store)
    sync_folder(store.parent)


def _fill(store: Path, new: Path, tuning: Tuning) -> Salvage:
    salvage = Salvage()
    source = _open_damaged(store, tuning)
    target = RocksStore(new, tuning=tuning)
    try:
        if source is None:
            salvage.is_empty = True
        else:
            copy_what_reads(source, lambda batch: _write(target, batch), salvage)
        target.sync()
    finally:
        target.close()
        if source is not None:
            source.close()
    return salvage


def _open_damaged(store: Path, tuning: Tuning) -> RocksStore | None:
    """Open what is left, changing nothing; None if it cannot be opened by any means."""
    if not (store / "CURRENT").exists():
        return None
    try:
        return RocksStore(
            store, tuning=tuning, read_only=True, keep_readable_prefix=True, is_salvage=True
        )
    except StorageDamaged as exc:
        log.error("store_unreadable why=%s", " ".join(str(exc).split()))
        return None


def copy_what_reads(source: Source, write: Callable[[WriteBatch], None], salvage: Salvage) -> None:
    """Write what is worth keeping of a damaged store, and count it."""
    batch = WriteBatch()
    size, told = 0, time.monotonic()
    for family in _COPIED:
        for key, value in readable(source, family, salvage):
            if family is Family.RECORDS and not _index(batch, key, value):
                salvage.damaged += 1
                continue
            batch.put(family, key, value)
            salvage.kept += 1
            size += len(key) + len(value)
            if size > _BATCH_BYTES:
                write(batch)
                batch, size = WriteBatch(), 0
            if time.monotonic() - told > _TELL_EVERY_S:
                told = time.monotonic()
                log.info("rebuilding kept=%d", salvage.kept)
    write(batch)


def _index(batch: WriteBatch, name: bytes, value: bytes) -> bool:
    """Index a sound record; say whether it is one."""
    key = StorageKey(name)
    try:
        record = decode(key, value)
    except DamagedRecord:
        return False
    if is_conflict(record, 0):
        batch.put(Family.CONFLICTS, key, b"")
    note_grave(key, value, batch)
    return True


def _write(target: RocksStore, batch: WriteBatch) -> None:
    while batch:
        try:
            target.write(batch.changes)
        except StorageStalled:
            time.sleep(_STALL_S)  # nobody else runs: this is before the node serves
        else:
            return


def readable(source: Source, family: Family, salvage: Salvage) -> Iterator[tuple[bytes, bytes]]:
    """Walk all pairs of a family that can be read, in order, around those that cannot."""
    start, gaps = b"", 0
    while True:
        pairs, error = source.scan_what_reads(family, start, None, _SLICE)
        yield from pairs
        if pairs:
            start = pairs[-1][0] + b"\x00"
        if error is None:
            if len(pairs) < _SLICE:
                return
            continue
        salvage.gaps, gaps = salvage.gaps + 1, gaps + 1
        after = _end_of_gap(lambda at: _reads_at(source, family, at), start)
        if after is None or gaps == _GAPS_MAX:
            return
        start = after


def _reads_at(source: Source, family: Family, start: bytes) -> bool:
    pairs, error = source.scan_what_reads(family, start, None, 1)
    return bool(pairs) or error is None


def _end_of_gap(reads_at: Callable[[bytes], bool], start: bytes) -> bytes | None:
    """Return where reading can go on after a place that does not read; None: nowhere.

    Ever longer strides until a place reads, then bisection: some 250 probes at most.
    """
    bad = int.from_bytes(start[:_REACH_BYTES].ljust(_REACH_BYTES, b"\x00"))
    first, stride = bad, 1
    while (good := first + stride) < _REACH and not reads_at(_place(good)):
        bad, stride = good, 2 * stride
    if good >= _REACH:
        return None
    while good - bad > 1:
        middle = (good + bad) // 2
        if reads_at(_place(middle)):
            good = middle
        else:
            bad = middle
    return _place(good)


def _place(number: int) -> bytes:
    return number.to_bytes(_REACH_BYTES)
