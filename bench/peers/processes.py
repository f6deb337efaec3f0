"""Processes of another store: started in a folder that goes away, and gone at the end.

Decides how they are started, awaited and stopped. Laws: nothing is left behind, unless this process
is killed outright; one that does not come up is told with the end of its log. Held by
tests/unit/bench/test_processes.py. Leaves out what they are.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.target import BenchError

READY_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 15.0
_POLL_S = 0.1
_LOG_LINES = 5


class Processes:
    """The processes of one store."""

    def __init__(self, folder: Path) -> None:
        """Keep data and logs in `folder`."""
        self.folder = folder
        self.pids: dict[str, int] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """Start a process whose output goes to NAME.log."""
        with self._log(name).open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who then stop them
            )
        self._running[name] = process
        self.pids[name] = process.pid

    def wait(self, what: str, is_so: Callable[[], bool]) -> None:
        """Wait until something is so. Raises: BenchError, with what a process said that ended."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not is_so():
            for name, process in self._running.items():
                if process.poll() is not None:
                    raise BenchError(f"{name} ended by itself: {self._last_words(name)}")
            if time.monotonic() > deadline:
                raise BenchError(f"not within {READY_TIMEOUT_S:.0f} s: {what}")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End all of them; those that do not go when asked are killed."""
        for process in self._running.values():
            process.terminate()
        deadline = time.monotonic() + _STOP_TIMEOUT_S
        for process in self._running.values():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def _last_words(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").strip().splitlines()
        return " | ".join(lines[-_LOG_LINES:]) or "it said nothing"


@contextmanager
def processes(store: str, parent: Path | None) -> Iterator[Processes]:
    """Have a folder and its processes for a while; both are gone afterwards."""
    with ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix=f"bench-{store}-", dir=parent)
        started = Processes(Path(stack.enter_context(made)))
        stack.callback(started.stop)
        yield started


def program(name: str, package: str) -> str:
    """Return the path of a program. Raises: BenchError, naming the package that has it."""
    found = shutil.which(name)
    if found is None:
        raise BenchError(f"{name} is not installed: apt-get install {package}")
    return found


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return ports that nobody listens on right now."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server((host, 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def is_listening(host: str, port: int) -> bool:
    """Return whether somebody accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False
