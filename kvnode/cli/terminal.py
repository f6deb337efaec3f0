"""How things look: on a terminal in colour, in a pipe plain and stable.

Decides the escaping of bytes, the wording of sizes and times, and the shape of tables. Laws: no
control byte of a key or a value ever reaches a terminal (it could move the cursor or worse); a
table in a pipe is one line a row, cells parted by tabs, with the same columns in the same order.
rich is imported only where something is drawn, since that costs more than most commands take.
Held by tests/unit/cli/test_terminal.py.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_HARMLESS = "\n\t"
STATE_STYLES = {
    "up": "green",
    "ready": "green",
    "starting": "yellow",
    "unproven": "yellow",
    "suspect": "yellow",
    "down": "red",
}


def is_terminal(stream: IO[str] | None = None) -> bool:
    """Return whether `stream` (standard output unless given) is a terminal."""
    return (stream or sys.stdout).isatty()


def console(*, stderr: bool = False) -> Console:
    """Return a rich console that never guesses: no markup, emoji or highlighting in our text."""
    from rich.console import Console  # noqa: PLC0415 (slow: only where something is drawn)

    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def printable(data: bytes, *, keep: str = "") -> str:
    r"""Return `data` as text with every unprintable character but those of `keep` escaped.

    Bytes that are no UTF-8 appear as \xNN. For reading only: it cannot be undone exactly.
    """
    text = data.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def show_value(value: bytes) -> None:
    """Write `value` to standard output: escaped, with a newline, on a terminal; else as it is."""
    if is_terminal():
        print(printable(value, keep=_HARMLESS))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(value)
        sys.stdout.buffer.flush()


def count(number: int, noun: str = "", plural: str = "") -> str:
    """Return "1,234 files": the number grouped, and the noun in the right number."""
    if not noun:
        return f"{number:,}"
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size(number: float) -> str:
    """Return a number of bytes in decimal units: "153.4 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.95 or (unit == "B" and number < 1000):
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def seconds(duration_s: float) -> str:
    """Return a duration: "0.42 s", "12.3 s", "2 min 5 s"."""
    if duration_s < 10:
        return f"{duration_s:.2f} s"
    if duration_s < 120:
        return f"{duration_s:.1f} s"
    return f"{int(duration_s) // 60} min {int(duration_s) % 60} s"


def instant(timestamp: int) -> str:
    """Return the wall time of a hybrid logical clock's value, in UTC."""
    at = datetime.fromtimestamp((timestamp >> 16) / 1000, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at.microsecond // 1000:03}Z"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> None:
    """Print a table; `right` names the columns (by a comma list) that are set to the right."""
    if is_terminal():
        _drawn(columns, rows, right.split(","))
        return
    for row in (columns, *rows):
        print("\t".join(cell.replace("\t", "\\t").replace("\n", "\\n") for cell in row))


def _drawn(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in row))
    console().print(drawn)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
