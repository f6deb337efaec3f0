"""The laws of kvnode.core.hedge: the budget is kept in every order of reads and hedges."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.bounds import Limits
from kvnode.core.hedge import Hedging

SHARES = st.sampled_from([0.0, 0.01, 0.05, 0.5, 1.0])


@given(SHARES, st.lists(st.integers(-20, 40), max_size=60))
def test_what_is_spent_never_exceeds_the_share_of_reads(share: float, steps: list[int]) -> None:
    hedging, reads, spent = Hedging(Limits(hedge_share=share)), 0, 0
    for step in steps:
        for _ in range(abs(step)):
            if step > 0:
                reads += 1
                hedging.earn()
            else:
                spent += hedging.spend()
        assert spent <= share * reads + 1 + 1e-9
        assert hedging.spent == spent


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 10_000_000)), max_size=200),
    st.lists(st.integers(1, 4), min_size=1, max_size=4, unique=True),
)
def test_patience_stays_within_its_bounds(
    answers: list[tuple[int, int]], owners: list[int]
) -> None:
    limits = Limits()
    hedging = Hedging(limits)
    for node, latency_us in answers:
        hedging.note(node, latency_us)
        usual = hedging.usual_us(node)
        assert usual is not None
        assert usual > 0 or latency_us == 0
    assert 5_000 <= hedging.patience_us(owners) <= 1_000 * limits.widen_after_ms
