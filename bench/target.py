"""A store under test: where it is, how it is asked, which processes serve it.

Decides what the rest of the benchmark knows of a store. Held by tests/unit/bench/test_target.py.
Leaves out how each is started: bench/cluster.py for ours, bench/peers for others.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from kvnode.bench.store import OURS, Options


class BenchError(Exception):
    """The benchmark cannot go on; the text says why, in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A store that runs."""

    name: str
    where: str
    """Its address, as its adapter reads it."""
    pids: Mapping[str, int]
    """Its processes; empty for a cluster that is not ours: then its cost is unknown."""
    adapter: str = OURS
    options: Options = field(default_factory=dict)
    victim: Callable[[], Sequence[int]] | None = None
    """Returns the processes of the one node whose loss should hurt most; None: any one will do."""
    settle_s: float = 0.0
    """For so long it is asked before anything is measured: what runs on a JVM is slow at first."""
    notes: Sequence[str] = ()
    """What a reader of its figures must know."""

    def victims(self) -> Sequence[int]:
        """Return the processes to kill for the loss of one node."""
        return self.victim() if self.victim is not None else [next(iter(self.pids.values()))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a store is to be started."""

    parent: Path | None = None
    """Its data is below this, for as long as it runs; None: where temporary files go."""
    nodes: int = 3
    """Of our own; the others always have three."""
    is_synced: bool = True
    """Whatever is answered has been synced; False: as the store comes."""


Starter: TypeAlias = Callable[[Wanted], AbstractContextManager[Target]]

SYSTEMS: dict[str, str] = {
    "kvnode": "bench.cluster:started",
    "kvnode-periodic": "bench.cluster:started_periodic",
    "etcd": "bench.peers.etcd:started",
    "redis": "bench.peers.redis:started",
    "zookeeper": "bench.peers.zookeeper:started",
    "cassandra": "bench.peers.cassandra:started",
}


def starter(system: str) -> Starter:
    """Return what starts this store. Raises: BenchError, if a package that it needs is missing."""
    module, _, function = SYSTEMS[system].partition(":")
    try:
        found: Starter = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise BenchError(
            f"{system} needs the Python package {error.name}: pip install -e '.[peers]'"
        ) from error
    return found
