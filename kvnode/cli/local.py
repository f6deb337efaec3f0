"""A cluster on this machine: its folder, and the processes of its nodes.

    DIR/cluster.toml   the members and keyspaces          DIR/<id>/          a node's data
    DIR/cluster.key    the cluster's id and key           DIR/<id>/node.log  what it says
    DIR/cluster.lock   held while nodes are started       DIR/<id>.pid       its process

Laws: a node that runs is never started twice, also by two commands at once; a node inherits
nothing from the command that starts it, neither descriptors nor terminal nor session, so that it
outlives it; nothing restarts a node by itself; a pid is never mistaken for another process.
The pid files stand beside the nodes' folders, not in them, so that a wiped or full disk hides no
running process. Held by tests/unit/cli/test_local.py. Leaves out all words and pictures: the
commands are in kvnode/cli/up.py, and tests use this module as it is.
"""

from __future__ import annotations

import errno
import fcntl
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import kvnode
import kvproto
from kvnode.cli import process
from kvnode.cli.process import Process
from kvnode.runtime import config
from kvnode.runtime.config import ClusterConfig
from kvnode.runtime.settings import HTTP_PORT_OFFSET

CONFIG_FILE = "cluster.toml"
SERVE = (sys.executable, "-m", "kvnode.cli.main", "serve")

READY_TIMEOUT_S = 60.0
"""A node that recovers a large log or exchanges first takes its time; past this we say so."""
STOP_TIMEOUT_S = 15.0
"""A graceful stop is bounded by the node itself; what takes longer than this is killed."""
LOCK_TIMEOUT_S = 90.0
_READY_POLL_S = 0.02
_READY_ANSWER_S = 0.5
_LOG_TAIL_BYTES = 8192


_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}
"""Nodes that this process started: to reap them, and to tell how they ended. Everything else goes
by the pid files. Kept for good: a detached node is to outlive the object, without a warning."""


class ClusterError(Exception):
    """What was asked of the local cluster cannot be done; the text says why, in one line."""


@dataclass(frozen=True, slots=True)
class LocalNode:
    """Where one node of a local cluster lives."""

    id: str
    address: str
    folder: Path
    pid_file: Path

    @property
    def host(self) -> str:
        """The host it listens on, without brackets."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port for clients and peers."""
        return int(self.address.rpartition(":")[2])

    @property
    def http_port(self) -> int:
        """The port for metrics and health."""
        return self.port + HTTP_PORT_OFFSET

    @property
    def log(self) -> Path:
        """Where it writes what happens to it."""
        return self.folder / "node.log"

    def process(self) -> Process | None:
        """Return its living process."""
        return process.read(self.pid_file)

    def is_ready(self) -> bool:
        """Return whether it says that it takes requests."""
        connection = http.client.HTTPConnection(self.host, self.http_port, timeout=_READY_ANSWER_S)
        try:
            connection.request("GET", "/ready")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


