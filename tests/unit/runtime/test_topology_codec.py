"""Decoding a topology inverts encoding it; what is no topology is an error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kvnode.core.topology import Durability, Keyspace, Member, NodeId, Resolve, Topology
from kvnode.runtime.topology_codec import decode_topology, encode_topology
from kvproto import kv_pb2
from tests.unit.core.builders import topology

EVERYTHING = [
    Keyspace(name="default"),
    Keyspace(
        name="all",
        n=5,
        r=1,
        w=4,
        sloppy=False,
        resolve=Resolve.SIBLINGS,
        ttl_s=60,
        durability=Durability.PERIODIC,
    ),
]


def grown() -> Topology:
    first = topology(5, keyspaces=EVERYTHING)
    more = Member(id=NodeId("n6"), number=6, address="[::1]:7006", rack="b", weight=2.5)
    return first.with_members([*first.members[1:], more])


@pytest.mark.parametrize(
    "value", [topology(3), topology(1), topology(2), grown()], ids=["3", "1", "2", "grown"]
)
def test_what_is_decoded_is_what_was_encoded(value: Topology) -> None:
    data = encode_topology(value).SerializeToString()
    assert decode_topology(kv_pb2.Topology.FromString(data)) == value


def test_a_number_that_was_given_out_once_is_not_given_out_again() -> None:
    assert decode_topology(encode_topology(grown())).next_number == 7


def spoil_walk(message: kv_pb2.Topology) -> None:
    del message.walk[-1]


def spoil_width(message: kv_pb2.Topology) -> None:
    message.walk_length = 0


def spoil_owner(message: kv_pb2.Topology) -> None:
    message.walk[0] = 99


def spoil_twin(message: kv_pb2.Topology) -> None:
    message.members[1].number = message.members[0].number


def spoil_state(message: kv_pb2.Topology) -> None:
    message.members[0].state = "dreaming"


def spoil_resolve(message: kv_pb2.Topology) -> None:
    message.keyspaces[0].resolve = "dice"


def spoil_quorum(message: kv_pb2.Topology) -> None:
    message.keyspaces[0].r = 9


def spoil_cluster(message: kv_pb2.Topology) -> None:
    message.cluster_id = b"short"


def spoil_epoch(message: kv_pb2.Topology) -> None:
    message.epoch = 0


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_walk, spoil_width, spoil_owner, spoil_twin, spoil_state, spoil_resolve,
        spoil_quorum, spoil_cluster, spoil_epoch,
    ],
    ids=lambda spoil: spoil.__name__,
)  # fmt: skip
def test_what_is_no_topology_is_refused(spoil: Callable[[kv_pb2.Topology], None]) -> None:
    message = encode_topology(topology())
    spoil(message)
    with pytest.raises((ValueError, AssertionError)):
        decode_topology(message)


def test_an_empty_message_is_no_topology() -> None:
    with pytest.raises(ValueError, match="owners do not fit"):
        decode_topology(kv_pb2.Topology())


def test_a_topology_that_differs_is_encoded_differently() -> None:
    value = topology()
    other = replace(value, epoch=value.epoch + 1)
    assert encode_topology(value) != encode_topology(other)
