"""The engine on RocksDB: positions, the fence, the watermark of free space, damage at opening.

It decides what a fault means for later writes. `kvnode.storage.rocks` makes the calls.

Laws (tests/unit/storage/test_engine.py, besides those of the port):
  1. After a failed sync, or a write that failed other than by a stall, the engine is fenced for
     good: it never calls a later sync a success, because what the kernel dropped it does not retry.
  2. Below half the watermark of free space a write is refused before RocksDB sees it, since a disk
     that is really full keeps the store from writing until it is opened anew.
  3. A torn end of the log is dropped silently (nothing there was acknowledged); damage before the
     end is dropped loudly, in `damage`, which later openings repeat until it is forgotten: the
     dropped part leaves no other trace, so a crash right after would hide it.
  4. A store whose files are there without the one that names them is damaged, never new.

Sources: Rebello et al., "Can Applications Recover from fsync Failures?" (ATC 2020).
Left out: rebuilding a store whose table files are damaged: kvnode.storage.rebuild.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from kvnode.core.batch import Family, WriteBatch
from kvnode.storage.durable import remove_file, write_file
from kvnode.storage.port import (
    Found,
    Position,
    ReadFailure,
    StorageDamaged,
    StorageError,
    StorageFenced,
    StorageFull,
    StorageStalled,
)
from kvnode.storage.rocks import RocksStore, Tuning

_LOGS = "*.log"
_DAMAGE = "kvnode-damage"
_UNREADABLE = "Input/output error"
"""How the disk's own refusal to read ends an error's text."""


class RocksReader:
    """A store on disk, to be read: the offline view of a stopped node, or of one that runs."""

    def __init__(self, store: RocksStore, damage: tuple[str, ...] = ()) -> None:
        """Read through `store`, which this object now owns."""
        self._store: RocksStore | None = store
        self.damage = damage

    def multi_get(self, family: Family, keys: Sequence[bytes]) -> list[Found]:
        """Return what is stored under each key; see the port."""
        store = self._open_store()
        wanted = keys if type(keys) is list else list(keys)
        try:
            return store.get(family, wanted)
        except StorageError:
            # One bad key raises for all: ask for each alone.
            return [_get_one(store, family, key) for key in wanted]

    def scan(
        self, family: Family, start: bytes, end: bytes | None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Return a slice of `family`; see the port."""
        assert limit > 0
        return self._open_store().scan(family, start, end, limit)

    def approximate_count(self) -> int:
        """Return about how many records there are."""
        return self._open_store().count()

    def size_bytes(self) -> int:
        """Return about how many bytes the store takes."""
        return self._open_store().size_bytes()

    def close(self, clean: bool = True) -> None:
        """Let go of the store."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def _open_store(self) -> RocksStore:
        if self._store is None:
            raise StorageFenced("the store is closed")
        return self._store


class RocksEngine(RocksReader):
    """A node's store on disk."""

    def __init__(
        self,
        store: RocksStore,
        path: Path,
        *,
        damage: tuple[str, ...] = (),
        min_free_bytes: int = 0,
        sync_journal: Path | None = None,
    ) -> None:
        """Drive an open store; `open_engine` makes one."""
        super().__init__(store, damage)
        self.written = Position(0)
        self.durable = Position(0)
        self.fenced: str | None = None
        self._path = path
        self._watermark = _sensible_watermark(path, min_free_bytes)
        self._free = _free_bytes(path)
        self._journal = sync_journal

    @property
    def is_full(self) -> bool:
        """Whether free space was below the watermark when last looked at."""
        return self._is_below(self._watermark)

    def write(self, batch: WriteBatch) -> Position:
        """Apply the batch at once, not yet durably; see the port."""
        if self.fenced is not None or self._store is None:
            raise StorageFenced(self.fenced or "the store is closed")
        if self._is_below(self._watermark // 2):
            raise StorageFull(f"{self._free} bytes are free; the reserve is {self._watermark // 2}")
        try:
            self._store.write(batch.changes)
        except StorageStalled:
            raise
        except StorageError as error:
            self.fenced = str(error)
            raise
        position = self.written = Position(self.written + 1)
        return position

    def flush(self) -> Position:
        """Make everything written before the call durable; see the port."""
        store = self._store
        if self.fenced is not None or store is None:
            raise StorageFenced(self.fenced or "the store is closed")
        reached = self.written
        logs = _log_lengths(self._path) if self._journal is not None else ()
        try:
            store.sync()
        except StorageError as error:
            self.fenced = str(error)
            raise StorageFenced(self.fenced) from error
        if self._journal is not None:
            _note_synced(self._journal, logs)
        self.durable = reached
        self._free = _free_bytes(self._path)
        return reached

    def forget_damage(self) -> None:
        """Forget what was lost; see the port."""
        remove_file(self._path / _DAMAGE)
        self.damage = ()

    def close(self, clean: bool = True) -> None:
        """Let go of the store, after a last flush when `clean`."""
        if self._store is None:
            return
        try:
            if clean:
                self.flush()
        finally:
            try:
                super().close(clean)
            except StorageError:
                # A fenced store reports its old error again; the flush above has said it.
                if clean and self.fenced is None:
                    raise

    def _is_below(self, bound: int) -> bool:
        if self._free >= bound:
            return False
        # Space may have been freed since; nothing else would look again while writes are refused.
        self._free = _free_bytes(self._path)
        return self._free < bound


def open_engine(
    path: Path,
    *,
    tuning: Tuning | None = None,
    min_free_bytes: int = 64 << 20,
    sync_journal: Path | None = None,
) -> RocksEngine:
    """Open the store at `path` for writing, creating it when missing.

    `min_free_bytes` is the watermark of free space, at most a quarter of the disk. After every
    completed flush `sync_journal` gets a line "file length" for each log: for power-cut tests.

    Raises:
        StorageDamaged: more than the log is damaged.
        StorageLocked: it is open elsewhere.
    """
    store, damage = _open_tolerantly(path, tuning=tuning or Tuning(), read_only=False)
    return RocksEngine(
        store, path, damage=damage, min_free_bytes=min_free_bytes, sync_journal=sync_journal
    )


def open_read_only(path: Path) -> RocksReader:
    """Open the store at `path` for reading, beside its owner if that runs.

    Raises:
        FileNotFoundError: there is no store.
        StorageDamaged: it cannot be read.
    """
    if not (path / "CURRENT").exists():
        raise FileNotFoundError(path)
    return RocksReader(*_open_tolerantly(path, tuning=Tuning(), read_only=True))


def _open_tolerantly(
    path: Path, *, tuning: Tuning, read_only: bool
) -> tuple[RocksStore, tuple[str, ...]]:
    if not (path / "CURRENT").exists() and any(path.glob("*.sst")):
        # RocksDB would make a new store here, and remove the tables.
        raise StorageDamaged(f"{path} holds tables but no CURRENT, which says what they are")
    known = known_damage(path)
    try:
        return RocksStore(path, tuning=tuning, read_only=read_only), known
    except StorageDamaged as error:
        refusal = " ".join(str(error).split())  # one line of the file
    logs = ", ".join(f"{name} ({length} bytes)" for name, length in _log_lengths(path))
    damage = (*known, f"{refusal}; of {logs} only what precedes the damage was kept")
    if not read_only:
        # Before the opening that drops it: a crash in between must not make it forgotten.
        note_damage(path, damage)
    store = RocksStore(path, tuning=tuning, read_only=read_only, keep_readable_prefix=True)
    return store, damage


def note_damage(path: Path, damage: Sequence[str]) -> None:
    """Have every opening of the store at `path` tell this damage, until it is forgotten."""
    write_file(path / _DAMAGE, "".join(f"{' '.join(line.split())}\n" for line in damage))


def known_damage(path: Path) -> tuple[str, ...]:
    """Return the damage that openings of the store at `path` tell."""
    try:
        return tuple((path / _DAMAGE).read_text(encoding="utf-8").splitlines())
    except FileNotFoundError:
        return ()


def _get_one(store: RocksStore, family: Family, key: bytes) -> Found:
    try:
        return store.get(family, [key])[0]
    except StorageError as error:
        is_damage = isinstance(error, StorageDamaged) or _UNREADABLE in str(error)
        return ReadFailure(str(error), is_damage=is_damage)


def _log_lengths(path: Path) -> tuple[tuple[str, int], ...]:
    lengths = []
    for log in sorted(path.glob(_LOGS)):
        try:
            lengths.append((log.name, log.stat().st_size))
        except FileNotFoundError:
            continue  # RocksDB drops a log once its tables are durable.
    return tuple(lengths)


def _note_synced(journal: Path, logs: tuple[tuple[str, int], ...]) -> None:
    with journal.open("a", encoding="ascii") as lines:
        lines.writelines(f"{name} {length}\n" for name, length in logs)


def _free_bytes(path: Path) -> int:
    space = os.statvfs(path)
    return space.f_bavail * space.f_frsize


def _sensible_watermark(path: Path, min_free_bytes: int) -> int:
    space = os.statvfs(path)
    return min(min_free_bytes, space.f_blocks * space.f_frsize // 4)
