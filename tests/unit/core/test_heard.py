"""What a read has heard: who counts, what the join is, and who is behind it.

Nodes 1 to 3 own the key; 4 and 5 stand in.
"""

from __future__ import annotations

import itertools

import pytest

from kvnode.core.heard import KEEPS_NOTHING, Heard
from kvnode.core.messages import NodeNumber, ReplicaReadReply, Status
from kvnode.core.record import Encoded, encode
from kvnode.core.versions import EMPTY, Record
from tests.unit.core.builders import KEY, context, names, record, version

OWNERS = (1, 2, 3)
OLD = record(version("a1", ms=1))
NEW = record(version("b1", ms=2))
"""Concurrent with OLD, and newer by its stamp."""
AFTER = record(version("b1", ms=2), seen=context("a1", "b1"))


def heard(replies: dict[NodeNumber, Record | None], status: Status = Status.DONE) -> Heard:
    found = Heard(KEY, OWNERS)
    for node, state in replies.items():
        hear(found, node, state, status)
    return found


def hear(
    found: Heard, node: NodeNumber, state: Record | None, status: Status = Status.DONE
) -> None:
    data = Encoded(b"") if state is None else encode(KEY, state)
    found.add(node, ReplicaReadReply(7, status, data, False), 10 * node)


def merged(replies: dict[NodeNumber, Record | None]) -> Record:
    found = heard(replies)
    found.merge(in_full=False)
    return found.merged


# ---- who counts ---------------------------------------------------------------------------------


def test_proven_owners_and_stand_ins_that_keep_something_count() -> None:
    found = heard({1: OLD, 2: None, 4: OLD})
    assert (found.believed, found.owners_believed) == (3, 2)
    assert found.at == {1: 10, 2: 20, 4: 40}


def test_a_stand_in_that_keeps_nothing_has_said_nothing() -> None:
    found = heard({4: None})
    assert (found.believed, found.replies) == (0, {})
    assert found.failed == {4: KEEPS_NOTHING}
    assert found.has(4)


def test_an_unproven_owner_is_heard_and_does_not_count() -> None:
    found = heard({1: OLD}, Status.UNPROVEN)
    assert (found.believed, found.owners_believed, list(found.replies)) == (0, 0, [1])


@pytest.mark.parametrize("node", [1, 4])
def test_a_refusal_is_no_reply(node: NodeNumber) -> None:
    found = heard({node: None}, Status.ABSTAINED)
    assert (found.believed, found.replies, found.failed) == (0, {}, {node: "abstained"})


def test_a_node_taken_for_lost_counts_once_it_answers() -> None:
    found = Heard(KEY, OWNERS)
    found.failed[1] = "unreached"
    hear(found, 1, OLD)
    assert (found.believed, found.failed) == (1, {})


def test_nobody_is_heard_before_an_answer() -> None:
    assert not Heard(KEY, OWNERS).has(1)


@pytest.mark.parametrize("node", [1, 4])
def test_a_damaged_reply_turns_into_an_abstention(node: NodeNumber) -> None:
    found = heard({2: OLD})
    bad = Encoded(encode(KEY, NEW)[:-1] + b"#")
    found.add(node, ReplicaReadReply(7, Status.DONE, bad, False), 10)
    assert found.believed == 2
    found.merge(in_full=True)
    assert (found.believed, found.owners_believed, found.merged) == (1, 1, OLD)
    assert found.failed[node].startswith("damaged: ")


# ---- the join -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 4))))
def test_what_a_stand_in_keeps_supersedes_what_is_older_at_owners_in_any_order(
    order: tuple[NodeNumber, ...],
) -> None:
    states = {1: OLD, 2: OLD, 4: NEW}
    assert names(merged({node: states[node] for node in order})) == ["b1"]


def test_concurrent_versions_of_owners_stand_beside_each_other() -> None:
    assert names(merged({1: OLD, 2: NEW})) == ["a1", "b1"]


def test_what_a_stand_in_keeps_that_is_older_buries_nothing() -> None:
    assert names(merged({1: NEW, 4: OLD})) == ["a1", "b1"]


def test_nothing_heard_is_nothing_held() -> None:
    assert merged({1: None, 2: None}) == EMPTY


# ---- who is behind ------------------------------------------------------------------------------


def test_owners_with_another_state_than_the_join_are_stale_and_stand_ins_never() -> None:
    found = heard({1: OLD, 2: None, 3: AFTER, 4: OLD})
    found.merge(in_full=False)
    assert found.stale() == [1, 2]


def test_an_owner_is_stale_beside_a_stand_in_that_keeps_something_newer() -> None:
    found = heard({1: OLD, 4: NEW})
    found.merge(in_full=False)
    assert found.stale() == [1]


def test_replies_that_are_alike_make_nobody_stale() -> None:
    found = heard({1: OLD, 2: OLD, 4: OLD})
    found.merge(in_full=False)
    assert found.stale() == []


def test_an_owner_that_holds_nothing_is_stale_though_all_others_agree() -> None:
    found = heard({1: OLD, 2: OLD, 3: None})
    found.merge(in_full=False)
    assert found.stale() == [3]


# ---- what mends bring back ----------------------------------------------------------------------


def test_what_a_mended_owner_knew_better_is_learnt() -> None:
    found = heard({1: OLD, 2: OLD})
    found.merge(in_full=False)
    assert found.learn(encode(KEY, AFTER))
    assert found.merged == AFTER


def test_what_is_known_or_damaged_is_no_news() -> None:
    found = heard({1: AFTER})
    found.merge(in_full=False)
    assert not found.learn(encode(KEY, OLD))
    assert not found.learn(Encoded(b"\x01garbage"))
    assert found.merged == AFTER


def test_one_owner_that_has_passed_the_watermark_covers_it() -> None:
    found = heard({1: OLD})
    assert not found.covers_watermark()
    found.add(2, ReplicaReadReply(7, Status.DONE, Encoded(b""), True), 10)
    assert found.covers_watermark()
