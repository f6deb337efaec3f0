"""Run simulated clusters: `python -m tests.sim --seed 7`, `--seeds 1-200`, `--minutes 10`.

What it decides: which plans are run and what is printed about each: a line, and the story of what
went wrong. The last line of a single run is `trace` and the digest of all that happened.
Exits 0 if every run was sound, 1 if one was not, 2 if it was called wrongly, 130 if interrupted.
Its tests are tests/sim/test_command.py. Needs nothing but the installed package.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from tests.sim.generate import generate
from tests.sim.plan import Plan
from tests.sim.run import Verdict, run
from tests.sim.shrink import shrink

_SOUND, _VIOLATION, _USAGE, _INTERRUPTED = 0, 1, 2, 130
_NODES = (3, 9)
_RATES = (1, 100)
_SHRINK_S = 120.0


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(_USAGE, f"{self.prog}: {message} (--help lists all options)\n")


def main(words: Sequence[str] | None = None) -> int:
    """Carry out a command; returns its exit code."""
    parser = _new_parser()
    asked = parser.parse_args(words)
    before = signal.signal(signal.SIGTERM, _interrupt)  # the sum is told then, too
    try:
        if asked.seeds is not None or asked.minutes is not None:
            return _run_many(asked)
        return _run_one(parser, asked)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _VIOLATION
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _new_parser() -> _Parser:
    parser = _Parser(prog="python -m tests.sim", description=__doc__, allow_abbrev=False)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=_seed, metavar="N", help="run the plan of one seed")
    which.add_argument("--seeds", type=_seeds, metavar="A-B", help="run those of many seeds")
    which.add_argument("--minutes", type=_minutes, metavar="M", help="run seeds for so long")
    which.add_argument("--replay", type=Path, metavar="FILE", help="run a plan that was written")
    parser.add_argument("--from", dest="first", type=_seed, default=1, metavar="N",
                        help="with --minutes: the first seed (1)")  # fmt: skip
    parser.add_argument("--jobs", type=_jobs, default=1, metavar="N",
                        help="processes, for many seeds (1)")  # fmt: skip
    parser.add_argument("--nodes", type=_nodes, metavar="N", help="nodes (drawn by each seed)")
    parser.add_argument("--rate", type=_rate, metavar="N",
                        help="operations a second (drawn by each seed)")  # fmt: skip
    parser.add_argument("--usual", action="store_true", help="leave all settings as is usual")
    parser.add_argument("--unsafe", action="store_true",
                        help="let faults damage every copy of a record")  # fmt: skip
    parser.add_argument("--keep", type=_names, metavar="o1,f3", help="leave out all other items")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the plan down")
    parser.add_argument("--shrink", action="store_true",
                        help="look for the shortest plan that shows a violation")  # fmt: skip
    return parser


# ---- one run -----------------------------------------------------------------------------------


def _run_one(parser: _Parser, asked: argparse.Namespace) -> int:
    plan = _plan_of(parser, asked)
    if asked.write is not None:
        _write(parser, asked.write, plan)
    verdict = run(plan)
    print(_line(verdict))
    if verdict.violation is not None:
        print(f"\n{verdict.violation.invariant}: {verdict.violation.message}\n")
        if asked.shrink:
            _shrink(parser, plan, asked)
        else:
            print(f"shrink: {_command(asked)} --shrink")
    print(f"trace {verdict.digest}")
    return _SOUND if verdict.violation is None else _VIOLATION


def _plan_of(parser: _Parser, asked: argparse.Namespace) -> Plan:
    if asked.replay is None:
        plan = generate(asked.seed, **_wishes(asked))
    else:
        if asked.nodes is not None or asked.rate is not None or asked.usual:
            parser.error("--nodes, --rate, --usual: the plan that is replayed says all that")
        try:
            plan = Plan.from_json(asked.replay.read_text())
        except (OSError, UnicodeDecodeError) as exc:
            parser.error(f"--replay {asked.replay}: {getattr(exc, 'strerror', None) or exc}")
        except ValueError as exc:
            parser.error(f"--replay {asked.replay}: {exc}")
        if asked.unsafe:
            plan = dataclasses.replace(plan, is_unsafe=True)
    if asked.keep is None:
        return plan
    unknown = sorted(set(asked.keep) - set(plan.items()))
    if unknown:
        parser.error(f"--keep: the plan has no item {', '.join(unknown)}")
    return plan.only(asked.keep)


def _shrink(parser: _Parser, plan: Plan, asked: argparse.Namespace) -> None:
    smaller = shrink(plan, within_s=_SHRINK_S)
    path = asked.write or Path(f"seed-{plan.seed}.json")
    _write(parser, path, smaller)
    print(f"{len(plan.items())} items, {len(smaller.items())} are enough: {path}")
    print(f"replay: python -m tests.sim --replay {path}")
    if smaller == plan.only(smaller.items()) and asked.replay is None:
        print(f"replay: {_command(asked)} --keep {','.join(smaller.items())}")


def _write(parser: _Parser, path: Path, plan: Plan) -> None:
    try:
        path.write_text(plan.to_json())
    except OSError as exc:
        parser.error(f"--write {path}: {exc.strerror}")


def _command(asked: argparse.Namespace) -> str:
    words = ["python -m tests.sim"]
    words += [f"--seed {asked.seed}"] if asked.replay is None else [f"--replay {asked.replay}"]
    words += [f"--nodes {asked.nodes}"] if asked.nodes else []
    words += [f"--rate {asked.rate}"] if asked.rate else []
    words += ["--usual"] if asked.usual else []
    words += ["--unsafe"] if asked.unsafe else []
    words += [f"--keep {','.join(asked.keep)}"] if asked.keep else []
    return " ".join(words)


def _line(verdict: Verdict) -> str:
    """Return what came of a run in one line."""
    outcomes: Counter[str] = Counter()
    for name, count in verdict.operations.items():
        outcomes[name.partition(" ")[2]] += count
    told = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    violation = verdict.violation
    return (
        f"seed {verdict.seed}: {'sound' if violation is None else violation.invariant}; "
        f"{verdict.simulated_us / 1e6:.0f} s in {verdict.cpu_s:.1f} s; "
        f"{verdict.faults.total()} faults; {told or 'no operations'}"
    )


# ---- many runs ---------------------------------------------------------------------------------


@dataclasses.dataclass(slots=True)
class _Sum:
    """What came of many runs."""

    runs: int = 0
    simulated_us: int = 0
    cpu_s: float = 0.0
    operations: Counter[str] = dataclasses.field(default_factory=Counter)
    faults: Counter[str] = dataclasses.field(default_factory=Counter)
    violations: dict[int, str] = dataclasses.field(default_factory=dict)

    def add(self, verdict: Verdict) -> None:
        """Take in one run."""
        self.runs += 1
        self.simulated_us += verdict.simulated_us
        self.cpu_s += verdict.cpu_s
        self.operations += verdict.operations
        self.faults += verdict.faults
        if verdict.violation is not None:
            self.violations[verdict.seed] = verdict.violation.invariant

    def lines(self) -> list[str]:
        """Return it as people read it."""
        hours, speed = self.simulated_us / 3.6e9, self.simulated_us / 1e6 / max(self.cpu_s, 0.001)
        outcomes = ", ".join(f"{count:,} {name}" for name, count in self.operations.most_common())
        faults = ", ".join(f"{count:,} {name}" for name, count in self.faults.most_common())
        took = f"{self.cpu_s:,.0f} s of CPU ({speed:.0f} simulated seconds a second)"
        return [
            f"{self.runs:,} runs, {hours:.2f} simulated hours in {took}",
            f"{len(self.violations)} violations",
            f"{self.operations.total():,} operations: {outcomes}",
            f"{self.faults.total():,} faults: {faults}",
            *(f"violation: seed {seed}: {name}" for seed, name in sorted(self.violations.items())),
        ]


def _run_many(asked: argparse.Namespace) -> int:
    total = _Sum()
    seeds: Iterable[int] = asked.seeds or _for_minutes(asked.first, asked.minutes)
    try:
        for verdict in _verdicts(seeds, asked):
            total.add(verdict)
            if verdict.violation is not None:
                print(_line(verdict), flush=True)
    finally:
        print("\n".join(total.lines()))
    return _VIOLATION if total.violations else _SOUND


def _for_minutes(first: int, minutes: float) -> Iterator[int]:
    """Yield seeds until the time is over."""
    end = time.monotonic() + 60 * minutes
    return itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(first))


def _verdicts(seeds: Iterable[int], asked: argparse.Namespace) -> Iterator[Verdict]:
    """Yield verdicts as they come; no more plans are under way than there are processes."""
    work = partial(_run_seed, wishes=_wishes(asked))
    if asked.jobs == 1:
        yield from map(work, seeds)
        return
    left = iter(seeds)
    with ProcessPoolExecutor(asked.jobs) as pool:
        running: set[Future[Verdict]] = set()
        while True:
            for seed in itertools.islice(left, asked.jobs - len(running)):
                running.add(pool.submit(work, seed))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


def _run_seed(seed: int, *, wishes: dict[str, Any]) -> Verdict:
    return run(generate(seed, **wishes))


def _wishes(asked: argparse.Namespace) -> dict[str, Any]:
    """Return what is not to be drawn, as arguments of `generate`."""
    return {
        "nodes": asked.nodes,
        "rate": asked.rate,
        "is_usual": asked.usual,
        "is_unsafe": asked.unsafe,
    }


# ---- arguments ---------------------------------------------------------------------------------


def _seed(text: str) -> int:
    return _number(text, 0, (1 << 64) - 1)


def _jobs(text: str) -> int:
    return _number(text, 1, 256)


def _nodes(text: str) -> int:
    return _number(text, *_NODES)


def _rate(text: str) -> int:
    return _number(text, *_RATES)


def _number(text: str, low: int, high: int) -> int:
    if not text.isascii() or not text.isdigit() or not low <= int(text) <= high:
        raise argparse.ArgumentTypeError(
            f"expected a whole number of {low} to {high}, got {text!r}"
        )
    return int(text)


def _seeds(text: str) -> range:
    first, dash, last = text.partition("-")
    if not dash:
        raise argparse.ArgumentTypeError(f"expected two numbers, as 1-200, got {text!r}")
    low, high = _seed(first), _seed(last)
    if low > high:
        raise argparse.ArgumentTypeError(f"{text!r} ends before it begins")
    return range(low, high + 1)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= 100_000:
        raise argparse.ArgumentTypeError(f"expected a number of minutes, got {text!r}")
    return minutes


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("expected names of items, as o1,f3")
    return names


if __name__ == "__main__":
    sys.exit(main())
