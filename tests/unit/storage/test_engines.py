"""The laws of `kvnode.storage.port`, held by every engine: one suite, and one model."""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kvnode.core.batch import Family, WriteBatch
from kvnode.storage.engine import RocksEngine, open_engine
from kvnode.storage.memory import MemoryEngine
from kvnode.storage.port import Engine, StorageFenced
from tests.support.powercut import cut_power
from tests.support.stores import put


class Machine(ABC):
    """A machine with one store: it can be killed, lose power, and be started again."""

    engine: Engine

    @abstractmethod
    def kill(self) -> None:
        """End the process without a word and start it again."""

    @abstractmethod
    def lose_power(self) -> None:
        """Lose what no sync covered, and start again."""

    @abstractmethod
    def discard(self) -> None:
        """Clean up."""


class RocksMachine(Machine):
    def __init__(self, folder: Path) -> None:
        self.engine: RocksEngine
        self._folder = folder
        self._journal = folder / "syncs"
        self._life = 0
        self._start()

    def kill(self) -> None:
        self.engine.close(clean=False)
        self._start()

    def lose_power(self) -> None:
        # From a copy of the open store: RocksDB syncs everything when it is closed.
        before = self._store
        self._life += 1
        shutil.copytree(before, self._store)
        cut_power(self._store, self._journal)
        self.engine.close(clean=False)
        shutil.rmtree(before)
        self._start()

    def discard(self) -> None:
        self.engine.close(clean=False)
        shutil.rmtree(self._folder)

    @property
    def _store(self) -> Path:
        return self._folder / f"store-{self._life}"

    def _start(self) -> None:
        self.engine = open_engine(self._store, sync_journal=self._journal)


class MemoryMachine(Machine):
    def __init__(self) -> None:
        self.engine: MemoryEngine = MemoryEngine()

    def kill(self) -> None:
        self.engine.close(clean=False)
        self.engine.reopen()

    def lose_power(self) -> None:
        self.engine.crash()

    def discard(self) -> None:
        self.engine.close(clean=False)


