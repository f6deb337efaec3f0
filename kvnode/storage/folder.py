"""The data folder of one node: whose it is, who uses it now, and how it was last left.

    identity.json    cluster, node, format version; written once, before anything else
    lock             held with flock by the process that uses the folder; names its pid
    clean-stop       exists only between a clean stop and the next start; holds the store's seal
    rebuild          exists while the store is known to be damaged: why
    store/           the engine's files; store.old, store.new: see kvnode.storage.rebuild

The *seal* says what a clean stop left: each file of the store that matters, its length, and its
digest unless it is a table. It is there for what RocksDB does not notice: a manifest that lost its
end tells of an older store, in good order, and the newer tables are removed as nobody's.

Laws (tests/unit/storage/test_folder.py):
  1. At most one process uses a folder, and a folder serves one node of one cluster for good.
  2. What is refused is refused in one line that says what to do, before anything was changed.
  3. A file of ours is there in full or not at all, also after a power cut.
  4. A seal that is broken is told once, by the next start; what the start itself does breaks none.

A node's log may lie in the same folder, and the folder may be a mount: files that logging and
file systems leave (`*.log*`, `*.pid`, dot files, lost+found) do not make it somebody else's.
Left out: reading older formats; there are none yet.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from kvnode.storage.durable import remove_file, sync_folder, write_file

FORMAT_VERSION = 1
"""Raised whenever an older kvnode could misread the folder."""

_IDENTITY = "identity.json"
_LOCK = "lock"
_CLEAN_STOP = "clean-stop"
_REBUILD = "rebuild"
_STORE = "store"
_SEALED = ("CURRENT", "MANIFEST-*", "*.log", "*.sst")
_OURS_OR_NOBODYS = (_LOCK, "*.log*", "*.pid", ".*", "lost+found", "*.tmp")


class FolderError(Exception):
    """The data folder cannot be used. The text is one line for the person who started the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whose folder it is."""

    cluster_id: str
    cluster_name: str
    node_id: str
    format_version: int = FORMAT_VERSION


class DataFolder:
    """An open data folder: locked for this process until `close`."""

    def __init__(self, path: Path, identity: Identity, lock: int) -> None:
        """Hold the folder by the locked descriptor `lock`; `open` makes one."""
        self.path = path
        self.identity = identity
        self._lock: int | None = lock

    @classmethod
    def open(
        cls, path: Path, *, cluster_id: str, node_id: str, cluster_name: str = ""
    ) -> DataFolder:
        """Lock the folder at `path` for this node; create it when missing or empty.

        The lock is not inherited by child processes, and ends with this one however it ends.

        Raises:
            FolderError: it is in use, not writable, not a folder, somebody else's, or too new.
        """
        wanted = Identity(cluster_id=cluster_id, cluster_name=cluster_name, node_id=node_id)
        try:
            _ensure_folder(path)
            known = _read_identity(path)
            _refuse_strangers(path, known, wanted)
            lock = _acquire(path)
        except OSError as error:
            raise FolderError(f"cannot use data folder {path}: {error.strerror}") from error
        try:
            # Once more under the lock: two starts may have found the folder empty.
            known = _read_identity(path)
            _refuse_strangers(path, known, wanted)
            return cls(path, known or _create(path, wanted), lock)
        except OSError as error:
            os.close(lock)
            raise FolderError(f"cannot write to data folder {path}: {error.strerror}") from error
        except FolderError:
            os.close(lock)
            raise

    @property
    def store_path(self) -> Path:
        """Where the engine's files are."""
        return self.path / _STORE

    def mark_clean_stop(self) -> None:
        """Note that everything is durable and nothing will be written any more."""
        write_file(self.path / _CLEAN_STOP, json.dumps(_seal_of(self.store_path), indent=0) + "\n")

    def break_seal(self) -> str:
        """Compare the store with the seal of its clean stop, before it is opened; break the seal.

        Returns what is wrong in one line; nothing if all is well, or nothing was sealed. The marker
        stays: a crash right after this was preceded by a clean stop all the same.
        """
        marker = self.path / _CLEAN_STOP
        try:
            sealed = json.loads(marker.read_text(encoding="utf-8") or "{}")
        except FileNotFoundError:
            return ""
        except ValueError:
            sealed = {_CLEAN_STOP: "unreadable"}
        if not sealed:
            return ""
        found = _seal_of(self.store_path)
        wrong = [name for name in {**sealed, **found} if sealed.get(name) != found.get(name)]
        write_file(marker, "")
        return f"not as the clean stop left it: {', '.join(sorted(wrong))}" if wrong else ""

    def take_clean_stop(self) -> bool:
        """Return whether the last stop was clean, and forget it: the next one has to say so anew.

        The marker is gone from the disk before this returns, so that a crash right after a start
        is not taken for a clean stop.
        """
        return remove_file(self.path / _CLEAN_STOP)

    def ask_rebuild(self, why: str) -> None:
        """Note, durably, that the store is damaged: the next start rebuilds it."""
        write_file(self.path / _REBUILD, " ".join(why.split()) + "\n")

    def rebuild_asked(self) -> str:
        """Return why the store is to be rebuilt; empty: it is not."""
        try:
            return (self.path / _REBUILD).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return ""

    def rebuild_done(self) -> None:
        """Forget that a rebuild was asked for."""
        remove_file(self.path / _REBUILD)

    def close(self) -> None:
        """Unlock the folder. Closing twice is allowed."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def read_identity(path: Path) -> Identity:
    """Return whose folder `path` is, without locking it: for a look from outside.

    Raises:
        FolderError: it is no data folder, or not one that this version reads.
    """
    try:
        known = _read_identity(path)
    except OSError as error:
        raise FolderError(f"cannot read data folder {path}: {error.strerror}") from error
    if known is None:
        raise FolderError(f"{path} is not a data folder: it has no {_IDENTITY}")
    return known


def _ensure_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise FolderError(f"data folder {path} is a file; name a folder")
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in missing:
        sync_folder(folder.parent)


def _read_identity(path: Path) -> Identity | None:
    try:
        content = (path / _IDENTITY).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fields = json.loads(content)
        version = int(fields["format_version"])
        if version > FORMAT_VERSION:
            raise FolderError(
                f"data folder {path} has format {version}; this kvnode reads up to"
                f" {FORMAT_VERSION}: use a newer kvnode"
            )
        return Identity(
            cluster_id=str(fields["cluster_id"]),
            cluster_name=str(fields["cluster_name"]),
            node_id=str(fields["node_id"]),
            format_version=version,
        )
    except (ValueError, KeyError, TypeError) as error:
        advice = "restore it or name another folder"
        raise FolderError(f"{path / _IDENTITY} is damaged: {advice}") from error


def _refuse_strangers(path: Path, known: Identity | None, wanted: Identity) -> None:
    if known is None:
        for entry in sorted(path.iterdir()):
            if not any(entry.match(pattern) for pattern in _OURS_OR_NOBODYS):
                raise FolderError(
                    f"data folder {path} holds {entry.name} but no {_IDENTITY}: not a kvnode"
                    " folder, name an empty one"
                )
    elif known.cluster_id != wanted.cluster_id:
        raise FolderError(
            f"data folder {path} belongs to another cluster:"
            f" {known.cluster_name or known.cluster_id}, node {known.node_id}"
        )
    elif known.node_id != wanted.node_id:
        raise FolderError(
            f"data folder {path} belongs to node {known.node_id}, not {wanted.node_id}"
        )


def _acquire(path: Path) -> int:
    lock = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip()
        os.close(lock)
        raise FolderError(f"data folder {path} is in use by process {holder or '?'}") from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)
    return lock


def _create(path: Path, identity: Identity) -> Identity:
    write_file(path / _IDENTITY, json.dumps(asdict(identity), indent=2) + "\n")
    return identity


def _seal_of(store: Path) -> dict[str, str]:
    """Return what is to be found of each file that matters of a store that nobody has open."""
    found = sorted(file for pattern in _SEALED for file in store.glob(pattern))
    return {file.name: _fingerprint(file) for file in found}


def _fingerprint(file: Path) -> str:
    length = file.stat().st_size
    if file.suffix == ".sst":  # it checks itself, block by block
        return str(length)
    with file.open("rb") as content:
        return f"{length} {hashlib.file_digest(content, 'sha256').hexdigest()}"
