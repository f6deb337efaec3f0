"""Every failure is one line and a status."""

from __future__ import annotations

import pytest

import kvclient.errors
from kvnode.cli.errors import CommandError, UsageError, complain, nearest, told
from kvnode.cli.local import ClusterError
from kvnode.runtime.settings import ConfigError
from kvnode.storage.folder import FolderError


@pytest.mark.parametrize(
    ("error", "line", "status"),
    [
        (CommandError("no"), "no", 1),
        (UsageError("what?"), "what?", 2),
        (ClusterError("no cluster"), "no cluster", 1),
        (ConfigError("line 3"), "line 3", 1),
        (FolderError("in use"), "in use", 1),
        (kvclient.errors.InvalidRequest("key is empty"), "key is empty", 2),
        (kvclient.errors.Uncertain("1 of 2"), "1 of 2", 1),
        (FileNotFoundError(2, "No such file", "a.txt"), "file not found: a.txt", 1),
        (FileNotFoundError(2, "No such file", b"b.txt"), "file not found: b.txt", 1),
        (PermissionError(13, "Permission denied", "d"), "d: Permission denied", 1),
        (OSError("odd"), "odd", 1),
    ],
)
def test_every_known_failure_has_its_line_and_status(
    error: Exception, line: str, status: int
) -> None:
    assert told(error) == (line, status)


def test_an_unknown_failure_is_one_line_too_and_names_the_switch() -> None:
    line, status = told(ZeroDivisionError("division by zero"))
    assert status == 1
    assert line == (
        "internal error (ZeroDivisionError: division by zero); KVNODE_DEBUG=1 shows where"
    )


def test_a_complaint_is_one_line_whatever_the_error_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KVNODE_DEBUG", raising=False)
    assert complain(CommandError("a\n  b\n")) == 1
    assert capsys.readouterr().err == "kvnode: a b\n"


def test_the_traceback_is_there_for_those_who_ask(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KVNODE_DEBUG", "1")
    try:
        raise KeyError("x")
    except KeyError as error:
        complain(error)
    assert "Traceback" in capsys.readouterr().err


def test_only_what_is_near_is_suggested() -> None:
    assert nearest("stauts", ["status", "start"]) == ": did you mean 'status'?"
    assert nearest("xyzzy", ["status", "start"]) == ""
