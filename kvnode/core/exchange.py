"""An exchange: two owners compare one partition, and what differs is mended.

The conversation is a generator on the side that asks. It yields what it needs next and is sent the
answer; whoever drives it (kvnode.core.sweeps) carries the messages, reads the store and mends:

    Hashes -> groups that differ -> Hashes -> leaves that differ -> Listing, page by page
           -> keys that differ -> one Pause for some hundreds of them
           -> Listing again, slice by slice -> keys that still differ alike -> Mend

A write that is under way differs for a moment. So a key is mended only if neither side's
fingerprint has changed when it is looked at again after a pause; if one has, it is looked at once
more, a few times. A key that never stood still leaves the exchange incomplete: no harm, the next
one sees it.

Why a complete exchange lets both take over what the other had seen when it began: each key was, at
some instant after that, in one state at both, or was mended to be. So a dot that one had seen is
live at both, or gone from both.

What floors alone would not show, and trees do: versions superseded by their stamps at one owner
only, what was reaped or lost on one side, records that a rebuild found damaged.

Laws: a partition that does not differ costs one line; keys that differ cost O(depth) asks for each
run of leaves in which they are; nothing is mended that was merely under way; when it ends as
complete, every key was equal or mended.
Tests: tests/unit/core/test_exchange.py, tests/property/test_exchange_laws.py.
Source: Dynamo (SOSP 2007), section 4.7; DottedDB (SRDS 2017), section 4, for the floors.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kvnode.core.keys import Partition, StorageKey
from kvnode.core.topology import Topology
from kvnode.core.trees import GROUP_LEAVES, LEAVES, Trees

PAGE = 128
"""Records in one slice of a listing: a slice is read in one go, values and all."""
_WIDE = 4
"""A second look lists up to this many pages at once, for what came in between."""
_LOOKS = 4
_SUSPECTS = 512
"""About so many keys share one pause before they are looked at again. One pause for each run of
leaves would make a node that was away for long wait a second for every few keys."""


class Shared(NamedTuple):
    """What two owners of a partition have in common."""

    partition: Partition
    least_n: int
    """Both own the records of keyspaces with this n or a greater one."""
    may_take: bool
    """The other's floors speak of all keyspaces that this node owns here."""
    may_give: bool
    """This node's floors speak of all keyspaces that the other owns here."""


def shared(topology: Topology, here: int, there: int, partition: Partition) -> Shared | None:
    """Return what two nodes share of a partition; None if they do not both own it."""
    row = topology.owner_numbers[partition]
    if here == there or here not in row or there not in row:
        return None
    mine, theirs = row.index(here), row.index(there)
    ns = [keyspace.n for keyspace in topology.keyspaces]
    return Shared(
        partition,
        max(mine, theirs) + 1,
        may_take=not any(mine < n <= theirs for n in ns),
        may_give=not any(theirs < n <= mine for n in ns),
    )


class Hashes(NamedTuple):
    """Needs the other's groups (none named), or the leaves of these. Sent: a sequence of ints."""

    groups: tuple[int, ...]


class Listing(NamedTuple):
    """Needs both sides' keys of a range. Sent: (ours, theirs), two Pages."""

    start: bytes
    end: bytes | None
    limit: int


class Page(NamedTuple):
    """A slice of one side's listing."""

    hashes: Mapping[StorageKey, int]
    covered: bytes | None
    """The last key that was looked at; None: all of the range was."""


class Pause(NamedTuple):
    """Needs a while to pass. Sent: nothing."""


class Mend(NamedTuple):
    """Needs these keys mended. Sent: how many were."""

    keys: tuple[tuple[StorageKey, bool], ...]
    """(key, whether this side holds it)."""


Step = Hashes | Listing | Pause | Mend
Conversation = Generator[Step, Any, bool]


@dataclass(slots=True)
class Tally:
    """How far an exchange has come."""

    differing: int = 0
    """Keys that were found to differ and were not merely under way."""
    mended: int = 0


