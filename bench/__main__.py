"""`python -m bench`: measure a cluster of this checkout, alone or beside others, or read a profile.

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
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from bench import driver, failover, page, profiler, report
from bench.driver import Result, Settings, Side
from bench.target import SYSTEMS, BenchError, Target, Wanted, starter
from kvnode.bench import keys, machine, summary, workers
from kvnode.bench.workers import Generator, WorkerDied
from kvnode.bench.workload import WORKLOADS
from kvnode.cli.bench_arguments import size_bytes
from kvnode.cli.local import ClusterError

T = TypeVar("T")
DEFAULT_WORKLOADS = ("put", "get", "a")
DEFAULT_IN_FLIGHT = (1, 16, 128, 1024)
DEFAULT_VALUE_BYTES = (100, 10 << 10)
DRIVERS = ("aetcd", "redis", "hiredis", "cassandra-driver", "kazoo")
"""Clients of other stores, whose versions are kept with the figures."""


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command says; return its exit status."""
    arguments = _parser().parse_args(words)
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        status: int = arguments.do(arguments)
    except (BenchError, ClusterError, WorkerDied) as error:
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
    where = _machine(arguments.dir)
    with ExitStack() as stack:
        sides = [_side(stack, target, arguments) for target in _targets(stack, arguments)]
        results = driver.measure(settings, sides, _tell)
        notes = {side.target.name: side.target.notes for side in sides}
    print(report.table(report.medians(results), cpu=arguments.cpu))
    _keep(
        arguments.json,
        report.document(machine=where, settings=_kept(arguments), notes=notes, results=results),
    )
    return 1 if any(result.figures.tally.faults for result in results) else 0


def fail_over(arguments: argparse.Namespace) -> int:
    """Kill a node of each store under a steady load; print what its users saw."""
    where = _machine(arguments.dir)
    plan = failover.Plan(
        rate=arguments.rate,
        seconds=arguments.seconds,
        kill_after_s=arguments.kill_after,
        in_flight=arguments.in_flight,
        keys=arguments.keys,
        seed=arguments.seed,
    )
    results = []
    for number in range(arguments.rounds):
        for system in arguments.systems:
            with ExitStack() as stack:
                target = stack.enter_context(starter(system)(_wanted(arguments)))
                side = _side(stack, target, arguments)
                results.append(failover.lose_one(plan, side.target, side.load, number))
            print(failover.progress(results[-1]), file=sys.stderr, flush=True)
    print(failover.table(results))
    _keep(
        arguments.json,
        failover.document(machine=where, settings=_kept(arguments), results=results),
    )
    return 0


def draw(arguments: argparse.Namespace) -> int:
    """Make a page of results that were kept."""
    kept = [(path.name, json.loads(path.read_text())) for path in arguments.files]
    for path in page.write(kept, arguments.to, form=arguments.form):
        print(path)
    return 0


def top(arguments: argparse.Namespace) -> int:
    """Print the costliest functions of raw profiles."""
    for path in arguments.files:
        with path.open() as stacks:
            print(f"{path}\n{report.top_table(profiler.top(stacks), arguments.limit)}")
    return 0


# ---- what the words mean ---------------------------------------------------------------------


def _tell(result: Result) -> None:
    print(report.progress(result), file=sys.stderr, flush=True)


def _targets(stack: ExitStack, arguments: argparse.Namespace) -> list[Target]:
    if arguments.seeds is not None:
        return [Target(name="kvnode", where=arguments.seeds, pids={})]
    wanted = _wanted(arguments)
    return [stack.enter_context(starter(name)(wanted)) for name in arguments.systems]


def _wanted(arguments: argparse.Namespace) -> Wanted:
    return Wanted(
        parent=arguments.dir,
        nodes=getattr(arguments, "nodes", 3),
        is_synced=arguments.durability == "synced",
    )


def _side(stack: ExitStack, target: Target, arguments: argparse.Namespace) -> Side:
    options = dict(target.options)
    silence_ms = getattr(arguments, "silence_ms", None)
    if silence_ms is not None and target.name.startswith("kvnode"):
        options["silence_ms"] = silence_ms
    generator = Generator(
        where=target.where,
        adapter=target.adapter,
        options=options,
        processes=getattr(arguments, "processes", 1),
        loop=getattr(arguments, "loop", "uvloop"),
    )
    return Side(target=target, load=stack.enter_context(workers.working(generator)))


