"""Claims about the adapters in bench/peers, with clients that only note what they are asked.

Each needs the client of its store (the extra `peers`), and is skipped aloud without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest


class NotedEtcd:
    """Has one key, which somebody else writes between our first read and our first transaction."""

    def __init__(self) -> None:
        self.revisions = [7, 8]
        self.asked: list[Any] = []
        self.transactions = SimpleNamespace(
            mod=lambda _key: Revision(),
            put=lambda key, value: ("put", key, value),
            get=lambda key: ("get", key),
        )

    async def get(self, key: bytes) -> object:
        self.asked.append(("get", key))
        return SimpleNamespace(mod_revision=self.revisions[0], value=b"old")

    async def transaction(self, *, compare: Any, success: Any, failure: Any) -> Any:
        self.asked.append((compare, success))
        self.revisions = self.revisions[1:] or self.revisions
        return len(self.asked) > 2, []


class Revision:
    """What aetcd's transactions compare."""

    def __eq__(self, other: object) -> bool:
        return ("mod", other)  # type: ignore[return-value]  # as aetcd does it

    __hash__ = None  # type: ignore[assignment]


def test_an_etcd_modify_writes_only_in_place_of_what_it_has_read() -> None:
    pytest.importorskip("aetcd")
    from bench.peers.etcd import Etcd  # noqa: PLC0415

    db = NotedEtcd()
    assert asyncio.run(Etcd(db).modify(b"k", b"new"))
    write = [("put", b"k", b"new")]
    assert db.asked == [
        ("get", b"k"),
        ([("mod", 7)], write),
        ("get", b"k"),
        ([("mod", 8)], write),
    ]


class NotedPipeline:
    """Says how many replicas WAIT has reached."""

    def __init__(self, reached: int) -> None:
        self.reached = reached
        self.commands: list[tuple[Any, ...]] = []

    def execute_command(self, *words: Any, target_nodes: object = None) -> None:
        self.commands.append((*words, target_nodes))

    async def execute(self) -> list[Any]:
        return [True, self.reached]


@pytest.mark.parametrize("reached", [0, 1])
def test_a_redis_write_counts_once_as_many_replicas_have_it(reached: int) -> None:
    pytest.importorskip("redis")
    from bench.peers.redis import NotReplicated, Redis  # noqa: PLC0415

    pipeline = NotedPipeline(reached)
    db = SimpleNamespace(pipeline=lambda: pipeline, get_node_from_key=lambda key: f"of {key}")
    put = Redis(db, 1).put(b"k", b"v")
    if reached:
        asyncio.run(put)
    else:
        with pytest.raises(NotReplicated):
            asyncio.run(put)
    # Both to the same node, which for a pipeline is one connection: WAIT is about that one.
    assert pipeline.commands == [("SET", b"k", b"v", None), ("WAIT", 1, 30_000, ["of k"])]


def test_each_redis_machine_has_a_master_and_a_replica_of_each_other() -> None:
    pytest.importorskip("redis")
    from bench.peers import redis  # noqa: PLC0415

    names = [redis._name(place) for place in range(9)]
    assert names[:3] == ["redis1", "redis2", "redis3"]
    assert sorted(names[3:]) == [
        *("redis1-of-2", "redis1-of-3", "redis2-of-1", "redis2-of-3"),
        *("redis3-of-1", "redis3-of-2"),
    ]
    running: Any = SimpleNamespace(pids=dict(zip(names, range(9), strict=True)))
    assert len(redis._machine(running, 0)) == 3


class NotedNodes:
    """ZooKeeper's nodes; somebody else writes between our first read and our first write."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []
        self.versions = [7, 8, 8]

    def sync_async(self, path: str) -> None:
        self.asked.append(("sync", path))

    def get_async(self, path: str) -> Answered:
        self.asked.append(("get", path))
        return Answered((b"old", SimpleNamespace(version=self.versions[0])))

    def set_async(self, path: str, value: bytes, version: int) -> Answered:
        from kazoo.exceptions import BadVersionError  # noqa: PLC0415

        self.asked.append(("set", path, value, version))
        self.versions = self.versions[1:]
        return Answered(None if version == self.versions[0] else BadVersionError())


class Answered:
    """A result of kazoo's that is there already."""

    def __init__(self, value: object) -> None:
        self.exception = value if isinstance(value, Exception) else None
        self.value = value

    def rawlink(self, callback: Callable[[Answered], None]) -> None:
        callback(self)


def test_a_zookeeper_modify_reads_what_is_current_and_writes_in_place_of_that() -> None:
    pytest.importorskip("kazoo")
    from bench.peers.zookeeper import ZooKeeper  # noqa: PLC0415

    db = NotedNodes()

    async def modify() -> bool:
        return await ZooKeeper(db).modify(b"k", b"new")

    assert asyncio.run(modify())
    path = f"/bench/{b'k'.hex()}"
    read = [("sync", path), ("get", path)]
    assert db.asked == [
        *read,
        ("set", path, b"new", 7),
        *read,
        ("set", path, b"new", 8),
    ]


def test_cassandras_nodes_take_turns_around_the_ring() -> None:
    pytest.importorskip("cassandra")
    from bench.peers import cassandra  # noqa: PLC0415

    owners = {token: number for number in range(3) for token in cassandra._tokens(number)}
    assert len(owners) == 48
    assert [owners[token] for token in sorted(owners)] == [0, 1, 2] * 16
    assert all(-(1 << 63) <= token < 1 << 63 for token in owners)
