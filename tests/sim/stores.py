"""What the stores of all nodes hold, and have held durably, as far as it was seen being written.

What it decides: nothing; the rules are in tests/sim/steps.py. It knows for each node and key the
latest record within a life, for each *slot* (an owner, or the stand-ins for it) what was durable
there at any time, and why each write is no longer alive.
Laws: what is noted as durable was synced, or found after a start; a record is known only while the
store holds the very bytes that were seen. Its tests are tests/sim/test_checks.py and
tests/sim/test_fates.py.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kvnode.core.batch import Family
from kvnode.core.context import open_context
from kvnode.core.hints import UnreadableHint, decode_hint, hint_key
from kvnode.core.keys import StorageKey
from kvnode.core.messages import NodeNumber
from kvnode.core.record import DamagedRecord, decode
from kvnode.core.twins import CLIENT_BYTES, Named, read_memory
from kvnode.core.versions import (
    EMPTY,
    NOTHING_SEEN,
    Context,
    Dot,
    Record,
    Version,
    covers,
    covers_all,
    join,
)
from kvnode.storage.port import Reader, ReadFailure
from tests.sim.host import CLUSTER_KEY


class Held(NamedTuple):
    """What one entry of a store is."""

    data: bytes
    record: Record


_REMEMBERED = 512
"""Records and contexts that are not decoded again."""
_AND_ITSELF = b"\0"
"""Appended to an id: what the id itself comes before."""

Place = tuple[NodeNumber, Family, bytes]
"""One entry of one node's store."""


class Stores:
    """All stores, as one who sees all of them knows them."""

    def __init__(self) -> None:
        self.held: dict[Place, Held] = {}
        self.keys: dict[StorageKey, Sequence[NodeNumber]] = {}
        """All keys that were ever stored, and their owners."""
        self.logged: dict[tuple[StorageKey, bytes], dict[NodeNumber, None]] = {}
        """Of each version that lost (by write id): which conflict logs have it durably."""
        self._durable: dict[tuple[NodeNumber, StorageKey], Context] = {}
        self._handed: dict[tuple[NodeNumber, StorageKey], Context] = {}
        """By the owner for which stand-ins keep it."""
        self._waiting: dict[NodeNumber, deque[tuple[int, Callable[[], None]]]] = {}
        """What becomes durable with a position of a node's log."""
        self._records: dict[tuple[StorageKey, bytes], Record] = {}
        self._contexts: dict[tuple[StorageKey, bytes], Context] = {}

    # ---- what bytes say: several look at the same ones ---------------------------------------

    def record(self, key: StorageKey, data: bytes) -> Record:
        """Return the record that some bytes are. Raises: DamagedRecord."""
        found = self._records.get((key, data))
        if found is None:
            if len(self._records) >= _REMEMBERED:
                self._records.clear()
            found = self._records[key, data] = decode(key, data)
        return found

    def context(self, key: StorageKey, data: bytes) -> Context:
        """Return a context that the cluster gave out. Raises: ForgedContext."""
        found = self._contexts.get((key, data))
        if found is None:
            if len(self._contexts) >= _REMEMBERED:
                self._contexts.clear()
            found = self._contexts[key, data] = open_context(CLUSTER_KEY, key, data)
        return found

    # ---- what was seen ---------------------------------------------------------------------

    def before(
        self, node: NodeNumber, family: Family, name: bytes, engine: Reader
    ) -> Record | None:
        """Return what an entry is before it is written; None: that is not known."""
        (found,) = engine.multi_get(family, (name,))
        held = self.held.get((node, family, name))
        if found is None and held is None:
            return EMPTY
        if held is None or isinstance(found, ReadFailure) or found != held.data:
            return None
        return held.record

    def keep(self, node: NodeNumber, family: Family, name: bytes, held: Held | None) -> None:
        """An entry is written, or (None) removed."""
        if held is None:
            self.held.pop((node, family, name), None)
        else:
            self.held[node, family, name] = held

    def when_durable(self, node: NodeNumber, position: int, act: Callable[[], None]) -> None:
        """Have something happen once a node's log is durable up to a position."""
        self._waiting.setdefault(node, deque()).append((position, act))

    def on_sync(self, node: NodeNumber, durable: int) -> None:
        """A node's log is durable up to a position."""
        waiting = self._waiting.get(node)
        while waiting and waiting[0][0] <= durable:
            waiting.popleft()[1]()

    def note_durable(self, slot: NodeNumber, key: StorageKey, seen: Context) -> None:
        """An owner holds a record durably."""
        self._durable[slot, key] = join(self._durable.get((slot, key), NOTHING_SEEN), seen)

    def note_handed(self, slot: NodeNumber, key: StorageKey, seen: Context) -> None:
        """A stand-in for that owner holds a record durably."""
        self._handed[slot, key] = join(self._handed.get((slot, key), NOTHING_SEEN), seen)

    def on_start(self, node: NodeNumber, engine: Reader) -> None:
        """A life begins on what its store holds, all of which is durable by now."""
        self._waiting.pop(node, None)
        self.held = {place: held for place, held in self.held.items() if place[0] != node}
        for key, owners in self.keys.items():
            if node in owners:
                self._find(node, Family.RECORDS, key, key, engine)
            for owner in owners:
                self._find(node, Family.HINTS, hint_key(owner, key), key, engine)

    def _find(
        self, node: NodeNumber, family: Family, name: bytes, key: StorageKey, engine: Reader
    ) -> None:
        (found,) = engine.multi_get(family, (name,))
        if not isinstance(found, bytes):
            return
        try:
            data = found if family is Family.RECORDS else decode_hint(found).record
            record = decode(key, data)
        except (DamagedRecord, UnreadableHint):
            return
        self.held[node, family, name] = Held(found, record)
        if family is Family.RECORDS:
            self.note_durable(node, key, record.context)
        else:
            owner = int.from_bytes(name[:4], "big")
            self.note_handed(owner, key, record.context)

    def lost_by(self, node: NodeNumber) -> list[tuple[StorageKey, Context]]:
        """Return the keys of which a node no longer holds what it had durably, and that."""
        lost = []
        for (slot, key), seen in self._durable.items():
            if slot != node:
                continue
            held = self.held.get((node, Family.RECORDS, key))
            if not covers_all(held.record.context if held else NOTHING_SEEN, seen):
                lost.append((key, seen))
        return lost

    # ---- what is asked ---------------------------------------------------------------------

    def has_durable(self, slot: NodeNumber, key: StorageKey, dots: Sequence[Dot]) -> bool:
        """Say whether an owner has ever had one of these dots durably."""
        seen = self._durable.get((slot, key), NOTHING_SEEN)
        return any(covers(seen, dot) for dot in dots)

    def has_handed(self, slot: NodeNumber, key: StorageKey, dots: Sequence[Dot]) -> bool:
        """Say whether a stand-in for an owner has ever had one of these dots durably."""
        seen = self._handed.get((slot, key), NOTHING_SEEN)
        return any(covers(seen, dot) for dot in dots)


