"""Claims about the adapters in bench/peers, with clients that only note what they are asked.

Each needs the client of its store (the extra `peers`), and is skipped aloud without.
"""

from __future__ import annotations

import asyncio
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
