"""Who owns which partition: one pure function of the previous owners and the members.

Laws, each subject to those before it:
1. the owners of a partition are distinct nodes;
2. they lie in as many racks as there are, up to the number of owners, for every prefix of the list
   too, and a rack's copies of a partition differ by at most one from partition to partition;
3. load is even: a node owns its share rounded down or up (so at most 1.05 times the mean where that
   is 20 or more); the first owners, and the others place by place, are even as far as racks allow;
4. little moves: what a node owned it keeps, up to its share; and nothing moves, no place either,
   when the same members are assigned a second time, whatever was there before the first.
The same arguments give the same owners: no chance, no order of sets, no clock.

How: shares are exact fractions, filled up under the bounds that laws 1 and 2 set, then rounded so
that racks and nodes both stay within one of theirs. Copies are dealt first to racks, then in each
rack to nodes, then to places in the list: three times one problem (kvnode.core.dealing). Rows that
are nearly equal and columns of at most a row each can always be filled (Gale and Ryser, 1957), so
the first two always succeed. The places are an edge colouring (de Werra, 1971).

Why a second look moves nothing: quotas round up who has more, so they are what everyone owns now,
and nothing is trimmed, released or dealt. At a place that racks keep uneven, what is within the
parts is a maximum matching already: no chain of exchanges places one more. So only those beyond
their part are asked again, find no room, and stay because they were there.

Tests: tests/unit/core/test_ownership.py, tests/property/test_ownership_laws.py.
Decision: docs/decisions/0002-ownership.md. Leaves out: moving the data; weights by measured load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import chain
from math import floor
from typing import Final, Protocol

from kvnode.core.dealing import K, Table, mixed_order

Owners = tuple[tuple[int, ...], ...]
"""For each partition, the numbers of its owners in order."""

WEIGHT_STEPS: Final = 1_000
"""Weights count in thousandths, so that shares are exact."""


class Candidate(Protocol):
    """What ownership asks of a member."""

    @property
    def number(self) -> int:
        """Its name in the result."""

    @property
    def rack(self) -> str:
        """What may fail together with others of the same name."""

    @property
    def weight(self) -> float:
        """Its share of partitions, relative to the others'."""


def assign(
    previous: Owners, members: Sequence[Candidate], *, partitions: int, replicas: int
) -> Owners:
    """Return the owners of every partition.

    Args:
        previous: the owners until now, in which former members may appear; empty at birth.
        members: who may own, at least one; their order does not matter.
        partitions: how many, a power of two.
        replicas: owners of each partition, in a cluster that has as many members.

    Cost: 8 ms for 5 members and 256 partitions, 0.2 s for 1,000 and 4,096.
    """
    assert partitions.bit_count() == 1
    members = sorted(members, key=lambda member: member.number)
    rack_of = {member.number: member.rack for member in members}
    old = [tuple(n for n in row if n in rack_of) for row in previous] or [()] * partitions
    assert len(old) == partitions
    order = mixed_order(partitions, seed=sum(rack_of))
    node_quota = _quotas(members, old, partitions=partitions, replicas=replicas)
    trimmed = _trimmed(old, rack_of, node_quota, order)
    rack_rows = _deal_to_racks(trimmed, rack_of, node_quota, order)
    rows = _deal_to_nodes(trimmed, rack_of, node_quota, rack_rows, order)
    return _in_places(rows, old, rack_of, order)


# --- shares ---------------------------------------------------------------------------------------


def shares(members: Sequence[Candidate], *, partitions: int, replicas: int) -> dict[int, Fraction]:
    """Return the ideal number of partitions of each member, by number.

    In proportion to weights, but nobody owns a partition twice; and where distinct racks demand it,
    a rack gets less (at most one copy of each partition) or more (at least one).
    """
    width = min(replicas, len(members))
    weights = {member.number: _steps(member.weight) for member in members}
    whole = dict.fromkeys(weights, partitions)
    alone = _fill(weights, partitions * width, high=whole)
    racks = _by_rack({member.number: member.rack for member in members})
    enough = len(racks) >= width
    rack_share = _fill(
        {rack: sum((alone[n] for n in inside), Fraction()) for rack, inside in racks.items()},
        partitions * width,
        low=dict.fromkeys(racks, 0 if enough else partitions),
        high={k: partitions * (1 if enough else len(inside)) for k, inside in racks.items()},
    )
    result: dict[int, Fraction] = {}
    for rack, inside in racks.items():
        result |= _fill({n: alone[n] for n in inside}, rack_share[rack], high=whole)
    return result


