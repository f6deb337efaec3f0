"""Apache Cassandra 5, three nodes, from the jars of Maven Central.

Decides how it runs and how it is asked. Maven fetches cassandra-all with what it depends on, once,
into a cache of the user's; Debian's JDK 17 runs it with the switches that Cassandra's own scripts
give, each node at an address of its own on the loopback. The table has one blob by one blob,
replicated three times, read and written at QUORUM. Synced: commitlog_sync batch; at its defaults:
periodic, so that a write is answered up to 10 s before it is synced. A modify is a read and a write
(what others wrote in between is overwritten unseen; Cassandra's way to notice them is a round of
Paxos). Held by tests/unit/bench/test_peers.py and tests/cluster/test_bench_peers.py.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cassandra import ConsistencyLevel, DriverException, OperationTimedOut
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    ExecutionProfile,
    NoHostAvailable,
    Session,
)
from cassandra.policies import DCAwareRoundRobinPolicy, TokenAwarePolicy

from bench.peers.adapter import Peer
from bench.peers.processes import Processes, is_listening, processes, program
from bench.target import BenchError, Target, Wanted
from kvnode.bench.store import TIMEOUT_S, Options

VERSION = "5.0.9"
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
PORT, PEER_PORT = 19042, 17000
HEAP = "1G"
_TOKENS = 16
_SETTLE_S = 30.0
"""Until the JVM has compiled what is asked often."""
_MAIN = "org.apache.cassandra.service.CassandraDaemon"
_POM = """<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>bench</groupId><artifactId>peers</artifactId><version>1</version><dependencies><dependency>
<groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId>
<version>{version}</version></dependency></dependencies></project>
"""
_CONFIG = """
cluster_name: bench
num_tokens: {count}
initial_token: {tokens}
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
endpoint_snitch: SimpleSnitch
listen_address: {host}
rpc_address: {host}
storage_port: {peer_port}
native_transport_port: {port}
auto_bootstrap: false
data_file_directories: [{folder}/data]
commitlog_directory: {folder}/commitlog
saved_caches_directory: {folder}/caches
hints_directory: {folder}/hints
{sync}
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{{seeds: "{seeds}"}}]
"""
_SYNCED = "commitlog_sync: batch"
_DEFAULT = "commitlog_sync: periodic\ncommitlog_sync_period: 10000ms"
_LOGGING = """<configuration><appender name="out" class="ch.qos.logback.core.ConsoleAppender">
<encoder><pattern>%-5level %msg%n</pattern></encoder></appender>
<root level="WARN"><appender-ref ref="out"/></root></configuration>
"""
_EXPORTS = (
    *("java.base/jdk.internal.misc", "java.management/com.sun.jmx.remote.security"),
    *("java.rmi/sun.rmi.registry", "java.rmi/sun.rmi.server", "java.sql/java.sql"),
    *("java.base/java.lang.ref", "jdk.unsupported/sun.misc"),
)
_OPENS = (
    *("java.base/java.lang.module", "java.base/jdk.internal.loader", "java.base/java.lang"),
    *("java.base/jdk.internal.ref", "java.base/jdk.internal.reflect", "java.base/sun.nio.ch"),
    *("java.base/jdk.internal.math", "java.base/jdk.internal.module", "java.base/java.io"),
    *("java.base/jdk.internal.util.jar", "jdk.management/com.sun.management.internal"),
    *("java.base/java.lang.reflect", "java.base/java.nio", "java.base/java.util"),
    *("java.base/java.util.concurrent", "java.base/java.util.concurrent.atomic"),
)
_KEYSPACE = (
    "CREATE KEYSPACE bench WITH replication = "
    "{'class': 'NetworkTopologyStrategy', 'datacenter1': 3}"
)
_SCHEMA = (_KEYSPACE, "CREATE TABLE bench.kv (k blob PRIMARY KEY, v blob)")


@contextmanager
def started(wanted: Wanted) -> Iterator[Target]:
    """Serve with three nodes. Raises: BenchError."""
    java = program("java", "openjdk-17-jre-headless")
    jars = fetched()
    with processes("cassandra", wanted.parent) as running:
        for number in range(len(HOSTS)):
            _start(running, java, jars, number, wanted)
        running.wait("cassandra listens", lambda: all(is_listening(at, PORT) for at in HOSTS))
        _create(running)
        yield Target(
            name="cassandra",
            where=",".join(HOSTS),
            pids=running.pids,
            adapter="bench.peers.cassandra:connect",
            settle_s=_SETTLE_S,
            notes=(
                f"heap {HEAP} a node; reads and writes at QUORUM; commitlog_sync "
                + ("batch" if wanted.is_synced else "periodic: answers up to 10 s before syncing"),
            ),
        )


def fetched() -> Path:
    """Return the folder of the jars, from Maven Central unless they are there already.

    Raises: BenchError.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "kvnode-bench" / f"cassandra-{VERSION}"
    if (folder / "complete").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pom.xml").write_text(_POM.format(version=VERSION))
    command = [program("mvn", "maven"), "-q", "-B", "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines()
        raise BenchError(f"mvn cannot fetch Cassandra: {lines[0] if lines else 'it said nothing'}")
    (folder / "complete").touch()
    return folder


def _start(running: Processes, java: str, jars: Path, number: int, wanted: Wanted) -> None:
    name = f"cassandra{number + 1}"
    folder = running.folder / name
    folder.mkdir()
    (folder / "cassandra.yaml").write_text(
        _CONFIG.format(
            host=HOSTS[number],
            seeds=",".join(f"{host}:{PEER_PORT}" for host in HOSTS),
            count=_TOKENS,
            tokens=", ".join(map(str, _tokens(number))),
            port=PORT,
            peer_port=PEER_PORT,
            folder=folder,
            sync=_SYNCED if wanted.is_synced else _DEFAULT,
        )
    )
    (folder / "logback.xml").write_text(_LOGGING)
    running.start(name, [java, *_switches(folder, jars), _MAIN])


def _tokens(number: int) -> list[int]:
    """Return a node's tokens: nodes take turns around the ring, so that each has a third of it."""
    step = (1 << 64) // (_TOKENS * len(HOSTS))
    return [-(1 << 63) + step * (turn * len(HOSTS) + number) for turn in range(_TOKENS)]


def _switches(folder: Path, jars: Path) -> list[str]:
    (agent,) = jars.glob("jamm-*.jar")
    return [
        *("-cp", f"{jars}/*", f"-javaagent:{agent}", f"-Xms{HEAP}", f"-Xmx{HEAP}", "-ea"),
        *("-XX:+UseG1GC", "-XX:MaxGCPauseMillis=300", "-XX:+AlwaysPreTouch", "-Xss256k"),
        *("-Djdk.attach.allowAttachSelf=true", "-Dcassandra-foreground=yes"),
        *(f"-Dcassandra.config=file://{folder}/cassandra.yaml", f"-Dcassandra.storagedir={folder}"),
        *(f"-Dlogback.configurationFile={folder}/logback.xml", f"-Djava.io.tmpdir={folder}"),
        *("-Dcassandra.superuser_setup_delay_ms=0", "-Dcassandra.ring_delay_ms=1000"),
        # Nothing is to be waited for: all nodes are new, and start together.
        *("-Dcassandra.skip_wait_for_gossip_to_settle=0", "-Dcassandra.jmx.local.port=0"),
        *("-Dio.netty.tryReflectionSetAccessible=true", "-Djava.awt.headless=true"),
        *(word for name in _EXPORTS for word in ("--add-exports", f"{name}=ALL-UNNAMED")),
        *(word for name in _OPENS for word in ("--add-opens", f"{name}=ALL-UNNAMED")),
    ]


def _create(running: Processes) -> None:
    """Make the table, once all nodes see each other."""
    with _cluster(HOSTS) as cluster:
        session = cluster.connect()
        for statement in _SCHEMA:
            session.execute(statement, timeout=TIMEOUT_S)
        up = cluster.metadata.all_hosts
        running.wait(
            "cassandra nodes see each other", lambda: [h.is_up for h in up()] == [True] * 3
        )


def _cluster(hosts: Sequence[str]) -> Cluster:
    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy("datacenter1")),
        consistency_level=ConsistencyLevel.QUORUM,
        request_timeout=TIMEOUT_S,
    )
    return Cluster(hosts, port=PORT, execution_profiles={EXEC_PROFILE_DEFAULT: profile})


