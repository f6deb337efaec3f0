"""Progress: lines for people, and their sums."""

from __future__ import annotations

from kvnode.core.exchange import Tally
from kvnode.core.keys import Partition
from kvnode.core.messages import Instant
from kvnode.core.progress import Progress

P, Q = Partition(0), Partition(1)


def test_an_exchange_that_is_complete_is_told_with_what_it_mended() -> None:
    progress = Progress()
    progress.on_begin(2, P)
    assert progress.line(2, P).is_running
    progress.on_end(2, P, Tally(differing=5, mended=5), is_complete=True)
    progress.on_complete(2, P, Instant(77))
    line = progress.line(2, P)
    assert (line.is_running, line.completed, line.completed_at) == (False, 1, 77)
    assert (line.differing, line.mended, line.broken_off) == (5, 5, 0)
    assert (progress.exchanges, progress.differing, progress.mended) == (1, 5, 5)


def test_one_that_was_broken_off_is_told_from_one_that_is_complete() -> None:
    progress = Progress()
    progress.on_begin(2, P)
    progress.on_end(2, P, Tally(differing=5, mended=1), is_complete=False)
    line = progress.line(2, P)
    assert (line.completed, line.broken_off, line.mended) == (0, 1, 1)


def test_lines_come_by_peer_and_partition() -> None:
    progress = Progress()
    for peer, partition in ((3, P), (2, Q), (2, P)):
        progress.on_refused(peer, partition)
    assert [(peer, partition) for peer, partition, _ in progress] == [(2, P), (2, Q), (3, P)]


def test_other_owners_begin_other_lines_and_the_sums_stay() -> None:
    progress = Progress()
    progress.on_begin(2, P)
    progress.on_end(2, P, Tally(1, 1), is_complete=True)
    progress.forget()
    assert list(progress) == []
    assert progress.mended == 1
