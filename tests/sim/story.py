"""The story of each key: every event that touched it, in order; and how a broken invariant is told.

What it decides: nothing. Events are kept as they came, and made into words only on failure.
Laws: of a key the newest `KEPT` events are kept, and how many went before is said; telling changes
nothing. Its tests are tests/sim/test_checks.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from kvnode.core.conversations import LogLosers, Prune
from kvnode.core.keys import StorageKey, decode_key
from kvnode.core.messages import ClientGet, ClientPut, ReplicaRead, ReplicaWrite
from kvnode.core.record import DamagedRecord, decode
from kvnode.core.versions import Context, Dot, Record, Version

KEPT = 400
"""Events of one key. A failure of a long run is made shorter by shrinking, not by reading on."""


class Broken(AssertionError):
    """An invariant does not hold. The text has the story of the key, if it is about one."""

    def __init__(self, invariant: str, message: str) -> None:
        super().__init__(f"{invariant}: {message}")
        self.invariant = invariant
        """Its name, as "1-acknowledged-kept"."""


class Stories:
    """What happened to each key."""

    def __init__(self) -> None:
        self._events: dict[StorageKey, deque[tuple[int, str, tuple[object, ...]]]] = {}
        self._count: dict[StorageKey, int] = {}

    def note(self, key: StorageKey, now_us: int, what: str, facts: tuple[object, ...]) -> None:
        """Take note of an event. Its facts must not change any more."""
        events = self._events.get(key)
        if events is None:
            events = self._events[key] = deque(maxlen=KEPT)
            self._count[key] = 0
        events.append((now_us, what, facts))
        self._count[key] += 1

    def keys(self) -> list[StorageKey]:
        """Return all keys to which something happened, in order of the first event."""
        return list(self._events)

    def tell(self, key: StorageKey) -> str:
        """Return the story of a key, a line an event."""
        events = self._events.get(key, ())
        left_out = self._count.get(key, 0) - len(events)
        lines = [f"{left_out:,} earlier events are left out"] if left_out else []
        for now_us, what, facts in events:
            lines.append(f"{now_us / 1_000_000:>10.6f} s  {what} {' '.join(map(brief, facts))}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Stored:
    """What one store held after a turn."""

    key: StorageKey
    record: Record

    def brief(self) -> str:
        """Return it on one line."""
        return f"holds {brief_record(self.record)}"


@dataclass(frozen=True, slots=True)
class Removed:
    """A record that a turn removed."""

    key: StorageKey

    def brief(self) -> str:
        """Return it on one line."""
        return "holds nothing any more"


def brief(fact: object) -> str:
    """Return a fact as a story tells it: messages without the bytes that they carry."""
    match fact:
        case Stored() | Removed():
            return fact.brief()
        case ClientPut():
            value = "delete" if fact.is_delete else brief_value(fact.value)
            how = "explicitly" if fact.is_explicit else "plainly"
            return (
                f"put {value} {how} at {fact.timestamp} as {fact.write_id.hex()[:6]} "
                f"over {brief_context(fact.seen)}"
            )
        case ClientGet():
            return f"get with r={fact.r} beyond {brief_context(fact.seen)}"
        case ReplicaWrite():
            for_whom = f" for node {fact.stand_in_for}" if fact.stand_in_for else ""
            return f"{fact.kind.name} #{fact.id & 0xFFFF_FFFF}{for_whom}: {_carried(fact)}"
        case ReplicaRead():
            return f"READ #{fact.id & 0xFFFF_FFFF}"
        case LogLosers() | Prune():
            return f"{type(fact).__name__} {' '.join(map(brief_dot, fact.losers))}"
        case bytes():
            return brief_value(fact)
        case _:
            return str(fact) if isinstance(fact, str) else repr(fact)


def brief_record(record: Record) -> str:
    """Return versions, who voted for them, and the context."""
    told = [f"{brief_version(v)}{_voters(record, v)}" for v in record.versions]
    return f"{'; '.join(told) or 'nothing'} under {brief_context(record.context)}"


def brief_version(version: Version) -> str:
    """Return a version's dot, value, stamp and expiry."""
    value = "deleted" if version.is_tombstone else brief_value(version.value)
    expires = f" until {version.expires_ms}" if version.expires_ms else ""
    how = " explicitly" if version.is_explicit else ""
    write = version.write_id.hex()[:6]
    return f"{brief_dot(version.dot)}={value}{how} at {version.timestamp}{expires} as {write}"


def brief_value(value: bytes | None) -> str:
    """Return a value, or its beginning."""
    if value is None:
        return "nothing"
    return repr(value) if len(value) <= 24 else f"{value[:20]!r}... ({len(value):,} bytes)"


def brief_dot(dot: Dot) -> str:
    """Return a dot with the first digits of its actor."""
    return f"{dot.actor:016x}"[:4] + f":{dot.counter}"


def brief_context(context: Context) -> str:
    """Return a context: ranges, then single dots."""
    ranges = [brief_dot(Dot(*entry)) for entry in sorted(context.vector.items())]
    return f"<{' '.join([*ranges, *('=' + brief_dot(dot) for dot in sorted(context.dots))])}>"


def brief_key(key: StorageKey) -> str:
    """Return a key as users name it."""
    name = decode_key(key)
    return f"{name.partition_part!r} of keyspace {name.keyspace}"


def brief_values(values: Iterable[bytes | None]) -> str:
    """Return several values."""
    return ", ".join(map(brief_value, values))


def _voters(record: Record, version: Version) -> str:
    voters = [str(vote.owner) for vote in record.votes if vote.dot == version.dot]
    return f" voted for by {','.join(voters)}" if voters else ""


def _carried(write: ReplicaWrite) -> str:
    try:
        return brief_record(decode(write.key, write.record))
    except DamagedRecord as exc:
        return f"damaged bytes ({exc})"
