"""The laws of kvclient.testing.history."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvclient import errors
from kvclient.testing.history import NEVER, HistoryError, Recorder, read

FAILURES = st.sampled_from(
    [errors.Unavailable("no"), errors.Uncertain("late"), errors.Timeout("late")]
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "delete"]),
        st.sampled_from(["default", "strict"]),
        st.booleans() | FAILURES,
        st.lists(st.text(max_size=4), max_size=3, unique=True),
    ),
    max_size=20,
)


def recorded(steps: list[tuple[str, str, object, list[str]]], lines: io.StringIO) -> Recorder:
    recorder = Recorder(lines, now=iter(range(1_000)).__next__)
    open_ops = []
    for number, (f, keyspace, outcome, values) in enumerate(steps):
        value = f"v{number}" if f == "put" else None
        context = 7 if f == "put" and number % 2 else None
        op = recorder.invoke(number % 3, f, "k", value=value, keyspace=keyspace, context=context)
        open_ops.append((op, outcome, values))
    for op, outcome, values in open_ops:
        if isinstance(outcome, errors.KVError):
            recorder.failed(op, outcome)
        elif outcome:
            recorder.ok(op, values if op.f == "get" else (), ["n1"] if op.is_write else ())
    recorder.final()
    return recorder


@given(STEPS)
def test_what_is_written_is_read_back(steps: list[tuple[str, str, object, list[str]]]) -> None:
    lines = io.StringIO()
    recorder = recorded(steps, lines)
    found = read(lines.getvalue().splitlines())
    assert found == recorder.history


def test_the_lines_are_as_documented() -> None:
    lines = io.StringIO()
    recorder = Recorder(lines, now=iter([0.0, 0.001, 0.0034, 0.01, 0.02, 0.03]).__next__)
    put = recorder.invoke(3, "put", "r3", value="3.12")
    recorder.ok(put, nodes=["n1"])
    get = recorder.invoke(3, "get", "r3", keyspace="kept")
    recorder.ok(get, ["a", "b"])
    recorder.final()
    assert [json.loads(line) for line in lines.getvalue().splitlines()] == [
        {"op": 0, "worker": 3, "type": "invoke", "f": "put", "key": "r3", "value": "3.12",
         "time_ms": 1.0},
        {"op": 0, "worker": 3, "type": "ok", "f": "put", "key": "r3", "time_ms": 3.4,
         "nodes": ["n1"]},
        {"op": 1, "worker": 3, "type": "invoke", "f": "get", "key": "r3", "keyspace": "kept",
         "time_ms": 10.0},
        {"op": 1, "worker": 3, "type": "ok", "f": "get", "key": "r3", "keyspace": "kept",
         "value": "a", "siblings": ["a", "b"], "time_ms": 20.0},
        {"type": "final", "time_ms": 30.0},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("f", "error", "end"),
    [
        ("put", errors.Unavailable("no"), "not_applied"),
        ("put", errors.Uncertain("late"), "uncertain"),
        ("delete", errors.KVError("whatever"), "uncertain"),
        ("get", errors.Unavailable("no"), "fail"),
    ],
)
def test_a_failure_ends_as_what_may_be_concluded(f: str, error: errors.KVError, end: str) -> None:
    recorder = Recorder()
    op = recorder.invoke(0, f, "k", value="v" if f == "put" else None)
    recorder.failed(op, error)
    assert (op.end, op.error) == (end, type(error).__name__)


def test_what_never_ended_has_no_latency() -> None:
    op = Recorder().invoke(0, "get", "k")
    assert (op.end, op.ended, op.latency_ms) == (None, NEVER, None)
    assert replace(op, end="fail", ended=1, ended_ms=op.invoked_ms + 5).latency_ms == 5


INVOKE = '{"op": 0, "worker": 0, "type": "invoke", "f": "get", "key": "k", "time_ms": 0}'
OK = '{"op": 0, "worker": 0, "type": "ok", "f": "get", "key": "k", "time_ms": 1}'


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([INVOKE, "{"], "line 2"),
        ([INVOKE, INVOKE], "invoked twice"),
        ([INVOKE, OK, OK], "line 3: ValueError: operation 0 ends twice"),
        ([OK], "KeyError"),
        ([INVOKE.replace("get", "cas")], "no such operation: 'cas'"),
        ([INVOKE.replace("invoke", "maybe")], "no such type: 'maybe'"),
        (["[]"], "line 1"),
    ],
)
def test_what_is_no_history_is_refused_by_line(lines: list[str], told: str) -> None:
    with pytest.raises(HistoryError, match=told):
        read(lines)
