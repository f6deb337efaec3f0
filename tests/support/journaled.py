"""A node that notes each completed sync beside its store, for power-cut tests.

    python -m tests.support.journaled faithful|hasty|failing --node ... (as `kvnode serve`)

`hasty` is the broken variant that those tests must catch: it calls a log durable without having
synced it. A kill cannot tell the two apart. `failing` is faithful, on a disk whose syncs fail with
EIO from the moment that a file says so. Its test files are tests/cluster/test_crash.py and
tests/cluster/test_damage.py.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kvnode.cli.main import main
from kvnode.storage.engine import RocksEngine
from kvnode.storage.port import Position
from tests.support.syncfault import fail_syncs_of_this_thread

JOURNAL = "syncs"
_TROUBLE = "eio"


def program(kind: str) -> tuple[str, ...]:
    """Return what serves a node in place of `kvnode serve`."""
    return (sys.executable, "-m", "tests.support.journaled", kind)


def journal_of(folder: Path) -> Path:
    """Return the journal of the node whose data folder this is: beside it, not in it."""
    return folder.with_name(f"{folder.name}.{JOURNAL}")


def trouble_of(folder: Path) -> Path:
    """Return the file whose presence makes the syncs of this folder's `failing` node fail."""
    return folder.with_name(f"{folder.name}.{_TROUBLE}")


def _fail(trouble: Path) -> None:
    real = RocksEngine.flush

    def flush(self: RocksEngine) -> Position:
        if trouble.exists():
            fail_syncs_of_this_thread()  # the storage thread, or whoever syncs
        return real(self)

    RocksEngine.flush = flush  # type: ignore[method-assign]


def _claim(self: RocksEngine) -> Position:
    """Take the place of `RocksEngine.flush`, without the sync."""
    self.durable = self.written
    return self.durable


def _serve(kind: str, words: list[str]) -> int:
    if kind == "hasty":
        RocksEngine.flush = _claim  # type: ignore[method-assign]
    folder = Path(words[words.index("--data") + 1])
    if kind == "failing":
        _fail(trouble_of(folder))
    os.environ["KVNODE_SYNC_JOURNAL"] = str(journal_of(folder))
    return main(["serve", *words])


if __name__ == "__main__":
    sys.exit(_serve(sys.argv[1], sys.argv[2:]))