def _machine(folder: Path | None) -> dict[str, Any]:
    probed = folder or Path(tempfile.gettempdir())
    return machine.describe(*DRIVERS) | {"sync_p50_ms": driver.sync_p50_ms(probed)}


def _kept(arguments: argparse.Namespace) -> dict[str, Any]:
    return {name: value for name, value in vars(arguments).items() if name != "do"}


def _keep(path: Path | None, document: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(summary.text(document))


def _settings(arguments: argparse.Namespace) -> Settings:
    return Settings(
        workloads=arguments.workload,
        draw=arguments.draw,
        in_flight=arguments.in_flight,
        value_bytes=arguments.value_bytes,
        keys=arguments.keys,
        seconds=arguments.seconds,
        warm_s=arguments.warm,
        rounds=arguments.rounds,
        seed=arguments.seed,
        rate=arguments.rate,
        profile=arguments.profile,
        profile_format=arguments.profile_format,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the store.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    measuring = commands.add_parser("run", help="start stores, load them, and measure them")
    measuring.set_defaults(do=run)
    _add_workload(measuring)
    _add_target(measuring)
    measuring.add_argument("--seeds", metavar="HOST:PORT,...", help="measure this cluster instead")
    _add_output(measuring)
    _add_failover(commands.add_parser("failover", help="kill a node of each store under load"))
    drawing = commands.add_parser("page", help="make a page with plots of results in JSON")
    drawing.set_defaults(do=draw)
    drawing.add_argument("files", nargs="+", type=Path, metavar="FILE")
    drawing.add_argument("--to", type=Path, required=True, metavar="DIR")
    drawing.add_argument("--form", choices=("svg", "png"), default="svg", help="of the plots")
    reading = commands.add_parser("top", help="list the costliest functions of raw profiles")
    reading.set_defaults(do=top)
    reading.add_argument("files", nargs="+", type=Path, metavar="FILE")
    reading.add_argument("--limit", type=_positive, default=25, metavar="N")
    return parser


def _add_workload(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload")
    one_of = ",".join(WORKLOADS)
    group.add_argument(
        "--workload", type=_several(_word(WORKLOADS)), default=DEFAULT_WORKLOADS, metavar=one_of
    )
    group.add_argument("--draw", choices=keys.DISTRIBUTIONS, help="default: the workload's own")
    group.add_argument(
        "--in-flight", type=_several(_positive), default=DEFAULT_IN_FLIGHT, metavar="N,..."
    )
    group.add_argument(
        "--value-bytes", type=_several(size_bytes), default=DEFAULT_VALUE_BYTES, metavar="N,..."
    )
    group.add_argument("--keys", type=_positive, metavar="N", help="10,000; fewer if large")
    group.add_argument("--rate", type=float, metavar="N", help="a second; default: closed loop")
    group.add_argument("--seconds", type=float, default=5.0, help="of each measured run")
    group.add_argument("--warm", type=float, default=2.0, help="seconds before each, unmeasured")
    group.add_argument("--rounds", type=_positive, default=3, metavar="N")
    group.add_argument("--seed", type=int, default=1)
    group.add_argument("--processes", type=_positive, default=1, help="of the load generator")
    group.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop")
    group.add_argument(
        "--silence-ms",
        type=float,
        help="after which our client asks another node; raise it where the machine is busy",
    )


def _add_target(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("stores")
    group.add_argument(
        "--systems",
        type=_several(_word(SYSTEMS)),
        default=("kvnode",),
        metavar=",".join(SYSTEMS),
        help="they take turns",
    )
    group.add_argument("--nodes", type=_positive, default=3, metavar="N", help="of ours")
    group.add_argument(
        "--durability",
        choices=("synced", "defaults"),
        default="synced",
        help="what is answered has been synced, or each store as it comes",
    )
    group.add_argument("--dir", type=Path, help="where their data lives meanwhile")


def _add_failover(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(do=fail_over)
    _add_target(parser)
    parser.add_argument("--rate", type=float, default=500.0, help="operations a second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--kill-after", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--in-flight", type=_positive, default=1024, help="at most")
    parser.add_argument("--keys", type=_positive, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=_positive, default=1, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep everything here")


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


def _word(known: Sequence[str] | dict[str, Any]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"one of {', '.join(known)}, not {text}")
        return text

    return read


if __name__ == "__main__":
    sys.exit(main())
