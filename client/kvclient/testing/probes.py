"""What this machine offers to tests that need more than Python.

Decides what is missing, and how that is told. Laws: a probe tries the very thing and undoes it; the
answer says what is missing and how to get it, and is the reason of a skip that a report shows.
Tests: tests/unit/client/test_testing_probes.py.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping

_PROBE_S = 10.0


def _root() -> str | None:
    return None if os.geteuid() == 0 else "needs root"


def _linux() -> str | None:
    return None if sys.platform == "linux" else "needs Linux"


def _strace() -> str | None:
    """Tracing may be forbidden where the program is there: try it."""
    if shutil.which("strace") is None:
        return "needs strace: apt-get install strace"
    return _tried(["strace", "-f", "-o", os.devnull, "true"], "needs leave to trace processes")


def _tmpfs() -> str | None:
    """Mounting may be forbidden even to root, as in a container: try it."""
    if _linux() or _root():
        return "needs root on Linux, to mount a tmpfs"
    with tempfile.TemporaryDirectory() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
        missing = _tried(mount, "needs leave to mount a tmpfs")
        return missing or _tried(["umount", folder], "needs leave to unmount a tmpfs")


def _tried(command: list[str], otherwise: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_PROBE_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{otherwise} ({error})"
    said = done.stderr.decode(errors="replace").strip()
    return None if done.returncode == 0 else f"{otherwise} ({said})"


PROBES: Mapping[str, Callable[[], str | None]] = {
    "linux": _linux,
    "root": _root,
    "strace": _strace,
    "tmpfs": _tmpfs,
}


@functools.cache
def lack(need: str) -> str | None:
    """Return what keeps this machine from offering `need`, or None; each probe runs once.

    Raises: ValueError for what there is no probe for.
    """
    if need not in PROBES:
        raise ValueError(f"no probe for {need!r}; there are {', '.join(PROBES)}")
    return PROBES[need]()


def lacks(*needs: str) -> str:
    """Return all that is missing as one line; an empty one if nothing is."""
    return "; ".join(missing for missing in map(lack, needs) if missing)
