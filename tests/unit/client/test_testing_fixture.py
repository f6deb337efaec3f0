"""The plugin kvclient.testing.fixture, in a pytest of its own: with a node that cannot start."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = """
import sys
import pytest
from kvclient.testing.fixture import requires

@pytest.mark.kvcluster(nodes=1, command=[sys.executable, "-c", "import sys; sys.exit('no luck')"])
def test_with_a_cluster(kvcluster): ...

@requires("linux", "root")
def test_with_needs(): ...
"""


def run(folder: Path, *words: str) -> str:
    (folder / "conftest.py").write_text('pytest_plugins = ["kvclient.testing.fixture"]\n')
    (folder / "test_it.py").write_text(TESTS)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-ra",
            "--strict-markers",
            "-p",
            "no:cacheprovider",
            *words,
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_cluster_that_does_not_start_fails_the_test_with_the_nodes_own_words(
    tmp_path: Path,
) -> None:
    said = run(tmp_path, "-k", "cluster")
    assert "KitError: n1 died (1): no luck" in said
    assert "1 error" in said


def test_a_machine_that_lacks_something_skips_aloud(tmp_path: Path) -> None:
    said = run(tmp_path, "-k", "needs")
    assert "1 passed" in said or ("SKIPPED" in said and "needs root" in said)


def test_the_marker_and_the_fixture_are_known(tmp_path: Path) -> None:
    assert "@pytest.mark.kvcluster(nodes=3, **options)" in run(tmp_path, "--markers")
    assert "kvcluster" in run(tmp_path, "--fixtures", "-q")
