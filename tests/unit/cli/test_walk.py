"""What a folder holds, and files that change under the reader's hands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvnode.cli import walk as module
from kvnode.cli.errors import CommandError
from kvnode.cli.walk import Changed, File, Reader, walk


def one(path: Path) -> File:
    return File(key=b"k", path=os.fsencode(path), size=path.stat().st_size)


def test_every_regular_file_is_found_by_its_relative_path(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "deep").write_bytes(b"12")
    (tmp_path / "top").write_bytes(b"")
    odd = os.fsencode(tmp_path) + b"/\xff new\nline"
    with open(odd, "wb") as file:  # noqa: PTH123 (a name that is no text)
        file.write(b"1")
    found = walk(tmp_path, b"p/")
    assert [(f.key, f.size) for f in found.files] == [
        (b"p/a/b/deep", 2), (b"p/top", 0), (b"p/\xff new\nline", 1),
    ]  # fmt: skip
    assert found.size == 3


def test_links_and_special_files_are_counted_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "to_itself").symlink_to(tmp_path)
    (tmp_path / "to_nothing").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    found = walk(tmp_path)
    assert found.files == []
    assert found.skipped == {"symbolic link": 2, "special file": 1}


def test_a_path_too_long_for_a_key_is_failed_with_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEY_BYTES_MAX", 4)
    (tmp_path / "12345").touch()
    (tmp_path / "1234").touch()
    found = walk(tmp_path)
    assert [file.key for file in found.files] == [b"1234"]
    assert found.failed == [(b"12345", "path of 5 bytes: a key has at most 4")]


def test_a_folder_that_cannot_be_read_is_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shut").mkdir()
    real = os.scandir

    def scandir(path: bytes) -> object:
        if path.endswith(b"shut"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)  # root may read everything
    assert walk(tmp_path).failed == [(b"shut/", "cannot be read: Permission denied")]


def test_what_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="file: not a folder"):
        walk(tmp_path / "file")
    with pytest.raises(CommandError, match="none: no such folder"):
        walk(tmp_path / "none")


def test_a_file_that_shrinks_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    with Reader(one(path)) as reader:
        assert reader.read(1, 3) == b"234"
        os.truncate(path, 2)
        with pytest.raises(Changed):
            reader.read(1, 3)


def test_a_file_that_is_written_to_is_found_out(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    with Reader(one(path)) as reader:
        reader.check()
        os.utime(path, ns=(0, 0))
        with pytest.raises(Changed):
            reader.check()


def test_a_file_that_became_a_pipe_or_a_link_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.touch()
    file = one(path)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(Changed):
        Reader(file)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        Reader(file)
