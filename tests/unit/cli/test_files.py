"""Loading and verifying, on a store of plain memory that can be told to fail."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

import kvclient
from kvnode.cli import files, parts
from kvnode.cli.files import GIVE_UP_AFTER, Loading, Tally, Verifying, Work
from kvnode.cli.progress import Lines
from kvnode.cli.walk import walk

BIG = parts.PART_BYTES * 2 + 100


class Memory:
    """A keyspace as a dict, in the order of writing."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.failing: set[bytes] = set()
        self.in_flight = self.most = self.calls = 0
        self.error: kvclient.KVError = kvclient.Unavailable("nobody is there")

    async def get(self, key: bytes, /) -> bytes | None:
        await self._turn(key)
        return self.values.get(key)

    async def put(self, key: bytes, value: bytes, /) -> None:
        await self._turn(key)
        self.values.pop(key, None)
        self.values[key] = value

    async def _turn(self, key: bytes) -> None:
        self.calls += 1
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        await asyncio.sleep(0)
        self.in_flight -= 1
        if key in self.failing or b"*" in self.failing:
            raise self.error


def worked(kind: type[Work], folder: Path, store: Memory, jobs: int = 4) -> Tally:
    async def run() -> Tally:
        found = walk(folder)
        return await kind(store, jobs=jobs, shown=Lines("x", 1)).run(found)

    return asyncio.run(run())


def listed(tally: Tally) -> dict[str, list[tuple[bytes, str]]]:
    return {kind: sorted(problems) for kind, problems in tally.problems.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "big").write_bytes(os.urandom(BIG))
    (tmp_path / "empty").touch()
    (tmp_path / "exact").write_bytes(bytes(parts.PART_BYTES))
    (tmp_path / "marked").write_bytes(parts.MARK + b"parts\0 and more")
    for i in range(20):
        (tmp_path / f"small{i}").write_bytes(b"%d" % i)
    return tmp_path


def test_what_was_loaded_verifies_byte_by_byte(folder: Path) -> None:
    store = Memory()
    loaded = worked(Loading, folder, store)
    assert (loaded.files, loaded.problems) == (24, {})
    assert loaded.size == walk(folder).size
    assert store.values[b"small7"] == b"7"
    assert store.values[b"empty"] == b""
    verified = worked(Verifying, folder, store)
    assert (verified.files, verified.size, verified.problems) == (24, loaded.size, {})


def test_a_manifest_is_written_after_all_its_parts(folder: Path) -> None:
    store = Memory()
    worked(Loading, folder, store)
    order = list(store.values)
    written = [key for key in order if key.startswith(b"\0")]
    assert len(written) == 3
    assert order.index(b"sub/big") > max(map(order.index, written))


def test_no_manifest_is_written_when_a_part_failed(folder: Path) -> None:
    store = Memory()
    worked(Loading, folder, store)
    part = next(key for key in store.values if key.startswith(b"\0"))
    fresh = Memory()
    fresh.failing = {part}
    assert listed(worked(Loading, folder, fresh)) == {"failed": [(b"sub/big", "nobody is there")]}
    assert b"sub/big" not in fresh.values


def test_loading_twice_leaves_nothing_more_behind(folder: Path) -> None:
    store = Memory()
    worked(Loading, folder, store)
    first = dict(store.values)
    worked(Loading, folder, store)
    assert store.values == first


def test_an_old_manifest_keeps_its_parts_while_a_new_file_is_loaded(folder: Path) -> None:
    store = Memory()
    worked(Loading, folder, store)
    before = dict(store.values)
    (folder / "sub" / "big").write_bytes(os.urandom(BIG))
    store.failing = {b"sub/big"}  # the new manifest never arrives
    worked(Loading, folder, store)
    assert before.items() <= store.values.items()


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_is_in_flight_than_was_allowed(folder: Path, jobs: int) -> None:
    store = Memory()
    worked(Loading, folder, store, jobs)
    worked(Verifying, folder, store, jobs)
    assert store.most == jobs


