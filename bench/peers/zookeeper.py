"""ZooKeeper, three servers, as Debian packages it.

Decides how it runs and how it is asked: by kazoo, whose answers come from threads of its own. Each
write is synced by a majority before its answer (the only way it has). Reads are of one server and
may be old: so that they are not, each is preceded by a `sync` in the same session. A modify writes
on condition of the version that was read, and is repeated until it succeeds. Held by
tests/unit/bench/test_peers.py and tests/cluster/test_bench_peers.py. Leaves out users.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, KazooException, NodeExistsError, NoNodeError
from kazoo.handlers.threading import KazooTimeoutError

from bench.peers.adapter import Peer
from bench.peers.processes import Processes, free_ports, processes, program
from bench.target import BenchError, Target, Wanted
from kvnode.bench.store import TIMEOUT_S, Options

SERVERS = 3
_JAR = Path("/usr/share/java/zookeeper.jar")
_MAIN = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
_HEAP = "1g"
_SETTLE_S = 10.0
"""Until the JVM has compiled what is asked often."""
_ROOT = "/bench"
_SETTINGS = """\
tickTime=2000
initLimit=10
syncLimit=5
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=srvr
"""


@contextmanager
def started(wanted: Wanted) -> Iterator[Target]:
    """Serve with three servers; `is_synced` changes nothing. Raises: BenchError."""
    java = program("java", "default-jre-headless")
    if not _JAR.exists():
        raise BenchError("zookeeper is not installed: apt-get install zookeeper")
    ports = free_ports(3 * SERVERS)
    clients = ports[:SERVERS]
    with processes("zookeeper", wanted.parent) as running:
        for number in range(SERVERS):
            settings = _configure(running.folder, number, ports)
            command = [java, f"-Xmx{_HEAP}", "-cp", str(_JAR), _MAIN, str(settings)]
            running.start(f"zookeeper{number + 1}", command)
        running.wait("zookeeper serves", lambda: all(map(_mode, clients)))
        yield Target(
            name="zookeeper",
            where=",".join(f"127.0.0.1:{port}" for port in clients),
            pids=running.pids,
            adapter="bench.peers.zookeeper:connect",
            victim=lambda: _leaders_pid(running, clients),
            settle_s=_SETTLE_S,
            notes=(
                "each read is preceded by a sync; every write is synced by a majority",
                f"all of it is in memory: {_HEAP} of heap a server",
            ),
        )


def _configure(folder: Path, number: int, ports: Sequence[int]) -> Path:
    home = folder / f"zookeeper{number + 1}"
    home.mkdir()
    (home / "myid").write_text(f"{number + 1}\n")
    pairs = zip(ports[SERVERS : 2 * SERVERS], ports[2 * SERVERS :], strict=True)
    lines = [f"server.{at}=127.0.0.1:{one}:{two}" for at, (one, two) in enumerate(pairs, 1)]
    lines += [f"dataDir={home}", f"clientPort={ports[number]}", "clientPortAddress=127.0.0.1"]
    settings = home / "zoo.cfg"
    settings.write_text(_SETTINGS + "\n".join(lines) + "\n")
    return settings


def _mode(port: int) -> str:
    """Return what a server is, leader or follower; empty while it does not serve."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
            connection.sendall(b"srvr")
            told = connection.makefile("r").read()
    except OSError:
        return ""
    return next((line[6:] for line in told.splitlines() if line.startswith("Mode: ")), "")


def _leaders_pid(running: Processes, clients: Sequence[int]) -> list[int]:
    leading = [_mode(port) == "leader" for port in clients]
    return [[*running.pids.values()][leading.index(True) if True in leading else 0]]


class ZooKeeper(Peer):
    """ZooKeeper by kazoo."""

    failures: tuple[type[Exception], ...] = (KazooException, KazooTimeoutError, TimeoutError)

    def __init__(self, db: KazooClient) -> None:
        """Ask by `db`, for this event loop."""
        self._db = db
        self._loop = asyncio.get_running_loop()

    async def put(self, key: bytes, value: bytes, /) -> None:
        """Set a key, which is made where it is missing."""
        path = _path(key)
        try:
            await self._answer(self._db.set_async(path, value))
        except NoNodeError:
            try:
                await self._answer(self._db.create_async(path, value))
            except NodeExistsError:  # somebody else has made it meanwhile
                await self._answer(self._db.set_async(path, value))

    async def get(self, key: bytes, /) -> bytes | None:
        """Return a key's value, as of now."""
        found = await self._read(_path(key))
        return None if found is None else found[0]

    async def modify(self, key: bytes, value: bytes) -> bool:
        """Read, then set if nobody has set meanwhile; again until that is so."""
        path = _path(key)
        while (found := await self._read(path)) is not None:
            try:
                await self._answer(self._db.set_async(path, value, version=found[1].version))
            except BadVersionError:
                continue
            return True
        return False

    async def close(self) -> None:
        """Disconnect."""
        await asyncio.to_thread(self._db.stop)
        await asyncio.to_thread(self._db.close)

    async def _read(self, path: str) -> tuple[bytes, Any] | None:
        self._db.sync_async(path)  # a session is answered in order: this before the next
        try:
            found: tuple[bytes, Any] = await self._answer(self._db.get_async(path))
        except NoNodeError:
            return None
        return found

    async def _answer(self, asked: Any) -> Any:
        """Return what a call of kazoo comes to."""
        future = self._loop.create_future()
        asked.rawlink(lambda done: self._loop.call_soon_threadsafe(_hand_on, done, future))
        return await future


def _hand_on(done: Any, future: asyncio.Future[Any]) -> None:
    if future.done():
        return
    if done.exception is not None:
        future.set_exception(done.exception)
    else:
        future.set_result(done.value)


def _path(key: bytes) -> str:
    return f"{_ROOT}/{key.hex()}"


async def connect(where: str, _options: Options) -> ZooKeeper:
    """Return a client of the servers at "host:port,..."."""
    logging.getLogger("kazoo").setLevel(logging.CRITICAL)  # lost connections are counted by us
    db = KazooClient(hosts=where)
    await asyncio.to_thread(db.start, TIMEOUT_S)
    await asyncio.to_thread(db.ensure_path, _ROOT)
    return ZooKeeper(db)
