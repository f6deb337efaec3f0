"""Help for tests that look at a RocksDB folder from outside: make, damage, run in a child."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.storage.engine import RocksEngine, open_engine
from kvnode.storage.port import Engine, Position

COUNT = 5_000
"""Records in a store that has more than a few blocks."""


def key(number: int) -> bytes:
    """Return the key with this number, in order."""
    return b"k%06d" % number


def put(engine: Engine, *pairs: tuple[bytes, bytes]) -> Position:
    """Write the pairs as one batch of records."""
    batch = WriteBatch()
    for name, value in pairs:
        batch.put(Family.RECORDS, name, value)
    return engine.write(batch)


def records(engine: RocksEngine) -> dict[bytes, bytes]:
    """Return all records."""
    return dict(engine.scan(Family.RECORDS, b"", None, 1_000_000))


@contextmanager
def opened(path: Path) -> Iterator[RocksEngine]:
    """Open the store for a while; leave it as a kill would."""
    engine = open_engine(path)
    try:
        yield engine
    finally:
        engine.close(clean=False)


def make_log(path: Path, writes: int, *, value: bytes = b"v" * 100) -> Path:
    """Make a store whose synced log holds `writes` batches of one record; return the log."""
    with opened(path) as engine:
        for number in range(writes):
            put(engine, (key(number), value))
            engine.flush()
    return newest(path, "*.log")


def copy_live(path: Path) -> Path:
    """Copy a store that is open, as a kill would leave it."""
    copy = path.parent / "copy"
    copy.mkdir()
    # In order: logs, tables, then the manifest that names them.
    for file in sorted(path.iterdir()):
        with suppress(FileNotFoundError):  # a log whose tables are written is dropped
            (copy / file.name).write_bytes(file.read_bytes())
    return copy


def copy_of_live_log(path: Path, *, writes: int, value: bytes = b"v" * 100) -> Path:
    """Return the log of a copy of a store whose `writes` records are in the log alone."""
    with opened(path) as engine:
        for number in range(writes):
            put(engine, (key(number), value))
        engine.flush()
        copy = copy_live(path)
    return newest(copy, "*.log")


def make_table(path: Path, count: int) -> Path:
    """Make a store whose `count` records are in one table file; return the file."""
    with opened(path) as engine:
        put(engine, *((key(number), os.urandom(200)) for number in range(count)))
        engine.flush()
    with opened(path):
        # Opening moved the log's content into a table.
        return newest(path, "*.sst")


def newest(path: Path, pattern: str) -> Path:
    """Return the file with the highest number among those that match."""
    return max(path.glob(pattern))


def flip_bit(path: Path, offset: int) -> None:
    """Change one bit of the byte at `offset`."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def wait_until(is_so: Callable[[], bool], *, within_s: float = 30.0) -> None:
    """Return once `is_so`; for what another thread brings about without saying so."""
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0)


def run_child(function: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `module:function` with the arguments as strings in a process of its own."""
    module, name = function.split(":")
    program = f"import sys, {module} as m; m.{name}(*sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", program, *(str(argument) for argument in arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(_search_path())},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def small_disk(path: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a disk of this size at `path`, or skip the test, aloud."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("mounting a small disk needs root on Linux")
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(path)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"mounting a small disk failed: {made.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def _search_path() -> Iterable[str]:
    return [str(Path(entry).resolve()) for entry in sys.path]
