"""Claims about bench/usage.py."""

from __future__ import annotations

import os
import time

import pytest

from bench import usage
from bench.usage import Usage


def test_the_name_of_a_command_may_hold_blanks_and_brackets() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    fields = ["S", *["0"] * 10, str(3 * ticks), str(2 * ticks), "0"]
    assert usage.cpu_seconds(f"77 (a) (b c) {' '.join(fields)}") == 5.0


def test_neither_idle_time_nor_guests_count_as_work() -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    spent = [1, 2, 3, 100, 200, 4, 5, 6, 50, 60]
    line = " ".join(str(seconds * ticks) for seconds in spent)
    assert usage.busy_seconds(f"cpu  {line}\ncpu0 1 2 3\n") == 1 + 2 + 3 + 4 + 5 + 6


def test_what_a_process_works_is_what_it_used() -> None:
    before = usage.read({"me": os.getpid()})
    began_s = time.process_time()
    while time.process_time() < began_s + 0.1:
        pass
    used = usage.read({"me": os.getpid()}).since(before)
    assert used.processes["me"] == pytest.approx(0.1, abs=0.05)
    assert used.machine >= used.processes["me"] - 0.05


def test_use_is_what_came_to_it() -> None:
    earlier = Usage(processes={"n1": 1.0}, machine=10.0)
    later = Usage(processes={"n1": 1.5}, machine=12.0)
    assert later.since(earlier) == Usage(processes={"n1": 0.5}, machine=2.0)


def test_a_process_that_is_gone_is_an_error_not_zero() -> None:
    with pytest.raises(OSError, match="No such file"):
        usage.read({"n1": 2**30})


def test_memory_is_told_in_mebibytes() -> None:
    assert 5 < usage.resident_mib(os.getpid()) < 4096
