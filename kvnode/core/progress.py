"""How far anti-entropy has come, partition by partition and peer by peer, for people.

Laws: one line for each (peer, partition), bounded by the topology; figures are of this life.
Tests: tests/unit/core/test_progress.py. Left out: showing it (kvnode.cli).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kvnode.core.exchange import Tally
from kvnode.core.keys import Partition
from kvnode.core.messages import Instant, NodeNumber


@dataclass(slots=True)
class Line:
    """One partition with one peer."""

    is_running: bool = False
    completed: int = 0
    """How many comparisons found or made the two sides equal."""
    completed_at: int = 0
    """Monotonic microseconds."""
    broken_off: int = 0
    refused: int = 0
    """How often the peer would not compare: no owner, or rebuilding its trees."""
    differing: int = 0
    mended: int = 0


class Progress:
    """All lines of one node, and their sums."""

    __slots__ = ("_lines", "differing", "exchanges", "mended")

    def __init__(self) -> None:
        self._lines: dict[tuple[NodeNumber, Partition], Line] = {}
        self.exchanges = 0
        """Exchanges that were begun since roots differed."""
        self.differing = 0
        self.mended = 0

    def line(self, peer: NodeNumber, partition: Partition) -> Line:
        """Return the line of a partition with a peer."""
        return self._lines.setdefault((peer, partition), Line())

    def __iter__(self) -> Iterator[tuple[NodeNumber, Partition, Line]]:
        for (peer, partition), line in sorted(self._lines.items(), key=lambda entry: entry[0]):
            yield peer, partition, line

    def forget(self) -> None:
        """Owners have changed: begin anew, but for the sums."""
        self._lines.clear()

    def on_begin(self, peer: NodeNumber, partition: Partition) -> None:
        """An exchange begins."""
        self.exchanges += 1
        self.line(peer, partition).is_running = True

    def on_end(
        self, peer: NodeNumber, partition: Partition, tally: Tally, *, is_complete: bool
    ) -> None:
        """An exchange has ended."""
        line = self.line(peer, partition)
        line.is_running = False
        line.broken_off += not is_complete
        line.differing += tally.differing
        line.mended += tally.mended
        self.differing += tally.differing
        self.mended += tally.mended

    def on_complete(self, peer: NodeNumber, partition: Partition, now: Instant) -> None:
        """A partition was equal at both, or was made so."""
        line = self.line(peer, partition)
        line.completed += 1
        line.completed_at = now

    def on_refused(self, peer: NodeNumber, partition: Partition) -> None:
        """A peer would not compare a partition."""
        self.line(peer, partition).refused += 1
