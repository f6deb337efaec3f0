"""Histories: what a run's clients asked for, when, and what they were told.

As a file, JSON lines, two for each operation, in the order in which they happened in one process:

    {"op": 7, "worker": 3, "type": "invoke", "f": "put", "key": "r3", "value": "3.12", "time_ms": 1}
    {"op": 7, "worker": 3, "type": "ok", "f": "put", "key": "r3", "time_ms": 3.4, "nodes": ["n1"]}

`type` is `invoke`, or how it ended: `ok`; for a write `not_applied` (certainly nowhere) or
`uncertain` (may be or become visible); for a read `fail`. `f` is `put`, `get` or `delete`. A put
has its `value`; the end of a get has what it returned (null: absent), and under `siblings` all
concurrent values where the keyspace keeps them. `context` names the get whose context a put used.
`keyspace` is left out for `default`, `error` is there after a failure. A line {"type": "final"}
says that faults are over and the cluster has converged: what was acknowledged must be read then.

Laws: what `Recorder` writes `read` reads back as the same operations; an operation without an end
counts as uncertain, since it may have taken effect; places in the order, not clocks, say what came
before what.
Tests: tests/unit/client/test_testing_history.py.
Left out: values' bytes. A value is a short token that no other write of the history has.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TextIO, TypeAlias

from kvclient.errors import KVError

DEFAULT: Final = "default"
NEVER: Final = 1 << 62
"""The place of an end that did not come."""
ENDS = ("ok", "not_applied", "uncertain", "fail")
WRITES = ("put", "delete")
TOKEN_CHARS = 64

Place: TypeAlias = int
"""Where in the history an event stands, from 0."""


class HistoryError(Exception):
    """A file is no history; the text names the line."""


@dataclass(slots=True)
class Op:
    """One operation.

    Attributes:
        end: how it ended; None while it has not.
        values: what a get returned, all siblings; empty when absent.
        context: the op of the get whose context a put used; None for a plain one.
        nodes: who acknowledged.
    """

    op: int
    worker: int
    f: str
    keyspace: str
    key: str
    value: str | None
    context: int | None
    invoked: Place
    invoked_ms: float
    end: str | None = None
    ended: Place = NEVER
    ended_ms: float = 0.0
    values: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    error: str | None = None

    @property
    def is_write(self) -> bool:
        """Whether it is a put or a delete."""
        return self.f in WRITES

    @property
    def latency_ms(self) -> float | None:
        """How long it took; None if it never ended."""
        return None if self.end is None else self.ended_ms - self.invoked_ms


@dataclass(slots=True)
class History:
    """All operations of a run, in the order in which they were invoked."""

    ops: list[Op] = field(default_factory=list)
    final_at: Place = NEVER
    """From here on the cluster had converged."""


class Recorder:
    """Records the operations of one process, in memory and as lines.

    Not for several threads: an event loop is what makes the order one.
    """

    def __init__(
        self, lines: TextIO | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin at 0 ms. Lines go to `lines` as they happen, if there is one."""
        self.history = History()
        self._lines = lines
        self._now = now
        self._began = now()
        self._place = 0

    def invoke(
        self,
        worker: int,
        f: str,
        key: str,
        *,
        value: str | None = None,
        keyspace: str = DEFAULT,
        context: int | None = None,
    ) -> Op:
        """Record that an operation begins; it is to be ended by one of the other methods."""
        assert value is None or len(value) <= TOKEN_CHARS, "values are short tokens"
        number, now_ms = len(self.history.ops), self._now_ms()
        op = Op(number, worker, f, keyspace, key, value, context, self._next(), now_ms)
        self.history.ops.append(op)
        self._write(_invoke_line, op)
        return op

    def ok(self, op: Op, values: Sequence[str] = (), nodes: Sequence[str] = ()) -> None:
        """Record success: what a get returned, or who holds a write."""
        op.values, op.nodes = tuple(values), tuple(nodes)
        self._end(op, "ok")

    def failed(self, op: Op, error: KVError) -> None:
        """Record a failure, and what may be concluded from it."""
        op.error = type(error).__name__
        if not op.is_write:
            self._end(op, "fail")
        else:
            self._end(op, "not_applied" if error.outcome == "not applied" else "uncertain")

    def final(self) -> None:
        """Record that faults are over and the cluster has converged."""
        self.history.final_at = self._next()
        if self._lines is not None:
            self._lines.write(json.dumps({"type": "final", "time_ms": self._now_ms()}) + "\n")

    def _end(self, op: Op, how: str) -> None:
        assert op.end is None, "an operation ends once"
        op.end, op.ended, op.ended_ms = how, self._next(), self._now_ms()
        self._write(_end_line, op)

    def _write(self, shape: Callable[[Op], dict[str, Any]], op: Op) -> None:
        if self._lines is not None:
            self._lines.write(json.dumps(shape(op)) + "\n")

    def _next(self) -> Place:
        self._place += 1
        return self._place - 1

    def _now_ms(self) -> float:
        return round((self._now() - self._began) * 1_000, 3)


