"""The relay: a process that carries the bytes between nodes, and can cut or slow them.

Each directed link (node x dials node y) is a listening port of ours; a connection to it becomes one
to y. Bytes from x to y are one *flow*, whoever dialled: cutting x to y stalls what x sends on its
own connections and what it answers on those of y, as a network that drops packets one way would.

Laws: a cut flow stalls, nothing is closed, not even when an end dies; once it is healed, every
connection that the cut touched is reset, and so is one that was opened during it. A delayed flow
keeps its order. What is buffered is bounded: past the bound the sender is no longer read, and feels
it as it would feel a slow network. When whoever started us is gone, the processes that it told us
to watch are killed, and we end: nothing is left behind.
Tests: tests/unit/client/test_testing_relay.py.
Left out: dropping, doubling and reordering, which TCP hides from the nodes anyway.

Commands are JSON lines on standard input, each answered by one on standard output. This file is run
by its path and needs the standard library alone, so that it starts in some 30 ms.
"""

from __future__ import annotations

import errno
import heapq
import json
import os
import selectors
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

CHUNK_BYTES = 256 * 1024
"""Read at once."""
FLOW_BYTES = 1024 * 1024
"""Held for a flow without delay, at most this and a chunk."""
DELAYED_BYTES = 8 * 1024 * 1024
"""Held for one with: it carries at most this per delay."""
CONNECTIONS = 64
"""Of one link. One more takes the place of the oldest."""
_RESET = struct.pack("ii", 1, 0)
_WAITING = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINPROGRESS)

FlowName: TypeAlias = tuple[str, str]
"""Whose bytes, and to whom."""


class Flow:
    """One direction of one connection: what was read from `source` and is not yet in `sink`."""

    __slots__ = ("connection", "has_ended", "held", "held_bytes", "name", "sink", "source")

    def __init__(
        self, connection: Connection, name: FlowName, source: socket.socket, sink: socket.socket
    ) -> None:
        self.connection = connection
        self.name = name
        self.source = source
        self.sink = sink
        self.held: deque[tuple[float, memoryview]] = deque()
        """With the instant before which each may not leave, nor what is behind it."""
        self.held_bytes = 0
        self.has_ended = False


class Connection:
    """A connection from x, and ours to y in its place."""

    __slots__ = ("back", "forth", "is_frozen", "is_open", "is_touched", "link")

    def __init__(self, link: Link, here: socket.socket, there: socket.socket) -> None:
        x, y = link.name
        self.link = link
        self.forth = Flow(self, (x, y), here, there)
        self.back = Flow(self, (y, x), there, here)
        self.is_open = False
        self.is_touched = False
        """A cut was here: healing resets it."""
        self.is_frozen = False
        """An end is gone and the other must not know."""


class Link:
    """One directed link: a port of ours, and where it leads."""

    __slots__ = ("connections", "listener", "name", "target")

    def __init__(self, name: FlowName, target: tuple[str, int]) -> None:
        self.name = name
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS)
        self.listener.setblocking(False)
        self.connections: dict[Connection, None] = {}


