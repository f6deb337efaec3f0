"""The laws of the shared thread."""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from kvclient import _thread


def test_clients_share_one_thread_which_ends_with_the_last() -> None:
    first, second = _thread.acquire(), _thread.acquire()
    assert first is second
    _thread.release(first)
    assert first.loop.is_running()
    _thread.release(second)
    assert first.loop.is_closed()
    third = _thread.acquire()
    assert third is not first
    _thread.release(third)


def test_actions_are_done_in_order_and_share_wake_ups() -> None:
    thread = _thread.acquire()
    done: list[int] = []
    held, blocked, finished = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        blocked.set()
        held.wait(10)

    thread.post(hold)
    assert blocked.wait(10)
    for number in range(100):
        thread.post(lambda number=number: done.append(number))  # type: ignore[misc]
    thread.post(finished.set)
    ready: list[object] = list(thread.loop._ready)  # type: ignore[attr-defined]
    assert sum("_drain" in repr(handle) for handle in ready) == 1
    held.set()
    assert finished.wait(10)
    assert done == list(range(100))
    _thread.release(thread)


def test_an_action_that_fails_is_told_and_holds_up_none_behind_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    thread = _thread.acquire()
    held, finished = threading.Event(), threading.Event()

    def fail() -> None:
        raise KeyError("k")

    thread.post(lambda: held.wait(10))  # so that the others are one batch
    thread.post(fail)
    thread.post(finished.set)
    held.set()
    assert finished.wait(10)
    _thread.release(thread)
    assert "KeyError: 'k'" in caplog.text


def test_an_error_in_the_loop_reaches_the_caller() -> None:
    thread = _thread.acquire()

    async def fail() -> None:
        raise KeyError("k")

    with pytest.raises(KeyError):
        thread.call(fail())
    _thread.release(thread)


@pytest.mark.parametrize(
    ("message", "error", "passes"),
    [
        ("Exception in callback PollerCompletionQueue._handle_events()", BlockingIOError(), False),
        (
            "Exception in callback PollerCompletionQueue._handle_events()",
            RuntimeError("Event loop is closed"),
            False,
        ),
        ("Exception in callback PollerCompletionQueue._handle_events()", KeyError(), True),
        ("Exception in callback theirs()", BlockingIOError(), True),
        ("Task was destroyed but it is pending!", None, True),
    ],
)
def test_only_the_pollers_known_noise_is_kept_from_the_log(
    message: str, error: Exception | None, passes: bool
) -> None:
    info = (type(error), error, None) if error else None
    record = logging.LogRecord("asyncio", logging.ERROR, "", 1, message, None, info)
    assert _thread.PollerNoise().filter(record) is passes
    assert any(isinstance(f, _thread.PollerNoise) for f in logging.getLogger("asyncio").filters)


def test_a_loop_of_its_own_is_not_the_callers() -> None:
    async def main() -> bool:
        thread = _thread.acquire()
        try:
            return thread.loop is not asyncio.get_running_loop()
        finally:
            await asyncio.to_thread(_thread.release, thread)

    assert asyncio.run(main())
