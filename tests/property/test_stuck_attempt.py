"""The stuck first attempt of design, section 2.2, in every interleaving.

A put k=1 is held up at a coordinator, retried elsewhere under the same write id and acknowledged;
then k=2 is put and acknowledged; the first attempt arrives whenever it likes: before, between or
after. However that falls out, whoever reads r owners after k=2 was acknowledged gets k=2.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from kvnode.core.versions import NOTHING_SEEN, Context, Dot, find
from tests.sim.owners import Owners, Sent

N, R = 3, 2
STAMP = {"first": 10, "second": 20}
Step = tuple[str, int]


def interleavings() -> Iterator[tuple[Step, ...]]:
    """Yield every order of the two late arrivals of k=1 and its retry among k=2's steps.

    Owner 0 holds the first attempt up. ("retry", x) applies it at x and has the third owner accept
    it; ("second", x) is k=2, acknowledged by x and the owner after it; ("late", x) delivers the
    stuck attempt to x; ("begin", 0) is owner 0 going on; ("repair", x) joins x with its neighbour.
    """
    for retry, second, in_time in itertools.product((1, 2), range(N), (True, False)):
        fixed: list[Step] = [("retry", retry), ("second", second)]
        late: list[Step] = [("begin", 0), *(("late", x) for x in (1, 2)), ("repair", second)]
        for order in sorted(set(itertools.permutations(("fixed", "fixed", *map(str, range(4)))))):
            queue = iter(fixed)
            steps = tuple(next(queue) if s == "fixed" else late[int(s)] for s in order)
            if steps.index(("begin", 0)) < min(steps.index(("late", x)) for x in (1, 2)):
                yield (("in time", int(in_time)), *steps)


class Story:
    """Plays one interleaving and reads whenever k=2 has been acknowledged."""

    def __init__(self, *, is_explicit: bool, in_time: bool) -> None:
        self.owners = Owners(N)
        self._is_explicit = is_explicit
        self._in_time = in_time
        self._stuck: Sent | None = None
        self._first_seen: Context = NOTHING_SEEN
        self.is_acked = False

    def take(self, step: Step) -> None:
        what, at = step
        match what:
            case "begin":
                self._stuck = self._write("first", 0)
            case "late":
                self._arrive(at)
            case "retry":
                self._put("first", at, 3 - at)
            case "second":
                self._put("second", at, (at + 1) % N)
                self.is_acked = True
            case "repair":
                self.owners.merge(at, self.owners.records[(at + 2) % N])
            case _:
                raise AssertionError(what)

    def _arrive(self, at: int) -> None:
        assert self._stuck is not None
        if self._in_time:
            self.owners.deliver(self._stuck, at)
        else:
            self.owners.merge(at, self._stuck.record)

    def _put(self, name: str, at: int, other: int) -> None:
        sent = self._write(name, at)
        self.owners.merge(at, self.owners.deliver(sent, other))
        if name == "first":
            # What the client may say it has seen: its own write.
            self._first_seen = Context({}, frozenset((sent.version.dot,)))

    def _write(self, name: str, at: int) -> Sent:
        is_second = name == "second"
        return self.owners.write(
            at,
            value=name.encode(),
            stamp=STAMP[name],
            write_id=name.encode() * 2 + b"-" * (16 - 2 * len(name)),
            seen=self._first_seen if is_second else NOTHING_SEEN,
            is_explicit=is_second and self._is_explicit,
        )


@pytest.mark.parametrize("is_explicit", [False, True], ids=["plain", "explicit"])
def test_the_stuck_attempt_never_buries_what_came_later(is_explicit: bool) -> None:
    count = 0
    for (_, in_time), *steps in interleavings():
        story = Story(is_explicit=is_explicit, in_time=bool(in_time))
        for step in steps:
            story.take(step)
            if story.is_acked:
                assert_second_is_read(story.owners, steps)
        count += 1
    assert count > 1_000


def assert_second_is_read(owners: Owners, steps: list[Step]) -> None:
    for size in range(R, N + 1):
        for heard in itertools.combinations(range(N), size):
            winner = owners.answer(heard).winner
            assert winner is not None, (steps, heard)
            assert winner.value == b"second", (steps, heard)


def test_a_coordinator_that_knows_an_earlier_attempt_makes_no_second_version_of_it() -> None:
    owners = Owners(N)
    first = owners.write(0, value=b"v", stamp=1, write_id=b"w" * 16)
    owners.deliver(first, 1)
    again = owners.write(1, value=b"v", stamp=1, write_id=b"w" * 16)
    assert again.version == first.version
    assert find(again.record, Dot(1, 1)) == first.version
    assert len(again.record.versions) == 1
