"""What a test makes a node suffer from inside: a clock that is off, a disk whose syncs are slow.

Nothing of this exists unless KVNODE_FAULTS names a folder when the node starts. Then two files of
it, each with a number of milliseconds, are read every 50 ms; one that is missing means 0:

    clock_offset_ms   the wall clock is ahead by so much (below 0: behind)
    sync_delay_ms     every sync of the log takes so much longer

Laws: without the variable no code of this module runs; a slow sync is still a sync: its end is told
only after it is done. A file that is no number is told in the log, and means what it meant before.
Tests: tests/unit/runtime/test_faults.py. For people: docs/chaos.md.
Left out: faults from outside (signals, the network), which need no help of the node.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

from kvnode.runtime.clock import set_wall_offset
from kvnode.storage.committer import Flushes
from kvnode.storage.port import Position

log = logging.getLogger(__name__)

VARIABLE = "KVNODE_FAULTS"
_POLL_S = 0.05
_MOST_MS = 1e12
"""Some thirty years, either way."""


class Faults:
    """What one node suffers, as its folder says."""

    def __init__(self, folder: Path) -> None:
        """Suffer nothing yet; `look` reads the folder, `begin` keeps looking."""
        self.sync_delay_s = 0.0
        self._folder = folder
        self._amounts = {"clock_offset_ms": 0.0, "sync_delay_ms": 0.0}

    def begin(self) -> None:
        """Look now, and from now on, on a thread of its own."""
        self.look()
        threading.Thread(target=self._watch, name="faults", daemon=True).start()

    def look(self) -> None:
        """Read both files; begin to suffer what they say."""
        before = dict(self._amounts)
        for name in self._amounts:
            self._amounts[name] = self._read(name)
        if self._amounts != before:
            log.warning("faults %s", " ".join(f"{k}={v:g}" for k, v in self._amounts.items()))
        set_wall_offset(int(self._amounts["clock_offset_ms"]))
        self.sync_delay_s = max(0.0, self._amounts["sync_delay_ms"] / 1_000)

    def disk(self, engine: Flushes) -> Flushes:
        """Return the engine as it is on a disk that is as slow as the folder says."""
        return _SlowDisk(engine, self)

    def _read(self, name: str) -> float:
        try:
            amount = float((self._folder / name).read_text())
        except FileNotFoundError:
            return 0.0
        except (OSError, ValueError) as error:
            log.warning("fault_unreadable file=%s why=%s", name, error)
            return self._amounts[name]
        return amount if abs(amount) <= _MOST_MS else self._amounts[name]

    def _watch(self) -> None:
        while True:
            time.sleep(_POLL_S)
            self.look()


class _SlowDisk:
    def __init__(self, engine: Flushes, faults: Faults) -> None:
        self._engine = engine
        self._faults = faults

    def flush(self) -> Position:
        """Sync, and take as long as we are told to."""
        time.sleep(self._faults.sync_delay_s)
        return self._engine.flush()


def asked_for() -> Faults | None:
    """Return the faults that the environment asks for, if it does."""
    folder = os.environ.get(VARIABLE)
    return Faults(Path(folder)) if folder else None
