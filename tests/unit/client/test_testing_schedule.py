"""The laws of kvclient.testing.schedule."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvclient.testing.files import KitError
from kvclient.testing.schedule import (
    HARMLESS,
    KINDS,
    PARTITIONS,
    Fault,
    by_chance,
    excess,
    parse,
    render,
)

IDS = ("n1", "n2", "n3", "n4", "n5")
CHOSEN = st.lists(st.sampled_from(KINDS), min_size=1, unique=True)


def schedule(seed: int, kinds: list[str], *, is_hard: bool = False) -> list[Fault]:
    return by_chance(
        seed, IDS, kinds=kinds, seconds=100, every_s=10, for_s=5, is_hard=is_hard
    )  # fmt: skip


@given(st.integers(), CHOSEN)
def test_chance_makes_what_the_quorums_survive_within_the_time(seed: int, kinds: list[str]) -> None:
    faults = schedule(seed, kinds)
    assert faults
    assert excess(faults, missing=1) is None
    assert max(fault.end_s for fault in faults) <= 100
    assert {fault.kind for fault in faults} <= set(kinds)
    assert len({fault.nodes for fault in faults if fault.kind == "wipe"}) <= 1


@given(st.integers(), CHOSEN, st.booleans())
def test_the_same_seed_makes_the_same_schedule_which_a_file_can_hold(
    seed: int, kinds: list[str], is_hard: bool
) -> None:
    faults = schedule(seed, kinds, is_hard=is_hard)
    assert schedule(seed, kinds, is_hard=is_hard) == faults
    assert parse("\n".join(render(faults)), IDS) == faults


def test_what_is_hard_has_faults_that_come_together() -> None:
    assert excess(schedule(1, ["kill", "pause"], is_hard=True), missing=1) is not None


@given(st.integers(), st.sampled_from(KINDS))
def test_a_fault_of_chance_concerns_whom_its_kind_does(seed: int, kind: str) -> None:
    for fault in schedule(seed, [kind]):
        count = 0 if kind in PARTITIONS else 2 if kind == "cut" else 1
        assert len(set(fault.nodes)) == count
        assert (fault.amount_ms != 0) <= (kind in HARMLESS)


def fault(kind: str, *nodes: str, at: float = 0.0) -> Fault:
    return Fault(at_s=at, kind=kind, nodes=nodes)


@pytest.mark.parametrize(
    ("faults", "is_too_much"),
    [
        ([fault("kill", "n1"), fault("kill", "n2", at=5)], False),
        ([fault("kill", "n1"), fault("kill", "n2", at=4.9)], True),
        ([fault("kill", "n1"), fault("pause", "n1", at=1)], False),
        ([fault("kill", "n1"), fault("slow", "n2", at=1), fault("skew", "n3", at=1)], False),
        ([fault("cut", "n1", "n2"), fault("isolate", "n1", at=1)], False),
        ([fault("cut", "n1", "n2"), fault("wipe", "n2", at=1)], True),
        ([fault("halves")], False),
        ([fault("halves"), fault("kill", "n1", at=1)], True),
        ([fault("halves"), fault("ring", at=1)], True),
    ],
)
def test_no_more_may_be_missing_than_a_quorum_survives(
    faults: list[Fault], is_too_much: bool
) -> None:
    assert (excess(faults, missing=1) is not None) == is_too_much


def test_where_none_may_be_missing_a_partition_is_too_much() -> None:
    assert excess([fault("halves")], missing=0) is not None
    assert excess([fault("slow", "n1")], missing=0) is None


def test_two_may_be_missing_where_a_quorum_survives_that() -> None:
    both = [fault("kill", "n1"), fault("kill", "n2")]
    assert excess(both, missing=2) is None
    assert "--hard" in str(excess(both, missing=1))


TOML = """
[[fault]]
at_s = 20
kind = "cut"
nodes = ["n1", "n2"]
[[fault]]
at_s = 10
kind = "slow"
nodes = ["n3"]
for_s = 2.5
amount_ms = 200
"""


def test_a_file_may_be_toml_and_is_taken_in_order_of_time() -> None:
    slow, cut = parse(TOML, IDS)
    assert slow == Fault(at_s=10, kind="slow", nodes=("n3",), for_s=2.5, amount_ms=200)
    assert (cut.end_s, str(cut), str(slow)) == (25, "cut n1 to n2", "slow n3 by 200 ms")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "1 to"),
        ("[[fault]", "not a schedule"),
        ("{nonsense", "not a schedule"),
        ("fault = 3", "not a schedule"),
        (json.dumps({"kind": "kill", "nodes": ["n1"]}), "lacks at_s"),
        (json.dumps({"at_s": 1}), "lacks kind"),
        (json.dumps({"at_s": 1, "kind": "flood"}), "no kind of fault 'flood'"),
        (json.dumps({"at_s": 1, "kind": "kill", "nodes": ["n9"]}), "no node 'n9'"),
        (json.dumps({"at_s": 1, "kind": "kill"}), "concerns 1 nodes, not 0"),
        (json.dumps({"at_s": 1, "kind": "cut", "nodes": ["n1", "n1"]}), "concerns 2"),
        (json.dumps({"at_s": -1, "kind": "halves"}), "seconds from 0"),
        (json.dumps({"at_s": 1, "kind": "halves", "for_s": 0}), "for_s above 0"),
        (json.dumps({"at_s": "soon", "kind": "halves"}), "not a schedule"),
        (json.dumps({"at_s": 1, "kind": "halves", "until": 3}), "no key 'until'"),
    ],
)
def test_what_is_no_schedule_is_refused(text: str, told: str) -> None:
    with pytest.raises(KitError, match=told):
        parse(text, IDS)


def test_faults_that_would_run_into_each_other_are_refused() -> None:
    with pytest.raises(KitError, match="meet the next"):
        by_chance(1, IDS, kinds=["kill"], seconds=60, every_s=5, for_s=5)
    with pytest.raises(KitError, match="needs 4 nodes"):
        by_chance(1, IDS[:3], kinds=["ring"], seconds=60, every_s=9, for_s=5)
    with pytest.raises(KitError, match="no kind"):
        by_chance(1, IDS, kinds=["flood"], seconds=60, every_s=9, for_s=5)
