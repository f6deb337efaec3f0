"""The laws of kvclient.testing.relay: on real sockets, turned by hand, with a clock of our own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from kvclient.testing import relay as module
from kvclient.testing.relay import CONNECTIONS, FLOW_BYTES, Relay, Watch

TURNS = 2_000


class Net:
    """Node y, which listens, and a relay through which x reaches it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.relay = Relay(lambda: self.now)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.setblocking(False)
        self.port = self.relay.link(("x", "y"), self.server.getsockname())
        self.opened: list[socket.socket] = []

    def dial(self) -> socket.socket:
        """Connect as x."""
        one = socket.create_connection(("127.0.0.1", self.port))
        return self._kept(one)

    def accepted(self) -> socket.socket:
        """Return y's end of a connection."""
        return self._kept(self.until(self._accept))

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return both ends of a connection that carries bytes."""
        x, y = self.dial(), self.accepted()
        x.sendall(b"!")
        assert self.received(y, 1) == b"!"
        return x, y

    def received(self, one: socket.socket, count: int) -> bytes:
        """Return so many bytes, once they have come."""
        found = b""

        def more() -> bool:
            nonlocal found
            found += _receive(one, count - len(found)) or b""
            return len(found) == count

        self.until(more)
        return found

    def is_quiet(self, one: socket.socket) -> bool:
        """Tell whether nothing comes, neither bytes nor an end."""
        for _ in range(20):
            self.relay.turn(0.001)
        return _receive(one, 1) is None

    def until(self, question: Callable[[], object]) -> socket.socket:
        """Turn the relay until the answer is true."""
        for _ in range(TURNS):
            if answer := question():
                return answer  # type: ignore[return-value]
            self.relay.turn(0.005)
        raise AssertionError("it did not happen")

    def is_reset(self, one: socket.socket) -> bool:
        """Tell whether the connection has been reset."""
        try:
            return one.recv(1) == b"" and False
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.relay.close()
        for one in (self.server, *self.opened):
            one.close()

    def _accept(self) -> socket.socket | None:
        try:
            return self.server.accept()[0]
        except BlockingIOError:
            return None

    def _kept(self, one: socket.socket) -> socket.socket:
        one.setblocking(False)
        self.opened.append(one)
        return one


def _receive(one: socket.socket, count: int) -> bytes | None:
    """Return what is there; None if nothing is; nothing (b"") at the end."""
    try:
        return one.recv(count)
    except BlockingIOError:
        return None


@pytest.fixture
def net() -> Iterator[Net]:
    made = Net()
    yield made
    made.close()


def test_bytes_pass_both_ways_unchanged(net: Net) -> None:
    x, y = net.pair()
    data = bytes(range(256)) * 40
    x.sendall(data)
    y.sendall(data[::-1])
    assert net.received(y, len(data)) == data
    assert net.received(x, len(data)) == data[::-1]


def test_an_end_is_passed_on_after_all_bytes(net: Net) -> None:
    x, y = net.pair()
    x.sendall(b"last words")
    x.close()
    assert net.received(y, 10) == b"last words"
    net.until(lambda: _receive(y, 1) == b"")


def test_dialling_a_node_that_is_dead_is_a_broken_connection(net: Net) -> None:
    net.server.close()
    x = net.dial()
    net.until(lambda: net.is_reset(x))


def test_a_cut_stalls_one_way_and_the_other_goes_on(net: Net) -> None:
    x, y = net.pair()
    net.relay.cut([("x", "y")])
    x.sendall(b"lost")
    y.sendall(b"heard")
    assert net.received(x, 5) == b"heard"
    assert net.is_quiet(y)


def test_a_cut_stalls_answers_on_connections_of_the_other_side(net: Net) -> None:
    x, y = net.pair()
    net.relay.cut([("y", "x")])
    y.sendall(b"lost")
    x.sendall(b"heard")
    assert net.received(y, 5) == b"heard"
    assert net.is_quiet(x)


def test_healing_resets_what_was_cut_and_nothing_of_it_arrives(net: Net) -> None:
    x, y = net.pair()
    net.relay.cut([("x", "y")])
    x.sendall(b"lost")
    assert net.is_quiet(y)
    net.relay.cut([])
    net.until(lambda: net.is_reset(x))
    net.until(lambda: net.is_reset(y))


def test_healing_leaves_alone_what_was_not_cut(net: Net) -> None:
    x, y = net.pair()
    net.relay.cut([("x", "z"), ("z", "y")])
    net.relay.cut([])
    x.sendall(b"on")
    assert net.received(y, 2) == b"on"


def test_a_partition_that_takes_the_place_of_another_keeps_what_both_cut(net: Net) -> None:
    x, y = net.pair()
    net.relay.cut([("x", "y"), ("y", "x")])
    net.relay.cut([("x", "y"), ("x", "z")])
    assert net.is_quiet(x)
    net.relay.cut([])
    net.until(lambda: net.is_reset(x))
    assert y.fileno() >= 0


def test_a_connection_made_during_a_cut_hangs_and_is_reset_by_healing(net: Net) -> None:
    net.relay.cut([("y", "x")])
    x = net.dial()
    x.sendall(b"hello")
    assert net.is_quiet(x)
    assert net._accept() is None
    net.relay.cut([])
    net.until(lambda: net.is_reset(x))
    again, y = net.pair()
    assert again.fileno() != y.fileno()


def test_a_death_behind_a_cut_is_not_heard_of(net: Net) -> None:
    x, y = net.pair()
    net.relay.cut([("x", "y")])
    x.close()
    y.sendall(b"into the void" * 3)
    assert net.is_quiet(y)
    y.sendall(b"and again")
    assert net.is_quiet(y)
    net.relay.cut([])
    net.until(lambda: net.is_reset(y))


def test_delayed_bytes_come_in_order_and_not_before_their_time(net: Net) -> None:
    x, y = net.pair()
    net.relay.delay({("x", "y"): 100})
    x.sendall(b"first")
    assert net.is_quiet(y)
    net.now += 0.09
    net.relay.delay({})
    x.sendall(b"second")
    assert net.is_quiet(y)
    net.now += 0.02
    assert net.received(y, 11) == b"firstsecond"
    y.sendall(b"at once")
    assert net.received(x, 7) == b"at once"


@pytest.mark.parametrize("delay_ms", [0, 10_000])
def test_a_sender_that_nobody_reads_is_held_back_within_the_bound(net: Net, delay_ms: int) -> None:
    x, _ = net.pair()
    net.relay.delay({("x", "y"): delay_ms})
    sent, idle, piece = 0, 0, b"x" * 100_000
    while idle < 20:
        try:
            sent += x.send(piece)
            idle = 0
        except BlockingIOError:
            idle += 1
        net.relay.turn(0.001)
    bound = module.DELAYED_BYTES if delay_ms else FLOW_BYTES
    assert FLOW_BYTES <= net.relay.held_bytes <= bound + module.CHUNK_BYTES
    assert sent < 64_000_000


def test_all_that_was_held_back_arrives_when_it_is_read(net: Net) -> None:
    x, y = net.pair()
    data = bytes(range(251)) * 40_000
    got, sent = bytearray(), 0

    def is_over() -> bool:
        nonlocal sent
        if sent < len(data):
            try:
                sent += x.send(data[sent : sent + 300_000])
            except BlockingIOError:
                got.extend(_receive(y, 50_000) or b"")
        got.extend(_receive(y, 50_000) or b"")
        return len(got) == len(data)

    net.until(is_over)
    assert got == data
    assert net.relay.held_bytes == 0


def test_connections_beyond_the_bound_cost_the_oldest(net: Net) -> None:
    net.relay.cut([("x", "y")])
    first = net.dial()
    net.relay.turn(0.01)
    for _ in range(CONNECTIONS):
        net.dial()
        net.relay.turn(0.01)
    net.until(lambda: net.is_reset(first))


def test_what_is_watched_is_killed_and_what_is_forgotten_is_not() -> None:
    sleepers = [
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) for _ in range(2)
    ]
    try:
        watch = Watch()
        for one in sleepers:
            watch.add(one.pid)
        watch.forget(sleepers[1].pid)
        watch.kill_all()
        assert sleepers[0].wait(10) == -9
        assert sleepers[1].poll() is None
    finally:
        for one in sleepers:
            one.kill()
            one.wait()
