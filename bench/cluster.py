"""The cluster under test: real nodes of this checkout in a folder that goes away afterwards.

Decides where it lives (free ports from 7900 up, or wherever the caller says) and how durable it is.
Laws: no node and no folder is left behind, unless this process is killed outright. Held by
tests/unit/bench/test_cluster.py. Leaves out what is asked of it.
"""

from __future__ import annotations

import dataclasses
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kvnode.cli.local import LocalCluster
from kvnode.core.topology import Durability
from kvnode.runtime.config import ClusterConfig, default_config
from kvnode.runtime.settings import HTTP_PORT_OFFSET

FIRST_PORT, LAST_PORT = 7900, 7990


class BenchError(Exception):
    """The benchmark cannot go on; the text says why, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the load generator asks, and which processes serve it."""

    seeds: str
    pids: Mapping[str, int]
    """By node; empty for a cluster that is not ours: then its cost is unknown."""


@contextmanager
def started(*, nodes: int, durability: Durability, parent: Path | None) -> Iterator[Target]:
    """Serve with so many nodes, their data below `parent` (None: where temporary files go).

    Raises: BenchError.
    """
    with tempfile.TemporaryDirectory(prefix="kvnode-bench-", dir=parent) as folder:
        settings = configured(nodes, free_ports(nodes), durability)
        cluster = LocalCluster.create(Path(folder) / "cluster", settings)
        try:
            yield _serving(cluster)
        finally:
            cluster.stop()


def configured(nodes: int, base_port: int, durability: Durability) -> ClusterConfig:
    """Return the configuration of a cluster with n=3, r=w=2 and this durability."""
    settings = default_config(nodes, base_port, "bench")
    keyspaces = (dataclasses.replace(one, durability=durability) for one in settings.keyspaces)
    return dataclasses.replace(settings, keyspaces=tuple(keyspaces))


def free_ports(count: int) -> int:
    """Return the first of `count` adjacent ports that are free, as are those for their metrics.

    Raises: BenchError, if there are none from 7900 to 7990.
    """
    for base in range(FIRST_PORT, LAST_PORT - count + 2):
        ports = range(base, base + count)
        if all(_is_free(port) and _is_free(port + HTTP_PORT_OFFSET) for port in ports):
            return base
    raise BenchError(f"no {count} adjacent ports are free from {FIRST_PORT} to {LAST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _serving(cluster: LocalCluster) -> Target:
    cluster.start(cluster.nodes)
    failed = cluster.wait_ready(cluster.nodes)
    if failed:
        raise BenchError("; ".join(f"{name}: {reason}" for name, reason in failed.items()))
    pids = {name: pid for name, pid in cluster.pids().items() if pid is not None}
    return Target(seeds=",".join(cluster.addresses), pids=pids)
