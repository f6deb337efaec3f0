"""What a node tells of itself beside the other owners: convergence, repairs, markers kept."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.keys import Partition, encode_key, partition_of_key
from kvnode.core.messages import Outbox
from kvnode.core.node import Node
from kvnode.core.record import encode
from kvnode.core.topology import Keyspace
from kvnode.core.versions import Record
from kvnode.runtime.care import Care
from kvnode.runtime.clock import now_us, wall_ms
from kvnode.runtime.standing import Standing
from kvnode.storage.memory import MemoryEngine
from kvnode.storage.port import ReadFailure
from kvproto import kv_pb2
from tests.unit.core.builders import KEY, dot, record, tombstone, topology, version
from tests.unit.runtime.builders import edge, node
from tests.unit.runtime.test_care import Aborted, ask, keep

P = Partition(partition_of_key(KEY, 4))


class Desk:
    """A node of three that serves nobody, and what it tells."""

    def __init__(self, served: Node | None = None) -> None:
        self.node = served or node()
        self.engine = MemoryEngine()
        self.wakes = 0
        known = edge(self.node.topology)
        care = Care(self.node, known, node_id="n1")
        self.standing = Standing(self.node, known, self.engine, care, node_id="n1", wake=self._wake)

    def _wake(self) -> None:
        self.wakes += 1

    def unary(self) -> Any:
        return self.standing.unary()

    def ask(self, method: str, request: Any, answer: Any) -> Any:
        return ask(self, method, request, answer)  # type: ignore[arg-type]

    def convergence(self, *, kick: bool = False) -> kv_pb2.Convergence:
        asked = kv_pb2.GetConvergenceRequest(kick=kick)
        answer: kv_pb2.Convergence = self.ask("GetConvergence", asked, kv_pb2.Convergence)
        return answer

    def why(self, key: bytes = b"k", keyspace: str = "") -> kv_pb2.WhyNotReapedResponse:
        asked = kv_pb2.WhyNotReapedRequest(key=key, keyspace=keyspace)
        answer: kv_pb2.WhyNotReapedResponse = self.ask(
            "WhyNotReaped", asked, kv_pb2.WhyNotReapedResponse
        )
        return answer

    def hold(self, state: Record) -> None:
        batch = WriteBatch()
        batch.put(Family.RECORDS, KEY, encode(KEY, state))
        self.engine.write(batch)


# ---- convergence -------------------------------------------------------------------------------


def test_every_owned_partition_has_a_root_for_each_n_by_which_it_is_owned() -> None:
    spaces = [Keyspace(name="default"), Keyspace(name="two", n=2, r=1, w=1)]
    desk = Desk(node(topology(3, keyspaces=spaces)))
    said = desk.convergence()
    rows = list(zip(said.partition, said.n, said.root, strict=True))
    owners = desk.node.topology.owner_numbers
    assert [(p, n) for p, n, _ in rows] == [
        (p, n) for n in (2, 3) for p, row in enumerate(owners) if 1 in row[:n]
    ]
    assert {root for _, _, root in rows} == {0}


def test_a_record_changes_the_root_of_its_partition_alone() -> None:
    desk = Desk()
    desk.node.upkeep.holdings.trees.note(KEY, None, encode(KEY, record(version("a1"))))
    said = desk.convergence()
    changed = [p for p, root in zip(said.partition, said.root, strict=True) if root]
    assert changed == [P]


def test_pending_hints_doubts_and_rebuilding_are_told() -> None:
    desk = Desk()
    keep(desk.node, 2)
    desk.node.hints.ledgers[3] = type(desk.node.hints.ledgers[2])(delivered=9)
    desk.node.upkeep.holdings.proving.doubt([Partition(3)])
    desk.node.upkeep.holdings.trees.doubt(Partition(5))
    said = desk.convergence()
    assert [(each.owner, each.pending) for each in said.hints] == [("n2", 1)]
    assert list(said.unproven) == [3]
    assert list(said.unknown) == [5]
    assert 5 not in said.partition


def test_looking_starts_nothing_and_a_kick_does() -> None:
    desk = Desk()
    upkeep = desk.node.upkeep
    upkeep.on_up(2, now_us())
    desk.convergence()
    assert desk.wakes == 0
    desk.convergence(kick=True)
    assert desk.wakes == 1
    out = Outbox()
    upkeep.on_time(now_us(), wall_ms(), out)
    assert 2 in out.held_peers  # it compares now, not when its first sweep would be


# ---- repair ------------------------------------------------------------------------------------


def test_a_repair_is_begun_looked_at_and_cancelled() -> None:
    desk = Desk()
    none = desk.ask("GetRepair", kv_pb2.GetRepairRequest(), kv_pb2.Repair)
    assert (none.node, none.state, len(none.lines)) == ("n1", "none", 0)
    begun = desk.ask("StartRepair", kv_pb2.StartRepairRequest(partitions=[P]), kv_pb2.Repair)
    assert begun.state == "running"
    assert begun.began_ms > 0
    assert [(x.partition, x.peer, x.state) for x in begun.lines] == [
        (P, "n2", "waiting"),
        (P, "n3", "waiting"),
    ]
    ended = desk.ask("CancelRepair", kv_pb2.CancelRepairRequest(), kv_pb2.Repair)
    assert ended.state == "cancelled"
    assert ended.ended_ms >= begun.began_ms


def test_a_partition_that_is_none_is_refused_with_the_range() -> None:
    with pytest.raises(Aborted, match="partition must be 0 to 15, got 16"):
        Desk().ask("StartRepair", kv_pb2.StartRepairRequest(partitions=[16]), kv_pb2.Repair)


# ---- why not reaped ----------------------------------------------------------------------------


def test_a_key_of_which_nothing_is_held_has_no_marker() -> None:
    said = Desk().why()
    assert (said.node, said.owner, said.state) == ("n1", True, "none")


def test_a_key_with_a_value_has_nothing_to_reap() -> None:
    desk = Desk()
    desk.hold(record(version("a1"), tombstone("b1")))
    assert desk.why().state == "value"


def test_who_does_not_own_a_key_says_so() -> None:
    cluster = topology(5)
    stranger = next(n for n in range(1, 6) if n not in cluster.owner_numbers[P][:3])
    said = Desk(node(cluster, number=stranger)).why()
    assert (said.owner, said.state) == (False, "")


def test_a_marker_waits_for_owners_that_were_not_compared_with() -> None:
    desk = Desk()
    desk.hold(record(tombstone("a3")))
    said = desk.why()
    assert said.state == "waits"
    waits = {each.node: (each.why, list(each.lacks)) for each in said.waits_for}
    assert waits["n1"] == (
        "its floor was too low when last compared",
        [f"{dot('a3').actor:016x}:3 (at 0)"],
    )
    assert waits["n2"] == waits["n3"] == ("not compared with in this epoch", [])


def test_an_unproven_owner_is_told_as_such() -> None:
    desk = Desk()
    desk.hold(record(tombstone("a1")))
    desk.node.upkeep.holdings.floors.add(P, dot("a1"))
    assert {each.node for each in desk.why().waits_for} == {"n2", "n3"}
    desk.node.upkeep.holdings.proving.doubt([P])
    assert [(e.node, e.why) for e in desk.why().waits_for if e.node == "n1"] == [("n1", "unproven")]


def test_an_expiry_within_the_skew_of_clocks_is_too_recent() -> None:
    desk = Desk()
    desk.hold(record(version("a1", expires_ms=wall_ms() - 1_000)))
    assert desk.why().state == "recent"


@pytest.mark.parametrize("how", ["damaged", "failed"])
def test_a_record_that_cannot_be_read_is_told(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    found: Any = b"\xff" if how == "damaged" else ReadFailure("injected")
    monkeypatch.setattr(desk.engine, "multi_get", lambda *_: [found])
    assert desk.why().state == "unreadable"


def test_wrong_keys_and_keyspaces_are_refused() -> None:
    for key, keyspace, code in (
        (b"", "", grpc.StatusCode.INVALID_ARGUMENT),
        (b"k" * 4_097, "", grpc.StatusCode.INVALID_ARGUMENT),
        (b"k", "nowhere", grpc.StatusCode.NOT_FOUND),
    ):
        with pytest.raises(Aborted) as ended:
            Desk().why(key, keyspace)
        assert ended.value.args[0] is code


def test_figures_speak_of_upkeep() -> None:
    desk = Desk()
    desk.node.upkeep.holdings.proving.doubt([P])
    shown = {name: value for _, name, _, value in desk.standing.figures()}
    assert shown["partitions_unproven"] == 1
    assert shown["exchanges_under_way"] == shown["exchanges"] == shown["reaped"] == 0


def test_keys_are_of_the_partition_that_the_tests_think() -> None:
    assert encode_key("default", b"k") == KEY
