"""Nodes, terminals and calls of the command for its tests."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvnode.cli import local
from kvnode.cli.local import LocalCluster
from kvnode.cli.main import main
from kvnode.runtime.config import default_config
from tests.support.nodes import free_base
from tests.unit.cli.fakes import FAKE


@pytest.fixture
def base_port() -> int:
    return free_base(3)


@pytest.fixture
def cluster(tmp_path: Path, base_port: int) -> Iterator[LocalCluster]:
    made = LocalCluster.create(tmp_path / "data", default_config(3, base_port), program=FAKE)
    yield made
    made.stop(timeout_s=2)


@pytest.fixture
def fake_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command start fake nodes."""
    monkeypatch.setattr(local, "SERVE", FAKE)


Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Call the command in this process; return its status, stdout and stderr."""

    def call(*words: str | Path) -> tuple[int, str, str]:
        status = main([str(word) for word in words])
        said = capfd.readouterr()
        return status, said.out, said.err

    return call


OnTerminal = Callable[[], Callable[[], str]]


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[OnTerminal]:
    """Give a function that makes stdout a terminal, and returns what reads the text shown on it."""
    parent, child = pty.openpty()
    stream = os.fdopen(child, "w", encoding="utf-8", buffering=1)

    def attach() -> Callable[[], str]:
        # Not before the test runs: pytest's capture sets its own stdout just before.
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "120")
        return lambda: _drained(parent, stream)

    yield attach
    stream.close()
    os.close(parent)


def _drained(parent: int, stream: object) -> str:
    assert hasattr(stream, "flush")
    stream.flush()
    os.set_blocking(parent, False)
    read = b""
    while True:
        try:
            read += os.read(parent, 65_536)
        except BlockingIOError:
            return read.decode().replace("\r\n", "\n")
