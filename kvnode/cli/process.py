"""Which process is it? A pid alone names a different process once the first one is gone.

Decides how a process that we started is found again later, from another command: by its pid *and*
the moment it was born. Laws: a reused pid is never taken for ours; a zombie is dead once all of
its threads are. On Linux from /proc, elsewhere from `ps`. Held by tests/unit/cli/test_process.py.
Leaves out who starts and stops processes: kvnode/cli/local.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Process:
    """One life of one process."""

    pid: int
    born: str
    """When it began, as the system words it: compared, never read."""

    def is_alive(self) -> bool:
        """Return whether this very process still runs."""
        return birth_of(self.pid) == self.born

    def age_s(self) -> float:
        """Return for how long it has been running, in seconds; 0 where that is not known."""
        if not self.born.isdigit():
            return 0.0
        up_s = float((_PROC / "uptime").read_text().split()[0])
        return max(0.0, up_s - int(self.born) / os.sysconf("SC_CLK_TCK"))

    def send(self, number: int) -> bool:
        """Send a signal; return whether the process was still there."""
        if not self.is_alive():
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end, for at most `timeout_s`; return whether it ended."""
        deadline = time.monotonic() + timeout_s
        while self.is_alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True


def observed(pid: int) -> Process | None:
    """Return the process that has `pid` now."""
    born = birth_of(pid)
    return None if born is None else Process(pid, born)


def write(path: Path, process: Process) -> None:
    """Note `process` in a file, whole or not at all."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps({"pid": process.pid, "born": process.born}) + "\n")
    draft.replace(path)


def read(path: Path) -> Process | None:
    """Return the living process that the file names, or None: no file, no sense, or dead."""
    try:
        noted = json.loads(path.read_text())
        process = Process(int(noted["pid"]), str(noted["born"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return process if process.is_alive() else None


def birth_of(pid: int) -> str | None:
    """Return when the process `pid` began; None if there is none or it is a zombie."""
    return _birth_by_proc(pid) if _PROC.joinpath("self", "stat").exists() else _birth_by_ps(pid)


def _birth_by_proc(pid: int) -> str | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    # The name stands in parentheses and may hold anything, parentheses and spaces included.
    fields = text.rpartition(")")[2].split()
    state, threads, born = fields[0], int(fields[17]), fields[19]
    # A killed leader is a zombie while its other threads still die, and with them the ports and
    # locks that the process held.
    return None if state in "ZX" and threads <= 1 else born


def _birth_by_ps(pid: int) -> str | None:
    found = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, born = found.stdout.strip().partition(" ")
    return None if found.returncode or not born or state.startswith("Z") else born.strip()
