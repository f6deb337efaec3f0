"""Stores that several test files look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stores import COUNT, flip_bit, make_table


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store may be made."""
    return tmp_path / "store"


@pytest.fixture
def bad_block(path: Path) -> Path:
    """A store of COUNT records with one bit flipped in the middle of its table file."""
    table = make_table(path, COUNT)
    flip_bit(table, table.stat().st_size // 2)
    return path
