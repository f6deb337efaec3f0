"""Which cluster a command talks to, and whether anyone is there.

Decides the addresses: those of --seeds, else those of the cluster in --data. Laws: no server is
told as such, at once, with how to start one; a halted or slow node is not "no server". Held by
tests/unit/cli/test_target.py. Leaves out finding the other nodes from a seed: the client does it.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Sequence

from kvnode.cli.arguments import Arguments, spelled
from kvnode.cli.errors import CommandError

_PROBE_S = 1.0
"""For a seed on another machine; on this one the answer is immediate."""


def addresses_of(arguments: Arguments) -> tuple[str, ...]:
    """Return the addresses of --seeds, or of the nodes in --data."""
    if arguments.seeds:
        return tuple(arguments.seeds)
    from kvnode.cli.local import LocalCluster  # noqa: PLC0415 (--seeds needs no file)

    return LocalCluster.open(arguments.data).addresses


def reachable(arguments: Arguments) -> tuple[str, ...]:
    """Return the same addresses, once one of them is known to accept connections.

    Raises: CommandError, if none does.
    """
    addresses = addresses_of(arguments)
    if not is_anyone_there(addresses, timeout_s=_PROBE_S):
        raise CommandError(nobody(addresses, arguments))
    return addresses


def nobody(addresses: Sequence[str], arguments: Arguments) -> str:
    """Return what to say when no node answers."""
    where = ", ".join(addresses[:3]) + (", …" if len(addresses) > 3 else "")
    if arguments.seeds:
        return f"no node answers at {where}: is the cluster up? `kvnode up` starts one here"
    return f"no node answers at {where}: `{spelled('up', arguments.data)}` starts the cluster"


def is_anyone_there(addresses: Sequence[str], *, timeout_s: float) -> bool:
    """Return whether at least one address accepts a TCP connection."""
    deadline = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        try:
            for address in addresses:
                _begin(selector, address)
            return _first(selector, deadline)
        finally:
            for waiting in list(selector.get_map().values()):
                _socket(waiting).close()


def _begin(selector: selectors.BaseSelector, address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return
    family, kind, protocol, _, where = found[0]
    probe = socket.socket(family, kind, protocol)
    probe.setblocking(False)
    probe.connect_ex(where)
    selector.register(probe, selectors.EVENT_WRITE)


def _first(selector: selectors.BaseSelector, deadline: float) -> bool:
    while selector.get_map() and (left := deadline - time.monotonic()) > 0:
        for ready, _ in selector.select(left):
            probe = _socket(ready)
            if probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                return True
            selector.unregister(probe)
            probe.close()
    return False


def _socket(key: selectors.SelectorKey) -> socket.socket:
    assert isinstance(key.fileobj, socket.socket)
    return key.fileobj
