"""Settings read from TOML: what a value may be, and where in the file a wrong one stands.

Decides whether a table holds what its settings allow, and how a refusal reads: file, line, what is
wrong, what would be right. Laws: nothing that was not read is ignored (an unknown key is refused,
with the nearest known one); a value of the wrong type is never converted.
Tests: tests/unit/runtime/test_settings.py. Leaves out: which settings there are
(kvnode.runtime.config); columns, but for errors of TOML itself, since tomllib keeps no positions:
lines are found by a scan for headers and keys, and left out where that finds none.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Final

REQUIRED: Final = object()
"""The default of a setting that has none."""
HTTP_PORT_OFFSET: Final = 1_000
"""Metrics and health are served at a node's port plus this."""
PORT_MAX: Final = 65_535 - HTTP_PORT_OFFSET
TEXT_BYTES_MAX: Final = 4_096

_AT: Final = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_KEY: Final = re.compile(r"""\s*([A-Za-z0-9_-]+|"[^"]*"|'[^']*')\s*=""")
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

TablePath = tuple[str | int, ...]
"""Keys, and places in lists from 0: ("node", 1) is the second [[node]]."""


class ConfigError(Exception):
    """The configuration cannot be used; nothing was done. The text says where and why."""


class ServeError(Exception):
    """A node cannot serve as it was told to; the text is one line for people."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may be: the words for it, and the check."""

    words: str
    allows: Callable[[object], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One key: what it may be, its default, and what it does."""

    key: str
    kind: Kind
    default: object = REQUIRED
    unit: str = ""
    doc: str

    def refusal(self, value: object) -> str:
        """Return why `value` is not allowed."""
        return f"{self.key} must be {self.kind.words}, not {shown(value)}"


def shown(value: object) -> str:
    """Return a value as the file might have written it, shortened."""
    match value:
        case bool():
            text = str(value).lower()
        case str():
            text = '"' + value.encode("unicode_escape").decode().replace('"', '\\"') + '"'
        case int() if value.bit_length() > 1_000:
            text = "huge"  # and str() may refuse it
        case Mapping():
            text = "a table"
        case list():
            text = "a list"
        case _:
            text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


# --- kinds ----------------------------------------------------------------------------------------


def whole(low: int, high: int) -> Kind:
    """A whole number from `low` to `high`."""

    def allows(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return Kind(f"a whole number from {low} to {high}", allows)


def number(low: float, high: float) -> Kind:
    """A finite number from `low` to `high`."""

    def allows(value: object) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return math.isfinite(value) and low <= value <= high

    return Kind(f"a number from {low:.16g} to {high:.16g}", allows)


def power_of_two(high: int) -> Kind:
    """1, 2, 4, … to `high`."""
    small = whole(1, high)
    return Kind(
        f"a power of two from 1 to {high}",
        lambda value: small.allows(value) and isinstance(value, int) and value.bit_count() == 1,
    )


def one_of(choices: Iterable[str]) -> Kind:
    """One of some words."""
    listed = tuple(choices)
    return Kind("one of " + ", ".join(f'"{choice}"' for choice in listed), listed.__contains__)


def text(bytes_max: int = TEXT_BYTES_MAX) -> Kind:
    """Printable text, perhaps none."""

    def allows(value: object) -> bool:
        return isinstance(value, str) and value.isprintable() and len(value.encode()) <= bytes_max

    return Kind(f"printable text of at most {bytes_max} bytes", allows)


def name(bytes_max: int) -> Kind:
    """Printable text, at least one character."""
    printable = text(bytes_max)
    return Kind(
        f"printable text of 1 to {bytes_max} bytes",
        lambda value: value != "" and printable.allows(value),
    )


TRUE_OR_FALSE: Final = Kind("true or false", lambda value: isinstance(value, bool))
NODE_ID: Final = Kind(
    'a name of 1 to 64 letters, digits, "_", "." or "-" that begins with a letter or digit',
    lambda value: isinstance(value, str) and _ID.fullmatch(value) is not None,
)
ADDRESS: Final = Kind(
    f'"host:port" with a port from 1 to {PORT_MAX}',
    lambda value: isinstance(value, str) and address_fault(value) is None,
)


def address_fault(address: str) -> str | None:
    """Return what is wrong with host:port, or None.

    The highest ports are left to metrics and health, which are `HTTP_PORT_OFFSET` above.
    """
    host, colon, port = address.rpartition(":")
    inner = host.removeprefix("[").removesuffix("]")
    bracketed = host == f"[{inner}]"
    if ":" in host and not bracketed:
        return _bracket_fault(address)
    if bracketed and not _is_ipv6(inner):
        return f'"{inner}" in the brackets is no IPv6 address'
    if not colon or not host.isprintable() or not host or set(host) & set(" /@?#"):
        return 'write it as "host:port"'
    if not (port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= PORT_MAX):
        return f"the port must be a whole number from 1 to {PORT_MAX}"
    return None


def _bracket_fault(address: str) -> str:
    host, _, port = address.rpartition(":")
    if _is_ipv6(host):
        return f'an IPv6 address is written in brackets: "[{host}]:{port}"'
    if _is_ipv6(address):
        return f'an IPv6 address is written in brackets: "[{address}]:7001"'
    return 'write it as "host:port", an IPv6 host in brackets: "[::1]:7001"'


def _is_ipv6(host: str) -> bool:
    try:
        IPv6Address(host)
    except ValueError:
        return False
    return True


# --- files ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Source:
    """A parsed file, and the lines of its tables and keys."""

    file: str
    data: dict[str, Any]
    lines: Mapping[tuple[TablePath, str], int]

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read and parse a file. Raises: ConfigError."""
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            raise ConfigError(f"file not found: {path}") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            content = raw.decode()
        except UnicodeDecodeError as error:
            line = raw.count(b"\n", 0, error.start) + 1
            column = error.start - raw.rfind(b"\n", 0, error.start)
            raise ConfigError(f"{path}:{line}:{column}: not UTF-8 text") from error
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: str, file: str) -> Source:
        """Parse the text of a file. Raises: ConfigError."""
        try:
            data = tomllib.loads(content)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{file}:{_toml_fault(str(error), content)}") from error
        except ValueError as error:  # from int(), which refuses thousands of digits
            raise ConfigError(f"{file}: cannot be read: a number is too long") from error
        except RecursionError:
            raise ConfigError(f"{file}: cannot be read: too deeply nested") from None
        return cls(file, data, _scan(content))

    def line(self, path: TablePath, key: str = "") -> int | None:
        """Return the line of a key, or else of its table, from 1; None where it was not found."""
        return self.lines.get((path, key)) or self.lines.get((path, ""))

    def error(self, what: str, path: TablePath = (), key: str = "") -> ConfigError:
        """Return the error that says `what`, with its place."""
        line = self.line(path, key)
        return ConfigError(f"{self.file}:{line}: {what}" if line else f"{self.file}: {what}")

    def settings(
        self, table: object, allowed: Sequence[Setting], *, path: TablePath, label: str
    ) -> dict[str, Any]:
        """Return every allowed setting of a table, defaults filled in. Raises: ConfigError."""
        if not isinstance(table, dict):
            raise self.error(f"{label} must be a table, not {shown(table)}", path)
        self.refuse_unknown(table, [setting.key for setting in allowed], path=path, label=label)
        return {
            setting.key: self._value(table.get(setting.key, setting.default), setting, path, label)
            for setting in allowed
        }

    def refuse_unknown(
        self, table: Mapping[str, object], known: Sequence[str], *, path: TablePath, label: str
    ) -> None:
        """Raise ConfigError, with the nearest known key, if the table has an unknown one."""
        for key in table:
            if key not in known:
                near = get_close_matches(key, known, n=1, cutoff=0.5)
                hint = f'did you mean "{near[0]}"?' if near else "known are " + ", ".join(known)
                where = path if self.line(path, key) or path else (key,)
                raise self.error(f"{label}: unknown key {shown(key)}: {hint}", where, key)

    def _value(self, value: object, setting: Setting, path: TablePath, label: str) -> object:
        if value is REQUIRED:
            raise self.error(f"{label}: {setting.key} is missing", path)
        if value is setting.default or setting.kind.allows(value):
            return value
        what = f"{label}: {setting.refusal(value)}"
        if setting.kind is ADDRESS and isinstance(value, str):
            what = f"{label}: {setting.key} {shown(value)}: {address_fault(value)}"
        raise self.error(what, path, setting.key)


