"""etcd, three members, as Debian packages it.

Decides how it runs and how it is asked: by aetcd, the client for asyncio that is still released, on
one gRPC channel that knows all three members and takes turns among them. Reads are linearizable
(the default), writes are synced by a majority before the answer (the only way it has), a modify is
a transaction on the revision that was read, repeated until it succeeds. Held by
tests/unit/bench/test_peers.py and tests/cluster/test_bench_peers.py. Leaves out TLS and users.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import aetcd
import grpc

from bench.peers.adapter import Peer
from bench.peers.processes import Processes, free_ports, processes, program
from bench.target import Target, Wanted
from kvnode.bench.store import TIMEOUT_S, Options

MEMBERS = 3
_QUOTA_BYTES = 8 << 30


@contextmanager
def started(wanted: Wanted) -> Iterator[Target]:
    """Serve with three members; `is_synced` changes nothing. Raises: BenchError."""
    server = program("etcd", "etcd-server")
    ports = free_ports(2 * MEMBERS)
    clients, peers = ports[:MEMBERS], ports[MEMBERS:]
    with processes("etcd", wanted.parent) as running:
        for number in range(MEMBERS):
            running.start(f"etcd{number + 1}", [server, *_flags(number, clients, peers)])
        running.wait("etcd answers", lambda: _leader(clients) is not None)
        yield Target(
            name="etcd",
            where=",".join(f"127.0.0.1:{port}" for port in clients),
            pids=running.pids,
            adapter="bench.peers.etcd:connect",
            victim=lambda: _leaders_pid(running, clients),
            notes=("reads are linearizable; every write is synced by a majority",),
        )


def _flags(number: int, clients: Sequence[int], peers: Sequence[int]) -> list[str]:
    members = (f"etcd{i + 1}=http://127.0.0.1:{port}" for i, port in enumerate(peers))
    client = f"http://127.0.0.1:{clients[number]}"
    peer = f"http://127.0.0.1:{peers[number]}"
    return [
        *("--name", f"etcd{number + 1}", "--data-dir", f"etcd{number + 1}"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
        *("--initial-cluster", ",".join(members), "--initial-cluster-state", "new"),
        # Keeps every version until told otherwise: room for those of a run.
        *("--quota-backend-bytes", str(_QUOTA_BYTES), "--log-level", "error"),
    ]


def _leader(clients: Sequence[int]) -> int | None:
    """Return which member leads; None while there is none."""
    for number, port in enumerate(clients):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=1.0) as told:
                if b"\netcd_server_is_leader 1\n" in told.read():
                    return number
        except OSError:  # not up yet
            continue
    return None


def _leaders_pid(running: Processes, clients: Sequence[int]) -> list[int]:
    leader = _leader(clients)
    return [[*running.pids.values()][leader or 0]]


class Etcd(Peer):
    """etcd by aetcd."""

    failures: tuple[type[Exception], ...] = (aetcd.ClientError, grpc.RpcError, TimeoutError)

    def __init__(self, db: aetcd.Client) -> None:
        """Ask by `db`."""
        self._db = db

    async def put(self, key: bytes, value: bytes, /) -> None:
        """Set a key, synced by a majority."""
        await self._db.put(key, value)

    async def get(self, key: bytes, /) -> bytes | None:
        """Return a key's value, linearizably."""
        found = await self._db.get(key)
        return None if found is None else found.value

    async def modify(self, key: bytes, value: bytes) -> bool:
        """Read, then put if nobody has put meanwhile; again until that is so."""
        has = self._db.transactions
        while (found := await self._db.get(key)) is not None:
            done, _ = await self._db.transaction(
                compare=[has.mod(key) == found.mod_revision],
                success=[has.put(key, value)],
                failure=[],
            )
            if done:
                return True
        return False

    async def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Read them in one transaction; up to 128 by etcd's default."""
        has = self._db.transactions
        _, found = await self._db.transaction(
            compare=[], success=[has.get(key) for key in keys], failure=[]
        )
        return [one[0][0] if one else None for one in found]

    async def close(self) -> None:
        """Disconnect."""
        await self._db.close()


async def connect(where: str, _options: Options) -> Etcd:
    """Return a client of the etcd cluster whose members are at "host:port,..."."""
    # aetcd joins one host and one port with a colon, where gRPC takes several addresses as well.
    others, _, port = where.rpartition(":")
    balanced = {"grpc.lb_policy_name": "round_robin"}
    db = aetcd.Client(f"ipv4:{others}", int(port), timeout=int(TIMEOUT_S), options=balanced)
    await db.connect()
    return Etcd(db)
