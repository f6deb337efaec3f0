"""Claims about kvnode/bench/store.py, with a client that only notes what it is asked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

import kvclient
from kvnode.bench import store
from kvnode.bench.store import Kvnode


class NotedKeyspace:
    """Has one value, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.record: object = SimpleNamespace(value=b"old", context=b"seen")

    async def put(self, key: bytes, value: bytes, **options: Any) -> None:
        self.asked.append(("put", key, value, options))

    async def get(self, key: bytes, **options: Any) -> bytes:
        self.asked.append(("get", key, options))
        return b"old"

    async def get_record(self, key: bytes, **options: Any) -> object:
        self.asked.append(("get_record", key, options))
        return self.record


def adapter(asked: NotedKeyspace, **options: Any) -> Kvnode:
    names: list[str] = []

    def named(name: str) -> NotedKeyspace:
        names.append(name)
        return asked

    made = Kvnode(cast("kvclient.AsyncClient", SimpleNamespace(keyspace=named)), options)
    assert names == [options.get("keyspace", "default")]
    return made


def test_a_modify_writes_in_place_of_exactly_what_it_has_read() -> None:
    keyspace = NotedKeyspace()
    assert asyncio.run(adapter(keyspace, r=1, w=3).modify(b"k", b"new"))
    assert keyspace.asked == [
        ("get_record", b"k", {"r": 1}),
        ("put", b"k", b"new", {"w": 3, "context": b"seen"}),
    ]


def test_a_modify_of_an_absent_key_says_so() -> None:
    keyspace = NotedKeyspace()
    keyspace.record = None
    assert not asyncio.run(adapter(keyspace).modify(b"k", b"new"))


def test_put_and_get_are_the_clients_own_unless_quorums_are_named() -> None:
    keyspace = NotedKeyspace()
    plain: Any = adapter(keyspace, keyspace="carts")
    assert plain.put == keyspace.put
    assert plain.get == keyspace.get
    asyncio.run(cast("Any", adapter(keyspace, r=1).get(b"k")))
    assert keyspace.asked == [("get", b"k", {"r": 1})]


def test_an_adapter_is_found_by_its_name() -> None:
    assert store.named(store.OURS) is store.connect
    with pytest.raises(AttributeError):
        store.named("kvnode.bench.store:nothing")
