"""A typed shim over rocksdict: how RocksDB is opened and called, and what its errors mean.

The only importer of rocksdict. It decides three things: the options (below, with their reasons),
the calls that are safe (docs/storage-engine.md lists the traps, each with its test), and which of
the port's errors a text stands for, since rocksdict raises bare exceptions. What a failure means
for later writes is decided in `kvnode.storage.engine`.

Laws (tests/unit/storage/test_rocks.py):
  1. The write-ahead log is never disabled, block checksums are never switched off, the store is
     never "repaired".
  2. Nothing that survives `close` keeps the folder locked: no iterator outlives its call.
  3. A scan that ends early says so.

Left out: checkpoints. Rebuilding a damaged store is kvnode.storage.rebuild.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rocksdict

from kvnode.core.batch import Change, Family
from kvnode.storage.port import (
    Found,
    StorageDamaged,
    StorageError,
    StorageFenced,
    StorageFull,
    StorageLocked,
    StorageStalled,
)

_MIB = 1 << 20

_MEANINGS: tuple[tuple[str, type[StorageError]], ...] = (
    ("Result incomplete", StorageStalled),
    ("IO error: No space left on device", StorageFull),
    ("IO error: lock hold", StorageLocked),
    ("IO error: While lock file", StorageLocked),
    ("IO error: No such file", StorageDamaged),
    ("Corruption", StorageDamaged),
)

_NEWER = "Column families not opened"
"""RocksDB's words for families of keys that we do not name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How much memory and disk RocksDB may use. All figures are per node, in bytes."""

    write_buffer: int = 32 * _MIB
    """One memtable; larger means fewer, larger files and a longer log to replay at start."""
    write_buffers_total: int = 96 * _MIB
    """All memtables of all families together."""
    block_cache: int = 64 * _MIB
    """Blocks, indexes and filters that are kept in memory; the bound on what reads may take."""
    log_total: int = 128 * _MIB
    """Write-ahead logs; past it the oldest memtable is written out."""
    info_log_file: int = 4 * _MIB
    """One file of RocksDB's own notes; five are kept."""
    open_files: int = 256
    """File handles; more than this are opened and closed in turn."""
    stop_at_files: int = 36
    """Unmerged files at which writes stall; low values are for tests of that."""


def translate(error: Exception) -> StorageError:
    """Return the port's error for one of rocksdict's, by the prefix of its text.

    What is not known is `StorageFenced`: the worst conclusion is the safe one.
    """
    text = str(error)
    for prefix, meaning in _MEANINGS:
        if text.startswith(prefix):
            return meaning(text)
    return StorageFenced(text)


@contextmanager
def _translated() -> Iterator[None]:
    # For calls off the hot path. rocksdict raises nothing narrower than Exception.
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        if _NEWER in str(error):
            text = f"this store was written by a newer kvnode ({error}): use that one"
            raise StorageFenced(text) from error
        raise translate(error) from error


def _table_options(cache: rocksdict.Cache) -> rocksdict.BlockBasedOptions:
    table = rocksdict.BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_bloom_filter(10, False)
    # In the cache, so that the cache's capacity bounds them too.
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    return table


