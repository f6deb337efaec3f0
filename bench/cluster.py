"""The cluster under test: real nodes of this checkout in a folder that goes away afterwards.

Decides where it lives (free ports from 7900 up, or wherever the caller says) and how durable it is.
Laws: no node and no folder is left behind, unless this process is killed outright. Held by
tests/unit/bench/test_cluster.py. Leaves out what is asked of it.
"""

from __future__ import annotations

import dataclasses
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.target import BenchError, Target, Wanted
from kvnode.cli.local import LocalCluster
from kvnode.core.topology import Durability
from kvnode.runtime.config import ClusterConfig, default_config
from kvnode.runtime.settings import HTTP_PORT_OFFSET

FIRST_PORT, LAST_PORT = 7900, 7990


@contextmanager
def started(wanted: Wanted) -> Iterator[Target]:
    """Serve, every write synced before it is answered, as our defaults have it.

    Raises: BenchError.
    """
    with _started("kvnode", wanted, Durability.FSYNC) as target:
        yield target


@contextmanager
def started_periodic(wanted: Wanted) -> Iterator[Target]:
    """Serve with writes that are synced after the answer: less than `wanted` may ask for.

    Raises: BenchError.
    """
    with _started("kvnode-periodic", wanted, Durability.PERIODIC) as target:
        yield target


@contextmanager
def _started(name: str, wanted: Wanted, durability: Durability) -> Iterator[Target]:
    with tempfile.TemporaryDirectory(prefix="kvnode-bench-", dir=wanted.parent) as folder:
        settings = configured(wanted.nodes, free_ports(wanted.nodes), durability)
        cluster = LocalCluster.create(Path(folder) / "cluster", settings)
        try:
            yield _serving(name, cluster)
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


def _serving(name: str, cluster: LocalCluster) -> Target:
    cluster.start(cluster.nodes)
    failed = cluster.wait_ready(cluster.nodes)
    if failed:
        raise BenchError("; ".join(f"{name}: {reason}" for name, reason in failed.items()))
    pids = {name: pid for name, pid in cluster.pids().items() if pid is not None}
    return Target(name=name, where=",".join(cluster.addresses), pids=pids)