class Relay:
    """All links of one cluster, on one selector."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._selector = selectors.DefaultSelector()
        self._masks: dict[socket.socket, int] = {}
        self._flows: dict[socket.socket, tuple[Flow, Flow]] = {}
        """By socket: the flow that it feeds, and the flow that it drains."""
        self._links: dict[FlowName, Link] = {}
        self._cut: frozenset[FlowName] = frozenset()
        self._delays_s: dict[FlowName, float] = {}
        self._timers: list[tuple[float, int, Flow]] = []
        self._timer_count = 0

    # ---- what may be commanded -----------------------------------------------------------------

    def link(self, name: FlowName, target: tuple[str, int]) -> int:
        """Open a link; return its port."""
        link = self._links[name] = Link(name, target)
        self._selector.register(link.listener, selectors.EVENT_READ, link)
        port: int = link.listener.getsockname()[1]
        return port

    def cut(self, flows: Iterable[FlowName]) -> None:
        """Stall exactly these flows; reset the connections of those that are healed by it."""
        before, self._cut = self._cut, frozenset(flows)
        healed = before - self._cut
        for connection in self._connections():
            names = {connection.forth.name, connection.back.name}
            if names & self._cut:
                connection.is_touched = True
            if connection.is_touched and names & healed and not names & self._cut:
                self._reset(connection)
            else:
                self._rearm(connection)

    def delay(self, delays_ms: dict[FlowName, float]) -> None:
        """Hold every byte of exactly these flows back for so long."""
        self._delays_s = {name: ms / 1_000 for name, ms in delays_ms.items() if ms > 0}

    def turn(self, timeout_s: float | None) -> list[Any]:
        """Carry what can be carried; return what else is readable. Waits for at most `timeout_s`.

        Cost: a receive and a send a message, and a system call to learn of it.
        """
        others = []
        for key, mask in self._selector.select(self._wait_s(timeout_s)):
            if key.data is None:
                self._on_socket(key.fileobj, mask)
            elif isinstance(key.data, Link):
                self._accept(key.data)
            else:
                others.append(key.data)
        self._on_due()
        return others

    def listen_to(self, descriptor: int, data: object) -> None:
        """Have `turn` return `data` when `descriptor` is readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, data)

    def close(self) -> None:
        """Close everything."""
        for connection in self._connections():
            self._reset(connection)
        for link in self._links.values():
            self._selector.unregister(link.listener)
            link.listener.close()
        self._selector.close()

    @property
    def held_bytes(self) -> int:
        """What is buffered now, in all flows."""
        return sum(c.forth.held_bytes + c.back.held_bytes for c in self._connections())

    # ---- connections -----------------------------------------------------------------------------

    def _connections(self) -> list[Connection]:
        return [each for link in self._links.values() for each in link.connections]

    def _accept(self, link: Link) -> None:
        try:
            here, _ = link.listener.accept()
        except OSError:
            return  # it has gone again
        while len(link.connections) >= CONNECTIONS:
            self._reset(next(iter(link.connections)))
        there = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        for one in (here, there):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(link, here, there)
        link.connections[connection] = None
        self._flows[here] = connection.forth, connection.back
        self._flows[there] = connection.back, connection.forth
        if self._is_cut(connection):
            connection.is_touched = True  # neither SYN nor answer would get through
            return
        if there.connect_ex(link.target) not in (0, *_WAITING):
            self._fail(connection)
            return
        self._want(there, selectors.EVENT_WRITE)

    def _is_cut(self, connection: Connection) -> bool:
        return connection.forth.name in self._cut or connection.back.name in self._cut

    def _on_socket(self, one: Any, mask: int) -> None:
        feeds, drains = self._flows.get(one, (None, None))
        if feeds is None or drains is None:
            return  # reset by an earlier event of this turn
        connection = feeds.connection
        if not connection.is_open:
            self._on_connected(connection)
            return
        if mask & selectors.EVENT_WRITE:
            self._drain(drains)
        if mask & selectors.EVENT_READ and one in self._flows:
            self._feed(feeds)

    def _on_connected(self, connection: Connection) -> None:
        if self._is_cut(connection):
            self._rearm(connection)
        elif connection.forth.sink.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._fail(connection)
        else:
            connection.is_open = True
            self._rearm(connection)

    def _fail(self, connection: Connection) -> None:
        """End a connection whose one end is gone, unless a cut keeps that from the other end."""
        if self._is_cut(connection):
            connection.is_frozen = True
            self._rearm(connection)
        else:
            self._reset(connection)

    def _reset(self, connection: Connection) -> None:
        del connection.link.connections[connection]
        for one in (connection.forth.source, connection.back.source):
            self._want(one, 0)
            del self._flows[one]
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            one.close()
        for flow in (connection.forth, connection.back):
            flow.held.clear()
            flow.held_bytes = 0

    # ---- bytes -----------------------------------------------------------------------------------

    def _feed(self, flow: Flow) -> None:
        """Read what has come, and pass it on."""
        if flow.name in self._cut:
            return
        try:
            data = flow.source.recv(CHUNK_BYTES)
        except OSError as error:
            if error.errno not in _WAITING:
                self._fail(flow.connection)
            return
        if not data:
            flow.has_ended = True
            self._settle(flow)
            return
        delay_s = self._delays_s.get(flow.name, 0.0)
        if delay_s or flow.held:
            self._hold(flow, memoryview(data), delay_s)
        else:
            self._pass_on(flow, data)

    def _pass_on(self, flow: Flow, data: bytes) -> None:
        """Send at once: the usual case, in which nothing is held and no interest changes."""
        try:
            sent = flow.sink.send(data)
        except OSError as error:
            if error.errno not in _WAITING:
                self._fail(flow.connection)
                return
            sent = 0
        if sent < len(data):
            self._hold(flow, memoryview(data)[sent:], 0.0)

    def _hold(self, flow: Flow, data: memoryview, delay_s: float) -> None:
        due = self._now() + delay_s
        flow.held.append((due, data))
        flow.held_bytes += len(data)
        if delay_s:
            self._timer_count += 1
            heapq.heappush(self._timers, (due, self._timer_count, flow))
        self._rearm(flow.connection)

    def _drain(self, flow: Flow) -> None:
        """Send what is due."""
        now = self._now()
        while flow.held and flow.name not in self._cut and flow.held[0][0] <= now:
            due, data = flow.held[0]
            try:
                sent = flow.sink.send(data)
            except OSError as error:
                if error.errno not in _WAITING:
                    self._fail(flow.connection)
                    return
                break
            flow.held_bytes -= sent
            if sent < len(data):
                flow.held[0] = due, data[sent:]
                break
            flow.held.popleft()
        self._settle(flow)

    def _settle(self, flow: Flow) -> None:
        """Pass an end on once all before it is out; forget what has ended both ways."""
        connection = flow.connection
        if flow.has_ended and not flow.held:
            try:
                flow.sink.shutdown(socket.SHUT_WR)
            except OSError:
                self._fail(connection)
                return
            if connection.forth.has_ended and connection.back.has_ended:
                self._fail(connection)
                return
        self._rearm(connection)

    # ---- interest and time -----------------------------------------------------------------------

    def _rearm(self, connection: Connection) -> None:
        """Wait for exactly what can be made use of."""
        forth, back = connection.forth, connection.back
        self._want(forth.source, self._mask(connection, feeds=forth, drains=back))
        self._want(back.source, self._mask(connection, feeds=back, drains=forth))

    def _mask(self, connection: Connection, *, feeds: Flow, drains: Flow) -> int:
        if connection.is_frozen:
            return 0
        if not connection.is_open:
            is_dialling = feeds is connection.back and not self._is_cut(connection)
            return selectors.EVENT_WRITE if is_dialling else 0
        reads = selectors.EVENT_READ if self._may_read(feeds) else 0
        return reads | (selectors.EVENT_WRITE if self._may_write(drains) else 0)

    def _may_read(self, flow: Flow) -> bool:
        room = DELAYED_BYTES if flow.name in self._delays_s else FLOW_BYTES
        return flow.name not in self._cut and not flow.has_ended and flow.held_bytes < room

    def _may_write(self, flow: Flow) -> bool:
        return flow.name not in self._cut and bool(flow.held) and flow.held[0][0] <= self._now()

    def _want(self, one: socket.socket, mask: int) -> None:
        before = self._masks.get(one, 0)
        if mask == before:
            return
        if not mask:
            self._selector.unregister(one)
            del self._masks[one]
            return
        self._masks[one] = mask
        if before:
            self._selector.modify(one, mask, None)
        else:
            self._selector.register(one, mask, None)

    def _wait_s(self, timeout_s: float | None) -> float | None:
        if not self._timers:
            return timeout_s
        due_s = max(0.0, self._timers[0][0] - self._now())
        return due_s if timeout_s is None else min(due_s, timeout_s)

    def _on_due(self) -> None:
        now = self._now()
        while self._timers and self._timers[0][0] <= now:
            flow = heapq.heappop(self._timers)[2]
            if flow.source in self._flows and flow.held:
                self._drain(flow)


