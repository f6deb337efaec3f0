"""`kvnode serve`: be one node until told to stop.

    starting --store open, peers heard or waited for--> up --SIGTERM--> stopping --drained--> gone
       ^------- a damaged store: begins anew, rebuilds --'

Every refusal before the node serves is one line on stderr and exit status 1. A task that crashes,
a storage thread that fails or a log that cannot be synced ends the process loudly: what it has
acknowledged is durable, and its peers go on without it. A store that turns out to be damaged ends
this life too, but not the process: it begins anew, as the same command under the same pid, rebuilds
the store before it serves anything (kvnode.storage.rebuild), and does not count until proven.
Tests: tests/cluster/test_serve.py, tests/cluster/test_damage.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from kvnode.runtime.birth import Birth, BirthError
from kvnode.runtime.birth import load as load_birth
from kvnode.runtime.config import ClusterConfig, load
from kvnode.runtime.faults import asked_for
from kvnode.runtime.logs import begin_logging
from kvnode.runtime.settings import ConfigError, ServeError
from kvnode.storage.folder import DataFolder, FolderError
from kvnode.storage.port import StorageDamaged, StorageError

log = logging.getLogger(__name__)

_SWITCH_INTERVAL_S = 0.0003
"""The storage thread gets the interpreter back this soon after a sync (measured: 307 us a flush
through it, against 217 us for the bare call)."""

_GRPC_EXPERIMENTS = "-event_engine_client,-event_engine_listener"
"""gRPC's older poller wakes fewer threads: docs/decisions/0007-grpc-poller.md has the figures."""

_STDERR = 2


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line says."""

    node: str
    config: Path
    data: Path
    listen: str | None = None
    peers: Mapping[str, str] = ()  # type: ignore[assignment]
    insecure: bool = False
    restored: bool = False
    """Its operator vouches that the life known at another place is over."""


def run(options: ServeOptions) -> int:
    """Serve until SIGTERM or SIGINT. Returns the exit status."""
    try:
        return _run(options)
    except (ServeError, ConfigError, BirthError, FolderError, StorageError) as exc:
        _tell(f"{exc}")
        if log.hasHandlers():  # else logging would say it on stderr once more
            log.error("refused why=%s", exc)
        return 1


def _run(options: ServeOptions) -> int:
    config = load(options.config)
    birth = load_birth(options.config.parent)
    listen = _listen_address(options, config)
    folder = DataFolder.open(
        options.data,
        cluster_id=birth.cluster_id.hex(),
        node_id=options.node,
        cluster_name=config.name,
    )
    try:
        begin_logging(options.data, bytes_max=config.limits.log_bytes)
        _warn(options, config, listen)
        return _serve(options, config, birth, folder, listen)
    finally:
        folder.close()


def _serve(
    options: ServeOptions, config: ClusterConfig, birth: Birth, folder: DataFolder, listen: str
) -> int:
    os.environ.setdefault("GRPC_EXPERIMENTS", _GRPC_EXPERIMENTS)  # read when gRPC is loaded
    import uvloop  # noqa: PLC0415 (after the refusals, which should be quick)

    from kvnode.runtime.server import Server  # noqa: PLC0415

    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    server = Server.open(
        node_id=options.node,
        config=config,
        birth=birth,
        folder=folder,
        listen=listen,
        overrides=dict(options.peers),
        incarnation=secrets.randbits(63) + 1,
        sync_journal=_sync_journal(),
        is_restored=options.restored,
    )
    if (faults := asked_for()) is not None:  # by a test
        faults.begin()
        server.disk = faults.disk(server.disk)
    gc.collect()
    gc.freeze()  # modules and settings never die: keep the collector off them
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_until_told(server, folder))


async def _until_told(server: object, folder: DataFolder) -> int:
    from kvnode.runtime.server import Server  # noqa: PLC0415

    assert isinstance(server, Server)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        await server.run(stop)
    except BaseException as exc:
        root = _root(exc)
        if isinstance(root, ServeError):  # a refusal, met inside a task group
            raise root from None
        if is_damage(root):
            _begin_anew(folder, str(root))
        log.critical("crashed", exc_info=exc)
        _tell(f"crashed: {root}")
        # Nothing that runs now could make the disk any truer: go, as a kill would.
        logging.shutdown()
        os._exit(70)
    return 0


def is_damage(exc: BaseException) -> bool:
    """Say whether a node that ended so has a store that must be rebuilt."""
    return isinstance(exc, StorageDamaged) or isinstance(exc.__cause__, StorageDamaged)


def _begin_anew(folder: DataFolder, why: str) -> None:
    """Replace this process by a new start of the same command, which rebuilds the store.

    Not within this process: nothing of the old life (threads, sockets, caches) is left to trust.
    Returns only if even that is not possible.
    """
    log.error("alarm store_is_damaged why=%s", " ".join(why.split()))
    try:
        folder.ask_rebuild(why)
        logging.shutdown()
        for opened in list(Path("/dev/fd").iterdir()):
            if int(opened.name) > _STDERR:
                with contextlib.suppress(OSError):  # the listing's own
                    os.set_inheritable(int(opened.name), False)
        os.execv(sys.executable, sys.orig_argv)
    except OSError as exc:
        _tell(f"cannot begin anew: {exc}")


def _tell(text: str) -> None:
    sys.stderr.write(f"kvnode serve: {text}\n")


def _root(exc: BaseException) -> BaseException:
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return exc


def _listen_address(options: ServeOptions, config: ClusterConfig) -> str:
    known = {node.id: node.address for node in config.nodes}
    if options.node not in known:
        names = ", ".join(known)
        raise ServeError(f"{options.config} has no node {options.node!r}; it has {names}")
    for peer in dict(options.peers):
        if peer not in known:
            raise ServeError(f"--peer {peer}: {options.config} has no such node")
    address = options.listen or known[options.node]
    host = address.rpartition(":")[0].strip("[]")
    if not _is_loopback(host) and not options.insecure:
        raise ServeError(
            f"{address} can be reached from other machines, and there is no TLS and no "
            "authentication yet: anybody there could read and write everything. "
            "Use a loopback address, or give --insecure if the network is yours alone"
        )
    return address


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return False


def _warn(options: ServeOptions, config: ClusterConfig, listen: str) -> None:
    for warning in config.warnings:
        log.warning("config %s", warning)
    if not _is_loopback(listen.rpartition(":")[0].strip("[]")):
        text = f"{listen} is open to the network without TLS or authentication (--insecure)"
        log.warning("insecure %s", text)
        _tell(f"warning: {text}")


def _sync_journal() -> Path | None:
    """For power-cut tests: where each completed sync notes the log's length."""
    path = os.environ.get("KVNODE_SYNC_JOURNAL")
    return Path(path) if path else None
