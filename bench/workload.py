"""What is asked of a store: which operations, on which keys, with which values.

Decides the sequence of operations of one run. Laws: the same job gives the same operations in the
same order, byte for byte; whatever is read was loaded before. Held by
tests/unit/bench/test_workload.py. Leaves out when an operation is sent: bench/generator.py.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, TypeAlias, get_args

Mix: TypeAlias = Literal["put", "get", "mixed"]
MIXES: tuple[Mix, ...] = get_args(Mix)
PUT_SHARE: dict[Mix, float] = {"put": 1.0, "get": 0.0, "mixed": 0.5}

LOADED_BYTES_MAX = 64 << 20
"""Large values get fewer keys, so that the load phase stays short."""
_PLAN_LENGTH = 1 << 16
"""After so many operations the plan begins anew: drawing chances must not cost at run time."""
_VALUES = 64

Step: TypeAlias = "tuple[bytes, bytes | None]"
"""A key, and the value to put, or None to get it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of one workload, in a closed loop."""

    mix: Mix
    in_flight: int
    """Operations under way at any time, each followed by the next as soon as it is answered."""
    value_bytes: int
    keys: int
    seconds: float
    seed: int

    @property
    def name(self) -> str:
        """What names its files and rows."""
        return f"{self.mix}-{self.in_flight}-{self.value_bytes}B"

    def to_json(self) -> dict[str, Any]:
        """Return its fields."""
        return dataclasses.asdict(self)


def key_count(wanted: int, value_bytes: int) -> int:
    """Return how many keys to use for values of this size: `wanted`, or what fits the bound."""
    return max(1, min(wanted, LOADED_BYTES_MAX // max(1, value_bytes)))


def key_at(index: int, value_bytes: int) -> bytes:
    """Return the key with this number; each size of values has keys of its own."""
    return b"bench:%d:%08d" % (value_bytes, index)


def values(value_bytes: int, rng: Random) -> tuple[bytes, ...]:
    """Return some values that do not compress."""
    return tuple(rng.randbytes(value_bytes) for _ in range(_VALUES))


def loading(job: Job) -> Iterator[tuple[bytes, bytes]]:
    """Yield every key of the job once, with a first value."""
    pool = values(job.value_bytes, Random(job.seed))
    for index in range(job.keys):
        yield key_at(index, job.value_bytes), pool[index % _VALUES]


def plan(job: Job) -> Sequence[Step]:
    """Return what to ask, in order and then again from the start. Keys are drawn uniformly."""
    return _planned(job.mix, job.value_bytes, job.keys, job.seed)


@functools.lru_cache(maxsize=8)
def _planned(mix: Mix, value_bytes: int, keys: int, seed: int) -> Sequence[Step]:
    """Kept, since the unmeasured run before each measured one then bears the cost."""
    rng = Random(seed)
    pool = values(value_bytes, rng)
    share = PUT_SHARE[mix]
    steps: list[Step] = []
    for number in range(_PLAN_LENGTH):
        key = key_at(rng.randrange(keys), value_bytes)
        is_put = rng.random() < share
        steps.append((key, pool[number % _VALUES] if is_put else None))
    return tuple(steps)