class Watch:
    """Processes that must not outlive whoever started them."""

    def __init__(self) -> None:
        self._handles: dict[int, int | None] = {}

    def add(self, pid: int) -> None:
        """Watch a living process; on Linux by a handle that no reused pid can be taken for."""
        opened = getattr(os, "pidfd_open", None)
        self._handles[pid] = None if opened is None else opened(pid)

    def forget(self, pid: int) -> None:
        """Watch it no longer."""
        handle = self._handles.pop(pid, None)
        if handle is not None:
            os.close(handle)

    def kill_all(self) -> None:
        """Kill those that still run."""
        for pid, handle in self._handles.items():
            try:
                if handle is None:
                    os.kill(pid, signal.SIGKILL)
                else:
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _obey(relay: Relay, watch: Watch, order: dict[str, Any]) -> dict[str, Any]:
    match order["do"]:
        case "link":
            x, y = order["name"]
            return {"port": relay.link((x, y), (order["host"], order["port"]))}
        case "cut":
            relay.cut((x, y) for x, y in order["flows"])
        case "delay":
            relay.delay({(x, y): ms for x, y, ms in order["flows"]})
        case "watch":
            watch.add(order["pid"])
        case "forget":
            watch.forget(order["pid"])
        case unknown:
            return {"error": f"unknown order {unknown!r}"}
    return {}


def main() -> None:
    """Obey standard input until it ends."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    relay, watch = Relay(), Watch()
    os.set_blocking(0, False)
    relay.listen_to(0, "orders")
    unread = b""
    while True:
        if not relay.turn(None):
            continue
        data = os.read(0, CHUNK_BYTES)
        if not data:
            break
        *lines, unread = (unread + data).split(b"\n")
        for line in lines:
            try:
                answer = _obey(relay, watch, json.loads(line))
            except (OSError, KeyError, ValueError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            os.write(1, json.dumps(answer).encode() + b"\n")
    watch.kill_all()


if __name__ == "__main__":
    main()
