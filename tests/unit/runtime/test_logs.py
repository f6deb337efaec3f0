"""A node's log: one line an event, in UTC, in files that are rotated and bounded."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvnode.runtime.logs import FILE, begin_logging

log = logging.getLogger("kvnode.test")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    names = ("grpc", "asyncio")
    handlers, level = root.handlers, root.level
    levels = {name: logging.getLogger(name).level for name in names}
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers, root.level = handlers, level
    for name in names:
        logging.getLogger(name).setLevel(levels[name])


def lines(folder: Path) -> list[str]:
    return (folder / FILE).read_text(encoding="utf-8").splitlines()


def test_a_line_is_an_instant_in_utc_a_level_and_an_event(tmp_path: Path) -> None:
    begin_logging(tmp_path, bytes_max=1 << 20)
    log.info("peer_down peer=%s", "n2")
    (line,) = lines(tmp_path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO peer_down peer=n2", line)


def test_what_is_only_for_debugging_is_not_kept(tmp_path: Path) -> None:
    begin_logging(tmp_path, bytes_max=1 << 20)
    log.debug("noise")
    log.warning("kept")
    assert [line.split()[-1] for line in lines(tmp_path)] == ["kept"]


def test_a_peer_that_dies_is_no_traceback_of_grpc(tmp_path: Path) -> None:
    begin_logging(tmp_path, bytes_max=1 << 20)
    logging.getLogger("grpc._cython.cygrpc").error("a cancelled stream")
    logging.getLogger("asyncio").warning("slow callback")
    assert lines(tmp_path) == []


def test_logs_take_a_bounded_room(tmp_path: Path) -> None:
    begin_logging(tmp_path, bytes_max=1_000)
    for number in range(500):
        log.info("event number=%d", number)
    files = list(tmp_path.glob(f"{FILE}*"))
    assert len(files) == 6
    assert all(file.stat().st_size <= 1_000 for file in files)
    assert "number=499" in lines(tmp_path)[-1]


def test_a_second_start_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for number in range(2):
        begin_logging(tmp_path, bytes_max=1 << 20)
        log.info("start number=%d", number)
        logging.getLogger().handlers[0].close()
    assert [line.split("=")[-1] for line in lines(tmp_path)] == ["0", "1"]
