"""The laws of kvclient.budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvclient.budget import Budget


@given(st.integers(1, 20), st.floats(1, 50), st.lists(st.booleans(), max_size=400))
def test_what_is_spent_stays_within_the_share_of_what_began_and_what_was_saved(
    part: int, most: float, spends: list[bool]
) -> None:
    budget = Budget(1 / part, most)
    begun = spent = 0
    for is_spend in spends:
        if is_spend:
            spent += budget.spend()
        else:
            budget.earn()
            begun += 1
        assert spent <= most + begun / part + 1e-6


def test_a_budget_that_is_used_up_fills_again_as_operations_begin() -> None:
    budget = Budget(0.25, 1.0)
    assert budget.spend()
    assert not budget.spend()
    for _ in range(4):
        budget.earn()
    assert budget.spend()
    assert not budget.spend()


def test_what_had_to_be_made_beyond_it_is_earned_back_first() -> None:
    budget = Budget(0.5, 2.0)
    assert budget.spend()
    assert budget.spend()
    for _ in range(9):
        budget.owe()
    for _ in range(5):
        budget.earn()
        assert not budget.spend()
    budget.earn()
    assert budget.spend(), "the debt has a bound too"
