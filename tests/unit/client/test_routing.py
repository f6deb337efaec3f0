"""The laws of kvclient.routing."""

from __future__ import annotations

import pytest

from kvclient.bounds import Bounds
from kvclient.errors import InvalidRequest
from kvclient.operation import Lane, LaneState, Operation
from kvclient.retry import Code, Refusal
from kvclient.routing import KeyspaceSettings, Router, Topology, parse_seeds
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
    assert bench.engine.router.choose(operation, bench.now) is bench.lanes[1]
    operation.refused = tuple(bench.lanes)
    assert bench.engine.router.choose(operation, bench.now) is bench.lanes[0]
    assert operation.refused == ()


def test_a_node_that_owes_the_answer_is_not_asked_twice(bench: Bench) -> None:
    operation = bench.get()
    operation.attempts = 1
    operation.others = tuple(bench.lanes)
    assert bench.engine.router.choose(operation, bench.now) is None


# ---- who is avoided ------------------------------------------------------------------------------

CUT_OFF = Refusal(Code.UNAVAILABLE, "1 of 2 owners can be reached")


def refuse(bench: Bench, operation: Operation, refusal: Refusal) -> None:
    """Have the node that was asked take the operation, and refuse it."""
    lane = bench.holder(operation)
    lane.take()
    del lane.unanswered[operation.id]
    bench.engine.on_refusal(lane, operation, refusal, bench.now)


def test_who_cannot_reach_enough_owners_is_asked_last_for_a_while() -> None:
    bench = Bench(bounds=Bounds(avoid_ms=1_000.0))
    first, second, third = bench.lanes
    refuse(bench, bench.get(), CUT_OFF)
    assert bench.get().lane is second
    bench.advance(0.9, heard=(first, second, third))
    assert bench.get().lane is second
    bench.advance(0.2, heard=(first, second, third))
    assert bench.get().lane is first


def test_where_all_are_avoided_none_is() -> None:
    bench = Bench()
    for lane in bench.lanes:
        bench.engine.router.avoid(0, lane, bench.now)
    assert bench.get().lane is bench.lanes[0]


def test_a_node_is_avoided_for_one_partition_and_not_for_others() -> None:
    router, lanes = company()
    router.avoid(list(OWNERS).index(b"a"), lanes[1], 0.0)
    assert [send(router, key) for key in (b"a", b"b")] == ["n2", "n2"]
    router, lanes = company(company_operations=0)
    router.avoid(list(OWNERS).index(b"a"), lanes[1], 0.0)
    assert [send(router, key) for key in (b"b", b"a", b"c")] == ["n2", "n2", "n4"]


def test_other_partitions_keep_their_company_while_one_is_avoided() -> None:
    router, lanes = company()
    router.avoid(list(OWNERS).index(b"b"), lanes[2], 0.0)
    assert [send(router, key) for key in (b"a", b"c")] == ["n1", "n1"]


@pytest.mark.parametrize("code", [Code.OVERLOADED, Code.TIMEOUT, Code.CORRUPT_DATA])
def test_who_refuses_for_another_reason_is_not_avoided(code: Code) -> None:
    bench = Bench()
    refuse(bench, bench.get(), Refusal(code, "no"))
    assert bench.get().lane is bench.lanes[0]


def test_a_node_that_serves_few_partitions_costs_no_retries_once_it_is_known() -> None:
    """Halves of a network: the client speaks with both, and each refuses what it cannot do."""
    bench = Bench()
    for _ in range(1_000):
        operation = bench.get()
        if operation.lane is bench.lanes[0]:
            refuse(bench, operation, CUT_OFF)
        bench.engine.abandon(operation)
    assert bench.engine.metrics.retries == 1


# ---- company -----------------------------------------------------------------------------------

OWNERS = {b"a": (1, 2, 3), b"b": (2, 3, 1), b"c": (4, 1, 2)}
"""By key: who owns it, in order."""


def company(**bounds: int) -> tuple[Router, dict[int, Lane]]:
    """Return a router of four nodes over two copies of each key, and the nodes' lanes."""
    limits = Bounds(**bounds)
    lanes = {
        number: Lane(f"n{number}", number=number, wake=lambda: None, dial=lambda: None)
        for number in range(1, 5)
    }
    for lane in lanes.values():
        lane.state = LaneState.READY
    router = Router(limits)
    keyspaces = {"default": KeyspaceSettings("default", n=2, r=1, w=1)}
    topology = Topology(
        cluster_id=b"c" * 16, name="t", epoch=1, partitions=4, members=(), keyspaces=keyspaces,
        walks=(*OWNERS.values(), ()),
    )  # fmt: skip
    router.install(topology, lanes)
    return router, lanes


def send(router: Router, key: bytes, *, attempts: int = 0) -> str:
    """Queue an operation where it belongs; return which node that is."""
    operation = Operation("default", key, is_put=False)
    operation.partition = list(OWNERS).index(key)
    operation.attempts = attempts
    lane = router.choose(operation, 0.0)
    assert lane is not None
    lane.queue(operation, 0.0)
    return lane.node


def test_what_begins_together_leaves_together_where_owners_allow() -> None:
    router, lanes = company()
    assert [send(router, key) for key in (b"a", b"b", b"a")] == ["n1", "n2", "n1"]
    assert send(router, b"c") == "n1", "its second owner has company"
    lanes[1].take()
    assert send(router, b"a") == "n2", "what has left is no company any more"


def test_with_no_owner_about_to_send_the_first_is_asked() -> None:
    router, _ = company()
    assert [send(router, key) for key in (b"b", b"c")] == ["n2", "n4"]
    assert send(router, b"a") == "n2"


def test_a_keyspaces_n_says_who_is_an_owner() -> None:
    router, _ = company()
    assert send(router, b"c") == "n4"
    assert send(router, b"b") == "n2", "n1 holds no copy of it here, and n4 never"
    router, _ = company()
    assert [send(router, b"a"), send(router, b"b")] == ["n1", "n2"]


def test_company_is_bounded_and_may_be_forgone() -> None:
    router, _ = company(company_operations=2)
    assert [send(router, key) for key in (b"a", b"c", b"c")] == ["n1", "n1", "n4"]
    router, _ = company(company_operations=0)
    assert [send(router, key) for key in (b"a", b"c")] == ["n1", "n4"]


def test_no_company_is_sought_with_a_silent_node_nor_by_a_second_attempt() -> None:
    router, lanes = company()
    assert send(router, b"a") == "n1"
    assert send(router, b"c", attempts=1) == "n4"
    router, lanes = company()
    assert send(router, b"a") == "n1"
    lanes[1].state = LaneState.SUSPECTED
    assert send(router, b"c") == "n4"


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
