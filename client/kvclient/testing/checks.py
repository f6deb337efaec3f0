"""Checks: what a history proves about the store that answered it.

`check` judges every read of every key by what causality, sessions and, in a strict keyspace, real
time allow. Nothing is said of which of several concurrent writes should win.

One write *covers* another if its context must have held it: a put with the context of a get covers
what that returned; a plain put or a delete covers all that its worker has seen of the key, by
acknowledgements and by reads; and what a covered write covers. One worker is one session, as those
of kvclient/testing/drive.py are, or part of one. Then:

- A worker never reads what is covered by something that it has seen, and finds absent only what a
  delete may have removed since.
- After the final mark, nobody reads what is covered by anything that was acknowledged or read; no
  acknowledged value is absent unless a delete may have removed it; and where siblings are kept,
  every write that was acknowledged or read is among them or covered by one of them.
- No read returns siblings of which one covers another.
- In a strict keyspace (no stand-ins, r + w > n, 2w > n), no read returns a write that had ended
  before another began which was acknowledged before the read began.
- No read ever returns a write that was said to be not applied, or a value that nobody wrote.

Laws: a sound history has no findings, whether its uncertain writes appear or not and however late;
each planted error is found. Held by tests/unit/client/test_testing_checks.py and
tests/property/test_sound_histories.py. Pure: no clock, no I/O.
Cost: for each key quadratic bits in its writes: some 12 MB for 10,000 writes of one key, one key at
a time.
Source: design, sections 2.2, 2.10 and 7; Elle and Jepsen's set and register checkers for the idea.
Left out: expiry; cross-key claims; what a write acknowledged through hints alone may lose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from kvclient.testing.history import NEVER, History, HistoryError, Op, Place


class Kind(StrEnum):
    """What may be found."""

    LOST = "lost acknowledged write"
    """An acknowledged write is gone, with nothing that replaced it."""
    ZOMBIE = "zombie"
    """A deleted value came back."""
    STALE = "stale read"
    """A read returned what the reader, or in a strict keyspace anybody, had seen replaced."""
    PHANTOM = "visible not-applied write"
    """A write that was said to be nowhere was read."""
    RESURFACED = "replaced sibling that came back"
    """A read returned siblings of which one had replaced another: nothing is gone, but the replaced
    one must be merged away again."""
    UNKNOWN = "value from nowhere"
    """A value that nobody had written by then was read."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that must not be.

    Attributes:
        op: the read that shows it.
        because: the write that should have been seen, or should not have; -1 if there is none.
    """

    kind: Kind
    keyspace: str
    key: str
    op: int
    because: int
    text: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a history proves.

    Attributes:
        operations: all, failed ones included.
        ends: how they ended: ok, not_applied, uncertain, fail, and `none` for those cut short.
        errors: failures by the name of the error.
        worst_ms: the longest operation, however it ended.
        findings: what must not be, in the order of the reads that show it.
    """

    operations: int
    ends: Counter[str]
    errors: Counter[str]
    worst_ms: float
    findings: tuple[Finding, ...] = field(default=())

    @property
    def is_sound(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    @property
    def failed(self) -> int:
        """Operations that did not succeed."""
        return self.operations - self.ends["ok"]

    def count(self, kind: Kind) -> int:
        """How many findings are of this kind."""
        return sum(finding.kind is kind for finding in self.findings)


def check(
    history: History, *, strict: Collection[str] = (), siblings: Collection[str] = ()
) -> Verdict:
    """Return what a history proves.

    Args:
        history: of one run; sound or not.
        strict: names of the keyspaces in which real time counts.
        siblings: names of those whose reads return all concurrent values.

    Raises: HistoryError if two writes of a key put the same value: nobody could tell them apart.
    """
    keys: dict[tuple[str, str], list[Op]] = {}
    for op in history.ops:
        keys.setdefault((op.keyspace, op.key), []).append(op)
    findings: list[Finding] = []
    for (keyspace, _), ops in keys.items():
        judge = _Key(
            ops, history.final_at, is_strict=keyspace in strict, keeps=keyspace in siblings
        )
        findings += judge.findings()
    return Verdict(
        len(history.ops),
        Counter(op.end or "none" for op in history.ops),
        Counter(op.error for op in history.ops if op.error is not None),
        max((op.latency_ms or 0.0 for op in history.ops), default=0.0),
        tuple(sorted(findings, key=lambda finding: finding.op)),
    )


def _members(mask: int) -> Iterable[int]:
    """Yield the places of the bits that are set."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


@dataclass(slots=True)
class _Seen:
    """What a session, or everybody together, knows: writes, as bits by their number."""

    writes: int = 0
    covered: int = 0

    def add(self, number: int, covers: int) -> None:
        self.writes |= 1 << number | covers
        self.covered |= covers


class _Key:
    """Judges one key: walks its events in order and keeps what each worker has seen."""

    def __init__(self, ops: Sequence[Op], final_at: Place, *, is_strict: bool, keeps: bool) -> None:
        self._final_at = final_at
        self._is_strict = is_strict
        self._keeps = keeps
        self._writes = [op for op in ops if op.is_write]
        self._number = {op.op: number for number, op in enumerate(self._writes)}
        self._by_value = {op.value: op for op in self._writes if op.f == "put"}
        if len(self._by_value) < sum(op.f == "put" for op in self._writes):
            raise HistoryError(f"two writes of {ops[0].key} have the same value")
        self._deletes: list[int] = []
        """Numbers of those that have begun, and may have taken effect."""
        self._covers = [0] * len(self._writes)
        self._sessions: dict[int, _Seen] = {}
        self._all = _Seen()
        self._newest_acked = -1
        """The latest place at which a write was invoked that is acknowledged by now."""
        self._at_invoke: dict[int, tuple[_Seen, int]] = {}
        self._returned: dict[int, int] = {}
        """By read: what its context covers."""
        self._found: list[Finding] = []
        self._events = sorted(
            [(op.invoked, False, op) for op in ops]
            + [(op.ended, True, op) for op in ops if op.ended != NEVER],
            key=lambda event: event[0],
        )

    def findings(self) -> list[Finding]:
        """Return what must not be."""
        for _, is_end, op in self._events:
            if not is_end:
                self._on_invoke(op)
            elif op.end == "ok" and op.is_write:
                self._on_ack(op)
            elif op.end == "ok":
                self._on_read(op)
        return self._found

    # ---- what is known -------------------------------------------------------------------------

    def _on_invoke(self, op: Op) -> None:
        seen = self._sessions.setdefault(op.worker, _Seen())
        if not op.is_write:
            known = self._all if op.invoked > self._final_at else seen
            self._at_invoke[op.op] = _Seen(known.writes, known.covered), self._newest_acked
            return
        number = self._number[op.op]
        is_plain = op.context is None
        self._covers[number] = seen.writes if is_plain else self._returned.get(op.context or 0, 0)
        if op.f == "delete" and op.end != "not_applied":
            self._deletes.append(number)

    def _on_ack(self, op: Op) -> None:
        self._newest_acked = max(self._newest_acked, op.invoked)
        self._learn(op, op.worker)

    def _learn(self, write: Op, worker: int) -> None:
        number = self._number[write.op]
        self._sessions[worker].add(number, self._covers[number])
        self._all.add(number, self._covers[number])

    def _on_read(self, read: Op) -> None:
        known, newest_acked = self._at_invoke.pop(read.op)
        is_final = read.invoked > self._final_at
        looked_up = [self._by_value.get(value) for value in read.values]
        found = [write for write in looked_up if write is not None]
        beside = self._covered_by(found)
        for value, write in zip(read.values, looked_up, strict=True):
            if write is None or write.invoked > read.ended:
                self._tell(Kind.UNKNOWN, read, None, f"{value} was read, which nobody had written")
            elif write.end == "not_applied":
                self._tell(Kind.PHANTOM, read, write, f"{value} was read, which was not applied")
            elif beside >> self._number[write.op] & 1:
                text = f"{value} was read beside what had replaced it"
                self._tell(Kind.RESURFACED, read, write, text)
            else:
                self._judge(read, write, known, newest_acked, is_final=is_final)
        if is_final and self._keeps:
            self._judge_siblings(read, found, known)
        elif not read.values:
            self._judge_absence(read, known, newest_acked, is_final=is_final)
        self._returned[read.op] = self._with_covered(found)
        for write in found:
            self._learn(write, read.worker)

    def _covered_by(self, writes: Iterable[Op]) -> int:
        """Return what any of these covers."""
        covered = 0
        for write in writes:
            covered |= self._covers[self._number[write.op]]
        return covered

    def _with_covered(self, writes: Sequence[Op]) -> int:
        """Return these, and what any of them covers."""
        there = self._covered_by(writes)
        for write in writes:
            there |= 1 << self._number[write.op]
        return there

    # ---- judgement -----------------------------------------------------------------------------

    def _judge(
        self, read: Op, write: Op, known: _Seen, newest_acked: Place, *, is_final: bool
    ) -> None:
        number = self._number[write.op]
        if known.covered >> number & 1:
            by = [n for n in _members(known.writes) if self._covers[n] >> number & 1]
            self._tell_covered(read, write, [self._writes[n] for n in by], is_final=is_final)
        elif self._is_strict and not self._keeps and write.ended < newest_acked:
            later = self._acked_after(write.ended, read.invoked)
            self._tell_covered(read, write, later, is_final=is_final)

    def _tell_covered(self, read: Op, write: Op, later: Sequence[Op], *, is_final: bool) -> None:
        deletes = [op for op in later if op.f == "delete"]
        by = (deletes or list(later))[0]
        kind = Kind.ZOMBIE if deletes else Kind.LOST if is_final else Kind.STALE
        what = "deleted" if deletes else "replaced"
        self._tell(kind, read, by, f"{write.value} was read after operation {by.op} had {what} it")

    def _judge_absence(
        self, read: Op, known: _Seen, newest_acked: Place, *, is_final: bool
    ) -> None:
        live = [self._writes[n] for n in _members(known.writes & ~known.covered)]
        lost = [op for op in live if op.f == "put"]
        if lost and not self._may_be_deleted(known.covered, -1):
            kind = Kind.LOST if is_final else Kind.STALE
            self._tell(kind, read, lost[0], f"nothing was read, but {lost[0].value} is there")
        elif self._is_strict and not self._may_be_deleted(known.covered, newest_acked):
            later = [op for op in self._acked_after(-1, read.invoked) if op.f == "put"]
            if later:
                kind = Kind.LOST if is_final else Kind.STALE
                text = f"nothing was read, after {later[-1].value} was acknowledged"
                self._tell(kind, read, later[-1], text)

    def _may_be_deleted(self, covered: int, newest_acked: Place) -> bool:
        """Tell whether some delete may be what a read saw that ends now."""
        return any(
            self._writes[number].ended >= newest_acked and not covered >> number & 1
            for number in reversed(self._deletes)  # it is among the last, if it is one
        )

    def _judge_siblings(self, read: Op, found: Sequence[Op], known: _Seen) -> None:
        """Whatever was known is returned, covered by what is, or deleted for all we know."""
        there = self._with_covered(found)
        for number in _members(known.writes & ~there):
            write = self._writes[number]
            deleted = any(self._covers[n] >> number & 1 for n in self._deletes)
            if write.f == "put" and not deleted:
                text = f"{write.value} is neither among the siblings nor covered by them"
                self._tell(Kind.LOST, read, write, text)

    def _acked_after(self, ended: Place, before: Place) -> list[Op]:
        """Return the writes that began after `ended` and were acknowledged before `before`."""
        return [
            op for op in self._writes if op.end == "ok" and op.invoked > ended and op.ended < before
        ]

    def _tell(self, kind: Kind, read: Op, because: Op | None, text: str) -> None:
        number = -1 if because is None else because.op
        self._found.append(Finding(kind, read.keyspace, read.key, read.op, number, text))
