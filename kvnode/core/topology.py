"""Who the members are, which keyspaces exist and who owns what: one immutable value with an epoch.

Laws: owners of a partition are distinct, and so are the members of its preference list, which
begins with the owners; ids, addresses and numbers are unique; a number never names two members in
the life of a cluster; a change of the topology raises the epoch by one.
Tests: tests/unit/core/test_topology.py.
Source: DeCandia et al., "Dynamo" (SOSP 2007), sections 4.3 and 6.2 (strategy 3).
Leaves out: how owners are chosen (kvnode.core.ownership), the codec, who is alive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import chain
from typing import Final, NewType

from kvnode.core.ownership import Owners, assign

NodeId = NewType("NodeId", str)

CLUSTER_ID_BYTES: Final = 16
FIRST_EPOCH: Final = 1
PREFERENCE_MAX: Final = 64
"""Members in one preference list. Bounds what a large cluster keeps for each partition; further
stand-ins would only be asked when more than 60 nodes in a row are unreachable."""


class Resolve(StrEnum):
    """How a keyspace decides between concurrent versions."""

    MAJORITY = "majority"
    NEWEST = "newest"
    SIBLINGS = "siblings"


class Durability(StrEnum):
    """What an acknowledgement promises about a replica's disk."""

    FSYNC = "fsync"
    """The log is synced first: an acknowledged write outlives a power cut."""
    PERIODIC = "periodic"
    """The log is synced soon: an acknowledged write outlives the process, not the power."""


class MemberState(StrEnum):
    """Where a member stands between joining and leaving."""

    JOINED = "joined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One node as all others know it. Its id and number stay when its address changes."""

    id: NodeId
    number: int
    """From 1, small, never reused: owners, votes and files name the member by it."""
    address: str
    """host:port, an IPv6 host in brackets."""
    rack: str = ""
    weight: float = 1.0
    """Its share of partitions, relative to the others'."""
    state: MemberState = MemberState.JOINED


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyspace:
    """A separate space of keys and the rules that hold in it."""

    name: str
    n: int = 3
    r: int = 2
    w: int = 2
    sloppy: bool = True
    resolve: Resolve = Resolve.MAJORITY
    ttl_s: int | None = None
    durability: Durability = Durability.FSYNC

    def __post_init__(self) -> None:
        assert 1 <= self.r <= self.n, self
        assert 1 <= self.w <= self.n, self
        assert self.ttl_s is None or self.ttl_s > 0, self


