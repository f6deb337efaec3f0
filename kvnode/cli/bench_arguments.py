"""The flags of `kvnode bench`.

Decides what is wrong usage as far as one flag shows it. Laws: those of kvnode/cli/arguments.py,
whose part this is. Held by tests/unit/cli/test_bench.py. Leaves out which words there are for
workloads: kvnode/cli/bench.py asks the load generator.
"""

from __future__ import annotations

import argparse
import re
from argparse import ArgumentParser as Parser
from pathlib import Path

from kvnode.cli.readers import number_above_0, seconds, whole, words

_UNITS = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20}
_VALUE_MAX = 16 << 20


def declare(parser: Parser) -> None:
    """Declare the flags that are the bench's own: what is asked, how hard, for how long."""
    parser.add_argument(
        "--workload", type=words("a workload"), default=("a",), metavar="NAME,…",
        help="a to f as YCSB has them, put, get; several run one after the other (default: a)",
    )  # fmt: skip
    parser.add_argument(
        "--draw", choices=("uniform", "zipfian", "latest"),
        help="how keys are drawn (default: as the workload has it)",
    )  # fmt: skip
    parser.add_argument(
        "--keys", type=whole("a whole number", 1, 1_000_000_000), metavar="N",
        help="how many are loaded (default: 10,000, fewer where values are large)",
    )  # fmt: skip
    parser.add_argument(
        "--value-bytes", type=size_bytes, default=100, metavar="SIZE",
        help="such as 100, 10KiB or 1MiB (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--only", choices=("load", "run"),
        help="load: put the keys and no more; run: they were loaded before",
    )  # fmt: skip
    _pace(parser)
    parser.add_argument(
        "--seed", type=whole("a seed", 0, (1 << 32) - 1), default=1, metavar="N",
        help="of all chance; the same seed asks for the same keys (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--json", type=Path, metavar="F", help="write everything about the runs here"
    )


def _pace(parser: Parser) -> None:
    parser.add_argument(
        "--in-flight", type=whole("a whole number", 1, 32_768), default=64, metavar="N",
        help="callers, each with one operation under way at most (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--rate", type=number_above_0("operations a second"), metavar="N",
        help="begin so many operations a second, latency counted from when each should have "
        "begun (default: each caller asks again once it is answered)",
    )  # fmt: skip
    parser.add_argument(
        "--seconds", type=seconds, default=10.0, metavar="S",
        help="of each workload (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--warm", type=seconds, default=1.0, metavar="S",
        help="before each, unmeasured (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=whole("a whole number", 1, 64), default=1, metavar="N",
        help="of the load generator (default: %(default)s)",
    )  # fmt: skip


def size_bytes(text: str) -> int:
    """Read a size: a whole number of bytes, KiB or MiB."""
    found = re.fullmatch(r"(\d{1,9})(B|KiB|MiB|)", text)
    size = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 1 <= size <= _VALUE_MAX:
        raise argparse.ArgumentTypeError(
            f"expected a size from 1 to 16MiB, such as 100, 10KiB or 1MiB, got {text!r}"
        )
    return size
