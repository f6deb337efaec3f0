"""Topologies between their frozen value and the wire. Law: decoding inverts encoding.

Tests: tests/unit/runtime/test_topology_codec.py.
"""

from __future__ import annotations

from kvnode.core.topology import (
    Durability,
    Keyspace,
    Member,
    MemberState,
    NodeId,
    Resolve,
    Topology,
)
from kvproto import kv_pb2


def encode_topology(topology: Topology) -> kv_pb2.Topology:
    """Return the message."""
    width = min(topology.replicas, len(topology.members))
    return kv_pb2.Topology(
        cluster_id=topology.cluster_id,
        name=topology.name,
        epoch=topology.epoch,
        partitions=topology.partitions,
        members=[
            kv_pb2.Member(
                id=member.id,
                number=member.number,
                address=member.address,
                rack=member.rack,
                weight=member.weight,
                state=member.state.value,
            )
            for member in topology.members
        ],
        keyspaces=[_encode_keyspace(keyspace) for keyspace in topology.keyspaces],
        walk_length=width,
        walk=[number for row in topology.owner_numbers for number in row],
        next_number=topology.next_number,
    )


def decode_topology(message: kv_pb2.Topology) -> Topology:
    """Return the value.

    Raises:
        ValueError, AssertionError: the message is no topology.
    """
    width = message.walk_length
    walk = tuple(message.walk)
    if width < 1 or len(walk) != width * message.partitions:
        raise ValueError("a topology's owners do not fit its partitions")
    return Topology(
        cluster_id=message.cluster_id,
        name=message.name,
        epoch=message.epoch,
        partitions=message.partitions,
        members=tuple(
            Member(
                id=NodeId(member.id),
                number=member.number,
                address=member.address,
                rack=member.rack,
                weight=member.weight,
                state=MemberState(member.state),
            )
            for member in message.members
        ),
        next_number=message.next_number,
        keyspaces=tuple(_decode_keyspace(keyspace) for keyspace in message.keyspaces),
        owner_numbers=tuple(walk[at : at + width] for at in range(0, len(walk), width)),
    )


def _encode_keyspace(keyspace: Keyspace) -> kv_pb2.Keyspace:
    return kv_pb2.Keyspace(
        name=keyspace.name,
        n=keyspace.n,
        r=keyspace.r,
        w=keyspace.w,
        sloppy=keyspace.sloppy,
        resolve=keyspace.resolve.value,
        ttl_ms=(keyspace.ttl_s or 0) * 1_000,
        durability=keyspace.durability.value,
    )


def _decode_keyspace(message: kv_pb2.Keyspace) -> Keyspace:
    return Keyspace(
        name=message.name,
        n=message.n,
        r=message.r,
        w=message.w,
        sloppy=message.sloppy,
        resolve=Resolve(message.resolve),
        ttl_s=message.ttl_ms // 1_000 or None,
        durability=Durability(message.durability),
    )
