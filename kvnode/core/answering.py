"""Answering the asks of exchanges: what this node tells of a partition.

    AskRoots  -> TellRoots, at once         AskHashes -> TellHashes, at once
    AskKeys   -> a Scan of the store, then TellKeys
    TakeOver  -> floors rise

Laws: nothing is kept for the asker but which question was answered last, and scans under way, of
these a bounded number; what is told of floors leaves only once it is durable here, since the peer
will act on it; floors rise only by what was compared in this life, and since the last loss.
Tests: tests/unit/core/test_answering.py. Source and the rest: kvnode.core.exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, assert_never

from kvnode.core.batch import Family
from kvnode.core.conversations import (
    Ask,
    AskHashes,
    AskKeys,
    AskRoots,
    RootAnswer,
    RootLine,
    TakeOver,
    TellHashes,
    TellKeys,
    TellRoots,
    Verdict,
    refuse,
)
from kvnode.core.exchange import PAGE, Page, Shared, shared
from kvnode.core.floors import BadReport, Floors, Seen
from kvnode.core.keys import Partition, StorageKey
from kvnode.core.messages import NodeNumber, Outbox, Scan
from kvnode.core.proving import Proving
from kvnode.core.topology import Topology
from kvnode.core.trees import GROUP_LEAVES, GROUPS, LEAVES, Trees, fingerprint_of_any
from kvnode.core.versions import Dot

ANSWER_ID = 0b1001 << 60
"""The top four bits of the ids of scans that belong to answers."""
_SCANS_MAX = 64
_PAGE_MAX = 4 * PAGE


class Holdings(NamedTuple):
    """What a node holds, as far as exchanges look at it."""

    number: NodeNumber
    last_own: Callable[[Partition], Dot]
    """The last dot that this life has issued in a partition."""
    trees: Trees
    floors: Floors
    proving: Proving
    topology: Callable[[], Topology]

    def shared(self, peer: NodeNumber, partition: int) -> Shared | None:
        """Return what this node and a peer share of a partition that can be compared."""
        topology = self.topology()
        if not 0 <= partition < topology.partitions:
            return None
        view = shared(topology, self.number, peer, Partition(partition))
        return view if view is not None and self.trees.is_known(view.partition) else None

    def line(self, view: Shared) -> RootLine:
        """Return a partition, summed up."""
        partition = view.partition
        return RootLine(
            partition,
            self.trees.root(partition, view.least_n),
            self.floors.digest(partition),
            self.proving.is_proven(partition),
        )

    def take_over(self, view: Shared, report: bytes) -> None:
        """A complete exchange allows to take over what the peer had seen. Raises: BadReport."""
        if view.may_take:
            own = self.last_own(view.partition)
            self.floors.raise_to(view.partition, Seen.decode(report), own=own)


class Heard(NamedTuple):
    """What a peer's floors were said to be."""

    report: bytes
    is_proven: bool


OnHeard = Callable[[NodeNumber, Shared, Heard], None]


