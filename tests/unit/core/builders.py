"""Short ways to write down what the core's tests speak of: dots, versions, records, requests.

A dot is written as a letter and a number: `a3` is the third write of actor a (number 1). Instants
are offsets from NOW, physical times offsets from WALL_MS, so that a test shows only differences.
What it leaves out: behaviour. A builder decides nothing that a test claims.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kvnode.core.hlc import Timestamp, timestamp
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.messages import ClientGet, ClientPut, Instant, ReplicaWrite, WriteKind
from kvnode.core.record import encode, seal
from kvnode.core.topology import Durability, Keyspace, Member, NodeId, Resolve, Topology
from kvnode.core.versions import Context, Dot, Record, Version, Vote

NOW = Instant(1_000_000_000)
WALL_MS = 1_700_000_000_000
SECOND_US = 1_000_000
CLUSTER_KEY = b"k" * 32

DEFAULT = Keyspace(name="default")
PERIODIC = Keyspace(name="periodic", durability=Durability.PERIODIC)
SIBLINGS = Keyspace(name="siblings", resolve=Resolve.SIBLINGS)
NEWEST = Keyspace(name="newest", resolve=Resolve.NEWEST)

KEY = encode_key("default", b"k")


def at(offset_us: int) -> Instant:
    return Instant(NOW + offset_us)


def stamp(offset_ms: int = 0, logical: int = 0) -> Timestamp:
    return timestamp(WALL_MS + offset_ms, logical)


def dot(name: str) -> Dot:
    return Dot(ord(name[0]) - ord("a") + 1, int(name[1:]))


def context(*names: str, single: tuple[str, ...] = ()) -> Context:
    return Context({dot(name).actor: dot(name).counter for name in names}, frozenset(dots(*single)))


def dots(*names: str) -> tuple[Dot, ...]:
    return tuple(map(dot, names))


def write_id(name: str) -> bytes:
    return name.encode().ljust(16, b"\x00")


def version(
    name: str, value: bytes | None = None, ms: int = 0, *, key: StorageKey = KEY, **more: Any
) -> Version:
    """Return a sealed version; its value and write id are its name unless told otherwise."""
    fields: dict[str, Any] = {"write_id": write_id(name)} | more
    return seal(
        key,
        dot=dot(name),
        timestamp=stamp(ms),
        value=name.encode() if value is None else value,
        **fields,
    )


def tombstone(name: str, ms: int = 0, **more: Any) -> Version:
    return version(name, b"", ms, is_tombstone=True, **more)


def record(
    *versions: Version, seen: Context | None = None, votes: tuple[tuple[int, str], ...] = ()
) -> Record:
    """Return a record under the least context that covers its versions, or under `seen`."""
    least: dict[int, int] = {}
    for each in versions:
        least[each.dot.actor] = max(each.dot.counter, least.get(each.dot.actor, 0))
    return Record(
        Context(least) if seen is None else seen,
        tuple(sorted(versions)),
        tuple(sorted(Vote(owner, dot(name)) for owner, name in votes)),
    )


def names(state: Record) -> list[str]:
    return [f"{chr(v.dot.actor + ord('a') - 1)}{v.dot.counter}" for v in state.versions]


def topology(count: int = 3, **changes: Any) -> Topology:
    keyspaces = changes.pop("keyspaces", [DEFAULT, PERIODIC, SIBLINGS, NEWEST])
    return Topology.at_birth(
        cluster_id=b"c" * 16,
        name="test",
        partitions=16,
        members=[
            Member(id=NodeId(f"n{number}"), number=number, address=f"127.0.0.1:{7000 + number}")
            for number in range(1, count + 1)
        ],
        keyspaces=keyspaces,
    )


def get(**changes: Any) -> ClientGet:
    request = ClientGet(
        id=7,
        key=KEY,
        keyspace=DEFAULT,
        r=2,
        deadline_us=at(5 * SECOND_US),
        seen=Context({}),
        watermark=b"",
        explain=False,
    )
    return request._replace(**changes)


def put(name: str = "put", value: bytes = b"v", ms: int = 0, **changes: Any) -> ClientPut:
    """Return a plain put; its write id is made of its name."""
    request = ClientPut(
        id=8,
        key=KEY,
        keyspace=DEFAULT,
        w=2,
        deadline_us=at(5 * SECOND_US),
        seen=Context({}),
        is_explicit=False,
        is_delete=False,
        value=value,
        write_id=write_id(name),
        timestamp=stamp(ms),
        expires_ms=0,
    )
    return request._replace(**changes)


def replica_write(state: Record, written: str | None = None, **changes: Any) -> ReplicaWrite:
    """Return a write of `written`, or a repair if none is named."""
    kind = WriteKind.REPAIR if written is None else WriteKind.WRITE
    index = 0 if written is None else [each.dot for each in state.versions].index(dot(written))
    message = ReplicaWrite(3, KEY, encode(KEY, state), at(SECOND_US), kind, index)
    return message._replace(**changes)


def owned_by(cluster: Topology, number: int, *, is_owner: bool) -> StorageKey:
    """Return a key of `default` that the node owns, or one that it does not."""
    bits = cluster.partition_bits
    for count in range(1_000):
        key = encode_key("default", b"%d" % count)
        owners = cluster.owner_numbers[int.from_bytes(key[:8], "big") >> (64 - bits)][:3]
        if (number in owners) is is_owner:
            return key
    raise AssertionError("no such key")


Stored = Mapping[StorageKey, bytes | None]
