"""The second tier runs what it names, and says so when it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.soak import __main__ as soak
from tests.soak import branches
from tests.support.scale import SHARE

GOOD = "def test_it() -> None:\n    import os\n    assert os.environ['KVNODE_SOAK'] == '1'\n"
BAD = "def test_it() -> None:\n    assert False, 'as planned'\n"

TELLING = """
from tests.support.figures import tell
def test_it() -> None:
    tell("a form", worst_ms=7, failed=0)
    assert False
"""
SHARED = """
from tests.support.scale import lasting
def test_it() -> None:
    assert lasting(1, soak_s=10) == 5
"""


def job(tmp_path: Path, text: str) -> soak.Job:
    test = tmp_path / "test_planted.py"
    test.write_text(text)
    return soak.Job("planted", (str(test),))


def test_a_job_runs_with_full_figures(tmp_path: Path) -> None:
    result = soak.run(job(tmp_path, GOOD), 1)
    assert result.said.startswith("1 passed")
    assert result.took_s > 0
    assert result.told == ()


def test_what_a_test_measured_is_in_the_table_also_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(soak, "JOBS", (job(tmp_path, TELLING),))
    assert soak.main([]) == 1
    table = capsys.readouterr().out.partition("| date |")[2]
    assert "| a form: worst ms 7, failed 0; FAILED: 1 failed" in table


def test_a_share_of_the_full_length_reaches_the_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SHARE, "1")  # put back afterwards
    monkeypatch.setattr(soak, "JOBS", (job(tmp_path, SHARED),))
    assert soak.main(["planted", "--share", "0.5"]) == 0


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
    for test in (test for one in soak.JOBS for test in one.tests):
        path, _, name = test.partition("::")
        assert (soak.ROOT / path).exists(), test
        if name:
            assert f"def {name.partition('[')[0]}(" in (soak.ROOT / path).read_text(), test


# ---- branches -----------------------------------------------------------------------------------

MEASURED = """
from kvnode.core.versions import Record, covers, find
from tests.unit.core.builders import context, dot, record, version
def test_it() -> None:
    assert covers(context("a2"), dot("a1"))
    assert find(record(version("a1")), dot("b1")) is None
"""


def test_a_measured_job_tells_the_branches_it_took_and_fails_if_they_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branches, "PARTS", {"versions": ("core/versions",)})
    few = replace(job(tmp_path, MEASURED), is_measured=True)
    result = soak.run(few, 1)
    assert result.said.startswith("FAILED: 1 passed")
    (line,) = result.told
    assert line.startswith("FAILED: branches of versions: ")
    assert "->" in line
    monkeypatch.setattr(branches, "LEAST", 1.0)
    assert soak.run(few, 1).said.startswith("1 passed")


def test_branches_are_summed_part_by_part() -> None:
    def module(taken: int, there: int, *left: tuple[int, int]) -> dict[str, object]:
        summary = {"covered_branches": taken, "num_branches": there}
        return {"summary": summary, "missing_branches": left}

    told = {f"kvnode/core/{name}.py": module(50, 50) for name in ("write", "operations")}
    told["kvnode/core/writing.py"] = module(98, 100, (7, 9), (8, -1))
    lines, is_good = branches.judge({"files": told})
    (line,) = [line for line in lines if "of write:" in line]
    assert line == "branches of write: 198 of 200, 99.0 %; not taken: core/writing 7->9 8->-1"
    assert not is_good  # nothing was told of the other parts


def test_a_module_that_was_never_imported_fails_its_part() -> None:
    lines, is_good = branches.judge({"files": {}})
    assert not is_good
    assert len(lines) == len(branches.PARTS)
    assert all(line.startswith("FAILED: ") and "never imported" in line for line in lines)


def test_every_module_that_is_measured_exists() -> None:
    assert [name for name in branches.files() if not (soak.ROOT / name).exists()] == []
