"""Clusters for the tests here; a failure shows the ends of their nodes' logs.

What it decides: every test below is marked `cluster`; what a fixture made is killed at its end.
The helpers are in tests/support/nodes.py, and the tests beside this file are its tests.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.support.nodes import LIVING, Nodes

Cluster = Callable[..., Nodes]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what starts processes."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.cluster)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print the nodes' logs with every failure."""
    report = yield
    if report.failed:
        for nodes in LIVING:
            report.sections.append((f"logs of {nodes.local.directory}", nodes.logs()))
    return report


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Give a function that makes a cluster of its own for this test, and starts it."""
    made: list[Nodes] = []

    def make(count: int = 3, *, start: bool = True, **how: object) -> Nodes:
        nodes = Nodes(tmp_path / f"cluster{len(made)}", count, **how)  # type: ignore[arg-type]
        made.append(nodes)
        if start:
            nodes.start()
            nodes.wait_linked()
        return nodes

    yield make
    for nodes in made:
        nodes.close()


@pytest.fixture(scope="module")
def trio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """Give three nodes that a module's tests share; none of them may break it."""
    nodes = Nodes(tmp_path_factory.mktemp("trio") / "cluster", 3)
    try:
        nodes.start()
        nodes.wait_linked()
        yield nodes
    finally:
        nodes.close()