class Answers:
    """The answering side of all exchanges of one node."""

    __slots__ = ("_compared", "_holdings", "_next", "_on_heard", "_scans", "alarms")

    def __init__(self, holdings: Holdings, on_heard: OnHeard) -> None:
        self._holdings = holdings
        self._on_heard = on_heard
        self._next = 0
        self._scans: dict[int, tuple[NodeNumber, AskKeys, Shared]] = {}
        self._compared: dict[tuple[NodeNumber, Partition], tuple[int, int]] = {}
        """Which question a partition was last compared for, and how often floors were dropped
        before: at most one for each peer and partition."""
        self.alarms: list[str] = []

    @property
    def under_way(self) -> int:
        """How many scans are under way."""
        return len(self._scans)

    def on_ask(self, peer: NodeNumber, ask: Ask, out: Outbox) -> None:
        """A peer asks."""
        match ask:
            case AskRoots():
                answers = tuple(self._compare(peer, ask.id, line) for line in ask.lines)
                out.send(peer, TellRoots(ask.id, answers), durable=True)
            case AskHashes():
                out.send(peer, TellHashes(ask.id, *self._hashes(peer, ask)))
            case AskKeys():
                self._scan(peer, ask, out)
            case TakeOver():
                self._take_over(peer, ask)
            case _:
                assert_never(ask)

    def on_scanned(
        self, scan_id: int, pairs: Sequence[tuple[bytes, bytes]] | None, out: Outbox
    ) -> None:
        """A slice that a peer asked for was read."""
        found = self._scans.pop(scan_id, None)
        if found is None:
            return
        peer, ask, view = found
        if pairs is None:
            self._refuse(peer, ask, out)
            return
        page = page_of(pairs, self._holdings.trees, view, limit=_limit(ask))
        out.send(
            peer,
            TellKeys(
                ask.id,
                is_known=True,
                keys=tuple(page.hashes),
                hashes=tuple(page.hashes.values()),
                is_last=page.covered is None,
                covered=page.covered or b"",
            ),
        )

    def _compare(self, peer: NodeNumber, question: int, line: RootLine) -> RootAnswer:
        holdings = self._holdings
        view = holdings.shared(peer, line.partition)
        if view is None:
            return RootAnswer(line.partition, Verdict.NOT_NOW, is_proven=False, report=b"")
        self._compared[peer, view.partition] = (question, holdings.floors.drops)
        mine = holdings.line(view)
        report = holdings.floors.report(view.partition)
        if mine.digest == line.digest:
            self._on_heard(peer, view, Heard(report, line.is_proven))
            if mine.root == line.root:
                return RootAnswer(view.partition, Verdict.SAME, mine.is_proven, b"")
        verdict = Verdict.FLOORS if mine.root == line.root else Verdict.DIFFER
        return RootAnswer(view.partition, verdict, mine.is_proven, report)

    def _hashes(self, peer: NodeNumber, ask: AskHashes) -> tuple[bool, tuple[int, ...]]:
        trees = self._holdings.trees
        view = self._holdings.shared(peer, ask.partition)
        if view is None or len(ask.groups) > GROUPS or not all(0 <= g < GROUPS for g in ask.groups):
            return False, ()
        if not ask.groups:
            return True, tuple(trees.groups(view.partition, view.least_n))
        leaves = trees.leaves(view.partition, view.least_n, 0, LEAVES)
        found: list[int] = []
        for group in ask.groups:
            found += leaves[group * GROUP_LEAVES : (group + 1) * GROUP_LEAVES]
        return True, tuple(found)

    def _scan(self, peer: NodeNumber, ask: AskKeys, out: Outbox) -> None:
        view = self._holdings.shared(peer, ask.partition)
        if view is None or len(self._scans) >= _SCANS_MAX:
            self._refuse(peer, ask, out)
            return
        first, last = self._holdings.trees.leaf_bounds(view.partition, 0, LEAVES - 1)
        start = max(first, ask.start)
        end = min(last, ask.end) if last and ask.end else ask.end or last
        self._next += 1
        scan_id = ANSWER_ID | self._next
        self._scans[scan_id] = (peer, ask, view)
        out.scans.append(Scan(scan_id, Family.RECORDS, start, end, _limit(ask)))

    def _refuse(self, peer: NodeNumber, ask: AskKeys, out: Outbox) -> None:
        tell = refuse(ask)
        assert tell is not None
        out.send(peer, tell)

    def _take_over(self, peer: NodeNumber, ask: TakeOver) -> None:
        view = self._holdings.shared(peer, ask.partition)
        if view is None:
            return
        # It may have been under way for long: what another life compared, or this one before it
        # lost records, says nothing of what is here now.
        if self._compared.get((peer, view.partition)) != (ask.id, self._holdings.floors.drops):
            return
        try:
            self._holdings.take_over(view, ask.report)
        except BadReport as exc:
            self.alarms.append(f"node {peer} sent a report of floors that cannot be: {exc}")
            return
        self._on_heard(peer, view, Heard(ask.report, ask.is_proven))


def page_of(
    pairs: Sequence[tuple[bytes, bytes]], trees: Trees, view: Shared, *, limit: int
) -> Page:
    """Return a slice as a listing: the records that both sides own."""
    hashes = {}
    for name, data in pairs:
        key = StorageKey(name)
        if trees.n_of(key) >= view.least_n:
            hashes[key] = fingerprint_of_any(key, data)
    return Page(hashes, pairs[-1][0] if len(pairs) >= limit else None)


def _limit(ask: AskKeys) -> int:
    return max(1, min(ask.limit, _PAGE_MAX))
