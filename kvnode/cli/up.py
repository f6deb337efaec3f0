"""`up`, `down`, `start`, `kill`: the commands that start and stop a local cluster's processes.

Decides which configuration a new cluster gets and what the person sees meanwhile. Laws: a folder
that holds a cluster wins over every flag, and a flag that contradicts it is refused; what runs
already is left alone; Ctrl-C stops all nodes, a second one at once. Held by
tests/unit/cli/test_up.py. Leaves out how processes are started and found again:
kvnode/cli/local.py.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from kvnode.cli import terminal
from kvnode.cli.arguments import Arguments, spelled
from kvnode.cli.errors import FAILED, INTERRUPTED, CommandError, UsageError, nearest
from kvnode.cli.local import CONFIG_FILE, LocalCluster
from kvnode.runtime import config
from kvnode.runtime.config import ClusterConfig

_WATCH_S = 0.1
_KILL_WAIT_S = 10.0


class _Terminated(BaseException):
    """SIGTERM or SIGHUP arrived: stop the nodes and leave, quietly."""


def up(arguments: Arguments) -> int:
    """Start a cluster, or the missing nodes of one, and stay until Ctrl-C unless detached."""
    cluster = _born_or_found(arguments)
    with _stop_signals():
        try:
            failed = _bring_up(cluster)
            if not cluster.running():
                return FAILED
            # Before they are shown: a node that is killed as soon as it is seen is told of too.
            known = cluster.pids()
            _show_nodes(cluster, arguments, known)
            return (FAILED if failed else 0) if arguments.detach else _watch(cluster, known)
        except (KeyboardInterrupt, _Terminated) as reason:
            _stop_all(cluster)
            return INTERRUPTED if isinstance(reason, KeyboardInterrupt) else 0


def down(arguments: Arguments) -> int:
    """Stop all nodes."""
    cluster = LocalCluster.open(arguments.data)
    with cluster.lock():
        running = cluster.running()
        killed = cluster.stop()
    print(f"stopped {terminal.count(len(running), 'node')}" if running else "no node was running")
    if killed:
        print(f"{terminal.count(killed, 'node')} did not stop in time and had to be killed")
    return 0


def start(arguments: Arguments) -> int:
    """Start one node again; return when it is ready."""
    cluster = LocalCluster.open(arguments.data)
    name = _known(cluster, arguments.id)
    began = time.monotonic()
    started = cluster.start([name])
    failed = cluster.wait_ready([name])
    if failed:
        raise CommandError(f"{name} {failed[name]}")
    pid = cluster.pids()[name]
    took = terminal.seconds(time.monotonic() - began)
    print(f"{name} ready in {took} (pid {pid})" if started else f"{name} runs already (pid {pid})")
    return 0


def kill(arguments: Arguments) -> int:
    """Send one node a signal; for one that ends it, wait for its end."""
    cluster = LocalCluster.open(arguments.data)
    name = _known(cluster, arguments.id)
    number = signal.Signals(arguments.signal)
    running = cluster.nodes[name].process()
    if running is None or not running.send(number):
        again = spelled(f"start {name}", arguments.data)
        raise CommandError(f"{name} is not running: `{again}` starts it")
    if number in {signal.SIGKILL, signal.SIGTERM} and not running.wait(_KILL_WAIT_S):
        raise CommandError(f"{name} (pid {running.pid}) still runs {_KILL_WAIT_S:.0f} s later")
    print(f"{name} (pid {running.pid}) got {number.name}")
    return 0


def _known(cluster: LocalCluster, name: str) -> str:
    if name not in cluster.nodes:
        have = ", ".join(cluster.nodes)
        raise UsageError(f"no node {name!r} in this cluster ({have}){nearest(name, cluster.nodes)}")
    return name


# ---- which cluster ---------------------------------------------------------------------------


def _born_or_found(arguments: Arguments) -> LocalCluster:
    if arguments.nodes is not None and arguments.config is not None:
        raise UsageError("--nodes makes a configuration and --config names one: give one of them")
    if not (arguments.data / CONFIG_FILE).is_file():
        return _born(arguments)
    cluster = LocalCluster.open(arguments.data)
    _refuse_contradictions(cluster, arguments)
    return cluster


def _born(arguments: Arguments) -> LocalCluster:
    """Make the cluster that the flags describe, or ./cluster.toml, or the default one."""
    base_port = arguments.base_port or config.DEFAULT_PORT
    here = Path(CONFIG_FILE)
    file = arguments.config or (here if arguments.nodes is None and here.is_file() else None)
    if file is None:
        settings = config.default_config(arguments.nodes or config.DEFAULT_NODES, base_port)
        return LocalCluster.create(arguments.data, settings)
    settings = config.load(file)
    for warning in settings.warnings:
        print(f"kvnode: {file}: {warning}", file=sys.stderr)
    if arguments.base_port is not None:
        return LocalCluster.create(arguments.data, _moved(settings, base_port))
    return LocalCluster.create(arguments.data, settings, text=file.read_text())


def _moved(settings: ClusterConfig, base_port: int) -> ClusterConfig:
    """Return the same cluster with its nodes at consecutive ports of this machine."""
    nodes = tuple(
        replace(node, address=f"127.0.0.1:{base_port + i}") for i, node in enumerate(settings.nodes)
    )
    return replace(settings, nodes=nodes)


def _refuse_contradictions(cluster: LocalCluster, arguments: Arguments) -> None:
    have, where = len(cluster.nodes), arguments.data
    if arguments.nodes not in {None, have}:
        raise CommandError(
            f"{where} holds a cluster of {terminal.count(have, 'node')}, not {arguments.nodes}: "
            "leave --nodes out, or name another folder with --data"
        )
    first = next(iter(cluster.nodes.values())).port
    if arguments.base_port not in {None, first}:
        raise CommandError(
            f"{where} holds a cluster whose first port is {first}, not {arguments.base_port}: "
            "leave --base-port out, or name another folder with --data"
        )
    if arguments.config is not None and config.load(arguments.config) != cluster.settings:
        raise CommandError(
            f"{where} holds a cluster with other settings than {arguments.config}: "
            "leave --config out, or name another folder with --data"
        )


# ---- starting and watching -------------------------------------------------------------------


def _bring_up(cluster: LocalCluster) -> dict[str, str]:
    began = time.monotonic()
    already = cluster.running()
    started = cluster.start(cluster.nodes)
    if already and started:
        print(f"{_listed(already)} already running; starting only {', '.join(started)}")
    elif already:
        print(f"all {len(already)} nodes were running already")
    with _progress(cluster, started) as tell:
        failed = cluster.wait_ready(
            cluster.nodes, on_ready=lambda name: tell(name, "ready", time.monotonic() - began)
        )
        for name in failed:
            tell(name, "down", time.monotonic() - began)
    for name, reason in failed.items():
        print(f"kvnode: {name} {reason}", file=sys.stderr)
    if not failed and started:
        took = terminal.seconds(time.monotonic() - began)
        print(f"{terminal.count(len(started), 'node')} ready in {took}")
    sys.stdout.flush()
    return failed


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


Tell = Callable[[str, str, float], None]


@contextmanager
def _progress(cluster: LocalCluster, names: Sequence[str]) -> Iterator[Tell]:
    """Show each node's way to readiness: a line that changes on a terminal, else a line each."""
    if terminal.is_terminal() and names:
        with _live(cluster, names) as tell:
            yield tell
    else:
        yield functools.partial(_tell_line, cluster, names)