def _toml_fault(message: str, content: str) -> str:
    """Return "line:column: what" for an error of tomllib."""
    found = _AT.fullmatch(message)
    what, line, column = found.groups() if found else (message, None, None)
    ends = content.split("\n")
    place = f"{line or len(ends)}:{column or len(ends[-1]) + 1}"
    return f"{place}: not valid TOML: {what[:1].lower()}{what[1:]}"


def _scan(content: str) -> dict[tuple[TablePath, str], int]:
    """Return the first line of each table, under the key "", and of each of its keys."""
    lines: dict[tuple[TablePath, str], int] = {}
    table: TablePath = ()
    places: dict[TablePath, int] = {}
    for at, line in enumerate(content.split("\n"), 1):
        if line.lstrip().startswith("["):
            table = _header(line, places) or table
            lines.setdefault((table, ""), at)
        elif found := _KEY.match(line):
            lines.setdefault((table, found[1].strip("\"'")), at)
    return lines


def _header(line: str, places: dict[TablePath, int]) -> TablePath | None:
    """Return the path that a header opens; None for a line that only looks like one."""
    try:
        inside: object = tomllib.loads(line)
    except tomllib.TOMLDecodeError:
        return None
    path: TablePath = ()
    while isinstance(inside, dict) and inside:
        key, inside = next(iter(inside.items()))
        path = (*path, key)
    if isinstance(inside, list):
        places[path] = places.get(path, -1) + 1
        path = (*path, places[path])
    return path
