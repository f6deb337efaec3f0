"""What of a damaged store is kept, and that no damage yields a wrong byte or goes unsaid."""

from __future__ import annotations

import os
import random
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from kvnode.core.batch import Family, WriteBatch
from kvnode.core.hlc import Timestamp
from kvnode.core.keys import StorageKey, encode_key
from kvnode.core.record import encode, seal
from kvnode.core.shelf import due_of
from kvnode.core.versions import Context, Dot, Record
from kvnode.storage import rebuild as rebuilding
from kvnode.storage.durable import sync_folder
from kvnode.storage.engine import open_engine
from kvnode.storage.folder import DataFolder
from kvnode.storage.port import ReadFailure, StorageDamaged, StorageFull
from kvnode.storage.rebuild import (
    REBUILDS_MAX,
    _end_of_gap,
    finish_rebuild,
    forget_old,
    old_store,
    rebuild,
)
from kvnode.storage.rocks import Tuning
from tests.support.scale import scaled
from tests.support.stores import flip_bit, newest, opened, small_disk

TUNING = Tuning()
COUNT = 2_000
_PLACES = scaled(40, soak=1_000)


def record(
    number: int, *, siblings: int = 1, is_tombstone: bool = False
) -> tuple[StorageKey, bytes]:
    """Return (storage key, encoded record) of a number."""
    key = encode_key("default", b"key%06d" % number)
    versions = tuple(
        seal(
            key,
            dot=Dot(actor, number + 1),
            timestamp=Timestamp(number + 1),
            write_id=bytes(16),
            value=b"" if is_tombstone else b"%d by %d " % (number, actor) * 10,
            is_tombstone=is_tombstone,
        )
        for actor in range(1, siblings + 1)
    )
    context = Context({version.dot.actor: version.dot.counter for version in versions})
    return key, encode(key, Record(context, versions, ()))


def fill(path: Path, count: int = COUNT) -> dict[bytes, bytes]:
    """Make a store of records and one entry of each other family; all of it in tables."""
    pairs: dict[bytes, bytes] = dict(record(number) for number in range(count))
    batch = WriteBatch()
    for key, data in pairs.items():
        batch.put(Family.RECORDS, key, data)
    for family in Family:
        if family is not Family.RECORDS:
            batch.put(family, b"entry", family.name.encode())
    engine = open_engine(path)
    engine.write(batch)
    engine.close()
    return pairs


def held(path: Path) -> dict[bytes, bytes]:
    with opened(path) as engine:
        return dict(engine.scan(Family.RECORDS, b"", None, 1_000_000))


def largest_table(path: Path) -> Path:
    return max(path.glob("*.sst"), key=lambda file: file.stat().st_size)


