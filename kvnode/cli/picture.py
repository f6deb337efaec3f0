"""The ring as a picture: concentric rims of marks, one rim for each replica, and shares as bars.

The outermost rim shows the first owner of each partition, the next one the second, and so on; the
hash space runs clockwise from the top. Laws: what the colours say the marks say too, so that the
picture reads the same in a pipe, in black and white, and to those who see no colours; shares are
counted over all partitions, however few of them the picture has room for. Held by
tests/unit/cli/test_picture.py.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from kvnode.cli import terminal
from kvproto import kv_pb2

MARKS = "123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_COLOURS = (
    "bright_cyan", "bright_yellow", "bright_magenta", "bright_green", "bright_red",
    "bright_blue", "white", "cyan", "yellow", "magenta", "green", "red", "blue",
)  # fmt: skip
_OUTER = 10
"""Rows from the middle to the outer rim; a column is half as wide as a row is high."""
_BAR = 30
_DEEPEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """Who owns what, with nothing else."""

    name: str
    epoch: int
    nodes: tuple[str, ...]
    n: int
    """Replicas of the default keyspace."""
    owners: tuple[tuple[str, ...], ...]
    """For each partition its owners in order."""


def ring_of(known: kv_pb2.Topology) -> Ring:
    """Return the owners of the default keyspace's n replicas."""
    ids = {member.number: member.id for member in known.members}
    n = next((one.n for one in known.keyspaces if one.name == "default"), known.walk_length)
    walk, width = list(known.walk), known.walk_length
    rows = (walk[start : start + min(n, width)] for start in range(0, len(walk), width or 1))
    return Ring(
        name=known.name,
        epoch=known.epoch,
        nodes=tuple(member.id for member in known.members),
        n=n,
        owners=tuple(tuple(ids[number] for number in row) for row in rows),
    )


def show(ring: Ring) -> None:
    """Print the picture and the shares."""
    marks = {node: MARKS[i % len(MARKS)] for i, node in enumerate(ring.nodes)}
    partitions = terminal.count(len(ring.owners), "partition")
    print(f"cluster {ring.name} · epoch {ring.epoch} · {partitions} · n = {ring.n}\n")
    _print_marked("\n".join(drawn(ring, marks)), marks)
    print("\nclockwise from the top; outermost rim: first owners, inwards: second, third …\n")
    _print_shares(ring, marks)


def drawn(ring: Ring, marks: dict[str, str]) -> list[str]:
    """Return the lines of the picture: a mark where an owner is, a blank elsewhere."""
    rims = min(ring.n, _DEEPEST)
    return [
        "".join(_cell(ring, marks, row, column / 2, rims) for column in _columns()).rstrip()
        for row in range(-_OUTER, _OUTER + 1)
    ]


def _columns() -> range:
    return range(-2 * _OUTER, 2 * _OUTER + 1)


def _cell(ring: Ring, marks: dict[str, str], y: float, x: float, rims: int) -> str:
    rim = _OUTER - round(math.hypot(x, y))
    # Every other rim stays empty: rims that touch cannot be told apart without colours.
    if rim < 0 or rim % 2 or rim // 2 >= rims:
        return " "
    turn = math.atan2(x, -y) / (2 * math.pi) % 1.0
    owners = ring.owners[int(turn * len(ring.owners)) % len(ring.owners)]
    return marks[owners[rim // 2]] if rim // 2 < len(owners) else " "


def _print_marked(text: str, marks: dict[str, str]) -> None:
    if not terminal.is_terminal():
        print(text)
        return
    from rich.text import Text  # noqa: PLC0415 (slow: only where it is drawn)

    colours = {mark: _COLOURS[i % len(_COLOURS)] for i, mark in enumerate(marks.values())}
    drawing = Text()
    for character in text:
        drawing.append(character, colours.get(character))
    terminal.console().print(drawing, soft_wrap=True)


def _print_shares(ring: Ring, marks: dict[str, str]) -> None:
    first = Counter(row[0] for row in ring.owners)
    every = Counter(node for row in ring.owners for node in row)
    most = max(every.values())
    rows = [
        [marks[node], node, str(first[node]), str(every[node]),
         f"{every[node] / len(ring.owners):.1%}", "█" * round(_BAR * every[node] / most)]
        for node in ring.nodes
    ]  # fmt: skip
    columns = ("mark", "node", "as first owner", "as any owner", "of all keys", "share")
    terminal.table(columns, rows, right="as first owner,as any owner,of all keys")
