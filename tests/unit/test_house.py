"""The house in order: what ruff, mypy and import-linter cannot hold, held by tests.

Each check of tests/support/house.py is first shown a bad snippet, then the tree.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import statistics
import textwrap
from pathlib import Path
from typing import Any

import pytest

from kvnode.core.bounds import Limits
from tests.support import house

ROOT = Path(__file__).resolve().parents[2]
CODE = ("kvnode", "client/kvclient")
LINES_AIM = 400
LINES_MAX = 500

LONG_MODULES: dict[str, str] = {
    "kvnode/core/bounds.py": "every bound in one place is its whole point",
    "client/kvclient/testing/relay.py": "run by its path, without its package: one file alone",
}
"""Modules between LINES_AIM and LINES_MAX lines, each with the reason why it is not two."""

NO_TEST_NEEDED: dict[str, str] = {}
"""Modules of core and storage that no test module imports, each with the reason."""


def modules(*tops: str) -> list[Path]:
    """Return the hand-written modules below `tops`, relative to the root."""
    found = (path for top in tops for path in (ROOT / top).rglob("*.py"))
    return sorted(p.relative_to(ROOT) for p in found if not p.stem.endswith(("_pb2", "_pb2_grpc")))


@functools.cache
def parsed(module: Path) -> ast.Module:
    return ast.parse((ROOT / module).read_text(), filename=str(module))


def snippet(text: str) -> ast.Module:
    return ast.parse(textwrap.dedent(text))


def told(module: Path, faults: list[house.Fault]) -> list[str]:
    return [f"{module}:{fault.line}: {fault.what}" for fault in faults]


# --- the core is pure ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        "import asyncio",
        "import os.path",
        "from concurrent import futures",
        "def f():\n    import time",
        "from kvnode import storage",
        "from kvnode.runtime.clock import Clock",
        "from kvproto import kvnode_pb2",
        "import kvproto.kvnode_pb2_grpc as wire",
        "from kvproto.peer_pb2 import Frame",
        "import datetime\nat = datetime.datetime.now()",
        "from datetime import date\nat = date.today()",
        "open('x')",
        "print('x')",
        "place = hash('key') % 5",
        "place = id(object())",
        "async def f(): ...",
    ],
)
def test_what_acts_or_reads_a_clock_is_impure(bad: str) -> None:
    assert house.impurities(snippet(bad)) != []


@pytest.mark.parametrize(
    "good",
    [
        "import math",
        "import timeit_like",
        "from kvproto.token import token",
        "from kvnode.core.batch import WriteBatch",
        "at = clock.reading",
        "def f(now): return now()",
    ],
)
def test_what_is_handed_in_is_pure(good: str) -> None:
    assert house.impurities(snippet(good)) == []


@pytest.mark.parametrize("module", modules("kvnode/core"), ids=str)
def test_core_is_pure(module: Path) -> None:
    assert told(module, house.impurities(parsed(module))) == []


@pytest.mark.parametrize(
    "bad",
    [
        "for x in {1, 2}: send(x)",
        "for x in set(nodes): send(x)",
        "for x in frozenset(nodes) | others: send(x)",
        "for x in set(nodes).union(more): send(x)",
        "sends = [x for x in {y for y in nodes}]",
        "sends = {x: 1 for x in set(nodes)}",
        "sends = tuple(x for x in set(nodes))",
        "sends = list({1, 2})",
        "text = ','.join({'a', 'b'})",
        "sends = [*set(nodes)]",
        "seen = set(nodes)\ndef f():\n    for x in seen: send(x)",
        "def f(nodes: frozenset[int] | None):\n    for x in nodes: send(x)",
        "def f():\n    seen: set[int] = g()\n    yield from seen",
        "class A:\n    seen: set[int]\n    def f(self):\n        return [x for x in self.seen]",
        "class A:\n    def f(self): self.s = set()\n    def g(self): return [*self.s]",
        "class A:\n    s: set[int]\ndef f(a):\n    for x in a.s: send(x)",
    ],
)
def test_walking_a_set_into_effects_is_found(bad: str) -> None:
    tree = snippet(bad)
    assert house.unordered_loops(tree, house.set_attributes([tree])) != []


@pytest.mark.parametrize(
    "good",
    [
        "for x in sorted(set(nodes)): send(x)",
        "for x in sorted(x.id for x in set(nodes)): send(x)",
        "for x in {1: 2}: send(x)",
        "for x in [1, 2]: send(x)",
        "total = sum(x for x in {1, 2})",
        "ids = {x.id for x in set(nodes)}",
        "known = x in {1, 2}",
        "def f(nodes: list[int]):\n    for x in nodes: send(x)",
        "class A:\n    s: set[int]\nclass B:\n    s: list[int]\ndef f(b: B): return [*b.s]",
        "class A:\n    s: set[int]\ndef f(s: list[int]): return [*s]",
        "def f():\n    seen = set()\ndef g(seen: list[int]):\n    for x in seen: send(x)",
    ],
)
def test_an_order_that_is_given_is_no_fault(good: str) -> None:
    tree = snippet(good)
    assert house.unordered_loops(tree, house.set_attributes([tree])) == []


@pytest.mark.parametrize("module", modules("kvnode/core"), ids=str)
def test_core_walks_no_set_into_effects(module: Path) -> None:
    attributes = house.set_attributes([parsed(each) for each in modules("kvnode/core")])
    assert told(module, house.unordered_loops(parsed(module), attributes)) == []


# --- sizes --------------------------------------------------------------------------------------


def function_of(lines: int) -> ast.Module:
    return snippet("def f():\n" + "    x = 1\n" * (lines - 1))


def test_a_function_of_51_lines_is_too_long() -> None:
    assert house.long_functions(function_of(50), limit=50) == []
    assert house.long_functions(function_of(51), limit=50) == [house.Fault(1, "f has 51 lines")]


def test_methods_and_nested_functions_are_measured_too() -> None:
    tree = snippet("class A:\n    async def f(self):\n        def g(): ...\n        return g")
    assert [each.name for each in house.functions(tree)] == ["f", "g"]


def test_a_docstring_is_not_code() -> None:
    documented, *_ = house.functions(snippet('def f():\n    """One.\n\n    Two.\n    """\n    g()'))
    assert (house.lines_of(documented), house.code_lines_of(documented)) == (6, 2)


@pytest.mark.parametrize("module", modules(*CODE), ids=str)
def test_no_function_is_longer_than_50_lines(module: Path) -> None:
    assert told(module, house.long_functions(parsed(module), limit=50)) == []


def test_most_functions_are_short() -> None:
    found = [each for module in modules(*CODE) for each in house.functions(parsed(module))]
    lengths = sorted(map(house.code_lines_of, found))
    assert statistics.median(lengths) <= 8
    assert statistics.quantiles(lengths, n=10)[-1] < 25


def test_every_exception_to_a_rule_is_a_module_that_exists_and_says_why() -> None:
    for listed in (LONG_MODULES, NO_TEST_NEEDED):
        assert all((ROOT / name).exists() and len(why.split()) > 3 for name, why in listed.items())


@pytest.mark.parametrize("module", modules(*CODE), ids=str)
def test_no_module_outgrows_one_sitting(module: Path) -> None:
    lines = len((ROOT / module).read_text().splitlines())
    assert lines <= (LINES_MAX if str(module) in LONG_MODULES else LINES_AIM)


# --- modules say what they are, and are tested ----------------------------------------------------


@functools.cache
def imported_by_tests() -> frozenset[str]:
    """Return every dotted name that a test module imports."""
    tests = [module for module in modules("tests") if module.name.startswith("test_")]
    return frozenset(name for test in tests for _, name in house.imports(parsed(test)))


def is_tested(module: Path, imported: frozenset[str]) -> bool:
    dotted = ".".join(module.with_suffix("").parts)
    return any(name == dotted or name.startswith(f"{dotted}.") for name in imported)


def test_a_module_that_no_test_imports_is_untested() -> None:
    imports = frozenset(name for _, name in house.imports(snippet("from kvnode.core import batch")))
    assert is_tested(Path("kvnode/core/batch.py"), imports)
    assert not is_tested(Path("kvnode/core/bat.py"), imports)


@pytest.mark.parametrize("module", modules("kvnode/core", "kvnode/storage"), ids=str)
def test_every_module_of_core_and_storage_has_a_test_module(module: Path) -> None:
    named = module.name == "__init__.py" or str(module) in NO_TEST_NEEDED
    assert named or is_tested(module, imported_by_tests())


def test_a_missing_docstring_or_test_file_is_a_fault() -> None:
    assert house.docstring_faults(snippet("x = 1"), ROOT) == [house.Fault(1, "no docstring")]
    wrong = snippet('"""Decides. Its test file is tests/unit/test_gone.py."""')
    assert "tests/unit/test_gone.py" in house.docstring_faults(wrong, ROOT)[0].what
    assert house.docstring_faults(parsed(Path("tests/support/house.py")), ROOT) == []


@pytest.mark.parametrize("module", modules(*CODE, "proto", "tests", "bench"), ids=str)
def test_every_module_says_what_it_is(module: Path) -> None:
    empty = module.name == "__init__.py" and not (ROOT / module).read_text().strip()
    faults = [] if empty else house.docstring_faults(parsed(module), ROOT)
    assert told(module, faults) == []


# --- nothing goes unsaid, nothing is said twice ---------------------------------------------------


def test_a_print_is_found() -> None:
    assert house.prints(snippet("def f():\n    print(1)")) == [house.Fault(2, "prints")]
    assert house.prints(snippet("console.print(1)")) == []


@pytest.mark.parametrize(
    "module", modules("kvnode/core", "kvnode/storage", "kvnode/runtime", "client/kvclient"), ids=str
)
def test_only_the_command_prints(module: Path) -> None:
    assert told(module, house.prints(parsed(module))) == []


@pytest.mark.parametrize(
    "bad", ["except: raise", "except KeyError: pass", "except (A, B):\n    ...", "except: ..."]
)
def test_a_bare_or_silent_except_is_found(bad: str) -> None:
    assert house.silent_excepts(snippet(f"try: f()\n{bad}")) != []


def test_an_except_that_concludes_something_is_no_fault() -> None:
    assert house.silent_excepts(snippet("try: f()\nexcept KeyError: x = None")) == []


@pytest.mark.parametrize("module", modules(*CODE, "tests", "bench"), ids=str)
def test_no_except_is_bare_or_silent(module: Path) -> None:
    assert told(module, house.silent_excepts(parsed(module))) == []


# --- settings -------------------------------------------------------------------------------------

WHOLE = {"unit": "ms", "low": 1, "high": 9, "doc": "Raising it waits longer."}


def setting(default: int, **metadata: object) -> dataclasses.Field[Any]:
    made = dataclasses.make_dataclass(
        "Made", [("wait_ms", int, dataclasses.field(default=default, metadata=metadata))]
    )
    return dataclasses.fields(made)[0]


@pytest.mark.parametrize("lost", WHOLE)
def test_a_setting_without_its_unit_range_or_sentence_is_a_fault(lost: str) -> None:
    kept = {key: value for key, value in WHOLE.items() if key != lost}
    assert house.setting_faults(setting(5, **kept)) == [f"wait_ms lacks {lost}"]


@pytest.mark.parametrize(("default", "doc"), [(10, WHOLE["doc"]), (0, WHOLE["doc"]), (5, "wait")])
def test_a_setting_out_of_range_or_unexplained_is_a_fault(default: int, doc: str) -> None:
    assert house.setting_faults(setting(5, **WHOLE)) == []
    assert len(house.setting_faults(setting(default, **(WHOLE | {"doc": doc})))) == 1


@pytest.mark.parametrize("each", dataclasses.fields(Limits), ids=lambda each: each.name)
def test_every_limit_is_documented_and_its_default_is_in_range(
    each: dataclasses.Field[Any],
) -> None:
    assert house.setting_faults(each) == []


def test_a_raise_in_an_except_star_is_found() -> None:
    bad = """
        try:
            act()
        except* OSError as group:
            raise group.exceptions[0]
    """
    assert house.raises_in_except_star(snippet(bad)) != []
    assert (
        house.raises_in_except_star(snippet(bad.replace("raise group.exceptions[0]", "raise")))
        == []
    )


@pytest.mark.parametrize("module", modules(*CODE, "tests", "bench"), ids=str)
def test_no_except_star_raises(module: Path) -> None:
    assert told(module, house.raises_in_except_star(parsed(module))) == []
