"""Listing conflicts: the open ones, then the settled ones, page by page."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.conflict_log import encode_entry, entry_of
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.node import Node
from kvnode.core.record import encode
from kvnode.core.versions import Record, prune
from kvnode.runtime.conflicts import Conflicts
from kvnode.storage.memory import MemoryEngine
from kvproto import kv_pb2
from tests.unit.core.builders import WALL_MS, dot, record, stamp, tombstone, version
from tests.unit.runtime.builders import edge, node
from tests.unit.runtime.test_care import Aborted, Ended


class Store:
    """A node's store and what is listed of it."""

    def __init__(self, **limits: Any) -> None:
        self.engine = MemoryEngine()
        self.node: Node = node(**limits)
        self.conflicts = Conflicts(self.node, edge(self.node.topology), self.engine)
        self.log = self.node.replica.conflicts

    def open(self, name: bytes, keyspace: str = "default") -> StorageKey:
        key = encode_key(keyspace, name)
        state = self.conflict(key)
        self.write((Family.RECORDS, key, encode(key, state)), (Family.CONFLICTS, key, b""))
        return key

    def settle(self, name: bytes, ms: int = 0, *, prunes: bool = True, value: bytes = b"y") -> None:
        key = encode_key("default", name)
        state = self.conflict(key, value)
        entry = entry_of(
            state,
            key,
            time_ms=WALL_MS + ms,
            winner=dot("a1"),
            loser=dot("b1"),
            rule="most votes: 2 to 1",
        )
        left = prune(state, (dot("b1"),)) if prunes else state
        self.write(
            (Family.CONFLICT_LOG, *encode_entry(entry)), (Family.RECORDS, key, encode(key, left))
        )
        self.log.entries += 1

    def conflict(self, key: StorageKey, value: bytes = b"y") -> Record:
        one, other = version("a1", b"x", 1, key=key), version("b1", value, 2, key=key)
        return record(one, other, votes=((1, "a1"), (2, "a1"), (3, "b1")))

    def write(self, *changes: tuple[Family, bytes, bytes]) -> None:
        batch = WriteBatch()
        for change in changes:
            batch.put(*change)
        self.engine.write(batch)

    def page(self, **request: Any) -> kv_pb2.ListConflictsResponse:
        return self.conflicts.page(kv_pb2.ListConflictsRequest(**request))

    def all(self, **request: Any) -> list[kv_pb2.Conflict]:
        found: list[kv_pb2.Conflict] = []
        after = b""
        while True:
            page = self.page(after=after, **request)
            found += page.conflicts
            if not (after := page.next):
                return found


def test_an_open_conflict_is_told_with_votes_and_who_leads() -> None:
    store = Store()
    store.open(b"k")
    (found,) = store.all()
    assert (found.keyspace, found.key, found.settled_ms) == ("default", b"k", 0)
    assert [(one.value, one.won) for one in found.siblings] == [(b"x", True), (b"y", False)]
    assert [(vote.node, vote.sibling) for vote in found.votes] == [("n1", 0), ("n2", 0), ("n3", 1)]
    assert not found.HasField("winner")


def test_a_settled_conflict_is_told_with_what_won_what_lost_when_and_why() -> None:
    store = Store()
    store.settle(b"k", 7)
    (found,) = store.all()
    assert (found.key, found.settled_ms, found.rule) == (b"k", WALL_MS + 7, "most votes: 2 to 1")
    assert [(one.value, one.won) for one in found.siblings] == [(b"y", False)]
    assert [(vote.node, vote.sibling) for vote in found.votes] == [("n3", 0)]
    winner = found.winner
    assert (winner.actor, winner.counter, winner.timestamp) == (*dot("a1"), stamp(1))
    assert (found.winner_held, winner.value) == (True, b"x")


def test_a_winner_that_was_replaced_since_is_told_without_its_value() -> None:
    store = Store()
    store.settle(b"k")
    key = encode_key("default", b"k")
    store.write((Family.RECORDS, key, encode(key, record(tombstone("c1", 9, key=key)))))
    (found,) = store.all()
    assert (found.winner_held, found.winner.value, found.winner.actor) == (False, b"", 1)


def test_what_was_logged_and_still_lives_is_listed_as_open_alone() -> None:
    store = Store()
    store.settle(b"k", prunes=False)
    store.open(b"k")
    (found,) = store.all()
    assert found.settled_ms == 0


def test_open_ones_come_first_and_each_state_can_be_had_alone() -> None:
    store = Store()
    for name in (b"b", b"a"):
        store.settle(name, ord(name))
        store.open(b"o" + name)
    names = {
        state: [found.key for found in store.all(state=state)] for state in ("open", "settled")
    }
    assert sorted(names["open"]) == [b"oa", b"ob"]
    assert names["settled"] == [b"a", b"b"]
    assert [found.key for found in store.all()] == [*names["open"], *names["settled"]]


def test_pages_of_any_size_list_everything_once() -> None:
    store = Store()
    for number in range(7):
        store.open(b"o%d" % number)
        store.settle(b"s%d" % number, number)
    for limit in (1, 2, 3, 7, 100):
        found = [conflict.key for conflict in store.all(limit=limit)]
        assert len(found) == len(set(found)) == 14


def test_a_page_ends_after_a_bounded_number_of_bytes() -> None:
    store = Store(explain_bytes=1 << 10)
    for number in range(5):
        store.settle(b"%d" % number, number, value=b"y" * 700)
    assert len(store.page(state="settled").conflicts) == 2
    assert len(store.all(state="settled")) == 5


def test_one_keyspace_alone_can_be_listed() -> None:
    store = Store()
    store.open(b"k")
    store.open(b"k", "newest")
    store.settle(b"s")
    assert [found.keyspace for found in store.all(keyspace="newest")] == ["newest"]
    assert len(store.all(keyspace="default")) == 2


def test_damage_and_unknown_keyspaces_are_left_out() -> None:
    store = Store()
    key = store.open(b"k")
    store.write((Family.RECORDS, key, b"damaged"))
    store.open(b"k", "unheard-of")
    store.settle(b"s")
    ((name, value),) = store.engine.scan(Family.CONFLICT_LOG, b"", None, 9)
    store.write((Family.CONFLICT_LOG, name, value[:-1]))
    assert store.all() == []


@pytest.mark.parametrize(
    "request_", [{"state": "closed"}, {"after": b"?k"}], ids=["state", "token"]
)
def test_what_is_no_request_is_refused(request_: dict[str, Any]) -> None:
    data = kv_pb2.ListConflictsRequest(**request_).SerializeToString()
    ended: Any = Ended()
    with pytest.raises(Aborted) as refused:
        asyncio.run(Store().conflicts.answer(data, ended))
    assert refused.value.args[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_a_request_is_answered_with_a_page() -> None:
    store = Store()
    store.open(b"k")
    ended: Any = Ended()
    data = asyncio.run(store.conflicts.answer(b"", ended))
    assert len(kv_pb2.ListConflictsResponse.FromString(data).conflicts) == 1


def test_figures_tell_open_ones_and_the_log() -> None:
    store = Store()
    store.settle(b"k")
    figures = {name: value for _, name, _, value in store.conflicts.figures()}
    assert figures["conflict_log_entries"] == 1
    assert figures["conflicts_open"] == figures["conflicts_settled"] == 0
