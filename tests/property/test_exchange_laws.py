"""The laws of exchanges: whatever was written, lost or superseded where, owners become equal."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from kvnode.core.bounds import Limits
from kvnode.core.keys import Partition, StorageKey
from kvnode.core.messages import PeerMessage
from kvnode.core.versions import Dot, covers, find, put, sync
from tests.support.sides import Sides, keys_of
from tests.unit.core.builders import version

KEYS = keys_of(0, 3) + keys_of(1, 3)
write = st.tuples(
    st.sampled_from(KEYS),
    st.integers(1, 3),  # the coordinator
    st.sets(st.integers(1, 3)),  # who gets it at once
    st.integers(0, 20),  # its stamp
)
history = st.lists(write, max_size=25)
LETTERS = {1: "a", 2: "b", 3: "c"}


def play(sides: Sides, events: list[tuple[StorageKey, int, set[int], int]]) -> list[Dot]:
    """Have clients write; returns the dots of what they wrote, by when."""
    counters: dict[tuple[int, int], int] = {}
    written = []
    for key, coordinator, reach, ms in events:
        place = (coordinator, key[0] >> 7)
        counters[place] = counters.get(place, 0) + 1
        made = version(f"{LETTERS[coordinator]}{counters[place]}", ms=ms, key=key)
        mine = sides[coordinator].state(key)
        sides[coordinator].hold(key, put(mine, made, seen=mine.context))
        for other in sorted(reach - {coordinator}):
            merged = sync(sides[other].state(key), sides[coordinator].state(key))
            sides[other].hold(key, merged)
        written.append(made.dot)
    return written


@settings(max_examples=60)
@given(history, st.integers(0, 40), st.randoms(use_true_random=False))
def test_owners_become_equal_and_stay_so(
    events: list[tuple[StorageKey, int, set[int], int]], losses: int, chance: random.Random
) -> None:
    sides = Sides(limits=Limits(exchange_interval_ms=3_000))
    left = [losses]

    def lost(source: int, target: int, _message: PeerMessage) -> bool:
        hit = source != target and left[0] > 0 and chance.random() < 0.2
        left[0] -= hit
        return hit

    sides.lost = lost
    half = len(events) // 2
    play(sides, events[:half])
    for a, b in ((1, 2), (1, 3), (2, 3)):
        sides.link(a, b)
    sides.run(200)
    one, two, three = (sides[number] for number in (1, 2, 3))
    joined = {key: one.state(key) for key in KEYS}
    for side in (two, three):
        assert {key: side.state(key) for key in KEYS} == joined
        assert [side.trees.root(Partition(p), 1) for p in (0, 1)] == [
            one.trees.root(Partition(p), 1) for p in (0, 1)
        ]
        assert [side.floors.report(Partition(p)) for p in (0, 1)] == [
            one.floors.report(Partition(p)) for p in (0, 1)
        ]
    writes = [side.writes for side in sides.sides.values()]
    sides.run(30)
    assert writes == [side.writes for side in sides.sides.values()]


@settings(max_examples=60)
@given(history, st.integers(1, 3))
def test_an_owner_that_lost_a_partition_is_whole_again_and_nothing_else_is_lost(
    events: list[tuple[StorageKey, int, set[int], int]], loser: int
) -> None:
    sides = Sides(limits=Limits(exchange_interval_ms=3_000))
    # Each write is at two owners at least: that is what w = 2 has promised.
    safe = [(k, c, reach | {1 + c % 3}, ms) for k, c, reach, ms in events]
    play(sides, safe)
    before = {key: sync(sides[1].state(key), sides[2].state(key)) for key in KEYS}
    before = {key: sync(state, sides[3].state(key)) for key, state in before.items()}
    sides[loser].lose(0)
    for a, b in ((1, 2), (1, 3), (2, 3)):
        sides.link(a, b)
    sides.run(120)
    assert all(side.proving.is_whole for side in sides.sides.values())
    for key, expected in before.items():
        for side in sides.sides.values():
            state = side.state(key)
            for each in expected.versions:
                assert find(state, each.dot) is not None
            assert all(covers(expected.context, each.dot) for each in state.versions)
