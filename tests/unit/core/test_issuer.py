"""The dots of one life: contiguous, and spent only once a write is stored."""

from __future__ import annotations

from kvnode.core.issuer import Issuer
from kvnode.core.keys import Partition
from kvnode.core.versions import Dot
from tests.unit.core.builders import put

HERE, THERE = Partition(3), Partition(4)


def test_a_write_that_is_not_stored_leaves_no_gap() -> None:
    issuer = Issuer(7)
    assert issuer.seal_next(put(), HERE, memory=b"").dot == Dot(7, 1)
    assert issuer.seal_next(put(), HERE, memory=b"").dot == Dot(7, 1)
    issuer.spend(HERE, Dot(7, 1))
    assert issuer.seal_next(put(), HERE, memory=b"").dot == Dot(7, 2)


def test_partitions_count_apart() -> None:
    issuer = Issuer(7)
    issuer.spend(HERE, Dot(7, 1))
    assert issuer.seal_next(put(), THERE, memory=b"").dot == Dot(7, 1)


def test_others_dots_and_older_ones_move_no_counter() -> None:
    issuer = Issuer(7)
    issuer.spend(HERE, Dot(7, 5))
    issuer.spend(HERE, Dot(8, 9))
    issuer.spend(HERE, Dot(7, 2))
    assert issuer.seal_next(put(), HERE, memory=b"").dot == Dot(7, 6)
