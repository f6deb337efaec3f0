"""How far a long command is: a bar on a terminal, a line now and then elsewhere.

Laws: it goes to stderr, so that stdout holds the result alone; it never decides anything. Held by
tests/unit/cli/test_progress.py.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from kvnode.cli import terminal

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

LINE_EVERY_S = 5.0


class Progress(Protocol):
    """Is told what is done."""

    def file_done(self) -> None:
        """One file more, however it ended."""

    def bytes_done(self, size: int) -> None:
        """So many bytes more."""


@contextmanager
def progress(verb: str, *, files: int, size: int) -> Iterator[Progress]:
    """Show how far the work on `files` files of `size` bytes is."""
    if not terminal.is_terminal(sys.stderr):
        yield Lines(verb, files)
        return
    with _bar() as bar:
        yield _OnBar(bar, verb, files, size)


class Lines:
    """A line of text now and then, for logs and pipes."""

    def __init__(self, verb: str, files: int, *, every_s: float = LINE_EVERY_S) -> None:
        self._verb, self._files, self._every_s = verb, files, every_s
        self._done = self._bytes = 0
        self._next = time.monotonic() + every_s

    def file_done(self) -> None:
        """Count, and tell when it is time."""
        self._done += 1
        if (now := time.monotonic()) >= self._next:
            self._next = now + self._every_s
            line = f"{self._verb} {self._done:,} of {self._files:,} files"
            print(f"{line}, {terminal.size(self._bytes)}", file=sys.stderr, flush=True)

    def bytes_done(self, size: int) -> None:
        """Count."""
        self._bytes += size


class _OnBar:
    """A bar by bytes, with the count of files beside it."""

    def __init__(self, bar: Bar, verb: str, files: int, size: int) -> None:
        self._bar, self._files = bar, files
        self._done = 0
        self._task = bar.add_task(verb, total=max(size, 1), files=f"0/{files:,}")

    def file_done(self) -> None:
        """Show one file more."""
        self._done += 1
        self._bar.update(self._task, files=f"{self._done:,}/{self._files:,}")

    def bytes_done(self, size: int) -> None:
        """Move the bar."""
        self._bar.advance(self._task, size)


def _bar() -> Bar:
    from rich import progress as rich_progress  # noqa: PLC0415 (slow: only where it is drawn)

    return rich_progress.Progress(
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.TextColumn("{task.fields[files]} files"),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(),
        console=terminal.console(stderr=True),
        transient=True,
    )
