"""The engine port: what a node may ask of its local store, and what each failure means.

An engine keeps ordered spaces of keys, one per `Family`. A write is atomic, visible at once, and
durable only after a later `flush`. Writes are numbered from 1 within one opening of the engine: the
number is the write's *position*, and "durable up to position p" is what acknowledgements wait for.

Laws (tests/unit/storage/test_engines.py, for every engine):
  1. A batch is applied in full or not at all, also across a crash.
  2. What a crash keeps is a prefix of the writes, and it holds everything up to the last flush.
  3. A key that cannot be read is a `ReadFailure` or an error, never an absence, never a short scan.
  4. After a flush has failed no later flush succeeds, until the engine is opened anew.

Reads, `write` and `scan` are for one thread, the event loop's; `flush` is for the storage thread.
Left out: transactions, snapshots, merge operators. Conflicts are decided in `kvnode.core`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType, Protocol, TypeAlias

from kvnode.core.batch import Family, WriteBatch

Position = NewType("Position", int)
"""How many writes an engine has taken since it was opened; 0 is before the first."""


class StorageError(Exception):
    """A fault of the local store. Each kind says what became of the write that met it."""


class StorageStalled(StorageError):
    """The engine is behind with its background work. Nothing was applied; try again later."""


class StorageFull(StorageError):
    """There is no room left on the disk. Nothing was applied."""


class StorageDamaged(StorageError):
    """Bytes on the disk are not what was written. A write that met this may have happened."""


class StorageFenced(StorageError):
    """The engine no longer takes writes until it is opened anew. A write may have happened."""


class StorageLocked(StorageError):
    """Another holder has the store open. Nothing happened."""


@dataclass(frozen=True, slots=True)
class ReadFailure:
    """Stands where a value would: this key could not be read. It is not an absence."""

    reason: str
    is_damage: bool = True
    """False: it may be readable later (too many open files, say). True: it will not."""


Found: TypeAlias = bytes | ReadFailure | None
"""What one key's read gave: a value, a failure, or nothing stored."""


class Reader(Protocol):
    """What can be asked of a store without changing it."""

    def multi_get(self, family: Family, keys: Sequence[bytes]) -> list[Found]:
        """Return what is stored under each key, in the order asked; None where there is nothing.

        Cost: about a microsecond a key from memory; the interpreter lock is free during disk reads.
        """
        ...

    def scan(
        self, family: Family, start: bytes, end: bytes | None, limit: int
    ) -> list[tuple[bytes, bytes]]:
        """Return up to `limit` pairs with start <= key < end in key order; None is past all keys.

        The caller goes on from the last key returned plus a zero byte: slices are short, because
        the interpreter lock is held throughout. Fewer pairs than `limit` means that was all.

        Raises:
            StorageDamaged: a block in the range cannot be read. Nothing of the slice is returned.
        """
        ...

    def approximate_count(self) -> int:
        """Return about how many records there are; overwritten ones may count more than once."""
        ...

    def size_bytes(self) -> int:
        """Return about how many bytes the store takes, on disk and in write buffers."""
        ...

    def close(self, clean: bool = True) -> None:
        """Let go of the store. With `clean` everything written is made durable first, or it raises.

        Without `clean` it behaves as a crash of this process would. Closing twice is allowed.
        """
        ...


class Engine(Reader, Protocol):
    """A store that takes writes."""

    @property
    def written(self) -> Position:
        """The position of the newest write."""
        ...

    @property
    def durable(self) -> Position:
        """The position up to which the last completed flush made things durable."""
        ...

    @property
    def damage(self) -> tuple[str, ...]:
        """What was lost before, at this opening or an earlier one, until `forget_damage`.

        When not empty, every partition is unproven.
        """
        ...

    @property
    def fenced(self) -> str | None:
        """Why no write is taken any more, or None."""
        ...

    @property
    def is_full(self) -> bool:
        """Whether free space is below the watermark: refuse puts at the edge, let deletes pass."""
        ...

    def write(self, batch: WriteBatch) -> Position:
        """Apply the batch at once, not yet durably; return its position.

        Never waits for the disk and never for background work.

        Raises:
            StorageStalled: nothing was applied; the same batch may be written later.
            StorageFull: nothing was applied.
            StorageDamaged, StorageFenced: it may have been applied, and cannot become durable here.
        """
        ...

    def forget_damage(self) -> None:
        """Forget, durably, what was lost: every partition is proven again."""
        ...

    def flush(self) -> Position:
        """Make everything written before the call durable; return the position reached.

        Blocks for the disk with the interpreter lock free.

        Raises:
            StorageFenced: durability is unknown from the last durable position on, for good.
        """
        ...