def _steps(weight: float) -> Fraction:
    return Fraction(max(1, round(weight * WEIGHT_STEPS)))


def _by_rack(rack_of: Mapping[int, str]) -> dict[str, list[int]]:
    racks: dict[str, list[int]] = {}
    for number, rack in rack_of.items():
        racks.setdefault(rack, []).append(number)
    return racks


def _fill(
    weights: Mapping[K, Fraction],
    total: Fraction | int,
    *,
    high: Mapping[K, int],
    low: Mapping[K, int] | None = None,
) -> dict[K, Fraction]:
    """Return shares of `total` in proportion to `weights`, each within its bounds."""
    free, result, rest = dict(weights), dict(weights), Fraction(total)
    while free:
        scale = rest / sum(free.values())
        wanted = {key: weight * scale for key, weight in free.items()}
        above = {key: x - high[key] for key, x in wanted.items() if x > high[key]}
        below = {key: low[key] - x for key, x in wanted.items() if low and x < low[key]}
        # The graver side is right to be fixed; the other may come back within its bounds.
        if sum(above.values()) >= sum(below.values()):
            fixed = {key: Fraction(high[key]) for key in above}
        else:
            fixed = {key: wanted[key] + lack for key, lack in below.items()}
        result |= fixed or wanted
        rest -= sum(fixed.values())
        free = {key: weight for key, weight in free.items() if fixed and key not in fixed}
    return result


def _quotas(
    members: Sequence[Candidate], old: Sequence[tuple[int, ...]], *, partitions: int, replicas: int
) -> dict[int, int]:
    """Return whole numbers of partitions: each rack and each node has its share rounded."""
    share = shares(members, partitions=partitions, replicas=replicas)
    owned = dict.fromkeys(share, 0)
    for number in chain.from_iterable(old):
        owned[number] += 1
    racks = _by_rack({member.number: member.rack for member in members})
    rack_quota = _rounded(
        {rack: sum((share[n] for n in inside), Fraction()) for rack, inside in racks.items()},
        partitions * min(replicas, len(members)),
        {rack: sum(owned[n] for n in inside) for rack, inside in racks.items()},
    )
    result: dict[int, int] = {}
    for rack, inside in racks.items():
        result |= _rounded({n: share[n] for n in inside}, rack_quota[rack], owned)
    return {number: result[number] for number in share}


def _rounded(share: Mapping[K, Fraction], total: int, owned: Mapping[K, int]) -> dict[K, int]:
    """Round each share down or up so that they sum to `total`; up first where more is owned."""
    result = {key: floor(x) for key, x in share.items()}
    uneven = [key for key, x in share.items() if x.denominator != 1]
    uneven.sort(key=lambda key: (owned[key] <= result[key], result[key] - share[key]))
    for key in uneven[: total - sum(result.values())]:
        result[key] += 1
    assert sum(result.values()) == total
    return result


# --- dealing --------------------------------------------------------------------------------------


def _rack_sums(rack_of: Mapping[int, str], counts: Mapping[int, int]) -> dict[str, int]:
    sums = dict.fromkeys(rack_of.values(), 0)
    for number, count in counts.items():
        sums[rack_of[number]] += count
    return sums


def _trimmed(
    old: Sequence[Sequence[int]],
    rack_of: Mapping[int, str],
    node_quota: Mapping[int, int],
    order: Sequence[int],
) -> list[list[int]]:
    """Return `old` without owners where both the node and its rack have too many.

    One in each partition at a time. Left to itself, the deal to racks would also take from nodes
    that have too few, and the deal to nodes would have to give them others.
    """
    owned = Counter(chain.from_iterable(old))
    spare = {number: owned[number] - quota for number, quota in node_quota.items()}
    rack_spare = _rack_sums(rack_of, spare)
    always = _always(_rack_sums(rack_of, node_quota), len(old))
    rows = [list(row) for row in old]
    gave = True
    while gave:
        gave = False
        for row in (rows[partition] for partition in order):
            number = max(row, key=spare.__getitem__, default=None)
            if number is None or spare[number] <= 0 or rack_spare[rack_of[number]] <= 0:
                continue
            if sum(rack_of[other] == rack_of[number] for other in row) > always[rack_of[number]]:
                row.remove(number)
                spare[number] -= 1
                rack_spare[rack_of[number]] -= 1
                gave = True
    return rows