def test_every_kind_of_difference_is_found(folder: Path) -> None:
    store = Memory()
    worked(Loading, folder, store)
    del store.values[b"small1"]
    store.values[b"small2"] = b"3"
    store.values[b"small3"] = b"33"
    store.values[b"small4"] = parts.MARK + b"?"
    store.failing = {b"small5"}
    store.values[b"exact"] = store.values[b"exact"][:1000] + b"x" + store.values[b"exact"][1001:]
    assert listed(worked(Verifying, folder, store)) == {
        "differ": [
            (b"exact", "from byte 1,000 on"),
            (b"small2", "from byte 0 on"),
            (b"small3", "2 bytes stored, 1 in the file"),
        ],
        "failed": [
            (b"small4", "a mark of this program's, but no manifest"),
            (b"small5", "nobody is there"),
        ],
        "missing": [(b"small1", "no such key")],
    }


@pytest.mark.parametrize(
    ("part", "damaged", "told"),
    [
        (1, None, ("missing", f"the part at byte {parts.PART_BYTES:,}")),
        (2, bytes(100), ("differ", f"from byte {2 * parts.PART_BYTES:,} on")),
        (2, b"", ("differ", f"0 bytes in the part at {2 * parts.PART_BYTES:,}")),
    ],
)
def test_a_damaged_part_is_found(
    folder: Path, part: int, damaged: bytes | None, told: tuple[str, str]
) -> None:
    store = Memory()
    (folder / "sub" / "big").write_bytes(b"\1" * BIG)
    worked(Loading, folder, store)
    manifest = parts.split(store.values[b"sub/big"])
    assert isinstance(manifest, parts.Manifest)
    key = list(manifest.keys(b"sub/big"))[part]
    if damaged is None:
        del store.values[key]
    else:
        store.values[key] = damaged
    kind, why = told
    assert listed(worked(Verifying, folder, store)) == {kind: [(b"sub/big", why)]}


def test_a_file_that_vanishes_or_changes_is_failed_and_the_rest_is_loaded(folder: Path) -> None:
    found = walk(folder)
    (folder / "small1").unlink()
    os.truncate(folder / "sub" / "big", parts.PART_BYTES * 3)
    (folder / "empty").write_bytes(bytes(parts.PART_BYTES + 1))

    async def run() -> Tally:
        return await Loading(Memory(), jobs=2, shown=Lines("x", 1)).run(found)

    tally = asyncio.run(run())
    assert listed(tally) == {
        "failed": [
            (b"empty", "changed while it was being read"),
            (b"small1", "cannot be read: No such file or directory"),
        ]
    }
    assert tally.files == 22


def test_a_cluster_that_is_gone_ends_the_run_soon(tmp_path: Path) -> None:
    for i in range(GIVE_UP_AFTER + 50):
        (tmp_path / f"{i}").touch()
    store = Memory()
    store.failing = {b"*"}
    tally = worked(Loading, tmp_path, store, jobs=1)
    assert store.calls == GIVE_UP_AFTER
    assert tally.count("failed") == GIVE_UP_AFTER + 50
    assert (b"99", "not tried: gave up") in tally.problems["failed"]


def test_what_no_file_can_get_past_ends_the_run_at_once(folder: Path) -> None:
    store = Memory()
    store.failing = {b"*"}
    store.error = kvclient.UnknownKeyspace("no keyspace 'x'")
    with pytest.raises(kvclient.UnknownKeyspace):
        worked(Loading, folder, store)


def test_only_the_first_differences_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    tally = Tally()
    for i in range(25):
        tally.note("missing", b"%02d\x1b" % i, "no such key")
    files._report(tally, ("missing",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "missing: 00\\x1b: no such key"
    assert lines[20:] == ["missing: … and 5 more"]
