"""What may go wrong, sorted by what the caller may conclude.

Decides the type, the outcome and the advice of every failure. Laws: `not applied` is said only of
what certainly had no effect; everything else about a write is `uncertain`.
Tests: tests/unit/client/test_errors.py.
Source: design, sections 2.3 and 6 (the table).
Left out: `TypeError` for arguments of a wrong type and `RuntimeError` for a client that is closed
or was taken through a fork: those are the program's mistakes, not the store's answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

Outcome = Literal["ok", "not applied", "uncertain"] | None


@dataclass(frozen=True, slots=True)
class Reply:
    """What one node said to one attempt, and when.

    Attributes:
        node: id of the node, or its address while the id is unknown.
        answer: `acknowledged`, `refused: …`, `unreached`, `pending`, …
        after_ms: since the attempt began.
    """

    node: str
    answer: str
    after_ms: float


class KVError(Exception):
    """Any failure that the store answers with.

    Attributes:
        outcome: `not applied` (certainly nowhere), `uncertain` (may be or become visible), or None
            where nothing was to be changed.
        retry_safe: whether the same call may simply be made again.
        replies: per node what it answered, and when.
    """

    default_outcome: ClassVar[Outcome] = None
    default_retry_safe: ClassVar[bool] = False

    def __init__(
        self, message: str, *, outcome: Outcome = None, replies: tuple[Reply, ...] = ()
    ) -> None:
        super().__init__(message)
        self.outcome: Outcome = outcome or self.default_outcome
        self.retry_safe: bool = self.default_retry_safe
        self.replies = replies


class InvalidRequest(KVError):
    """The request can never succeed as it is."""

    default_outcome = "not applied"


class UnknownKeyspace(KVError):
    """The cluster has no keyspace of that name."""

    default_outcome = "not applied"


class Unavailable(KVError):
    """Too few nodes could be reached, before any effect."""

    default_outcome = "not applied"
    default_retry_safe = True


class Uncertain(KVError):
    """A write that was not acknowledged in time; it may be or become visible."""

    default_outcome = "uncertain"
    default_retry_safe = True


class Timeout(KVError):
    """A read that was not answered in time."""

    default_retry_safe = True


class Overloaded(KVError):
    """Refused by load, here or at a node.

    Attributes:
        retry_after: seconds to wait before trying again.
    """

    default_outcome = "not applied"
    default_retry_safe = True

    def __init__(
        self,
        message: str,
        *,
        retry_after: float = 0.0,
        outcome: Outcome = None,
        replies: tuple[Reply, ...] = (),
    ) -> None:
        super().__init__(message, outcome=outcome, replies=replies)
        self.retry_after = retry_after


class StorageFull(KVError):
    """The nodes that own the key have no space left for it."""

    default_outcome = "not applied"
    default_retry_safe = True


class CorruptData(KVError):
    """The nodes that were asked hold damaged data, and it was not returned."""

    default_retry_safe = True


class Unauthenticated(KVError):
    """The cluster does not know who is calling."""

    default_outcome = "not applied"


class PermissionDenied(KVError):
    """The caller is known and may not do this."""

    default_outcome = "not applied"


class PartialFailure(KVError):
    """Some keys of a batch failed.

    Attributes:
        results: for each key as it was given, its result or its error.
        errors: only the failed ones.
    """

    def __init__(self, results: Mapping[Any, object]) -> None:
        self.results: dict[Any, object] = dict(results)
        self.errors = {key: x for key, x in self.results.items() if isinstance(x, KVError)}
        first = next(iter(self.errors.values()), None)
        super().__init__(
            f"{len(self.errors):,} of {len(self.results):,} keys failed; the first: {first}",
            outcome=_worst(self.errors.values()),
        )
        self.retry_safe = all(error.retry_safe for error in self.errors.values())


class MultipleValues(KVError):
    """The keyspace keeps concurrent values, and there are several; merge them with `context`.

    Attributes:
        values: the values, newest first.
        context: put the merged value with it, and it replaces them all.
    """

    def __init__(self, values: tuple[bytes, ...], context: bytes) -> None:
        super().__init__(f"{len(values)} concurrent values; merge them and put with the context")
        self.values = values
        self.context = context


def _worst(errors: Iterable[KVError]) -> Outcome:
    outcomes = {error.outcome for error in errors}
    if "uncertain" in outcomes:
        return "uncertain"
    return "not applied" if "not applied" in outcomes else None
