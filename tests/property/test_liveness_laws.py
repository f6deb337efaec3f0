"""The laws of kvnode.core.liveness: few changes whatever a link does, none without a reason."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.bounds import Limits
from kvnode.core.liveness import Detector, Standing
from kvnode.core.messages import Instant
from tests.support.heartbeats import MINUTE_US, Pair
from tests.support.scale import scaled

MOST = 3
S = 1_000_000


@pytest.mark.parametrize("asks_every_us", [None, 50_000, 300_000], ids=["idle", "busy", "calm"])
@pytest.mark.parametrize("both_ways", [False, True], ids=["one way", "both ways"])
def test_links_that_lose_a_fifth_of_all_frames_change_at_most_three_times_a_minute(
    rng: random.Random, asks_every_us: int | None, both_ways: bool
) -> None:
    for _ in range(scaled(3, soak=100)):
        seed = rng.getrandbits(32)
        pair = Pair(seed)
        pair.wires[1].loss = 0.2
        pair.wires[2].loss = 0.2 if both_ways else 0.0
        if asks_every_us is not None:
            pair.begin_asking(asks_every_us)
        pair.run(3 * MINUTE_US)
        for one in (1, 2):
            most = pair.most_in_a_minute(one, since_us=2 * S)
            assert most <= MOST, f"seed {seed}: {pair.changes[one]}"
            assert "PeerDown" not in pair.told(one), f"seed {seed}"


@pytest.mark.parametrize("asks_every_us", [None, 20_000], ids=["idle", "busy"])
def test_a_link_that_is_cut_one_way_goes_down_once_on_both_sides_and_stays_down(
    rng: random.Random, asks_every_us: int | None
) -> None:
    for _ in range(scaled(5, soak=100)):
        pair = Pair(rng.getrandbits(32))
        if asks_every_us is not None:
            pair.begin_asking(asks_every_us)
        pair.run(rng.randint(2 * S, 20 * S))
        cut = pair.now_us
        pair.wires[1].loss = 1.0
        pair.run(3 * MINUTE_US)
        for one in (1, 2):
            told = pair.told(one, since_us=cut)
            assert [what for what in told if what != "PeerSilent"] == ["PeerDown"]
            assert pair.changes[one][-1][0] - cut <= 2 * S
        pair.wires[1].loss = 0.0
        pair.run(5 * S)
        assert [pair.told(one)[-1] for one in (1, 2)] == ["PeerUp", "PeerUp"]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(0, 90_000_000)),
        st.tuples(st.just("look"), st.integers(0, 60)),
        st.tuples(st.just("open"), st.integers(1, 3)),
        st.tuples(st.sampled_from(["lose", "ask", "answer", "owe", "beat", "leave"]), st.just(0)),
        st.tuples(st.just("echo"), st.integers(0, 5)),
    ),
    max_size=80,
)


def take(detector: Detector, step: str, number: int, now: Instant) -> list[str]:
    """Have one thing happen; return the names of the changes."""
    match step:
        case "look":
            changes = detector.look(now).changes
        case "open":
            changes = detector.on_opened(2, number, now)
        case "lose":
            changes = detector.on_lost(2, "lost", now)
        case "answer" | "owe":
            changes = detector.on_answered(2, now, owes=step == "owe")
        case "leave":
            changes = detector.on_leaving(2, now)
        case "echo":
            changes = detector.on_echo(2, number, now)
        case "ask":
            changes = []
            detector.on_asked(2, now)
        case _:
            changes = []
            detector.begin_beat(2, now)
    return [type(change.event).__name__ for change in changes]


NEXT = {
    Standing.DOWN: {"PeerUp": Standing.UP},
    Standing.SILENT: {"PeerHeard": Standing.UP, "PeerDown": Standing.DOWN},
    Standing.UP: {"PeerSilent": Standing.SILENT, "PeerDown": Standing.DOWN},
}


@given(STEPS)
def test_events_alternate_and_tell_the_standing_whatever_happens(
    steps: list[tuple[str, int]],
) -> None:
    now = Instant(1)
    detector, standing = Detector(Limits(), now), Standing.DOWN
    detector.add(2, now)
    for step, number in steps:
        if step == "wait":
            now = Instant(now + number)
            continue
        times = number if step == "look" else 1
        for _ in range(times):
            if step == "look":
                now = max(now, detector.next_look())
            for what in take(detector, step, number, now):
                standing = NEXT[standing][what]
            detector.check()
            assert detector.standing(2) is standing
            assert detector.next_look() <= now + 1_000 * Limits().heartbeat_ms


@given(STEPS)
def test_nobody_is_accused_in_two_looks_that_were_not_waited_for(
    steps: list[tuple[str, int]],
) -> None:
    """Time alone accuses nobody: a late look counts for no more than one that came in time. Four
    of them do (test_a_node_that_is_often_away_still_notices_silence)."""
    now = Instant(1)
    detector = Detector(Limits(), now)
    detector.add(2, now)
    detector.on_opened(2, 1, now)
    looks = 2
    for step, number in steps:
        if step == "look":
            continue
        if step == "wait":
            now = Instant(now + number)
            if number > 200_000 and looks:
                looks -= 1
                assert take(detector, "look", 0, now) == []
        elif step in ("ask", "answer", "owe", "beat", "echo"):
            assert "PeerDown" not in take(detector, step, number, now)
