"""What the values of flags and arguments must look like: one reader for each kind.

Decides what is a number, a key, an address, a list of words, a signal. Laws: a reader returns what
was meant, or raises argparse's error with what was expected. Held by
tests/unit/cli/test_arguments.py. Leaves out which flags there are (kvnode/cli/arguments.py).
"""

from __future__ import annotations

import argparse
import math
import os
import signal
from collections.abc import Callable

from kvnode.cli.errors import nearest


def _expected(what: str, got: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"expected {what}, got {got!r}")


def whole(what: str, low: int, high: int) -> Callable[[str], int]:
    """Return a reader of whole numbers from `low` to `high`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise _expected(f"{what} from {low:,} to {high:,}", text)
        return number

    return read


def number_above_0(what: str) -> Callable[[str], float]:
    """Return a reader of positive numbers of something."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (number > 0 and math.isfinite(number)):
            raise _expected(f"a number of {what} above 0", text)
        return number

    return read


seconds = number_above_0("seconds")
"""Read a positive number of seconds."""


def key(text: str) -> bytes:
    """Read a key: the very bytes that were typed."""
    return os.fsencode(text)


def address(text: str) -> str:
    """Read host:port, an IPv6 host in brackets."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise _expected("HOST:PORT", text)
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise _expected("an IPv6 host in brackets, as in [::1]:7001", text)
    return text.strip()


def seeds(text: str) -> tuple[str, ...]:
    """Read a comma list of HOST:PORT."""
    return tuple(address(part) for part in text.split(",") if part.strip()) or (address(text),)


def peer(text: str) -> tuple[str, str]:
    """Read ID=HOST:PORT."""
    name, equals, where = text.partition("=")
    if not equals or not name:
        raise _expected("ID=HOST:PORT", text)
    return name, address(where)


def words(what: str) -> Callable[[str], tuple[str, ...]]:
    """Return a reader of comma lists of words."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(part.strip() for part in text.split(",") if part.strip())
        if not found:
            raise _expected(f"{what}, or several with commas", text)
        return found

    return read


def signal_number(text: str) -> int:
    """Read a signal: KILL, SIGKILL or 9."""
    known = {one.name.removeprefix("SIG"): one for one in signal.Signals}
    if text.isascii() and text.isdigit() and int(text) in set(signal.Signals):
        return int(text)
    name = text.upper().removeprefix("SIG")
    if name not in known:
        close = nearest(name, known)
        raise argparse.ArgumentTypeError(f"expected a signal such as KILL, got {text!r}{close}")
    return known[name]
