"""Checks of how the code reads and what it may do, over syntax trees.

What it decides: nothing about style that ruff or import-linter can hold; only what they cannot.
Laws: a check is a pure function from source to faults; a fault names the line. Its test file is
tests/unit/test_house.py, where every check is also shown a bad snippet. It leaves out flow: a set
that reaches a loop through another function's result is not seen.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import Field, dataclass
from pathlib import Path
from typing import Any, TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Scope: TypeAlias = Function | ast.ClassDef | ast.Module
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)

# fmt: off
IMPURE_MODULES = frozenset((
    "asyncio", "concurrent", "ctypes", "grpc", "google", "io", "logging", "mmap", "multiprocessing",
    "os", "pathlib", "queue", "random", "rocksdict", "secrets", "select", "selectors", "shutil",
    "signal", "socket", "ssl", "subprocess", "sys", "tempfile", "threading", "time", "uuid",
    "uvloop", "kvclient", "kvnode.cli", "kvnode.runtime", "kvnode.storage",
))
# fmt: on
IMPURE_CALLS = frozenset(("open", "print", "input", "id", "hash", "exec", "eval", "__import__"))
"""`hash` of text differs between processes, `id` between runs: neither may decide anything."""
CLOCK_READS = frozenset(("now", "utcnow", "today"))
ORDER_BLIND = frozenset(
    ("all", "any", "bool", "frozenset", "len", "max", "min", "set", "sorted", "sum")
)
SET_TYPES = frozenset(("set", "frozenset", "AbstractSet", "MutableSet", "Set"))
SET_METHODS = frozenset(("difference", "intersection", "symmetric_difference", "union"))


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is not in order."""

    line: int
    what: str


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of whatever `tree` imports, at any depth."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom(module=str(module)):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            case _:
                pass


def is_impure_import(name: str) -> bool:
    """Tell whether the core must not import `name`."""
    parts = name.split(".")
    prefixes = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    generated = any(part.endswith(("_pb2", "_pb2_grpc")) for part in parts)
    return generated or bool(prefixes & IMPURE_MODULES)


def raises_in_except_star(tree: ast.AST) -> list[Fault]:
    """Return where an `except*` raises: a group before Python 3.11.4, what it says since then."""
    return [
        Fault(inner.lineno, "raises in an except*: what comes out depends on the Python")
        for node in ast.walk(tree)
        if isinstance(node, ast.TryStar)
        for handler in node.handlers
        for inner in ast.walk(handler)
        if isinstance(inner, ast.Raise) and inner.exc is not None
    ]


def impurities(tree: ast.AST) -> list[Fault]:
    """Return where `tree` acts, reads a clock, or draws on what differs between runs."""
    found = [
        Fault(line, f"imports {name}") for line, name in imports(tree) if is_impure_import(name)
    ]
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in IMPURE_CALLS:
                found.append(Fault(node.lineno, f"calls {name}()"))
            case ast.Call(func=ast.Attribute(attr=name)) if name in CLOCK_READS:
                found.append(Fault(node.lineno, f"reads a clock by .{name}()"))
            case ast.AsyncFunctionDef() | ast.Await():
                found.append(Fault(node.lineno, "waits: the core is synchronous"))
            case _:
                pass
    return found


