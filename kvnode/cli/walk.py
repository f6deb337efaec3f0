"""Which files a folder holds, and how one is read while somebody may be changing it.

Decides what is a file to load: regular files only, by relative path. Laws: nothing is passed over
in silence (symbolic links and special files are counted as skipped, what cannot be read as failed);
links are never followed, so a walk ends and stays inside; a file that changes while it is read is
found out. Held by tests/unit/cli/test_walk.py.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from kvnode.cli.errors import CommandError
from kvnode.core.bounds import KEY_BYTES_MAX


class Changed(Exception):
    """A file changed while it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One regular file, as it was when the folder was walked."""

    key: bytes
    """Prefix and relative path, `/` between its parts: the very bytes of the names."""
    path: bytes
    size: int


@dataclass(slots=True)
class Found:
    """What a walk came across."""

    files: list[File] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    """How many of each kind that is not loaded."""
    failed: list[tuple[bytes, str]] = field(default_factory=list)
    """What should have been loaded and cannot be, and why."""

    @property
    def size(self) -> int:
        """All files' bytes."""
        return sum(file.size for file in self.files)


def walk(folder: Path, prefix: bytes = b"") -> Found:
    """Return every file below `folder`, in the order of their keys."""
    root = os.fsencode(folder)
    if not os.path.isdir(root):  # noqa: PTH112 (names are bytes here)
        what = "not a folder" if folder.exists() else "no such folder"
        raise CommandError(f"{folder}: {what}")
    found = Found()
    waiting = [(root, prefix)]
    while waiting:
        waiting += _look_into(*waiting.pop(), found)
    found.files.sort(key=lambda file: file.key)
    return found


def _look_into(folder: bytes, prefix: bytes, found: Found) -> list[tuple[bytes, bytes]]:
    """Note what `folder` holds; return the folders in it."""
    folders: list[tuple[bytes, bytes]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, prefix + entry.name + b"/"))
                else:
                    _note(entry, prefix + entry.name, found)
    except OSError as error:
        found.failed.append((prefix or folder, f"cannot be read: {error.strerror}"))
    return folders


def _note(entry: os.DirEntry[bytes], key: bytes, found: Found) -> None:
    status = entry.stat(follow_symlinks=False)
    if not stat.S_ISREG(status.st_mode):
        found.skipped[_kind(status.st_mode)] += 1
    elif len(key) > KEY_BYTES_MAX:
        found.failed.append(
            (key, f"path of {len(key):,} bytes: a key has at most {KEY_BYTES_MAX:,}")
        )
    else:
        found.files.append(File(key=key, path=entry.path, size=status.st_size))


def _kind(mode: int) -> str:
    return "symbolic link" if stat.S_ISLNK(mode) else "special file"


class Reader:
    """One open file, read piece by piece; says whether it changed meanwhile."""

    def __init__(self, file: File) -> None:
        """Open it.

        Raises: OSError; Changed, if it is no longer the regular file that was found.
        """
        # O_NOFOLLOW, O_NONBLOCK: what was a file may be a link or a pipe by now.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        self._descriptor = os.open(file.path, flags)
        self._before = os.fstat(self._descriptor)
        if not stat.S_ISREG(self._before.st_mode):
            self.close()
            raise Changed
        self.size = self._before.st_size

    def read(self, offset: int, length: int) -> bytes:
        """Return exactly `length` bytes.

        Raises: Changed, if the file ends before.
        """
        data = os.pread(self._descriptor, length, offset)
        while len(data) < length:
            more = os.pread(self._descriptor, length - len(data), offset + len(data))
            if not more:
                raise Changed
            data += more
        return data

    def check(self) -> None:
        """Raise Changed if it is not as it was when it was opened."""
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (self._before.st_size, self._before.st_mtime_ns):
            raise Changed

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
