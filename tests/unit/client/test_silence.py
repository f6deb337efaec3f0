"""The laws of kvclient.silence: who is taken for dead, and when nobody is."""

from __future__ import annotations

import pytest

from kvclient.bounds import Bounds
from kvclient.operation import Lane, LaneState, Operation
from kvclient.silence import MOST_PATIENCE, Silence

SILENCE_S = Bounds().silence_ms / 1000


def lane(name: str, *, owes_since: float | None = 0.0) -> Lane:
    made = Lane(name, wake=lambda: None, dial=lambda: None)
    made.state = LaneState.READY
    if owes_since is not None:
        operation = Operation("default", b"k", is_put=False)
        operation.id = 1
        made.queue(operation, owes_since)
        made.take()
    return made


def names(lanes: list[Lane]) -> list[str]:
    return [one.node for one in lanes]


def test_who_owes_and_says_nothing_for_so_long_is_silent_and_nobody_else() -> None:
    silence = Silence(Bounds())
    lanes = [lane("dead"), lane("idle", owes_since=None), lane("alive")]
    silence.on_heard(lanes[2], 0.06)
    silence.on_heard(lanes[2], 0.12)
    silence.on_heard(lanes[2], 0.18)
    assert silence.fallen(lanes, SILENCE_S - 0.01, 0.0) == []
    assert names(silence.fallen(lanes, SILENCE_S, 0.0)) == ["dead"]


def test_nodes_that_speak_every_tenth_of_a_second_win_nobody_more_time() -> None:
    silence = Silence(Bounds())
    lanes = [lane("dead"), lane("alive")]
    for beat in range(1, 11):
        silence.on_heard(lanes[1], beat / 10)
    lanes[0].heard_at = 0.8
    assert names(silence.fallen(lanes, 0.81 + SILENCE_S, 0.0)) == ["dead"]


def test_who_is_suspected_already_is_not_found_again() -> None:
    silence, dead = Silence(Bounds()), lane("dead")
    dead.state = LaneState.SUSPECTED
    assert silence.fallen([dead], 9.0, 0.0) == []


def test_nobody_is_silent_when_this_program_itself_was_held_up() -> None:
    silence, busy = Silence(Bounds()), lane("busy")
    assert silence.fallen([busy], 3.0, 0.11) == []
    assert silence.fallen([busy], 3.1, 0.0) == []
    assert names(silence.fallen([busy], 3.0 + SILENCE_S, 0.0)) == ["busy"]


def test_when_all_owe_and_none_is_heard_they_are_busy_and_get_more_time() -> None:
    silence = Silence(Bounds())
    lanes = [lane("a"), lane("b")]
    assert silence.fallen(lanes, SILENCE_S * (MOST_PATIENCE - 0.1), 0.0) == []
    assert names(silence.fallen(lanes, SILENCE_S * MOST_PATIENCE, 0.0)) == ["a", "b"]


def test_that_is_not_so_while_somebody_else_could_be_asked() -> None:
    silence = Silence(Bounds())
    lanes = [lane("a"), lane("b"), lane("free", owes_since=None)]
    assert names(silence.fallen(lanes, SILENCE_S, 0.0)) == ["a", "b"]
    lanes[2].state = LaneState.DOWN
    assert silence.fallen(lanes, SILENCE_S, 0.0) == []


@pytest.mark.parametrize(("gap_s", "patience_s"), [(0.15, 0.27), (0.4, 0.64), (3.0, 0.77)])
def test_all_get_as_much_more_time_as_nodes_are_slow_just_now_up_to_a_bound(
    gap_s: float, patience_s: float
) -> None:
    silence = Silence(Bounds())
    lanes = [lane("slow"), lane("quiet")]
    silence.on_heard(lanes[0], gap_s)
    lanes[1].heard_at = gap_s
    assert silence.fallen(lanes[1:], gap_s + patience_s - 0.02, 0.0) == []
    assert names(silence.fallen(lanes[1:], gap_s + patience_s + 0.02, 0.0)) == ["quiet"]


def test_slowness_of_a_while_ago_wins_nobody_more_time() -> None:
    silence = Silence(Bounds())
    lanes = [lane("was stopped"), lane("quiet")]
    silence.on_heard(lanes[0], 5.0)
    lanes[1].heard_at = 10.0
    assert names(silence.fallen(lanes[1:], 10.0 + SILENCE_S + 0.01, 0.0)) == ["quiet"]
