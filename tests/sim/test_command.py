"""The command: what it prints, what it exits with, and how it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim import __main__ as command
from tests.sim.generate import generate
from tests.sim.plan import Plan
from tests.sim.run import Verdict, Violation

SEED = 3


def test_one_seed_ends_with_its_trace_and_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--seed", str(SEED)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("trace ")
    assert len(bytes.fromhex(last.removeprefix("trace "))) >= 16


def test_a_plan_that_was_written_replays_with_the_same_trace(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    assert command.main(["--seed", str(SEED), "--write", str(path)]) == 0
    first = capsys.readouterr().out.splitlines()
    assert Plan.from_json(path.read_text()) == generate(SEED)
    assert command.main(["--replay", str(path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == first[-1]


def test_a_violation_exits_1_and_says_how_to_shrink_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verdict = Verdict(SEED, Violation("2-deleted-stays-deleted", "its story"), digest="ab")
    monkeypatch.setattr(command, "run", lambda plan: verdict)
    assert command.main(["--seed", str(SEED), "--keep", "o1,f0"]) == 1
    told = capsys.readouterr().out
    assert "2-deleted-stays-deleted: its story" in told
    assert f"shrink: python -m tests.sim --seed {SEED} --keep o1,f0 --shrink" in told


def test_what_is_asked_for_holds_for_one_seed_and_for_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plans: list[Plan] = []

    def run(plan: Plan) -> Verdict:
        plans.append(plan)
        return Verdict(plan.seed, Violation("3-x", ""))

    monkeypatch.setattr(command, "run", run)
    words = ["--nodes", "5", "--rate", "20", "--usual"]
    command.main(["--seed", "2", *words])
    assert "--seed 2 --nodes 5 --rate 20 --usual --shrink" in capsys.readouterr().out
    command.main(["--seeds", "2-2", *words])

    assert plans == 2 * [generate(2, nodes=5, rate=20, is_usual=True)]


def test_many_seeds_end_with_their_sum_and_name_those_that_broke_something(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(plan: Plan) -> Verdict:
        violation = Violation("3-x", "") if plan.seed == 2 else None
        return Verdict(plan.seed, violation, simulated_us=1_800_000_000)

    monkeypatch.setattr(command, "run", run)
    assert command.main(["--seeds", "1-4"]) == 1
    told = capsys.readouterr().out
    assert "4 runs, 2.00 simulated hours" in told
    assert "violation: seed 2: 3-x" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "required"),
        (["--seed", "x"], "expected a whole number"),
        (["--seeds", "7"], "expected two numbers"),
        (["--seeds", "9-1"], "ends before it begins"),
        (["--minutes", "-1"], "expected a number of minutes"),
        (["--seed", "1", "--seeds", "1-2"], "not allowed with"),
        (["--seed", "1", "--nodes", "2"], "expected a whole number of 3 to 9"),
        (["--seed", "1", "--rate", "0"], "expected a whole number of 1 to 100"),
        (["--seed", "1", "--keep", "o1,zz"], "no item zz"),
        (["--seed", "1", "--keep", ","], "expected names"),
        (["--replay", "/nowhere/plan.json"], "No such file"),
        (["--seed", "1", "--what"], "unrecognized"),
    ],
)
def test_a_wrong_argument_is_refused_in_one_line(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        command.main(words)
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert told in said
    assert len(said.splitlines()) == 1


def test_a_file_that_is_no_plan_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.json"
    for text in ("[]", "{", '{"format": 1}', "\xff"):
        path.write_text(text)
        with pytest.raises(SystemExit) as exit_:
            command.main(["--replay", str(path)])
        assert exit_.value.code == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