def _tell_line(
    cluster: LocalCluster, names: Sequence[str], name: str, state: str, after_s: float
) -> None:
    if name in names and state == "ready":
        print(f"{name}\t{cluster.nodes[name].address}\tready after {terminal.seconds(after_s)}")
        sys.stdout.flush()


@contextmanager
def _live(cluster: LocalCluster, names: Sequence[str]) -> Iterator[Tell]:
    from rich.live import Live  # noqa: PLC0415 (the nodes are starting: now there is time)
    from rich.spinner import Spinner  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    grid = Table.grid(padding=(0, 2))
    spinners = {name: Spinner("dots", Text("starting", "yellow")) for name in names}
    for name, spinner in spinners.items():
        grid.add_row(Text(name, "bold"), cluster.nodes[name].address, spinner)

    def tell(name: str, state: str, after_s: float) -> None:
        if name not in spinners:
            return
        mark, style = ("✓", "green") if state == "ready" else ("✗", "red")
        spinners[name].frames = [mark]
        word = f"{state} after {terminal.seconds(after_s)}" if state == "ready" else state
        spinners[name].update(text=Text(word, style), style=style)

    with Live(grid, console=terminal.console(), refresh_per_second=20):
        yield tell


def _show_nodes(cluster: LocalCluster, arguments: Arguments, pids: dict[str, int | None]) -> None:
    rows = [
        [node.id, node.address, f"http://{node.host}:{node.http_port}/metrics",
         str(pids[node.id] or "-"), str(node.folder)]
        for node in cluster.nodes.values()
    ]  # fmt: skip
    print()
    terminal.table(("node", "address", "metrics", "pid", "data and log"), rows, right="pid")
    print("\n" + _what_next(cluster, arguments))
    sys.stdout.flush()


