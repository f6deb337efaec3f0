"""What nodes list of conflicts becomes one list, whatever the order of nodes and pages."""

from __future__ import annotations

import itertools

from kvclient.conflicts import merged_conflicts
from kvclient.results import Conflict
from kvproto import kv_pb2 as pb


def sibling(counter: int, *, won: bool = False) -> pb.Sibling:
    """Return a version; the higher its counter, the older it is."""
    stamp = 1_000 - counter
    return pb.Sibling(actor=1, counter=counter, timestamp=stamp, value=b"v%d" % counter, won=won)


def opened(key: bytes, *counters: int, votes: str = "") -> pb.Conflict:
    cast = [
        pb.Vote(node=node, sibling=int(at)) for node, at in (v.split("=") for v in votes.split())
    ]
    return pb.Conflict(keyspace="k", key=key, siblings=map(sibling, counters), votes=cast)


def settled(
    key: bytes, lost: int, *, won: int = 1, ms: int = 5, is_held: bool = True
) -> pb.Conflict:
    winner = sibling(won, won=True) if is_held else pb.Sibling(actor=1, counter=won)
    return pb.Conflict(
        keyspace="k", key=key, siblings=[sibling(lost)], settled_ms=ms, rule="a rule",
        winner=winner, winner_held=is_held,
    )  # fmt: skip


def dots(conflict: Conflict) -> list[str]:
    return [one.dot[-1] for one in conflict.siblings]


def test_open_ones_come_first_each_key_once_with_what_all_hold() -> None:
    pages = [
        [opened(b"b", 1, 2, votes="n1=0")],
        [settled(b"a", 9), opened(b"b", 2, 3, votes="n2=1")],
    ]
    first, second = merged_conflicts(pages)
    assert (first.key, first.is_open, dots(first)) == (b"b", True, ["1", "2", "3"])
    assert {node: dot[-1] for node, dot in first.votes.items()} == {"n1": "1", "n2": "3"}
    assert (second.key, second.is_open, second.settled_ms) == (b"a", False, 5)


def test_an_owners_vote_is_for_the_newest_that_it_voted_for_on_whichever_page() -> None:
    pages = [[opened(b"b", 2, 3, votes="n1=0")], [opened(b"b", 1, 3, votes="n1=0 n1=1 n2=1")]]
    for order in itertools.permutations(pages):
        (found,) = merged_conflicts(order)
        assert {node: dot[-1] for node, dot in found.votes.items()} == {"n1": "1", "n2": "3"}


def test_who_leads_at_some_node_leads_in_whatever_order_nodes_are_asked() -> None:
    leads = opened(b"b", 1, 2)
    leads.siblings[0].won = True
    for order in itertools.permutations([[leads], [opened(b"b", 1, 2)]]):
        (found,) = merged_conflicts(order)
        assert [one.has_won for one in found.siblings] == [True, False]


def test_the_losers_of_one_settlement_are_one_conflict() -> None:
    (found,) = merged_conflicts([[settled(b"a", 8), settled(b"a", 9)], [settled(b"a", 9)]])
    assert dots(found) == ["8", "9"]
    assert found.rule == "a rule"
    assert found.winner is not None
    assert (found.winner.value, found.winner.has_won) == (b"v1", True)


def test_a_version_that_was_logged_again_is_listed_as_of_the_first_time() -> None:
    pages = [[settled(b"a", 8, ms=9)], [settled(b"a", 8, ms=5)], [settled(b"a", 8, ms=7)]]
    for order in itertools.permutations(pages):
        (found,) = merged_conflicts(order)
        assert found.settled_ms == 5


def test_what_another_node_still_holds_is_open_alone() -> None:
    (found,) = merged_conflicts([[settled(b"a", 2)], [opened(b"a", 1, 2)]])
    assert found.is_open


def test_whoever_still_holds_the_winner_tells_its_value() -> None:
    pages = [[settled(b"a", 2, is_held=False)], [settled(b"a", 3)]]
    for order in itertools.permutations(pages):
        (found,) = merged_conflicts(order)
        assert found.has_value
        assert found.winner is not None
        assert found.winner.value == b"v1"
