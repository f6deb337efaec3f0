"""Which flows of bytes a partition cuts.

A partition is a list of groups: two nodes reach each other exactly if some group holds both. A node
may be in several groups (it is then a bridge between them) or in none (it is alone). Laws: a
partition cuts both directions or neither; no flow from a node to itself.
Tests: tests/unit/client/test_testing_shapes.py.
Source: FAILURES of stores of this kind, as Jepsen names them: halves, bridge, ring.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

Flow: TypeAlias = tuple[str, str]
"""Whose bytes, and to whom."""
Groups: TypeAlias = Sequence[Sequence[str]]

SHAPES = ("halves", "bridge", "ring", "isolated")


def groups_of(shape: str, ids: Sequence[str]) -> Groups:
    """Return the groups of a named shape, the nodes taken in the order given.

    `halves`: the larger half last. `bridge`: two halves, and one node that reaches both. `ring`:
    each node reaches the next and the one before. `isolated`: the first node alone.

    Raises: ValueError for another name, or too few nodes for the shape.
    """
    least = {"halves": 2, "bridge": 3, "ring": 4, "isolated": 2}.get(shape)
    if least is None:
        raise ValueError(f"no shape {shape!r}; there are {', '.join(SHAPES)}")
    if len(ids) < least:
        raise ValueError(f"a {shape} partition needs {least} nodes or more")
    middle = len(ids) // 2
    if shape == "ring":
        return [[one, ids[(at + 1) % len(ids)]] for at, one in enumerate(ids)]
    if shape == "isolated":
        return [ids[1:]]
    bridge = 1 if shape == "bridge" else 0
    return [ids[: middle + bridge], ids[middle:]]


def flows_between(ids: Iterable[str]) -> list[Flow]:
    """Return every flow among these nodes."""
    listed = list(ids)
    return [(x, y) for x in listed for y in listed if x != y]


def flows_cut(ids: Sequence[str], groups: Groups) -> list[Flow]:
    """Return the flows between nodes that are in no group together.

    Raises: ValueError for a name in a group that is no node.
    """
    known = set(ids)
    if strangers := [name for group in groups for name in group if name not in known]:
        raise ValueError(f"no node {strangers[0]!r}; there are {', '.join(ids)}")
    together = [set(group) for group in groups]
    return [(x, y) for x, y in flows_between(ids) if not any(x in g and y in g for g in together)]
