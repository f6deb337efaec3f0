"""A process that was away is told apart from a loop that was busy."""

from __future__ import annotations

import asyncio

import pytest

from kvnode.runtime.pulse import PERIOD_S, Pulse


class Times:
    """Time that passes, and time that the process ran."""

    def __init__(self) -> None:
        self.now = 100.0
        self.busy = 5.0
        self.away: list[float] = []
        self.was_away = asyncio.Event()
        self.pulse = Pulse(self._on_away, away_s=1.0, now=lambda: self.now, busy=lambda: self.busy)

    def _on_away(self, seconds: float) -> None:
        self.away.append(seconds)
        self.was_away.set()

    def beat_after(self, seconds: float, *, busy: float) -> None:
        self.now += seconds
        self.busy += busy
        self.pulse.beat()


def test_a_process_that_was_stopped_was_away() -> None:
    times = Times()
    times.beat_after(5.0, busy=0.01)
    assert times.away == [pytest.approx(5.0)]


def test_a_loop_that_was_busy_was_not_away() -> None:
    times = Times()
    times.beat_after(5.0, busy=4.9)
    assert times.away == []


def test_an_absence_as_long_as_silence_may_be_does_not_count() -> None:
    times = Times()
    times.beat_after(0.99 + PERIOD_S, busy=0.0)
    assert times.away == []


def test_absences_are_not_added_up() -> None:
    times = Times()
    for _ in range(20):
        times.beat_after(PERIOD_S, busy=0.0)
    assert times.away == []


def test_a_pulse_that_has_not_beaten_for_long_is_not_alive() -> None:
    times = Times()
    seen = [times.pulse.is_alive]
    times.now += 6.0
    seen.append(times.pulse.is_alive)
    times.pulse.beat()
    seen.append(times.pulse.is_alive)
    assert seen == [True, False, True]


def test_it_beats_by_itself_until_it_is_stopped() -> None:
    times = Times()

    async def live() -> None:
        times.pulse.start()
        times.now += 6.0
        await asyncio.wait_for(times.was_away.wait(), 10)
        times.pulse.stop()

    asyncio.run(live())
    assert times.away == [6.0]


def test_what_passed_before_the_start_is_no_absence() -> None:
    times = Times()

    async def live() -> None:
        times.now += 60.0
        times.pulse.start()
        times.pulse.beat()
        times.pulse.stop()

    asyncio.run(live())
    assert times.away == []
