"""The laws of kvnode.core.floors, against a plain set of dots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.bounds import SEEN_INTERVALS_MAX
from kvnode.core.floors import Floors, Seen
from kvnode.core.keys import Partition
from kvnode.core.versions import Dot

dots = st.tuples(
    st.builds(Partition, st.integers(0, 2)), st.builds(Dot, st.integers(1, 2), st.integers(1, 40))
)
arrivals = st.lists(dots, max_size=80)
Arrivals = list[tuple[Partition, Dot]]


def after(arrived: Arrivals) -> Floors:
    floors = Floors()
    for partition, dot in arrived:
        floors.add(partition, dot)
        floors.check()
    return floors


@given(arrivals)
def test_what_is_seen_is_what_has_been_here(arrived: Arrivals) -> None:
    floors, here = after(arrived), set(arrived)
    for partition in map(Partition, range(3)):
        for actor in (1, 2):
            seen = {c for c in range(1, 42) if floors.has_seen(partition, Dot(actor, c))}
            assert seen == {dot.counter for p, dot in here if (p, dot.actor) == (partition, actor)}
            floor = floors.floor(partition, actor)
            assert set(range(1, floor + 1)) <= seen
            assert floor + 1 not in seen
            assert floors.highest(partition, actor) == max(seen, default=0)


@given(arrivals, st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(arrived: Arrivals, chance: object) -> None:
    shuffled = [*arrived, *arrived]
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert saved(after(shuffled)) == saved(after(arrived))


@given(arrivals, arrivals)
def test_what_was_saved_is_what_is_loaded(first: Arrivals, more: Arrivals) -> None:
    floors = Floors()
    disk: dict[bytes, bytes] = {}
    for arrived in (first, more):
        for partition, dot in arrived:
            floors.add(partition, dot)
        disk |= saved(floors)
    loaded = Floors()
    loaded.load(sorted(disk.items()))
    loaded.check()
    assert saved(after([*first, *more])) == disk
    for partition, dot in (*first, *more):
        assert loaded.has_seen(partition, dot)
        assert loaded.floor(partition, dot.actor) == floors.floor(partition, dot.actor)


@given(arrivals, st.dictionaries(st.integers(1, 2), st.integers(1, 40)))
def test_a_watermark_is_passed_when_every_dot_up_to_it_has_been_here(
    arrived: Arrivals, watermark: dict[int, int]
) -> None:
    floors, here = after(arrived), set(arrived)
    for partition in map(Partition, range(3)):
        wanted = {(partition, Dot(a, c)) for a, top in watermark.items() for c in range(1, top + 1)}
        assert floors.has_passed(partition, watermark) == (wanted <= here)


@given(st.permutations(range(2, 2 * SEEN_INTERVALS_MAX + 40, 2)))
def test_runs_that_do_not_fit_are_forgotten_never_invented(counters: list[int]) -> None:
    floors = after([(Partition(0), Dot(1, counter)) for counter in counters])
    seen = [c for c in range(1, 2 * max(counters)) if floors.has_seen(Partition(0), Dot(1, c))]
    assert set(seen) <= set(counters)
    assert len(seen) == SEEN_INTERVALS_MAX
    assert floors.floor(Partition(0), 1) == 0


@given(arrivals)
def test_a_dropped_partition_is_forgotten_alone(arrived: Arrivals) -> None:
    floors = after(arrived)
    saved(floors)
    floors.drop(Partition(0))
    kept = after([each for each in arrived if each[0] != 0])
    assert dict(floors) == dict(kept)
    batch = WriteBatch()
    floors.save(batch)
    dropped = {key for _, key, value in batch.changes if value is None}
    assert dropped == saved(after(arrived)).keys() - saved(kept).keys()


@given(arrivals, arrivals, arrivals)
def test_taking_over_is_having_seen_both(first: Arrivals, second: Arrivals, more: Arrivals) -> None:
    """In any order, and whatever comes in between: as if all dots had been here."""
    mine, theirs = after(first), after(second)
    reports = {p: Seen.decode(theirs.report(p)) for p in map(Partition, range(3))}
    for partition, dot in more:
        mine.add(partition, dot)
    for _ in range(2):
        for partition, report in reports.items():
            mine.raise_to(partition, report, own=Dot(9, 0))
            mine.check()
    both = after([*more, *second, *first])
    assert [mine.report(p) for p in reports] == [both.report(p) for p in reports]


@given(arrivals)
def test_a_report_is_read_as_it_was_written(arrived: Arrivals) -> None:
    floors = after(arrived)
    for partition in map(Partition, range(3)):
        seen, told = floors.seen(partition), Seen.decode(floors.report(partition))
        assert (told.floors, told.runs) == (seen.floors, seen.runs)


def saved(floors: Floors) -> dict[bytes, bytes]:
    batch = WriteBatch()
    floors.save(batch)
    assert all(family is Family.FLOORS for family, _, _ in batch.changes)
    return {key: value for _, key, value in batch.changes if value is not None}
