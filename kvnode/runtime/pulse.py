"""Whether the node's loop turns, and whether the whole process was away.

A process that was stopped for a while (SIGSTOP, a starved or suspended machine) finds its sockets
full of frames of unknown age. Deadlines travel as what is left of them, so such frames would pass
for fresh ones. Laws: an absence longer than `away_s` is reported before anything is read that came
meanwhile; a loop that was merely busy is not called away.
Tests: tests/unit/runtime/test_pulse.py. Source: design, section 2.3; failures 25 and 33.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

PERIOD_S = 0.2
_LIVE_S = 5.0


class Pulse:
    """Beats on the loop; may be looked at from any thread."""

    def __init__(
        self,
        on_away: Callable[[float], None],
        *,
        away_s: float,
        now: Callable[[], float] = time.monotonic,
        busy: Callable[[], float] = time.process_time,
    ) -> None:
        """Begin as alive; `start` sets it beating.

        Args:
            on_away: called with the seconds that the process was away.
            away_s: absences up to this do not count.
            now: the time that passes.
            busy: the time that this process ran.
        """
        self._on_away = on_away
        self._away_s = away_s
        self._now = now
        self._busy = busy
        self._last = now()
        self._last_busy = busy()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the loop has turned lately."""
        return self._now() - self._last < _LIVE_S

    def start(self) -> None:
        """Beat from here on."""
        self._last, self._last_busy = self._now(), self._busy()
        self._arm()

    def stop(self) -> None:
        """Beat no more."""
        if self._timer is not None:
            self._timer.cancel()

    def beat(self) -> None:
        """Look at how long it has been."""
        now, busy = self._now(), self._busy()
        gone, ran = now - self._last, busy - self._last_busy
        self._last, self._last_busy = now, busy
        if gone > self._away_s + PERIOD_S and 2 * ran < gone:
            self._on_away(gone)

    def _arm(self) -> None:
        # A timer and not a task: it runs before the tasks that would read what has come.
        self._timer = asyncio.get_running_loop().call_later(PERIOD_S, self._on_timer)

    def _on_timer(self) -> None:
        self._arm()
        self.beat()
