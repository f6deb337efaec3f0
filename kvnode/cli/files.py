"""`load` and `verify`: a folder of files into the store, and back, byte by byte.

Decides what counts as done, and how much is in flight: at most --jobs requests, each with at most
one part, so that memory is bounded by jobs x 512 KiB however large the files are. Laws: a manifest
is written after all its parts are acknowledged; a file that changed meanwhile is failed, not
half-stored; every file is counted exactly once; a cluster that is gone ends the run soon, not after
one time-out for each file. Held by tests/unit/cli/test_files.py. Leaves out the format
(kvnode/cli/parts.py) and what a folder holds (kvnode/cli/walk.py).
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import kvclient
from kvnode.cli import target, terminal
from kvnode.cli.arguments import Arguments
from kvnode.cli.errors import FAILED
from kvnode.cli.parts import PART_BYTES, BadManifest, Manifest, digest, split, whole
from kvnode.cli.progress import Progress, progress
from kvnode.cli.walk import Changed, File, Found, Reader, walk

SHOWN_MAX = 20
GIVE_UP_AFTER = 100
"""Failures in a row, with no success in between."""

_FATAL = (kvclient.UnknownKeyspace, kvclient.Unauthenticated, kvclient.PermissionDenied)
_Answer = TypeVar("_Answer")


class Store(Protocol):
    """What loading and verifying need of a keyspace."""

    async def get(self, key: bytes, /) -> bytes | None:
        """Return the value, or None."""

    async def put(self, key: bytes, value: bytes, /) -> object:
        """Store the value."""


@dataclass(slots=True)
class Tally:
    """What came of the files so far. Every file is in exactly one of these."""

    files: int = 0
    size: int = 0
    problems: dict[str, list[tuple[bytes, str]]] = field(default_factory=dict)
    """By kind ("failed", "missing", "differ"): key and reason."""
    failures_in_a_row: int = 0

    def succeed(self, file: File) -> None:
        """Count a file that is as it should be."""
        self.files += 1
        self.size += file.size
        self.failures_in_a_row = 0

    def note(self, kind: str, key: bytes, why: str) -> None:
        """Count one that is not."""
        self.problems.setdefault(kind, []).append((key, why))
        self.failures_in_a_row = self.failures_in_a_row + 1 if kind == "failed" else 0

    def count(self, kind: str) -> int:
        """Return how many problems of that kind there are."""
        return len(self.problems.get(kind, ()))


def load(arguments: Arguments) -> int:
    """Store every regular file below a folder."""
    return _work(arguments, Loading, "loaded", ("failed",))


def verify(arguments: Arguments) -> int:
    """Read every file's value back and compare."""
    return _work(arguments, Verifying, "verified", ("differ", "missing", "failed"))


def _work(arguments: Arguments, kind: type[Work], verb: str, problems: tuple[str, ...]) -> int:
    found = walk(arguments.folder, arguments.prefix)
    addresses = target.reachable(arguments)
    began = time.monotonic()
    with progress(verb, files=len(found.files), size=found.size) as shown:
        tally = asyncio.run(_through(arguments, addresses, kind, found, shown))
    _report(tally, problems)
    outcome = ", ".join(f"{tally.count(problem):,} {problem}" for problem in problems)
    done = f"{terminal.count(tally.files, 'file')}, {terminal.size(tally.size)}"
    took = terminal.seconds(time.monotonic() - began)
    print(f"{verb} {done} in {took}: {outcome}{_skipped(found)}")
    return FAILED if any(map(tally.count, problems)) else 0


async def _through(
    arguments: Arguments,
    addresses: tuple[str, ...],
    kind: type[Work],
    found: Found,
    shown: Progress,
) -> Tally:
    async with kvclient.AsyncClient(
        addresses,
        timeout=arguments.timeout,
        session=False,  # no key is asked for twice
    ) as client:
        work = kind(client.keyspace(arguments.keyspace), jobs=arguments.jobs, shown=shown)
        return await work.run(found)


