"""The storage thread: nothing is called durable too early, nothing waits for ever."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Event, Thread
from types import SimpleNamespace

import pytest

from kvnode.storage import committer as committer_module
from kvnode.storage.committer import Committer
from kvnode.storage.memory import MemoryEngine
from kvnode.storage.port import Position, StorageFenced
from tests.support.stores import put, wait_until

PATIENCE_S = 30.0
FOREVER_S = 3_600.0


class GatedEngine(MemoryEngine):
    """An engine whose flush waits, once the position it reaches is fixed, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.began: SimpleQueue[Position] = SimpleQueue()
        self.gate = Event()

    def flush(self) -> Position:
        reached = super().flush()
        self.began.put(reached)
        assert self.gate.wait(PATIENCE_S)
        return reached

    def next_flush(self) -> Position:
        return self.began.get(timeout=PATIENCE_S)


class Heard:
    """What the committer told."""

    def __init__(self) -> None:
        self.positions: SimpleQueue[Position] = SimpleQueue()
        self.failures: SimpleQueue[BaseException] = SimpleQueue()

    def next_position(self) -> Position:
        return self.positions.get(timeout=PATIENCE_S)


@pytest.fixture
def engine() -> GatedEngine:
    return GatedEngine()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@contextmanager
def _running(
    engine: MemoryEngine, heard: Heard, *, periodic_s: float = FOREVER_S
) -> Iterator[Committer]:
    committer = Committer(engine, heard.positions.put, heard.failures.put, periodic_s=periodic_s)
    try:
        yield committer
    finally:
        if isinstance(engine, GatedEngine):
            engine.gate.set()
        committer.close()


def test_nothing_is_told_before_its_flush_is_done(engine: GatedEngine, heard: Heard) -> None:
    with _running(engine, heard) as committer:
        committer.request(put(engine, (b"a", b"1")))
        assert engine.next_flush() == 1
        assert heard.positions.empty()
        engine.gate.set()
        assert heard.next_position() == 1


def test_requests_during_a_flush_share_the_next_one(engine: GatedEngine, heard: Heard) -> None:
    with _running(engine, heard) as committer:
        committer.request(put(engine, (b"a", b"1")))
        engine.next_flush()
        for _ in range(100):
            committer.request(put(engine, (b"b", b"1")))
        engine.gate.set()
        assert heard.next_position() == 1
        assert heard.next_position() == 101
    assert heard.positions.empty()


def test_a_position_that_is_durable_needs_no_flush(engine: GatedEngine, heard: Heard) -> None:
    engine.gate.set()
    with _running(engine, heard) as committer:
        put(engine, (b"a", b"1"))
        committer.request(put(engine, (b"b", b"1")))
        assert heard.next_position() == 2
        committer.request(Position(1))
        committer.request_later(Position(2))
    assert heard.positions.empty()


def test_every_request_is_served_whatever_the_moment(heard: Heard) -> None:
    engine = MemoryEngine()
    with _running(engine, heard) as committer:
        for number in range(1, 2_001):
            committer.request(put(engine, (b"k", b"v")))
            if number % 3 == 0:
                while heard.next_position() < number:
                    pass


def test_a_later_request_waits_for_an_earlier_flush(engine: GatedEngine, heard: Heard) -> None:
    engine.gate.set()
    with _running(engine, heard) as committer:
        committer.request_later(put(engine, (b"a", b"1")))
        assert heard.positions.empty()
        committer.request(put(engine, (b"b", b"1")))
        assert heard.next_position() == 2


def test_a_later_request_is_served_when_the_period_is_over(heard: Heard) -> None:
    engine = MemoryEngine()
    with _running(engine, heard, periodic_s=0.001) as committer:
        for number in range(1, 101):
            committer.request_later(put(engine, (b"a", b"1")))
            assert heard.next_position() == number


def test_what_comes_during_a_flush_begins_a_period_of_its_own(
    engine: GatedEngine, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(committer_module, "time", SimpleNamespace(monotonic=lambda: now))
    with _running(engine, heard, periodic_s=100) as committer:
        committer.request_later(put(engine, (b"a", b"1")))
        wait_until(lambda: committer._later_due == 100)
        now = 150
        committer.request(put(engine, (b"b", b"1")))
        assert engine.next_flush() == 2
        committer.request_later(put(engine, (b"c", b"1")))
        engine.gate.set()
        assert heard.next_position() == 2
        wait_until(lambda: committer._is_idle)
        assert engine.began.empty()
        assert committer._later_due == 250
    assert heard.next_position() == 3


@pytest.mark.parametrize("ask", [Committer.request, Committer.request_later])
def test_close_flushes_what_was_asked_for(
    engine: GatedEngine, heard: Heard, ask: Callable[[Committer, Position], None]
) -> None:
    engine.gate.set()
    with _running(engine, heard) as committer:
        ask(committer, put(engine, (b"a", b"1")))
    assert heard.next_position() == 1


def test_after_a_failure_nothing_more_is_told(engine: GatedEngine, heard: Heard) -> None:
    engine.gate.set()
    with _running(engine, heard) as committer:
        committer.request(put(engine, (b"a", b"1")))
        assert heard.next_position() == 1
        engine.faults.fails_next_flush = True
        committer.request(put(engine, (b"b", b"1")))
        assert isinstance(heard.failures.get(timeout=PATIENCE_S), StorageFenced)
        committer.request(Position(9))
        committer.request_later(Position(9))
    assert heard.positions.empty()
    assert heard.failures.empty()


def test_a_listener_that_fails_is_a_failure(engine: GatedEngine, heard: Heard) -> None:
    engine.gate.set()

    def refuse(position: Position) -> None:
        raise RuntimeError(f"the loop is closed at {position}")

    committer = Committer(engine, refuse, heard.failures.put)
    committer.request(put(engine, (b"a", b"1")))
    assert "closed at 1" in str(heard.failures.get(timeout=PATIENCE_S))
    committer.close()


def test_a_closed_committer_leaves_no_thread(engine: GatedEngine, heard: Heard) -> None:
    with _running(engine, heard) as committer:
        thread: Thread = committer._thread
        assert thread.is_alive()
    assert not thread.is_alive()