def _what_next(cluster: LocalCluster, arguments: Arguments) -> str:
    last = next(reversed(cluster.nodes))
    tips = [
        (_typed("put hello world", arguments), "store a value"),
        (_typed("get hello", arguments), "read it back"),
        (_typed(f"kill {last}", arguments), "then read it again"),
        (_typed("status", arguments), "who is up"),
        (f'kvclient.Client("{cluster.addresses[0]}")', "the same from Python"),
        (_typed("down", arguments) if arguments.detach else "Ctrl-C", "stop all nodes"),
    ]
    width = max(len(tip) for tip, _ in tips)
    return "Next:\n" + "\n".join(f"  {tip:<{width}}   {why}" for tip, why in tips)


def _typed(words: str, arguments: Arguments) -> str:
    """Return a command line that works from here, also where no `kvnode` is on the path."""
    line = spelled(words, arguments.data)
    called = Path(sys.argv[0])
    found = shutil.which("kvnode")
    if called.name != "kvnode" or (found is not None and Path(found).samefile(called)):
        return line
    return os.path.relpath(called) + line.removeprefix("kvnode")


def _watch(cluster: LocalCluster, known: dict[str, int | None]) -> int:
    """Tell of nodes that come and go, until none is left or a signal ends it."""
    clean: dict[str, bool] = {}
    while any(known.values()):
        time.sleep(_WATCH_S)
        now = cluster.pids()
        for name, pid in known.items():
            if pid is not None and now[name] != pid:
                clean[name] = _tell_end(cluster, name, pid)
            if now[name] is not None and now[name] != pid:
                print(f"{name} started (pid {now[name]})", flush=True)
        known = now
    print(f"no node is left running: `{spelled('up', cluster.directory)}` starts them again")
    return 0 if all(clean.values()) else FAILED


def _tell_end(cluster: LocalCluster, name: str, pid: int) -> bool:
    """Print how a node ended; return whether it stopped as it was asked to."""
    status = cluster.exit_status(pid)
    if status == 0:
        print(f"{name} stopped", flush=True)
        return True
    how = "ended" if status is None else f"exited with {status}"
    if status is not None and status < 0:
        how = f"was killed by {signal.Signals(-status).name}"
    again = spelled(f"start {name}", cluster.directory)
    hint = f"`{again}` starts it again; its log is {cluster.nodes[name].log}"
    print(f"kvnode: {name} {how}: {hint}", file=sys.stderr, flush=True)
    return status is None


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into exceptions; what was ignored (nohup) stays so."""

    def terminated(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, terminated)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_all(cluster: LocalCluster) -> None:
    running = cluster.running()
    print(f"\nstopping {terminal.count(len(running), 'node')} …", flush=True)
    try:
        killed = cluster.stop()
    except (KeyboardInterrupt, _Terminated):
        killed = cluster.stop(timeout_s=0.0)
    print("stopped" if not killed else f"stopped, {killed} of them by force", flush=True)
