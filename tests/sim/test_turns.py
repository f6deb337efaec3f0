"""A turn that does more than what it was told is worth is noticed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.bounds import Limits
from kvnode.core.conversations import Fence, LogLosers, PeerAsks
from kvnode.core.keys import encode_key
from kvnode.core.messages import (
    Instant,
    Outbox,
    PeerReplies,
    PeerRequests,
    ReplicaRead,
    Scan,
    Scanned,
)
from kvnode.core.node import Turn
from kvnode.core.versions import Dot
from tests.sim.cluster import Cluster
from tests.sim.story import Broken
from tests.sim.turns import check_turn, items_of

KEY = encode_key("default", b"k")
READ = ReplicaRead(1, KEY, Instant(1), b"")
LIMITS = replace(Limits(), exchange_window=1, settle_window=1, hint_window=1)


def turn_of(
    *, messages: int = 0, entries: int = 0, floors: int = 0, slices: int = 0, limit: int = 1
) -> Turn:
    batch = WriteBatch()
    for number in range(entries):
        batch.put(Family.RECORDS, b"%d" % number, b"")
    for number in range(floors):
        batch.delete(Family.FLOORS, b"%d" % number)
    scan = Scan(1, Family.RECORDS, b"", None, limit)
    return Turn(1, batch, Outbox(peers={2: [READ] * messages}, scans=[scan] * slices))


TOPOLOGY = Cluster(1, nodes=3).topology


def check(
    turn: Turn, *, items: int = 1, waiting: int = 0, fetched: int = 0, lives: int = 3
) -> None:
    check_turn(
        turn,
        items=items,
        waiting=waiting,
        fetched=fetched,
        limits=LIMITS,
        topology=TOPOLOGY,
        lives=lives,
    )


def test_what_came_is_counted() -> None:
    requests = PeerRequests(1, reads=[READ, READ])
    assert items_of([requests, PeerReplies(1), Scanned(1, [(b"", b"")]), Scanned(2, None)]) == 5


def test_each_loser_that_is_to_be_logged_is_worth_an_entry() -> None:
    dots = tuple(Dot(7, counter) for counter in range(1, 128))
    ask = LogLosers(1, KEY, Fence(1, 7, b"digest"), 0, Dot(7, 128), dots, "votes")
    logged = turn_of(entries=len(dots))

    check(logged, items=items_of([PeerAsks(2, [ask])]))

    with pytest.raises(Broken, match="127 entries written"):
        check(logged, items=items_of([PeerAsks(2, [ask._replace(losers=dots[:1])])]))


def test_a_doubt_may_drop_the_floors_of_all_partitions_and_lives() -> None:
    dropped = turn_of(entries=1, floors=20 * TOPOLOGY.partitions)
    check(dropped, lives=20)
    with pytest.raises(Broken, match="160 floors written in one turn, the bound is 152"):
        check(dropped, lives=19)


def test_a_turn_may_do_what_it_was_told() -> None:
    check(turn_of(messages=12, entries=20, slices=2, limit=64), items=2, fetched=2)


@pytest.mark.parametrize(
    ("turn", "fetched", "what"),
    [
        (turn_of(messages=30), 0, "messages sent"),
        (turn_of(entries=200), 0, "entries written"),
        (turn_of(slices=20), 0, "slices asked for"),
        (turn_of(slices=1, limit=100_000), 0, "entries of a slice"),
        (turn_of(), 1_000, "keys fetched"),
    ],
    ids=["messages", "entries", "slices", "a long slice", "keys"],
)
def test_a_turn_that_does_more_is_noticed(turn: Turn, fetched: int, what: str) -> None:
    with pytest.raises(Broken, match=rf"9-turns-are-bounded: [\d,]+ {what} in one turn"):
        check(turn, fetched=fetched)


def test_what_waits_may_all_move_at_once() -> None:
    check(turn_of(messages=30), waiting=5)
