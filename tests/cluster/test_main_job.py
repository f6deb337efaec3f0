"""The main job, on real input: a standard library into five nodes that die one after another.

Each death comes while the work is under way; never are two nodes dead at once. `load` must end
with 0 failed and `verify` must find every byte.
"""

from __future__ import annotations

import re
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.nodes import Nodes, finished, output, until

_BEGUN = 200
"""Operations after which a load or a verify is surely under way, of some thousands."""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of the running Python's standard library: the original may change any time.

    Installed packages and caches are no part of it.
    """
    copy = tmp_path_factory.mktemp("main-job") / "library"
    skip = shutil.ignore_patterns("site-packages", "dist-packages", "__pycache__")
    shutil.copytree(sysconfig.get_path("stdlib"), copy, symlinks=True, ignore=skip)
    return copy


def operations(nodes: Nodes) -> float:
    return sum(nodes.metric(name, "operations") for name in nodes.local.running())


def killing(nodes: Nodes, victim: str, *words: str) -> str:
    """Run a command, kill a node once it is under way, and return what the command printed."""
    before = operations(nodes)
    with finished(nodes.command(*words, "--seeds", nodes.seeds)) as command:
        until(lambda: operations(nodes) > before + _BEGUN or command.poll() is not None)
        nodes.kill(victim)
        assert command.poll() is None, "it was over before the node died"
        return output(command, within_s=100)


def counted(said: str, verb: str) -> int:
    """Return how many files a command says that it did."""
    found = re.search(rf"^{verb} ([\d,]+) files", said, re.MULTILINE)
    assert found is not None, said
    return int(found[1].replace(",", ""))


@pytest.mark.timeout(240)
def test_a_library_loads_and_verifies_while_nodes_die_in_turn(
    cluster: Callable[..., Nodes], library: Path
) -> None:
    nodes = cluster(5)
    files = sum(1 for path in library.rglob("*") if path.is_file() and not path.is_symlink())
    assert files > 500  # whatever Python's own library comes to here

    said = killing(nodes, "n2", "load", str(library))
    assert ": 0 failed" in said
    assert counted(said, "loaded") == files
    with finished(nodes.command("verify", str(library), "--seeds", nodes.seeds)) as command:
        assert_all_there(output(command, within_s=60), files)

    nodes.start("n2")
    for victim in ("n4", "n5"):
        nodes.wait_linked()
        assert_all_there(killing(nodes, victim, "verify", str(library)), files)
        nodes.start(victim)


def assert_all_there(said: str, files: int) -> None:
    assert ": 0 differ, 0 missing, 0 failed" in said
    assert counted(said, "verified") == files
