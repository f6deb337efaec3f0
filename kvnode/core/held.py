"""What a turn sees of its node's records: with care, and never absent because a read failed.

Laws: what cannot be read or fails its checksums raises, and is noted once a turn for whoever has it
brought back (kvnode.core.integrity); what the turn has stored is seen by the rest of it.
Tests: tests/unit/core/test_held.py, tests/unit/core/test_replica.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from kvnode.core.keys import StorageKey
from kvnode.core.record import NOT_HELD, DamagedRecord, Lone, decode, read_lone, verify
from kvnode.core.versions import EMPTY, Record


class Unreadable(Exception):
    """What is held under a key cannot be read: abstain."""


class Held:
    """The records of one turn."""

    # A base of the replica and not a part of it: its methods run several times for each operation.
    __slots__ = ("_records", "_unreadable", "alarms", "damaged", "disputed")

    def __init__(self) -> None:
        self.alarms: list[str] = []
        """For people: collected in a turn, taken by the runtime."""
        self.damaged: dict[StorageKey, None] = {}
        """Keys whose records fail their checksums, as this turn found."""
        self.disputed: dict[StorageKey, None] = {}
        """Keys of which another node holds other bytes under a dot that is held here."""
        self._records: dict[StorageKey, bytes | None] = {}
        self._unreadable: Set[bytes] = frozenset()

    def begin_records(
        self, records: Mapping[StorageKey, bytes | None], unreadable: Set[bytes]
    ) -> None:
        """See these records from here on."""
        self._records = dict(records)
        self._unreadable = unreadable
        self.damaged, self.disputed = {}, {}

    def has_fetched(self, key: StorageKey) -> bool:
        """Say whether this turn sees the key's record, or that it cannot be read."""
        return key in self._records or key in self._unreadable

    def is_damaged(self, key: StorageKey) -> bool:
        """Say whether what is held fails its checksums. The turn must have fetched it."""
        data = self._records.get(key)
        if not data:
            return False
        try:
            verify(key, data)
        except DamagedRecord:
            return True
        return False

    def _read_raw(self, key: StorageKey) -> bytes | None:
        if key in self._unreadable:
            raise Unreadable
        return self._records[key]

    def _load(self, key: StorageKey) -> Record:
        data = self._read_raw(key)
        if not data:
            return EMPTY
        try:
            return decode(key, data)
        except DamagedRecord as exc:
            raise self._note_damage(key, exc) from exc

    def _read(self, key: StorageKey) -> bytes | None:
        data = self._read_raw(key)
        if data:
            try:
                verify(key, data)
            except DamagedRecord as exc:
                raise self._note_damage(key, exc) from exc
        return data

    def _lone(self, key: StorageKey) -> Lone | None:
        """Return what is held if that is one version or nothing at all; None for siblings."""
        data = self._read_raw(key)
        if not data:
            return NOT_HELD
        try:
            return read_lone(key, data)
        except DamagedRecord as exc:
            raise self._note_damage(key, exc) from exc

    def _note_damage(self, key: StorageKey, why: DamagedRecord) -> Unreadable:
        self.alarms.append(f"a record here is damaged: {why}")
        self.damaged[key] = None
        return Unreadable()