class Cassandra(Peer):
    """Cassandra by cassandra-driver, whose own thread answers into our event loop."""

    failures: tuple[type[Exception], ...] = (
        DriverException,
        OperationTimedOut,
        NoHostAvailable,
        TimeoutError,
    )

    def __init__(self, cluster: Cluster) -> None:
        """Prepare the statements."""
        self._cluster = cluster
        self._session: Session = cluster.connect("bench")
        self._put = self._session.prepare("INSERT INTO kv (k, v) VALUES (?, ?)")
        self._get = self._session.prepare("SELECT v FROM kv WHERE k = ?")

    async def put(self, key: bytes, value: bytes, /) -> None:
        """Set a key at QUORUM."""
        await self._done(self._put, key, value)

    async def get(self, key: bytes, /) -> bytes | None:
        """Return a key's value at QUORUM."""
        rows = await self._done(self._get, key)
        return rows[0].v if rows else None

    async def modify(self, key: bytes, value: bytes) -> bool:
        """Read, then write."""
        found = await self.get(key)
        await self.put(key, value)
        return found is not None

    async def close(self) -> None:
        """Disconnect."""
        self._cluster.shutdown()

    async def _done(self, statement: object, *values: bytes) -> Any:
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Any] = loop.create_future()

        def tell(act: Callable[[Any], None], what: object) -> None:
            loop.call_soon_threadsafe(_settle, waiter, act, what)

        asked = self._session.execute_async(statement, values)
        asked.add_callbacks(
            lambda rows: tell(waiter.set_result, rows),
            lambda error: tell(waiter.set_exception, error),
        )
        return await waiter


def _settle(waiter: asyncio.Future[Any], act: Callable[[Any], None], what: object) -> None:
    if not waiter.done():
        act(what)


async def connect(where: str, _options: Options) -> Cassandra:
    """Return a client of the cluster that has nodes at these addresses."""
    return Cassandra(_cluster(where.split(",")))