def _options(tuning: Tuning, cache: rocksdict.Cache) -> rocksdict.Options:
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.create_missing_column_families(True)
    options.set_block_based_table_factory(_table_options(cache))
    options.set_compression_type(rocksdict.DBCompressionType.lz4())
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_write_buffer_size(tuning.write_buffer)
    options.set_db_write_buffer_size(tuning.write_buffers_total)
    options.set_max_write_buffer_number(4)
    options.set_max_total_wal_size(tuning.log_total)
    options.set_level_zero_stop_writes_trigger(tuning.stop_at_files)
    options.set_level_zero_slowdown_writes_trigger(max(1, tuning.stop_at_files * 2 // 3))
    # Families reach the disk together: after a damaged log, no family is ahead of another, so
    # floors never cover records that were lost.
    options.set_atomic_flush(True)
    options.set_max_open_files(tuning.open_files)
    options.set_max_background_jobs(2)
    options.set_bytes_per_sync(_MIB)
    options.set_max_log_file_size(tuning.info_log_file)
    options.set_keep_log_file_num(5)
    return options


class RocksStore:
    """An open RocksDB with one column family per `Family`; raises only the port's errors."""

    __slots__ = ("_cache", "_db", "_families", "_handles", "_write_options")

    def __init__(
        self,
        path: Path,
        *,
        tuning: Tuning,
        read_only: bool = False,
        keep_readable_prefix: bool = False,
        is_salvage: bool = False,
    ) -> None:
        """Open the store at `path`, which is created when missing.

        With `keep_readable_prefix` a damaged log is read up to the damage and cut there; without,
        only a torn end is forgiven and damage before it is an error. With `is_salvage` table files
        may be missing or cut: what was in them cannot be read, what is in others can.

        Raises:
            StorageDamaged: the log, the manifest or a table file is not what was written.
            StorageLocked: it is open elsewhere.
        """
        mode = rocksdict.DBRecoveryMode
        self._cache = rocksdict.Cache(tuning.block_cache)
        options = _options(tuning, self._cache)
        options.set_wal_recovery_mode(
            mode.point_in_time() if keep_readable_prefix else mode.tolerate_corrupted_tail_records()
        )
        options.set_paranoid_checks(not is_salvage)
        access = rocksdict.AccessType
        with _translated():
            self._db = rocksdict.Rdict(
                str(path),
                options,
                column_families={_column(family): options for family in Family},
                access_type=access.read_only(False) if read_only else access.read_write(),
            )
        self._families = [self._db.get_column_family(_column(family)) for family in Family]
        self._handles = [self._db.get_column_family_handle(_column(family)) for family in Family]
        self._write_options = rocksdict.WriteOptions()
        # A stall raises instead of waiting: a waiting write would hold the interpreter lock.
        self._write_options.no_slowdown = True

    def get(self, family: Family, keys: list[bytes]) -> list[Found]:
        """Return the values of `keys`; one that cannot be read raises for all of them."""
        wanted: list[Any] = keys  # rocksdict's own type for them is a union in an invariant list
        try:
            # Always the list form: it frees the interpreter lock during disk reads.
            found: Any = self._families[family].get(wanted)
        except Exception as error:
            raise translate(error) from error
        values: list[Found] = found
        return values

    def write(self, changes: list[Change]) -> None:
        """Apply `changes` in one batch, not synced. Cost: a microsecond a change."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        put, delete, handles = batch.put, batch.delete, self._handles
        for family, key, value in changes:
            if value is None:
                delete(key, handles[family])
            else:
                put(key, value, handles[family])
        try:
            self._db.write(batch, self._write_options)
        except Exception as error:
            raise translate(error) from error

    def sync(self) -> None:
        """Make every completed write durable; frees the interpreter lock while it waits."""
        try:
            # Not a write with sync=True: that keeps the interpreter lock for the whole fsync.
            self._db.flush_wal(True)
        except Exception as error:
            raise translate(error) from error

    def scan(
        self, family: Family, start: bytes, end: bytes | None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Return up to `limit` pairs from `start` on, before `end`."""
        pairs, error = self.scan_what_reads(family, start, end, limit)
        if error is not None:
            raise error
        return pairs

    def scan_what_reads(
        self, family: Family, start: bytes, end: bytes | None, limit: int
    ) -> tuple[list[tuple[bytes, bytes]], StorageError | None]:
        """Return the pairs that `scan` would, up to what cannot be read, and why it ended there."""
        # An iterator of this kind and not items(): that one ends early, silently, at a bad block.
        cursor = self._families[family].iter()
        pairs: list[tuple[bytes, bytes]] = []
        try:
            cursor.seek(start)
            while len(pairs) < limit and cursor.valid():
                key = cursor.key()
                if end is not None and key >= end:
                    break
                pairs.append((key, cursor.value()))
                cursor.next()
            cursor.status()
        except Exception as error:  # noqa: BLE001 (translated: rocksdict raises nothing narrower)
            return pairs, translate(error)
        finally:
            # It would keep the folder locked for as long as somebody holds the exception.
            del cursor
        return pairs, None

    def count(self) -> int:
        """Return about how many records there are."""
        return self._property(Family.RECORDS, "rocksdb.estimate-num-keys")

    def size_bytes(self) -> int:
        """Return about how many bytes table files and memtables take."""
        names = ("rocksdb.total-sst-files-size", "rocksdb.size-all-mem-tables")
        return sum(self._property(family, name) for family in Family for name in names)

    def close(self) -> None:
        """Let go of the folder, also when RocksDB reports an error in doing so."""
        database = self._db
        # A column family that lives on keeps the folder locked.
        self._families, self._handles = [], []
        del self._db
        try:
            with _translated():
                database.close()
        finally:
            del database  # or the exception's frames would keep it

    def _property(self, family: Family, name: str) -> int:
        return self._families[family].property_int_value(name) or 0


def _column(family: Family) -> str:
    return family.name.lower()
