"""Whether the simulator finds the bugs that are planted for it: `python -m tests.sim.mutants`.

What it decides: which mutants, over which seeds, and what is told of each: the seeds that it took,
and the invariant that it broke. Plans are those of any run (tests/sim/generate.py): nothing here
knows which faults a mutant needs.
Laws: a mutant counts as found only by a plan that the sound store passes; the same seeds give the
same table, but for times. Its tests are tests/sim/test_mutants.py.
Left out: the bugs (tests/sim/bugs.py).
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat

from tests.sim.bugs import MUTANTS
from tests.sim.generate import generate
from tests.sim.planted import Mutant, noted, planted
from tests.sim.run import run

SEEDS = 200
"""A mutant must be found within as many."""


@dataclass(frozen=True, slots=True)
class Hunt:
    """What came of looking for one mutant."""

    name: str
    seeds: int
    """How many were tried."""
    seed: int | None = None
    """The one that found it; None: none did."""
    invariant: str = ""
    message: str = ""
    unsound: tuple[int, ...] = ()
    """Seeds whose plans the store breaks without any mutant: nothing was found by them."""
    took_s: float = 0.0
    """Of this process's time."""

    @property
    def row(self) -> str:
        """A line of the table."""
        found = "not found" if self.seed is None else self.invariant
        return f"| {self.name} | {self.seeds} | {found} | {self.took_s:.0f} s |"


def hunt(bug: Mutant, seeds: Sequence[int]) -> Hunt:
    """Plant a mutant, and run one plan after another until an invariant breaks."""
    (found,) = hunt_all([bug], seeds)
    return found


def hunt_all(bugs: Iterable[Mutant], seeds: Sequence[int]) -> Iterator[Hunt]:
    """Look for several; each is told of as soon as it is found.

    The sound store runs each plan first. A mutant is planted only where it would matter there: in
    all other plans it would change nothing.
    """
    open_ = {bug.name: bug for bug in bugs}
    took_s = dict.fromkeys(open_, 0.0)
    unsound: list[int] = []
    for count, seed in enumerate(seeds, start=1):
        if not open_:
            return
        plan = generate(seed)
        with noted(open_.values()) as matter:
            sound = run(plan)
        if sound.violation is not None:
            unsound.append(seed)
            continue
        for name in [name for name in open_ if name in matter]:
            with planted(open_[name]):
                verdict = run(plan)
            took_s[name] += verdict.cpu_s
            if (broken := verdict.violation) is not None:
                del open_[name]
                told = broken.invariant, broken.message
                yield Hunt(name, count, seed, *told, tuple(unsound), took_s[name])
    for name in open_:
        yield Hunt(name, len(seeds), unsound=tuple(unsound), took_s=took_s[name])


def sample(names: Sequence[str], count: int, seed: int) -> list[str]:
    """Return so many mutants, by chance, in their order."""
    chosen = frozenset(random.Random(f"{seed} mutants").sample(names, min(count, len(names))))
    return [name for name in names if name in chosen]


def main(words: Sequence[str] | None = None) -> int:
    """Look for the mutants that are named, or a sample, or all; return the exit status."""
    parser = _parser()
    asked = parser.parse_args(words)
    names = asked.mutant or list(MUTANTS)
    if unknown := [name for name in names if name not in MUTANTS]:
        parser.error(f"no mutant {unknown[0]!r}; there are: {'; '.join(MUTANTS)}")
    if asked.sample:
        names = sample(names, asked.sample, asked.first)
    seeds = range(asked.first, asked.first + asked.seeds)
    print("| mutant | seeds | breaks | took |\n|---|---|---|---|", flush=True)
    hunts = []
    for each in _hunts(names, seeds, jobs=asked.jobs):
        hunts.append(each)
        print(each.row, flush=True)
    if asked.stories:
        print(*(f"\n{each.name}: seed {each.seed}\n{each.message}" for each in hunts), sep="\n")
    if unsound := sorted({seed for each in hunts for seed in each.unsound}):
        print(f"broken without any mutant: seeds {', '.join(map(str, unsound))}")
    return 1 if unsound or any(each.seed is None for each in hunts) else 0


def _hunts(names: Sequence[str], seeds: Sequence[int], *, jobs: int) -> Iterator[Hunt]:
    if jobs == 1:
        yield from hunt_all([MUTANTS[name] for name in names], seeds)
        return
    parts = [names[first::jobs] for first in range(jobs)]
    with ProcessPoolExecutor(jobs) as pool:
        yield from itertools.chain.from_iterable(pool.map(_hunt_named, parts, repeat(seeds)))


def _hunt_named(names: Sequence[str], seeds: Sequence[int]) -> list[Hunt]:
    return list(hunt_all([MUTANTS[name] for name in names], seeds))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.sim.mutants", description="Whether planted bugs are found."
    )
    parser.add_argument("mutant", nargs="*", help="by name; all, if none is named")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"at most so many ({SEEDS})")
    parser.add_argument("--first", type=int, default=1, help="the first seed (1)")
    parser.add_argument("--sample", type=int, default=0, help="so many mutants, by chance")
    parser.add_argument("--jobs", type=int, default=1, help="processes (1)")
    parser.add_argument("--stories", action="store_true", help="tell how each was found")
    return parser


if __name__ == "__main__":
    sys.exit(main())