class _Names:
    """What versions of one key say of the writes of one client: kvnode.core.twins.is_behind, asked
    of all of them at a time."""

    def __init__(self) -> None:
        self.explicit: dict[bytes, dict[Dot, bytes]] = {}
        """By explicit put: who has replaced it."""
        self._ends: list[bytes] = []
        """In order: whatever plain put comes before one of these is replaced."""
        self._heirs: list[tuple[Dot, bytes]] = []
        """By what: versions and the ids of their writes."""

    def note_plain(self, end: bytes, heir: tuple[Dot, bytes]) -> None:
        """Every plain put before `end` is replaced."""
        place = bisect_right(self._ends, end)
        self._ends.insert(place, end)
        self._heirs.insert(place, heir)

    def after(self, write_id: bytes) -> dict[Dot, bytes]:
        """Return who has replaced a plain put."""
        return dict(self._heirs[bisect_right(self._ends, write_id) :])


class Fates:
    """Why each write is no longer alive: by what it was superseded, or how else it left."""

    REAPED, SETTLED = b"reaped", b"settled"

    def __init__(self) -> None:
        self._why: dict[bytes, dict[bytes, None]] = {}
        self.dots: dict[bytes, dict[Dot, None]] = {}
        """The versions of each write."""
        self._noted: dict[StorageKey, dict[Dot, tuple[bytes, bytes]]] = {}
        """Of each version its write and its memory: most are seen again and again."""
        self._names: dict[tuple[StorageKey, bytes], _Names] = {}
        """By key and client."""

    def note_version(self, key: StorageKey, version: Version) -> None:
        """A version was seen."""
        noted = self._noted.get(key)
        if noted is None:
            noted = self._noted[key] = {}
        write_id, extension = version.write_id, version.extension
        if noted.get(version.dot) == (write_id, extension):
            return
        noted[version.dot] = write_id, extension
        self.dots.setdefault(write_id, {})[version.dot] = None
        memory = read_memory(extension)
        heir = version.dot, write_id
        if not version.is_explicit:
            self._names_of(key, write_id).note_plain(write_id, heir)
        for name in memory.plain:
            self._names_of(key, name).note_plain(name + _AND_ITSELF, heir)
        for name in memory.explicit:
            self._names_of(key, name).explicit.setdefault(name, {})[version.dot] = write_id

    def _names_of(self, key: StorageKey, write_id: bytes) -> _Names:
        place = key, write_id[:CLIENT_BYTES]
        found = self._names.get(place)
        if found is None:
            found = self._names[place] = _Names()
        return found

    def ahead_of(self, key: StorageKey, write: Named) -> dict[Dot, bytes]:
        """Return the versions that by their names have replaced a write, or a later one of its
        client, with the ids of their writes: whoever holds these need not hold it."""
        names = self._names.get((key, write.write_id[:CLIENT_BYTES]))
        if names is None:
            return {}
        if write.is_explicit:
            return names.explicit.get(write.write_id, {})
        return names.after(write.write_id)

    def note_gone(self, write_id: bytes, why: bytes) -> None:
        """A write is no longer alive. `why`: another write's id, or how else."""
        self._why.setdefault(write_id, {})[why] = None

    def is_gone(self, write_id: bytes) -> bool:
        """Say whether it is known why the write need not be alive any more."""
        return write_id in self._why

    def heirs(self, write_id: bytes) -> list[bytes]:
        """Return all that superseded the write, directly or not, and how else it left."""
        found: dict[bytes, None] = {}
        open_ = [write_id]
        while open_:
            for why in self._why.get(open_.pop(), ()):
                if why not in found:
                    found[why] = None
                    open_.append(why)
        return list(found)


def one_dot(dot: Dot) -> Context:
    """Return the context that has seen this dot alone."""
    return Context({}, frozenset((dot,)))
