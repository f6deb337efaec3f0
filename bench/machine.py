"""Where a result comes from: machine, versions, commit, and what a sync costs there.

Decides what is written beside every figure, so that two results can be compared or not. Held by
tests/unit/bench/test_machine.py. Leaves out the settings of the run: bench/driver.py.
"""

from __future__ import annotations

import datetime
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("grpcio", "protobuf", "rocksdict", "uvloop", "mmh3")
ROOT = Path(__file__).resolve().parents[1]
_SYNCS = 64
_SYNC_BYTES = 4096


def describe(folder: Path) -> dict[str, Any]:
    """Return what this machine is; `folder` is where the nodes keep their data."""
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "commit": _commit(),
        "load_average": os.getloadavg()[0],
        "sync_p50_ms": sync_p50_ms(folder),
    }


def sync_p50_ms(folder: Path) -> float:
    """Return the median time of an fdatasync after appending 4 KiB to a file in `folder`."""
    path = folder / "sync-probe"
    took_s = []
    with path.open("wb", buffering=0) as file:
        for _ in range(_SYNCS):
            file.write(b"\0" * _SYNC_BYTES)
            began_s = time.perf_counter()
            os.fdatasync(file.fileno())
            took_s.append(time.perf_counter() - began_s)
    path.unlink()
    return statistics.median(took_s) * 1e3


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _commit() -> str:
    """Return the commit of the checkout, with a plus sign if files differ from it."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
