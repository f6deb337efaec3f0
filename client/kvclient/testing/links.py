"""The kit's end of the relay: starts it, gives it orders, and ends it.

Laws: an order has been obeyed when its method returns; what is not cut and not slowed by the last
order is as it was; the relay ends with us, whatever happens to us, and with it the nodes.
Tests: tests/unit/client/test_testing_links.py. Left out: what a cut does to a connection:
kvclient/testing/relay.py.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kvclient.testing.files import KitError
from kvclient.testing.shapes import Flow

_RELAY = Path(__file__).with_name("relay.py")
_END_S = 10.0


class Links:
    """All links between the nodes of a cluster, through one relay process.

    May be used from several threads.
    """

    def __init__(self) -> None:
        """Start the relay; it carries nothing yet."""
        self._lock = threading.Lock()
        self._cut: dict[Flow, None] = {}
        self._delays_ms: dict[Flow, float] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_RELAY)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def cut_flows(self) -> tuple[Flow, ...]:
        """What is cut now."""
        return tuple(self._cut)

    @property
    def delays_ms(self) -> dict[Flow, float]:
        """What is slowed now, and by how much."""
        return dict(self._delays_ms)

    def open(self, flow: Flow, port: int) -> str:
        """Open the link from one node to another, which listens at `port`; return its address."""
        answer = self._order(do="link", name=flow, host="127.0.0.1", port=port)
        return f"127.0.0.1:{answer['port']}"

    def cut(self, flows: Iterable[Flow]) -> None:
        """Stall exactly these; what was cut and is not among them is healed."""
        self._cut = dict.fromkeys(flows)
        self._order(do="cut", flows=list(self._cut))

    def slow(self, delays_ms: Mapping[Flow, float]) -> None:
        """Hold the bytes of exactly these back, each for so many milliseconds."""
        self._delays_ms = {flow: ms for flow, ms in delays_ms.items() if ms > 0}
        self._order(do="delay", flows=[(*flow, ms) for flow, ms in self._delays_ms.items()])

    def watch(self, pid: int) -> None:
        """Have a process killed if we end without `close`."""
        self._order(do="watch", pid=pid)

    def forget(self, pid: int) -> None:
        """Watch a process no longer: it has ended, and its pid may come to name another."""
        self._order(do="forget", pid=pid)

    def close(self) -> None:
        """End the relay; what it still watches is killed. Idempotent."""
        stdin, stdout = self._pipes()
        with self._lock:
            with contextlib.suppress(OSError):  # it may be dead, with an order unread
                stdin.close()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            stdout.close()

    def _pipes(self) -> tuple[Any, Any]:
        return self._process.stdin, self._process.stdout

    def _order(self, **order: object) -> dict[str, Any]:
        stdin, stdout = self._pipes()
        with self._lock:
            try:
                stdin.write(json.dumps(order).encode() + b"\n")
                stdin.flush()
                line = stdout.readline()
            except (OSError, ValueError) as error:
                raise KitError(f"the relay between the nodes is gone: {error}") from error
        if not line:
            raise KitError("the relay between the nodes has died")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise KitError(f"the relay refused {order['do']}: {answer['error']}")
        return answer
