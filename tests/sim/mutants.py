"""Whether the simulator finds the bugs that are planted for it: `python -m tests.sim.mutants`.

What it decides: which mutants, over which seeds, and what is told of each: the seeds that it took,
and the invariant that it broke. Plans are those of any run (tests/sim/generate.py): nothing here
knows which faults a mutant needs.
Laws: a mutant counts as found only where the sound store passes the same plan, if that is asked
for; the same seeds give the same table. Its tests are tests/sim/test_mutants.py.
Left out: the bugs (tests/sim/bugs.py).
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from tests.sim.bugs import MUTANTS
from tests.sim.generate import generate
from tests.sim.planted import planted
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
    took_s: float = 0.0

    @property
    def row(self) -> str:
        """A line of the table."""
        found = "not found" if self.seed is None else self.invariant
        return f"| {self.name} | {self.seeds} | {found} | {self.took_s:.0f} s |"


def hunt(name: str, seeds: Sequence[int]) -> Hunt:
    """Plant a mutant, and run one plan after another until an invariant breaks."""
    began = time.process_time()
    with planted(MUTANTS[name]):
        for count, seed in enumerate(seeds, start=1):
            violation = run(generate(seed)).violation
            if violation is not None:
                took_s = time.process_time() - began
                return Hunt(name, count, seed, violation.invariant, violation.message, took_s)
    return Hunt(name, len(seeds), took_s=time.process_time() - began)


def sound(hunts: Iterable[Hunt]) -> list[str]:
    """Return what the sound store breaks of the plans that found mutants: it must be nothing."""
    seeds = sorted({each.seed for each in hunts if each.seed is not None})
    found = ((seed, run(generate(seed)).violation) for seed in seeds)
    return [f"seed {seed} breaks {bad.invariant} without any mutant" for seed, bad in found if bad]


def sample(count: int, seed: int) -> list[str]:
    """Return so many mutants, by chance, in their order."""
    chosen = frozenset(random.Random(f"{seed} mutants").sample(list(MUTANTS), count))
    return [name for name in MUTANTS if name in chosen]


def main(words: Sequence[str] | None = None) -> int:
    """Look for the mutants that are named, or a sample, or all; return the exit status."""
    parser = _parser()
    asked = parser.parse_args(words)
    names = asked.mutant or list(MUTANTS)
    if unknown := [name for name in names if name not in MUTANTS]:
        parser.error(f"no mutant {unknown[0]!r}; there are: {'; '.join(MUTANTS)}")
    if asked.sample:
        names = sample(min(asked.sample, len(MUTANTS)), asked.first)
    seeds = range(asked.first, asked.first + asked.seeds)
    print("| mutant | seeds | breaks | took |\n|---|---|---|---|", flush=True)
    hunts = []
    with ProcessPoolExecutor(asked.jobs) as pool:
        for each in pool.map(partial(hunt, seeds=seeds), names):
            hunts.append(each)
            print(each.row, flush=True)
    if asked.stories:
        print(*(f"\n{each.name}: seed {each.seed}\n{each.message}" for each in hunts), sep="\n")
    doubts = sound(hunts)
    print(*doubts, sep="\n", end="\n" if doubts else "")
    return 1 if doubts or any(each.seed is None for each in hunts) else 0


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
