"""Claims about kvnode/bench/keys.py: what is drawn follows the law of its name."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from kvnode.bench import keys
from kvnode.bench.keys import THETA, Draw

DRAWS = 40_000


def counted(draw: Draw) -> Counter[int]:
    return Counter(draw() for _ in range(DRAWS))


def test_uniform_draws_are_equally_likely() -> None:
    found = counted(keys.uniform(10, Random(1)))
    assert sorted(found) == list(range(10))
    expected = DRAWS / 10
    # Chi squared with 9 degrees of freedom: above 27.9 once in a thousand seeds.
    assert sum((n - expected) ** 2 / expected for n in found.values()) < 27.9


def test_zipfian_draws_are_as_likely_as_their_law_says() -> None:
    count = 1000
    found = counted(keys.zipfian(count, Random(1)))
    weights = [(number + 1) ** -THETA for number in range(count)]
    total = sum(weights)
    for number in (0, 1):  # exact in the method of Gray et al.
        assert found[number] / DRAWS == pytest.approx(weights[number] / total, rel=0.05)
    for first, last in ((2, 9), (10, 99), (100, 999)):  # an approximation from there on
        seen = sum(found[number] for number in range(first, last + 1)) / DRAWS
        assert seen == pytest.approx(sum(weights[first : last + 1]) / total, rel=0.12)
    assert max(found) < count


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_keys_are_drawn_too(count: int) -> None:
    for make in (keys.uniform, keys.zipfian, keys.scrambled):
        assert set(counted(make(count, Random(1)))) == set(range(count))


def test_scrambled_draws_are_as_skewed_but_strewn() -> None:
    count = 1000
    popular = counted(keys.scrambled(count, Random(1))).most_common(20)
    shares = [n / DRAWS for _, n in popular]
    # Each key gets the ranks that fall to it by chance besides its own: 1 / 1000 of the rest.
    rest = 1.0 / count
    assert shares[0] == pytest.approx(1 / keys.zeta(keys.SCRAMBLED_ITEMS) + rest, rel=0.1)
    numbers = sorted(number for number, _ in popular)
    assert numbers[-1] - numbers[0] > count // 2
    assert popular[0][0] == keys.fnv64(0) % count


def test_every_rank_is_strewn_by_the_hash_popular_or_not() -> None:
    ranks, drawn = (
        make(count, Random(2))
        for make, count in ((keys.zipfian, keys.SCRAMBLED_ITEMS), (keys.scrambled, 777))
    )
    assert all(drawn() == keys.fnv64(ranks()) % 777 for _ in range(2000))


def test_zeta_is_the_sum_also_where_it_is_not_added_up() -> None:
    exact = sum(i**-THETA for i in range(1, 50_001))
    assert keys.zeta(50_000) == pytest.approx(exact, rel=1e-12)
    ycsb = 26.46902820178302  # ScrambledZipfianGenerator.ZETAN
    assert keys.zeta(keys.SCRAMBLED_ITEMS) == pytest.approx(ycsb, rel=1e-11)


@pytest.mark.parametrize("number", [0, 1, 255, 256, 65_536, 9_999_999_999, (1 << 64) - 1])
def test_the_hash_is_fnv_of_the_eight_octets_folded_as_a_signed_number(number: int) -> None:
    hashed = 0xCBF29CE484222325
    for octet in number.to_bytes(8, "little"):
        hashed = (hashed ^ octet) * 1099511628211 % (1 << 64)
    assert keys.fnv64(number) == abs(hashed - (1 << 64) if hashed >> 63 else hashed)


def test_the_same_chance_gives_the_same_numbers() -> None:
    for make in (keys.uniform, keys.zipfian, keys.scrambled):
        one, other = (make(1000, Random(5)) for _ in range(2))
        assert [one() for _ in range(100)] == [other() for _ in range(100)]
