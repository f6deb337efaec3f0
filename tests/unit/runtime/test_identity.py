"""Starts are counted and remembered; a store that is older than its node's promises says so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvnode.core.batch import Family
from kvnode.core.messages import TopologyChanged
from kvnode.core.topology import NodeId, Topology
from kvnode.runtime.claims import Life
from kvnode.runtime.identity import TOPOLOGY, Identity
from kvnode.runtime.peer_codec import BadFrame, new_frame
from kvnode.runtime.pump import wall_ms
from kvnode.runtime.topology_codec import encode_topology
from kvnode.storage.memory import MemoryEngine
from kvnode.storage.port import StorageDamaged
from kvproto import kv_pb2, peer_pb2
from tests.unit.core.builders import topology
from tests.unit.runtime.builders import node, run, turns


def start(engine: MemoryEngine, incarnation: int = 11, *, name: str = "n1", **how: Any) -> Identity:
    """Begin a life on a store; n1 unless named."""
    identity = Identity(node(number=int(name[1:])), NodeId(name), engine, incarnation, **how)
    identity.begin_life()
    return identity


def is_proven(identity: Identity) -> bool:
    return identity._node.replica.is_proven


def meet(one: Identity, other: Identity) -> None:
    """Have both say hello, as on a link."""
    said = one.hello(other.id)
    answered = other.hello(one.id)
    other.on_hello(said)
    one.on_hello(answered)


def test_every_start_has_the_next_number() -> None:
    engine = MemoryEngine()
    assert [start(engine, life).start_number for life in (11, 12, 13)] == [1, 2, 3]


def test_a_start_is_durable_before_anything_is_issued() -> None:
    engine = MemoryEngine()
    start(engine)
    engine.crash()
    assert start(engine, 12).start_number == 2


def test_a_hello_says_who_one_is_and_what_one_knows_of_the_other() -> None:
    one, other = start(MemoryEngine(), 11), start(MemoryEngine(), 22, name="n2")
    meet(one, other)
    hello = one.hello("n2")
    assert (hello.node, hello.incarnation, hello.start_number) == ("n1", 11, 1)
    assert (hello.known_start, hello.known_incarnation) == (1, 22)
    assert abs(hello.wall_ms - wall_ms()) < 10_000


def test_of_a_stranger_nothing_is_known() -> None:
    hello = start(MemoryEngine()).hello("n3")
    assert (hello.known_start, hello.known_incarnation) == (0, 0)


def test_peers_starts_are_remembered_across_ones_own() -> None:
    engine = MemoryEngine()
    meet(start(engine), start(MemoryEngine(), 22, name="n2"))
    engine.flush()
    assert start(engine, 12).known("n2") == (1, 22)


def test_a_restart_is_no_reason_for_doubt() -> None:
    engine, other = MemoryEngine(), start(MemoryEngine(), 22, name="n2")
    for life in (11, 12, 13):
        identity = start(engine, life)
        meet(identity, other)
        meet(identity, other)
        assert is_proven(identity)
        assert other.known("n1") == (identity.start_number, life)


def test_a_wiped_disk_is_found_out_by_the_first_peer_that_knew_it() -> None:
    other = start(MemoryEngine(), 22, name="n2")
    meet(start(MemoryEngine(), 11), other)
    wiped = start(MemoryEngine(), 12)
    meet(wiped, other)
    assert not is_proven(wiped)
    assert wiped.start_number == 2


def test_a_restored_folder_is_found_out_and_counts_on_from_what_was_known() -> None:
    engine, other = MemoryEngine(), start(MemoryEngine(), 22, name="n2")
    meet(start(engine, 11), other)
    backup = engine.spaces.families[Family.META].copy()
    for life in (12, 13, 14):
        meet(start(engine, life), other)
    engine.spaces.families[Family.META] = backup
    restored = start(engine, 15)
    meet(restored, other)
    assert not is_proven(restored)
    assert restored.start_number == 5
    meet(restored, other)
    assert other.known("n1") == (5, 15)


def test_a_doubt_about_a_restored_folder_is_written_down() -> None:
    engine, other = MemoryEngine(), start(MemoryEngine(), 22, name="n2")
    meet(start(MemoryEngine(), 11), other)
    meet(start(engine, 12), other)
    assert engine.multi_get(Family.META, [b"unproven"]) == [b""]


def test_a_peers_older_life_does_not_replace_its_newer_one() -> None:
    one = start(MemoryEngine())
    one.on_hello(peer_pb2.Hello(node="n2", incarnation=22, start_number=9))
    one.on_hello(peer_pb2.Hello(node="n2", incarnation=33, start_number=4))
    assert one.known("n2") == (9, 22)


def test_peers_remember_where_a_life_is_and_since_when() -> None:
    engine, place = MemoryEngine(), f"{'a' * 32} box:/data"
    one = start(MemoryEngine(), 11, place=place)
    meet(one, start(engine, 22, name="n2"))
    engine.flush()
    remembered = start(engine, 23, name="n2").known_life("n1")
    assert remembered == Life(1, 11, one.claimed_ms, place)
    assert abs(one.claimed_ms - wall_ms()) < 10_000


def test_a_life_that_its_operator_vouches_for_follows_the_one_that_is_known() -> None:
    other = start(MemoryEngine(), 22, name="n2")
    engine = MemoryEngine()
    for life in (11, 12, 13):
        meet(start(engine, life, place="a" * 32), other)
    restored = start(MemoryEngine(), 14, place="b" * 32, is_restored=True)
    meet(restored, other)
    assert not is_proven(restored)
    assert restored.start_number == 4
    assert other.known_life("n1") == Life(4, 14, restored.claimed_ms, "b" * 32)


def test_a_refused_life_gives_its_start_number_back_and_ends_the_node() -> None:
    """Else a copy that a supervisor starts again and again would outnumber the first."""
    engine = MemoryEngine()
    for life in (11, 12, 13, 14):
        identity, pump = start(engine, life), Submitted()
        identity.pump = pump
        assert identity.start_number == 1
        identity.on_refused_for_good("n1 is held by another")
        assert [str(exc) for exc in pump.failures] == ["n1 is held by another"]
        engine.crash()
    start(engine, 15)
    assert start(engine, 16).start_number == 2


def test_a_refused_life_that_cannot_give_its_number_back_says_so() -> None:
    engine, pump = MemoryEngine(), Submitted()
    identity = start(engine)
    identity.pump = pump
    engine.faults.is_full = True
    identity.on_refused_for_good("no")
    assert "its start number stays 1" in str(pump.failures[0])


def test_a_start_number_that_cannot_be_read_is_no_first_start() -> None:
    engine = MemoryEngine()
    start(engine)
    engine.spaces.unreadable[Family.META, b"start"] = "Corruption: injected"
    with pytest.raises(StorageDamaged, match="start number"):
        start(engine, 12)


@pytest.mark.parametrize("fault", ["is_stalled", "is_full"])
def test_a_start_that_cannot_be_noted_now_is_noted_later(fault: str) -> None:
    async def test() -> None:
        engine = MemoryEngine()
        one = start(engine)
        setattr(engine.faults, fault, True)
        one.on_hello(peer_pb2.Hello(node="n2", incarnation=22, start_number=9))
        setattr(engine.faults, fault, False)
        before = engine.written
        while engine.written == before:
            await turns()
        assert start(engine, 12).known("n2") == (9, 22)

    run(test)


class Submitted:
    """A pump that only keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.submit = self.events.append
        self.failures: list[BaseException] = []
        self.fail = self.failures.append