def functions(tree: ast.AST) -> list[Function]:
    """Return every function of `tree`, nested ones and methods too."""
    return [
        node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def lines_of(function: Function) -> int:
    """Return the lines of `function`, its docstring included, as anyone would count them."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def code_lines_of(function: Function) -> int:
    """Return the lines of `function` without its docstring: words are not to be saved on."""
    first = function.body[0]
    if ast.get_docstring(function) is None or first.end_lineno is None:
        return lines_of(function)
    return lines_of(function) - (first.end_lineno - first.lineno + 1)


def long_functions(tree: ast.AST, *, limit: int) -> list[Fault]:
    """Return the functions of more than `limit` lines."""
    return [
        Fault(each.lineno, f"{each.name} has {lines_of(each)} lines")
        for each in functions(tree)
        if lines_of(each) > limit
    ]


def own_nodes(scope: Scope) -> Iterator[ast.AST]:
    """Yield the nodes of `scope`, without those of functions and classes inside it."""
    pending: list[ast.AST] = list(ast.iter_child_nodes(scope))
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, SCOPES):
            pending.extend(ast.iter_child_nodes(node))


def is_set_type(annotation: ast.expr | None) -> bool:
    """Tell whether `annotation` names a set."""
    match annotation:
        case ast.Subscript(value=value):
            return is_set_type(value)
        case ast.BinOp(left=left, right=right):
            return is_set_type(left) or is_set_type(right)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in SET_TYPES
        case _:
            return False


def is_set(value: ast.expr, names: frozenset[str]) -> bool:
    """Tell whether `value` is a set, as far as its form and the set `names` of its scope show."""
    match value:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in ("set", "frozenset")
        case ast.Call(func=ast.Attribute(attr=name, value=owner)):
            return name in SET_METHODS and is_set(owner, names)
        case ast.BinOp(op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), left=a, right=b):
            return is_set(a, names) or is_set(b, names)
        case ast.Name(id=name):
            return name in names
        case ast.Attribute(attr=name):
            return f".{name}" in names
        case _:
            return False


def name_of(target: ast.expr) -> str:
    """Return how a scope calls `target`, or nothing if it is no plain name."""
    match target:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=ast.Name(id="self"), attr=name):
            return f".{name}"
        case _:
            return ""


def bound_sets(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Yield the names that `nodes` bind to sets, by annotation or by value."""
    for node in nodes:
        match node:
            case ast.arg(arg=name, annotation=annotation) if is_set_type(annotation):
                yield name
            case ast.AnnAssign(target=target, annotation=annotation) if is_set_type(annotation):
                yield name_of(target)
            case ast.Assign(targets=targets, value=value) if is_set(value, frozenset()):
                yield from map(name_of, targets)
            case _:
                pass


def set_attributes(trees: list[ast.Module]) -> frozenset[str]:
    """Return `.x` for each attribute x that is a set wherever the classes of `trees` declare it."""
    nodes = [node for tree in trees for node in ast.walk(tree)]
    fields = [
        field
        for node in nodes
        if isinstance(node, ast.ClassDef)
        for field in node.body
        if isinstance(field, ast.AnnAssign)
    ]
    sets = {f".{name_of(field.target)}" for field in fields if is_set_type(field.annotation)}
    others = {f".{name_of(field.target)}" for field in fields if not is_set_type(field.annotation)}
    bound = {name for name in bound_sets(iter(nodes)) if name.startswith(".")}
    return frozenset((sets | bound) - others)


def unordered_loops(tree: ast.Module, attributes: frozenset[str]) -> list[Fault]:
    """Return where `tree` walks a set in whatever order it has."""
    shared = attributes | frozenset(bound_sets(own_nodes(tree)))
    scopes: list[Scope] = [tree, *(node for node in ast.walk(tree) if isinstance(node, SCOPES))]
    return [fault for scope in scopes for fault in _loops_of(scope, shared)]


def _loops_of(scope: Scope, shared: frozenset[str]) -> Iterator[Fault]:
    names = shared | frozenset(bound_sets(own_nodes(scope)))
    blind = {
        id(argument)
        for node in own_nodes(scope)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id in ORDER_BLIND
        for argument in node.args
    }
    for node in own_nodes(scope):
        if id(node) not in blind:
            yield from (
                Fault(walked.lineno, f"walks the set {ast.unparse(walked)}")
                for walked in _walked_by(node)
                if is_set(walked, names)
            )


def _walked_by(node: ast.AST) -> list[ast.expr]:
    """Return what `node` walks in order, if it is a loop or an ordered collection of another."""
    match node:
        case ast.For(iter=walked):
            return [walked]
        case ast.ListComp() | ast.DictComp() | ast.GeneratorExp():
            return [generator.iter for generator in node.generators]
        case ast.Call(func=ast.Name(id="list" | "tuple" | "iter" | "enumerate"), args=[walked]):
            return [walked]
        case ast.Call(func=ast.Attribute(attr="join" | "extend"), args=[walked]):
            return [walked]
        case ast.Starred(value=walked) | ast.YieldFrom(value=walked):
            return [walked]
        case _:
            return []


def silent_excepts(tree: ast.AST) -> list[Fault]:
    """Return handlers that catch everything, or that catch something and do nothing about it."""
    handlers = (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler))
    found = []
    for handler in handlers:
        if handler.type is None:
            found.append(Fault(handler.lineno, "bare except"))
        if all(isinstance(each, ast.Pass) or _is_ellipsis(each) for each in handler.body):
            found.append(Fault(handler.lineno, "silent except"))
    return found


def _is_ellipsis(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Constant(value=value)):
            return value is Ellipsis
        case _:
            return False


def prints(tree: ast.AST) -> list[Fault]:
    """Return where `tree` prints."""
    return [
        Fault(node.lineno, "prints")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        if isinstance(node.func, ast.Name) and node.func.id == "print"
    ]


def docstring_faults(tree: ast.Module, root: Path) -> list[Fault]:
    """Return whether a module lacks its docstring, or names a test file that is not there."""
    text = ast.get_docstring(tree)
    if not text:
        return [Fault(1, "no docstring")]
    named = re.findall(r"\btests/[\w/]+\.py\b", text)
    return [
        Fault(1, f"names {path}, which is not there")
        for path in named
        if not (root / path).exists()
    ]


def setting_faults(setting: Field[Any]) -> list[str]:
    """Return what the field of a settings class lacks: unit, range, or what it does."""
    missing = [key for key in ("unit", "low", "high", "doc") if key not in setting.metadata]
    if missing:
        return [f"{setting.name} lacks {', '.join(missing)}"]
    low, high, doc = (setting.metadata[key] for key in ("low", "high", "doc"))
    faults = []
    if not low <= setting.default <= high:
        faults.append(f"{setting.name}: {setting.default} is not within {low} to {high}")
    if len(doc.split()) < 4 or not doc.endswith("."):
        faults.append(f"{setting.name}: no sentence says what it does: {doc!r}")
    return faults