MemberRow = tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """The members, keyspaces and owners of one epoch.

    All fields but the indexes are plain data: two topologies are equal when their data are. The
    indexes are built once, at O(partitions + members); preference lists on first use.
    """

    cluster_id: bytes
    name: str
    epoch: int
    partitions: int
    """How many; a power of two, fixed at the cluster's birth."""
    members: tuple[Member, ...]
    """In order of their numbers."""
    next_number: int
    """What the next new member gets; above every number that was ever given out."""
    keyspaces: tuple[Keyspace, ...]
    owner_numbers: Owners
    """For each partition, the numbers of its owners in order, as many as the largest n needs."""

    _by_id: dict[str, Member] = field(init=False, repr=False, compare=False)
    _by_number: dict[int, Member] = field(init=False, repr=False, compare=False)
    _by_keyspace: dict[str, Keyspace] = field(init=False, repr=False, compare=False)
    _owner_rows: dict[int, tuple[MemberRow, ...]] = field(init=False, repr=False, compare=False)
    _preferences: dict[int, MemberRow] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        def keep(name: str, value: object) -> None:
            object.__setattr__(self, name, value)  # frozen: the indexes are set here only

        keep("_by_id", {member.id: member for member in self.members})
        keep("_by_number", {member.number: member for member in self.members})
        keep("_by_keyspace", {keyspace.name: keyspace for keyspace in self.keyspaces})
        keep("_preferences", {})
        self._check()
        keep("_owner_rows", {n: self._rows(n) for n in sorted({k.n for k in self.keyspaces})})

    @classmethod
    def at_birth(
        cls,
        *,
        cluster_id: bytes,
        name: str,
        partitions: int,
        members: Sequence[Member],
        keyspaces: Sequence[Keyspace],
    ) -> Topology:
        """Return a new cluster's first topology."""
        replicas = max(keyspace.n for keyspace in keyspaces)
        return cls(
            cluster_id=cluster_id,
            name=name,
            epoch=FIRST_EPOCH,
            partitions=partitions,
            members=_in_order(members),
            next_number=1 + max(member.number for member in members),
            keyspaces=tuple(keyspaces),
            owner_numbers=assign((), members, partitions=partitions, replicas=replicas),
        )

    @property
    def partition_bits(self) -> int:
        """How many top bits of a token name its partition."""
        return self.partitions.bit_length() - 1

    @property
    def replicas(self) -> int:
        """The largest n of all keyspaces: how many owners a partition is meant to have."""
        return max(keyspace.n for keyspace in self.keyspaces)

    def owners(self, partition: int, n: int) -> MemberRow:
        """Return the first `n` owners, in order; fewer only where the cluster has fewer members.

        Cost: two look-ups for an n that a keyspace uses; the same tuple object each time.
        """
        rows = self._owner_rows.get(n)
        return self._row(partition, n) if rows is None else rows[partition]

    def preference(self, partition: int) -> MemberRow:
        """Return the owners and then the stand-ins, in the order in which they are asked.

        Stand-ins come in the order in which the ring's next partitions name them. A keyspace's
        primaries are the first n; all that follow are fallbacks, further owners included. Holds
        every member, up to `PREFERENCE_MAX`. Cost: a walk at first use, then one look-up.
        """
        found = self._preferences.get(partition)
        if found is None:
            found = self._preferences[partition] = self._walk(partition)
        return found

    def keyspace(self, name: str) -> Keyspace | None:
        """Return the keyspace of that name, or None."""
        return self._by_keyspace.get(name)

    def member(self, node: str) -> Member | None:
        """Return the member with that id, or None."""
        return self._by_id.get(node)

    def by_number(self, number: int) -> Member | None:
        """Return the member with that number, or None if it left or never was."""
        return self._by_number.get(number)

    def partitions_of(self, number: int) -> tuple[int, ...]:
        """Return the partitions that a member owns, in order, for the largest n."""
        rows = enumerate(self.owner_numbers)
        return tuple(partition for partition, row in rows if number in row)

    def with_members(self, members: Sequence[Member]) -> Topology:
        """Return the next epoch with these members; owners move as little as the laws allow.

        A member that was there before keeps its number; a new one takes `next_number` or above.
        """
        for member in members:
            known = self._by_id.get(member.id)
            assert (
                member.number >= self.next_number
                if known is None
                else member.number == known.number
            ), member
        numbers = [member.number + 1 for member in members]
        return replace(
            self,
            epoch=self.epoch + 1,
            members=_in_order(members),
            next_number=max(self.next_number, *numbers),
            owner_numbers=assign(
                self.owner_numbers, members, partitions=self.partitions, replicas=self.replicas
            ),
        )

    def _row(self, partition: int, n: int) -> MemberRow:
        return tuple(self._by_number[number] for number in self.owner_numbers[partition][:n])

    def _rows(self, n: int) -> tuple[MemberRow, ...]:
        return tuple(self._row(partition, n) for partition in range(self.partitions))

    def _walk(self, partition: int) -> MemberRow:
        ring = self.owner_numbers[partition:] + self.owner_numbers[:partition]
        end = min(PREFERENCE_MAX, len(self.members))
        seen: dict[int, None] = {}
        # Members that own nothing (a weight of almost nothing) come last.
        for number in chain(chain.from_iterable(ring), self._by_number):
            if len(seen) == end:
                break
            seen[number] = None
        return tuple(self._by_number[number] for number in seen)

    def _check(self) -> None:
        """Assert every invariant of the value. Cost: O(partitions * replicas + members)."""
        assert len(self.cluster_id) == CLUSTER_ID_BYTES
        assert self.epoch >= FIRST_EPOCH
        assert self.partitions.bit_count() == 1
        self._check_members()
        assert len(self._by_keyspace) == len(self.keyspaces) > 0
        assert len(self.owner_numbers) == self.partitions
        width = min(self.replicas, len(self.members))
        for row in self.owner_numbers:
            assert len(row) == len(set(row)) == width, row
            assert all(number in self._by_number for number in row), row

    def _check_members(self) -> None:
        assert len(self._by_id) == len(self._by_number) == len(self.members) > 0
        assert len({member.address for member in self.members}) == len(self.members)
        assert list(self._by_number) == sorted(self._by_number)
        assert 0 < min(self._by_number) <= max(self._by_number) < self.next_number
        assert all(member.weight > 0 for member in self.members)


def _in_order(members: Sequence[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda member: member.number))
