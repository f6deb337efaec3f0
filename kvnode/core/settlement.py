"""One conflict on its way to being settled: a conversation of its settler with all owners.

    ASKING own state, then the others'
        |-- no conflict, or an owner in doubt --> OVER
        |-- they differ --> MENDING: all get the join, votes too --> OVER
        '-- all the same --> AGREED --log()--> LOGGING --w have it--> PRUNING --all heard--> OVER
                               '--drop()--> OVER

Laws: nothing is pruned before w owners have logged it; each owner is told to act only on what it
told itself; whatever comes late, doubled or from elsewhere changes nothing.
Tests: tests/unit/core/test_settlement.py; with its owners: tests/unit/core/test_settling.py.
Left out: when, and why it is safe (kvnode.core.settling).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import assert_never

from kvnode.core.conversations import (
    AskState,
    Fence,
    LogLosers,
    Prune,
    SettleTell,
    TellLogged,
    TellPruned,
    TellState,
)
from kvnode.core.keys import StorageKey
from kvnode.core.messages import (
    Instant,
    NodeNumber,
    Outbox,
    ReplicaWrite,
    ReplicaWriteReply,
    WriteKind,
)
from kvnode.core.pruning import digest
from kvnode.core.record import DamagedRecord, Encoded, decode, encode, fits
from kvnode.core.resolve import Verdict, is_conflict
from kvnode.core.versions import EMPTY, Record, clashes, sync


class Stage(IntEnum):
    """How far a conflict has come."""

    ASKING = 0
    MENDING = 1
    AGREED = 2
    LOGGING = 3
    PRUNING = 4
    OVER = 5


class Settlement:
    """One conflict, at its settler, which is one of its owners."""

    __slots__ = (
        "_answered",
        "_epoch",
        "_here",
        "_logged",
        "_states",
        "_verdict",
        "digest",
        "gives_up_at",
        "has_pruned",
        "key",
        "number",
        "owners",
        "record",
        "stage",
    )

    def __init__(
        self,
        number: int,
        key: StorageKey,
        owners: Sequence[NodeNumber],
        *,
        here: NodeNumber,
        epoch: int,
        gives_up_at: Instant,
    ) -> None:
        self.number = number
        self.key = key
        self.owners = owners
        self.gives_up_at = gives_up_at
        self.stage = Stage.ASKING
        self.record = b""
        """What the settler holds, encoded."""
        self.digest = b""
        """Of the record; empty: not known yet."""
        self.has_pruned = False
        """An owner has taken the losers out."""
        self._here = here
        self._epoch = epoch
        self._states: dict[NodeNumber, TellState] = {}
        self._verdict: Verdict | None = None
        self._logged: dict[NodeNumber, None] = {}
        self._answered: dict[NodeNumber, None] = {}
        """Who has answered in the stage that it is in."""

    def start(self, out: Outbox) -> None:
        """Ask for the settler's own state: it may have changed since the index was read."""
        out.send(self._here, AskState(self.number, self.key, self._epoch, b""))

    def drop(self) -> None:
        """Leave it as it is."""
        self.stage = Stage.OVER

    def log(self, verdict: Verdict, time_ms: int, out: Outbox) -> None:
        """Have all owners log the losers; they are pruned once w of them have."""
        assert self.stage is Stage.AGREED
        self.stage = Stage.LOGGING
        self._verdict = verdict
        for node in self.owners:
            out.send(
                node,
                LogLosers(
                    self.number,
                    self.key,
                    self._fence(node),
                    time_ms,
                    verdict.winner.dot,
                    verdict.losers,
                    verdict.rule,
                ),
            )

    def on_tell(
        self, sender: NodeNumber, tell: SettleTell, *, w: int, now_ms: int, out: Outbox
    ) -> None:
        """An owner answers.

        Args:
            sender: one of the owners.
            tell: its answer, perhaps to an earlier stage.
            w: how many owners must have the losers in their logs.
            now_ms: cluster time.
            out: what this turn sends.
        """
        match tell:
            case TellState():
                if self.stage is Stage.ASKING:
                    self._on_state(sender, tell, now_ms, out)
            case TellLogged(_, is_done):
                if self.stage is Stage.LOGGING:
                    self._on_logged(sender, w, out, is_done=is_done)
            case TellPruned(_, is_done):
                if self.stage is Stage.PRUNING:
                    self.has_pruned |= is_done
                    self._note(sender)
            case _:
                assert_never(tell)

    def on_write_reply(self, sender: NodeNumber, reply: ReplicaWriteReply, out: Outbox) -> None:
        """An owner has merged the join; it may know that some of it was superseded."""
        if self.stage is Stage.MENDING:
            if reply.record:
                self._repair(self._here, reply.record, 0, out)
            self._note(sender)

    # ---- within --------------------------------------------------------------------------

    def _on_state(self, sender: NodeNumber, tell: TellState, now_ms: int, out: Outbox) -> None:
        if not tell.is_known:
            self.drop()
        elif sender == self._here and not self._states:
            self._on_own_state(tell, now_ms, out)
        elif self._states:
            self._states.setdefault(sender, tell)
        if self.stage is Stage.ASKING and len(self._states) == len(self.owners):
            self._compare(out)

    def _on_own_state(self, tell: TellState, now_ms: int, out: Outbox) -> None:
        self.record, self.digest = tell.record, digest(tell.record)
        held = self._decoded(tell.record)
        if held is None or not is_conflict(held, now_ms):
            self.drop()
            return
        self._states[self._here] = tell
        for node in self._others():
            out.send(node, AskState(self.number, self.key, self._epoch, self.digest))

    def _compare(self, out: Outbox) -> None:
        if all(self._states[node].is_same for node in self._others()):
            self.stage = Stage.AGREED
        else:
            self.stage = Stage.MENDING
            self._mend(out)

    def _mend(self, out: Outbox) -> None:
        """Send the join to whoever holds less. Trees do not see votes, so nothing else would."""
        held = {node: self._held_by(node) for node in self.owners}
        joined = EMPTY
        for data in held.values():
            record = self._decoded(data)
            if record is None or clashes(joined, record):
                self.drop()
                return
            joined = sync(joined, record)
        if not fits(joined):
            self.drop()
            return
        encoded = encode(self.key, joined)
        for node, data in held.items():
            if data != encoded:
                self._repair(node, encoded, self.number, out)
            else:
                self._note(node)

    def _others(self) -> list[NodeNumber]:
        return [node for node in self.owners if node != self._here]

    def _held_by(self, node: NodeNumber) -> bytes:
        state = self._states[node]
        return self.record if state.is_same else state.record

    def _decoded(self, data: bytes) -> Record | None:
        if not data:
            return EMPTY
        try:
            return decode(self.key, data)
        except DamagedRecord:
            return None

    def _repair(self, node: NodeNumber, record: Encoded, number: int, out: Outbox) -> None:
        write = ReplicaWrite(number, self.key, record, self.gives_up_at, WriteKind.REPAIR, 0)
        out.send(node, write)

    def _on_logged(self, sender: NodeNumber, w: int, out: Outbox, *, is_done: bool) -> None:
        if is_done:
            self._logged[sender] = None
        if len(self._logged) >= w:
            self._prune(out)
        else:
            self._note(sender)

    def _prune(self, out: Outbox) -> None:
        assert self._verdict is not None
        self.stage = Stage.PRUNING
        self._answered.clear()
        for node in self.owners:
            fence = self._fence(node)
            out.send(node, Prune(self.number, self.key, fence, self._verdict.losers))

    def _fence(self, node: NodeNumber) -> Fence:
        return Fence(self._epoch, self._states[node].actor, self.digest)

    def _note(self, sender: NodeNumber) -> None:
        self._answered[sender] = None
        if len(self._answered) == len(self.owners):
            self.stage = Stage.OVER
