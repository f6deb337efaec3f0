"""`python -m bench`: measure a cluster of this checkout, or read a profile.

Decides what the words of the command mean. Held by tests/unit/bench/test_main.py. Leaves out
everything else: see bench/README.md for the other modules.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TypeVar

from bench import cluster, driver, machine, profiler, report
from bench.cluster import BenchError, Target
from bench.driver import Result, Settings
from bench.workload import MIXES
from kvnode.cli.local import ClusterError
from kvnode.core.topology import Durability

T = TypeVar("T")
DEFAULT_IN_FLIGHT = (1, 16, 128, 1024)
DEFAULT_VALUE_BYTES = (100, 10 << 10)


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command says; return its exit status."""
    arguments = _parser().parse_args(words)
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        status: int = arguments.do(arguments)
    except (BenchError, ClusterError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    return status


def _terminated(_number: int, _frame: FrameType | None) -> None:
    """Leave as by Ctrl-C: the nodes outlive their starter unless they are stopped."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


def run(arguments: argparse.Namespace) -> int:
    """Measure; print a table, keep JSON if asked. 1 if any operation failed."""
    settings = _settings(arguments)
    where = machine.describe(arguments.dir or Path(tempfile.gettempdir()))
    with (
        _target(arguments) as target,
        driver.generating(
            target.seeds, loop=arguments.loop, silence_ms=arguments.silence_ms
        ) as generator,
    ):
        results = driver.measure(settings, target, generator, _tell)
    print(report.table(report.medians(results), cpu=arguments.cpu))
    if arguments.json is not None:
        kept = {name: value for name, value in vars(arguments).items() if name != "do"}
        made = report.document(machine=where, settings=kept, results=results)
        arguments.json.write_text(json.dumps(made, default=str, indent=1) + "\n")
    return 1 if any(result.faults for result in results) else 0


def top(arguments: argparse.Namespace) -> int:
    """Print the costliest functions of raw profiles."""
    for path in arguments.files:
        with path.open() as stacks:
            print(f"{path}\n{report.top_table(profiler.top(stacks), arguments.limit)}")
    return 0


def _tell(result: Result) -> None:
    print(report.progress(result), file=sys.stderr, flush=True)


def _target(arguments: argparse.Namespace) -> AbstractContextManager[Target]:
    if arguments.seeds is not None:
        return nullcontext(Target(seeds=arguments.seeds, pids={}))
    return cluster.started(
        nodes=arguments.nodes, durability=arguments.durability, parent=arguments.dir
    )


def _settings(arguments: argparse.Namespace) -> Settings:
    return Settings(
        mixes=arguments.mix,
        in_flight=arguments.in_flight,
        value_bytes=arguments.value_bytes,
        keys=arguments.keys,
        seconds=arguments.seconds,
        warm_s=arguments.warm,
        rounds=arguments.rounds,
        seed=arguments.seed,
        profile=arguments.profile,
        profile_format=arguments.profile_format,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the store.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    measuring = commands.add_parser("run", help="start a cluster, load it, and measure it")
    measuring.set_defaults(do=run)
    _add_workload(measuring)
    _add_target(measuring)
    _add_output(measuring)
    reading = commands.add_parser("top", help="list the costliest functions of raw profiles")
    reading.set_defaults(do=top)
    reading.add_argument("files", nargs="+", type=Path, metavar="FILE")
    reading.add_argument("--limit", type=_positive, default=25, metavar="N")
    return parser


def _add_workload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload")
    group.add_argument("--mix", type=_several(_mix), default=MIXES, metavar="put,get,mixed")
    group.add_argument(
        "--in-flight", type=_several(_positive), default=DEFAULT_IN_FLIGHT, metavar="N,..."
    )
    group.add_argument(
        "--value-bytes", type=_several(_positive), default=DEFAULT_VALUE_BYTES, metavar="N,..."
    )
    group.add_argument("--keys", type=_positive, default=10_000, metavar="N")
    group.add_argument("--seconds", type=float, default=5.0, help="of each measured run")
    group.add_argument("--warm", type=float, default=2.0, help="seconds before each, unmeasured")
    group.add_argument("--rounds", type=_positive, default=3, metavar="N")
    group.add_argument("--seed", type=int, default=1)
    group.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    group.add_argument(
        "--silence-ms",
        type=float,
        default=driver.SILENCE_MS,
        help="after which the client asks another node; raise it where the machine is busy",
    )


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("cluster")
    group.add_argument("--nodes", type=_positive, default=3, metavar="N")
    group.add_argument("--durability", type=Durability, default=Durability.FSYNC)
    group.add_argument("--dir", type=Path, help="where its data lives meanwhile")
    group.add_argument("--seeds", metavar="HOST:PORT,...", help="measure this cluster instead")


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--cpu", action="store_true", help="show CPU time per operation")
    group.add_argument("--json", type=Path, metavar="FILE", help="keep everything here")
    group.add_argument("--profile", type=Path, metavar="DIR", help="sample all with py-spy")
    group.add_argument("--profile-format", choices=tuple(profiler.SUFFIX), default="raw")


def _several(one: Callable[[str], T]) -> Callable[[str], list[T]]:
    def parse(text: str) -> list[T]:
        return [one(part) for part in text.split(",")]

    return parse


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 up, not {text}")
    return number


def _mix(text: str) -> str:
    if text not in MIXES:
        raise argparse.ArgumentTypeError(f"one of {', '.join(MIXES)}, not {text}")
    return text


if __name__ == "__main__":
    sys.exit(main())
