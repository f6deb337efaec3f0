"""Small files: on the disk when the call returns, as before when it fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvnode.storage import durable


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were synced so far."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc to see which file is synced")
    paths: list[str] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        paths.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    return paths


def test_a_file_is_synced_before_it_is_named_and_its_folder_after(
    tmp_path: Path, synced: list[str]
) -> None:
    durable.write_file(tmp_path / "a", "text")
    assert synced == [str(tmp_path / "a.tmp"), str(tmp_path)]
    assert (tmp_path / "a").read_text() == "text"


def test_a_removal_is_synced_when_there_was_something(tmp_path: Path, synced: list[str]) -> None:
    assert not durable.remove_file(tmp_path / "a")
    assert synced == []
    (tmp_path / "a").touch()
    assert durable.remove_file(tmp_path / "a")
    assert synced == [str(tmp_path)]


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable.write_file(tmp_path / "a", "old")

    def fail(descriptor: int) -> None:
        raise OSError(5, f"no sync of {descriptor}")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no sync"):
        durable.write_file(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
