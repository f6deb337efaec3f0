"""Redis Cluster, three machines' worth, as Debian packages it.

Decides how it runs and how it is asked. Three masters share the keys, each with two replicas, as
three machines would have them: machine i runs master i and a replica of each of the others, so nine
processes. Synced: appendfsync always, and after each write WAIT 1 on the same connection, so that a
master has synced it and a replica has taken it. WAIT is no quorum: a replica answers before it
syncs (WAITAOF came with Redis 7.2), one that was not waited for may become master, and then the
write is lost; reads are the master's alone. At its defaults: no append-only file, no WAIT. A modify
is a get and a set: what others wrote in between is overwritten unseen. Held by
tests/unit/bench/test_peers.py and tests/cluster/test_bench_peers.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import RedisError

from bench.peers.adapter import Peer
from bench.peers.processes import Processes, free_ports, is_listening, processes, program
from bench.target import BenchError, Target, Wanted
from kvnode.bench.store import TIMEOUT_S, Options

MACHINES = 3
_SLOTS = 16384
_BUS_OFFSET = 10_000
_CONNECTIONS = 4096
"""To a node: whoever waits for WAIT has a connection for itself."""
_WAIT_MS = int(TIMEOUT_S * 1000)


class NotReplicated(Exception):
    """WAIT ended without a replica that has the write."""


@contextmanager
def started(wanted: Wanted) -> Iterator[Target]:
    """Serve with three masters of two replicas each. Raises: BenchError."""
    server = program("redis-server", "redis-server")
    ports = _ports(MACHINES * MACHINES)
    masters = ports[:MACHINES]
    durable = ("--appendonly", "yes", "--appendfsync", "always") if wanted.is_synced else ()
    with processes("redis", wanted.parent) as running:
        for place, port in enumerate(ports):
            _start(running, server, place, port, durable)
        running.wait("redis listens", lambda: all(is_listening("127.0.0.1", p) for p in ports))
        _join(running, ports)
        yield Target(
            name="redis",
            where=",".join(f"127.0.0.1:{port}" for port in masters),
            pids=running.pids,
            adapter="bench.peers.redis:connect",
            options={"replicas": 1 if wanted.is_synced else 0},
            victim=lambda: _machine(running, 0),
            notes=(
                "WAIT 1: the master has synced, a replica has taken it but not synced; a failover "
                "may still lose it. Reads are the master's alone"
                if wanted.is_synced
                else "answers before anything is synced or replicated",
            ),
        )


def _ports(count: int) -> list[int]:
    """Return free ports that have room above them for the cluster's own."""
    found: list[int] = []
    while len(found) < count:
        found += [p for p in free_ports(count) if p + _BUS_OFFSET < 65_536 and p not in found]
    return found[:count]


def _start(running: Processes, server: str, place: int, port: int, more: Sequence[str]) -> None:
    name = _name(place)
    (running.folder / name).mkdir()
    running.start(
        name,
        [
            *(server, "--port", str(port), "--bind", "127.0.0.1", "--dir", name),
            *("--cluster-enabled", "yes", "--save", "", *more),
        ],
    )


def _name(place: int) -> str:
    """Name the processes: redis1 to redis3 are masters, redis2-of-1 a replica on machine 2."""
    if place < MACHINES:
        return f"redis{place + 1}"
    master, machine = _replica(place)
    return f"redis{machine + 1}-of-{master + 1}"


def _replica(place: int) -> tuple[int, int]:
    """Return of which master a replica is, and on which machine."""
    master, which = divmod(place - MACHINES, MACHINES - 1)
    return master, (master + 1 + which) % MACHINES


def _machine(running: Processes, machine: int) -> list[int]:
    """Return the processes of a machine."""
    return [pid for name, pid in running.pids.items() if name.startswith(f"redis{machine + 1}")]


def _join(running: Processes, ports: Sequence[int]) -> None:
    for port in ports[1:]:
        _cli(ports[0], "CLUSTER", "MEET", "127.0.0.1", str(port))
    for number, port in enumerate(ports[:MACHINES]):
        first, last = number * _SLOTS // MACHINES, (number + 1) * _SLOTS // MACHINES - 1
        _cli(port, "CLUSTER", "ADDSLOTSRANGE", str(first), str(last))
    running.wait("redis nodes know each other", lambda: all(_knows_all(port) for port in ports))
    for place in range(MACHINES, len(ports)):
        master = _cli(ports[_replica(place)[0]], "CLUSTER", "MYID")
        _cli(ports[place], "CLUSTER", "REPLICATE", master)
    running.wait("redis replicates", lambda: all(_is_whole(port) for port in ports))


def _knows_all(port: int) -> bool:
    told = _cli(port, "CLUSTER", "NODES").splitlines()
    return len(told) == MACHINES * MACHINES and not any("handshake" in line for line in told)


def _is_whole(port: int) -> bool:
    info = _info(_cli(port, "CLUSTER", "INFO"))
    mine = _info(_cli(port, "INFO", "replication"))
    joined = mine.get("connected_slaves") == str(MACHINES - 1)
    joined |= mine.get("master_link_status") == "up"
    return info.get("cluster_state") == "ok" and joined


def _info(text: str) -> Mapping[str, str]:
    return dict(line.strip().split(":", 1) for line in text.splitlines() if ":" in line)


def _cli(port: int, *words: str) -> str:
    command = [program("redis-cli", "redis-tools"), "-p", str(port), *words]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if said.startswith(("ERR", "Could not")):
        raise BenchError(f"redis-cli {' '.join(words)}: {said}")
    return said


class Redis(Peer):
    """Redis Cluster by redis-py, with hiredis where that is installed."""

    failures: tuple[type[Exception], ...] = (RedisError, NotReplicated, OSError, TimeoutError)

    def __init__(self, db: RedisCluster, replicas: int) -> None:
        """Have `replicas` take a write before it counts as done."""
        self._db, self._replicas = db, replicas

    async def put(self, key: bytes, value: bytes, /) -> None:
        """Set a key, and wait for as many replicas as were asked for."""
        if not self._replicas:
            await self._db.set(key, value)
            return
        # WAIT is about what its own connection wrote: a pipeline to one node is one connection.
        pipeline = self._db.pipeline()
        pipeline.execute_command("SET", key, value)
        node = self._db.get_node_from_key(key.decode())
        pipeline.execute_command("WAIT", self._replicas, _WAIT_MS, target_nodes=[node])
        _, reached = await pipeline.execute()
        if reached < self._replicas:
            raise NotReplicated

    async def get(self, key: bytes, /) -> bytes | None:
        """Return the master's value of a key."""
        found: bytes | None = await self._db.get(key)
        return found

    async def modify(self, key: bytes, value: bytes) -> bool:
        """Get, then set: Redis would need WATCH and a connection of its own to notice others."""
        found = await self.get(key)
        await self.put(key, value)
        return found is not None

    async def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Read them with one message to each master."""
        pipeline = self._db.pipeline()
        for key in keys:
            pipeline.get(key)
        found: list[bytes | None] = await pipeline.execute()
        return found

    async def close(self) -> None:
        """Disconnect."""
        await self._db.aclose()


async def connect(where: str, options: Options) -> Redis:
    """Return a client of the cluster that has these masters; `replicas` is an option."""
    nodes = [ClusterNode(*address.split(":")) for address in where.split(",")]
    db = RedisCluster(startup_nodes=nodes, socket_timeout=TIMEOUT_S, max_connections=_CONNECTIONS)
    await db.initialize()
    return Redis(db, int(options.get("replicas", 0)))
