"""kvclient.testing.checks accepts any history of a sound store, and finds an error in any of them.

The store here is a model of the promise, not of kvnode: replicas hold sets of versions that know
what they cover; gossip joins them; a session's read waits for what the session has seen. In strict
form there is one replica. Uncertain writes take effect at once, later or never.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kvclient import errors
from kvclient.testing.checks import Kind, Verdict, check
from kvclient.testing.history import DEFAULT, Op, Recorder

WORKERS = 3
KEYS = ("a", "b")
SEEDS = st.integers(0, 2**32)


@dataclass(frozen=True)
class Version:
    """One write: covers others by their number."""

    number: int
    rank: float
    value: str | None
    covers: frozenset[int]


@dataclass
class Replica:
    """What one place holds of one key."""

    versions: dict[int, Version] = field(default_factory=dict)

    def add(self, *versions: Version) -> None:
        self.versions |= {version.number: version for version in versions}

    def live(self) -> list[Version]:
        """Return what nothing here covers, the winner last."""
        covered = {n for version in self.versions.values() for n in version.covers}
        left = [version for n, version in self.versions.items() if n not in covered]
        return sorted(left, key=lambda version: version.rank)

    def known(self) -> frozenset[int]:
        """Return what a context from here covers: these, and what they replaced, seen or not."""
        return frozenset(self.versions).union(*(v.covers for v in self.versions.values()))


class Model:
    """A sound store and its clients; what it does is up to its chance."""

    def __init__(self, seed: int, keyspace: str, *, steps: int = 40) -> None:
        self.rng = random.Random(seed)
        self.recorder = Recorder()
        self.keyspace = keyspace
        count = 1 if keyspace == "strict" else 3
        self.replicas = {key: [Replica() for _ in range(count)] for key in KEYS}
        self.sessions = {key: [Replica() for _ in range(WORKERS)] for key in KEYS}
        self.late: list[tuple[str, Version]] = []
        self.running: dict[int, tuple[Op, str, Version | None, str]] = {}
        self.contexts: dict[tuple[int, str], tuple[int, frozenset[int]]] = {}
        for _ in range(steps):
            self.step()
        for worker in list(self.running):
            self.end(worker)
        self.converge()

    def step(self) -> None:
        worker = self.rng.randrange(WORKERS)
        if worker in self.running:
            self.end(worker)
        else:
            self.begin(worker)
        if self.late and self.rng.random() < 0.3 and self.keyspace != "strict":
            key, version = self.late.pop()
            self.rng.choice(self.replicas[key]).add(version)
        if self.rng.random() < 0.3:
            self.gossip(self.rng.choice(KEYS))

    def gossip(self, key: str) -> None:
        one, other = self.rng.choices(self.replicas[key], k=2)
        other.add(*one.versions.values())

    def begin(self, worker: int) -> None:
        f, key = self.rng.choice(["put", "put", "get", "get", "delete"]), self.rng.choice(KEYS)
        number = len(self.recorder.history.ops)
        value = f"v{number}" if f == "put" else None
        context = None
        covers = self.sessions[key][worker].known()
        if f == "put" and self.rng.random() < 0.3 and self.keyspace != "strict":
            context, covers = self.contexts.get((worker, key), (None, covers))
        op = self.recorder.invoke(
            worker, f, key, value=value, keyspace=self.keyspace, context=context
        )
        version = None if f == "get" else Version(number, number, value, covers)
        how = self.rng.choice(["ok"] * 6 + ["uncertain", "uncertain", "refused"])
        takes_effect = how == "ok" or (how == "uncertain" and self.rng.random() < 0.5)
        if version is not None and takes_effect and self.keyspace != DEFAULT:
            self.apply(key, version, context)  # now, and not at its end: so there is one order
        self.running[worker] = op, key, version, how

    def apply(self, key: str, version: Version, context: int | None) -> Version:
        replica = self.rng.choice(self.replicas[key])
        if context is None and self.keyspace != "kept":
            version = Version(
                version.number, version.rank, version.value, version.covers | replica.known()
            )
        replica.add(version)
        return version

    def end(self, worker: int) -> None:
        op, key, version, how = self.running.pop(worker)
        if how == "refused":
            self.recorder.failed(op, errors.Unavailable("no"))
        elif version is None:
            self.read(worker, op, key)
        elif how == "uncertain":
            self.late.append((key, version))
            self.recorder.failed(op, errors.Uncertain("late"))
        else:
            if self.keyspace == DEFAULT:
                version = self.apply(key, version, op.context)
            else:
                held = [r.versions.get(version.number) for r in self.replicas[key]]
                version = next(one for one in held if one is not None)
            self.sessions[key][worker].add(version, *self.covered_by(key, version))
            self.recorder.ok(op)

    def covered_by(self, key: str, version: Version) -> list[Version]:
        places = [*self.replicas[key], *self.sessions[key]]
        held = {n: v for place in places for n, v in place.versions.items()}
        return [held[n] for n in sorted(version.covers) if n in held]

    def read(self, worker: int, op: Op, key: str) -> None:
        session, replica = self.sessions[key][worker], self.rng.choice(self.replicas[key])
        seen = Replica(dict(replica.versions))
        seen.add(*session.versions.values())
        session.add(*seen.versions.values())
        self.contexts[worker, key] = op.op, seen.known()
        self.answer(op, seen)

    def answer(self, op: Op, seen: Replica) -> None:
        live = seen.live()
        if self.keyspace == "kept":
            values = [version.value for version in live if version.value is not None]
        else:
            values = [version.value for version in live[-1:] if version.value is not None]
        self.recorder.ok(op, values)

    def converge(self) -> None:
        self.recorder.final()
        for key in KEYS:
            self.answer(self.final_read(key), self.whole(key))

    def whole(self, key: str) -> Replica:
        """Return what the store holds of a key, everywhere together."""
        everywhere = Replica()
        for replica in self.replicas[key]:
            everywhere.add(*replica.versions.values())
        return everywhere

    def final_read(self, key: str) -> Op:
        return self.recorder.invoke(99, "get", key, keyspace=self.keyspace)

    def verdict(self) -> Verdict:
        return check(self.recorder.history, strict=["strict"], siblings=["kept"])


@pytest.mark.parametrize("keyspace", [DEFAULT, "strict", "kept"])
@given(seed=SEEDS)
def test_a_sound_history_has_no_findings(keyspace: str, seed: int) -> None:
    assert Model(seed, keyspace).verdict().findings == ()


def plant(model: Model, key: str, *values: str) -> list[Kind]:
    """Return what is found after one more read at the end that returns this."""
    model.recorder.ok(model.final_read(key), values)
    return [finding.kind for finding in model.verdict().findings]


@pytest.mark.parametrize("keyspace", [DEFAULT, "strict", "kept"])
@given(seed=SEEDS)
def test_a_lost_write_is_found_in_any_history(keyspace: str, seed: int) -> None:
    model = Model(seed, keyspace)
    put = model.recorder.invoke(0, "put", "fresh", value="x", keyspace=keyspace)
    put.invoked, put.ended, put.end = -2, -1, "ok"
    assert plant(model, "fresh") == [Kind.LOST]


@pytest.mark.parametrize("keyspace", [DEFAULT, "strict", "kept"])
@given(seed=SEEDS)
def test_any_value_that_its_own_writer_replaced_is_found(keyspace: str, seed: int) -> None:
    model = Model(seed, keyspace)
    writes = [op for op in acknowledged(model) if op.context is None]
    replaced = [
        old for old in writes for new in writes
        if old.value and (old.key, old.worker) == (new.key, new.worker) and old.ended < new.invoked
    ]  # fmt: skip
    assume(replaced)
    old = model.rng.choice(replaced)
    assert set(plant(model, old.key, str(old.value))) & {Kind.ZOMBIE, Kind.LOST}


@pytest.mark.parametrize("keyspace", [DEFAULT, "strict", "kept"])
@given(seed=SEEDS)
def test_any_write_that_was_not_applied_is_found_when_it_is_read(keyspace: str, seed: int) -> None:
    model = Model(seed, keyspace)
    refused = [op for op in model.recorder.history.ops if op.end == "not_applied" and op.value]
    assume(refused)
    op = model.rng.choice(refused)
    assert Kind.PHANTOM in plant(model, op.key, str(op.value))


@given(seed=SEEDS)
def test_in_a_strict_keyspace_any_value_from_before_an_acknowledged_write_is_found(
    seed: int,
) -> None:
    model = Model(seed, "strict")
    replaced = [
        old for old in model.recorder.history.ops for new in acknowledged(model)
        if old.value and old.key == new.key and old.ended < new.invoked
        and old.end in ("ok", "uncertain")
    ]  # fmt: skip
    assume(replaced)
    old = model.rng.choice(replaced)
    assert set(plant(model, old.key, str(old.value))) & {Kind.ZOMBIE, Kind.LOST}


@given(seed=SEEDS)
def test_any_sibling_that_is_missing_is_found(seed: int) -> None:
    model = Model(seed, "kept")
    ops = model.recorder.history.ops
    live = {key: [v for v in model.whole(key).live() if v.value is not None] for key in KEYS}
    there = [
        (key, v) for key in KEYS for v in live[key]
        if ops[v.number].end == "ok" and not may_be_deleted(ops, ops[v.number])
    ]  # fmt: skip
    assume(there)
    key, lost = model.rng.choice(there)
    assert Kind.LOST in plant(model, key, *[str(v.value) for v in live[key] if v is not lost])


def acknowledged(model: Model) -> list[Op]:
    return [op for op in model.recorder.history.ops if op.is_write and op.end == "ok"]


def may_be_deleted(ops: list[Op], put: Op) -> bool:
    return any(op.f == "delete" and op.key == put.key and op.ended > put.invoked for op in ops)
