"""The laws of kvclient.testing.shapes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvclient.testing.shapes import SHAPES, flows_between, flows_cut, groups_of

IDS = ("n1", "n2", "n3", "n4", "n5")


def reaches(shape: str, node: str) -> str:
    """Return whom a node reaches, as one word."""
    cut = flows_cut(IDS, groups_of(shape, IDS))
    return "".join(other[1] for other in IDS if other != node and (node, other) not in cut)


def test_halves_reach_their_own_half() -> None:
    assert [reaches("halves", node) for node in IDS] == ["2", "1", "45", "35", "34"]


def test_a_bridge_reaches_both_halves() -> None:
    assert [reaches("bridge", node) for node in IDS] == ["23", "13", "1245", "35", "34"]


def test_in_a_ring_each_reaches_its_neighbours() -> None:
    assert [reaches("ring", node) for node in IDS] == ["25", "13", "24", "35", "14"]


def test_the_isolated_node_reaches_nobody() -> None:
    assert [reaches("isolated", node) for node in IDS] == ["", "345", "245", "235", "234"]


@given(st.lists(st.lists(st.sampled_from(IDS))))
def test_a_partition_cuts_both_directions_or_neither(groups: list[list[str]]) -> None:
    cut = flows_cut(IDS, groups)
    assert {(y, x) for x, y in cut} == set(cut)
    assert set(cut) <= set(flows_between(IDS))


def test_one_group_of_all_cuts_nothing() -> None:
    assert flows_cut(IDS, [IDS]) == []


def test_no_flow_leads_back_to_its_node() -> None:
    assert len(flows_between(IDS)) == 20


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_needs_enough_nodes(shape: str) -> None:
    with pytest.raises(ValueError, match="needs"):
        groups_of(shape, IDS[:1])


def test_an_unknown_shape_or_node_is_refused() -> None:
    with pytest.raises(ValueError, match="halves, bridge"):
        groups_of("quarters", IDS)
    with pytest.raises(ValueError, match="n9"):
        flows_cut(IDS, [["n1", "n9"]])
