"""What every test shares: where chance comes from.

What it decides: one seed a run, drawn from the content of the source tree. So a commit always tries
the same cases, here and in CI, and the next commit tries others.
Laws: KVNODE_SEED overrides the seed; the header and every failure print it; no test draws chance
from elsewhere. Its test file is tests/unit/test_seeds.py.
"""

from __future__ import annotations

import os
import random
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.support import seeds

# No database of past failures: the seed alone repeats a failure, on any machine.
settings.register_profile(
    "default",
    database=None,
    deadline=None,  # the shared machines of CI stall; pytest-timeout catches what hangs
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("quick", settings.get_profile("default"), max_examples=20)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=2_000)
settings.load_profile(os.environ.get("KVNODE_PROFILE", "default"))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Hand the seed to hypothesis before its own plugin reads the option."""
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(seeds.run_seed())


def pytest_report_header() -> str:
    """Say how to repeat this run."""
    return f"seed: KVNODE_SEED={seeds.run_seed()} ({seeds.origin()})"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Print the seed with every failure."""
    report = yield
    if report.failed:
        report.sections.append(("seed", f"KVNODE_SEED={seeds.run_seed()} pytest '{item.nodeid}'"))
    return report


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Return this test's own seed: the run's seed and the test's name decide it."""
    return seeds.derive(seeds.run_seed(), request.node.nodeid)


@pytest.fixture
def rng(seed: int) -> random.Random:
    """Return this test's own source of chance."""
    return random.Random(seed)