def _always(rack_quota: Mapping[str, int], partitions: int) -> dict[str, int]:
    """Return how many copies of every partition each rack holds at least."""
    return {rack: count // partitions for rack, count in rack_quota.items()}


def _deal_to_racks(
    old: Sequence[Sequence[int]],
    rack_of: Mapping[int, str],
    node_quota: Mapping[int, int],
    order: Sequence[int],
) -> list[dict[str, int]]:
    """Return, for each partition, how many owners lie in each rack."""
    partitions = len(old)
    quota = _rack_sums(rack_of, node_quota)
    width = sum(quota.values()) // partitions
    always = _always(quota, partitions)
    demand = dict.fromkeys(order, width - sum(always.values()))
    table = Table(demand, {rack: count % partitions for rack, count in quota.items()})
    counts = [Counter(rack_of[number] for number in row) for row in old]
    table.fill({p: [rack for rack, had in counts[p].items() if had > always[rack]] for p in order})
    base = {rack: count for rack, count in always.items() if count}
    return [
        base | {rack: always[rack] + 1 for rack in table.rows[partition]}
        for partition in range(partitions)
    ]


def _deal_to_nodes(
    old: Sequence[Sequence[int]],
    rack_of: Mapping[int, str],
    node_quota: Mapping[int, int],
    rack_rows: Sequence[Mapping[str, int]],
    order: Sequence[int],
) -> list[list[int]]:
    """Return the owners of each partition, in no particular order."""
    demand: dict[str, dict[int, int]] = {rack: {} for rack in rack_of.values()}
    for partition in order:
        for rack, count in rack_rows[partition].items():
            demand[rack][partition] = count
    rows: list[list[int]] = [[] for _ in old]
    for rack, inside in _by_rack(rack_of).items():
        quota = {number: node_quota[number] for number in inside}
        table = Table(demand[rack], quota, salt=inside[0])
        table.fill({p: [n for n in old[p] if rack_of[n] == rack] for p in demand[rack]})
        for partition, held in table.rows.items():
            assert len(held) == demand[rack][partition]
            rows[partition].extend(held)
    return rows


# --- places ---------------------------------------------------------------------------------------


def _in_places(
    rows: Sequence[Sequence[int]],
    old: Sequence[tuple[int, ...]],
    rack_of: Mapping[int, str],
    order: Sequence[int],
) -> Owners:
    """Put the owners of each partition in order, evenly at each place; keep old places if even."""
    width = len(rows[0])
    result: list[list[int]] = [[] for _ in rows]
    left = [list(row) for row in rows]
    for place in range(width):
        count = Counter(chain.from_iterable(left))
        options = {p: _other_racks(left[p], result[p], rack_of) for p in order}
        before = {p: [n for n in old[p][place : place + 1] if n in options[p]] for p in order}
        chosen = _one_each(options, count, width - place, before)
        for p in order:
            # Without room (racks come first): who was here, else who has most places to take. To
            # ask the latter first would stir what is already as even as racks allow.
            most_left = max(options[p], key=count.__getitem__)
            number = next(chain(chosen[p], before[p], (most_left,)))
            result[p].append(number)
            left[p].remove(number)
    return tuple(tuple(row) for row in result)


def _one_each(
    options: Mapping[int, Sequence[int]],
    count: Mapping[int, int],
    places: int,
    before: Mapping[int, Sequence[int]],
) -> Mapping[int, Mapping[int, None]]:
    """Choose one of each partition's options, so that a node is chosen for its part of its count.

    First for the part rounded down, then for the rest up to the part rounded up: else those who
    are chosen early would leave the others less than their part.
    """
    demand = dict.fromkeys(options, 1)
    down = Table(demand, {n: owned // places for n, owned in count.items()}, options=options)
    down.fill(before)
    up = Table(demand, {n: -(-owned // places) for n, owned in count.items()}, options=options)
    up.fill({p: list(held) or before[p] for p, held in down.rows.items()})
    return up.rows


def _other_racks(left: list[int], before: list[int], rack_of: Mapping[int, str]) -> list[int]:
    """Return those of `left` in racks that are not represented yet; all, when all racks are."""
    used = {rack_of[number] for number in before}
    return [number for number in left if rack_of[number] not in used] or left
