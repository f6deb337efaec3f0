"""What the adapters of other stores share.

Decides how a store without a call for many keys reads many: each by itself, all at once. Held by
tests/unit/bench/test_peers.py.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence


class Peer(ABC):
    """A connected client of another store: see kvnode/bench/store.py."""

    failures: tuple[type[Exception], ...]

    @abstractmethod
    async def put(self, key: bytes, value: bytes, /) -> None:
        """Set a key."""

    @abstractmethod
    async def get(self, key: bytes, /) -> bytes | None:
        """Return a key's value."""

    @abstractmethod
    async def modify(self, key: bytes, value: bytes) -> bool:
        """Read a key, then write in place of what was read; return whether there was a value."""

    @abstractmethod
    async def close(self) -> None:
        """Disconnect."""

    async def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Read them all at once."""
        return await asyncio.gather(*map(self.get, keys))

    def counters(self) -> Mapping[str, int]:
        """Return nothing: these clients do not count."""
        return {}