def test_what_reads_is_kept_around_every_bad_block(path: Path) -> None:
    pairs = fill(path)
    table = largest_table(path)
    for eighth in (1, 3, 5):
        flip_bit(table, eighth * table.stat().st_size // 8)
    salvage = rebuild(path, "a bad block", tuning=TUNING)
    kept = held(path)
    assert salvage.gaps == 3
    assert kept.items() <= pairs.items()
    assert COUNT - 3 * 100 < len(kept) < COUNT
    assert salvage.damaged == 0


def test_facts_hints_and_the_conflict_log_are_kept_floors_and_trees_are_not(path: Path) -> None:
    fill(path)
    rebuild(path, "doubt", tuning=TUNING)
    with opened(path) as engine:
        found = {family: engine.scan(family, b"entry", b"entrz", 9) for family in Family}
    kept = [family for family in Family if found[family]]
    assert kept == [Family.META, Family.HINTS, Family.CONFLICT_LOG]


def test_the_indexes_are_made_anew_from_the_records(path: Path) -> None:
    alive, torn, dead = record(1), record(2, siblings=2), record(3, is_tombstone=True)
    engine = open_engine(path)
    batch = WriteBatch()
    for key, data in (alive, torn, dead):
        batch.put(Family.RECORDS, key, data)
    engine.write(batch)
    engine.close()
    rebuild(path, "doubt", tuning=TUNING)
    with opened(path) as engine:
        assert engine.scan(Family.CONFLICTS, b"", None, 9) == [(torn[0], b"")]
        ((grave, due),) = engine.scan(Family.GRAVES, b"", None, 9)
        assert (grave, due_of(due)) == (dead[0], 0)


def test_a_record_with_a_wrong_byte_inside_a_sound_block_is_dropped(path: Path) -> None:
    sound, spoilt = record(1), record(2)
    engine = open_engine(path)
    batch = WriteBatch()
    batch.put(Family.RECORDS, *sound)
    batch.put(Family.RECORDS, spoilt[0], spoilt[1][:-1] + b"?")
    engine.write(batch)
    engine.close()
    salvage = rebuild(path, "a bad checksum", tuning=TUNING)
    assert (salvage.kept, salvage.damaged) == (1, 1)
    assert held(path) == dict([sound])


def test_the_new_store_says_that_it_is_damaged_until_that_is_forgotten(path: Path) -> None:
    fill(path, 10)
    rebuild(path, "two\nlines", tuning=TUNING)
    for _ in range(2):
        with opened(path) as engine:
            (line,) = engine.damage
            kept = "13 entries kept, 0 damaged records dropped, 0 unreadable stretches"
            assert line == f"rebuilt: two lines; {kept}"
    with opened(path) as engine:
        engine.forget_damage()
    forget_old(path)
    with opened(path) as engine:
        assert engine.damage == ()
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("missing", ["MANIFEST-*", "CURRENT"])
def test_what_cannot_be_opened_by_any_means_is_set_aside_whole(path: Path, missing: str) -> None:
    fill(path)
    newest(path, missing).unlink()
    with pytest.raises(StorageDamaged):
        open_engine(path)
    assert list(path.glob("*.sst"))
    salvage = rebuild(path, "it cannot be opened", tuning=TUNING)
    assert salvage.is_empty
    assert held(path) == {}
    assert len(list(old_store(path).glob("*.sst"))) > 0


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_a_table_cut_or_missing_takes_no_other_family_with_it(path: Path, damage: str) -> None:
    fill(path)
    table = largest_table(path)
    if damage == "cut":
        os.truncate(table, table.stat().st_size // 2)
    else:
        table.unlink()
    rebuild(path, "a table is not whole", tuning=TUNING)
    with opened(path) as engine:
        assert engine.multi_get(Family.META, [b"entry"]) == [b"META"]
        assert not any(isinstance(one, ReadFailure) for one in engine.multi_get(Family.META, [b""]))


def test_one_old_store_is_kept_and_rebuilding_ends_after_a_few(path: Path) -> None:
    fill(path, 10)
    for number in range(REBUILDS_MAX):
        rebuild(path, f"damage {number}", tuning=TUNING)
    beside = sorted(each.name for each in path.parent.iterdir())
    assert beside == ["store", "store.old", "store.rebuilds"]
    with pytest.raises(StorageDamaged, match=r"rebuilt 5 times.*damage 5"):
        rebuild(path, "damage 5", tuning=TUNING)
    assert len(held(path)) == 10
    forget_old(path)
    rebuild(path, "much later", tuning=TUNING)


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("step", range(6))
def test_a_crash_at_any_step_leaves_the_old_store_or_the_finished_new_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Steps are the renames, removals and syncs of the swap; the next start cleans up."""
    pairs = fill(path, 50)
    rebuild(path, "earlier", tuning=TUNING)  # so that there is an old one to remove
    with opened(path) as engine:
        engine.forget_damage()
    left = [step]

    def dying(real: object) -> object:
        def call(*arguments: object, **how: object) -> object:
            if not left[0]:
                raise Crash
            left[0] -= 1
            return real(*arguments, **how)  # type: ignore[operator]

        return call

    with monkeypatch.context() as patch:
        patch.setattr(rebuilding, "sync_folder", dying(sync_folder))
        patch.setattr(Path, "rename", dying(Path.rename))
        real_swap, real_remove = rebuilding._swap, shutil.rmtree

        def swap(store: Path, new: Path) -> None:
            patch.setattr(shutil, "rmtree", dying(real_remove))
            real_swap(store, new)

        patch.setattr(rebuilding, "_swap", swap)
        # What a real crash would not run either: the removal of the draft.
        try:
            rebuild(path, "now", tuning=TUNING)
            assert step == 5, "no step is left to die at"
        except Crash:
            assert step < 5
    finish_rebuild(path)
    assert held(path) == pairs
    with opened(path) as engine:
        assert engine.damage == () or engine.damage[0].startswith("rebuilt: now")
    assert not path.with_name("store.new").exists()


def test_an_unfinished_draft_is_discarded(path: Path) -> None:
    pairs = fill(path, 10)
    shutil.copytree(path, path.with_name("store.new"))
    finish_rebuild(path)
    assert held(path) == pairs
    assert not path.with_name("store.new").exists()


@pytest.mark.root
def test_without_room_for_both_the_old_store_stays_as_it_was(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 16) as disk:
        store = disk / "store"
        engine = open_engine(store, min_free_bytes=0)
        key, _ = record(1)
        value = os.urandom(6 << 20)
        one = seal(key, dot=Dot(1, 1), timestamp=Timestamp(1), write_id=bytes(16), value=value)
        batch = WriteBatch()
        batch.put(Family.RECORDS, key, encode(key, Record(Context({1: 1}), (one,), ())))
        engine.write(batch)
        engine.close()
        (disk / "ballast").write_bytes(bytes(3 << 20))
        before = sorted(file.name for file in store.iterdir() if not file.match("LOG*"))
        with pytest.raises(StorageFull):
            rebuild(store, "damage", tuning=TUNING)
        assert sorted(file.name for file in store.iterdir() if not file.match("LOG*")) == before
        assert not (disk / "store.new").exists()


# --- the end of what does not read ----------------------------------------------------------------


def _number(place: bytes) -> int:
    return int.from_bytes(place)


@pytest.mark.parametrize("first", [0, 5, 1 << 64, (1 << 128) - 300])
@pytest.mark.parametrize("length", [1, 2, 255, 1 << 40, 1 << 127])
def test_the_end_of_a_gap_is_found_exactly_and_within_few_probes(first: int, length: int) -> None:
    probes = 0

    def reads_at(place: bytes) -> bool:
        nonlocal probes
        probes += 1
        return _number(place) >= first + length

    end = _end_of_gap(reads_at, first.to_bytes(16) + b"and more")
    expected = first + length if first + length < 1 << 128 else None
    assert (None if end is None else _number(end)) == expected
    assert probes <= 256


# --- any damage at all ----------------------------------------------------------------------------


def spoil(folder: Path, chance: random.Random) -> str:
    """Flip one bit, or cut a file, anywhere in a store; return what was done."""
    files = sorted(
        file for file in folder.iterdir() if file.stat().st_size and not file.match("LOG*")
    )
    file = chance.choice(files)
    at = chance.randrange(file.stat().st_size)
    if chance.random() < 0.25:
        os.truncate(file, at)
        return f"{file.name} cut at {at}"
    content = bytearray(file.read_bytes())
    content[at] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    return f"{file.name} flipped at {at}"


def test_no_single_damage_yields_a_wrong_byte_or_an_absence_that_is_not_told(
    tmp_path: Path, rng: random.Random
) -> None:
    """The store of a clean stop, spoilt anywhere: what is read is right, refused, or doubted."""
    folder = DataFolder.open(tmp_path / "n1", cluster_id="c", node_id="n1")
    pairs = fill(folder.store_path, 500)
    folder.mark_clean_stop()
    folder.close()
    changed = 0
    for number in range(_PLACES):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(tmp_path / "n1", copy)
        what = spoil(copy / "store", rng)
        changed += check(copy, pairs, what)
        shutil.rmtree(copy)
    assert changed > _PLACES // 4, "hardly any damage hit what matters"


def check(copy: Path, pairs: dict[bytes, bytes], what: str) -> bool:
    """Start on a spoilt folder as a node does; return whether it had to be doubted."""
    opened_folder = DataFolder.open(copy, cluster_id="c", node_id="n1")
    with closing(opened_folder) as folder:
        store, keys = folder.store_path, list(pairs)
        wrong = folder.break_seal()
        try:
            engine = open_engine(store)
        except StorageDamaged as exc:
            rebuild(store, str(exc), tuning=TUNING)
            engine = open_engine(store)
        found = engine.multi_get(Family.RECORDS, keys)
        is_doubted = bool(wrong or engine.damage)
        if any(isinstance(one, ReadFailure) for one in found):
            engine.close(clean=False)
            rebuild(store, "unreadable", tuning=TUNING)
            engine = open_engine(store)
            found, is_doubted = engine.multi_get(Family.RECORDS, keys), bool(engine.damage)
        engine.close(clean=False)
    for key, one in zip(keys, found, strict=True):
        assert one in (None, pairs[key]), what
        assert one is not None or is_doubted, f"{what}: an absence that nobody doubts"
    return is_doubted
