"""Metrics and health over HTTP: `/metrics` (Prometheus), `/live`, `/ready`.

Served by a thread of its own from plain figures, so that neither a scrape nor a slow reader costs
the node's loop anything. Tests: tests/unit/runtime/test_http.py, tests/cluster/test_services.py.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

_REQUESTS_MAX = 16
"""Requests at a time; one more is hung up on."""
_POLL_S = 0.05

Figures = Callable[[], Iterable[tuple[str, str, str, float]]]
"""Yields (kind: counter or gauge, name, help, value)."""


class _FiguresCollector(Collector):
    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Any]:
        for kind, name, text, value in self._figures():
            family = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
            yield family(f"kvnode_{name}", text, value=value)


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._free = threading.BoundedSemaphore(_REQUESTS_MAX)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks the name service for this machine's name, however long.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve in a thread of its own, if there are not too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve, in the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


class _Silent(WSGIRequestHandler):
    timeout = 5

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base's name)
        """Say nothing: the node's log is for the node."""


class HttpServer:
    """The HTTP side of a node."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        figures: Figures,
        is_live: Callable[[], bool],
        is_ready: Callable[[], bool],
    ) -> None:
        """Listen and serve. Raises: OSError, when the port cannot be had."""
        registry = CollectorRegistry()
        registry.register(_FiguresCollector(figures))
        metrics = make_wsgi_app(registry)
        probes = {"/live": is_live, "/ready": is_ready}

        def app(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
            probe = probes.get(environ.get("PATH_INFO", ""))
            if probe is None:
                page: Iterable[bytes] = metrics(environ, start)
                return page
            good = probe()
            start("200 OK" if good else "503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"ok\n" if good else b"no\n"]

        self._server = make_server(host, port, app, server_class=_Server, handler_class=_Silent)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="http", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
