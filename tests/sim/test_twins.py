"""Attempts of one write in whole clusters: what replaced one of them replaced them all."""

from __future__ import annotations

import pytest

from kvnode.core.topology import Keyspace, Resolve
from tests.sim.checks import OK
from tests.sim.client import DEADLINE_US, Client
from tests.sim.cluster import Cluster
from tests.sim.test_cluster import KEY, NAME, cluster_of, held, values
from tests.sim.test_hints import cluster_of as sloppy_cluster_of

SIBLINGS = Keyspace(name="default", sloppy=False, resolve=Resolve.SIBLINGS)


def tried_twice(seed: int) -> tuple[Cluster, list[int]]:
    """Return a cluster with a put that is stuck at an owner from which nothing comes, and that was
    acknowledged through another."""
    cluster = cluster_of(seed, keyspace=SIBLINGS)
    a, b, c = cluster.owners(NAME)
    for other in (b, c):
        cluster.network.links[a, other].holds = lambda _: True
    client = Client(cluster, 0)
    client.prefers = b
    client.deaf_to.add(a)
    write = client.put(KEY, b"old", at=a)
    assert (write.outcome, write.attempts) == (OK, 2)
    return cluster, [a, b, c]


def release(cluster: Cluster, a: int, *others: int) -> None:
    for other in others:
        cluster.network.release(a, other)
    cluster.run(1_000_000)


def test_an_attempt_that_was_stuck_does_not_come_back_beside_what_replaced_the_other(
    seed: int,
) -> None:
    cluster, (a, b, c) = tried_twice(seed)
    cluster.run(1_000_000)  # until nobody asks it
    editor = Client(cluster, 1)
    seen = editor.get(KEY, at=b)
    assert seen.values == {b"old"}
    assert editor.put(KEY, b"new", at=b, context=seen).outcome == OK
    release(cluster, a, b, c)
    assert [values(held(cluster, node)) for node in (b, c)] == [[b"new"]] * 2
    for node in (a, b, c):
        assert Client(cluster, 10 + node).get(KEY, at=node, r=3).values == {b"new"}


def test_both_attempts_are_one_value_until_then(seed: int) -> None:
    cluster, (a, b, c) = tried_twice(seed)
    release(cluster, a, b, c)
    assert Client(cluster, 1).get(KEY, at=a, r=3).values == {b"old"}


@pytest.mark.parametrize("rewrites", [1, 9])
def test_a_session_that_rewrites_its_key_is_never_given_an_attempt_that_was_stuck(
    seed: int, rewrites: int
) -> None:
    # Two owners took the first attempt, on the other side of a partition, and voted for it. The
    # session goes on with one owner and stand-ins, whose hints have no votes.
    cluster = sloppy_cluster_of(seed)
    a, b, c = cluster.owners(NAME)
    for ours in cluster.hosts:
        for theirs in (b, c):
            if ours not in (b, c):
                cluster.cut(ours, theirs)
    cluster.run(3_000_000)
    session = Client(cluster, 0)
    session.prefers = a
    first = session.put(KEY, b"old", at=b, wait=False)
    assert cluster.run(1_000_000, until=lambda: b"old" in values(held(cluster, c)))
    session.cut(b)
    session.cut(c)
    cluster.run(DEADLINE_US, until=lambda: first.outcome is not None)
    assert (first.outcome, first.attempts) == (OK, 2)
    for number in range(rewrites):
        assert session.put(KEY, b"new %d" % number, at=a).outcome == OK
    for other in (b, c):  # and not yet to the stand-ins, which have hints for them
        cluster.mend(a, other)
        session.mend(other)
    cluster.run(1_000_000)
    for number in range(12):
        if number == 6:
            cluster.heal()
        read = session.get(KEY, at=(a, b, c)[number % 3])
        assert read.values == {b"new %d" % (rewrites - 1)}
        cluster.run(5_000)
    assert cluster.run(30_000_000, until=cluster.are_owners_equal)
    assert values(held(cluster, b)) == [b"new %d" % (rewrites - 1)]
