"""The table of errors in design, section 6."""

from __future__ import annotations

import pytest

from kvclient import errors

TABLE = [
    (errors.InvalidRequest, "not applied", False),
    (errors.UnknownKeyspace, "not applied", False),
    (errors.Unavailable, "not applied", True),
    (errors.Uncertain, "uncertain", True),
    (errors.Timeout, None, True),
    (errors.Overloaded, "not applied", True),
    (errors.StorageFull, "not applied", True),
    (errors.CorruptData, None, True),
    (errors.Unauthenticated, "not applied", False),
    (errors.PermissionDenied, "not applied", False),
]


@pytest.mark.parametrize(("kind", "outcome", "retry_safe"), TABLE)
def test_each_error_says_what_may_be_concluded(
    kind: type[errors.KVError], outcome: str | None, retry_safe: bool
) -> None:
    error = kind("why")
    assert isinstance(error, errors.KVError)
    assert (error.outcome, error.retry_safe, error.replies) == (outcome, retry_safe, ())
    assert str(error) == "why"


def test_a_batch_is_as_uncertain_as_its_worst_key() -> None:
    failures = {"a": errors.Unavailable("no"), "b": errors.Uncertain("?"), "c": 1}
    error = errors.PartialFailure(failures)
    assert error.outcome == "uncertain"
    assert error.retry_safe
    assert str(error) == "2 of 3 keys failed; the first: no"
    assert errors.PartialFailure({"a": errors.InvalidRequest("x")}).retry_safe is False
