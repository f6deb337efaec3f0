"""What a store must be able to do to be measured, and how ours does it.

Decides what each kind of operation is in terms of a store's client. Laws: a put and a get are the
client's own methods, with nothing between; a modify writes in place of exactly what it has read.
Held by tests/unit/bench/test_store.py. Leaves out other stores: bench/peers.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import kvclient

TIMEOUT_S = 30.0
"""Longer than any answer should take: a slow one is to be measured, not cut."""
OURS = "kvnode.bench.store:connect"


class Store(Protocol):
    """A connected client of some store."""

    @property
    def failures(self) -> tuple[type[Exception], ...]:
        """What its calls raise when an operation fails; anything else is a bug, and ends a run."""

    @property
    def put(self) -> Callable[[bytes, bytes], Awaitable[object]]:
        """Set a key, as durably as was asked for."""

    @property
    def get(self) -> Callable[[bytes], Awaitable[bytes | None]]:
        """Return the value of a key."""

    async def modify(self, key: bytes, value: bytes) -> bool:
        """Read a key, then write in place of what was read; return whether there was a value."""

    async def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the values of many keys."""

    def counters(self) -> Mapping[str, int]:
        """Return what its client counts, if anything: by how much it rises is told of a run."""

    async def close(self) -> None:
        """Disconnect."""


Options: TypeAlias = Mapping[str, Any]
Connect: TypeAlias = Callable[[str, Options], Awaitable[Store]]
"""Given where the store is and what its adapter understands besides."""


def named(name: str) -> Connect:
    """Return the adapter that is named "module:function". Raises: ImportError, AttributeError."""
    module, _, function = name.partition(":")
    found: Connect = getattr(importlib.import_module(module), function)
    return found


class Kvnode:
    """Our own store, by its client for event loops."""

    failures: tuple[type[Exception], ...] = (kvclient.KVError,)

    def __init__(self, db: kvclient.AsyncClient, options: Options) -> None:
        """Ask the keyspace and the quorums that `options` names, if any."""
        keyspace = db.keyspace(options.get("keyspace", "default"))
        r, w = options.get("r"), options.get("w")
        self.put = keyspace.put if w is None else functools.partial(keyspace.put, w=w)
        self.get = keyspace.get if r is None else functools.partial(keyspace.get, r=r)
        self._db, self._keyspace, self._r = db, keyspace, r

    async def modify(self, key: bytes, value: bytes) -> bool:
        """Read with the context that the write then names: it replaces just what was seen."""
        record = await self._keyspace.get_record(key, r=self._r)
        await self.put(key, value, context=record.context if record is not None else None)
        return record is not None and record.value is not None

    async def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Read them in one call."""
        return await self._keyspace.get_many(keys, r=self._r)

    def counters(self) -> Mapping[str, int]:
        """Return attempts, reroutes, frames and the like."""
        return dataclasses.asdict(self._db.metrics)

    async def close(self) -> None:
        """Disconnect."""
        await self._db.close()


async def connect(where: str, options: Options) -> Store:
    """Return a client of the kvnode cluster that has these seeds.

    Args:
        where: "host:port", or several with commas.
        options: keyspace, r, w; silence_ms, after which the client asks another node.
    """
    bounds = kvclient.Bounds()
    if "silence_ms" in options:
        bounds = dataclasses.replace(bounds, silence_ms=options["silence_ms"])
    db = kvclient.AsyncClient(where, timeout=TIMEOUT_S, bounds=bounds)
    await db.__aenter__()
    return Kvnode(db, options)
