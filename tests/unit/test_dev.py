"""Claims about dev.py: what a fresh clone is told, and when its environment is current.

That it can build one is shown by every run of CI, which begins with it.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import dev

ROOT = Path(__file__).resolve().parents[2]


def run(*args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "dev.py"), *args]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let dev.py believe that an empty folder with lock files is its clone."""
    for name in ("pyproject.toml", "run.lock", "dev.lock"):
        (tmp_path / name).write_text(f"# {name}\n")
    (tmp_path / ".venv").mkdir()
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "VENV", tmp_path / ".venv")
    locks = {"run": tmp_path / "run.lock", "dev": tmp_path / "dev.lock"}
    monkeypatch.setattr(dev, "LOCKS", locks)
    return tmp_path


def stamp(clone: Path, kind: str) -> None:
    (clone / ".venv" / "kvnode-stamp").write_text(dev.stamp_of(kind))


def test_an_old_python_is_refused_in_one_line() -> None:
    dev.refuse_old_python((3, 11, 0))
    with pytest.raises(SystemExit, match=r"^kvnode needs Python 3\.11 or newer; .* is 3\.9\.2$"):
        dev.refuse_old_python((3, 9, 2))


def test_an_old_python_can_read_the_file_far_enough_to_refuse() -> None:
    ast.parse((ROOT / "dev.py").read_text(), feature_version=(3, 8))


def test_a_python_that_makes_no_environments_is_told_what_to_install(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="apt-get install python3-venv"):
        dev.make_venv()
    assert list((clone / ".venv").iterdir()) == []


def test_an_environment_is_current_until_its_lock_or_the_project_changes(clone: Path) -> None:
    assert not dev.is_current("run")
    stamp(clone, "run")
    assert dev.is_current("run")
    (clone / "run.lock").write_text("# newer\n")
    assert not dev.is_current("run")
    stamp(clone, "run")
    (clone / "pyproject.toml").write_text("# newer\n")
    assert not dev.is_current("run")


def test_the_dev_environment_will_do_for_running_but_not_the_other_way_round(clone: Path) -> None:
    stamp(clone, "dev")
    assert dev.is_current("run")
    stamp(clone, "run")
    assert not dev.is_current("dev")


def test_an_unknown_verb_is_wrong_usage_and_the_known_ones_are_listed() -> None:
    done = run("tset")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dev.py: no such verb: tset\nusage: ")
    assert all(f"\n  {verb} " in done.stderr for verb in dev.VERBS)


def test_a_tool_that_fails_stops_the_run_with_its_status(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped, dev.step("doomed"):
        dev.run(sys.executable, "-c", "raise SystemExit(3)")
    assert stopped.value.code == 3
    assert re.search(r"^-- doomed: failed, \d+\.\d s$", capfd.readouterr().out, re.MULTILINE)


def test_every_test_runs_once_those_that_open_ports_last_and_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran: list[tuple[str, ...]] = []
    for name in ("setup", "run", "become"):
        monkeypatch.setattr(dev, name, lambda *words: ran.append(words))
    monkeypatch.chdir(ROOT)  # where it goes, and back
    dev.test([])
    spread, alone = [words for words in ran if "pytest" in words]
    assert spread[-len(dev.PURE) :] == dev.PURE
    assert alone == ("python", "-m", "pytest", *(f"--ignore={path}" for path in dev.PURE))
    assert all((ROOT / path).is_dir() for path in dev.PURE)


@pytest.mark.parametrize("lock", dev.LOCKS.values(), ids=lambda lock: lock.name)
def test_every_pin_of_a_lock_is_exact_and_hashed_and_its_head_says_how_to_renew_it(
    lock: Path,
) -> None:
    head, *pins = re.split(r"\n(?=[a-z])", lock.read_text())
    assert "python3 dev.py lock" in head
    assert pins
    assert all(re.match(r"[\w.-]+==\S+ .*--hash=sha256:", pin, re.DOTALL) for pin in pins)


def test_what_is_tested_is_what_runs() -> None:
    run_pins, dev_pins = (
        set(re.findall(r"^([\w.-]+==\S+)", lock.read_text(), re.MULTILINE))
        for lock in (dev.LOCKS["run"], dev.LOCKS["dev"])
    )
    assert run_pins < dev_pins