class LocalCluster:
    """The cluster of one folder."""

    def __init__(
        self, directory: Path, settings: ClusterConfig, *, program: Sequence[str] | None = None
    ) -> None:
        """Look at the cluster of `directory`; `program` serves a node (tests pass their own)."""
        self.directory = directory
        self.settings = settings
        self.nodes = {node.id: _placed(directory, node) for node in settings.nodes}
        self._program = SERVE if program is None else program

    @classmethod
    def open(cls, directory: Path, *, program: Sequence[str] | None = None) -> LocalCluster:
        """Return the cluster that lives in `directory`.

        Raises: ClusterError, if there is none.
        """
        path = directory / CONFIG_FILE
        if directory.exists() and not directory.is_dir():
            raise ClusterError(f"{directory} is a file, not a cluster's folder")
        if not path.is_file():
            raise ClusterError(f"no cluster in {directory}: `kvnode up` starts one there")
        return cls(directory, config.load(path), program=program)

    @classmethod
    def create(
        cls,
        directory: Path,
        settings: ClusterConfig,
        *,
        text: str | None = None,
        program: Sequence[str] | None = None,
    ) -> LocalCluster:
        """Make a new cluster's folder with its configuration and its key; nothing runs yet.

        Args:
            directory: where; it may exist, without a cluster in it.
            settings: what the cluster is to be.
            text: the cluster.toml to write, if `settings` were read from one: with its comments.
            program: what serves a node.
        """
        from kvnode.runtime import birth  # noqa: PLC0415 (finding a cluster needs no secrets)

        _make_folder(directory)
        birth.create(directory)
        draft = directory / f"{CONFIG_FILE}.new"
        draft.write_text(config.render(settings) if text is None else text)
        draft.replace(directory / CONFIG_FILE)
        return cls(directory, settings, program=program)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where clients can reach the nodes."""
        return tuple(node.address for node in self.nodes.values())

    def pids(self) -> dict[str, int | None]:
        """Return the pid of each node; None for one that does not run."""
        _reap()
        living = {name: node.process() for name, node in self.nodes.items()}
        return {name: None if one is None else one.pid for name, one in living.items()}

    def running(self) -> tuple[str, ...]:
        """Return the ids of the nodes whose processes live."""
        return tuple(name for name, pid in self.pids().items() if pid is not None)

    def exit_status(self, pid: int) -> int | None:
        """Return how a node that this process started ended: 0, 3 or -9; None if unknown."""
        child = _CHILDREN.get(pid)
        return None if child is None else child.poll()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other commands from starting or stopping nodes here meanwhile."""
        with (self.directory / "cluster.lock").open("a") as held:
            _locked(held.fileno(), self.directory)
            yield

    def start(self, ids: Iterable[str]) -> tuple[str, ...]:
        """Start those of `ids` that do not run; return them. They are not ready yet.

        Raises: ClusterError, before any is started, when a port is taken.
        """
        with self.lock():
            running = self.running()
            missing = [self.nodes[name] for name in ids if name not in running]
            for node in missing:
                _check_ports(node)
            for node in missing:
                self._spawn(node)
        return tuple(node.id for node in missing)

    def wait_ready(
        self,
        ids: Iterable[str],
        *,
        timeout_s: float = READY_TIMEOUT_S,
        on_ready: Callable[[str], None] = lambda name: None,
    ) -> dict[str, str]:
        """Wait until each is ready or dead; return what went wrong, by node: empty when nothing."""
        waiting = [self.nodes[name] for name in ids]
        failed: dict[str, str] = {}
        deadline = time.monotonic() + timeout_s
        while waiting and time.monotonic() < deadline:
            for node in tuple(waiting):
                if self._is_settled(node, failed):
                    waiting.remove(node)
                    if node.id not in failed:
                        on_ready(node.id)
            if waiting:
                time.sleep(_READY_POLL_S)
        for node in waiting:
            failed[node.id] = f"not ready after {timeout_s:.0f} s; see {node.log}"
        return failed

    def signal(self, name: str, number: int) -> int | None:
        """Send a signal to a node; return its pid, or None if it does not run."""
        running = self.nodes[name].process()
        return running.pid if running is not None and running.send(number) else None

    def stop(self, ids: Iterable[str] | None = None, *, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Stop nodes gracefully, all at once; return how many had to be killed.

        A node that was halted by SIGSTOP is woken, since otherwise it could not obey.
        """
        names = self.nodes if ids is None else ids
        living = [p for p in (self.nodes[name].process() for name in names) if p is not None]
        for number in (signal.SIGTERM, signal.SIGCONT):
            for one in living:
                one.send(number)
        late = self._left(living, timeout_s)
        for one in late:
            one.send(signal.SIGKILL)
        self._left(late, timeout_s)
        for name in names:
            self.nodes[name].pid_file.unlink(missing_ok=True)
        return len(late)

    def _left(self, living: Sequence[Process], timeout_s: float) -> list[Process]:
        """Return those that have not ended `timeout_s` from now."""
        deadline = time.monotonic() + timeout_s
        left = [one for one in living if not one.wait(max(0.0, deadline - time.monotonic()))]
        _reap()
        return left

    def _is_settled(self, node: LocalNode, failed: dict[str, str]) -> bool:
        if node.is_ready():
            return True
        _reap()
        if node.process() is None:
            failed[node.id] = _last_words(node.log)
        return node.id in failed

    def _spawn(self, node: LocalNode) -> None:
        _make_folder(node.folder)
        configuration = self.directory / CONFIG_FILE
        arguments = ["--node", node.id, "--config", str(configuration), "--data", str(node.folder)]
        with node.log.open("ab") as log:
            child = subprocess.Popen(
                [*self._program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=_environment(),
            )
        _CHILDREN[child.pid] = child
        started = process.observed(child.pid)
        if started is not None:  # None: it died at once, which wait_ready will tell
            process.write(node.pid_file, started)


def _reap() -> None:
    for child in _CHILDREN.values():
        child.poll()


def _placed(directory: Path, node: config.NodeConfig) -> LocalNode:
    folder = directory / (node.data or node.id)
    return LocalNode(node.id, node.address, folder.absolute(), directory / f"{node.id}.pid")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise ClusterError(f"{path} is a file, not a folder") from error
    except OSError as error:
        raise ClusterError(f"cannot make the folder {path}: {error.strerror}") from error


def _locked(descriptor: int, directory: Path) -> None:
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                text = f"another kvnode command has been starting nodes in {directory} for long"
                raise ClusterError(text) from None
            time.sleep(_READY_POLL_S)
        else:
            return


def _check_ports(node: LocalNode) -> None:
    """Refuse a taken port by name now, rather than by a node's last words in its log."""
    for port, use in ((node.port, "requests"), (node.http_port, "metrics and health")):
        family = socket.AF_INET6 if ":" in node.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((node.host, port))
            except OSError as error:
                raise ClusterError(_unusable(node, port, use, error)) from error


def _unusable(node: LocalNode, port: int, use: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} (for {node.id}'s {use}) is in use by another program"
    if error.errno == errno.EADDRNOTAVAIL:
        return (
            f"{node.id} is at {node.address}, which is not this machine: run `kvnode serve` there"
        )
    return f"port {port} (for {node.id}'s {use}) cannot be used: {error.strerror}"


def _last_words(log: Path) -> str:
    """Return the last line of a dead node's log: there it says why it refused to start."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return f"died; its log {log} cannot be read"
    said = [line.strip() for line in lines if line.strip()]
    return (
        f"died: {said[-1].removeprefix('kvnode: ')}"
        if said
        else f"died without a word; its log is {log}"
    )


def _environment() -> dict[str, str]:
    """Return our environment, with what we import ourselves on the path: a checkout works too."""
    roots = [str(Path(module.__path__[0]).parent) for module in (kvnode, kvproto)]
    inherited = os.environ.get("PYTHONPATH")
    path = dict.fromkeys([*roots, *([inherited] if inherited else [])])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
