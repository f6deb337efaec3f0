"""What a refusal leads to: another attempt, and when, or an error, and which.

Decides for one operation; pure. Laws: a write is `not applied` only if no attempt can have had an
effect; no attempt begins after the deadline.
Tests: tests/unit/client/test_retry.py.
Source: design, sections 2.3 and 6; Brooker, "Exponential Backoff And Jitter" (2015).
Left out: which node is asked next (`routing`), and whether the budget allows it (`attempts`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from random import Random

from kvclient import errors
from kvclient.bounds import Bounds
from kvclient.errors import KVError, Reply
from kvclient.operation import Operation


class Code(IntEnum):
    """Why a node refused; the numbers are the wire's `ErrorCode`."""

    UNSPECIFIED = 0
    INVALID_REQUEST = 1
    UNKNOWN_KEYSPACE = 2
    UNAVAILABLE = 3
    UNCERTAIN = 4
    TIMEOUT = 5
    OVERLOADED = 6
    STORAGE_FULL = 7
    CORRUPT_DATA = 8
    UNAUTHENTICATED = 9
    PERMISSION_DENIED = 10
    STALE_EPOCH = 11
    INTERNAL = 12


FINAL: dict[Code, type[KVError]] = {
    Code.INVALID_REQUEST: errors.InvalidRequest,
    Code.UNKNOWN_KEYSPACE: errors.UnknownKeyspace,
    Code.UNAUTHENTICATED: errors.Unauthenticated,
    Code.PERMISSION_DENIED: errors.PermissionDenied,
}
"""No other node would answer differently."""

ELSEWHERE: dict[Code, type[KVError]] = {
    Code.STORAGE_FULL: errors.StorageFull,
    Code.CORRUPT_DATA: errors.CorruptData,
}
"""Another node may do it, also one that is away just now; final once every node has refused."""

EFFECT_POSSIBLE = frozenset({Code.UNCERTAIN, Code.TIMEOUT, Code.INTERNAL, Code.UNSPECIFIED})
"""A write that got one of these may have been applied, whatever else the failure says."""


REACHED = frozenset({"record", "absent", "keeps nothing", "acknowledged"})
"""What a refusal says of nodes that answered whoever refused."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A node's failure of one attempt."""

    code: Code
    message: str
    is_uncertain: bool = False
    retry_after_ms: int = 0
    replies: tuple[Reply, ...] = ()

    @property
    def is_for_want_of_nodes(self) -> bool:
        """Whether the node could not reach enough others, none of which refused: no sign of load,
        and somebody else may reach them."""
        if self.code is Code.UNCERTAIN:
            return not any(reply.answer.startswith("refused") for reply in self.replies)
        return self.code is Code.UNAVAILABLE

    def reached(self) -> frozenset[str]:
        """Return who answered the node that refused. They are on its side, if there are sides: what
        it could not reach, they hardly can."""
        return frozenset(reply.node for reply in self.replies if reply.answer in REACHED)


def backoff_s(attempts: int, rng: Random, bounds: Bounds) -> float:
    """Return the wait after so many attempts: full jitter under a doubling cap."""
    cap = min(bounds.retry_most_ms, bounds.retry_first_ms * 2 ** min(attempts - 1, 16))
    return rng.uniform(0, cap) / 1000


def is_in_doubt(operation: Operation) -> bool:
    """Whether an attempt may have had an effect, so that no refusal is the last word."""
    return operation.may_have_applied or (operation.is_put and bool(operation.others))


def error_now(operation: Operation, refusal: Refusal, *, nodes: int, now: float) -> KVError | None:
    """Return the error if a refusal is the last word, None if another attempt makes sense.

    `nodes` is how many there are to be asked; who refused is noted already.
    """
    final = FINAL.get(refusal.code)
    if final is not None and operation.may_have_applied:
        return _uncertain(operation, refusal.message)
    if final is not None:
        return final(refusal.message, replies=operation.replies)
    if is_in_doubt(operation):
        return None
    if (elsewhere := ELSEWHERE.get(refusal.code)) is not None and len(operation.refused) >= nodes:
        return elsewhere(refusal.message, replies=operation.replies)
    is_overload = refusal.code is Code.OVERLOADED
    if is_overload and now + refusal.retry_after_ms / 1000 >= operation.deadline:
        return overloaded(operation, refusal)
    return None


def overloaded(operation: Operation, refusal: Refusal) -> KVError:
    """Return the error that says when to come again."""
    after = refusal.retry_after_ms / 1000
    return errors.Overloaded(refusal.message, retry_after=after, replies=operation.replies)


def comes_too_late(operation: Operation, now: float, bounds: Bounds) -> bool:
    """Say whether to send a put again could only turn `not applied` into `uncertain`."""
    if not operation.attempts or not operation.is_put or operation.may_have_applied:
        return False
    return operation.deadline - now < bounds.last_attempt_ms / 1000


def error_at_deadline(operation: Operation) -> KVError:
    """Return what the caller may conclude when time is up."""
    refusal: Refusal | None = operation.failure
    waits = operation.lane is not None and operation.id in operation.lane.unanswered
    pending = waits or bool(operation.others)
    if operation.is_put:
        if operation.may_have_applied or pending:
            return _uncertain(operation, refusal.message if refusal else "no answer in time")
        return _known(operation, refusal)
    if pending or (refusal is not None and refusal.code is Code.TIMEOUT):
        message = refusal.message if refusal else "no answer in time"
        return errors.Timeout(message, replies=operation.replies)
    return _known(operation, refusal)


def _uncertain(operation: Operation, message: str) -> KVError:
    return errors.Uncertain(message, replies=operation.replies)


def _known(operation: Operation, refusal: Refusal | None) -> KVError:
    """Time is up and nothing can have happened."""
    if refusal is None:
        last = "".join(f"; {reply.node}: {reply.answer}" for reply in operation.replies[-1:])
        message = f"no node could be reached in time{last}"
        return errors.Unavailable(message, replies=operation.replies)
    if (known := ELSEWHERE.get(refusal.code)) is not None:
        return known(refusal.message, replies=operation.replies)
    if refusal.code is Code.OVERLOADED:
        return overloaded(operation, refusal)
    return errors.Unavailable(refusal.message, replies=operation.replies)
