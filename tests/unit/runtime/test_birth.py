"""A cluster is born once; its secret is its owner's alone; what is no key file is told."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from kvnode.runtime.birth import FILE, BirthError, create, load


def test_what_is_made_is_what_is_read(tmp_path: Path) -> None:
    born = create(tmp_path)
    assert load(tmp_path) == born
    assert (len(born.cluster_id), len(born.key)) == (16, 32)


def test_a_cluster_is_born_once(tmp_path: Path) -> None:
    assert create(tmp_path) == create(tmp_path)


def test_no_two_clusters_share_anything(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, other = create(tmp_path), create(tmp_path / "other")
    assert one.cluster_id != other.cluster_id
    assert one.key != other.key


def test_only_the_owner_may_read_the_key(tmp_path: Path) -> None:
    create(tmp_path)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


def test_a_missing_file_is_told_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BirthError, match=r"cluster\.key is missing: copy it from another node"):
        load(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"cluster_id": 7, "key": 8}',
        '{"cluster_id": "zz", "key": "00"}',
        json.dumps({"cluster_id": "00" * 15, "key": "00" * 32}),
        json.dumps({"cluster_id": "00" * 16, "key": "00" * 31}),
        "é",
    ],
)
def test_what_is_no_key_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    with pytest.raises(BirthError, match="is not a cluster's key file"):
        load(tmp_path)


def test_a_file_that_cannot_be_read_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(BirthError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_broken_file_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("broken")
    with pytest.raises(BirthError):
        create(tmp_path)
    assert (tmp_path / FILE).read_text() == "broken"
