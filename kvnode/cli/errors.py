"""What a failure looks like to the person at the terminal.

Decides which line and which exit status every failure becomes. Laws: one line on stderr, no
traceback (KVNODE_DEBUG=1 shows it), exit 1 for what failed, 2 for what was asked wrongly, 130 for
Ctrl-C. Nothing here imports the client or the storage: a kind of failure that was never imported
cannot have been raised. Held by tests/unit/cli/test_errors.py.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130


class CommandError(Exception):
    """A failure with the line to print and the status to exit with."""

    def __init__(self, message: str, *, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


class UsageError(CommandError):
    """The command was called wrongly: exit 2."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=WRONG_USAGE)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ": did you mean 'x'?" for the known word closest to `word`, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f": did you mean {close[0]!r}?" if close else ""


def told(error: BaseException) -> tuple[str, int]:
    """Return the line and the exit status for `error`."""
    if isinstance(error, CommandError):
        return str(error), error.status
    if isinstance(error, _named("kvclient.errors", "InvalidRequest")):
        return str(error), WRONG_USAGE
    if isinstance(error, OSError) and error.filename is not None:
        return _os_error(error), FAILED
    if isinstance(error, _expected()):
        return str(error), FAILED
    kind = type(error).__name__
    return f"internal error ({kind}: {error}); KVNODE_DEBUG=1 shows where", FAILED


def complain(error: BaseException) -> int:
    """Print `error` as one line on stderr; return the exit status."""
    if os.environ.get("KVNODE_DEBUG"):
        sys.excepthook(type(error), error, error.__traceback__)
    message, status = told(error)
    print("kvnode:", " ".join(message.split()), file=sys.stderr)
    return status


def _os_error(error: OSError) -> str:
    name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
    what = (
        "file not found" if isinstance(error, FileNotFoundError) else (error.strerror or "failed")
    )
    return f"{name}: {what}" if what != "file not found" else f"{what}: {name}"


def _expected() -> tuple[type[BaseException], ...]:
    return (
        OSError,
        *_named("kvclient.errors", "KVError"),
        *_named("kvclient.testing.files", "KitError"),
        *_named("kvclient.testing.history", "HistoryError"),
        *_named("kvnode.cli.local", "ClusterError"),
        *_named("kvnode.runtime.config", "ConfigError"),
        *_named("kvnode.runtime.birth", "BirthError"),
        *_named("kvnode.storage.folder", "FolderError"),
        *_named("kvnode.storage.port", "StorageError"),
    )


def _named(module: str, name: str) -> tuple[type[BaseException], ...]:
    """Return the class if its module was imported in this run; otherwise nothing."""
    kind = getattr(sys.modules.get(module), name, None)
    return (kind,) if isinstance(kind, type) and issubclass(kind, BaseException) else ()
