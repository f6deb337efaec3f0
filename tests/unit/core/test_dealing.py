"""The table that deals copies evenly: its sums, what it keeps, and the way out when it is stuck."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.dealing import Table, mixed_order


def filled(
    demand: Mapping[int, int], quota: Mapping[int, int], old: Mapping[int, list[int]] | None = None
) -> dict[int, set[int]]:
    table = Table(demand, quota)
    table.fill(old or {row: [] for row in demand})
    return {row: set(held) for row, held in table.rows.items()}


def test_both_sums_are_met() -> None:
    rows = filled(dict.fromkeys(range(8), 3), {1: 8, 2: 6, 3: 6, 4: 4})
    assert all(len(held) == 3 for held in rows.values())
    assert Counter(c for held in rows.values() for c in held) == {1: 8, 2: 6, 3: 6, 4: 4}


def test_what_the_sums_allow_stays_where_it_was() -> None:
    old = {0: [1, 2], 1: [1, 2], 2: [1, 2], 3: [1, 2]}
    rows = filled(dict.fromkeys(range(4), 2), {1: 3, 2: 3, 3: 2}, old)
    assert sum(len(rows[row] - set(old[row])) for row in rows) == 2


def test_gaps_for_one_newcomer_are_opened_in_different_rows() -> None:
    old = {row: [1, 2, 3] for row in range(6)}
    rows = filled(dict.fromkeys(range(6), 3), {1: 4, 2: 4, 3: 4, 4: 6}, old)
    assert all(4 in held for held in rows.values())


def test_a_stuck_deal_makes_room_by_an_exchange() -> None:
    # Rows 0 and 1 hold column 1 and have a gap each; columns 1 and 3 have room for one each. Who
    # comes second finds only column 1 and must take another's cell.
    old = {0: [1], 1: [1, 2], 2: [2, 3]}
    rows = filled({0: 2, 1: 2, 2: 2}, {1: 3, 2: 1, 3: 2}, old)
    assert all(len(held) == 2 for held in rows.values())
    assert Counter(c for held in rows.values() for c in held) == {1: 3, 2: 1, 3: 2}


def test_a_longer_chain_of_exchanges_is_found() -> None:
    # Only column 3 has room, row 0 may not hold it: 0 takes 1 from row 1, which takes 2 from
    # row 2, which takes 3.
    options = {0: [1], 1: [1, 2], 2: [2, 3]}
    table = Table({0: 1, 1: 1, 2: 1}, {1: 1, 2: 1, 3: 1}, options=options)
    table.fill({0: [], 1: [1], 2: [2]})
    assert {row: list(held) for row, held in table.rows.items()} == {0: [1], 1: [2], 2: [3]}


def test_a_demand_that_cannot_be_met_stays_open_and_breaks_no_sum() -> None:
    table = Table({0: 1, 1: 1}, {1: 1}, options={0: [1], 1: [1]})
    table.fill({0: [], 1: []})
    assert sorted(len(held) for held in table.rows.values()) == [0, 1]


def test_a_row_that_shrinks_gives_up_what_is_over() -> None:
    rows = filled({0: 1, 1: 2}, {1: 2, 2: 1}, {0: [1, 2], 1: [1, 2]})
    assert rows == {0: {1}, 1: {1, 2}}


@given(st.integers(0, 8), st.integers(0, 2**40))
def test_the_mixed_order_visits_every_partition_once(bits: int, seed: int) -> None:
    assert sorted(mixed_order(1 << bits, seed=seed)) == list(range(1 << bits))


def test_the_mixed_order_puts_neighbours_far_apart() -> None:
    order = mixed_order(256, seed=7)
    gaps = [abs(a - b) for a, b in pairwise(order)]
    assert min(gaps) > 64


@given(st.data())
def test_every_table_with_nearly_equal_rows_can_be_filled(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 24))
    quotas = data.draw(st.lists(st.integers(0, rows), min_size=1, max_size=8))
    low, extra = divmod(sum(quotas), rows)
    demand = {row: low + (row < extra) for row in range(rows)}
    quota = dict(enumerate(quotas))
    columns = st.lists(st.sampled_from(range(len(quotas))), unique=True)
    old = {row: data.draw(columns) for row in range(rows)}
    held = filled(demand, quota, old)
    assert {row: len(columns) for row, columns in held.items()} == demand
    counts = Counter(column for columns in held.values() for column in columns)
    assert {column: counts[column] for column in quota} == quota
