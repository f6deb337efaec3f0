"""The data folder: whose it is, that one process has it, and the marker of a clean stop."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kvnode.storage import folder
from kvnode.storage.folder import DataFolder, FolderError, Identity, read_identity
from tests.support.stores import run_child

_CHILDREN = "tests.unit.storage.children"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "data"


def _open(path: Path, *, cluster_id: str = "c", node_id: str = "n1") -> DataFolder:
    return DataFolder.open(path, cluster_id=cluster_id, node_id=node_id, cluster_name="demo")


def _refusal(path: Path, *, cluster_id: str = "c", node_id: str = "n1") -> str:
    with pytest.raises(FolderError) as caught:
        _open(path, cluster_id=cluster_id, node_id=node_id)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_missing_folder_is_created_and_knows_its_node_afterwards(path: Path) -> None:
    _open(path).close()
    opened = _open(path)
    assert opened.identity == Identity(cluster_id="c", cluster_name="demo", node_id="n1")
    assert read_identity(path) == opened.identity
    assert opened.store_path.parent == path
    opened.close()
    opened.close()


def test_what_logs_and_file_systems_leave_does_not_make_a_folder_somebody_elses(
    path: Path,
) -> None:
    path.mkdir(parents=True)
    (path / "lost+found").mkdir()
    for name in ("node.log", "node.log.1", "node.pid", ".hidden", "identity.json.tmp"):
        (path / name).touch()
    _open(path).close()


def test_a_folder_in_use_is_refused_with_the_pid_of_who_uses_it(path: Path) -> None:
    held = _open(path)
    assert f"in use by process {os.getpid()}" in _refusal(path)
    child = run_child(f"{_CHILDREN}:open_folder", path)
    assert f"in use by process {os.getpid()}" in json.loads(child.stdout)
    held.close()
    assert json.loads(run_child(f"{_CHILDREN}:open_folder", path).stdout) == "opened"


def test_a_killed_process_leaves_no_lock(path: Path) -> None:
    child = run_child(f"{_CHILDREN}:hold_folder_and_die", path)
    assert child.returncode == -9, child.stderr
    _open(path).close()


def test_a_refused_opening_leaves_no_lock(path: Path) -> None:
    _open(path).close()
    _refusal(path, node_id="n2")
    _open(path).close()


def test_a_folder_that_may_not_be_written_is_refused(path: Path, tmp_path: Path) -> None:
    path.mkdir(parents=True)
    path.chmod(0o555)
    for above in (tmp_path, *tmp_path.parents[:3], path.parent):
        above.chmod(above.stat().st_mode | 0o055)
    text = json.loads(run_child(f"{_CHILDREN}:open_folder_unprivileged", path).stdout)
    assert text == f"cannot use data folder {path}: Permission denied"


def test_a_file_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.touch()
    assert "is a file" in _refusal(path)


def test_a_folder_below_a_file_is_refused(path: Path) -> None:
    path.parent.touch()
    assert "Not a directory" in _refusal(path)


def test_the_folder_of_another_cluster_is_refused_by_name(path: Path) -> None:
    _open(path).close()
    assert "belongs to another cluster: demo, node n1" in _refusal(path, cluster_id="d")


def test_the_folder_of_another_node_is_refused_by_name(path: Path) -> None:
    _open(path).close()
    assert "belongs to node n1, not n2" in _refusal(path, node_id="n2")


def test_a_newer_format_is_refused_with_both_numbers(path: Path) -> None:
    path.mkdir(parents=True)
    # Of a newer format only the version is known for sure.
    (path / "identity.json").write_text(json.dumps({"format_version": 7}))
    text = _refusal(path)
    assert "has format 7" in text
    assert f"reads up to {folder.FORMAT_VERSION}" in text


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format_version": 1}', "\udc80"])
def test_a_damaged_identity_is_refused(path: Path, content: str) -> None:
    path.mkdir(parents=True)
    (path / "identity.json").write_bytes(content.encode(errors="surrogateescape"))
    assert "identity.json is damaged" in _refusal(path)


def test_a_folder_with_files_but_no_identity_is_refused_untouched(path: Path) -> None:
    path.mkdir(parents=True)
    (path / "thesis.txt").touch()
    assert "holds thesis.txt but no identity.json" in _refusal(path)
    assert [entry.name for entry in path.iterdir()] == ["thesis.txt"]


def test_a_look_from_outside_needs_a_data_folder_and_no_lock(path: Path) -> None:
    with pytest.raises(FolderError, match=r"has no identity\.json"):
        read_identity(path)
    held = _open(path)
    assert read_identity(path).node_id == "n1"
    held.close()


def test_a_clean_stop_is_told_once(path: Path) -> None:
    opened = _open(path)
    assert not opened.take_clean_stop()
    opened.mark_clean_stop()
    opened.close()
    opened = _open(path)
    assert opened.take_clean_stop()
    assert not opened.take_clean_stop()
    opened.close()


def test_a_new_folder_is_on_the_disk_with_those_above_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(folder, "sync_folder", synced.append)
    _open(path).close()
    assert synced == [path.parent, path.parent.parent]
    _open(path).close()
    assert len(synced) == 2


def test_a_sealed_store_that_nobody_touched_is_as_it_was_left(tmp_path: Path) -> None:
    fill_store(tmp_path / "n1" / "store")
    with_folder(tmp_path, DataFolder.mark_clean_stop)
    assert with_folder(tmp_path, DataFolder.break_seal) == ""
    assert with_folder(tmp_path, DataFolder.take_clean_stop) is True


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-000005", "000009.sst", "000004.log"])
@pytest.mark.parametrize("change", ["cut", "gone", "more"])
def test_a_broken_seal_is_told_once_with_the_files_name(
    tmp_path: Path, name: str, change: str
) -> None:
    file = fill_store(tmp_path / "n1" / "store") / name
    with_folder(tmp_path, DataFolder.mark_clean_stop)
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] if change == "cut" else b"12345678901")
    wrong = with_folder(tmp_path, DataFolder.break_seal)
    assert wrong == f"not as the clean stop left it: {name}"
    assert with_folder(tmp_path, DataFolder.break_seal) == ""


def test_a_byte_of_a_small_file_breaks_the_seal_and_of_a_note_does_not(tmp_path: Path) -> None:
    store = fill_store(tmp_path / "n1" / "store")
    with_folder(tmp_path, DataFolder.mark_clean_stop)
    (store / "LOG").write_bytes(b"other notes")
    (store / "CURRENT").write_bytes(b"0123456780")
    wrong = with_folder(tmp_path, DataFolder.break_seal)
    assert wrong == "not as the clean stop left it: CURRENT"


def test_a_seal_that_cannot_be_read_is_broken(tmp_path: Path) -> None:
    fill_store(tmp_path / "n1" / "store")
    with_folder(tmp_path, DataFolder.mark_clean_stop)
    (tmp_path / "n1" / "clean-stop").write_text("{")
    assert "not as the clean stop left it" in with_folder(tmp_path, DataFolder.break_seal)


def test_without_a_clean_stop_nothing_is_sealed(tmp_path: Path) -> None:
    fill_store(tmp_path / "n1" / "store")
    assert with_folder(tmp_path, DataFolder.break_seal) == ""
    assert with_folder(tmp_path, DataFolder.take_clean_stop) is False


def test_a_rebuild_is_asked_for_until_it_is_done(tmp_path: Path) -> None:
    assert with_folder(tmp_path, DataFolder.rebuild_asked) == ""
    with_folder(tmp_path, lambda folder: folder.ask_rebuild("a bad\nblock"))
    assert with_folder(tmp_path, DataFolder.rebuild_asked) == "a bad block"
    with_folder(tmp_path, DataFolder.rebuild_done)
    assert with_folder(tmp_path, DataFolder.rebuild_asked) == ""


def fill_store(store: Path) -> Path:
    """Make what looks like a store."""
    store.mkdir(parents=True)
    (store.parent / "identity.json").write_text(
        json.dumps({"cluster_id": "c", "cluster_name": "", "node_id": "n1", "format_version": 1})
    )
    for name in ("CURRENT", "MANIFEST-000005", "000009.sst", "000004.log", "LOG"):
        (store / name).write_bytes(b"0123456789")
    return store


def with_folder(tmp_path: Path, what: Callable[[DataFolder], Any]) -> Any:
    """Do something with the folder in a life of its own."""
    folder = DataFolder.open(tmp_path / "n1", cluster_id="c", node_id="n1")
    try:
        return what(folder)
    finally:
        folder.close()
