"""The laws of kvclient.routing."""

from __future__ import annotations

import pytest

from kvclient.errors import InvalidRequest
from kvclient.operation import LaneState
from kvclient.routing import parse_seeds
from tests.unit.client.fakes import Bench


def test_the_first_owner_that_is_ready_is_asked(bench: Bench) -> None:
    bench.lanes[0].state = LaneState.SUSPECTED
    assert bench.get().lane is bench.lanes[1]


def test_an_owner_never_dialled_is_dialled_while_a_ready_one_is_asked(bench: Bench) -> None:
    bench.lanes[0].state = LaneState.IDLE
    assert bench.get().lane is bench.lanes[1]
    assert bench.dialled == ["n1"]


def test_with_nobody_ready_a_node_being_dialled_is_better_than_a_silent_one(bench: Bench) -> None:
    states = (LaneState.SUSPECTED, LaneState.DOWN, LaneState.CONNECTING)
    for lane, state in zip(bench.lanes, states, strict=True):
        lane.state = state
    assert bench.get().lane is bench.lanes[2]


def test_with_every_node_down_nobody_is_asked(bench: Bench) -> None:
    for lane in bench.lanes:
        lane.state = LaneState.DOWN
    assert bench.get().lane is None


def test_a_node_that_refused_is_asked_again_only_after_the_others(bench: Bench) -> None:
    operation = bench.get()
    operation.refused = (bench.lanes[0],)
    operation.attempts = 1
    assert bench.engine.router.choose(operation) is bench.lanes[1]
    operation.refused = tuple(bench.lanes)
    assert bench.engine.router.choose(operation) is bench.lanes[0]
    assert operation.refused == ()


def test_a_node_that_owes_the_answer_is_not_asked_twice(bench: Bench) -> None:
    operation = bench.get()
    operation.attempts = 1
    operation.others = tuple(bench.lanes)
    assert bench.engine.router.choose(operation) is None


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ("a:1", ("a:1",)),
        ("a:1, b:2,", ("a:1", "b:2")),
        (["a:1", "a:1", "[::1]:3"], ("a:1", "[::1]:3")),
    ],
)
def test_seeds_are_one_address_a_comma_list_or_an_iterable(
    seeds: str, expected: tuple[str, ...]
) -> None:
    assert parse_seeds(seeds) == expected


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ("", "no seed given"),
        ("a", "'a' is not host:port"),
        ("a:0", "is not host:port"),
        ("a:65536", "is not host:port"),
        ("a:x", "is not host:port"),
        ("::1:7001", r"write IPv6 as \[address\]:port"),
    ],
)
def test_a_seed_that_is_no_address_is_named(seeds: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        parse_seeds(seeds)
