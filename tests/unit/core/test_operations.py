"""What operations share: ids, where answers go, who can be reached and who may stand in."""

from __future__ import annotations

from kvnode.core.floors import Floors
from kvnode.core.handoff import is_handoff
from kvnode.core.hlc import Clock
from kvnode.core.keys import StorageKey, partition_of_key
from kvnode.core.messages import NodeNumber, Outbox, PutResult, ReplicaRead, SessionId
from kvnode.core.operations import OPERATION_ID_MAX, Operations
from kvnode.core.replica import Replica
from tests.unit.core.builders import NOW, WALL_MS, owned_by, topology

ME = 1
CLUSTER = topology(6)
RESULT = PutResult(8, b"", (), 0)


def operations(*, up: tuple[NodeNumber, ...] = (), first_id: int = 0) -> Operations:
    replica = Replica(ME, 1, CLUSTER, Clock(max_skew_ms=60_000), Floors())
    ops = Operations(replica, first_id=first_id)
    ops.reachable |= {*up}
    return ops


def ring(key: StorageKey) -> list[NodeNumber]:
    partition = partition_of_key(key, CLUSTER.partition_bits)
    return [member.number for member in CLUSTER.preference(partition)]


# ---- ids and answers ----------------------------------------------------------------------------


def test_ids_follow_each_other_from_a_start_of_the_lifes_own() -> None:
    ops = operations(first_id=41)
    assert [ops.take_id(), ops.take_id()] == [42, 43]


def test_ids_go_round_below_those_of_upkeep_and_are_never_nought() -> None:
    ops = operations(first_id=OPERATION_ID_MAX - 1)
    taken = [ops.take_id(), ops.take_id()]
    assert taken == [OPERATION_ID_MAX, 1]
    assert not any(map(is_handoff, taken))


def test_an_answer_goes_to_the_session_or_to_the_node_that_sent_the_write_on() -> None:
    ops, out = operations(), Outbox()
    ops.begin(out, NOW, WALL_MS)
    ops.answer(4, RESULT)
    ops.answer(-3, RESULT)
    assert (out.clients, out.peers) == ({SessionId(4): [RESULT]}, {3: [RESULT]})


def test_a_turn_has_an_outbox_and_instants_of_its_own() -> None:
    ops, out = operations(), Outbox()
    ops.begin(out, NOW, WALL_MS)
    assert (ops.out is out, ops.now, ops.wall_ms) == (True, NOW, WALL_MS)


# ---- who can be reached -------------------------------------------------------------------------


def test_the_nearest_are_this_node_the_healthy_and_then_the_suspects() -> None:
    ops = operations(up=(2, 3, 4))
    ops.suspects.add(2)
    assert ops.nearest((2, 3, 1, 5, 4)) == [1, 3, 4, 2]
    assert ops.nearest((2, 3)) == [3, 2]


def test_the_healthy_keep_the_order_of_the_owners() -> None:
    assert operations(up=(2, 3, 4)).nearest((4, 2, 3)) == [4, 2, 3]


def test_nodes_that_this_turn_speaks_to_already_come_first_but_no_suspects() -> None:
    ops = operations(up=(2, 3, 4))
    ops.out.send(NodeNumber(3), ReplicaRead(1, StorageKey(b"k"), NOW, b""))
    assert ops.nearest((1, 2, 4, 3)) == [1, 3, 2, 4]
    ops.suspects.add(3)
    assert ops.nearest((1, 2, 4, 3)) == [1, 2, 4, 3]


def test_a_node_is_healthy_that_is_reached_and_no_suspect_and_this_one_always_is() -> None:
    ops = operations(up=(2, 3))
    ops.suspects.add(3)
    assert [ops.is_healthy(node) for node in (ME, 2, 3, 4)] == [True, True, False, False]


def test_owners_are_the_first_n_of_the_keys_partition() -> None:
    key = owned_by(CLUSTER, ME, is_owner=True)
    assert list(operations().owners(key, 3)) == ring(key)[:3]
    assert list(operations().owners(key, 1)) == ring(key)[:1]


# ---- who may stand in ---------------------------------------------------------------------------


def test_stand_ins_follow_the_owners_in_the_order_of_the_ring() -> None:
    key = owned_by(CLUSTER, ME, is_owner=True)
    ops = operations(up=(2, 3, 4, 5, 6))
    assert ops.stand_ins(key, ops.owners(key, 3)) == ring(key)[3:]


def test_only_the_healthy_stand_in_this_node_among_them() -> None:
    key = owned_by(CLUSTER, ME, is_owner=False)
    fallbacks = ring(key)[3:]
    others = [node for node in fallbacks if node != ME]
    ops = operations(up=(*ring(key)[:3], *others))
    assert ops.stand_ins(key, ring(key)[:3]) == fallbacks
    ops.suspects.add(others[0])
    ops.reachable.discard(others[1])
    assert ops.stand_ins(key, ring(key)[:3]) == [ME]
