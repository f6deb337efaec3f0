"""Cluster: a real cluster on this machine, and what can happen to it.

Laws: `with` returns when every node is ready and linked with every other; at its end, also after a
failure or a death of this process, no process, port or folder of it is left (a folder that the
caller named stays). A method returns when what it does has happened; what then follows from it (a
node that notices, a link that comes back) has not, unless the method says so. Nothing here restarts
a node by itself. Only processes that this object started are touched.
Tests: tests/cluster/test_kit.py. For people: docs/chaos.md.
Left out: which faults to choose (kvclient/testing/schedule.py), and partitions between clients and
nodes: clients dial nodes directly.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, SIGTERM
from types import TracebackType
from typing import Any, Self

from kvclient.aio import AsyncClient
from kvclient.api import Client
from kvclient.errors import KVError
from kvclient.testing.files import CLOCK_OFFSET, SYNC_DELAY, KitError, NodeFiles, make_folder
from kvclient.testing.links import Links
from kvclient.testing.ports import Ports
from kvclient.testing.process import END_S, NodeProcess, command_found
from kvclient.testing.shapes import Flow, Groups, flows_between, flows_cut, groups_of

NODES_MAX = 50
READY_S = 60.0
"""A node that recovers a large log takes its time; past this the start has failed."""
_POLL_S = 0.02
_STATUS_S = 2.0
_ENDINGS = (SIGKILL, SIGTERM)


class Cluster:
    """A cluster of `kvnode` processes on loopback ports, made for one test or run.

    Args:
        nodes: how many, n1 and up; 1 to 50.
        directory: where to keep everything, and to leave it; None: a temporary folder, removed at
            the end.
        settings: further text for cluster.toml, such as `[keyspace.strict]` and `[limits]`.
        links: whether bytes between nodes go through the relay, without which nothing can be
            partitioned or slowed. It costs some 0.1 ms of processor time an operation.
        command: how to call kvnode, if not as the command beside this Python.
        environment: further variables for the nodes.

    Times are in seconds where a name says nothing else.
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        directory: Path | None = None,
        settings: str = "",
        links: bool = True,
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if not 1 <= nodes <= NODES_MAX:
            raise ValueError(f"a cluster of the kit has 1 to {NODES_MAX} nodes, not {nodes}")
        self.ids = tuple(f"n{number}" for number in range(1, nodes + 1))
        self._given = directory
        self._settings = settings
        self._has_links = links
        self._command = tuple(command or command_found())
        self._more = dict(environment or {})
        self._nodes: dict[str, NodeProcess] = {}
        self._directory: Path | None = None
        self._links: Links | None = None
        self._ports: Ports | None = None

    # ---- its life ----------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self.open()
            self.start(*self.ids)
            self.wait_linked()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def open(self) -> None:
        """Make the folder and the links; `start` starts nodes. `with` does both."""
        self._ports = Ports(len(self.ids))
        self._links = Links()
        self._directory = self._given or Path(tempfile.mkdtemp(prefix="kvcluster-"))
        files = make_folder(self._directory, self._ports.numbers, self._settings)
        for name in self.ids:
            command = self._serve(files, name)
            self._nodes[name] = NodeProcess(files[name], command, self._more)

    def close(self) -> None:
        """Kill what runs and remove what was made. Idempotent."""
        for node in self._nodes.values():
            node.strike()  # all, before the first is waited for
        try:
            for node in self._nodes.values():
                node.kill()
        finally:
            self._give_back()

    def _give_back(self) -> None:
        if self._links is not None:
            self._links.close()
        if self._ports is not None:
            self._ports.close()
        if self._directory is not None and self._given is None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _serve(self, files: Mapping[str, NodeFiles], name: str) -> list[str]:
        """Return the command line of a node, its links opened."""
        words = ["serve", "--node", name, "--config", str(self.directory / "cluster.toml")]
        words += ["--data", str(files[name].folder)]
        if self._has_links:
            for peer in (files[other] for other in self.ids if other != name):
                words += ["--peer", f"{peer.id}={self._relay.open((name, peer.id), peer.port)}"]
        return [*self._command, *words]

    # ---- where it is ---------------------------------------------------------------------------

    @property
    def directory(self) -> Path:
        """Its folder; `kvnode status --data` and others find the cluster by it."""
        if self._directory is None:
            raise KitError("this cluster is not open: use `with`")
        return self._directory

    @property
    def seeds(self) -> str:
        """The addresses of all nodes, for any client."""
        return ",".join(self.node(name).address for name in self.ids)

    @property
    def running(self) -> tuple[str, ...]:
        """Ids of the nodes whose processes live, paused ones included."""
        return tuple(name for name, node in self._nodes.items() if node.pid is not None)

    def node(self, name: str) -> NodeFiles:
        """Return where a node is."""
        return self._node(name).files

    def pid(self, name: str) -> int | None:
        """Return the pid of a node; None if it does not run."""
        return self._node(name).pid

    def log(self, name: str) -> str:
        """Return what a node has logged."""
        return self.node(name).log_text()

    def metric(self, name: str, metric: str) -> float:
        """Return a figure of a node's /metrics, named as there without `kvnode_` and `_total`.

        Raises: KitError, if the node does not answer or has no such figure.
        """
        return figure(self._node(name).page("/metrics"), metric)

    def client(self, **options: Any) -> Client:
        """Return a client of this cluster; `options` are those of `kvclient.Client`."""
        return Client(self.seeds, **options)

    def async_client(self, **options: Any) -> AsyncClient:
        """Return a client for an event loop; `options` are those of `kvclient.AsyncClient`."""
        return AsyncClient(self.seeds, **options)

    # ---- processes -------------------------------------------------------------------------------

    def start(self, *names: str, timeout_s: float = READY_S) -> None:
        """Start nodes (all that do not run, if none is named); return when they are ready.

        Raises: KitError, with a node's last words, when it dies or is not ready in time.
        """
        nodes = [self._node(name) for name in names or self._missing()]
        for node in nodes:
            self._relay.watch(node.start())
        for node in nodes:
            _until(node.is_ready, timeout_s, f"{node.files.id} is not ready")

    def kill(self, *names: str, signal: int = SIGKILL) -> None:
        """Send nodes a signal. Of SIGKILL and SIGTERM the end is waited for."""
        nodes = [self._node(name) for name in names]
        pids = [node.pid for node in nodes]
        for node in nodes:
            node.signal(signal)
        for node, pid in zip(nodes, pids, strict=True) if signal in _ENDINGS else ():
            if not node.wait():
                raise KitError(f"{node.files.id} still runs {END_S} s after signal {signal}")
            if pid is not None:
                self._relay.forget(pid)

    def restart(self, *names: str) -> None:
        """Stop nodes gracefully and start them again; return when they are ready."""
        self.kill(*names, signal=SIGTERM)
        self.start(*names)

    def pause(self, *names: str) -> None:
        """Halt nodes as if their machines hung: connections stay, nothing is answered."""
        for name in names:
            self._node(name).pause()

    def resume(self, *names: str) -> None:
        """Let halted nodes go on (all that are halted, if none is named)."""
        halted = [name for name, node in self._nodes.items() if node.is_paused]
        for name in names or halted:
            self._node(name).resume()

    def wipe(self, *names: str) -> None:
        """Kill nodes if they run, and remove their data; `start` brings them back empty."""
        self.kill(*(name for name in names if self._node(name).pid is not None))
        for name in names:
            self.node(name).wipe()

    # ---- the network -----------------------------------------------------------------------------

    def partition(self, groups: str | Groups) -> None:
        """Let nodes reach each other only within groups, given or by the name of a shape.

        A node in several groups reaches them all; one in none is alone. Shapes, with the nodes in
        order: `halves`, `bridge`, `ring`, `isolated` (n1). It takes the place of an earlier one.
        """
        chosen = groups_of(groups, self.ids) if isinstance(groups, str) else groups
        self.cut_flows(flows_cut(self.ids, chosen))

    def isolate(self, name: str) -> None:
        """Cut one node off from all others."""
        self._node(name)
        self.partition([[other for other in self.ids if other != name]])

    def cut(self, source: str, sink: str) -> None:
        """Cut one way: what `source` sends no longer reaches `sink`. Adds to what is cut."""
        self.cut_flows([*self._relay.cut_flows, self._flow(source, sink)])

    def cut_flows(self, flows: Iterable[Flow]) -> None:
        """Cut exactly these flows: their bytes stall. Others are healed."""
        if not self._has_links:
            raise KitError("this cluster has no links to cut: it was made with links=False")
        self._relay.cut([self._flow(*flow) for flow in flows])

    def heal(self) -> None:
        """Undo every cut; connections that were cut are reset, and made anew by the nodes."""
        self.cut_flows([])

    def slow(self, where: str | Flow, delay_ms: float) -> None:
        """Delay all bytes to and from a node, or those from one node to another; 0 ends it."""
        if not self._has_links:
            raise KitError("this cluster has no links to slow: it was made with links=False")
        if isinstance(where, str):
            self._node(where)
            flows = [flow for flow in flows_between(self.ids) if where in flow]
        else:
            flows = [self._flow(*where)]
        self._relay.slow({**self._relay.delays_ms, **dict.fromkeys(flows, delay_ms)})

    def wait_linked(self, timeout_s: float = 30.0) -> None:
        """Wait until every node that runs is linked with every other one.

        Raises: KitError, if that takes longer.
        """
        with Client(self.seeds, session=False, timeout=timeout_s) as db:
            _until(lambda: self._is_linked(db), timeout_s, "the nodes are not linked")

    def _is_linked(self, db: Client) -> bool:
        running = set(self.running)
        try:
            status = db.status(timeout=_STATUS_S)
        except KVError:
            return False
        told = {name: one for name, one in status.items() if one is not None}
        return all(
            name in told
            and {peer for peer, state in told[name].peers.items() if state == "up"}
            >= running - {name}
            for name in running
        )

    # ---- clocks and disks ------------------------------------------------------------------------

    def skew(self, name: str, offset_ms: float) -> None:
        """Set how far a node's wall clock is ahead; below 0 it is behind. Seen within 0.1 s."""
        self.node(name).suffer(CLOCK_OFFSET, offset_ms)

    def slow_disk(self, name: str, delay_ms: float) -> None:
        """Make every sync of a node's log take so much longer; 0 ends it. Seen within 0.1 s."""
        self.node(name).suffer(SYNC_DELAY, delay_ms)

    # ---- parts ---------------------------------------------------------------------------------

    @property
    def _relay(self) -> Links:
        if self._links is None:
            raise KitError("this cluster is not open: use `with`")
        return self._links

    def _node(self, name: str) -> NodeProcess:
        if name not in self._nodes:
            raise KitError(f"no node {name!r}; there are {', '.join(self._nodes) or 'none yet'}")
        return self._nodes[name]

    def _flow(self, source: str, sink: str) -> Flow:
        self._node(source)
        self._node(sink)
        if source == sink:
            raise KitError(f"{source} needs no network to reach itself")
        return source, sink

    def _missing(self) -> list[str]:
        return [name for name in self.ids if name not in self.running]


def figure(page: str, metric: str) -> float:
    """Return a figure of a page in the form of Prometheus. Raises: KitError, if it has none."""
    found = re.search(rf"^kvnode_{re.escape(metric)}(?:_total)? (\S+)$", page, re.MULTILINE)
    if found is None:
        raise KitError(f"no metric {metric!r}")
    return float(found[1])


def _until(is_so: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise KitError(f"{otherwise} after {timeout_s:.0f} s")
        time.sleep(_POLL_S)
