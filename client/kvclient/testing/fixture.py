"""The pytest plugin: `pytest_plugins = ["kvclient.testing.fixture"]` in a conftest.py.

    @pytest.mark.kvcluster(nodes=5)
    def test_a_death_is_not_noticed(kvcluster):
        with kvcluster.client() as db:
            db.put("k", b"v")
            kvcluster.kill("n2")
            assert db.get("k") == b"v"

Decides nothing but the life of a cluster: one for each test, 3 nodes unless the marker says
otherwise; its arguments are those of `Cluster`. Laws: nothing is left behind, whatever the test
does; when a test fails, the report shows the end of what each node has logged.
Tests: tests/unit/client/test_testing_fixture.py, tests/cluster/test_kit.py.
This module alone imports pytest, which the client does not need.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from kvclient.testing.cluster import Cluster
from kvclient.testing.probes import lacks

_CLUSTER = pytest.StashKey[Cluster]()
_LOG_TAIL = 4_000
_MARKER = "kvcluster(nodes=3, **options): what cluster the fixture of this name gives"


def requires(*needs: str) -> pytest.MarkDecorator:
    """Return a mark that skips a test, with the reason, where the machine lacks one of `needs`."""
    missing = lacks(*needs)
    return pytest.mark.skipif(bool(missing), reason=missing or "nothing is missing")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", _MARKER)


@pytest.fixture
def kvcluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Give a cluster of real nodes, linked and ready."""
    mark = request.node.get_closest_marker("kvcluster")
    options = dict(mark.kwargs) if mark else {}
    with Cluster(*(mark.args if mark else ()), **options) as cluster:
        request.node.stash[_CLUSTER] = cluster
        yield cluster


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the nodes have said with a failure of the test itself."""
    report = yield
    cluster = item.stash.get(_CLUSTER, None)
    if report.failed and report.when == "call" and cluster is not None:
        for name in cluster.ids:
            report.sections.append((f"log of {name}", cluster.log(name)[-_LOG_TAIL:]))
    return report
