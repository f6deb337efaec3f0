"""Which keys are asked: uniformly, by Zipf's law, or mostly the latest ones.

Decides how numbers of keys are drawn. Laws: a draw is a whole number from 0 to below `count`; the
same generator of chance gives the same numbers. The shares follow the law of their name. Held by
tests/unit/bench/test_keys.py.
Source: YCSB (Cooper et al., SoCC 2010): ZipfianGenerator, after Gray et al., "Quickly generating
billion-record synthetic databases" (SIGMOD 1994), and ScrambledZipfianGenerator, with its
constants. Leaves out YCSB's growth of the law with each insert: the law is over the keys that were
loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Literal, TypeAlias, get_args

Distribution: TypeAlias = Literal["uniform", "zipfian", "latest"]
DISTRIBUTIONS: tuple[Distribution, ...] = get_args(Distribution)
Draw: TypeAlias = Callable[[], int]

THETA = 0.99
"""YCSB's skew: the most popular of a million keys gets 7 % of all operations."""
SCRAMBLED_ITEMS = 10_000_000_000
"""Ranks are drawn among so many, then strewn over the keys: popular keys do not lie together, and
which keys are popular hardly depends on how many there are."""

_FNV_OFFSET = 0xCBF29CE484222325
_FNV_PRIME = 1099511628211
_MASK = (1 << 64) - 1
_OCTETS = 8
_PRIMES = tuple(pow(_FNV_PRIME, power, 1 << 64) for power in range(_OCTETS + 1))
_ZETA_EXACT = 1000
_POPULAR = 4096
"""A third of all ranks that are drawn are below this: their hashes are kept."""


def uniform(count: int, rng: Random) -> Draw:
    """Return a draw in which all numbers are equally likely."""
    chance = rng.random
    return lambda: int(chance() * count)


def zipfian(count: int, rng: Random) -> Draw:
    """Return a draw in which number i is as likely as 1 / (i + 1) ** THETA."""
    zeta_n = zeta(count)
    alpha = 1.0 / (1.0 - THETA)
    eta = (1.0 - (2.0 / count) ** (1.0 - THETA)) / (1.0 - zeta(2) / zeta_n) if count > 2 else 0.0
    second = 1.0 + 0.5**THETA
    chance = rng.random

    def draw() -> int:
        share = chance()
        scaled = share * zeta_n
        if scaled < 1.0:
            return 0
        if scaled < second:
            return min(1, count - 1)
        return min(count - 1, int(count * (eta * share - eta + 1.0) ** alpha))

    return draw


def scrambled(count: int, rng: Random) -> Draw:
    """Return YCSB's `zipfian`: ranks by Zipf's law, each strewn to a number by a hash."""
    rank = zipfian(SCRAMBLED_ITEMS, rng)
    popular = [fnv64(number) % count for number in range(_POPULAR)]

    def draw() -> int:
        drawn = rank()
        return popular[drawn] if drawn < _POPULAR else fnv64(drawn) % count

    return draw


def zeta(count: int) -> float:
    """Return the sum of 1 / i ** THETA for i from 1 to `count`, to 12 digits.

    Cost: at most a thousand terms; the rest by the formula of Euler and Maclaurin.
    """
    head = min(count, _ZETA_EXACT)
    total = sum(i**-THETA for i in range(1, head + 1))
    if count == head:
        return float(total)
    area = (count ** (1.0 - THETA) - head ** (1.0 - THETA)) / (1.0 - THETA)
    ends = (count**-THETA - head**-THETA) / 2.0
    slopes = THETA * (head ** (-THETA - 1.0) - count ** (-THETA - 1.0)) / 12.0
    return float(total + area + ends + slopes)


def fnv64(number: int) -> int:
    """Return YCSB's hash of a number that is not negative: FNV of its octets, as it folds it."""
    hashed = _FNV_OFFSET
    left = _OCTETS
    while number:
        hashed = (hashed ^ (number & 0xFF)) * _FNV_PRIME & _MASK
        number >>= 8
        left -= 1
    # What remains are zeros, and each of those only multiplies.
    hashed = hashed * _PRIMES[left] & _MASK
    return hashed if hashed < 1 << 63 else (1 << 64) - hashed
