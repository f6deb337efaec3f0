"""What tests of the store run in a process of its own; each prints what it saw, as JSON."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import rocksdict

from kvnode.core.batch import Family
from kvnode.storage.engine import open_engine
from kvnode.storage.folder import DataFolder, FolderError
from kvnode.storage.port import StorageError
from tests.support import syncfault
from tests.support.stores import put


def meet_failing_sync(path: str) -> None:
    """Write, flush, then go on while every sync fails."""
    engine = open_engine(Path(path))
    put(engine, (b"before", b"1"))
    engine.flush()
    syncfault.fail_syncs_of_this_thread()
    put(engine, (b"during", b"1"))
    seen = []
    for attempt in (engine.flush, engine.flush, lambda: put(engine, (b"after", b"1"))):
        try:
            seen.append(f"reached {attempt()}")
        except StorageError as error:
            seen.append(f"{type(error).__name__}: {error}")
    found = engine.multi_get(Family.RECORDS, [b"before", b"during"])
    durable, fenced = engine.durable, engine.fenced
    engine.close(clean=False)
    print(json.dumps([seen, [value is not None for value in found], durable, fenced]))


def write_and_die(path: str, journal: str) -> None:
    """Write ten records, flush, write five more, die."""
    engine = open_engine(Path(path), sync_journal=Path(journal))
    for number in range(15):
        put(engine, (b"%02d" % number, b"v"))
        if number == 9:
            engine.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def write_without_log_and_die(path: str) -> None:
    """Write one record with and one without the write-ahead log, die."""
    options = rocksdict.Options(raw_mode=True)
    store = rocksdict.Rdict(path, options)
    store.put(b"logged", b"1")
    unlogged = rocksdict.WriteOptions()
    unlogged.disable_wal(True)
    store.put(b"unlogged", b"1", unlogged)
    os.kill(os.getpid(), signal.SIGKILL)


def open_folder(path: str) -> None:
    """Open a data folder; print what came of it."""
    try:
        DataFolder.open(Path(path), cluster_id="c", node_id="n1").close()
    except FolderError as error:
        print(json.dumps(str(error)))
    else:
        print(json.dumps("opened"))


def open_folder_unprivileged(path: str) -> None:
    """As `open_folder`, as nobody: root may write anywhere."""
    if os.geteuid() == 0:
        os.setuid(65534)
    open_folder(path)


def hold_folder_and_die(path: str) -> None:
    """Open a data folder and die with it open."""
    DataFolder.open(Path(path), cluster_id="c", node_id="n1")
    os.kill(os.getpid(), signal.SIGKILL)