def exchange(trees: Trees, view: Shared, tally: Tally, *, is_patient: bool) -> Conversation:
    """Compare a partition and mend what differs.

    Args:
        trees: this side's; looked at whenever an answer comes.
        view: which records both sides own.
        tally: kept up to date.
        is_patient: look twice before mending. An unproven side need not: what it lacks is lost.

    Returns:
        Whether it is complete: every key was equal at some instant, or was mended.
    """
    is_complete = True
    spots: list[_Spot] = []
    for start, end in (yield from _ranges(trees, view)):
        at: bytes | None = start
        while at is not None:
            differing, covered = _differences(*(yield Listing(at, end, PAGE)))
            after = None if covered is None else covered + b"\x00"
            if differing and is_patient:
                spots.append(_Spot(at, after or end, differing))
            elif differing:
                is_complete &= yield from _mend(differing, tally)
            if sum(len(spot.suspects) for spot in spots) >= _SUSPECTS:
                is_complete &= yield from _look_again(spots, tally)
                spots = []
            at = after
    if spots:
        is_complete &= yield from _look_again(spots, tally)
    return is_complete


def _ranges(trees: Trees, view: Shared) -> Generator[Step, Any, list[tuple[bytes, bytes | None]]]:
    """Return the ranges of keys in which the two sides differ."""
    partition, least_n = view.partition, view.least_n
    theirs: Sequence[int] = yield Hashes(())
    ours = trees.groups(partition, least_n)
    groups = tuple(
        at for at, pair in enumerate(zip(ours, theirs, strict=True)) if pair[0] != pair[1]
    )
    if not groups:
        return []
    told: Sequence[int] = yield Hashes(groups)
    mine = trees.leaves(partition, least_n, 0, LEAVES)
    other = list(mine)
    for at, group in enumerate(groups):
        first = group * GROUP_LEAVES
        other[first : first + GROUP_LEAVES] = told[at * GROUP_LEAVES : (at + 1) * GROUP_LEAVES]
    return [trees.leaf_bounds(partition, *run) for run in runs_of(mine, other)]


def runs_of(mine: Sequence[int], other: Sequence[int]) -> list[tuple[int, int]]:
    """Return the runs (first, last) of leaves that differ; leaves that are empty on both sides do
    not part two runs, since listing them costs nothing."""
    runs: list[tuple[int, int]] = []
    is_open = False
    for at, (here, there) in enumerate(zip(mine, other, strict=True)):
        if here != there:
            runs.append((runs.pop()[0], at) if is_open else (at, at))
            is_open = True
        elif here:
            is_open = False
    return runs


_Differing = dict[StorageKey, tuple[int, int]]
"""key -> fingerprints (ours, theirs); 0: absent."""


class _Spot(NamedTuple):
    """A slice of keys of which some differed when it was listed."""

    start: bytes
    end: bytes | None
    suspects: _Differing


def _look_again(spots: Sequence[_Spot], tally: Tally) -> Generator[Step, Any, bool]:
    """Mend those suspects that differ as they did before. Returns whether all were settled."""
    is_mended = True
    for _ in range(_LOOKS):
        yield Pause()
        restless: list[_Spot] = []
        for spot in spots:
            now, covered = _differences(*(yield Listing(spot.start, spot.end, _WIDE * PAGE)))
            steady = {key: pair for key, pair in spot.suspects.items() if now.get(key) == pair}
            if steady:
                is_mended &= yield from _mend(steady, tally)
            # Beyond what was listed nothing is known; equal by now is as good as equal before.
            left = {
                key: now.get(key, pair)
                for key, pair in spot.suspects.items()
                if key not in steady and (key in now or (covered is not None and key > covered))
            }
            if left:
                restless.append(spot._replace(suspects=left))
        if not restless:
            return is_mended
        spots = restless
    return False


def _mend(differing: _Differing, tally: Tally) -> Generator[Step, Any, bool]:
    tally.differing += len(differing)
    mended: int = yield Mend(tuple((key, pair[0] != 0) for key, pair in sorted(differing.items())))
    tally.mended += mended
    return mended == len(differing)


def _differences(ours: Page, theirs: Page) -> tuple[_Differing, bytes | None]:
    """Return the keys that differ, as far as both listings go, and how far that is."""
    covered = _least(ours.covered, theirs.covered)
    keys = [key for key in {**ours.hashes, **theirs.hashes} if covered is None or key <= covered]
    pairs = {key: (ours.hashes.get(key, 0), theirs.hashes.get(key, 0)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}, covered


def _least(left: bytes | None, right: bytes | None) -> bytes | None:
    if left is None or right is None:
        return right if left is None else left
    return min(left, right)
