"""Which operations a node takes on: what cannot succeed is refused at once, before any effect.

Laws: a refusal is typed and says what would have to be otherwise; a refused write is `not
applied`, and certainly so.
Tests: tests/unit/core/test_refusals.py. Source: design, sections 2.2, 2.3 and 6 (the table).
Left out: what only an owner can know (its records, its space): kvnode.core.replica.
"""

from __future__ import annotations

from kvnode.core.bounds import OVERLOADED_RETRY_MS, Limits
from kvnode.core.hlc import LOGICAL_BITS, Clock, Timestamp
from kvnode.core.messages import ClientGet, ClientPut, ErrorCode, Failure, Instant, Outcome


def refuse(
    request: ClientGet | ClientPut,
    *,
    in_flight: int,
    limits: Limits,
    now: Instant,
    clock_is_off: bool,
) -> Failure | None:
    """Return why this node takes on no such operation now, if so."""
    if in_flight >= limits.operations_in_flight:
        text = f"{in_flight:,} operations are in progress at this node"
        return refused(request, ErrorCode.OVERLOADED, text, retry_after_ms=OVERLOADED_RETRY_MS)
    if now >= request.deadline_us:
        return refuse_late(request, "the deadline passed before it began")
    if clock_is_off:
        text = "this node's clock differs from most of its peers'; it coordinates nothing"
        return refused(request, ErrorCode.UNAVAILABLE, text)
    return None


def refuse_late(request: ClientGet | ClientPut, text: str) -> Failure:
    """Return the failure of an operation that was not begun within its time."""
    is_read = isinstance(request, ClientGet)
    return refused(request, ErrorCode.TIMEOUT if is_read else ErrorCode.UNAVAILABLE, text)


def refuse_skew(
    request: ClientPut, clock: Clock, *, wall_ms: int, limits: Limits
) -> Failure | None:
    """Return why a write with this stamp is refused, if it is too far ahead.

    Unavailable, not invalid: clients stamp by the cluster's time, so it may well be this node's
    clock that is behind, and the write may succeed at another.
    """
    if not clock.is_too_far(Timestamp(request.timestamp), wall_ms):
        return None
    ahead = (request.timestamp >> LOGICAL_BITS) - wall_ms
    text = f"timestamp is {ahead:,} ms ahead; at most {limits.max_skew_ms:,} are allowed"
    return refused(request, ErrorCode.UNAVAILABLE, text)


def refused(
    request: ClientGet | ClientPut, code: ErrorCode, text: str, *, retry_after_ms: int = 0
) -> Failure:
    """Return the failure of an operation that had no effect: a write is nowhere, for certain."""
    outcome = Outcome.NONE if isinstance(request, ClientGet) else Outcome.NOT_APPLIED
    return Failure(request.id, code, outcome, text, retry_after_ms, ())
