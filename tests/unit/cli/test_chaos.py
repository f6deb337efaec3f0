"""`kvnode chaos`: what is refused before anything starts, what a run will be, how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvclient.testing import cluster as kit
from kvclient.testing.files import KitError
from kvnode.cli.arguments import COMMANDS, parse
from kvnode.cli.chaos import DEFAULT_FAULTS, Plan, planned
from kvnode.cli.errors import UsageError
from kvnode.cli.main import main
from kvnode.cli.readers import words


def plan(*flags: str) -> Plan:
    return planned(parse("chaos", COMMANDS["chaos"], flags))


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail what would start a node."""

    def refuse(self: object) -> None:
        raise KitError("a node was to be started")

    monkeypatch.setattr(kit.Cluster, "open", refuse)


def test_without_flags_it_is_five_nodes_a_mixed_load_and_usual_faults() -> None:
    usual = plan("--seconds", "300")
    assert (len(usual.ids), usual.load.workloads, usual.load.seconds) == (5, ("mixed",), 300)
    assert {fault.kind for fault in usual.faults} == set(DEFAULT_FAULTS)


def test_a_seed_repeats_the_faults_and_its_absence_does_not() -> None:
    assert plan("--seed", "7") == plan("--seed", "7")
    assert plan("--seed", "7").faults != plan("--seed", "8").faults
    assert len({plan().load.seed for _ in range(5)}) > 1


def test_flags_are_carried_into_the_load() -> None:
    load = plan(
        *("--workload", "set,rewrite", "--rate", "50", "--strict", "--timeout", "2"),
        *("--workers", "1"),
    ).load
    assert (load.workloads, load.rate, load.timeout_s, load.is_strict) == (
        ("set", "rewrite"), 50, 2.0, True,
    )  # fmt: skip
    assert load.workers == 2  # each workload has somebody who does it


def test_faults_come_from_a_file_if_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "faults.jsonl"
    path.write_text(json.dumps({"at_s": 3, "kind": "kill", "nodes": ["n2"]}) + "\n")
    [fault] = plan("--schedule", str(path)).faults
    assert (fault.at_s, fault.nodes) == (3, ("n2",))
    with pytest.raises(UsageError, match="one of them"):
        plan("--schedule", str(path), "--faults", "kill")


TWO = "\n".join(json.dumps({"at_s": 1, "kind": "kill", "nodes": [name]}) for name in ("n1", "n2"))


def test_more_than_quorums_survive_needs_to_be_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "faults.jsonl"
    path.write_text(TWO)
    with pytest.raises(UsageError, match="--hard"):
        plan("--schedule", str(path))
    assert len(plan("--schedule", str(path), "--hard").faults) == 2


@pytest.mark.parametrize("nodes", ["1", "2"])
def test_of_two_nodes_none_can_be_missed(nodes: str) -> None:
    with pytest.raises(UsageError, match="--hard"):
        plan("--nodes", nodes, "--faults", "kill")
    assert plan("--nodes", nodes, "--faults", "slow,skew").faults


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--faults", "kil"], "did you mean 'kill'?"),
        (["--faults", "zzz"], "there are kill, pause"),
        (["--workload", "registr"], "did you mean 'register'?"),
        (["--lasting", "9"], "would meet the next"),
        (["--nodes", "2", "--faults", "ring"], "needs 4 nodes"),
        (["--nodes", "0"], "expected a whole number of nodes from 1 to 50, got '0'"),
        (["--rate", "fast"], "expected a whole number"),
        (["--workload", ","], "expected a workload, or several with commas, got ','"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chaos", *flags]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.out == ""


def test_a_schedule_that_is_none_or_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "faults.toml"
    assert main(["chaos", "--schedule", str(path)]) == 1
    assert capsys.readouterr().err == f"kvnode: file not found: {path}\n"
    path.write_text("[[fault]]\nat_s = 1\nkind = 'flood'\n")
    assert main(["chaos", "--schedule", str(path)]) == 1
    assert capsys.readouterr().err.startswith("kvnode: no kind of fault 'flood'; there are kill")


def test_a_kit_that_fails_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "--seconds", "1"]) == 1
    assert capsys.readouterr().err == "kvnode: a node was to be started\n"


def test_a_comma_list_has_at_least_one_word() -> None:
    assert words("a word")(" a, b,") == ("a", "b")


# --- judging a file -------------------------------------------------------------------------------

SOUND = [
    {"op": 0, "worker": 0, "type": "invoke", "f": "put", "key": "k", "value": "1", "time_ms": 0},
    {"op": 0, "worker": 0, "type": "ok", "f": "put", "key": "k", "time_ms": 2.5},
    {"type": "final", "time_ms": 3},
    {"op": 1, "worker": 9, "type": "invoke", "f": "get", "key": "k", "time_ms": 4},
    {"op": 1, "worker": 9, "type": "ok", "f": "get", "key": "k", "value": "1", "time_ms": 5},
]


def written(folder: Path, lines: list[dict[str, object]]) -> str:
    path = folder / "history.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_a_sound_history_is_judged_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["chaos", "--judge", written(tmp_path, SOUND)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[:3] == ["operations\t2", "failed\t0", "worst\t2 ms"]
    assert said[-1] == "verdict\tsound"


def test_a_history_with_a_lost_write_is_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = [*SOUND[:-1], {**SOUND[-1], "value": None}]
    assert main(["chaos", "--judge", written(tmp_path, lost)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "lost acknowledged writes\t1" in said
    assert said[-2] == "verdict\tNOT SOUND"
    assert said[-1].startswith("lost acknowledged write: default/k, operation 1")


def test_what_is_no_history_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "--judge", written(tmp_path, [SOUND[1]])]) == 1
    assert capsys.readouterr().err == "kvnode: line 1: KeyError: 0\n"
