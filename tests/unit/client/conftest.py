"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.client.fakes import Bench, FakeCluster


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    """Three fake nodes, listening."""
    fake = FakeCluster()
    yield fake
    fake.close()


@pytest.fixture
def bench() -> Bench:
    """An engine over three lanes, without sockets."""
    return Bench()
