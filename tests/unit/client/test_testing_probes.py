"""The laws of kvclient.testing.probes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from kvclient.testing.probes import PROBES, lack, lacks


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    lack.cache_clear()
    yield
    lack.cache_clear()


@pytest.mark.parametrize("need", PROBES)
def test_every_probe_answers_with_a_need_or_with_nothing(need: str) -> None:
    missing = lack(need)
    assert missing is None or missing.startswith("needs ")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert lacks("linux", "root", "strace") == "needs root; needs strace: apt-get install strace"
    assert lacks("tmpfs") == "needs root on Linux, to mount a tmpfs"


def test_what_is_forbidden_though_installed_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", "/nowhere")
    assert lacks("strace").startswith("needs leave to trace")


def test_an_unknown_need_is_refused() -> None:
    with pytest.raises(ValueError, match="tmpfs"):
        lack("luck")
