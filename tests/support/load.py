"""Write load, and what became of each write: for tests that kill nodes under it.

Laws: every key is written once; what was acknowledged, and by whom, is known the moment that the
client has it; a failed write is kept with its error. Its test files are tests/cluster/test_crash.py
and tests/cluster/test_life.py.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import kvclient
from kvnode.core.batch import Family
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.record import decode
from kvnode.storage.engine import open_read_only
from tests.support.nodes import until

_THREADS = 12
_SIZES = (*(100, 0, 1_000, 30) * 5, 100_000)
"""Of values, in turn; the large ones travel apart from the small ones."""


class Acked(NamedTuple):
    """One acknowledged write."""

    value: bytes
    by: tuple[str, ...]


class Writers:
    """Threads that put new keys until they are told to stop."""

    def __init__(self, client: kvclient.Client, *, prefix: str = "w") -> None:
        """Write through `client`; `with` starts and stops it."""
        self._client = client
        self._prefix = prefix
        self._numbers = itertools.count()
        self._is_over = threading.Event()
        self._may_write = threading.Event()
        self._may_write.set()
        self._threads = [threading.Thread(target=self._write) for _ in range(_THREADS)]
        self.acked: dict[bytes, Acked] = {}
        self.failed: list[tuple[bytes, kvclient.KVError]] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._may_write.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Wait until so many more writes are acknowledged."""
        wanted = len(self.acked) + more
        until(lambda: len(self.acked) >= wanted, what=f"the {wanted}th acknowledgement")

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Begin no new write meanwhile, so that the machine is free for something else."""
        self._may_write.clear()
        try:
            yield
        finally:
            self._may_write.set()

    def _write(self) -> None:
        while self._may_write.wait() and not self._is_over.is_set():
            number = next(self._numbers)
            key = f"{self._prefix}{number}".encode()
            value = key.ljust(_SIZES[number % len(_SIZES)], b".")
            try:
                self.acked[key] = Acked(value, self._client.put(key, value).acked_by)
            except kvclient.KVError as error:
                self.failed.append((key, error))


def acked_by(node: str, acked: Mapping[bytes, Acked]) -> dict[bytes, bytes]:
    """Return the writes that a node has acknowledged, with their values."""
    return {key: write.value for key, write in dict(acked).items() if node in write.by}


def missing_on(store: Path, writes: Mapping[bytes, bytes]) -> list[bytes]:
    """Return those writes that a stopped node's store does not hold, opened as it lies there."""
    reader = open_read_only(store)
    try:
        keys = [encode_key("default", key) for key in writes]
        found = reader.multi_get(Family.RECORDS, keys)
    finally:
        reader.close()
    rows = zip(writes.items(), keys, found, strict=True)
    return [key for (key, value), place, data in rows if not _holds(data, place, value)]


def _holds(data: object, place: StorageKey, value: bytes) -> bool:
    if not isinstance(data, bytes):
        return False
    return any(version.value == value for version in decode(place, data).versions)
