"""Whether a cluster has come to rest: what each node says, put together.

Decides what is outstanding. Laws: nothing is, only if every member answered, no hint is pending, no
partition is unproven, and all owners of every partition have equal roots; whatever is outstanding
is named, with where. An answer is of one instant and nodes answer one after another, so while
clients write, a difference may be a write on its way.
Tests: tests/unit/client/test_convergence.py.
Source: design, sections 2.7 and 2.8.
Left out: asking, and waiting (`admin`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kvclient.routing import Topology
from kvproto import kv_pb2 as pb

_SHOWN = 4
"""Names in one line before "and 20 more"."""


@dataclass(frozen=True, slots=True)
class HintLedger:
    """What one node keeps for one owner, and what became of the rest since that node started."""

    owner: str
    pending: int
    bytes: int
    oldest_ms: int
    """When the oldest pending one was taken, ms since 1970; 0: none is pending."""
    delivered: int
    dropped: Mapping[str, int]
    """Why, and how many."""
    refused: int
    """Writes that did not fit; they went elsewhere, or failed."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A partition whose owners do not hold the same.

    Attributes:
        partition: its number.
        n: of the keyspaces whose records differ.
        parties: ids of owners, those that are equal together.
    """

    partition: int
    n: int
    parties: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        return f"{self.partition} ({' | '.join(', '.join(party) for party in self.parties)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """What keeps a cluster from rest. Each attribute is empty when nothing does.

    Attributes:
        silent: members that did not answer.
        hints: for each node, how many hints it keeps for which owner.
        differing: partitions whose owners hold different records.
        unproven: for each node, its partitions that may lack what it once acknowledged.
        rebuilding: for each node, its partitions that cannot be compared yet.
        epochs: the topology's number at each node, if they do not all know the same.
    """

    silent: tuple[str, ...] = ()
    hints: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    differing: tuple[Difference, ...] = ()
    unproven: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rebuilding: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    epochs: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_reached(self) -> bool:
        """Whether nothing is outstanding."""
        return not any(self._parts())

    @property
    def pending_hints(self) -> int:
        """How many hints are pending, at all nodes together."""
        return sum(count for kept in self.hints.values() for count in kept.values())

    def __str__(self) -> str:
        parts = [part for part in self._parts() if part]
        return "; ".join(parts) if parts else "nothing is outstanding"

    def _parts(self) -> Iterator[str]:
        if self.silent:
            yield f"no answer from {_some(self.silent)}"
        if self.epochs:
            yield f"epochs differ: {_some(f'{n} knows {e}' for n, e in self.epochs.items())}"
        for node, kept in self.hints.items():
            yield f"{node} keeps hints: {_some(f'{n:,} for {owner}' for owner, n in kept.items())}"
        if self.differing:
            yield f"{_count(self.differing, 'differ')}: {_some(map(str, self.differing))}"
        for node, places in self.unproven.items():
            yield f"{node} is unproven in {_count(places)}"
        for node, places in self.rebuilding.items():
            yield f"{node} rebuilds the trees of {_count(places)}"


def ledger_of(message: pb.HintLedger) -> HintLedger:
    """Return a ledger as a value."""
    return HintLedger(
        message.owner,
        message.pending,
        message.bytes,
        message.oldest_ms,
        message.delivered,
        {each.why: each.count for each in message.dropped},
        message.refused,
    )


def outstanding(topology: Topology, answers: Mapping[str, pb.Convergence | None]) -> Convergence:
    """Return what keeps the cluster from rest, from what its members said (None: nothing)."""
    said = {node: answer for node, answer in answers.items() if answer is not None}
    epochs = {node: answer.epoch for node, answer in said.items()}
    pending = {
        node: {each.owner: each.pending for each in answer.hints if each.pending}
        for node, answer in said.items()
    }
    return Convergence(
        silent=tuple(node for node in answers if node not in said),
        hints={node: kept for node, kept in pending.items() if kept},
        differing=tuple(_differences(topology, said)),
        unproven={node: tuple(a.unproven) for node, a in said.items() if a.unproven},
        rebuilding={node: tuple(a.unknown) for node, a in said.items() if a.unknown},
        epochs=epochs if {*epochs.values()} - {topology.epoch} else {},
    )


def _differences(topology: Topology, said: Mapping[str, pb.Convergence]) -> Iterator[Difference]:
    names = {member.number: member.id for member in topology.members}
    roots = {node: _roots(answer) for node, answer in said.items()}
    unknown = {node: frozenset(answer.unknown) for node, answer in said.items()}
    for n in sorted({keyspace.n for keyspace in topology.keyspaces.values()}):
        for partition, walk in enumerate(topology.walks):
            parties: dict[int | None, list[str]] = {}
            for node in (names[number] for number in walk[:n] if number in names):
                if node in said and partition not in unknown[node]:
                    # An owner that tells no root of what it owns has another topology.
                    parties.setdefault(roots[node].get((partition, n)), []).append(node)
            if len(parties) > 1 or None in parties:
                yield Difference(partition, n, tuple(map(tuple, parties.values())))


def _roots(answer: pb.Convergence) -> dict[tuple[int, int], int]:
    return dict(zip(zip(answer.partition, answer.n, strict=False), answer.root, strict=False))


def _count(places: Sequence[object], verb: str = "") -> str:
    noun = "partition" if len(places) == 1 else "partitions"
    ending = "s" if verb and len(places) == 1 else ""
    return f"{len(places):,} {noun} {verb}{ending}".rstrip()


def _some(names: Iterable[str]) -> str:
    every = list(names)
    more = len(every) - _SHOWN
    return ", ".join(every[:_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
