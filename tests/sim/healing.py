"""The end of a history: all is well again, and the cluster must become as good as new.

What it decides: how long to wait, and for what. Hints leave, owners become equal, tombstones go,
every key is read in full twice, and then every invariant is checked.
Laws: nothing is broken here any more: whatever is still amiss after that time stays amiss.
Its tests are tests/sim/test_run.py and those that end with it. Left out: healing what plans and
tests have broken, which they do themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from kvnode.core.batch import Family
from kvnode.core.keys import encode_key
from kvnode.core.messages import NodeNumber
from tests.sim.client import Client
from tests.sim.cluster import Cluster
from tests.sim.history import OK
from tests.sim.invariants import busy, check_full, differences, miscounts
from tests.sim.story import Broken

_SECOND_US = 1_000_000
_STEP_US = 200_000
"""Between two looks whether what is waited for has come."""
LATEST_US = 12 * _SECOND_US
"""After which all that was under way when the faults ended has ended."""
_WAIT_US = 120 * _SECOND_US
"""Within which healed nodes hand over their hints, become equal, and reap."""
_REAP_US = 25 * _SECOND_US
_EXPIRY_US = 200 * _SECOND_US
"""After which everything that plans let expire has expired and is dropped."""
READERS = 90
"""Numbers of those who read everything in the end."""


def end_well(world: Cluster, keys: Iterable[tuple[str, bytes]]) -> Client:
    """Wait until a healed cluster has mended itself, read all keys, and check everything.

    Args: `keys`, with their keyspaces. Returns one that has read all of them.
    """
    # With usual bounds: they remember all that they read.
    readers = [Client(world, READERS + number) for number in range(2)]
    world.run(LATEST_US)
    wait_until(world, lambda: _told_hints(world), "8-nothing-waits")
    world.watch.healed_us = world.now_us
    for _ in range(2):  # owners reap each for itself, in their own time
        wait_until(world, lambda: told_differences(world, world.hosts), "8-owners-equal")
        if not _graves(world):
            break
        _let_graves_go(world, _REAP_US)
    wait_until(world, lambda: told_differences(world, world.hosts), "8-owners-equal")
    for keyspace, key in keys:
        _mend(world, readers, keyspace, key)
    wait_until(world, lambda: miscounts(world), "9-counts-are-true")
    wait_until(world, lambda: busy(world), "8-nothing-waits")
    # What has expired since is reaped by one owner sooner than by another.
    wait_until(world, lambda: told_differences(world, world.hosts), "8-owners-equal")
    check_full(world)
    return readers[0]


def wait_until(world: Cluster, tell: Callable[[], str], name: str) -> None:
    """Let time pass until nothing is told any more; it is an invariant that this comes."""
    end_us = world.now_us + _WAIT_US + 5 * 1_000 * world.limits.exchange_interval_ms
    while told := tell():
        if world.now_us >= end_us:
            raise Broken(name, f"seed {world.seed}: for long {told}")
        world.run(_STEP_US)


def told_differences(world: Cluster, nodes: Collection[int]) -> str:
    """Return what keeps nodes from being equal; empty if nothing does."""
    return next(differences(world, nodes), "")


def _mend(world: Cluster, readers: list[Client], keyspace: str, key: bytes) -> None:
    """Read a key in full twice: the answers agree, and nothing is left to be mended."""
    name = encode_key(keyspace, key)
    repaired = _read_twice(world, readers, keyspace, key)
    if repaired and _graves(world):
        # Each owner drops what has expired in its own time: in between they differ, and none lacks.
        _let_graves_go(world, _EXPIRY_US)
        repaired = _read_twice(world, readers, keyspace, key)
    if repaired:
        told = f"{repaired} were mended again"
        world.fail(name, f"a key that was read in full: {told}", name="8-no-repairs-left")


def _read_twice(
    world: Cluster, readers: list[Client], keyspace: str, key: bytes
) -> tuple[NodeNumber, ...]:
    """Return who was mended by the second of two full reads."""
    name = encode_key(keyspace, key)
    n = world.keyspace_of(name).n
    first, second = (reader.get(key, keyspace=keyspace, r=n, explain=True) for reader in readers)
    if first.outcome != OK or second.outcome != OK:
        world.fail(name, "a healed cluster gives no answer", name="8-healed-serves")
    if first.value != second.value:
        told = f"{first.value!r}, then {second.value!r}, with no write between"
        world.fail(name, f"two full reads differ: {told}", name="7-full-reads-agree")
    return second.repaired


def _told_hints(world: Cluster) -> str:
    """Return who keeps hints; empty if nobody does."""
    lives = {number: host.life for number, host in world.hosts.items()}
    waiting = {n: life.hints.pending for n, life in lives.items() if life is not None}
    return ", ".join(f"node {n} keeps {count} hints" for n, count in waiting.items() if count)


def _let_graves_go(world: Cluster, within_us: int) -> None:
    end_us = world.now_us + within_us
    while _graves(world) and world.now_us < end_us:
        world.run(_STEP_US)


def _graves(world: Cluster) -> bool:
    hosts = world.hosts.values()
    return any(host.engine.scan(Family.GRAVES, b"", None, 1) for host in hosts)
