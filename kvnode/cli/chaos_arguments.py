"""The flags of `kvnode chaos`, which are many.

Decides what is wrong usage as far as one flag shows it. Laws: those of kvnode/cli/arguments.py,
whose part this is. Held by tests/unit/cli/test_chaos.py. Leaves out which words there are for
workloads and faults: kvnode/cli/chaos.py asks the kit.
"""

from __future__ import annotations

from argparse import ArgumentParser as Parser
from pathlib import Path

from kvnode.cli.readers import seconds, whole, words


def declare(parser: Parser) -> None:
    """Declare the flags of `kvnode chaos`."""
    parser.add_argument(
        "--nodes", type=whole("a whole number of nodes", 1, 50), default=5, metavar="N",
        help="of a new cluster, made for this run (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--data", type=Path, metavar="DIR", help="make it here, and leave it here")
    parser.add_argument(
        "--seconds", type=seconds, default=30.0, metavar="S", help="of load (default: %(default)s)"
    )
    _load(parser)
    _faults(parser)
    parser.add_argument(
        "--history", type=Path, metavar="F", help="write all that was asked and answered here"
    )
    parser.add_argument(
        "--judge", type=Path, metavar="F", help="judge a history written before; run nothing"
    )


def _load(parser: Parser) -> None:
    parser.add_argument(
        "--workload", type=words("a workload"), default=("mixed",), metavar="NAME,…",
        help="set, register, context, rewrite, mixed: what clients do (default: mixed)",
    )  # fmt: skip
    parser.add_argument(
        "--rate", type=whole("a whole number", 1, 100_000), default=500, metavar="N",
        help="operations a second, at most (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=whole("a whole number", 1, 4_096), default=32, metavar="N",
        help="how many operations may be under way at once (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--strict", action="store_true",
        help="use a keyspace without stand-ins, and hold every read to real time",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=seconds, default=5.0, metavar="S",
        help="of each operation (default: %(default)s)",
    )  # fmt: skip


def _faults(parser: Parser) -> None:
    parser.add_argument(
        "--faults", type=words("a fault"), metavar="KIND,…",
        help="kill, pause, isolate, cut, wipe, slow, slow-disk, skew, halves, bridge, ring "
        "(default: kill,pause,wipe,isolate,cut,halves,slow,slow-disk,skew)",
    )  # fmt: skip
    parser.add_argument(
        "--every", type=seconds, default=5.0, metavar="S",
        help="seconds from one fault to the next (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--lasting", type=seconds, default=2.5, metavar="S",
        help="seconds until a fault is undone (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=whole("a seed", 0, (1 << 32) - 1), metavar="N",
        help="of all chance; the same seed makes the same faults (default: by chance)",
    )  # fmt: skip
    parser.add_argument("--schedule", type=Path, metavar="F", help="faults from this file instead")
    parser.add_argument(
        "--hard", action="store_true", help="allow more faults at once than quorums survive"
    )
