"""The torn end of a log: told if and only if the last record is not whole."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from kvnode.storage.tail import Torn, torn_end
from tests.support.stores import copy_of_live_log, opened, records


@pytest.mark.parametrize("size", [1, 100, 32_700, 32_768, 40_000, 100_000])
def test_a_log_that_ends_with_a_whole_record_is_not_torn(path: Path, size: int) -> None:
    for writes in (1, 3):
        shutil.rmtree(path.parent)
        path.parent.mkdir()
        log = copy_of_live_log(path, writes=writes, value=b"v" * size)
        assert torn_end(log.parent) is None


def test_a_last_record_cut_at_any_byte_is_torn_by_so_much(path: Path) -> None:
    log = copy_of_live_log(path, writes=3, value=b"v" * 50)
    content = log.read_bytes()
    record = len(content) // 3
    for kept in range(1, record):
        log.write_bytes(content[: 2 * record + kept])
        assert torn_end(log.parent) == Torn(log.name, kept), kept
    log.write_bytes(content[: 2 * record])
    assert torn_end(log.parent) is None


@pytest.mark.parametrize("edge", [-8, -7, -1, 0, 1, 6, 7, 8, 1_000])
@pytest.mark.parametrize("block", [1, 2])
def test_a_record_over_several_blocks_cut_anywhere_is_torn(
    path: Path, block: int, edge: int
) -> None:
    log = copy_of_live_log(path, writes=1, value=b"v" * 100_000)
    os.truncate(log, block * 32_768 + edge)
    torn = torn_end(log.parent)
    assert torn is not None
    assert torn.log == log.name


def test_what_is_not_torn_is_recovered_whole_and_what_is_is_not(path: Path) -> None:
    """The engine's own view agrees."""
    log = copy_of_live_log(path, writes=3, value=b"v" * 50)
    size = log.stat().st_size
    for cut, count in ((size, 3), (size - 1, 2), (2 * size // 3, 2)):
        copy = path.with_name(f"copy{cut}")
        shutil.copytree(log.parent, copy)
        os.truncate(copy / log.name, cut)
        assert (torn_end(copy) is not None) == (cut == size - 1)
        with opened(copy) as engine:
            assert len(records(engine)) == count
            assert engine.damage == ()


def test_room_set_aside_after_the_last_record_is_not_torn(path: Path) -> None:
    log = copy_of_live_log(path, writes=2)
    with log.open("ab") as file:
        file.write(bytes(3_000))
    assert torn_end(log.parent) is None


def test_no_log_or_an_empty_one_is_not_torn(path: Path) -> None:
    path.mkdir()
    assert torn_end(path) is None
    (path / "000004.log").touch()
    assert torn_end(path) is None


def test_fragments_of_one_record_are_dropped_together_also_within_a_block(path: Path) -> None:
    def fragment(kind: int) -> bytes:
        return bytes(4) + (5).to_bytes(2, "little") + bytes([kind]) + b"value"

    whole, first, last = fragment(1), fragment(2), fragment(4)
    path.mkdir()
    log = path / "000004.log"
    log.write_bytes(whole + first + last)
    assert torn_end(path) is None
    for cut in range(1, len(last) + 1):
        log.write_bytes((whole + first + last)[:-cut])
        assert torn_end(path) == Torn(log.name, len(first + last) - cut)
