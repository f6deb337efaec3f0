"""get, put and delete, on a client that notes what it is asked."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest

import kvclient
from kvnode.cli import data, target
from tests.unit.cli.conftest import OnTerminal, Run

STAMP = 1_700_000_000_000 << 16


class Fake:
    """A client and its keyspace in one."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.record: kvclient.Record | None = kvclient.Record(b"v\x1b\n", b"", STAMP)
        self.error: kvclient.KVError | None = None

    def __call__(self, addresses: tuple[str, ...], *, timeout: float) -> Fake:
        self.asked.append((addresses, timeout))
        return self

    def __enter__(self) -> Fake:
        return self

    def __exit__(self, *_: object) -> None:
        self.asked.append(("closed",))

    def keyspace(self, name: str) -> Fake:
        self.asked.append((name,))
        return self

    def get_record(self, key: bytes, **how: object) -> kvclient.Record | None:
        self.asked.append((key, how))
        if self.error:
            raise self.error
        return self.record

    def put(self, key: bytes, value: bytes, **how: object) -> kvclient.WriteResult:
        self.asked.append((key, value, how))
        return kvclient.WriteResult(b"", ("n2", "n1"), STAMP)

    def delete(self, key: bytes, **how: object) -> kvclient.WriteResult:
        self.asked.append((key, how))
        return kvclient.WriteResult(b"", ("n3",), STAMP)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake()
    monkeypatch.setattr(kvclient, "Client", made)
    monkeypatch.setattr(target, "is_anyone_there", lambda *_, **__: True)
    return made


SEEDS = ("--seeds", "a:1,b:2")


def test_a_value_comes_out_of_a_pipe_as_it_is(run: Run, fake: Fake) -> None:
    assert run("get", "k", *SEEDS) == (0, "v\x1b\n", "")
    assert fake.asked == [
        (("a:1", "b:2"), 5.0),
        ("default",),
        (b"k", {"r": None, "timeout": 5.0, "explain": False}),
        ("closed",),
    ]


def test_a_value_is_escaped_on_a_terminal(run: Run, fake: Fake, on_terminal: OnTerminal) -> None:
    shown = on_terminal()
    assert run("get", "k", *SEEDS)[0] == 0
    assert shown() == "v\\x1b\n\n"


def test_flags_reach_the_client(run: Run, fake: Fake) -> None:
    run("get", "k", *SEEDS, "--r", "3", "--timeout", "1.5", "--keyspace", "carts")
    assert fake.asked[1:3] == [
        ("carts",), (b"k", {"r": 3, "timeout": 1.5, "explain": False}),
    ]  # fmt: skip


def test_an_absent_key_is_failure_and_never_an_empty_value(run: Run, fake: Fake) -> None:
    fake.record = None
    assert run("get", "k\x07", *SEEDS) == (1, "", "kvnode: no value under k\\x07\n")
    fake.record = kvclient.Record(b"", b"", STAMP)
    assert run("get", "k", *SEEDS) == (0, "", "")


def test_a_value_comes_from_a_word_a_file_or_stdin(
    run: Run, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"\0of a file\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from stdin\n")))
    for word in ("word", f"@{tmp_path / 'file'}", "-", ""):
        assert run("put", "k", word, *SEEDS, "--w", "2", "--ttl", "9")[0] == 0
    assert [one[1] for one in fake.asked if len(one) == 3] == [
        b"word", b"\0of a file\n", b"from stdin\n", b"",
    ]  # fmt: skip
    assert fake.asked[2][2] == {"ttl": 9.0, "w": 2, "timeout": 5.0}


def test_a_write_tells_who_holds_it(run: Run, fake: Fake) -> None:
    assert run("put", "k", "word", *SEEDS) == (0, "stored 4 B on n1, n2\n", "")
    assert run("delete", "k", *SEEDS) == (0, "deleted on n3\n", "")


def test_a_missing_file_is_told_before_anyone_is_asked(run: Run, fake: Fake) -> None:
    assert run("put", "k", "@missing", *SEEDS) == (1, "", "kvnode: file not found: missing\n")
    assert fake.asked == []


def test_an_endless_file_is_refused(run: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_INPUT_MAX", 1000)
    status, _, said = run("put", "k", "@/dev/zero", *SEEDS)
    assert (status, said) == (
        1, "kvnode: /dev/zero is larger than 1.0 kB: `kvnode load` stores large files\n",
    )  # fmt: skip


def test_what_the_store_refuses_is_told_in_its_words(run: Run, fake: Fake) -> None:
    fake.error = kvclient.InvalidRequest("r must be 1 to 3, got 9")
    assert run("get", "k", *SEEDS) == (2, "", "kvnode: r must be 1 to 3, got 9\n")
    fake.error = kvclient.Unavailable("1 of 2 replicas")
    assert run("get", "k", *SEEDS) == (1, "", "kvnode: 1 of 2 replicas\n")


def siblings(*values: bytes) -> tuple[kvclient.Sibling, ...]:
    return tuple(
        kvclient.Sibling(f"{i:016x}:1", value, STAMP, False, 0, i == 0)
        for i, value in enumerate(values)
    )


def test_several_values_are_not_passed_off_as_one(run: Run, fake: Fake) -> None:
    fake.record = kvclient.Record(
        b"a", b"", STAMP, siblings(b"a", b"b"), {}, kvclient.Confidence.SIBLINGS
    )
    status, out, said = run("get", "k", *SEEDS)
    assert (status, out) == (1, "")
    assert said.startswith("kvnode: 2 concurrent values")


def test_explain_shows_replicas_votes_and_the_rule(run: Run, fake: Fake) -> None:
    report = kvclient.ReplicaReport("n1", "record", 1.25, ("a:1",), "a:1", True, True, "ok")
    fake.record = kvclient.Record(
        b"a", b"", STAMP, siblings(b"a", b"\x1b"), {"n1": f"{0:016x}:1"},
        kvclient.Confidence.VOTED, kvclient.Explain("most votes", (report,), ("n2",)),
    )  # fmt: skip
    status, out, _ = run("get", "k", *SEEDS, "--explain")
    assert status == 0
    assert out.splitlines() == [
        "value       a",
        "decided by  most votes (voted)",
        "written     2023-11-14 22:13:20.000Z",
        "repaired    n2",
        "",
        "replica\tpart\tanswer\tlatency\tversions\tvote\tchecksum\tproven",
        "n1\tprimary\trecord\t1.2 ms\ta:1\ta:1\tok\tyes",
        "",
        "version\twritten\tvotes\toutcome\tvalue",
        f"{0:016x}:1\t2023-11-14 22:13:20.000Z\t1\twon\ta",
        f"{1:016x}:1\t2023-11-14 22:13:20.000Z\t0\t-\t\\x1b",
    ]


def test_explaining_an_absent_key_shows_who_said_so_and_fails(run: Run, fake: Fake) -> None:
    explain = kvclient.Explain("r replicas agree", (), ())
    fake.record = kvclient.Record(None, b"", 0, explain=explain)
    status, out, _ = run("get", "k", *SEEDS, "--explain")
    assert status == 1
    assert out.startswith("value       absent\ndecided by  r replicas agree (agreed)\n")
