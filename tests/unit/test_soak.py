"""The second tier runs what it names, and says so when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak import __main__ as soak

GOOD = "def test_it() -> None:\n    import os\n    assert os.environ['KVNODE_SOAK'] == '1'\n"
BAD = "def test_it() -> None:\n    assert False, 'as planned'\n"


def job(tmp_path: Path, text: str) -> soak.Job:
    test = tmp_path / "test_planted.py"
    test.write_text(text)
    return soak.Job("planted", (str(test),))


def test_a_job_runs_with_full_figures(tmp_path: Path) -> None:
    said, took_s = soak.run(job(tmp_path, GOOD), 1)
    assert said.startswith("1 passed")
    assert took_s > 0


def test_a_job_that_fails_fails_the_soak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak, "JOBS", (job(tmp_path, BAD),))
    assert soak.main([]) == 1
    said = capsys.readouterr().out
    assert "as planned" in said
    assert "FAILED: 1 failed" in said


def test_a_job_runs_as_often_as_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak, "JOBS", (job(tmp_path, GOOD),))
    assert soak.main(["planted", "--runs", "2"]) == 0
    table = capsys.readouterr().out.partition("| date |")[2]
    assert table.count("| planted |") == 2


def test_an_unknown_job_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        soak.main(["nope"])
    assert "no job 'nope'; there are main job" in capsys.readouterr().err


def test_every_job_names_tests_that_exist() -> None:
    for one in soak.JOBS:
        assert all((soak.ROOT / test).exists() for test in one.tests), one