def _head(op: Op, kind: str, time_ms: float) -> dict[str, Any]:
    line = {"op": op.op, "worker": op.worker, "type": kind, "f": op.f, "key": op.key}
    if op.keyspace != DEFAULT:
        line["keyspace"] = op.keyspace
    return {**line, "time_ms": time_ms}


def _invoke_line(op: Op) -> dict[str, Any]:
    line = _head(op, "invoke", op.invoked_ms)
    if op.f == "put":
        line["value"] = op.value
    if op.context is not None:
        line["context"] = op.context
    return line


def _end_line(op: Op) -> dict[str, Any]:
    assert op.end is not None
    line = _head(op, op.end, op.ended_ms)
    if op.f == "get" and op.end == "ok":
        line["value"] = op.values[0] if op.values else None
    if len(op.values) > 1:
        line["siblings"] = list(op.values)
    if op.nodes:
        line["nodes"] = list(op.nodes)
    if op.error is not None:
        line["error"] = op.error
    return line


def read(lines: Iterable[str]) -> History:
    """Return the history that the lines of a file hold. Raises: HistoryError."""
    history, by_number = History(), dict[int, Op]()
    for number, text in enumerate(lines):
        try:
            _take(history, by_number, number, json.loads(text))
        except (ValueError, KeyError, TypeError) as error:
            raise HistoryError(f"line {number + 1}: {type(error).__name__}: {error}") from error
    return history


def _take(history: History, by_number: dict[int, Op], place: Place, line: dict[str, Any]) -> None:
    kind = line["type"]
    if kind == "final":
        history.final_at = place
    elif kind == "invoke":
        op = _invoked(line, place)
        if by_number.setdefault(op.op, op) is not op:
            raise ValueError(f"operation {op.op} is invoked twice")
        history.ops.append(op)
    elif kind in ENDS:
        op = by_number[line["op"]]
        if op.end is not None:
            raise ValueError(f"operation {op.op} ends twice")
        op.end, op.ended, op.ended_ms = kind, place, line["time_ms"]
        returned = () if line.get("value") is None else (line["value"],)
        op.values = tuple(line.get("siblings", returned))
        op.nodes, op.error = tuple(line.get("nodes", ())), line.get("error")
    else:
        raise ValueError(f"no such type: {kind!r}")


def _invoked(line: dict[str, Any], place: Place) -> Op:
    if line["f"] not in (*WRITES, "get"):
        raise ValueError(f"no such operation: {line['f']!r}")
    return Op(
        line["op"],
        line["worker"],
        line["f"],
        line.get("keyspace", DEFAULT),
        line["key"],
        line.get("value"),
        line.get("context"),
        place,
        line["time_ms"],
    )
