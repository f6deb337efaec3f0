"""Small files that survive a power cut: written in full or not at all, and gone when removed.

A rename replaces a file at once, but what it names is on the disk only after an fsync of the file,
and the name itself only after an fsync of the folder.

Law (tests/unit/storage/test_durable.py): when a call returns, its effect is on the disk; when it
fails, what was there before still is.
Source: Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014).
Left out: large files; they belong to the engine.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_file(path: Path, text: str) -> None:
    """Put `text` at `path`, in place of what was there."""
    draft = path.with_name(path.name + ".tmp")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def remove_file(path: Path) -> bool:
    """Remove `path`; return whether it was there."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync_folder(path.parent)
    return True


def sync_folder(path: Path) -> None:
    """Put the names in the folder `path` on the disk."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
