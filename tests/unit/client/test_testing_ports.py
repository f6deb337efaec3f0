"""The laws of kvclient.testing.ports."""

from __future__ import annotations

import socket

import pytest

from kvclient.testing import ports as module
from kvclient.testing.files import KitError
from kvclient.testing.ports import HTTP_PORT_OFFSET, Ports


def test_ports_can_be_listened_on_and_are_not_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Ports(5)
    low = min(first.numbers)
    monkeypatch.setattr(module, "_FIRST", low)
    monkeypatch.setattr(module, "_LAST", low + 1)
    try:
        for port in first.numbers:
            for one in (port, port + HTTP_PORT_OFFSET):
                socket.create_server(("127.0.0.1", one)).close()
        with pytest.raises(KitError, match="no free ports"):
            Ports(1)
    finally:
        first.close()


def test_ports_that_were_given_back_can_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Ports(1)
    first.close()
    monkeypatch.setattr(module, "_FIRST", first.numbers[0])
    monkeypatch.setattr(module, "_LAST", first.numbers[0] + 1)
    second = Ports(1)
    assert second.numbers == first.numbers
    second.close()


@pytest.mark.parametrize("offset", [0, HTTP_PORT_OFFSET])
def test_a_port_that_a_program_uses_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, offset: int
) -> None:
    probe = Ports(1)
    probe.close()
    monkeypatch.setattr(module, "_FIRST", probe.numbers[0])
    monkeypatch.setattr(module, "_LAST", probe.numbers[0] + 1)
    with (
        socket.create_server(("127.0.0.1", probe.numbers[0] + offset)),
        pytest.raises(KitError, match="no free ports"),
    ):
        Ports(1)