@pytest.fixture(params=["rocks", "memory"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    (tmp_path / "disk").mkdir()
    made = RocksMachine(tmp_path / "disk") if request.param == "rocks" else MemoryMachine()
    yield made
    made.discard()


@pytest.fixture
def engine(machine: Machine) -> Engine:
    return machine.engine


def _slice(engine: Engine, start: bytes = b"", end: bytes | None = None) -> list[bytes]:
    return [key for key, _ in engine.scan(Family.RECORDS, start, end, 100)]


def test_values_come_back_in_the_order_asked_with_none_for_absence(engine: Engine) -> None:
    put(engine, (b"a", b"1"), (b"b", b""))
    found = engine.multi_get(Family.RECORDS, [b"b", b"absent", b"a", b"b"])
    assert found == [b"", None, b"1", b""]
    assert engine.multi_get(Family.RECORDS, ()) == []


def test_families_are_separate_spaces(engine: Engine) -> None:
    batch = WriteBatch()
    for family in Family:
        batch.put(family, b"key", family.name.encode())
    engine.write(batch)
    for family in Family:
        assert engine.multi_get(family, (b"key",)) == [family.name.encode()]


def test_the_last_change_of_a_key_in_a_batch_wins(engine: Engine) -> None:
    batch = WriteBatch()
    batch.put(Family.RECORDS, b"twice", b"1")
    batch.put(Family.RECORDS, b"twice", b"2")
    batch.put(Family.RECORDS, b"gone", b"1")
    batch.delete(Family.RECORDS, b"gone")
    batch.delete(Family.RECORDS, b"never there")
    engine.write(batch)
    assert engine.scan(Family.RECORDS, b"", None, 9) == [(b"twice", b"2")]


def test_a_scan_is_in_byte_order_from_start_to_before_end(engine: Engine) -> None:
    keys = [b"\x00", b"a", b"a\x00", b"a\xff", b"b", b"\xff\xff"]
    put(engine, *((key, b"v") for key in reversed(keys)))
    assert _slice(engine) == keys
    assert _slice(engine, b"a", b"b") == [b"a", b"a\x00", b"a\xff"]
    assert _slice(engine, b"a\x00") == keys[2:]
    assert _slice(engine, b"b", b"b") == []
    assert _slice(engine, b"c", b"b") == []


def test_a_scan_in_slices_meets_every_key_once(engine: Engine) -> None:
    keys = [b"%03d" % number for number in range(10)]
    put(engine, *((key, b"v") for key in keys))
    met: list[bytes] = []
    while piece := engine.scan(Family.RECORDS, met[-1] + b"\x00" if met else b"", None, 3):
        assert len(piece) <= 3
        met += [key for key, _ in piece]
    assert met == keys


def test_positions_count_writes_and_a_flush_reaches_the_newest(engine: Engine) -> None:
    assert (engine.written, engine.durable) == (0, 0)
    assert [put(engine, (b"k", b"v")) for _ in range(3)] == [1, 2, 3]
    assert (engine.written, engine.durable) == (3, 0)
    assert engine.flush() == 3
    assert (engine.written, engine.durable) == (3, 3)


def test_an_empty_batch_is_a_write_like_any_other(engine: Engine) -> None:
    assert engine.write(WriteBatch()) == 1
    assert engine.flush() == 1


def test_a_killed_process_loses_nothing_it_wrote(machine: Machine) -> None:
    put(machine.engine, (b"a", b"1"))
    machine.kill()
    assert machine.engine.multi_get(Family.RECORDS, [b"a"]) == [b"1"]
    assert machine.engine.written == 0
    assert machine.engine.damage == ()


def test_a_power_cut_loses_what_was_written_after_the_last_flush(machine: Machine) -> None:
    put(machine.engine, (b"kept", b"1"), (b"changed", b"1"), (b"deleted", b"1"))
    machine.engine.flush()
    batch = WriteBatch()
    batch.put(Family.RECORDS, b"new", b"2")
    batch.put(Family.RECORDS, b"changed", b"2")
    batch.delete(Family.RECORDS, b"deleted")
    machine.engine.write(batch)
    machine.lose_power()
    left = machine.engine.scan(Family.RECORDS, b"", None, 9)
    assert left == [(b"changed", b"1"), (b"deleted", b"1"), (b"kept", b"1")]
    assert machine.engine.damage == ()


def test_a_clean_close_makes_everything_durable(machine: Machine) -> None:
    put(machine.engine, (b"a", b"1"))
    machine.engine.close(clean=True)
    machine.engine.close(clean=True)
    machine.lose_power()
    assert machine.engine.multi_get(Family.RECORDS, [b"a"]) == [b"1"]


def test_a_closed_engine_takes_no_writes(machine: Machine) -> None:
    machine.engine.close()
    with pytest.raises(StorageFenced, match="closed"):
        put(machine.engine, (b"a", b"1"))
    with pytest.raises(StorageFenced, match="closed"):
        machine.engine.flush()


def test_sizes_are_about_right(engine: Engine) -> None:
    before = engine.size_bytes()
    put(engine, *((b"%04d" % number, bytes(100)) for number in range(1_000)))
    assert 500 <= engine.approximate_count() <= 2_000
    assert 50_000 <= engine.size_bytes() - before <= 2_000_000


_KEYS = st.binary(min_size=1, max_size=3)
_CHANGES = st.lists(
    st.tuples(st.sampled_from(Family), _KEYS, st.none() | st.binary(max_size=4)), max_size=6
)
Image = dict[tuple[Family, bytes], bytes]


class _AgainstModel(RuleBasedStateMachine):
    """What is visible is a dict; what a power cut leaves is that dict as of the last flush."""

    machine: Machine

    @initialize()
    def start(self) -> None:
        self.machine = self.make()
        self.visible: Image = {}
        self.durable: Image = {}

    def make(self) -> Machine:
        raise NotImplementedError

    @rule(changes=_CHANGES)
    def write(self, changes: list[tuple[Family, bytes, bytes | None]]) -> None:
        batch = WriteBatch()
        batch.changes.extend(changes)
        self.machine.engine.write(batch)
        for family, key, value in changes:
            if value is None:
                self.visible.pop((family, key), None)
            else:
                self.visible[family, key] = value

    @rule()
    def flush(self) -> None:
        assert self.machine.engine.flush() == self.machine.engine.written
        self.durable = dict(self.visible)

    @rule()
    def kill(self) -> None:
        self.machine.kill()
        # The log of the life before is replayed into tables: synced by now.
        self.durable = dict(self.visible)

    @rule()
    def lose_power(self) -> None:
        self.machine.lose_power()
        self.visible = dict(self.durable)

    @rule(keys=st.lists(_KEYS, max_size=5), family=st.sampled_from(Family))
    def get(self, keys: list[bytes], family: Family) -> None:
        found = self.machine.engine.multi_get(family, keys)
        assert found == [self.visible.get((family, key)) for key in keys]

    @rule(start=_KEYS, end=st.none() | _KEYS, limit=st.integers(1, 5))
    def scan(self, start: bytes, end: bytes | None, limit: int) -> None:
        for family in Family:
            expected = [
                (key, value)
                for (of, key), value in sorted(self.visible.items())
                if of is family and start <= key and (end is None or key < end)
            ]
            found = self.machine.engine.scan(family, start, end, limit)
            assert found == expected[:limit]

    @invariant()
    def nothing_was_dropped(self) -> None:
        assert self.machine.engine.damage == ()
        assert self.machine.engine.fenced is None

    def teardown(self) -> None:
        if hasattr(self, "machine"):
            self.machine.discard()


class RocksAgainstModel(_AgainstModel):
    def make(self) -> Machine:
        return RocksMachine(Path(tempfile.mkdtemp(prefix="kvnode-test-")))


class MemoryAgainstModel(_AgainstModel):
    def make(self) -> Machine:
        return MemoryMachine()


TestRocksAgainstModel = RocksAgainstModel.TestCase
TestRocksAgainstModel.settings = settings(max_examples=15, stateful_step_count=20)
TestMemoryAgainstModel = MemoryAgainstModel.TestCase
TestMemoryAgainstModel.settings = settings(max_examples=100, stateful_step_count=40)