def newer(epochs: int = 1) -> Topology:
    value = topology()
    for _ in range(epochs):
        value = value.with_members(value.members)
    return value


def framed(message: kv_pb2.Topology, identity: Identity) -> peer_pb2.PeerFrame:
    frame = new_frame(identity.header())
    frame.topology.CopyFrom(message)
    return frame


def test_a_newer_topology_is_durable_then_in_force_and_followed() -> None:
    engine, pump = MemoryEngine(), Submitted()
    identity = start(engine)
    followed: list[int] = []
    identity.pump = pump
    identity.follow = lambda: followed.append(identity.topology.epoch)
    identity.take(framed(encode_topology(newer(2)), identity))
    assert identity.topology == newer(2)
    assert followed == [3]
    assert pump.events == [TopologyChanged(newer(2))]
    engine.crash()
    (stored,) = engine.multi_get(Family.META, [TOPOLOGY])
    assert stored == encode_topology(newer(2)).SerializeToString()


def test_a_topology_that_is_not_newer_changes_nothing() -> None:
    identity = start(MemoryEngine())
    identity.take(framed(encode_topology(topology(5)), identity))
    assert identity.topology == topology()


def spoil_cluster(message: kv_pb2.Topology) -> None:
    message.cluster_id = b"x" * 16


def spoil_walk(message: kv_pb2.Topology) -> None:
    del message.walk[:]


def spoil_members(message: kv_pb2.Topology) -> None:
    message.members[0].number = 2


@pytest.mark.parametrize(
    "spoil", [spoil_cluster, spoil_walk, spoil_members], ids=lambda spoil: spoil.__name__
)
def test_a_topology_that_cannot_be_is_a_bad_frame(
    spoil: Callable[[kv_pb2.Topology], None],
) -> None:
    identity, message = start(MemoryEngine()), encode_topology(newer())
    spoil(message)
    with pytest.raises(BadFrame):
        identity.take(framed(message, identity))
    assert identity.topology == topology()


def test_a_topology_that_cannot_be_stored_now_is_taken_when_it_comes_again() -> None:
    engine = MemoryEngine()
    identity = start(engine)
    frame = framed(encode_topology(newer()), identity)
    engine.faults.is_stalled = True
    identity.take(frame)
    assert identity.topology == topology()
    engine.faults.is_stalled = False
    identity.take(frame)
    assert identity.topology == newer()


def test_an_old_or_equal_topology_is_not_installed_by_hand_either() -> None:
    with pytest.raises(ValueError, match="epoch 1 is not newer"):
        start(MemoryEngine()).install(encode_topology(topology()))


def test_the_header_says_cluster_epoch_and_clock() -> None:
    identity = start(MemoryEngine())
    ahead = (wall_ms() + 5_000) << 16
    identity.take(peer_pb2.PeerFrame(hlc=ahead))
    header = identity.header()
    assert (header.cluster, header.epoch) == (b"c" * 16, 1)
    assert header.hlc >= ahead


def test_no_frame_drags_the_clock_beyond_the_skew_that_is_allowed() -> None:
    identity = start(MemoryEngine())
    identity.take(peer_pb2.PeerFrame(hlc=(wall_ms() + 3_600_000) << 16))
    assert identity.header().hlc >> 16 < wall_ms() + 61_000
