"""What clients asked and were told: of each key its writes in order, and what each must mean to
readers.

What it decides: which write supersedes which, as far as clients can know. A value names its write.
Laws: nothing here looks into a store, but for the dots that a write was given, which it is told of.
Cost: a read's questions are answered by a look at the newest writes, not by a walk over all.
Its tests are tests/sim/test_checks.py.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

from kvnode.core.keys import StorageKey
from kvnode.core.messages import NodeNumber
from kvnode.core.versions import NOTHING_SEEN, Context, Dot, covers, join

OK, NOT_APPLIED, UNCERTAIN, FAILED = "ok", "not applied", "uncertain", "failed"


@dataclass(slots=True, eq=False)
class Write:
    """One put or delete as its caller sees it, over all its attempts."""

    key: StorageKey
    value: bytes | None
    """None: a delete."""
    is_explicit: bool
    seen: Context
    began_us: int
    write_ids: list[bytes] = field(default_factory=list)
    """A new one each time it is stamped anew."""
    stamps: list[int] = field(default_factory=list)
    attempts: int = 0
    """Requests that reached a node."""
    ended_us: int | None = None
    outcome: str | None = None
    acked_us: int | None = None
    """When it was first acknowledged, perhaps to be stamped anew after that."""
    may_lose: bool = False
    """Acknowledged beside a newer rival, and not stamped anew."""
    w: int = 0
    """Owners that were to hold it; 0: as many as the keyspace says."""
    acked_dot: Dot | None = None
    """Of its versions the one that was acknowledged, if that is certain."""
    client: int | None = None

    def is_replaced_by(self, later: Write, before_us: int) -> bool:
        """Say whether its own client had by then replaced it by a later plain put."""
        return (
            later.client == self.client
            and self.outcome == later.outcome == OK
            and not (later.is_explicit or later.may_lose)
            and (self.ended_us or 0) < later.began_us
            and (later.ended_us or 0) < before_us
        )


@dataclass(slots=True, eq=False)
class Read:
    """One get as its caller sees it."""

    key: StorageKey
    began_us: int
    outcome: str | None = None
    value: bytes | None = None
    context: Context = NOTHING_SEEN
    values: frozenset[bytes | None] = frozenset()
    """All survivors that it told of."""
    repaired: tuple[NodeNumber, ...] = ()
    r: int = 0
    """Owners that were to answer; 0: as many as the keyspace says."""
    ended_us: int | None = None
    client: int | None = None
    """None: not as a client sees it, but the node that answers."""


class KeyHistory:
    """The writes of one key."""

    def __init__(self) -> None:
        self.writes: list[Write] = []
        """In the order in which they began."""
        self.of_value: dict[bytes | None, list[Write]] = {}
        self.expiring: dict[Write, None] = {}
        """Those that may be expired one day."""
        self.is_lossy = False
        """Part of it was lost as its keyspace allows (periodic durability and a lost power)."""
        self.kept: list[Write] = []
        """All that ended well, with whatever w."""
        self.losses_us: list[int] = []
        """When an owner was seen to have lost what it had held durably."""
        self.unsettled: list[Write] = []
        """Acknowledged, and without a successor when last looked at."""
        self._acked: list[Write] = []
        """In the order in which they ended."""
        self._ended_us: list[int] = []
        self._seen: list[Context] = []
        """Joined over the first one, two, three ... of these."""
        self._plain_began_us: list[int] = []
        """The latest beginning of the plain puts among the first one, two, three ... of these."""
        self._tops: list[dict[int, int]] = []
        """For each actor the highest acknowledged counter, likewise."""
        self._all_seen = NOTHING_SEEN
        self._newest: list[tuple[int, Write]] = []
        """The two newest stamps of plain puts, of different writes, newest first."""

    def add(self, write: Write) -> None:
        """A write begins."""
        self.writes.append(write)
        self.of_value.setdefault(write.value, []).append(write)

    def on_attempt(self, write: Write) -> None:
        """An attempt leaves: it may be with another stamp, or have seen more, than those before."""
        self._all_seen = join(self._all_seen, write.seen)
        if write.is_explicit or not write.stamps:
            return
        others = [pair for pair in self._newest if pair[1] is not write]
        self._newest = sorted([*others, (write.stamps[-1], write)], key=_stamp)[:-3:-1]

    def on_acknowledged(self, write: Write, *, is_strong: bool) -> None:
        """A write has ended well. `is_strong`: with as many owners as its keyspace asks for, so
        that readers who ask as many as it says must come to know it."""
        assert write.ended_us is not None
        self.kept.append(write)
        if not is_strong:
            return
        before = len(self._acked) - 1
        seen = self._seen[before] if self._acked else NOTHING_SEEN
        began = self._plain_began_us[before] if self._acked else -1
        tops = self._tops[before] if self._acked else {}
        if not write.is_explicit and not write.may_lose:
            began = max(began, write.began_us)
        if write.acked_dot is not None:
            actor, counter = write.acked_dot
            tops = {**tops, actor: max(counter, tops.get(actor, 0))}
        self._acked.append(write)
        self._ended_us.append(write.ended_us)
        self._seen.append(join(seen, write.seen))
        self._plain_began_us.append(began)
        self._tops.append(tops)
        self.unsettled.append(write)

    @property
    def acknowledged(self) -> list[Write]:
        """All writes that ended well, in the order in which they did."""
        return self._acked

    def count_before(self, instant_us: int) -> int:
        """Return how many acknowledged writes had ended by then."""
        return bisect_left(self._ended_us, instant_us)

    def is_seen_before(self, dots: list[Dot], count: int) -> bool:
        """Say whether writers of the first `count` acknowledged writes had seen all these dots."""
        return bool(count and dots) and all(covers(self._seen[count - 1], dot) for dot in dots)

    def is_seen(self, dots: list[Dot]) -> bool:
        """Say whether any writer, whatever became of its write, had seen one of these dots."""
        return any(covers(self._all_seen, dot) for dot in dots)

    def is_followed_before(self, write: Write, count: int) -> bool:
        """Say whether a plain put among the first `count` acknowledged writes began after this
        write had ended well, and must have met it: no owner had lost anything in between."""
        if not count or write.outcome != OK or write.ended_us is None:
            return False
        if not write.ended_us < self._plain_began_us[count - 1]:
            return False
        end_us = self._ended_us[count - 1]
        return not any(write.began_us < lost_us < end_us for lost_us in self.losses_us)

    def tops_before(self, count: int) -> dict[int, int]:
        """Return the highest acknowledged counter of each actor among the first `count`."""
        return self._tops[count - 1] if count else {}

    def has_successor(self, write: Write, dots: list[Dot]) -> bool:
        """Say whether any write, whatever became of it, may have superseded this one.

        `dots`: of its last stamp's versions (it has itself seen those of earlier stamps).
        """
        if self.is_seen(dots):
            return True
        newest = next((stamp for stamp, other in self._newest if other is not write), 0)
        return newest > write.stamps[-1]

    def successors(self, write: Write, dots: list[Dot], count: int) -> Iterator[Write]:
        """Yield those of the first `count` acknowledged writes that supersede this one: for
        messages, since it walks over all of them."""
        for later in self._acked[:count]:
            if later is write:
                continue
            is_plain = not later.is_explicit and not later.may_lose
            is_after = write.outcome == OK and (write.ended_us or 0) < later.began_us
            if (is_plain and is_after) or any(covers(later.seen, dot) for dot in dots):
                yield later


def _stamp(pair: tuple[int, Write]) -> int:
    return pair[0]