def _report(tally: Tally, kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        listed = sorted(tally.problems.get(kind, ()))
        for key, why in listed[:SHOWN_MAX]:
            print(f"{kind}: {terminal.printable(key)}: {why}")
        if len(listed) > SHOWN_MAX:
            print(f"{kind}: … and {len(listed) - SHOWN_MAX:,} more")


def _skipped(found: Found) -> str:
    kinds = [terminal.count(number, kind) for kind, number in sorted(found.skipped.items())]
    return f"; skipped {', '.join(kinds)}" if kinds else ""


class Work(ABC):
    """Takes files one by one, several at a time, through `one`."""

    def __init__(self, store: Store, *, jobs: int, shown: Progress) -> None:
        """Work on `store` with at most `jobs` requests in flight."""
        self.store = store
        self.tally = Tally()
        self._jobs = jobs
        self._slots = asyncio.Semaphore(jobs)
        self._shown = shown

    async def run(self, found: Found) -> Tally:
        """Work through all files; return what came of them."""
        for key, why in found.failed:
            self.tally.note("failed", key, why)
        self.tally.failures_in_a_row = 0
        waiting = iter(found.files)
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._jobs, len(found.files))):
                    group.create_task(self._worker(waiting))
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        for file in waiting:
            self.tally.note("failed", file.key, "not tried: gave up")
        return self.tally

    async def _worker(self, waiting: Iterator[File]) -> None:
        while self.tally.failures_in_a_row < GIVE_UP_AFTER:
            file = next(waiting, None)
            if file is None:
                return
            await self._guarded(file)
            self._shown.file_done()

    async def _guarded(self, file: File) -> None:
        """Do one file; what goes wrong with it is its own matter."""
        try:
            await self.one(file)
        except _FATAL:
            raise
        except Changed:
            self.tally.note("failed", file.key, "changed while it was being read")
        except OSError as error:
            self.tally.note("failed", file.key, f"cannot be read: {error.strerror}")
        except (kvclient.KVError, BadManifest) as error:
            self.tally.note("failed", file.key, str(error))

    @abstractmethod
    async def one(self, file: File) -> None:
        """Do one file and count it."""

    async def in_slot(self, work: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Do what holds at most one part in memory, when its turn has come."""
        async with self._slots:
            return await work()

    async def each_part(
        self,
        manifest: Manifest,
        key: bytes,
        work: Callable[[int, bytes], Coroutine[Any, Any, None]],
    ) -> None:
        """Do `work(offset, key of the part)` for all parts; the first failure ends it."""
        numbered = enumerate(manifest.keys(key))
        while window := [pair for _, pair in zip(range(self._jobs), numbered, strict=False)]:
            try:
                async with asyncio.TaskGroup() as group:
                    for index, part in window:
                        group.create_task(work(index * manifest.part_bytes, part))
            except ExceptionGroup as several:
                raise several.exceptions[0] from None

    def moved(self, size: int) -> None:
        """Show that so many bytes are through."""
        self._shown.bytes_done(size)


class Loading(Work):
    """Files into the store."""

    async def one(self, file: File) -> None:
        """Store one file."""
        if file.size > PART_BYTES:
            await self._in_parts(file)
        else:
            await self.in_slot(lambda: self._whole(file))
        self.tally.succeed(file)

    async def _whole(self, file: File) -> None:
        data = await asyncio.to_thread(_read, file)
        await self.store.put(file.key, whole(data))
        self.moved(len(data))

    async def _in_parts(self, file: File) -> None:
        with await asyncio.to_thread(Reader, file) as reader:
            manifest = await asyncio.to_thread(_summed, reader)

            async def part(offset: int, key: bytes) -> None:
                await self.in_slot(lambda: self._part(reader, offset, key))

            await self.each_part(manifest, file.key, part)
            reader.check()
        await self.in_slot(lambda: self.store.put(file.key, manifest.encoded()))

    async def _part(self, reader: Reader, offset: int, key: bytes) -> None:
        length = min(PART_BYTES, reader.size - offset)
        data = await asyncio.to_thread(reader.read, offset, length)
        await self.store.put(key, data)
        self.moved(length)


class Verifying(Work):
    """Files against the store."""

    async def one(self, file: File) -> None:
        """Compare one file."""
        value = await self.in_slot(lambda: self.store.get(file.key))
        if value is None:
            self.tally.note("missing", file.key, "no such key")
            return
        meaning = split(value)
        with await asyncio.to_thread(Reader, file) as reader:
            wrong = await self._compared(file.key, meaning, reader)
            reader.check()
        if wrong is None:
            self.tally.succeed(file)
        else:
            self.tally.note(*wrong)

    async def _compared(
        self, key: bytes, meaning: bytes | Manifest, reader: Reader
    ) -> tuple[str, bytes, str] | None:
        """Return how the file differs from what is stored, or None."""
        stored = meaning.size if isinstance(meaning, Manifest) else len(meaning)
        if stored != reader.size:
            return "differ", key, f"{stored:,} bytes stored, {reader.size:,} in the file"
        if isinstance(meaning, Manifest):
            return await self._parts(key, meaning, reader)
        difference = await asyncio.to_thread(_difference, reader, 0, meaning)
        self.moved(stored)
        return None if difference is None else ("differ", key, difference)

    async def _parts(
        self, key: bytes, manifest: Manifest, reader: Reader
    ) -> tuple[str, bytes, str] | None:
        wrong: list[tuple[str, bytes, str]] = []

        async def compare(offset: int, name: bytes) -> None:
            length = min(manifest.part_bytes, manifest.size - offset)
            data = await self.store.get(name)
            if data is None:
                wrong.append(("missing", key, f"the part at byte {offset:,}"))
            elif len(data) != length:
                wrong.append(("differ", key, f"{len(data):,} bytes in the part at {offset:,}"))
            elif difference := await asyncio.to_thread(_difference, reader, offset, data):
                wrong.append(("differ", key, difference))
            self.moved(length)

        async def part(offset: int, name: bytes) -> None:
            await self.in_slot(lambda: compare(offset, name))

        await self.each_part(manifest, key, part)
        return min(wrong, default=None)


def _read(file: File) -> bytes:
    with Reader(file) as reader:
        if reader.size > PART_BYTES:
            raise Changed
        data = reader.read(0, reader.size)
        reader.check()
    return data


def _summed(reader: Reader) -> Manifest:
    """Return the manifest of a file: one pass over it."""
    running = digest()
    for offset in range(0, reader.size, PART_BYTES):
        running.update(reader.read(offset, min(PART_BYTES, reader.size - offset)))
    return Manifest(size=reader.size, part_bytes=PART_BYTES, digest=running.digest())


def _difference(reader: Reader, offset: int, stored: bytes) -> str | None:
    """Return where the file, from `offset`, differs from the stored bytes."""
    length = min(len(stored), reader.size - offset)
    data = reader.read(offset, length)
    if data == stored:
        return None
    pairs = zip(data, stored, strict=False)
    first = next((i for i, (a, b) in enumerate(pairs) if a != b), length)
    return f"from byte {offset + first:,} on"
