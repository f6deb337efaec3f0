"""What processes cost: CPU seconds and memory, from /proc.

Decides what is counted: user and system time of a whole process, all its threads, in steps of a
clock tick (10 ms); what the machine spent in all, to tell how much of it was neither ours. Held by
tests/unit/bench/test_usage.py. Leaves out systems without /proc: there it says so.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_UTIME, _STIME = 11, 12
"""Fields of /proc/PID/stat, counted from behind the command's name (see proc_pid_stat(5))."""
_IDLE = (3, 4)
"""idle and iowait, in the first line of /proc/stat."""
_GUESTS = 8
"""Fields from here on are counted in the ones before them too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """CPU seconds since each process began, or between two such moments."""

    processes: Mapping[str, float]
    machine: float
    """Of all processes of the machine, the kernel included."""

    def since(self, before: Usage) -> Usage:
        """Return what was used from `before` to here."""
        return Usage(
            processes={
                name: used - before.processes[name] for name, used in self.processes.items()
            },
            machine=self.machine - before.machine,
        )


def cpu_seconds(stat: str) -> float:
    """Return user plus system time from the text of /proc/PID/stat."""
    # The command's name may hold blanks and brackets: what counts begins behind the last bracket.
    fields = stat.rpartition(")")[2].split()
    return (int(fields[_UTIME]) + int(fields[_STIME])) / _TICKS_PER_S


def busy_seconds(stat: str) -> float:
    """Return what all processors spent working, from the text of /proc/stat."""
    ticks = [int(field) for field in stat.partition("\n")[0].split()[1 : 1 + _GUESTS]]
    return sum(used for place, used in enumerate(ticks) if place not in _IDLE) / _TICKS_PER_S


def read(pids: Mapping[str, int]) -> Usage:
    """Return what these processes, and the machine, have used so far. Raises: OSError."""
    return Usage(
        processes={
            name: cpu_seconds((PROC / f"{pid}/stat").read_text()) for name, pid in pids.items()
        },
        machine=busy_seconds((PROC / "stat").read_text()),
    )


def resident_mib(pid: int) -> float:
    """Return how much memory a process has resident. Raises: OSError."""
    pages = int((PROC / f"{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
