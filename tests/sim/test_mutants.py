"""Bugs that are planted are found by plans as they come, and leave nothing behind."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import pytest

from kvnode.core import versions
from kvnode.core.write import WriteOp
from tests.sim import mutants
from tests.sim.bugs import MUTANTS
from tests.sim.mutants import SEEDS, Hunt, hunt, hunt_all, sample
from tests.sim.planted import Mutant, Place, everywhere, noted, planted
from tests.support import figures
from tests.support.seeds import run_seed

PAGE = Path(__file__).resolve().parents[2] / "docs/testing.md"
IN_CI = 2
"""How many mutants a run of CI looks for."""
ALL = "KVNODE_MUTANTS"
"""Set by `python -m tests.soak mutants`: look for every one."""
RARE = frozenset(
    {
        "read error taken for absence",
        "checksums ignored",
        "floors kept where records were lost",
        "an exchange that was broken off counts",
        "hint given up for its age alone",
        "an owner and its stand-in count as two",
        "a retry turns uncertain into not applied",
        "a session that remembers nothing",
        "settling without the fence",
    }
)
"""Not found so soon that CI should wait for it."""


def chosen() -> list[str]:
    """Return the mutants to look for in this run."""
    usual = [name for name in MUTANTS if name not in RARE]
    return list(MUTANTS) if os.environ.get(ALL) else sample(usual, IN_CI, run_seed())


@cache
def hunts(names: tuple[str, ...]) -> dict[str, Hunt]:
    """Return what came of looking for these, by name: they share the runs without any mutant."""
    bugs = [MUTANTS[name] for name in names]
    return {found.name: found for found in hunt_all(bugs, range(1, SEEDS + 1))}


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("name", chosen())
def test_the_mutant_is_found(name: str) -> None:
    found = hunts(tuple(MUTANTS) if os.environ.get(ALL) else (name,))[name]
    figures.tell(f"mutant: {name}", seeds=found.seeds, breaks=found.invariant or "nothing")
    assert found.unsound == ()
    assert found.seed is not None


def values(places: list[Place]) -> list[object]:
    return [vars(owner).get(name) for owner, name, _ in places]


@pytest.mark.parametrize("name", MUTANTS)
def test_what_is_planted_is_there_and_is_taken_out_again(name: str) -> None:
    places = list(MUTANTS[name].places())
    before = values(places)
    with planted(MUTANTS[name]):
        assert all(here is not there for here, there in zip(values(places), before, strict=True))
    assert values(places) == before


def test_what_is_planted_is_taken_out_also_when_a_run_raises() -> None:
    before = WriteOp._result_if_met
    with pytest.raises(KeyError), planted(MUTANTS["an owner and its stand-in count as two"]):
        assert WriteOp._result_if_met is not before
        raise KeyError
    assert WriteOp._result_if_met is before


def test_a_function_is_replaced_wherever_it_was_imported() -> None:
    found = everywhere(versions.sync, versions.sync)
    owners = {getattr(owner, "__name__", "") for owner, _, _ in found}
    assert {"kvnode.core.versions", "kvnode.core.replica", "kvnode.core.heard"} <= owners
    assert not any(name.startswith("tests.") for name in owners)


def test_a_mutant_matters_where_something_is_called_that_it_replaces() -> None:
    called, idle = MUTANTS["a sibling dropped"], MUTANTS["expiry ignored"]
    with noted([called, idle]) as matter:
        assert matter == set()
        versions.sync(versions.EMPTY, versions.EMPTY)
    assert matter == {called.name}


def test_a_mutant_that_replaces_what_is_no_function_always_matters() -> None:
    bug = MUTANTS["floors kept where records were lost"]
    with noted([bug]) as matter:
        assert matter == {bug.name}


HARMLESS = Mutant("harmless", "nothing", lambda: [(WriteOp, "_uncertain", WriteOp._uncertain)])


def test_a_mutant_that_breaks_nothing_is_not_found() -> None:
    found = hunt(HARMLESS, range(1, 4))
    assert (found.seeds, found.seed, found.unsound) == (3, None, ())
    assert "not found" in found.row


def test_a_plan_that_the_store_breaks_by_itself_finds_no_mutant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with planted(MUTANTS["repair overwrites"]):  # by which the store itself is broken
        found = hunt(HARMLESS, range(1, 6))
    assert found.seed is None
    assert found.unsound != ()


def test_a_mutant_that_is_not_found_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(MUTANTS, "harmless", HARMLESS)
    assert mutants.main(["harmless", "--seeds", "1"]) == 1
    assert "| harmless | 1 | not found |" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        mutants.main(["armless"])
    assert "no mutant 'armless'" in capsys.readouterr().err


def test_a_row_says_what_broke_and_in_how_many_seeds() -> None:
    found = Hunt("a bug", 7, 7, "1-acknowledged-kept", took_s=3.2)
    assert found.row == "| a bug | 7 | 1-acknowledged-kept | 3 s |"


def test_a_sample_is_of_the_list_and_in_its_order() -> None:
    some = sample(list(MUTANTS), 5, 1)
    assert some == [name for name in MUTANTS if name in some]
    assert len(some) == 5


def test_every_mutant_is_in_the_table_and_none_that_is_not_there() -> None:
    section = PAGE.read_text().partition("## Mutants\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \|", section, re.MULTILINE)
    assert [name for name, _ in rows] == list(MUTANTS)
    assert all(int(seeds) <= SEEDS for _, seeds in rows)
    assert set(MUTANTS) >= RARE


def test_ci_looks_for_those_that_the_table_finds_soon() -> None:
    section = PAGE.read_text().partition("## Mutants\n")[2].partition("\n## ")[0]
    seeds = dict(re.findall(r"^\| ([^|]+) \| (\d+) \|", section, re.MULTILINE))
    assert all(int(seeds[name]) <= 5 for name in MUTANTS if name not in RARE)
