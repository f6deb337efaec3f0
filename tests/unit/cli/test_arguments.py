"""What is wrong usage, and what is said about it."""

from __future__ import annotations

import importlib
import signal
from pathlib import Path

import pytest

from kvnode.cli.arguments import COMMANDS, parse
from kvnode.cli.errors import UsageError


def refused(*words: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(words[0], COMMANDS[words[0]], words[1:])
    assert caught.value.status == 2
    return str(caught.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("get k --explian", "kvnode get has no flag --explian: did you mean '--explain'?"),
        ("put k --keyspce carts v", "no flag --keyspce: did you mean '--keyspace'?"),
        ("get --zzz", "kvnode get has no flag --zzz"),
        ("up --nodes two", "--nodes: expected a whole number of nodes from 1 to 200, got 'two'"),
        ("up --nodes 0", "got '0'"),
        ("get k --r two", "--r: expected a whole number of replicas from 1 to 200, got 'two'"),
        ("get k --r -1", "got '-1'"),
        ("put k v --w 2147483648", "got '2147483648'"),
        ("put k v --ttl 0", "--ttl: expected a number of seconds above 0, got '0'"),
        ("put k v --ttl nan", "got 'nan'"),
        ("get k --timeout inf", "got 'inf'"),
        ("get k --seeds here", "--seeds: expected HOST:PORT, got 'here'"),
        ("get k --seeds a:70000", "expected HOST:PORT"),
        ("get k --seeds ::1:7001", "expected an IPv6 host in brackets, as in [::1]:7001"),
        ("kill n1 --signal KIL", "expected a signal such as KILL, got 'KIL': did you mean 'KILL'?"),
        ("serve --node a --config f --peer n2", "expected ID=HOST:PORT, got 'n2'"),
        ("serve --config f", "required: --node"),
        ("get", "required: K"),
        ("put k v w", "unexpected 'w'"),
    ],
)
def test_wrong_usage_says_what_was_expected(words: str, expected: str) -> None:
    assert expected in refused(*words.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        parse(name, COMMANDS[name], ["--help"])
    assert left.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: kvnode {name}" in shown
    assert COMMANDS[name].summary in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_what_carries_it_out(name: str) -> None:
    module, _, function = COMMANDS[name].handler.partition(":")
    assert callable(getattr(importlib.import_module(f"kvnode.cli.{module}"), function))


def test_flags_are_never_abbreviated() -> None:
    assert "no flag --expl" in refused("get", "k", "--expl")


def test_words_after_two_dashes_are_words() -> None:
    found = parse("put", COMMANDS["put"], ["--", "--key", "--value"])
    assert (found.key, found.value) == (b"--key", "--value")


def test_a_key_is_the_bytes_that_were_typed() -> None:
    assert parse("get", COMMANDS["get"], ["ü\udcff"]).key == "ü".encode() + b"\xff"


def test_signals_go_by_name_or_number() -> None:
    for word in ("kill", "SIGKILL", "9"):
        assert parse("kill", COMMANDS["kill"], ["n1", "--signal", word]).signal == signal.SIGKILL


def test_values_are_read_into_their_types() -> None:
    found = parse(
        "serve",
        COMMANDS["serve"],
        ["--node", "n1", "--config", "f", "--peer", "n2=[::1]:7", "--peer", "n3=h:8", "--insecure"],
    )
    assert found.peer == [("n2", "[::1]:7"), ("n3", "h:8")]
    assert found.config == Path("f")
    assert found.insecure
    assert parse("get", COMMANDS["get"], ["k", "--seeds", "a:1, b:2,"]).seeds == ("a:1", "b:2")
