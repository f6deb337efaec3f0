"""The bounds: formats can hold what they allow, and settings agree with one another.

That every setting has a unit, a range and a sentence is held by tests/unit/test_house.py.
"""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest

from kvnode.core import bounds
from kvnode.core.bounds import Limits


def test_a_record_can_hold_what_the_bounds_allow() -> None:
    assert bounds.SIBLINGS_MAX <= 0xFF  # one byte counts versions, one byte names them in a vote
    assert bounds.CONTEXT_ENTRIES_MAX <= 0xFFFF
    assert bounds.VOTES_MAX <= 0xFFFF


def test_a_frame_that_is_sent_by_default_is_one_that_every_node_accepts() -> None:
    highest = {field.name: field.metadata["high"] for field in fields(Limits)}
    assert highest["frame_operations"] <= bounds.FRAME_OPERATIONS_MAX


def test_votes_of_the_usual_three_owners_fit_whatever_the_number_of_siblings() -> None:
    assert 3 * bounds.SIBLINGS_MAX <= bounds.VOTES_MAX


def test_the_defaults_agree_with_one_another() -> None:
    limits = Limits()
    assert limits.operations_per_client <= limits.operations_in_flight
    assert limits.bulk_bytes <= limits.value_bytes <= limits.frame_bytes <= limits.outbox_bytes
    assert limits.repair_wait_ms < limits.widen_after_ms < limits.conflict_wait_ms
    assert limits.conflict_wait_ms < limits.silence_ms <= limits.timeout_ms
    assert limits.heartbeat_ms * 2 < limits.silence_ms
    assert limits.timeout_ms <= bounds.CLIENT_TIMEOUT_MS_MAX


def test_a_nodes_limits_do_not_change_under_it() -> None:
    with pytest.raises(FrozenInstanceError):
        Limits().value_bytes = 1  # type: ignore[misc]
