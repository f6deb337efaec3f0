"""What is asked of a store: which operations, on which keys, with which values.

Decides the sequence of operations of one process in one run. Laws: the same job gives the same
operations in the same order, as long as inserts are acknowledged in the same order; whatever is
read was loaded before, or inserted and acknowledged. Held by tests/unit/bench/test_workload.py.
Source: YCSB's core workloads A to F (Cooper et al., SoCC 2010). They differ in that a record is one
value here, which an update writes as a whole; and in E, since hashed stores have no ordered scan:
it asks for as many keys by their names, in one call where the store has one. Leaves out when an
operation is sent: kvnode/bench/loops.py.
"""

from __future__ import annotations

import dataclasses
import itertools
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple, TypeAlias

from kvnode.bench import keys
from kvnode.bench.keys import Distribution, Draw

Kind: TypeAlias = Literal["read", "update", "insert", "modify", "many"]
"""modify: read, then write in place of what was read. many: read keys that follow each other."""

MANY_MAX = 100
"""YCSB's longest scan; lengths are uniform from 1."""
DEFAULT_KEYS = 10_000
DEFAULT_LOADED_BYTES = 64 << 20
"""Large values get fewer keys unless a number is asked for, so that the load phase stays short."""
_READS_KEPT = 1 << 16
_POOL_BYTES = 4 << 20
_POOL_LEAST, _POOL_MOST = 16, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A mix of operations."""

    shares: Mapping[Kind, float]
    """Of one kind of operation or two."""
    draw: Distribution
    about: str


WORKLOADS: dict[str, Workload] = {
    "a": Workload(shares={"read": 0.5, "update": 0.5}, draw="zipfian", about="half reads"),
    "b": Workload(shares={"read": 0.95, "update": 0.05}, draw="zipfian", about="mostly reads"),
    "c": Workload(shares={"read": 1.0}, draw="zipfian", about="reads alone"),
    "d": Workload(shares={"read": 0.95, "insert": 0.05}, draw="latest", about="what is new"),
    "e": Workload(shares={"many": 0.95, "insert": 0.05}, draw="zipfian", about="many keys at once"),
    "f": Workload(shares={"read": 0.5, "modify": 0.5}, draw="zipfian", about="read, then write"),
    "put": Workload(shares={"update": 1.0}, draw="uniform", about="writes alone"),
    "get": Workload(shares={"read": 1.0}, draw="uniform", about="reads alone"),
}
"""a to f are YCSB's; put and get are what most people ask first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of one workload, or the load phase before it; or one process's part of either."""

    workload: str
    draw: Distribution
    value_bytes: int
    keys: int
    seed: int
    in_flight: int
    """Callers, each of whom has at most one operation under way."""
    rate: float | None = None
    """Operations a second that are to begin, in time with a clock; None: as fast as answered."""
    seconds: float = 0.0
    is_load: bool = False
    """Put every key once, however long that takes."""
    tag: str = "0"
    """Names the keys that this run inserts: no other run of the same cluster may have it."""
    process: int = 0
    processes: int = 1

    def to_json(self) -> dict[str, Any]:
        """Return its fields."""
        return dataclasses.asdict(self)

    def part(self, process: int, processes: int) -> Job:
        """Return what one of so many processes does of it."""
        callers = self.in_flight // processes + (process < self.in_flight % processes)
        rate = None if self.rate is None else self.rate / processes
        return dataclasses.replace(
            self, in_flight=callers, rate=rate, process=process, processes=processes
        )


class Step(NamedTuple):
    """One operation."""

    kind: Kind
    key: bytes
    value: bytes = b""
    more: Sequence[bytes] = ()
    """Of `many`: all keys, the first included."""


def default_keys(value_bytes: int) -> int:
    """Return how many keys to load where nobody says."""
    return max(1, min(DEFAULT_KEYS, DEFAULT_LOADED_BYTES // max(1, value_bytes)))


def key_at(number: int, value_bytes: int) -> bytes:
    """Return the loaded key with this number; each size of values has keys of its own."""
    return b"bench:%d:%010d" % (value_bytes, number)


def values(value_bytes: int, rng: Random) -> tuple[bytes, ...]:
    """Return some values that do not compress, and are too many to be told apart by a window."""
    count = max(_POOL_LEAST, min(_POOL_MOST, _POOL_BYTES // max(1, value_bytes)))
    return tuple(rng.randbytes(value_bytes) for _ in range(count))


class Work:
    """The operations of one process, one after the other."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._rng = Random(f"{job.seed}/{job.process}/{job.processes}")
        self._pool = values(job.value_bytes, Random(job.seed))
        self._inserted = array("q")
        """Numbers of our acknowledged inserts, in the order of their acknowledgement."""

    def steps(self) -> Iterator[Step]:
        """Yield what to do: without end, or in the load phase each key once."""
        return self._loading() if self._job.is_load else self._running()

    def acknowledged(self, step: Step) -> None:
        """Remember an insert: from now on it may be read."""
        self._inserted.append(int(step.key.rpartition(b":")[2]))

    def _loading(self) -> Iterator[Step]:
        job, pool = self._job, self._pool
        for number in range(job.process, job.keys, job.processes):
            value = pool[number % len(pool)]
            yield Step("insert", key_at(number, job.value_bytes), value)

    def _running(self) -> Iterator[Step]:
        (usual, share), *others = WORKLOADS[self._job.workload].shares.items()
        other = others[0][0] if others else usual
        reads, key = self._reads_at_hand(), self._key
        draw, chance = self._draw(), self._rng.random
        values = itertools.cycle(self._pool)
        inserts = itertools.count()
        while True:
            kind = usual if chance() < share else other
            if kind == "read":
                drawn = draw()
                yield reads[drawn] if reads else Step("read", key(drawn))
            elif kind == "insert":
                yield Step(kind, self._inserted_key(next(inserts)), next(values))
            elif kind == "many":
                yield self._many(draw(), 1 + int(chance() * MANY_MAX))
            else:
                drawn = draw()
                yield Step(kind, reads[drawn].key if reads else key(drawn), next(values))

    def _reads_at_hand(self) -> Sequence[Step]:
        """Return a read of each key, if they do not change and are not too many to keep."""
        job = self._job
        if job.draw == "latest" or job.keys > _READS_KEPT:
            return ()
        return [Step("read", key_at(number, job.value_bytes)) for number in range(job.keys)]

    def _draw(self) -> Draw:
        job = self._job
        if job.draw == "uniform":
            return keys.uniform(job.keys, self._rng)
        return (keys.scrambled if job.draw == "zipfian" else keys.zipfian)(job.keys, self._rng)

    def _key(self, number: int) -> bytes:
        """Return the key that a draw names: of `latest`, counted back from the newest."""
        job = self._job
        if job.draw != "latest":
            return key_at(number, job.value_bytes)
        if number < len(self._inserted):
            return self._inserted_key(self._inserted[-1 - number])
        return key_at(job.keys - 1 - (number - len(self._inserted)), job.value_bytes)

    def _inserted_key(self, number: int) -> bytes:
        job = self._job
        name = f"bench:{job.value_bytes}:{job.tag}:{job.process}:{number}"
        return name.encode()

    def _many(self, first: int, length: int) -> Step:
        job = self._job
        wanted = [key_at((first + i) % job.keys, job.value_bytes) for i in range(length)]
        return Step("many", wanted[0], more=wanted)
