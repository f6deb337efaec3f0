"""Where a result comes from: machine, versions, commit.

Decides what is written beside every figure, so that two results can be compared or not. Held by
tests/unit/bench/test_machine.py. Leaves out the settings of the run.
"""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("kvnode", "grpcio", "protobuf", "rocksdict", "uvloop", "mmh3")
ROOT = Path(__file__).resolve().parents[2]


def describe(*more_packages: str) -> dict[str, Any]:
    """Return what this machine is, and which versions are installed; `more_packages` likewise."""
    return {
        "when": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "processors": _processors(),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in (*PACKAGES, *more_packages)},
        "commit": _commit(),
        "load_average": os.getloadavg()[0],
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processors() -> int:
    """Return how many processors we may use; where the system does not say, how many there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _commit() -> str:
    """Return the commit of the checkout, with a plus sign if files differ from it.

    "unknown" for an installed package: its version says it.
    """
    if not (ROOT / ".git").exists():
        return "unknown"
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
