"""Metrics and probes over HTTP: what each page says, and that readers cannot crowd a node."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import pytest

from kvnode.runtime.http import HttpServer
from tests.support.nodes import free_base


class Site:
    """An HTTP side whose figures and probes a test sets."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.is_live = self.is_ready = True
        self.port = free_base(1)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.asked = threading.Semaphore(0)
        self.server = HttpServer(
            host, self.port, figures=self._figures,
            is_live=lambda: self.is_live, is_ready=lambda: self.is_ready,
        )  # fmt: skip

    def page(self, path: str) -> tuple[int, str]:
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=10)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def _figures(self) -> Iterator[tuple[str, str, str, float]]:
        self.asked.release()
        assert self.may_answer.wait(10)
        yield "counter", "turns", "Turns of the core.", 7
        yield "gauge", "up", "1 while it takes requests.", 1.0


@contextmanager
def open_site(host: str = "127.0.0.1") -> Iterator[Site]:
    found = Site(host)
    try:
        yield found
    finally:
        found.may_answer.set()
        found.server.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with open_site() as found:
        yield found


def test_metrics_are_in_prometheus_words(site: Site) -> None:
    status, text = site.page("/metrics")
    assert status == 200
    assert "# TYPE kvnode_turns_total counter\nkvnode_turns_total 7.0\n" in text
    assert "# HELP kvnode_up 1 while it takes requests.\n" in text


@pytest.mark.parametrize("probe", ["live", "ready"])
def test_a_probe_says_what_is_so(site: Site, probe: str) -> None:
    assert site.page(f"/{probe}") == (200, "ok\n")
    setattr(site, f"is_{probe}", False)
    assert site.page(f"/{probe}") == (503, "no\n")


def test_a_port_that_is_taken_is_an_error(site: Site) -> None:
    with pytest.raises(OSError, match="in use"):
        HttpServer("127.0.0.1", site.port, figures=list, is_live=bool, is_ready=bool)


def test_after_closing_the_port_is_free() -> None:
    with open_site() as site:
        site.page("/live")
    again = HttpServer("127.0.0.1", site.port, figures=list, is_live=bool, is_ready=bool)
    again.close()


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_it_is_served_over_ipv6_too() -> None:
    with open_site("::1") as site:
        assert site.page("/live") == (200, "ok\n")


def test_at_most_sixteen_requests_are_served_at_a_time(site: Site) -> None:
    site.may_answer.clear()
    with ExitStack() as stack:
        for _ in range(16):
            waiting = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
            stack.enter_context(closing(waiting))
            waiting.request("GET", "/metrics")
            assert site.asked.acquire(timeout=10)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            site.page("/live")
        site.may_answer.set()
        assert waiting.getresponse().status == 200
