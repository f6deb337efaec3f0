"""Clusters of real processes for tests: started on free ports, killed by pid, never left behind.

Decides where a test's cluster lives and how a test waits for it. Laws: no two clusters of one run
share a port, also after their nodes have died; waiting is polling a condition until a deadline,
whose passing fails the test; what was started is killed, whatever happened in between.
They are started by the product's own launcher, pid files and all, which is tested thereby and which
kvclient.testing must not know; that one is for tests that cut links, slow them or set clocks off.
Its test files are those of tests/cluster.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import grpc

import kvclient
from kvnode.cli.local import LocalCluster, LocalNode
from kvnode.runtime import config
from kvnode.runtime.birth import Birth, load
from kvnode.runtime.settings import HTTP_PORT_OFFSET
from kvproto import kv_pb2

_Answer = TypeVar("_Answer")

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = iter(range(10_000 + 40 * ((os.getpid() + 97 * _WORKER) % 400), 31_000))
"""Below the ports that the kernel gives to outgoing connections: a dead node's stays free.

Two runs, and two workers of one run, whose pids are neighbours, begin far from each other.
"""
_POLL_S = 0.01


def until(question: Callable[[], _Answer], *, within_s: float = 20.0, what: str = "it") -> _Answer:
    """Ask until the answer is true, and return it; fail when that takes longer than `within_s`."""
    deadline = time.monotonic() + within_s
    while not (answer := question()):
        assert time.monotonic() < deadline, f"{what} did not happen within {within_s} s"
        time.sleep(_POLL_S)
    return answer


def free_base(count: int) -> int:
    """Return the first of `count` free ports, free also where metrics are served."""
    run: list[int] = []
    for port in _PORTS:
        run = [*run, port] if _is_free(port) and _is_free(port + HTTP_PORT_OFFSET) else []
        if len(run) == count:
            return run[0]
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


class Nodes:
    """A cluster of real processes."""

    def __init__(
        self,
        directory: Path,
        count: int,
        *,
        settings: str = "",
        program: Sequence[str] | None = None,
    ) -> None:
        """Make the folder; nothing runs yet.

        Args:
            directory: where; new.
            count: of nodes, n1 and up.
            settings: further text for cluster.toml.
            program: what serves a node, if not `kvnode serve`.
        """
        text = config.render(config.default_config(count, free_base(count))) + settings
        self.local = LocalCluster.create(directory, config.parse(text), text=text, program=program)
        LIVING.append(self)
        self.ids = tuple(self.local.nodes)
        self.seeds = ",".join(self.local.addresses)

    @property
    def birth(self) -> Birth:
        """The cluster's id and key."""
        return load(self.local.directory)

    def node(self, name: str) -> LocalNode:
        """Return where a node lives."""
        return self.local.nodes[name]

    def store(self, name: str) -> Path:
        """Return the folder of a node's engine."""
        return self.node(name).folder / "store"

    def start(self, *names: str) -> None:
        """Start nodes (all, if none is named) and wait until they are ready and linked."""
        wanted = names or self.ids
        self.local.start(wanted)
        failed = self.local.wait_ready(wanted)
        assert not failed, failed

    def kill(self, *names: str) -> None:
        """SIGKILL nodes, all before the first is waited for."""
        dying = [p for p in (self.node(n).process() for n in names or self.ids) if p is not None]
        for process in dying:
            process.send(signal.SIGKILL)
        for process in dying:
            assert process.wait(10), process

    def stop(self, *names: str) -> None:
        """Stop nodes gracefully; fail if one has to be killed."""
        assert self.local.stop(names or self.ids) == 0

    def pid(self, name: str) -> int:
        """Return the pid of a node that runs."""
        pid = self.local.pids()[name]
        assert pid is not None, f"{name} is dead: {self.log(name)[-2000:]}"
        return pid

    def log(self, name: str) -> str:
        """Return what a node has logged, and said."""
        log = self.node(name).log
        return log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""

    def logs(self) -> str:
        """Return the ends of all logs, for a failure's report."""
        return "\n".join(f"---- {name}\n{self.log(name)[-4000:]}" for name in self.ids)

    def client(self, *names: str, timeout: float = 10.0) -> kvclient.Client:
        """Return a client that knows these nodes first (all, if none is named)."""
        seeds = [self.node(name).address for name in names] or self.seeds
        return kvclient.Client(seeds, timeout=timeout)

    @contextmanager
    def channel(
        self, name: str, *, compression: grpc.Compression | None = None
    ) -> Iterator[grpc.Channel]:
        """Open a bare channel to a node, one of its own."""
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        address = self.node(name).address
        with grpc.insecure_channel(address, options, compression) as channel:
            yield channel

    def status(self, name: str) -> kv_pb2.Status:
        """Return what a node says of itself."""
        with self.channel(name) as channel:
            ask = channel.unary_unary(
                "/kvnode.v1.Cluster/GetStatus",
                request_serializer=kv_pb2.GetStatusRequest.SerializeToString,
                response_deserializer=kv_pb2.Status.FromString,
            )
            answer: kv_pb2.Status = ask(kv_pb2.GetStatusRequest(), timeout=10, wait_for_ready=True)
            return answer

    def peers_up(self, name: str) -> set[str]:
        """Return the peers that a node is linked with."""
        return {peer.node for peer in self.status(name).peers if peer.state == "up"}

    def wait_linked(self) -> None:
        """Wait until every running node is linked with every other."""
        until(self._is_linked, what="linking all nodes")

    def _is_linked(self) -> bool:
        running = set(self.local.running())
        return all(self.peers_up(name) == running - {name} for name in running)

    def page(self, name: str, path: str) -> tuple[int, str]:
        """Return status and text of a page of a node's HTTP side."""
        node = self.node(name)
        connection = http.client.HTTPConnection(node.host, node.http_port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metric(self, name: str, metric: str) -> float:
        """Return a figure of /metrics; 0 for a node that is dead."""
        try:
            _, text = self.page(name, "/metrics")
        except OSError:
            return 0.0
        found = re.search(rf"^kvnode_{metric}(?:_total)? (\S+)$", text, re.MULTILINE)
        assert found is not None, text
        return float(found[1])

    def command(self, *words: str) -> subprocess.Popen[str]:
        """Start a command on this cluster, in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "kvnode.cli.main", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
        )

    def close(self) -> None:
        """Kill what runs."""
        for name in self.ids:
            self.local.signal(name, signal.SIGKILL)
        for name in self.ids:
            if (process := self.node(name).process()) is not None:
                process.wait(10)
        self.local.pids()  # reaps
        LIVING.remove(self)


LIVING: list[Nodes] = []
"""Those that are not closed: a failure shows their logs."""


def environment(**more: str) -> dict[str, str]:
    """Return our environment, with what we import on the path."""
    path = os.pathsep.join(str(Path(entry).resolve()) for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, **more}


@contextmanager
def finished(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Kill the process at the end, if it still runs."""
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def output(process: subprocess.Popen[str], *, within_s: float) -> str:
    """Wait for a command that must succeed; return what it printed."""
    said, _ = process.communicate(timeout=within_s)
    assert process.returncode == 0, said
    return said
