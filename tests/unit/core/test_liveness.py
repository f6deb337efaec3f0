"""The detector: what takes a peer down, how fast, and what brings it back."""

from __future__ import annotations

import pytest

from kvnode.core.bounds import Limits
from kvnode.core.liveness import Change, Detector, Standing
from kvnode.core.messages import Instant, PeerDown, PeerSilent, PeerUp
from tests.support.heartbeats import MINUTE_US, Pair

S = 1_000_000
MS = 1_000
START = Instant(S)
LIFE, LATER_LIFE = 7, 8


class Bench:
    """One detector with one peer, 2, whose echoes take 2 ms unless a test says otherwise."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.now = START
        self.detector = Detector(limits or Limits(), START)
        self.detector.add(2, START)
        self.changes: list[tuple[int, str]] = []
        self.beats: list[int] = []
        self.redials: list[int] = []
        self.answers = True

    def note(self, changes: list[Change]) -> None:
        self.changes += [(self.now - START, type(one.event).__name__) for one in changes]
        self.detector.check()

    def open(self, life: int = LIFE) -> None:
        self.note(self.detector.on_opened(2, life, self.now))

    def lose(self) -> None:
        self.note(self.detector.on_lost(2, "connection lost", self.now))

    def ask(self) -> None:
        self.detector.on_asked(2, self.now)

    def answer(self, *, owes: bool = False) -> None:
        self.note(self.detector.on_answered(2, self.now, owes=owes))

    def run(self, for_us: int) -> None:
        """Look whenever it is due, and have the peer answer heartbeats if it does."""
        end = Instant(self.now + for_us)
        while self.detector.next_look() <= end:
            self.now = max(self.now, self.detector.next_look())
            self.look()
        self.now = end

    def look(self) -> None:
        look = self.detector.look(self.now)
        self.note(look.changes)
        self.redials += [self.now] * len(look.redials)
        for node in look.beats:
            self.beats.append(self.now)
            number = self.detector.begin_beat(node, self.now)
            if self.answers:
                echo_at = Instant(self.now + 2 * MS)
                self.note(self.detector.on_echo(node, number, echo_at))

    @property
    def told(self) -> list[str]:
        return [what for _, what in self.changes]

    @property
    def standing(self) -> Standing:
        return self.detector.standing(2)


@pytest.fixture
def bench() -> Bench:
    """Return a bench whose peer has been up and quiet for a while."""
    bench = Bench()
    bench.open()
    bench.run(2 * MINUTE_US)
    assert bench.told == ["PeerUp"]
    bench.changes.clear()
    bench.beats.clear()
    return bench


# --- going -------------------------------------------------------------------------------------


def test_a_peer_is_down_until_it_is_linked_and_up_at_once_then() -> None:
    bench = Bench()
    bench.run(S)
    assert (bench.standing, bench.beats) == (Standing.DOWN, [])
    bench.open()
    assert bench.standing is Standing.UP
    assert bench.told == ["PeerUp"]


def test_a_lost_connection_takes_a_peer_down_at_once(bench: Bench) -> None:
    bench.lose()
    assert bench.changes == [(2 * MINUTE_US, "PeerDown")]
    bench.lose()
    assert len(bench.changes) == 1


def test_an_idle_peer_that_falls_silent_is_down_within_two_seconds(bench: Bench) -> None:
    bench.answers = False
    bench.run(2 * S)
    ((at, what),) = bench.changes
    assert what == "PeerDown"
    assert 750 * MS <= at - 2 * MINUTE_US <= 1_300 * MS


def test_a_peer_that_owes_answers_is_silent_after_200_ms_and_then_down(bench: Bench) -> None:
    bench.answers = False
    bench.ask()
    bench.run(2 * S)
    (silent, down) = bench.changes
    assert (silent[1], down[1]) == ("PeerSilent", "PeerDown")
    assert 200 * MS <= silent[0] - 2 * MINUTE_US <= 300 * MS


def test_a_peer_that_owes_echoes_already_is_silent_soon_after_it_is_asked(bench: Bench) -> None:
    bench.answers = False
    bench.run(500 * MS)
    assert bench.changes == []
    asked_at = bench.now
    bench.ask()
    bench.run(200 * MS)
    ((at, what),) = bench.changes
    assert what == "PeerSilent"
    assert 50 * MS <= START + at - asked_at <= 80 * MS


def test_a_peer_that_answers_soon_is_not_silent_though_it_owed_echoes(bench: Bench) -> None:
    bench.answers = False
    bench.run(500 * MS)
    bench.ask()
    bench.run(40 * MS)
    bench.answer()
    bench.answers = True
    bench.run(S)
    assert bench.changes == []


def test_a_peer_that_answers_heartbeats_is_not_silent_however_long_a_request_takes(
    bench: Bench,
) -> None:
    bench.ask()
    bench.run(10 * S)
    assert bench.changes == []


def test_answers_to_requests_are_as_good_as_echoes(bench: Bench) -> None:
    bench.answers = False
    bench.ask()
    for _ in range(50):
        bench.run(100 * MS)
        bench.answer(owes=True)
    assert bench.changes == []


def test_what_owes_nothing_is_not_silent_before_it_is_down(bench: Bench) -> None:
    bench.ask()
    bench.answer()
    bench.answers = False
    bench.run(800 * MS)
    assert bench.changes == []


def test_a_heartbeat_that_was_not_said_or_was_echoed_before_proves_nothing(bench: Bench) -> None:
    bench.answers = False
    number = bench.detector.begin_beat(2, bench.now)
    assert bench.detector.on_echo(2, number, bench.now) == []
    for _ in range(20):
        bench.run(100 * MS)
        bench.note(bench.detector.on_echo(2, number, bench.now))
        bench.note(bench.detector.on_echo(2, number + 1_000, bench.now))
    assert bench.told == ["PeerDown"]


def test_a_peer_that_stays_silent_is_dialled_anew_once(bench: Bench) -> None:
    bench.answers = False
    bench.run(10 * S)
    (at,) = bench.redials
    assert 3 * S <= at - START - 2 * MINUTE_US <= 3_100 * MS
    assert all(beat <= at for beat in bench.beats)


def test_a_peer_that_says_it_is_stopping_is_silent_until_it_is_linked_anew(bench: Bench) -> None:
    bench.note(bench.detector.on_leaving(2, bench.now))
    bench.run(S)
    assert bench.told == ["PeerSilent"]
    bench.lose()
    bench.open(LATER_LIFE)
    assert bench.told == ["PeerSilent", "PeerDown", "PeerUp"]
    bench.note(bench.detector.on_leaving(2, bench.now))
    bench.lose()
    bench.note(bench.detector.on_leaving(2, bench.now))
    assert bench.standing is Standing.DOWN


def test_a_peer_that_is_no_member_any_more_is_down_and_forgotten(bench: Bench) -> None:
    bench.note(bench.detector.drop(2, "gone", bench.now))
    assert bench.told == ["PeerDown"]
    detector, now = bench.detector, bench.now
    assert detector.on_opened(2, LIFE, now) == detector.on_lost(2, "", now) == []
    assert detector.on_answered(2, now, owes=False) == detector.on_echo(2, 1, now) == []
    assert detector.on_leaving(2, now) == []
    assert detector.begin_beat(2, now) == 0
    bench.ask()
    assert bench.standing is Standing.DOWN
    assert detector.look(now) == ([], [], [])


# --- heartbeats --------------------------------------------------------------------------------


def test_an_idle_link_is_beaten_once_a_period(bench: Bench) -> None:
    bench.run(10 * S)
    assert 49 <= len(bench.beats) <= 51


def test_a_peer_that_owes_answers_is_asked_often_until_it_speaks(bench: Bench) -> None:
    bench.answers = False
    bench.ask()
    bench.run(200 * MS)
    assert 3 <= len(bench.beats) <= 5
    bench.beats.clear()
    bench.answers = True
    bench.answer()
    bench.run(2 * S)
    assert len(bench.beats) <= 11


def test_a_peer_that_answers_steadily_is_not_asked_more_often(bench: Bench) -> None:
    bench.ask()
    for _ in range(1_000):
        bench.run(10 * MS)
        bench.answer(owes=True)
    assert len(bench.beats) <= 51


# --- coming back -------------------------------------------------------------------------------


def accused_in_vain(bench: Bench) -> int:
    """Have the peer be silent for a moment; return how long it takes from its first answer until
    it is believed, µs."""
    bench.answers = False
    bench.ask()
    while bench.detector.standing(2) is Standing.UP:
        bench.run(10 * MS)
    bench.answers = True
    begun = bench.now
    while bench.detector.standing(2) is not Standing.UP:
        bench.run(10 * MS)
    bench.answer()
    assert bench.told[-2:] == ["PeerSilent", "PeerHeard"]
    return bench.now - begun


def test_a_first_false_alarm_is_taken_back_at_once_and_the_next_one_later(
    bench: Bench,
) -> None:
    took = []
    for _ in range(2):
        took.append(accused_in_vain(bench))
        bench.run(5 * S)
    needed = [0, 500]
    assert all(0 <= one - ms * MS <= 150 * MS for one, ms in zip(took, needed, strict=True)), took


def test_each_return_after_a_brief_time_takes_longer_up_to_half_a_minute(bench: Bench) -> None:
    took = []
    for _ in range(9):
        bench.lose()
        bench.run(10 * MS)
        bench.open()
        opened = bench.now
        while bench.standing is not Standing.UP:
            bench.run(50 * MS)
        took.append(bench.now - opened)
    needed = [0, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000]
    assert all(0 <= one - ms * MS <= 300 * MS for one, ms in zip(took, needed, strict=True))


def test_a_new_link_is_believed_at_once_where_the_last_one_held(bench: Bench) -> None:
    for _ in range(20):  # faults that come every ten seconds and are mended
        bench.answers = False
        bench.run(5 * S)
        assert bench.detector.standing(2) is Standing.DOWN
        bench.answers = True
        bench.lose()
        bench.open()
        assert bench.detector.standing(2) is Standing.UP
        bench.run(4 * S)  # the rest of five seconds went into noticing that it is mended


def test_hearing_that_is_interrupted_begins_anew(bench: Bench) -> None:
    for _ in range(5):
        bench.lose()
        bench.open()
        bench.run(2_500 * MS)
    bench.lose()
    bench.open()  # four seconds are needed now
    judged = bench.detector.standing
    for _ in range(10):
        bench.answers = True
        bench.run(3 * S)
        bench.answers = False
        bench.run(500 * MS)
    assert judged(2) is Standing.DOWN
    bench.answers = True
    bench.run(5 * S)
    assert judged(2) is Standing.UP


def test_a_quiet_minute_is_forgiveness(bench: Bench) -> None:
    for _ in range(4):
        bench.lose()
        bench.open()
        bench.run(2_500 * MS)
    bench.run(MINUTE_US)
    bench.lose()
    bench.open()
    bench.run(400 * MS)
    assert bench.standing is Standing.UP


def test_a_minute_of_death_is_quiet_too(bench: Bench) -> None:
    for _ in range(4):
        bench.lose()
        bench.open()
        bench.run(4 * S)
    bench.lose()
    bench.run(MINUTE_US)
    bench.open()
    bench.run(400 * MS)
    assert bench.standing is Standing.UP


def test_a_node_that_was_started_anew_owes_nothing(bench: Bench) -> None:
    for life in range(20, 40):
        bench.lose()
        bench.run(100 * MS)
        bench.open(life)
        assert bench.standing is Standing.UP


def test_a_false_alarm_doubles_the_patience(bench: Bench) -> None:
    noticed = []
    for _ in range(3):
        bench.answers = False
        bench.ask()
        asked = bench.now
        while bench.standing is Standing.UP:
            bench.run(5 * MS)
        noticed.append((bench.now - asked) // MS)
        bench.answers = True
        bench.answer()
        bench.run(5 * S)
    doubled = zip(noticed, [200, 400, 800], strict=True)
    assert all(0 <= one - ms <= 100 for one, ms in doubled), noticed


# --- this node's own pauses --------------------------------------------------------------------


@pytest.mark.parametrize("away_us", [100 * MS, S, 60 * S])
def test_a_node_that_was_away_itself_accuses_nobody(bench: Bench, away_us: int) -> None:
    bench.ask()
    bench.answers = False  # what comes meanwhile is read after the first look
    bench.now = Instant(bench.now + away_us)
    bench.look()
    assert bench.changes == []
    bench.answers = True
    bench.answer()
    bench.run(5 * S)
    assert bench.changes == []


def test_pauses_in_a_row_accuse_nobody(bench: Bench) -> None:
    bench.answers = False
    bench.ask()
    for _ in range(2):
        bench.now = Instant(bench.now + 60 * S)
        bench.look()
    assert bench.changes == []


def test_frames_that_are_read_before_the_first_look_do_not_excuse_later_silence(
    bench: Bench,
) -> None:
    bench.now = Instant(bench.now + 60 * S)
    bench.answer()
    bench.answers = False
    back = bench.now - START
    bench.run(2 * S)
    ((at, what),) = bench.changes
    assert what == "PeerDown"
    assert at - back <= 1_300 * MS


def test_a_node_that_is_often_away_still_notices_silence(bench: Bench) -> None:
    bench.answers = False
    for _ in range(60):
        bench.now = Instant(bench.detector.next_look() + 300 * MS)
        bench.look()
    assert bench.told == ["PeerDown"]


def test_a_busy_node_that_is_a_little_late_notices_silence_in_time(bench: Bench) -> None:
    bench.answers = False
    begun = bench.now
    while bench.standing is Standing.UP:
        bench.now = Instant(bench.detector.next_look() + 45 * MS)
        bench.look()
    assert bench.now - begun <= 2 * S


# --- links that lose, delay, or stall ------------------------------------------------------------


def test_a_stopped_peer_is_down_in_two_seconds_and_it_accuses_nobody_itself(seed: int) -> None:
    pair = Pair(seed)
    pair.begin_asking(20 * MS)
    pair.run(30 * S)
    pair.stopped.add(2)
    pair.run(2 * S)
    assert pair.told(1) == ["PeerUp", "PeerSilent", "PeerDown"]
    pair.run(3 * S)
    pair.resume(2)
    pair.run(5 * S)
    assert pair.told(1) == ["PeerUp", "PeerSilent", "PeerDown", "PeerUp"]
    assert pair.told(2) == ["PeerUp"]


@pytest.mark.parametrize("delay_ms", [100, 300])
def test_a_link_that_is_slow_and_even_is_not_suspected_for_long(seed: int, delay_ms: int) -> None:
    pair = Pair(seed)
    for wire in pair.wires.values():
        wire.delay_us = (delay_ms * MS // 2, delay_ms * MS // 2 + 2 * MS)
    pair.begin_asking(20 * MS)
    pair.run(MINUTE_US)
    assert pair.told(1, since_us=10 * S) == []
    assert pair.told(1).count("PeerDown") == 0


def test_on_a_link_that_often_loses_frames_silence_still_shows_within_two_seconds(
    seed: int,
) -> None:
    pair = Pair(seed)
    for wire in pair.wires.values():
        wire.loss = 0.2
    pair.run(MINUTE_US)
    pair.stopped.add(2)
    stopped = pair.now_us
    pair.run(2 * S)
    assert pair.told(1, since_us=stopped) == ["PeerDown"]


def test_however_uneven_a_link_is_silence_shows_within_two_seconds(bench: Bench) -> None:
    bench.answers = False
    for late in range(200):
        number = bench.detector.begin_beat(2, bench.now)
        bench.run(400 * MS if late % 2 else 0)
        bench.note(bench.detector.on_echo(2, number, bench.now))
    heard = bench.now - START
    assert bench.changes == []
    bench.run(2 * S)
    ((at, what),) = bench.changes
    assert what == "PeerDown"
    assert 1_750 * MS <= at - heard <= 1_850 * MS


def test_events_say_whom_they_are_about(bench: Bench) -> None:
    detector, now = bench.detector, bench.now
    (leaving,) = detector.on_leaving(2, now)
    (lost,) = detector.on_lost(2, "gone", now)
    (opened,) = detector.on_opened(2, LATER_LIFE, now)
    assert leaving == (PeerSilent(2), "stopping")
    assert lost == (PeerDown(2), "gone")
    assert opened == (PeerUp(2), "heard")
