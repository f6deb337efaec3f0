"""One node's process: started, asked whether it is ready, paused, ended.

Laws: only processes that we started are signalled, and only while they have not been waited for, so
that a pid is never another's; a pause has happened when the call returns.
Tests: tests/unit/client/test_testing_process.py.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP

from kvclient.testing.files import FAULTS_VARIABLE, KitError, NodeFiles
from kvclient.testing.ports import HTTP_PORT_OFFSET

END_S = 20.0
"""A stopping node drains and syncs; past this it is killed."""
_PAUSE_S = 5.0
_POLL_S = 0.01
_ANSWER_S = 1.0
_LAST_WORDS = 2_000


def command_found() -> tuple[str, ...]:
    """Return how to call kvnode: the command beside this Python, else on the path, else its module.

    The module is found wherever this Python finds modules; see `environment_for`.
    """
    beside = Path(sys.executable).with_name("kvnode")
    if beside.exists():
        return (str(beside),)
    found = shutil.which("kvnode")
    return (found,) if found else (sys.executable, "-m", "kvnode.cli.main")


def environment_for(node: NodeFiles, more: Mapping[str, str]) -> dict[str, str]:
    """Return our environment, with what we import on the path: a checkout works too."""
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, FAULTS_VARIABLE: str(node.faults), **more}


class NodeProcess:
    """The process of one node, or its absence."""

    def __init__(
        self, files: NodeFiles, command: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        """Start nothing yet. `command` is all that the process is called with."""
        self.files = files
        self.is_paused = False
        self._command = [*command]
        self._environment = environment_for(files, environment)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The pid of the living process."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    @property
    def exit_status(self) -> int | None:
        """How the last process ended: 0, 3, -9; None while it runs or if there was none."""
        return None if self._child is None else self._child.poll()

    def start(self) -> int:
        """Start it; return its pid. Raises: KitError if it runs already."""
        if self.pid is not None:
            raise KitError(f"{self.files.id} runs already")
        self.is_paused = False
        self.files.folder.mkdir(parents=True, exist_ok=True)
        with self.files.log.open("ab") as log:
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us
                env=self._environment,
            )
        return self._child.pid

    def is_ready(self) -> bool:
        """Tell whether it takes requests.

        Raises: KitError, with its last words, if it has died.
        """
        if self.pid is None:
            said = self.files.log_text()[-_LAST_WORDS:]
            raise KitError(f"{self.files.id} died ({self.exit_status}): {said}")
        try:
            return self._ask("/ready")[0] == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def page(self, path: str) -> str:
        """Return a page of its HTTP side. Raises: KitError, if it does not answer."""
        try:
            return self._ask(path)[1]
        except (OSError, http.client.HTTPException) as error:
            raise KitError(f"{self.files.id} does not answer: {error}") from error

    def signal(self, number: int) -> None:
        """Send a signal. Raises: KitError if it does not run."""
        if self.pid is None:
            raise KitError(f"{self.files.id} does not run")
        assert self._child is not None
        self._child.send_signal(number)

    def pause(self) -> None:
        """Halt it, as a machine that hangs; return once it is halted."""
        self.signal(SIGSTOP)
        deadline = time.monotonic() + _PAUSE_S
        while not self._has_stopped():
            if time.monotonic() > deadline:
                raise KitError(f"{self.files.id} does not halt")
            time.sleep(_POLL_S)
        self.is_paused = True

    def resume(self) -> None:
        """Let it go on."""
        self.signal(SIGCONT)
        self.is_paused = False

    def wait(self, timeout_s: float = END_S) -> bool:
        """Wait for its end; return whether it came."""
        if self._child is None:
            return True
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout_s)
        return self._child.poll() is not None

    def strike(self) -> None:
        """SIGKILL it, if it runs, and do not wait for its end."""
        if self._child is not None:
            self._child.send_signal(SIGKILL)  # does nothing, if it has ended meanwhile

    def kill(self) -> None:
        """SIGKILL it, if it runs, and wait for its end."""
        self.strike()
        if not self.wait():
            raise KitError(f"{self.files.id} survives SIGKILL")

    def _ask(self, path: str) -> tuple[int, str]:
        port = self.files.port + HTTP_PORT_OFFSET
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def _has_stopped(self) -> bool:
        assert self._child is not None
        try:
            told = os.waitid(os.P_PID, self._child.pid, os.WSTOPPED | os.WNOHANG)
        except ChildProcessError as error:
            raise KitError(f"{self.files.id} died instead of halting") from error
        return told is not None
