"""Claims about tests/support/seeds.py and what tests/conftest.py does with it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

from tests.support import seeds

PROBE = """
from hypothesis import given, strategies as st
drawn = []
@given(st.integers())
def test_probe(number):
    drawn.append(number)
def test_fails(rng):
    assert (sum(drawn), rng.random()) == ()
"""


def tree(root: Path, *, content: str) -> Path:
    (root / "kvnode").mkdir(parents=True)
    (root / "kvnode" / "a.py").write_text(content)
    return root


def test_equal_trees_give_equal_seeds_wherever_they_stand(tmp_path: Path) -> None:
    one = tree(tmp_path / "one", content="x = 1\n")
    two = tree(tmp_path / "two", content="x = 1\n")
    assert seeds.tree_seed(one) == seeds.tree_seed(two)


def test_one_changed_byte_changes_the_seed(tmp_path: Path) -> None:
    one = tree(tmp_path / "one", content="x = 1\n")
    two = tree(tmp_path / "two", content="x = 2\n")
    assert seeds.tree_seed(one) != seeds.tree_seed(two)


def test_a_renamed_file_changes_the_seed(tmp_path: Path) -> None:
    one = tree(tmp_path / "one", content="x = 1\n")
    before = seeds.tree_seed(one)
    (one / "kvnode" / "a.py").rename(one / "kvnode" / "b.py")
    assert seeds.tree_seed(one) != before


def test_this_tree_has_sources_to_draw_the_seed_from() -> None:
    assert Path(__file__) in seeds.source_files(seeds.ROOT)


def test_each_test_has_a_seed_of_its_own(seed: int, rng: random.Random) -> None:
    assert seed != seeds.derive(seeds.run_seed(), "another")
    assert rng.random() == random.Random(seed).random()


def probe(where: Path, *, seed: int) -> str:
    """Run the probe under this project's conftest; return what pytest printed of the failure."""
    (where / "test_probe.py").write_text(PROBE)
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "--rootdir", str(where)]
    env = os.environ | {"KVNODE_SEED": str(seed), "PYTHONPATH": str(seeds.ROOT)}
    done = subprocess.run(
        [*command, "-c", "/dev/null", str(where)],
        cwd=where, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    return done.stdout


def drawn(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("E       assert (")]


def test_the_seed_decides_what_hypothesis_draws_and_a_failure_prints_it(tmp_path: Path) -> None:
    first, again, other = (probe(tmp_path, seed=seed) for seed in (7, 7, 8))
    assert drawn(first) == drawn(again) != drawn(other)
    assert "KVNODE_SEED=7 pytest 'test_probe.py::test_fails'" in first
