"""Where tests get their chance from: a seed that the source tree decides.

Laws: equal trees give equal seeds, whatever git, the clock or file times say; any changed byte of
any source file changes it. KVNODE_SEED overrides. Its test file is tests/unit/test_seeds.py.
"""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("kvnode", "client", "proto", "tests")
SUFFIXES = (".py", ".proto", ".json")


def source_files(root: Path) -> list[Path]:
    """Return the files of `root` that decide the seed, in an order that no file system decides."""
    found = (path for top in SOURCES for path in (root / top).rglob("*"))
    kept = (path for path in found if path.suffix in SUFFIXES and path.is_file())
    return sorted(kept, key=lambda path: path.relative_to(root).as_posix())


def tree_seed(root: Path) -> int:
    """Return 32 bits that depend on the name and bytes of every source file of `root`."""
    digest = hashlib.sha256()
    for path in source_files(root):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return int.from_bytes(digest.digest()[:4])


@functools.cache
def run_seed() -> int:
    """Return the seed of this run, from KVNODE_SEED or else the tree."""
    chosen = os.environ.get("KVNODE_SEED")
    return tree_seed(ROOT) if chosen is None else int(chosen)


def origin() -> str:
    """Say where the seed came from."""
    return "given" if "KVNODE_SEED" in os.environ else "from the source tree"


def derive(seed: int, name: str) -> int:
    """Return a seed of its own for `name`."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:8])
