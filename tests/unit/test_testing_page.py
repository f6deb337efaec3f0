"""docs/testing.md: every failure that the project is held to has a test, and the test exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEADING = "## Failures, row by row\n"
ROWS = range(1, 36)
SIMULATED_ALONE = {2, 5, 11, 12, 15, 16, 17, 18, 19, 28}
"""What needs an order of messages that only the simulator can bring about."""


def table(page: str) -> dict[int, list[str]]:
    """Return the cells of each row, by its number."""
    section = page.partition(HEADING)[2].partition("\n## ")[0]
    lines = re.findall(r"^\| (\d+) \| (.*) \|$", section, re.MULTILINE)
    return {int(number): [cell.strip() for cell in rest.split("|")] for number, rest in lines}


def missing(cell: str) -> list[str]:
    """Return what a cell names and is not there: files, and parts of the names of tests.

    A file without a folder is in the folder of the one before.
    """
    found: list[str] = []
    folder, text = "", ""
    for word in re.findall(r"tests/[\w/]*\.py|\btest_\w+\.py|`[\w ]+`", cell):
        if word.startswith("`"):
            if not re.search(rf"^(?:async )?def test_\w*{word.strip('`')}", text, re.MULTILINE):
                found.append(word)
            continue
        folder = word.rpartition("/")[0] or folder
        path = ROOT / folder / word.rpartition("/")[2]
        text = path.read_text() if path.exists() else ""
        if not text:
            found.append(word)
    return found


ROWS_TOLD = table((ROOT / "docs/testing.md").read_text())


def test_every_failure_has_a_row() -> None:
    assert list(ROWS_TOLD) == list(ROWS)


@pytest.mark.parametrize("number", ROWS)
def test_every_test_that_a_row_names_exists(number: int) -> None:
    what, real, simulated, figure = ROWS_TOLD[number]
    assert what
    assert figure
    assert real or simulated
    assert bool(real) == (number not in SIMULATED_ALONE)
    assert missing(real) + missing(simulated) == []


@pytest.mark.parametrize(
    "cell",
    [
        "tests/unit/test_nothing.py",
        "tests/unit/test_testing_page.py `that_nobody_wrote`",
        "tests/unit/test_testing_page.py; test_nothing.py",
    ],
)
def test_what_is_not_there_is_found(cell: str) -> None:
    assert len(missing(cell)) == 1
