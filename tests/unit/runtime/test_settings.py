"""What a value may be, how a refusal reads, and where in the file it points."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvnode.runtime import settings
from kvnode.runtime.settings import ADDRESS, NODE_ID, ConfigError, Source, address_fault


@pytest.mark.parametrize("good", ["127.0.0.1:7001", "localhost:1", "[::1]:7001", "a.b-c:64535"])
def test_an_address_of_host_and_port_is_allowed(good: str) -> None:
    assert ADDRESS.allows(good)
    assert address_fault(good) is None


@pytest.mark.parametrize(
    ("address", "fault"),
    [
        ("::1:7001", 'an IPv6 address is written in brackets: "[::1]:7001"'),
        ("2001:db8::1:7002", 'an IPv6 address is written in brackets: "[2001:db8::1]:7002"'),
        ("fe80::1", 'an IPv6 address is written in brackets: "[fe80::1]:7001"'),
        ("a:b:c", 'write it as "host:port", an IPv6 host in brackets: "[::1]:7001"'),
        ("[cat]:7001", '"cat" in the brackets is no IPv6 address'),
        ("localhost", 'write it as "host:port"'),
        (":7001", 'write it as "host:port"'),
        ("http://h:1", 'write it as "host:port", an IPv6 host in brackets: "[::1]:7001"'),
        ("two words:7001", 'write it as "host:port"'),
        ("host:", "the port must be a whole number from 1 to 64535"),
        ("host:0", "the port must be a whole number from 1 to 64535"),
        ("host:64536", "the port must be a whole number from 1 to 64535"),
        ("host:" + "9" * 5000, "the port must be a whole number from 1 to 64535"),
        ("host:٣", "the port must be a whole number from 1 to 64535"),
    ],
)
def test_a_wrong_address_is_told_how_to_write_it(address: str, fault: str) -> None:
    assert address_fault(address) == fault


@pytest.mark.parametrize("bad", ["", "-a", ".", "..", "a/b", "a b", "é", "x" * 65, 7])
def test_a_node_id_is_a_plain_name_since_it_names_a_folder(bad: object) -> None:
    assert not NODE_ID.allows(bad)
    assert NODE_ID.allows("n1")
    assert NODE_ID.allows("rack-2.node_3")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (settings.whole(1, 9), [1, 9], [0, 10, True, 2.0, "2", None]),
        (settings.number(0, 1), [0, 1, 0.5], [-0.1, 1.1, True, "1", float("nan"), float("inf")]),
        (settings.power_of_two(8), [1, 2, 4, 8], [0, -2, 3, 16, True, 4.0]),
        (settings.one_of(["a", "b"]), ["a", "b"], ["c", "", 1, []]),
        (settings.text(3), ["", "abc", "é"], ["abcd", "éé", "a\n", 3]),
        (settings.name(3), ["a", "abc"], ["", "abcd", "\0", "\x1b", 3]),
        (settings.TRUE_OR_FALSE, [True, False], [0, 1, "true"]),
    ],
    ids=lambda value: value.words if isinstance(value, settings.Kind) else "",
)
def test_a_kind_allows_what_its_words_say(
    kind: settings.Kind, good: list[object], bad: list[object]
) -> None:
    assert [value for value in good if not kind.allows(value)] == []
    assert [value for value in bad if kind.allows(value)] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        ("two", '"two"'),
        ('a"\x1b[31m', '"a\\"\\x1b[31m"'),
        (float("nan"), "nan"),
        ({"a": 1}, "a table"),
        ([1], "a list"),
        ("x" * 5000, '"' + "x" * 76 + "..."),
    ],
)
def test_a_refused_value_is_shown_short_and_without_control_bytes(value: object, text: str) -> None:
    assert settings.shown(value) == text


TEXT = """\
# a comment
[cluster]
name = "x"   # another
[[node]]
id = "n1"
  [[node]]
"id" = "n2"
weights = [
  [1],
]
[keyspace."a.b"]
n = 3
"""


@pytest.mark.parametrize(
    ("path", "key", "line"),
    [
        (("cluster",), "name", 3),
        (("cluster",), "", 2),
        (("node", 0), "id", 5),
        (("node", 1), "id", 7),
        (("node", 1), "weights", 8),
        (("node", 1), "absent", 6),
        (("keyspace", "a.b"), "n", 12),
        (("limits",), "", None),
    ],
)
def test_a_key_is_found_at_its_line_or_else_its_table(
    path: settings.TablePath, key: str, line: int | None
) -> None:
    assert Source.parse(TEXT, "f").line(path, key) == line


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("a = 1\nb = = 2\n", "f:2:5: not valid TOML: invalid value"),
        ("a = 1\na = 2\n", "f:2:6: not valid TOML: cannot overwrite a value"),
        ("x = [1\n", "f:2:1: not valid TOML: unclosed array"),
        ('x = "a', "f:1:7: not valid TOML: unterminated string"),
    ],
)
def test_an_error_of_toml_names_file_line_and_column(content: str, place: str) -> None:
    with pytest.raises(ConfigError) as error:
        Source.parse(content, "f")
    assert str(error.value) == place


def test_a_file_that_is_not_text_is_refused_at_its_first_wrong_byte(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_bytes(b'a = 1\nb = "\xff"\n')
    with pytest.raises(ConfigError) as error:
        Source.read(path)
    assert str(error.value) == f"{path}:2:6: not UTF-8 text"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        Source.read(tmp_path / "c.toml")
    assert str(error.value) == f"file not found: {tmp_path / 'c.toml'}"


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        Source.read(tmp_path)
    assert str(error.value) == f"{tmp_path}: cannot be read: Is a directory"
