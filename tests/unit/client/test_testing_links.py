"""The laws of kvclient.testing.links: on a relay process of its own."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kvclient.testing.files import KitError
from kvclient.testing.links import Links

FLOW = ("n1", "n2")


@pytest.fixture
def links() -> Iterator[Links]:
    made = Links()
    yield made
    made.close()


def dialled(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_an_order_has_been_obeyed_when_its_method_returns(links: Links) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = links.open(FLOW, server.getsockname()[1])
        with dialled(address) as here:
            here.sendall(b"1")
            there, _ = server.accept()
            with there:
                there.settimeout(10)
                assert there.recv(1) == b"1"
                links.cut([FLOW])
                assert links.cut_flows == (FLOW,)
                here.sendall(b"2")
                links.cut([])
                with pytest.raises(ConnectionResetError):
                    there.recv(1)


def test_an_order_that_cannot_be_obeyed_is_told(links: Links) -> None:
    with pytest.raises(KitError, match="refused watch"):
        links.watch(2**22 + 1)
    links.cut([])


def test_slowing_keeps_only_what_is_slow(links: Links) -> None:
    links.slow({FLOW: 10.0, ("n2", "n1"): 0.0})
    assert links.delays_ms == {FLOW: 10.0}


def test_a_relay_that_has_died_is_told(links: Links) -> None:
    links._process.kill()
    links._process.wait()
    with pytest.raises(KitError, match="relay"):
        links.cut([])


def test_closing_twice_is_harmless(links: Links) -> None:
    links.close()
    links.close()
    assert links._process.poll() == 0


ORPHANS = """
import subprocess, sys, time
from kvclient.testing.links import Links
links = Links()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
links.watch(child.pid)
print(child.pid, links._process.pid, flush=True)
time.sleep(60)
"""


def test_what_we_watch_dies_with_us_however_we_die() -> None:
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", ORPHANS],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    ) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        handles = [os.pidfd_open(pid) for pid in pids]
        parent.send_signal(signal.SIGKILL)
    for handle in handles:
        assert has_ended(handle, within_s=10), "it outlived whoever started it"
        os.close(handle)


def has_ended(handle: int, *, within_s: float) -> bool:
    """Wait for the end of a process that is not our child."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(within_s * 1_000))
