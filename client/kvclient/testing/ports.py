"""Ports for nodes: free now, and kept for as long as the cluster lives, also while a node is dead.

Laws: two clusters of kits on one machine never share a port, whatever the processes; a process that
dies gives its ports back. A dead node's port is kept by holding the UDP port of the same number,
which nobody else here uses and which takes nothing from the node.
Tests: tests/unit/client/test_testing_ports.py.
Left out: other programs that take a port between a node's death and its next start. Ports are
chosen below those that the kernel gives to outgoing connections, which makes that unlikely.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator

from kvclient.testing.files import KitError

HTTP_PORT_OFFSET = 1_000
"""A node serves metrics and health at its port plus this."""
_FIRST, _LAST = 10_000, 31_000
_TRIES = 2_000


class Ports:
    """Some ports on the loopback address, each with the one for metrics above it."""

    def __init__(self, count: int) -> None:
        """Take so many. Raises: KitError when there are none."""
        self._held: list[socket.socket] = []
        self.numbers = tuple(self._taken(count))

    def close(self) -> None:
        """Give them back."""
        for one in self._held:
            one.close()
        self._held.clear()

    def _taken(self, count: int) -> Iterator[int]:
        chance = random.SystemRandom()  # seeded ones would make clusters begin at the same ports
        for _ in range(_TRIES):
            port = chance.randrange(_FIRST, _LAST)
            if self._take(port):
                yield port
                count -= 1
            if not count:
                return
        self.close()
        raise KitError(f"no free ports between {_FIRST} and {_LAST}")

    def _take(self, port: int) -> bool:
        keepers = [_keeper(port), _keeper(port + HTTP_PORT_OFFSET)]
        held = [one for one in keepers if one is not None]
        if len(held) == 2 and _is_free(port) and _is_free(port + HTTP_PORT_OFFSET):
            self._held += held
            return True
        for one in held:
            one.close()
        return False


def _keeper(port: int) -> socket.socket | None:
    keeper = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        keeper.bind(("127.0.0.1", port))
    except OSError:
        keeper.close()
        return None
    return keeper


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
