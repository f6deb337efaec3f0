"""How bugs are planted in the store, for the simulator to find (tests/sim/bugs.py has them).

What it decides: a bug is a list of places (owner, name, what stands there instead), made when it
is planted: what is imported by name is replaced wherever it went. Nothing is changed on disk.
Law: the store is as it was once a planted bug is taken out. Its tests: tests/sim/test_mutants.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from types import FunctionType
from typing import Any

Place = tuple[object, str, object]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug."""

    name: str
    why: str
    """What is broken, in a line."""
    places: Callable[[], Sequence[Place]]


MUTANTS: dict[str, Mutant] = {}


def mutant(name: str) -> Callable[[Callable[[], Sequence[Place]]], Mutant]:
    """Add a bug to the list; the function's docstring says what is broken."""

    def add(places: Callable[[], Sequence[Place]]) -> Mutant:
        assert name not in MUTANTS
        MUTANTS[name] = made = Mutant(name, (places.__doc__ or "").strip(), places)
        return made

    return add


@contextmanager
def planted(bug: Mutant) -> Iterator[None]:
    """Have the bug in the store."""
    places = [(owner, name, value) for owner, name, value in bug.places()]
    assert places, bug.name
    before = [(owner, name, vars(owner).get(name, _MISSING)) for owner, name, _ in places]
    try:
        for owner, name, value in places:
            assert hasattr(owner, name), (bug.name, owner, name)
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in reversed(before):
            if value is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, value)


_MISSING = object()


@contextmanager
def noted(bugs: Iterable[Mutant]) -> Iterator[set[str]]:
    """Have it noted which bugs would matter: those of which a function is called that they replace.

    What is replaced and no function always matters.
    """
    called: set[str] = set()
    places: dict[tuple[int, str], tuple[object, str, set[str]]] = {}
    for bug in bugs:
        for owner, name, _ in bug.places():
            places.setdefault((id(owner), name), (owner, name, set()))[2].add(bug.name)
    with planted(
        Mutant("none", "", lambda: [_noting(*place, called) for place in places.values()])
    ):
        yield called


def _noting(owner: object, name: str, bugs: set[str], called: set[str]) -> Place:
    original = vars(owner).get(name, _MISSING)
    if not isinstance(original, FunctionType):
        called |= bugs
        return owner, name, getattr(owner, name)

    @wraps(original)
    def noting(*args: Any, **more: Any) -> Any:
        called.update(bugs)
        return original(*args, **more)

    return owner, name, noting


def everywhere(original: Callable[..., Any], broken: Callable[..., Any]) -> list[Place]:
    """Return all places of the product that know a function by its name."""
    name = original.__name__
    return [
        (module, name, broken)
        for path, module in sorted(sys.modules.items())
        if path.startswith(("kvnode.", "kvclient.")) and vars(module).get(name) is original
    ]
