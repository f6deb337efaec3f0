"""serve hands over what it was told, and imports little."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from kvnode.runtime import serve as runtime
from kvnode.runtime.serve import ServeOptions
from tests.unit.cli.conftest import Run


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ServeOptions]:
    seen: list[ServeOptions] = []

    def run(options: ServeOptions) -> int:
        seen.append(options)
        return 0

    def leave(status: int) -> NoReturn:
        sys.exit(status)

    monkeypatch.setattr(runtime, "run", run)
    monkeypatch.setattr(os, "_exit", leave)
    return seen


def test_every_flag_reaches_the_node(run: Run, served: list[ServeOptions]) -> None:
    words = (
        "--node n1 --config c.toml --data d --listen 0.0.0.0:7 --peer n2=h:1 --insecure --restored"
    )
    assert run("serve", *words.split()) == (0, "", "")
    assert served == [
        ServeOptions(
            node="n1",
            config=Path("c.toml"),
            data=Path("d"),
            listen="0.0.0.0:7",
            peers={"n2": "h:1"},
            insecure=True,
            restored=True,
        )
    ]


def test_a_nodes_own_folder_is_that_of_a_local_cluster(
    run: Run, served: list[ServeOptions]
) -> None:
    run("serve", "--node", "n1", "--config", "c.toml")
    assert served[0].data == Path(".kvnode/n1")
    assert (served[0].listen, served[0].peers, served[0].insecure) == (None, {}, False)
